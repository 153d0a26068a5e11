//! The tree in an image, as far as it is held against something: what lies at each path, digests of files, and dpkg's
//! database and bedplate's own files as files. Nothing else is kept; memory is bounded by the names.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use md5::{Digest as _, Md5};

use super::super::files::Look;
use crate::{
    build::record::IN_TREE,
    error::{Doing, Error, Result},
    system::files::{FileKind, Meta, Owner, Planter, Root},
};

/// Most entries of a tree: ten times the largest known.
const ENTRIES: usize = 4_000_000;
/// Most bytes of all paths and link targets together.
const NAMES: usize = 256 << 20;
/// Most bytes of all files that are kept together.
const KEPT: u64 = 256 << 20;
/// What is kept: dpkg's database, the lock of the current generation, the image's record.
const KEPT_BELOW: [&str; 4] =
    ["var/lib/dpkg", "var/lib/bedplate/generations", "var/lib/bedplate/current", "usr/lib/bedplate"];
/// Most links that a path leads through (`MAXSYMLINKS` of Linux).
const LINKS: usize = 40;
/// Bytes read at once.
const CHUNK: usize = 128 << 10;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    /// A regular file, with the MD5 of its content.
    File([u8; 16]),
    /// A symbolic link, with what it says.
    Link(String),
    /// A device or FIFO.
    Other,
}

/// An entry on its way in.
#[derive(Debug)]
pub(super) enum Put {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File(u64),
    /// A further name of the file at this path.
    Hard(String),
    /// A symbolic link with this target.
    Link(String),
    /// A device or FIFO.
    Other,
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Fault {
    /// The form is broken.
    Damaged(String),
    /// What no build writes, or more than may be.
    Refused(String),
    /// The reader failed: decompression, or the file below it.
    Read(io::Error),
    /// This machine's fault: what is kept cannot be written.
    Ours(Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Damaged("it ends too early".to_owned());
        }
        Self::Read(error)
    }
}

/// A tree.
pub(super) struct Contents {
    nodes: BTreeMap<String, Node>,
    names: usize,
    kept: u64,
    root: Root,
    /// The directory of `root`, removed with this value.
    _directory: tempfile::TempDir,
}

impl Contents {
    /// An empty one.
    ///
    /// # Errors
    /// No temporary directory can be made.
    pub(super) fn new() -> Result<Self> {
        let doing = || "making a temporary directory for a package database";
        let directory = tempfile::Builder::new().prefix("bedplate-verify-").tempdir().doing(doing)?;
        let root = Root::open(directory.path())?;
        Ok(Self { nodes: BTreeMap::new(), names: 0, kept: 0, root, _directory: directory })
    }

