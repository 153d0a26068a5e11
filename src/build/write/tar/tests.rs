#![allow(clippy::disallowed_methods)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

use proptest::prelude::*;

use super::*;
use crate::build::write::sample::{self, directory, entry, everything, file, hard, link, tree};

const ONE: NonZero<u32> = NonZero::<u32>::MIN;

/// The archive of a tree.
fn archive(tree: &Tree) -> Vec<u8> {
    let (bytes, content) = write(tree, tree.entries(), None, Vec::new()).unwrap();
    assert_eq!(content, Content::of(&bytes));
    bytes
}

/// Reads an archive with the `tar` crate's raw entries, and the extended headers as the standard says.
fn read(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut out = Vec::new();
    let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for found in ::tar::Archive::new(bytes).entries().unwrap().raw(true) {
        let mut found = found.unwrap();
        let mut content = Vec::new();
        found.read_to_end(&mut content).unwrap();
        let header = found.header().clone();
        let fields = header.as_ustar().expect("a ustar header");
        assert!(fields.uname.iter().chain(&fields.gname).chain(&fields.prefix).all(|byte| *byte == 0));
        if header.entry_type() == EntryType::XHeader {
            assert!(records.is_empty());
            let mut rest = content.as_slice();
            while !rest.is_empty() {
                let blank = rest.iter().position(|byte| *byte == b' ').unwrap();
                let length: usize = std::str::from_utf8(&rest[..blank]).unwrap().parse().unwrap();
                let equals = rest.iter().position(|byte| *byte == b'=').unwrap();
                let keyword = String::from_utf8(rest[blank + 1..equals].to_vec()).unwrap();
                assert_eq!(rest[length - 1], b'\n');
                records.insert(keyword, rest[equals + 1..length - 1].to_vec());
                rest = &rest[length..];
            }
            continue;
        }
        let mut text = |keyword: &str, field: Vec<u8>| {
            String::from_utf8(records.remove(keyword).unwrap_or(field)).unwrap()
        };
        let path = text("path", header.path_bytes().into_owned());
        let target = text("linkpath", header.link_name_bytes().unwrap_or_default().into_owned());
        let mut number = |keyword: &str, field: u64| match records.remove(keyword) {
            Some(value) => String::from_utf8(value).unwrap().parse::<i64>().unwrap(),
            None => i64::try_from(field).unwrap(),
        };
        let device = || {
            let part = |part: io::Result<Option<u32>>| part.unwrap().unwrap();
            (part(header.device_major()), part(header.device_minor()))
        };
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular => {
                let size = u64::try_from(number("size", header.size().unwrap())).unwrap();
                Kind::File { size }
            }
            EntryType::Link => Kind::Hard { to: target },
            EntryType::Symlink => Kind::Link { target },
            EntryType::Char => Kind::Character { device: device() },
            EntryType::Block => Kind::Block { device: device() },
            EntryType::Fifo => Kind::Fifo,
            other => panic!("{other:?}"),
        };
        let entry = Entry {
            path: if path == "./" { String::new() } else { path.trim_end_matches('/').to_owned() },
            kind,
            mode: header.mode().unwrap(),
            uid: u32::try_from(number("uid", header.uid().unwrap())).unwrap(),
            gid: u32::try_from(number("gid", header.gid().unwrap())).unwrap(),
            modified: number("mtime", header.mtime().unwrap()),
            xattrs: std::mem::take(&mut records)
                .into_iter()
                .map(|(keyword, value)| (keyword.strip_prefix("SCHILY.xattr.").unwrap().to_owned(), value))
                .collect(),
        };
        out.push((entry, content));
    }
    out
}

