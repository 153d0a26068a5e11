//! Images of a small tree, written by the real writers, changed byte by byte.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    io::Write as _,
    num::NonZero,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use md5::{Digest as _, Md5};
use tempfile::TempDir;

use super::*;
use crate::{
    build::{
        record::{Disk as DiskParts, Oci, Parts, SCHEMA},
        tree::Tree,
        verify::{Class, Outcome},
        write::{
            disk::{self, FileSystem, Sizes, ids::Ids, tools::Tools, uki},
            layers::{Group, split},
            oci,
            sample::{directory, file, hard, link, tree},
            tar,
        },
    },
    digest::Digest,
    error::Kind,
    lock::LockedPackage,
    system::files::{read_input, write_output},
};

const THREADS: NonZero<u32> = NonZero::<u32>::MIN;

/// Images of one small tree, with their record.
struct Made {
    dir: TempDir,
    lock: Lock,
    _tree: TempDir,
    tree: Tree,
    parts: Parts,
}

impl Made {
    fn new() -> Self {
        let package = LockedPackage {
            repository: "debian".to_owned(),
            name: "tool".to_owned(),
            version: "1-1".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: Digest::of("tool"),
            size: 1,
            path: "pool/tool.deb".to_owned(),
            depends: Vec::new(),
            wanted_by: Vec::new(),
        };
        let lock = Lock { packages: vec![package], ..Lock::default() };
        let record = record_of(&lock, None).write().unwrap();
        let program = "a program\n".repeat(300);
        let md5 = |content: &str| hex::encode(Md5::digest(content));
        let long = format!("usr/share/{}", "long".repeat(40));
        let status = format!(
            "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1-1\nConffiles:\n /etc/tool {}\n",
            md5("set")
        );
        let list = format!("/.\n/bin/tool\n/usr/bin/other\n/usr/bin/link\n/etc/tool\n/{long}\n");
        let sums = format!(
            "{}  bin/tool\n{}  usr/bin/other\n{}  {long}\n",
            md5(&program),
            md5(&program),
            md5("long")
        );
        let files = [
            ("etc/tool", "set"),
            ("usr/bin/other", &program),
            (&long, "long"),
            ("usr/lib/bedplate/record.json", &record),
            ("var/lib/dpkg/info/tool.list", &list),
            ("var/lib/dpkg/info/tool.md5sums", &sums),
            ("var/lib/dpkg/status", &status),
            ("var/made", "by nobody"),
        ];
        let others =
            ["", "etc", "usr", "usr/bin", "usr/share", "usr/lib", "usr/lib/bedplate", "var", "var/lib"]
                .into_iter()
                .chain(["var/lib/dpkg", "var/lib/dpkg/info", "var/lib/dpkg/updates"])
                .map(directory)
                .chain([
                    link("bin", "usr/bin"),
                    link("usr/bin/link", "tool"),
                    hard("usr/bin/tool", "usr/bin/other"),
                ]);
        let files = files.map(|(path, content)| file(path, content)).to_vec();
        let (kept, tree) = tree(files, others.collect());
        let dir = tempfile::tempdir().unwrap();
        Self { dir, lock, _tree: kept, tree, parts: Parts::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tar(&mut self, compression: Compression) -> PathBuf {
        let name = if compression == Compression::None { "one.tar" } else { "one.tar.zst" };
        let path = self.path(name);
        let stored = tar::save(&self.tree, &path, compression, THREADS).unwrap().stored;
        self.parts.files.insert(name.to_owned(), stored);
        self.record();
        path
    }

    fn layout(&mut self) -> PathBuf {
        let owner = |path: &str| Some(if path.starts_with("var") { Group::Database } else { Group::Base });
        let options = oci::Options {
            name: "one".to_owned(),
            created: 1_700_000_000,
            architecture: "amd64".to_owned(),
            compression: Compression::Gzip,
            threads: THREADS,
            newest: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        let path = self.path("one.oci");
        let image = oci::write(&self.tree, &split(self.tree.entries(), &owner), &options, &path).unwrap();
        self.parts.oci = Some(Oci {
            manifest: image.manifest,
            config: image.config,
            layers: image.layers.iter().map(|layer| layer.blob).collect(),
        });
        self.record();
        path
    }

    fn disk(&mut self) -> PathBuf {
        let ids = Ids::new(&self.lock.digest());
        let stub = uki::tests::stub();
        let parts = uki::Parts {
            os_release: "ID=debian\n",
            command_line: "quiet",
            release: "6.12.1",
            kernel: &vec![b'k'; 70_000],
            initrd: b"initrd",
        };
        let made = disk::Disk {
            tree: &self.tree,
            tools: &Tools::new(Path::new("/")).unwrap(),
            boot: disk::Boot { name: "one", loader: b"a loader", stub: &stub, parts },
            file_system: FileSystem::Ext4,
            sizes: Sizes { esp: 34, root: 16 },
            ids,
            time: 1_700_000_000,
        };
        let path = self.path("one.disk");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let written = runtime.block_on(disk::write_raw(&made, &path, self.dir.path())).unwrap();
        self.parts.files.insert("one.disk".to_owned(), written.disk);
        let disk::Written { esp, uki: kernel, root, .. } = written;
        self.parts.disk = Some(DiskParts { esp, kernel, root });
        self.record();
        path
    }

    fn record(&self) {
        let text = record_of(&self.lock, Some(self.parts.clone())).write().unwrap();
        write_output(&self.path("one.record.json"), text.as_bytes(), 0o644).unwrap();
    }

    fn forget_record(&self) {
        rustix::fs::unlink(self.path("one.record.json")).unwrap();
    }

    fn report(&self, path: &Path) -> Report {
        verify(path, Some(&self.lock), &|_| Ok(None), 2).unwrap()
    }

    /// Everything that was found, a line each, sorted.
    fn lines(&self, path: &Path) -> Vec<String> {
        let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let report = self.report(path);
        let outcome = if report.findings.iter().any(|found| found.class == Class::Difference) {
            Outcome::Differs
        } else if report.findings.iter().any(|found| found.class == Class::Unverifiable) {
            Outcome::Unverifiable
        } else {
            Outcome::Same
        };
        assert_eq!(report.outcome, outcome);
        let line = |found: Finding| {
            let what = serde_json::to_value(found.what).unwrap();
            let part = or(found.part);
            let part = part.split_once(" blobs/").map_or(&*part, |(what, _)| what);
            let why = if found.expected.is_none() { or(found.found) } else { "digests".to_owned() };
            format!("{} {part} {} {why}", what.as_str().unwrap(), or(found.path))
        };
        let mut lines: Vec<String> = report.findings.into_iter().map(line).collect();
        lines.sort();
        lines
    }
}

fn record_of(lock: &Lock, parts: Option<Parts>) -> Record {
    Record {
        schema: SCHEMA,
        image: "one".to_owned(),
        definition: Digest::of("definition"),
        lock: lock.digest(),
        inputs: Digest::of("inputs"),
        tool: "0.1.0".to_owned(),
        program: parts.as_ref().map(|_| Digest::of("program")),
        time: 1_700_000_000,
        modules: BTreeMap::new(),
        parts,
    }
}

/// Changes some bytes of a file where it lies; the same call again undoes it.
fn change(path: &Path, at: usize, count: usize, by: u8) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; count];
    file.read_exact_at(&mut bytes, at as u64).unwrap();
    for byte in &mut bytes {
        *byte ^= by;
    }
    file.write_all_at(&bytes, at as u64).unwrap();
}

fn flip(path: &Path, at: usize) {
    change(path, at, 1, 1);
}

/// Where a text is in a file.
fn place(path: &Path, text: &[u8]) -> usize {
    memchr::memmem::find(&read_input(path, 1 << 30).unwrap(), text).expect("it is there")
}

#[test]
fn what_is_as_it_was_written_is_the_same() {
    let mut made = Made::new();
    let all = [made.tar(Compression::None), made.tar(Compression::Zstd), made.layout()];
    for path in &all {
        let report = made.report(path);
        assert_eq!(report.findings, [], "{}", path.display());
        assert_eq!((report.counts.files, report.counts.locked, report.counts.installed), (4, 1, 1));
        assert_eq!(report.image.unwrap().record, Held::Beside);
        assert_eq!(report.unseen, [UNSEEN_RECORDED]);
    }
    // With another lock, and without one.
    let other = Lock::default();
    let report = verify(&all[0], Some(&other), &|_| Ok(None), 1).unwrap();
    let found: Vec<What> = report.findings.iter().map(|finding| finding.what).collect();
    assert_eq!(found, [What::OtherLock, What::NotLocked]);
    let report = verify(&all[0], None, &|_| Ok(None), 1).unwrap();
    assert_eq!((report.outcome, report.lock), (Outcome::Same, Some(made.lock.digest())));
    assert_eq!(report.unseen, [UNSEEN_RECORDED, UNSEEN_UNLOCKED]);
    let report = verify(&all[0], None, &|_| Ok(Some(made.lock.clone())), 1).unwrap();
    assert_eq!((report.outcome, report.counts.locked), (Outcome::Same, 1));
    // By the tree alone.
    made.forget_record();
    for path in &all {
        let report = made.report(path);
        assert_eq!((report.outcome, report.image.unwrap().record), (Outcome::Same, Held::InTree));
        assert!(report.unseen.len() >= UNSEEN.len());
    }
}

#[test]
fn the_path_with_a_changed_byte_is_named() {
    let mut made = Made::new();
    let path = made.tar(Compression::None);
    let (program, header) = (place(&path, b"a program"), place(&path, b"usr/bin/other"));
    let behind = place(&path, b"set\0") + 20;
    let of_digest = "part one.tar - digests".to_owned();
    for (at, expected) in [
        (program, "content one.tar /usr/bin/other digests".to_owned()),
        (place(&path, b"set\0"), "conffile one.tar /etc/tool digests".to_owned()),
        (
            header + 4,
            format!(
                "damaged one.tar - the header of `/usr/cin/other` at byte {header} does not fit its checksum"
            ),
        ),
        (
            behind,
            format!("damaged one.tar - byte {behind} is not zero, which is behind the end of `/etc/tool`"),
        ),
    ] {
        flip(&path, at);
        let lines = made.lines(&path);
        assert!(lines.contains(&of_digest) && lines.contains(&expected), "{expected}: {lines:?}");
        flip(&path, at);
    }
    // No package has it, and no header is at fault: the digest is all there is.
    flip(&path, place(&path, b"by nobody"));
    assert_eq!(made.lines(&path), [of_digest.as_str()]);
    // The tree alone cannot tell of that, but of a program.
    made.forget_record();
    assert_eq!(made.report(&path).outcome, Outcome::Same);
    flip(&path, program);
    // A hard link is the same file; `/bin/tool` is where dpkg's list has it.
    assert_eq!(
        made.lines(&path),
        ["content one.tar /bin/tool digests", "content one.tar /usr/bin/other digests"]
    );
}

#[test]
fn no_changed_byte_goes_unseen_and_none_stops_the_program() {
    let mut made = Made::new();
    for path in [made.tar(Compression::None), made.tar(Compression::Zstd)] {
        let content = read_input(&path, 1 << 30).unwrap();
        for at in (0..content.len()).step_by(content.len() / 150) {
            change(&path, at, 1, 0x41);
            assert_eq!(made.report(&path).outcome, Outcome::Differs, "{} at {at}", path.display());
            change(&path, at, 1, 0x41);
        }
        for length in (1..content.len()).step_by(content.len() / 40) {
            write_output(&path, &content[..length], 0o644).unwrap();
            let lines = made.lines(&path);
            assert!(lines.iter().any(|line| line.starts_with("part")), "{length}: {lines:?}");
            assert!(lines.iter().any(|line| line.starts_with("damaged")), "{length}: {lines:?}");
        }
        write_output(&path, b"", 0o644).unwrap();
        assert!(made.lines(&path).iter().any(|line| line.contains("it ends too early")));
    }
    made.forget_record();
    let path = made.tar(Compression::None);
    made.forget_record();
    let content = read_input(&path, 1 << 30).unwrap();
    write_output(&path, &content[..5000], 0o644).unwrap();
    let lines = made.lines(&path);
    assert!(lines[0].starts_with("damaged one.tar - it ends too early, within `/usr/"), "{lines:?}");
}

/// A header of a tar archive.
fn header(path: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    let fields = header.as_ustar_mut().unwrap();
    fields.name[..path.len()].copy_from_slice(path.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    fields.typeflag = [kind];
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn hostile_archives_are_refused() {
    let made = Made::new();
    let path = made.path("bad.tar");
    let top = header("./", b'5', 0, "");
    let long = format!("{} path={}\n", 4096 + 11, "p".repeat(4096));
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("`/../etc/passwd` is no path within the tree", vec![header("../etc/passwd", b'0', 0, "")]),
        ("`//etc` is no path within the tree", vec![header("/etc", b'0', 0, "")]),
        ("`/a/b` lies in no directory", vec![header("a", b'2', 0, "/etc"), header("a/b", b'0', 0, "")]),
        ("`/b` out of order", vec![header("c", b'0', 0, ""), header("b", b'0', 0, "")]),
        ("`/a` out of order", vec![header("a", b'0', 0, ""), header("a", b'0', 0, "")]),
        ("is a hard link to `/../etc/shadow`", vec![header("a", b'1', 0, "../etc/shadow")]),
        ("`/a`, of a kind no build writes", vec![header("a", b'L', 0, "")]),
        ("`/a` with a content, which is no file", vec![header("a", b'5', 600, "")]),
        ("takes a file away", vec![header(".wh.a", b'0', 0, "")]),
        ("an extended header of more than 1024 KiB", vec![header("x", b'x', 8 << 30, "")]),
        ("the extended header at byte 512 cannot be read", vec![header("x", b'x', 512, ""), vec![b'9'; 512]]),
        (
            "it ends too early, within `/var/lib/dpkg`",
            vec![
                header("var", b'5', 0, ""),
                header("var/lib", b'5', 0, ""),
                header("var/lib/dpkg", b'0', 5000, ""),
            ],
        ),
        (
            "is larger than 256 MiB",
            vec![
                header("var", b'5', 0, ""),
                header("var/lib", b'5', 0, ""),
                header("var/lib/dpkg", b'0', 6 << 30, ""),
            ],
        ),
        ("it ends too early", vec![header("x", b'x', long.len() as u64, "")]),
    ];
    for (words, blocks) in cases {
        let content = [std::slice::from_ref(&top), &blocks[..]].concat().concat();
        write_output(&path, &content, 0o644).unwrap();
        let lines = made.lines(&path);
        assert!(lines.iter().any(|line| line.contains(words)), "{words}: {lines:?}");
        assert_ne!(made.report(&path).outcome, Outcome::Same);
    }
    // A bomb: a file of zeros, a ten-thousandth of its size when compressed.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&top).unwrap();
    encoder.write_all(&header("bomb", b'0', 1 << 30, "")).unwrap();
    for _ in 0..96 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    write_output(&made.path("bad.tar.zst"), &encoder.finish().unwrap(), 0o644).unwrap();
    let lines = made.lines(&made.path("bad.tar.zst"));
    assert!(lines.iter().any(|line| line.contains("as a bomb does")), "{lines:?}");
}

#[test]
fn what_is_no_image_is_a_usage_error_unless_a_record_names_it() {
    let mut made = Made::new();
    let error = |path: &Path| verify(path, None, &|_| Ok(None), 1).unwrap_err();
    for content in [&b""[..], b"a text\n", &[0; 4096]] {
        write_output(&made.path("x"), content, 0o644).unwrap();
        let error = error(&made.path("x"));
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().contains("is no image"), "{error}");
    }
    let path = made.tar(Compression::Zstd);
    write_output(&path, b"a text\n", 0o644).unwrap();
    assert_eq!(made.report(&path).outcome, Outcome::Differs);
    // A record that cannot be read is no reason to believe the image.
    for text in ["", "{}", "{\"schema\": 9}"] {
        write_output(&made.path("one.record.json"), text.as_bytes(), 0o644).unwrap();
        assert_eq!(error(&path).kind(), Kind::Check, "{text}");
    }
    // One that does not name the image says nothing of it.
    let path = made.tar(Compression::None);
    made.parts = Parts::default();
    made.record();
    assert_eq!(made.lines(&path), ["no-record one.tar - `one.record.json` does not name it"]);
    // One of another build.
    made.lock.packages[0].version = "2".to_owned();
    made.tar(Compression::None);
    let lines = made.lines(&path);
    assert!(lines.contains(&"other-record one.tar /usr/lib/bedplate/record.json -".to_owned()), "{lines:?}");
}

#[test]
fn a_layout_is_held_blob_by_blob() {
    let mut made = Made::new();
    let path = made.layout();
    let oci = made.parts.oci.clone().unwrap();
    let blob = |part: Part| path.join("blobs/sha256").join(part.digest.hex());
    let flipped = |at: &Path, place: usize| {
        flip(at, place);
        let lines = made.lines(&path);
        flip(at, place);
        lines
    };
    let size = usize::try_from(oci.layers[0].size).unwrap();
    for at in (0..size).step_by(size / 20) {
        let lines = flipped(&blob(oci.layers[0]), at);
        assert!(lines.contains(&"part layer - digests".to_owned()), "{at}: {lines:?}");
    }
    assert_eq!(flipped(&blob(oci.config), 20), ["part configuration - digests"]);
    assert_eq!(flipped(&blob(oci.manifest), 20), ["part manifest - digests"]);
    assert_eq!(flipped(&path.join("index.json"), 20), ["damaged index.json - it differs from byte 20 on"]);
    assert_eq!(flipped(&path.join("oci-layout"), 0), ["damaged oci-layout - it differs from byte 0 on"]);

    // A layer with another program: its path is named, by the record or by the manifest alone.
    let mut plain = Vec::new();
    let packed = read_input(&blob(oci.layers[0]), 1 << 20).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&*packed), &mut plain).unwrap();
    let at = memchr::memmem::find(&plain, b"a program").unwrap();
    plain[at] ^= 1;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    write_output(&blob(oci.layers[0]), &encoder.finish().unwrap(), 0o644).unwrap();
    let named = [
        "content one.oci /bin/tool digests",
        "content one.oci /usr/bin/other digests",
        "part layer - digests",
    ];
    assert_eq!(made.lines(&path), named);
    made.forget_record();
    assert_eq!(made.lines(&path), named);
    made.record();
    rustix::fs::unlink(blob(oci.layers[1])).unwrap();
    assert!(made.lines(&path).contains(&"part-missing layer - -".to_owned()));
    made.forget_record();
    for text in ["", "{}", "{\"manifests\": [{}]}"] {
        write_output(&path.join("index.json"), text.as_bytes(), 0o644).unwrap();
        let lines = made.lines(&path);
        assert!(lines[0].starts_with("damaged index.json"), "{lines:?}");
    }
}

