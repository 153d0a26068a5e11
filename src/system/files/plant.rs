//! Filling a tree that nobody else writes to: many files, fast, links of the tree followed within it.
//!
//! Unlike [`Root`], which is for a host that others write to at the same time, paths go through links here as they
//! would in the tree itself (`openat2` with `RESOLVE_IN_ROOT`, openat2(2)): never out of it.

use std::{
    collections::HashMap,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
        fchown, futimens, linkat, mkdirat, openat, openat2, readlinkat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use super::{Owner, Root, failure};
use crate::error::{Error, Result};

/// How many directories all planters of a process may hold open together: half of the usual limit of descriptors
/// (getrlimit(2), systemd's default of 1024).
const OPEN: usize = 512;
/// Bytes copied at once.
const PIECE: usize = 128 * 1024;

/// What an entry gets besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owner.
    pub owner: Owner,
    /// Last change, in seconds since 1970.
    pub modified: i64,
}

/// Whether an entry was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// It is there now.
    Made,
    /// Something has that name already; nothing was changed.
    Taken,
}

/// Writes entries into a tree. One for each thread; paths are relative to the tree's top.
pub struct Planter<'r> {
    root: &'r Root,
    directories: HashMap<Vec<u8>, Rc<OwnedFd>>,
    open: usize,
    buffer: Vec<u8>,
}

impl<'r> Planter<'r> {
    /// Writes beneath `root`.
    pub fn new(root: &'r Root) -> Self {
        Self::one_of(1, root)
    }

    /// The same, where so many are at work at once.
    pub fn one_of(count: usize, root: &'r Root) -> Self {
        let open = (OPEN / count.max(1)).clamp(4, 128);
        Self { root, directories: HashMap::new(), open, buffer: vec![0; PIECE] }
    }

    /// Makes a directory, 0755 until [`Planter::finish_directory`]; [`Planted::Taken`] where it is there, or a link to
    /// one is.
    ///
    /// # Errors
    /// Something else has its name, or it cannot be made.
    pub fn directory(&mut self, path: &[u8]) -> Result<Planted> {
        let (parent, name) = self.place(path)?;
        match mkdirat(&*parent, name, Mode::from_raw_mode(0o755)) {
            // What mkdir(2) took from the mode by the umask is given back.
            Ok(()) => chmodat(&*parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())
                .map(|()| Planted::Made)
                .map_err(|error| self.cannot(path, error)),
            Err(Errno::EXIST) => {
                self.open(path).map_err(|_| {
                    self.cannot(path, io::Error::other("something that is no directory has its name"))
                })?;
                Ok(Planted::Taken)
            }
            Err(error) => Err(self.cannot(path, error)),
        }
    }

    /// Gives a directory its mode and owner; its time is whatever was last made in it.
    ///
    /// # Errors
    /// It is not there.
    pub fn finish_directory(&mut self, path: &[u8], mode: u32, owner: Owner) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(&self.root.fd, in_root(path), flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .map_err(|error| self.cannot(path, error))?;
        fchown(&fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .and_then(|()| fchmod(&fd, Mode::from_raw_mode(mode)))
            .map_err(|error| self.cannot(path, error))
    }

    /// Makes a regular file of all that `content` gives.
    ///
    /// # Errors
    /// It cannot be written, or `content` fails.
    pub fn file(&mut self, path: &[u8], meta: Meta, content: &mut dyn Read) -> Result<Planted> {
        let (parent, name) = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(&*parent, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            Err(Errno::EXIST) => return Ok(Planted::Taken),
            Err(error) => return Err(self.cannot(path, error)),
        };
        loop {
            let read = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.cannot(path, error)),
            };
            let mut left = &self.buffer[..read];
            while !left.is_empty() {
                match rustix::io::write(&fd, left) {
                    Ok(written) => left = &left[written..],
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(self.cannot(path, error)),
                }
            }
        }
        // The owner first: giving a file away clears its set-user-id bit (chown(2)).
        fchown(&fd, Some(Uid::from_raw(meta.owner.uid)), Some(Gid::from_raw(meta.owner.gid)))
            .and_then(|()| fchmod(&fd, Mode::from_raw_mode(meta.mode)))
            .and_then(|()| futimens(&fd, &times(meta.modified)))
            .map_err(|error| self.cannot(path, error))?;
        Ok(Planted::Made)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn link(&mut self, path: &[u8], target: &[u8], meta: Meta) -> Result<Planted> {
        let (parent, name) = self.place(path)?;
        match symlinkat(target, &*parent, name) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(Planted::Taken),
            Err(error) => return Err(self.cannot(path, error)),
        }
        let owner = (Some(Uid::from_raw(meta.owner.uid)), Some(Gid::from_raw(meta.owner.gid)));
        chownat(&*parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| utimensat(&*parent, name, &times(meta.modified), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|error| self.cannot(path, error))?;
        Ok(Planted::Made)
    }

