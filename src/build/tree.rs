//! A root tree as data: every entry with all that a writer may carry, in one order.

use std::{collections::BTreeMap, fs::File};

use crate::{
    error::{Error, Result},
    system::files::Root,
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

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
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
        let path = format!("/{}", entry.path);
        let Some((file, stat)) = self.root.open_file(&path)? else {
            return Err(Error::failed(format!("reading `{path}` of the root tree: it is gone")));
        };
        match entry.kind {
            Kind::File { size } if size == stat.size => Ok(file),
            _ => Err(Error::failed(format!("reading `{path}` of the root tree: it changed"))),
        }
    }
}