#[test]
fn what_is_read_back_is_what_was_there() {
    let (dir, tree) = everything();
    let found = read(&archive(&tree));
    let entries: Vec<Entry> = found.iter().map(|(entry, _)| entry.clone()).collect();
    assert_eq!(entries, tree.entries());
    for (entry, content) in found {
        if let Kind::File { .. } = entry.kind {
            assert_eq!(content, fs::read(dir.path().join(&entry.path)).unwrap(), "{}", entry.path);
        }
    }
}

#[test]
fn the_crate_itself_reads_the_same() {
    let (_dir, tree) = everything();
    let bytes = archive(&tree);
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    let mut found = archive.entries().unwrap();
    for entry in tree.entries() {
        let there = found.next().unwrap().unwrap();
        let path = String::from_utf8(there.path_bytes().into_owned()).unwrap();
        assert_eq!(path.trim_end_matches('/').trim_start_matches('.'), entry.path);
        assert_eq!(there.header().uid().unwrap(), u64::from(entry.uid));
        assert_eq!(there.header().gid().unwrap(), u64::from(entry.gid));
        assert_eq!(there.header().mode().unwrap(), entry.mode);
        if let Kind::Link { target } | Kind::Hard { to: target } = &entry.kind {
            assert_eq!(there.link_name_bytes().unwrap(), target.as_bytes());
        }
    }
    assert!(found.next().is_none());
}

