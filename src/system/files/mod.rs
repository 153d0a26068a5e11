//! Files of a host and files a user names: the only place with raw file calls.
//!
//! [`Root`] is for the host's own paths: resolved one component after the other, never through a
//! link, so that nobody who may write to one directory on the way can redirect a write made as
//! root. [`read_input`] and its like are for paths the user typed: links are followed there.
#![allow(clippy::disallowed_methods)]

mod census;
mod directory;
mod input;
mod lock;
mod partial;
mod pending;
mod plant;
mod root;
mod twin;
mod volume;
mod walk;

use std::{fmt, io, path::Path};

use rustix::{fs::FileType, io::Errno};

pub use self::{
    census::{Found, FoundKind},
    directory::{OutputDir, create_output_dir},
    input::{
        Output, absolute, create_output, exists, is_dir, is_there, list_input, make_dir, make_private_dir,
        open_input, read_input, read_text, room_for, write_output, write_private,
    },
    lock::{HostLock, refuse_held},
    partial::Partial,
    pending::Pending,
    plant::{Meta, Planted, Planter},
    root::Root,
};
use crate::error::{Error, Result};

/// Who owns a file, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// `root:root`.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// The effective user and group of this process.
    pub fn current() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, socket or FIFO.
    Other,
}

/// What is known of a path without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What lies there.
    pub kind: FileKind,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Number of hard links.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub device: u64,
    /// Of a character device: its major and minor number.
    pub number: Option<(u32, u32)>,
    /// Last change of the content.
    pub modified: jiff::Timestamp,
}

impl Stat {
    /// The owner as a pair.
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    fn from_raw(raw: &rustix::fs::Stat) -> Self {
        let nanoseconds = i32::try_from(raw.st_mtime_nsec).unwrap_or(0);
        Self {
            kind: FileKind::from_raw(FileType::from_raw_mode(raw.st_mode)),
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: u64::try_from(raw.st_size).unwrap_or(0),
            #[allow(clippy::useless_conversion)] // 32 bits on some architectures
            links: u64::from(raw.st_nlink),
            inode: raw.st_ino,
            device: raw.st_dev,
            number: (FileType::from_raw_mode(raw.st_mode) == FileType::CharacterDevice)
                .then(|| (rustix::fs::major(raw.st_rdev), rustix::fs::minor(raw.st_rdev))),
            modified: jiff::Timestamp::new(raw.st_mtime, nanoseconds).unwrap_or_default(),
        }
    }
}

impl FileKind {
    fn from_raw(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without the directory. A name that is not UTF-8 is shown with replacement
    /// characters and cannot be opened again.
    pub name: String,
    /// True for a directory (not for a link to one).
    pub is_dir: bool,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes an ordinary user may still use.
    pub bytes_free: u64,
    /// Size in bytes.
    pub bytes_total: u64,
    /// Inodes an ordinary user may still use; 0 of 0 where the file system does not count them.
    pub inodes_free: u64,
    /// Inodes in all.
    pub inodes_total: u64,
}

/// Reads a mode as profiles write it: octal digits, three or four, with or without a leading `0o`.
///
/// # Errors
/// A usage error for anything else, and for bits beyond `07777`.
pub fn parse_mode(text: &str) -> Result<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let plain = (3..=5).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if plain && mode <= 0o7777 => Ok(mode),
        _ => Err(Error::usage(format!("`{}` is not a mode", text.escape_debug()))
            .hint("write octal digits in quotes, such as \"0700\" or \"0644\"")),
    }
}

/// A mode as profiles write it: four octal digits.
pub fn format_mode(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}

/// An error about `path`: what was being done, what is wrong, what helps.
pub(crate) fn failure(doing: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    let error: io::Error = error.into();
    let shown = path.display();
    let errno = Errno::from_io_error(&error);
    let reason = match errno {
        Some(Errno::ACCESS) => "permission denied".to_owned(),
        Some(Errno::PERM) => "not permitted".to_owned(),
        Some(Errno::NOENT) => "it does not exist".to_owned(),
        Some(Errno::NOSPC) => "no space left on the file system".to_owned(),
        Some(Errno::DQUOT) => "the disk quota is used up".to_owned(),
        Some(Errno::ROFS) => "the file system is read-only".to_owned(),
        Some(Errno::ISDIR) => "it is a directory".to_owned(),
        Some(Errno::NOTDIR) => "a part of the path is not a directory".to_owned(),
        Some(Errno::LOOP) => "it is a link, or links go in a circle".to_owned(),
        Some(Errno::NAMETOOLONG) => "the name is too long".to_owned(),
        Some(Errno::NOTEMPTY) => "the directory is not empty".to_owned(),
        _ => lower_first(&error.to_string()),
    };
    let failed = Error::failed(format!("{doing} `{shown}`: {reason}"));
    let root = rustix::process::geteuid().is_root();
    match errno {
        Some(Errno::ACCESS | Errno::PERM) if !root => failed.hint("run it as root: `sudo bedplate …`"),
        Some(Errno::ACCESS | Errno::PERM) => {
            failed.hint(format!("see `lsattr -d {shown}` and the mount options: `findmnt -T {shown}`"))
        }
        Some(Errno::NOSPC) => failed.hint(format!(
            "make room; `df -h {0}` and `df -i {0}` show what is used",
            path.parent().unwrap_or(path).display()
        )),
        Some(Errno::ROFS) => failed.hint(format!("make it writable; `findmnt -T {shown}` shows the mount")),
        Some(Errno::DQUOT) => failed.hint("remove files of this user, or raise its quota"),
        _ => failed,
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests;
