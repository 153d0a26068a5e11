//! Everything in a tree, with all that is known of each entry.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat as RawStat, fgetxattr, flistxattr, openat, readlinkat,
        statat, utimensat,
    },
    io::Errno,
};

use super::{Root, failure, plant::times};
use crate::error::{Error, Result};

/// Deepest nesting of directories that is followed.
const DEPTH: usize = 256;
/// Largest extended attribute, in bytes (xattr(7), `XATTR_SIZE_MAX`).
const ATTRIBUTE: usize = 64 << 10;

/// An entry as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path below the tree's top, without a leading `/`; empty for the top.
    pub path: String,
    /// Its type.
    pub kind: FoundKind,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Last change, in seconds since 1970.
    pub modified: i64,
    /// Device and inode number.
    pub inode: (u64, u64),
    /// How many names it has.
    pub links: u64,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File(u64),
    /// A symbolic link with this target.
    Link(String),
    /// A character device: major, minor.
    Character(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A FIFO.
    Fifo,
    /// A socket: something that ran left it.
    Socket,
}

impl Root {
    /// Every entry of the tree, the top first, in no further order. No link is followed.
    ///
    /// # Errors
    /// Something cannot be read, or a name is not UTF-8.
    pub fn census(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let top = openat(&self.fd, ".", READ, Mode::empty())
            .map_err(|error| failure("reading", self.path(), error))?;
        let stat =
            statat(&top, "", AtFlags::EMPTY_PATH).map_err(|error| failure("reading", self.path(), error))?;
        let xattrs = attributes(&top).map_err(|error| failure("reading", self.path(), error))?;
        found.push(entry(String::new(), FoundKind::Directory, &stat, xattrs));
        self.census_of(top, "", 0, &mut found)?;
        Ok(found)
    }

    fn census_of(&self, directory: OwnedFd, path: &str, depth: usize, found: &mut Vec<Found>) -> Result<()> {
        let failed = |path: &str, error: Errno| failure("reading", &self.shown(path), error);
        if depth > DEPTH {
            return Err(Error::failed(format!(
                "reading `{}`: directories lie more than {DEPTH} deep",
                self.shown(path).display()
            )));
        }
        let entries = Dir::read_from(&directory).map_err(|error| failed(path, error))?;
        for item in entries {
            let item = item.map_err(|error| failed(path, error))?;
            let name = item.file_name();
            if name.to_bytes() == b"." || name.to_bytes() == b".." {
                continue;
            }
            let Ok(name) = name.to_str() else {
                return Err(Error::failed(format!(
                    "reading `{}`: it holds a name that is not UTF-8, `{}`",
                    self.shown(path).display(),
                    name.to_string_lossy().escape_debug()
                )));
            };
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            let stat =
                statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(&below, error))?;
            let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            let (mut xattrs, mut inside) = (BTreeMap::new(), None);
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let fd = openat(&directory, name, READ, Mode::empty())
                        .map_err(|error| failed(&below, error))?;
                    xattrs = attributes(&fd).map_err(|error| failed(&below, error))?;
                    inside = Some(fd);
                    FoundKind::Directory
                }
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    let fd = openat(&directory, name, flags, Mode::empty())
                        .map_err(|error| failed(&below, error))?;
                    xattrs = attributes(&fd).map_err(|error| failed(&below, error))?;
                    FoundKind::File(u64::try_from(stat.st_size).unwrap_or(0))
                }
                FileType::Symlink => {
                    let target =
                        readlinkat(&directory, name, Vec::new()).map_err(|error| failed(&below, error))?;
                    FoundKind::Link(target.into_string().map_err(|_| {
                        Error::failed(format!(
                            "reading `{}`: what the link says is not UTF-8",
                            self.shown(&below).display()
                        ))
                    })?)
                }
                FileType::CharacterDevice => {
                    let (major, minor) = device();
                    FoundKind::Character(major, minor)
                }
                FileType::BlockDevice => {
                    let (major, minor) = device();
                    FoundKind::Block(major, minor)
                }
                FileType::Fifo => FoundKind::Fifo,
                _ => FoundKind::Socket,
            };
            found.push(entry(below.clone(), kind, &stat, xattrs));
            if let Some(fd) = inside {
                self.census_of(fd, &below, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// Sets the time of the last change of an entry's content; a link's own.
    ///
    /// # Errors
    /// It is not there, or may not be changed.
    pub fn set_modified(&self, path: &str, seconds: i64) -> Result<()> {
        let shown = self.shown(path);
        let times = times(seconds);
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let result = match parts.split_last() {
            None => utimensat(&self.fd, ".", &times, AtFlags::SYMLINK_NOFOLLOW),
            Some((name, above)) => {
                let above: Vec<String> = above.iter().map(|&part| part.to_owned()).collect();
                let Some(fd) = self.walk(&above)? else {
                    return Err(failure("changing", &shown, Errno::NOENT));
                };
                utimensat(&fd, *name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
        };
        result.map_err(|error| failure("changing", &shown, error))
    }
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn entry(path: String, kind: FoundKind, stat: &RawStat, xattrs: BTreeMap<String, Vec<u8>>) -> Found {
    Found {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: stat.st_mtime,
        inode: (stat.st_dev, stat.st_ino),
        links: stat.st_nlink,
        xattrs,
    }
}

/// The extended attributes that belong to a file, not to where it lies: labels and signatures are a host's policy's,
/// access lists and compression may come from the directory above.
fn attributes(fd: &OwnedFd) -> std::result::Result<BTreeMap<String, Vec<u8>>, Errno> {
    let mut names = vec![0_u8; 1024];
    let length = loop {
        match flistxattr(fd, &mut names) {
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < ATTRIBUTE => names = vec![0; names.len() * 4],
            Err(Errno::NOTSUP) => break 0,
            Err(error) => return Err(error),
        }
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0_u8; ATTRIBUTE];
        let length = fgetxattr(fd, name, &mut value)?;
        value.truncate(length);
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}
