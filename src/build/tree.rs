//! A root tree as data: every entry with all that a writer may carry, in one order.

use std::{collections::BTreeMap, fs::File};

use crate::{
    error::{Error, Result},
    system::{
        files::{FoundKind, Root},
        namespace::IdMap,
    },
};

/// How many sockets an error names; the rest is counted.
const SOCKETS_SHOWN: usize = 5;

/// Bytes of a capability attribute of revision 3 (Linux, `XATTR_CAPS_SZ_3`).
const NAMESPACED: usize = 24;

/// One entry. Paths are relative to the tree's top, without a leading `/`; the top itself is the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, such as `usr/bin/env`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Last change of its content, in seconds since 1970.
    pub modified: i64,
    /// Extended attributes by full name (`security.capability`), raw values.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file, the first of its hard links.
    File {
        /// Bytes.
        size: u64,
    },
    /// A further name of a regular file.
    Hard {
        /// The path of the first name.
        to: String,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// A character device.
    Character {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    Block {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A FIFO.
    Fifo,
}

/// A root tree on disk and its entries, sorted by the bytes of their paths: a directory stands before what is in it.
#[derive(Debug)]
pub struct Tree {
    root: Root,
    entries: Vec<Entry>,
}

impl Tree {
    /// A tree of these entries; their contents are read from `root` when they are asked for. Sorts.
    pub fn new(root: Root, mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        Self { root, entries }
    }

    /// The tree that lies beneath `root`, as it is now. Of a file's names the first in the order is the file, the others
    /// are [`Kind::Hard`].
    ///
    /// # Errors
    /// Something cannot be read, a name is not UTF-8, or sockets are there: no archive or image can carry one.
    pub fn read(root: Root) -> Result<Self> {
        let mut found = root.census()?;
        found.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        let mut sockets: Vec<String> = found
            .iter()
            .filter(|found| found.kind == FoundKind::Socket)
            .map(|found| format!("`{}`", root.shown(&found.path).display()))
            .collect();
        if !sockets.is_empty() {
            let more = sockets.len().saturating_sub(SOCKETS_SHOWN);
            sockets.truncate(SOCKETS_SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Error::failed(format!(
                "reading a root tree: it holds sockets, {}{more}",
                sockets.join(", ")
            ))
            .hint("something that ran in the tree left them; remove them, or keep it from running"));
        }
        let mut names: BTreeMap<(u64, u64), String> = BTreeMap::new();
        let mut entries = Vec::with_capacity(found.len());
        for found in found {
            let kind = match found.kind {
                FoundKind::Directory => Kind::Directory,
                FoundKind::File(size) => {
                    let first = (found.links > 1)
                        .then(|| &*names.entry(found.inode).or_insert_with(|| found.path.clone()));
                    match first {
                        Some(first) if *first != found.path => Kind::Hard { to: first.clone() },
                        _ => Kind::File { size },
                    }
                }
                FoundKind::Link(target) => Kind::Link { target },
                FoundKind::Character(major, minor) => Kind::Character { device: (major, minor) },
                FoundKind::Block(major, minor) => Kind::Block { device: (major, minor) },
                FoundKind::Fifo => Kind::Fifo,
                // Refused above.
                FoundKind::Socket => continue,
            };
            entries.push(Entry {
                path: found.path,
                kind,
                mode: found.mode,
                uid: found.uid,
                gid: found.gid,
                modified: found.modified,
                xattrs: found.xattrs,
            });
        }
        Ok(Self { root, entries })
    }

    /// The tree as it is seen in a user namespace with these user and group ids, of which root gave out the capabilities
    /// (capabilities(7), "Namespaced file capabilities").
    #[must_use]
    pub fn seen_in(mut self, [users, groups]: &[IdMap; 2]) -> Self {
        for entry in &mut self.entries {
            (entry.uid, entry.gid) = (users.inside(entry.uid), groups.inside(entry.gid));
            if let Some(value) = entry.xattrs.get_mut("security.capability")
                && value.len() == NAMESPACED
            {
                // `VFS_CAP_REVISION_3` (little endian, in the highest byte) is revision 2 with root's id behind it.
                value.truncate(NAMESPACED - 4);
                value[3] = 2;
            }
        }
        self
    }

    /// The directory the tree lies in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// For the contents of files, one after the other.
    pub fn reader(&self) -> Reader<'_> {
        Reader { tree: self, open: Vec::new() }
    }

    /// The content of a regular file.
    ///
    /// # Errors
    /// It cannot be read, or is another size now.
    pub fn open(&self, entry: &Entry) -> Result<File> {
        open_in(&self.root, &entry.path, entry)
    }
}

/// Opens the files of a tree. The directories above the last one stay open: those in one directory, in the order of the
/// entries, cost one walk.
#[derive(Debug)]
pub struct Reader<'a> {
    tree: &'a Tree,
    /// Directories by their paths, each in the one before.
    open: Vec<(String, Root)>,
}

