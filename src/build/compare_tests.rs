use proptest::prelude::*;

use super::*;
use crate::{
    error::Kind as ErrorKind,
    system::files::{Planter, Root},
};

/// A tree made by hand.
struct Made {
    dir: tempfile::TempDir,
    root: Root,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let made = Self { dir, root };
        made.directory("/etc").directory("/usr/bin").directory("/var/lib/dpkg/info");
        made.file("/var/lib/dpkg/info/a.list", "/.\n/etc\n/etc/a.conf\n/usr/bin\n/usr/bin/a\n");
        made.file("/var/lib/dpkg/info/b.list", "/.\n/etc\n/usr/bin\n/usr/bin/b\n");
        made
    }

    fn directory(&self, path: &str) -> &Self {
        self.root.make_dir(path, 0o755, Owner::current()).unwrap();
        self
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        self.root.write(path, content.as_ref(), 0o644, Owner::current()).unwrap();
        self
    }

    /// Every time in the tree is the same.
    fn tree(self) -> (tempfile::TempDir, Tree) {
        for found in self.root.census().unwrap() {
            if found.modified != 7 {
                self.root.set_modified(&format!("/{}", found.path), 1_000_000_000).unwrap();
            }
        }
        (self.dir, Tree::read(self.root).unwrap())
    }
}

