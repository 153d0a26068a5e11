//! A secret's value is where a container needs it, and nowhere else.

use std::{io::Read, path::Path};

use base64::Engine as _;

use crate::support::{Machine, Secrets, served, turn};

#[test]
fn secrets_are_in_no_inspection_argument_log_or_disk() {
    let _turn = turn();
    let (machine, site) = served();
    // The engine has its key and the agent its token, so there is something to leak.
    machine.assert_serves(&site);
    machine.sh("curl -sf http://127.0.0.1:8080/readyz");

    let seen = [
        ("docker inspect", "docker inspect $(docker ps -aq) $(docker images -q)"),
        ("docker logs", "for id in $(docker ps -aq); do docker logs $id 2>&1; done"),
        ("ps", "ps axww -o args"),
        ("the journal", "journalctl --no-pager -a -o export"),
        ("the kernel log", "dmesg"),
        ("the manager's environment", "systemctl show-environment; systemctl cat 'bedplate*'"),
        ("layer 1", "bedplate doctor -v --format json"),
        ("the status", "bedplate status try -v; bedplate generations list -v"),
        (
            "the rendered deployment",
            "bedplate render -f $(find -L /var/lib/bedplate/current -name try.yaml | head -n 1)",
        ),
    ];
    for (what, command) in seen {
        let run = machine.script(&format!("{command} || true")).expect(0);
        for (name, value) in site.secrets.all() {
            assert!(
                !run.stdout.contains(value) && !run.stderr.contains(value),
                "the value of {name} is in {what}"
            );
        }
    }
    assert_eq!(machine.sh("swapon --show --noheadings"), "", "swap could hold a secret");
    assert_disk_has_no_secret(machine, site.secrets);
}

/// Looks through the raw disk and the console, for each value as it is and in base64.
pub(super) fn assert_disk_has_no_secret(machine: &Machine, secrets: &Secrets) {
    // A marker proves that what the machine writes is found.
    let marker = format!("marker-{}-{}", std::process::id(), machine.generation());
    machine.sh(&format!("echo {marker} >/root/marker && sync && rm /root/marker"));
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD;
    let disk = machine.disk();
    assert!(holds(&disk, marker.as_bytes()), "the disk was not looked through as it should");
    for (name, value) in secrets.all() {
        // Without the last group, which depends on what follows.
        let encoded = base64.encode(&value[..value.len() / 3 * 3]);
        for needle in [value, &encoded] {
            assert!(!holds(&disk, needle.as_bytes()), "the value of {name} is on the disk");
            assert!(!holds(&machine.console(), needle.as_bytes()), "the value of {name} is on the console");
        }
    }
}

/// Whether a file holds `needle`, also across the borders of what is read at once.
fn holds(path: &Path, needle: &[u8]) -> bool {
    let mut file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let finder = Finder::new(needle);
    let mut buffer = vec![0_u8; 8 << 20];
    let mut kept = 0;
    loop {
        let read = file.read(&mut buffer[kept..]).expect("the file reads");
        if read == 0 {
            return false;
        }
        let end = kept + read;
        if finder.is_in(&buffer[..end]) {
            return true;
        }
        kept = (needle.len() - 1).min(end);
        buffer.copy_within(end - kept..end, 0);
    }
}

/// Boyer, Moore and Horspool's search: an unoptimised build looks through gigabytes.
struct Finder<'a> {
    needle: &'a [u8],
    skip: [usize; 256],
}

impl<'a> Finder<'a> {
    fn new(needle: &'a [u8]) -> Self {
        let mut skip = [needle.len(); 256];
        for (at, byte) in needle[..needle.len() - 1].iter().enumerate() {
            skip[usize::from(*byte)] = needle.len() - 1 - at;
        }
        Self { needle, skip }
    }

    fn is_in(&self, text: &[u8]) -> bool {
        let last = self.needle.len() - 1;
        let mut at = 0;
        while at + last < text.len() {
            if text[at..].starts_with(self.needle) {
                return true;
            }
            at += self.skip[usize::from(text[at + last])];
        }
        false
    }
}

#[test]
fn the_search_finds_what_lies_across_a_border() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    let mut bytes = vec![b'x'; (8 << 20) - 5];
    bytes.extend_from_slice(b"needle in a haystack");
    bytes.extend_from_slice(&[b'y'; 1000]);
    std::fs::write(&path, &bytes).expect("written");
    assert!(holds(&path, b"needle in a haystack"));
    assert!(!holds(&path, b"needle in a haystacks"));
    assert!(holds(&path, b"kyy"));
}