impl Reader<'_> {
    /// As [`Tree::open`].
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn open(&mut self, entry: &Entry) -> Result<File> {
        let Some((above, name)) = entry.path.rsplit_once('/') else { return self.tree.open(entry) };
        while self.open.last().is_some_and(|(path, _)| rest(above, path).is_none()) {
            self.open.pop();
        }
        loop {
            let (at, done) = self.open.last().map_or((&self.tree.root, ""), |(path, root)| (root, path));
            let left = rest(above, done).unwrap_or_default();
            if left.is_empty() {
                return open_in(at, name, entry);
            }
            let next = left.split('/').next().unwrap_or_default();
            let Some(root) = at.beneath(&format!("/{next}"))? else { return Err(gone(entry)) };
            let path = if done.is_empty() { next.to_owned() } else { format!("{done}/{next}") };
            self.open.push((path, root));
        }
    }
}

/// The part of a path beneath a directory, `""` for the directory itself; `None` where it is not in it.
fn rest<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    if directory.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(directory)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

fn open_in(root: &Root, path: &str, entry: &Entry) -> Result<File> {
    let Some((file, stat)) = root.open_file(&format!("/{path}"))? else { return Err(gone(entry)) };
    match entry.kind {
        Kind::File { size } if size == stat.size => Ok(file),
        _ => Err(Error::failed(format!("reading `/{}` of the root tree: it changed", entry.path))),
    }
}

fn gone(entry: &Entry) -> Error {
    Error::failed(format!("reading `/{}` of the root tree: it is gone", entry.path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::system::files::{Owner, Planter};

    fn empty() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn a_tree_is_read_in_order_and_the_first_name_is_the_file() {
        let (_dir, root) = empty();
        let me = Owner::current();
        root.make_dir("/b", 0o750, me).unwrap();
        root.write("/b/z", b"content", 0o640, me).unwrap();
        root.write("/b.x", b"", 0o644, me).unwrap();
        root.symlink("b/z", "/l").unwrap();
        let mut planter = Planter::new(&root);
        planter.hard(b"b/a", b"b/z").unwrap();
        planter.hard(b"z", b"b/z").unwrap();
        drop(planter);
        let tree = Tree::read(root).unwrap();
        let found: Vec<(&str, &Kind)> =
            tree.entries().iter().map(|entry| (entry.path.as_str(), &entry.kind)).collect();
        let hard = Kind::Hard { to: "b/a".to_owned() };
        assert_eq!(
            found,
            [
                ("", &Kind::Directory),
                ("b", &Kind::Directory),
                ("b.x", &Kind::File { size: 0 }),
                ("b/a", &Kind::File { size: 7 }),
                ("b/z", &hard),
                ("l", &Kind::Link { target: "b/z".to_owned() }),
                ("z", &hard),
            ]
        );
        assert_eq!(tree.entries()[1].mode, 0o750);
        let mut content = String::new();
        std::io::Read::read_to_string(&mut tree.open(&tree.entries()[3]).unwrap(), &mut content).unwrap();
        assert_eq!(content, "content");
    }

    #[test]
    fn a_tree_of_a_namespace_is_seen_as_from_within() {
        let (_dir, root) = empty();
        let entry = |uid, capability: &[u8]| Entry {
            path: "ping".to_owned(),
            kind: Kind::File { size: 0 },
            mode: 0o755,
            uid,
            gid: uid + 7,
            modified: 0,
            xattrs: [("security.capability".to_owned(), capability.to_vec())].into(),
        };
        let (mut outside, mut inside) = ([0; 24], [0; 20]);
        (outside[3], outside[0], outside[5], outside[23]) = (3, 1, 0x20, 0x40);
        (inside[3], inside[0], inside[5]) = (2, 1, 0x20);
        let ids = IdMap::parse("0 1073741824 65536");
        let tree = Tree::new(root, vec![entry(1_073_741_824, &outside)]).seen_in(&[ids.clone(), ids]);
        assert_eq!(tree.entries(), [entry(0, &inside)]);
    }

    #[test]
    fn sockets_are_named() {
        let (dir, root) = empty();
        let _held: Vec<UnixListener> =
            (0..7).map(|at| UnixListener::bind(dir.path().join(format!("s{at}"))).unwrap()).collect();
        let error = Tree::read(root).unwrap_err();
        assert!(error.message().contains("/s0`") && error.message().ends_with("and 2 more"), "{error}");
    }
}