fn lines(ours: Made, theirs: Made) -> Vec<String> {
    let ((_a, ours), (_b, theirs)) = (ours.tree(), theirs.tree());
    compare(&ours, &theirs, 3).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn the_same_trees_do_not_differ() {
    let make = || {
        let made = Made::new();
        made.file("/etc/a.conf", "1\n").file("/usr/bin/a", vec![0; 200_000]);
        made.root.symlink("a", "/usr/bin/l").unwrap();
        made
    };
    assert_eq!(lines(make(), make()), [""; 0]);
}

#[test]
fn every_difference_is_named_with_its_package() {
    let (ours, theirs) = (Made::new(), Made::new());
    ours.file("/etc/a.conf", "one\ntwo\nthree\n").file("/usr/bin/a", b"\x7fELF\0a").file("/usr/bin/b", "");
    theirs
        .file("/etc/a.conf", "one\nt\two\nthree\n")
        .file("/usr/bin/a", b"\x7fELF\0b")
        .file("/usr/bin/b", "");
    theirs.root.set_mode("/usr/bin/b", 0o755).unwrap();
    ours.file("/etc/only", "x");
    theirs.directory("/etc/there").file("/etc/ld.so.cache", "");
    ours.root.symlink("a", "/usr/bin/link").unwrap();
    theirs.root.symlink("b", "/usr/bin/link").unwrap();
    ours.file("/usr/bin/kind", "");
    theirs.directory("/usr/bin/kind");
    ours.file("/etc/time", "");
    theirs.file("/etc/time", "");
    theirs.root.set_modified("/etc/time", 7).unwrap();
    for made in [&ours, &theirs] {
        made.file("/etc/x1", "").file("/etc/x2", "");
    }
    let mut planter = Planter::new(&ours.root);
    planter.hard(b"etc/x3", b"etc/x1").unwrap();
    let mut planter = Planter::new(&theirs.root);
    planter.hard(b"etc/x3", b"etc/x2").unwrap();
    let me = Owner::current();
    let digest = |content: &[u8]| Digest::of(content).to_string();
    assert_eq!(
        lines(ours, theirs),
        [
            "`/etc/a.conf` differs: size 14 and 15; package a has it".to_owned(),
            format!(
                "`/etc/a.conf` differs: content {} and {}; line 2 is `two` and `t\\two`; package a has it",
                digest(b"one\ntwo\nthree\n"),
                digest(b"one\nt\two\nthree\n")
            ),
            format!(
                "`/etc/ld.so.cache` differs: added, a file of 0 bytes, 0644 {me}; written by the linker's cache \
                 (`ldconfig`)"
            ),
            format!("`/etc/only` differs: removed, a file of 1 bytes, 0644 {me}; no package has it"),
            format!("`/etc/there` differs: added, a directory, 0755 {me}; no package has it"),
            "`/etc/time` differs: time 2001-09-09T01:46:40Z and 1970-01-01T00:00:07Z; no package has it"
                .to_owned(),
            "`/etc/x3` differs: target `/etc/x1` and `/etc/x2`; no package has it".to_owned(),
            format!(
                "`/usr/bin/a` differs: content {} and {}; from byte 5 on; package a has it",
                digest(b"\x7fELF\0a"),
                digest(b"\x7fELF\0b")
            ),
            "`/usr/bin/b` differs: mode 0644 and 0755; package b has it".to_owned(),
            "`/usr/bin/kind` differs: kind a file of 0 bytes and a directory; no package has it".to_owned(),
            "`/usr/bin/link` differs: target `a` and `b`; no package has it".to_owned(),
        ]
    );
}

#[test]
fn owners_devices_and_attributes_are_compared() {
    let entry = |uid, xattrs: &[(&str, &[u8])], device| Entry {
        path: "dev/x".to_owned(),
        kind: Kind::Character { device },
        mode: 0o600,
        uid,
        gid: 0,
        modified: 0,
        xattrs: xattrs.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
    };
    let a = entry(0, &[("security.capability", &[1; 40]), ("user.same", b"x")], (1, 3));
    let b = entry(5, &[("user.same", b"x")], (1, 5));
    let mut found = Vec::new();
    entries(&a, &b, &mut found);
    let found: Vec<_> = found.iter().map(|found| (found.1, found.2.as_deref(), found.3.as_deref())).collect();
    let shown = format!("security.capability=0x{}…", "01".repeat(32));
    assert_eq!(
        found,
        [
            (What::Target, Some("1:3"), Some("1:5")),
            (What::Owner, Some("0:0"), Some("5:0")),
            (What::Xattrs, Some(&*shown), Some("none")),
        ]
    );
}

#[test]
fn a_long_line_is_cut_around_what_differs() {
    let (ours, theirs) = (Made::new(), Made::new());
    let line = |end: &str| format!("first\n{}é{end}{}\n", "é".repeat(500), "y".repeat(100_000));
    ours.file("/etc/a.conf", line("A\x1b["));
    theirs.file("/etc/a.conf", line("B"));
    let ((_a, ours), (_b, theirs)) = (ours.tree(), theirs.tree());
    let found = compare(&ours, &theirs, 1).unwrap();
    let content = found.iter().find(|found| found.what == What::Content).unwrap();
    let Some(Place { byte, line: Some(line) }) = &content.place else { panic!("{content:?}") };
    assert_eq!((*byte, line.number), (6 + 1002, 2));
    assert!(line.ours.starts_with("…éé") && line.ours.contains("éA\\u{1b}[yy"), "{}", line.ours);
    assert!(line.ours.ends_with("y…") && line.ours.len() < 300, "{}", line.ours);
    let error = error(&found).unwrap();
    assert_eq!(error.kind(), ErrorKind::Check);
    assert!(error.message().contains("`/etc/a.conf` differs: size"), "{error}");
    assert!(super::error(&[]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_first_byte_that_differs_is_found(
        same in proptest::collection::vec(any::<u8>(), 0..300),
        filler in 0_usize..3,
        a in proptest::collection::vec(any::<u8>(), 0..5),
        b in proptest::collection::vec(any::<u8>(), 0..5),
    ) {
        let mut start = vec![b'x'; filler * CHUNK];
        start.extend(&same);
        let whole = |end: &[u8]| [start.as_slice(), end].concat();
        let file = |end: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &whole(end)).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            file
        };
        let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
        let expected = (a != b).then_some((start.len() + common) as u64);
        let (mut first, mut second) = (file(&a), file(&b));
        prop_assert_eq!(first_difference(&mut first, &mut second).unwrap(), expected);
        if let Some(byte) = expected {
            prop_assert_eq!(judged(&mut first, byte).unwrap().digest, Digest::of(whole(&a)));
        }
    }
}