    /// What is kept, as a root of its own.
    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Takes an entry in. `path` is relative to the top, which is the empty path.
    ///
    /// # Errors
    /// A path that leads out, is there already or lies in no directory; a hard link to no file; more than there may be;
    /// `content` fails.
    pub(super) fn put(&mut self, path: &str, what: Put, content: &mut dyn Read) -> Result<(), Fault> {
        let refused = |why: &str| Err(Fault::Refused(format!("`/{}` {why}", shown(path))));
        let wrong = |part: &str| matches!(part, "" | "." | "..");
        let is_top = path.is_empty() && matches!(what, Put::Directory);
        if (!is_top && path.split('/').any(wrong)) || path.contains(['\0', '\n']) {
            return refused("is no path within the tree");
        }
        if self.nodes.contains_key(path) {
            return refused("is there twice");
        }
        if let Some((above, _)) = path.rsplit_once('/')
            && self.nodes.get(above) != Some(&Node::Directory)
        {
            return refused("lies in no directory of the tree");
        }
        self.names += path.len();
        let node = match what {
            Put::Directory => Node::Directory,
            Put::File(size) => Node::File(self.file(path, size, content)?),
            Put::Hard(to) => match self.nodes.get(&to) {
                Some(Node::File(md5)) => Node::File(*md5),
                _ => return refused(&format!("is a hard link to `/{}`, no file before it", shown(&to))),
            },
            Put::Link(target) => {
                if target.is_empty() || target.contains('\0') {
                    return refused("is a link to nothing");
                }
                self.names += target.len();
                self.keep_link(path, &target)?;
                Node::Link(target)
            }
            Put::Other => Node::Other,
        };
        if self.nodes.len() >= ENTRIES || self.names > NAMES {
            return refused("is one too many: no image has so many files");
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// Takes a file's content in: its MD5, and what is to be kept of it.
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<[u8; 16], Fault> {
        let mut content = Hashed { reader: content.take(size), md5: Md5::new(), size: 0, fault: None };
        if is_kept(path) {
            self.kept = self.kept.saturating_add(size);
            if self.kept > KEPT {
                return Err(Fault::Refused(format!(
                    "the package database is larger than {} MiB, with `/{}`",
                    KEPT >> 20,
                    shown(path)
                )));
            }
            let meta = Meta { mode: 0o600, owner: Owner::current(), modified: 0 };
            let planted = Planter::new(&self.root).file(path.as_bytes(), meta, &mut content);
            if let Some(fault) = content.fault {
                return Err(fault.into());
            }
            planted.map_err(Fault::Ours)?;
        } else {
            let mut buffer = vec![0; CHUNK];
            while content.read(&mut buffer).map_err(|error| content.fault.take().unwrap_or(error))? > 0 {}
        }
        if content.size < size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(content.md5.finalize().into())
    }

    /// Links of the layout and to the current generation are kept as well.
    fn keep_link(&self, path: &str, target: &str) -> Result<(), Fault> {
        if !path.contains('/') || is_kept(path) {
            let meta = Meta { mode: 0o777, owner: Owner::current(), modified: 0 };
            Planter::new(&self.root).link(path.as_bytes(), target.as_bytes(), meta).map_err(Fault::Ours)?;
        }
        Ok(())
    }

    /// Where a path leads when the links above its last part are followed, all within the tree; `None`: in a circle.
    fn resolved(&self, path: &str) -> Option<String> {
        let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            if left.is_empty() {
                break;
            }
            if let Some(Node::Link(target)) = self.nodes.get(&done.join("/")) {
                links += 1;
                if links > LINKS {
                    return None;
                }
                done.pop();
                if target.starts_with('/') {
                    done.clear();
                }
                left.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        Some(done.join("/"))
    }

    fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&self.resolved(path)?)
    }
}

impl Look for Contents {
    fn kind(&self, path: &str) -> Result<Option<FileKind>> {
        Ok(self.node(path).map(|node| match node {
            Node::Directory => FileKind::Directory,
            Node::File(_) => FileKind::File,
            Node::Link(_) => FileKind::Link,
            Node::Other => FileKind::Other,
        }))
    }

    fn md5(&self, path: &str, _: &mut [u8]) -> Result<Option<String>, String> {
        Ok(self.node(path).and_then(|node| match node {
            Node::File(md5) => Some(hex::encode(md5)),
            _ => None,
        }))
    }
}

fn is_kept(path: &str) -> bool {
    debug_assert!(IN_TREE.starts_with("/usr/lib/bedplate/"));
    let below =
        |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    KEPT_BELOW.iter().any(|top| below(top))
}

/// A path fit for a message.
pub(super) fn shown(path: &str) -> String {
    let mut shown: String = path.chars().take(200).flat_map(char::escape_debug).collect();
    if path.chars().nth(200).is_some() {
        shown.push('…');
    }
    shown
}

/// A reader whose MD5 is taken, and that keeps why it failed.
struct Hashed<R> {
    reader: R,
    md5: Md5,
    size: u64,
    fault: Option<io::Error>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(count) => {
                    self.md5.update(&buffer[..count]);
                    self.size += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.fault = Some(error);
                    return Err(kind.into());
                }
            }
        }
    }
}
