//! A root tree as data: every entry with all that a writer may carry, in one order.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry as Slot},
    fs::File,
};

use crate::{
    error::{Error, Result},
    system::files::{FoundKind, Root},
};

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

    /// The tree that lies beneath `root`. Of a file's names the first in order is the file, the others are hard links
    /// to it.
    ///
    /// # Errors
    /// Something cannot be read; a socket, which something that runs has left.
    pub fn read(root: Root) -> Result<Self> {
        let mut found = root.census()?;
        found.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        let mut first: HashMap<(u64, u64), String> = HashMap::new();
        let mut entries = Vec::with_capacity(found.len());
        for found in found {
            let before = match (&found.kind, found.shared) {
                (FoundKind::File(_), Some(inode)) => match first.entry(inode) {
                    Slot::Occupied(slot) => Some(slot.get().clone()),
                    Slot::Vacant(slot) => {
                        slot.insert(found.path.clone());
                        None
                    }
                },
                _ => None,
            };
            let kind = match (before, found.kind) {
                (Some(to), _) => Kind::Hard { to },
                (None, FoundKind::Directory) => Kind::Directory,
                (None, FoundKind::File(size)) => Kind::File { size },
                (None, FoundKind::Link(target)) => Kind::Link { target },
                (None, FoundKind::Character(major, minor)) => Kind::Character { device: (major, minor) },
                (None, FoundKind::Block(major, minor)) => Kind::Block { device: (major, minor) },
                (None, FoundKind::Fifo) => Kind::Fifo,
                (None, FoundKind::Socket) => {
                    return Err(Error::failed(format!(
                        "`/{}` of the root tree is a socket: something was started while it was made",
                        found.path
                    )));
                }
            };
            let (path, mode, uid, gid) = (found.path, found.mode, found.uid, found.gid);
            entries.push(Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                modified: found.modified,
                xattrs: found.xattrs,
            });
        }
        Ok(Self { root, entries })
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// For the contents of files, one after the other.
    pub fn reader(&self) -> Reader<'_> {
        Reader { tree: self, open: Vec::new() }
    }

    /// Where it lies on disk.
    pub fn root(&self) -> &Root {
        &self.root
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
