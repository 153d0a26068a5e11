//! Small trees for tests.

use std::collections::BTreeMap;

use tempfile::TempDir;

use crate::{
    build::tree::{Entry, Kind, Tree},
    system::files::{Owner, Root},
};

/// What of a package's file may open raw sockets (capability(7), version 2 of the attribute).
pub(crate) const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An entry of root's with the usual mode.
pub(crate) fn entry(path: &str, kind: Kind) -> Entry {
    let mode = match kind {
        Kind::Directory => 0o755,
        Kind::Link { .. } => 0o777,
        _ => 0o644,
    };
    let (uid, gid, modified) = (0, 0, 1_700_000_000);
    Entry { path: path.to_owned(), kind, mode, uid, gid, modified, xattrs: BTreeMap::new() }
}

pub(crate) fn directory(path: &str) -> Entry {
    entry(path, Kind::Directory)
}

pub(crate) fn file(path: &str, content: &str) -> (Entry, Vec<u8>) {
    let size = content.len() as u64;
    (entry(path, Kind::File { size }), content.as_bytes().to_vec())
}

pub(crate) fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Link { target: target.to_owned() })
}

pub(crate) fn hard(path: &str, to: &str) -> Entry {
    entry(path, Kind::Hard { to: to.to_owned() })
}

/// A tree of these entries, its files on disk; the directory goes away with what is returned.
pub(crate) fn tree(files: Vec<(Entry, Vec<u8>)>, others: Vec<Entry>) -> (TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut entries = others;
    for (entry, content) in files {
        let path = format!("/{}", entry.path);
        let (above, _) = path.rsplit_once('/').unwrap();
        if !above.is_empty() {
            root.make_dir(above, 0o755, Owner::current()).unwrap();
        }
        root.write(&path, &content, 0o600, Owner::current()).unwrap();
        entries.push(entry);
    }
    (dir, Tree::new(root, entries))
}

/// One of each kind, and what does not fit into a plain header.
pub(crate) fn everything() -> (TempDir, Tree) {
    let deep = format!("srv/{}/{}", "long-".repeat(40), "deeper-".repeat(30));
    let (mut su, content) = file("usr/bin/su", "#!/bin/true\n");
    su.mode = 0o4755;
    let (mut ping, more) = file("usr/bin/ping", "");
    ping.xattrs.insert("security.capability".into(), CAPABILITY.to_vec());
    ping.xattrs.insert("user.two\u{e4}".into(), b"line\n11 path=x\nand \0 and =".to_vec());
    let (mut owned, words) = file("home/owned", &"words ".repeat(1000));
    (owned.uid, owned.gid, owned.modified) = (3_000_000_000, 2_097_152, -5);
    let mut hard_su = hard("usr/bin/suu", "usr/bin/su");
    hard_su.mode = 0o4755;
    let mut null = entry("dev/null", Kind::Character { device: (1, 3) });
    null.mode = 0o666;
    let mut temporary = directory("tmp");
    temporary.mode = 0o1777;
    let above = deep.rsplit_once('/').unwrap().0.to_owned();
    let long_target = "../".repeat(60);
    tree(
        vec![
            (su, content),
            (ping, more),
            (owned, words),
            file(&deep, "deep\n"),
            file(&format!("srv/{}", "n".repeat(97)), "its path has 101 bytes\n"),
            file(&format!("srv/{}", "m".repeat(96)), "its path has 100 bytes\n"),
            file("usr/share/N\u{e4}me", "not ASCII\n"),
        ],
        vec![
            directory(""),
            directory("dev"),
            directory("home"),
            directory("srv"),
            directory(&above),
            temporary,
            directory("usr"),
            directory("usr/bin"),
            directory("usr/share"),
            hard_su,
            hard(&format!("{deep}-again"), &deep),
            link("bin", "usr/bin"),
            link("usr/share/far", &long_target),
            null,
            entry("dev/vda", Kind::Block { device: (254, 1_048_575) }),
            entry("dev/pipe", Kind::Fifo),
        ],
    )
}