    /// Gives the file at `to` a further name.
    ///
    /// # Errors
    /// There is no such file, or the name cannot be given.
    pub fn hard(&mut self, path: &[u8], to: &[u8]) -> Result<Planted> {
        let (from, first) = self.place(to)?;
        let (parent, name) = self.place(path)?;
        match linkat(&*from, first, &*parent, name, AtFlags::empty()) {
            Ok(()) => Ok(Planted::Made),
            Err(Errno::EXIST) => Ok(Planted::Taken),
            Err(error) => Err(self.cannot(path, error)),
        }
    }

    /// What the symbolic link at `path` says; `None`: it is none.
    pub fn link_target(&mut self, path: &[u8]) -> Option<Vec<u8>> {
        let (parent, name) = self.place(path).ok()?;
        Some(readlinkat(&*parent, name, Vec::new()).ok()?.into_bytes())
    }

    /// Removes a file or link. False: nothing was there.
    ///
    /// # Errors
    /// It is a directory, or cannot be removed.
    pub fn remove(&mut self, path: &[u8]) -> Result<bool> {
        let Ok((parent, name)) = self.place(path) else { return Ok(false) };
        match unlinkat(&*parent, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.cannot(path, error)),
        }
    }

    /// The directory of a path, open, made where it is not there, and the last part of the path.
    pub(super) fn place<'p>(&mut self, path: &'p [u8]) -> Result<(Rc<OwnedFd>, &'p [u8])> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(end) => (&path[..end], &path[end + 1..]),
            None => (&b""[..], path),
        };
        if name.is_empty() || name == b".." || name == b"." {
            return Err(self.cannot(path, io::Error::other("the path names no entry")));
        }
        if let Some(fd) = self.directories.get(above) {
            return Ok((Rc::clone(fd), name));
        }
        let fd = match self.open(above) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if !above.is_empty() => {
                // A package that does not list its directories: as tar does, they are made.
                self.directory(above)?;
                self.open(above).map_err(|error| self.cannot(above, error))?
            }
            Err(error) => return Err(self.cannot(above, error)),
        };
        if self.directories.len() >= self.open {
            self.directories.clear();
        }
        let fd = Rc::new(fd);
        self.directories.insert(above.to_vec(), Rc::clone(&fd));
        Ok((fd, name))
    }

    fn open(&self, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root.fd, in_root(path), flags, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    fn cannot(&self, path: &[u8], error: impl Into<io::Error>) -> Error {
        failure("writing", &shown(self.root.path(), path), error)
    }
}

fn in_root(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

fn shown(root: &Path, path: &[u8]) -> PathBuf {
    root.join(String::from_utf8_lossy(path).as_ref())
}

/// Both times of an entry, of whole seconds since 1970.
pub(super) fn times(modified: i64) -> Timestamps {
    let time = Timespec { tv_sec: modified, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