#[test]
fn gnu_tar_restores_it() {
    let (_dir, tree) = everything();
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("tree.tar");
    save(&tree, &file, Compression::None, ONE).unwrap();
    let listed = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&file).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let has = |parts: &[&str]| listed.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&["crw-rw-rw- 0/0", " 1,3 ", " dev/null"]), "{listed}");
    assert!(has(&["brw-r--r-- 0/0", " 254,1048575 ", " dev/vda"]), "{listed}");
    assert!(has(&["-rw-r--r-- 3000000000/2097152", " 6000 ", " home/owned"]), "{listed}");
    assert!(has(&["hrwsr-xr-x 0/0", "usr/bin/suu link to usr/bin/su"]), "{listed}");

    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: what GNU tar unpacks is not tested");
        return;
    }
    let out = to.path().join("out");
    fs::create_dir(&out).unwrap();
    let unpacked = Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=dev/*", "-xpf"])
        .arg(&file)
        .arg("-C")
        .arg(&out)
        .output()
        .unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    for entry in tree.entries().iter().filter(|entry| !entry.path.starts_with("dev/")) {
        let path = out.join(&entry.path);
        let meta = path.symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (entry.uid, entry.gid), "{path:?}");
        assert_eq!(meta.mtime(), entry.modified, "{path:?}");
        if !meta.is_symlink() {
            assert_eq!(meta.permissions().mode() & 0o7777, entry.mode, "{path:?}");
        }
        match &entry.kind {
            Kind::Hard { to } => assert_eq!(meta.ino(), out.join(to).metadata().unwrap().ino()),
            Kind::Link { target } => assert_eq!(fs::read_link(&path).unwrap(), Path::new(target)),
            Kind::File { size } => assert_eq!(meta.len(), *size),
            _ => {}
        }
        for (name, value) in &entry.xattrs {
            let mut buffer = [0; 256];
            let count = rustix::fs::lgetxattr(&path, name.as_str(), &mut buffer).unwrap();
            assert_eq!(&buffer[..count], value, "{path:?}: {name}");
        }
    }
}

#[test]
fn a_file_of_more_than_eight_gibibytes() {
    for size in [8_589_934_591, 8_589_934_592, 9_000_000_000_000] {
        let mut bytes = header(&entry("var/large", Kind::File { size }), None).unwrap();
        assert_eq!(bytes.len(), if size >> 33 == 0 { BLOCK } else { 3 * BLOCK });
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        assert_eq!(archive.entries().unwrap().next().unwrap().unwrap().size(), size);
        // GNU tar shows what it finds before it misses the content.
        bytes.resize(10_240, 0);
        let mut child = Command::new("tar")
            .args(["-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let shown = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(shown.contains(&format!(" {size} ")), "{shown}");
    }
    assert!(header(&entry("x", Kind::File { size: u64::MAX }), None).is_err());
}

#[test]
fn times_end_with_the_latest() {
    let mut early = directory("early");
    early.modified = 5;
    let (_dir, tree) = tree(vec![], vec![early, directory("late")]);
    let (bytes, _) = write(&tree, tree.entries(), Some(1000), Vec::new()).unwrap();
    let times: Vec<i64> = read(&bytes).iter().map(|(entry, _)| entry.modified).collect();
    assert_eq!(times, [5, 1000]);
}

#[test]
fn the_order_of_what_comes_in_changes_nothing() {
    let (dir, tree) = everything();
    let mut entries = tree.entries().to_vec();
    entries.reverse();
    let turned = Tree::new(crate::system::files::Root::open(dir.path()).unwrap(), entries);
    let bytes = archive(&tree);
    assert!(bytes == archive(&turned));
    let (_other, again) = everything();
    assert!(bytes == archive(&again));
}

/// These bytes are a promise: whoever has the same lock has them. They change only with a new version of the image format.
#[test]
fn the_bytes_are_those_of_the_first_version() {
    let (dir, tree) = everything();
    let all = [Compression::None, Compression::Gzip, Compression::Zstd].map(|compression| {
        let path = dir.path().join("out");
        let archive = save(&tree, &path, compression, NonZero::new(2).unwrap()).unwrap();
        assert_eq!(archive.stored, Content::of(&fs::read(&path).unwrap()));
        archive.stored.digest.hex()
    });
    assert_eq!(
        all,
        [
            "2a94ff047da10cefe19f2e2f2044028118b4259f8c85ef2012eedea3eee55526",
            "89eeac3ca1563bcaf358605bd5c920b0dfa5887972bb581984d84a94067edd75",
            "c9f85b9da7661f49c5b9a9bca4576b26cef55c14bc65e717435974db0302e445"
        ]
    );
}

#[test]
fn what_tar_cannot_hold_is_refused() {
    let mut odd = directory("a");
    odd.xattrs.insert("user.a=b".into(), vec![]);
    for (entries, wanted) in [
        (vec![directory("a"), directory("a")], "there twice"),
        (vec![directory("../a")], "not plain"),
        (vec![directory("/a")], "not plain"),
        (vec![directory("a/./b")], "not plain"),
        (vec![directory("a\0")], "not plain"),
        (vec![entry("", Kind::Fifo)], "not plain"),
        (vec![link("a", "")], "links to no path"),
        (vec![hard("b", "a")], "no file before it"),
        (vec![directory("a"), hard("b", "a")], "no file before it"),
        (vec![hard("b", "../a")], "no file before it"),
        (vec![odd], "`user.a=b` has no name"),
        (vec![entry("a", Kind::Block { device: (1, 1 << 22) })], "none of Linux"),
    ] {
        let (_dir, tree) = tree(vec![], entries);
        let error = write(&tree, tree.entries(), None, Vec::new()).unwrap_err();
        assert!(error.message().contains(wanted), "{error:?}");
    }
    let (_dir, ordered) = tree(vec![], vec![directory("a"), directory("b")]);
    let error = write(&ordered, ordered.entries().iter().rev(), None, Vec::new()).unwrap_err();
    assert!(error.message().contains("out of order"), "{error:?}");
}

#[test]
fn a_tree_that_changes_meanwhile_leaves_what_was_there() {
    let to = tempfile::tempdir().unwrap();
    let path = to.path().join("image.tar");
    fs::write(&path, "before").unwrap();
    // Of a process that was killed: no number of one is as large.
    fs::write(to.path().join(".bedplate-2000000000-0"), "half").unwrap();
    let (dir, tree) = tree(vec![file("a", "four"), file("b", "more")], vec![]);
    for content in ["longer than it was", "x"] {
        fs::write(dir.path().join("b"), content).unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let error = save(&tree, &path, compression, ONE).unwrap_err();
            assert!(error.message().contains("`/b` of the root tree: it changed"), "{error:?}");
        }
    }
    fs::remove_file(dir.path().join("b")).unwrap();
    assert!(save(&tree, &path, Compression::None, ONE).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
}

#[test]
fn a_full_disk_is_said_as_such() {
    let (_dir, tree) = tree(vec![file("a", &"four".repeat(1 << 18))], vec![]);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let error = save(&tree, Path::new("/dev/full"), compression, ONE).unwrap_err();
        assert!(error.message().contains("no space left"), "{error:?}");
    }
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop_oneof![
        3 => "[a-z\u{e4}\u{20ac} =\n]{1,8}",
        1 => "[a-z]{90,110}",
    ];
    let path = prop::collection::vec(name, 1..4)
        .prop_filter("a plain path", |parts| parts.iter().map(String::len).sum::<usize>() < 300)
        .prop_map(|parts| parts.join("/"));
    let device = (0_u32..4096, 0_u32..1_048_576);
    let content = prop::collection::vec(any::<u8>(), 0..1200);
    let kind = prop_oneof![
        Just(Kind::Directory),
        content.clone().prop_map(|content| Kind::File { size: content.len() as u64 }),
        "[a-z./\u{e4}]{1,150}".prop_map(|target| Kind::Link { target }),
        device.clone().prop_map(|device| Kind::Character { device }),
        device.prop_map(|device| Kind::Block { device }),
        Just(Kind::Fifo),
    ];
    let xattrs = prop::collection::btree_map(
        "(user|security|trusted)\\.[a-z.]{1,9}",
        prop::collection::vec(any::<u8>(), 0..40),
        0..3,
    );
    let times = prop_oneof![any::<i64>(), 0_i64..4_000_000_000, -9_i64..9];
    (path, kind, content, 0_u32..0o10000, any::<(u32, u32)>(), times, xattrs).prop_map(
        |(path, kind, mut content, mode, (uid, gid), modified, xattrs)| {
            if let Kind::File { size } = kind {
                content.resize(usize::try_from(size).unwrap(), 7);
            }
            (Entry { path, kind, mode, uid, gid, modified, xattrs }, content)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_entries_come_back(
        entries in prop::collection::btree_map("[a-d]", any_entry(), 1..5),
        linked in any::<bool>(),
    ) {
        // Each below a top of its own, so that no path is below a file.
        let mut others = Vec::new();
        let mut files = Vec::new();
        for (top, (mut entry, content)) in entries {
            entry.path = format!("{top}/{}", entry.path);
            if let Kind::File { .. } = entry.kind {
                if linked {
                    let further = Kind::Hard { to: entry.path.clone() };
                    others.push(Entry {
                        path: format!("{}+", entry.path),
                        kind: further,
                        xattrs: BTreeMap::new(),
                        ..entry.clone()
                    });
                }
                files.push((entry, content));
            } else {
                others.push(entry);
            }
        }
        let contents: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(entry, content)| (entry.path.clone(), content.clone())).collect();
        let (_dir, tree) = sample::tree(files, others);
        let found = read(&archive(&tree));
        prop_assert_eq!(found.len(), tree.entries().len());
        for ((entry, content), wanted) in found.iter().zip(tree.entries()) {
            prop_assert_eq!(entry, wanted);
            prop_assert_eq!(content.as_slice(), contents.get(&entry.path).map_or(&[][..], Vec::as_slice));
        }
    }

    #[test]
    fn a_record_says_its_own_length(keyword in "[a-z]{1,12}", value in prop::collection::vec(any::<u8>(), 0..2000)) {
        let record = record(&keyword, &value);
        let blank = record.iter().position(|byte| *byte == b' ').unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&record[..blank]).into_owned(), record.len().to_string());
    }
}