#[test]
fn a_disk_is_held_partition_by_partition() {
    let mut made = Made::new();
    let path = made.disk();
    assert_eq!(made.lines(&path), Vec::<String>::new());
    let (kernel, program) = (place(&path, &[b'k'; 4096]), place(&path, b"a program"));
    let of_disk = "part one.disk - digests";
    let cases: [(usize, &[&str]); 6] = [
        (
            kernel,
            &[
                "part EFI system partition - digests",
                "part EFI system partition /EFI/Linux/one.efi digests",
                of_disk,
            ],
        ),
        (place(&path, b"a loader"), &["part EFI system partition - digests", of_disk]),
        (
            program,
            &[
                "content one.disk /bin/tool digests",
                "content one.disk /usr/bin/other digests",
                of_disk,
                "part root partition - digests",
            ],
        ),
        (place(&path, b"by nobody"), &[of_disk, "part root partition - digests"]),
        (1100, &["damaged partition table - byte 1100 of the disk is not what sizes and lock give", of_disk]),
        (520, &["damaged partition table - byte 520 of the disk is not what sizes and lock give", of_disk]),
    ];
    for (at, expected) in cases {
        flip(&path, at);
        assert_eq!(made.lines(&path), expected, "{at}");
        flip(&path, at);
    }

    // The same in qcow2.
    let qcow2 = made.path("one.qcow2");
    let convert = |made: &mut Made| {
        disk::qcow2::convert(&path, &qcow2, disk::qcow2::Compression::Zstd).unwrap();
        let content = read_input(&qcow2, 1 << 30).unwrap();
        made.parts.files.insert("one.qcow2".to_owned(), Part::of(&content));
        content
    };
    let content = convert(&mut made);
    made.record();
    assert_eq!(made.lines(&qcow2), Vec::<String>::new());
    flip(&path, program);
    convert(&mut made);
    flip(&path, program);
    assert_eq!(
        made.lines(&qcow2),
        [
            "content one.qcow2 /bin/tool digests",
            "content one.qcow2 /usr/bin/other digests",
            "part one.qcow2 - digests",
            "part root partition - digests"
        ]
    );
    for at in (0..content.len()).step_by(content.len() / 12) {
        change(&qcow2, at, 1, 0x41);
        assert_eq!(made.report(&qcow2).outcome, Outcome::Differs, "{at}");
        change(&qcow2, at, 1, 0x41);
    }

    // By the tree alone: the EFI system partition cannot be held against anything.
    made.forget_record();
    let unknown = "no-record EFI system partition - -";
    assert_eq!(made.lines(&path), [unknown]);
    write_output(&qcow2, &content, 0o644).unwrap();
    assert_eq!(made.lines(&qcow2), [unknown]);
    flip(&path, program);
    flip(&path, 1100);
    assert_eq!(
        made.lines(&path),
        [
            "content one.disk /bin/tool digests",
            "content one.disk /usr/bin/other digests",
            "damaged partition table - byte 1100 of the disk is not what sizes and lock give",
            unknown
        ]
    );
    // What is broken in the file system is told, and ends.
    let content = read_input(&path, 1 << 30).unwrap();
    let root = 35 << 20;
    for at in (root..root + (4 << 20)).step_by(40_961) {
        change(&path, at, 64, 0xa5);
        made.report(&path);
        change(&path, at, 64, 0xa5);
    }
    write_output(&path, &content[..root + 100_000], 0o644).unwrap();
    let lines = made.lines(&path);
    assert!(lines.iter().any(|line| line.contains("it ends too early")), "{lines:?}");
}
