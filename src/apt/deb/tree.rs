//! The entries of a package's tar archive, judged one by one.

use std::{collections::HashMap, io::Read};

use super::{Bad, refused, shown};
use crate::error::Result;

/// Longest path or link target, in bytes (`PATH_MAX` of Linux).
const PATH: u64 = 4096;
/// Most bytes of all paths together: they are kept until the archive ends.
const PATHS: usize = 256 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Symlink,
}

/// An entry of a package's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path without a leading `./`; empty for the top itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owning user, as a number: a package's names are those of static ids (Debian Policy, 9.2.2).
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Last change, in seconds since 1970.
    pub modified: i64,
}

/// What an entry of a package's archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File(u64),
    /// A further name of the file at this path of the package.
    Hard(Vec<u8>),
    /// A symbolic link with this target.
    Link(Vec<u8>),
}

/// What was in the archive so far.
pub(super) struct Tree {
    member: &'static str,
    limit: u64,
    count: u64,
    bytes: usize,
    known: HashMap<Box<[u8]>, Kind>,
    /// GNU long name and long link target, for the next entry.
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Tree {
    /// `limit`: most entries.
    pub(super) fn new(member: &'static str, limit: u64) -> Self {
        Self { member, limit, count: 0, bytes: 0, known: HashMap::new(), long_name: None, long_link: None }
    }

    /// Judges the next raw entry. `None` for headers that only describe the next entry.
    pub(super) fn add<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<Option<Member>, Bad> {
        self.count += 1;
        if self.count > self.limit {
            return Err(self.no(format!("has more than {} entries, which looks like a bomb", self.limit)));
        }
        let kind = entry.header().entry_type().as_byte();
        match kind {
            b'L' => return self.long(entry, true).map(|()| None),
            b'K' => return self.long(entry, false).map(|()| None),
            _ => {}
        }
        let header = entry.header();
        let name = self.long_name.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let long_link = self.long_link.take();
        let target = || {
            long_link
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default()
        };
        let Some(path) = plain(&name) else {
            return Err(self.no(format!("has the path `{}`, which leads out of the package", shown(&name))));
        };
        if !matches!(kind, 0 | b'0') && entry.size() != 0 {
            return Err(self.no(format!("has `{}` with contents, which is no file", shown(&name))));
        }
        let (kind, is) = match kind {
            0 | b'0' => (Kind::File, MemberKind::File(entry.size())),
            b'1' => {
                let target = target();
                // dpkg links to what lies on the host under this name: it has to be a file of the package.
                match plain(&target) {
                    Some(to) if self.known.get(to.as_slice()) == Some(&Kind::File) => {
                        (Kind::File, MemberKind::Hard(to))
                    }
                    _ => {
                        let (name, target) = (shown(&name), shown(&target));
                        return Err(self.no(format!(
                            "has the hard link `{name}` to `{target}`, no file of the package"
                        )));
                    }
                }
            }
            b'2' => {
                let target = target();
                if target.is_empty() || leads_out(&path, &target) {
                    let (name, target) = (shown(&name), shown(&target));
                    return Err(
                        self.no(format!("has the link `{name}` to `{target}`, which leads out of it"))
                    );
                }
                (Kind::Symlink, MemberKind::Link(target))
            }
            b'5' => (Kind::Directory, MemberKind::Directory),
            other => return Err(self.no(format!("has `{}`, {}", shown(&name), what(other)))),
        };
        let number = |value: std::io::Result<u64>, what: &str| {
            let value = value.ok().and_then(|value| u32::try_from(value).ok());
            value.ok_or_else(|| self.no(format!("has `{}` with {what} that is none", shown(&name))))
        };
        let header = entry.header();
        let mode = number(header.mode().map(u64::from), "a mode")? & 0o7777;
        let (uid, gid) = (number(header.uid(), "an owner")?, number(header.gid(), "a group")?);
        let modified = header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
        let member = Member { path, kind: is, mode, uid, gid, modified };
        let path = &member.path;
        if path.is_empty() {
            return if kind == Kind::Directory {
                Ok(Some(member))
            } else {
                Err(self.no("has an entry without a name".to_owned()))
            };
        }
        for end in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end) {
            if self.known.get(&path[..end]).is_some_and(|kind| *kind != Kind::Directory) {
                let (name, above) = (shown(path), shown(&path[..end]));
                return Err(self.no(format!("has `{name}` below `{above}`, which is no directory")));
            }
        }
        self.bytes += path.len();
        if self.bytes > PATHS {
            return Err(self.no("has more than 256 MiB of file names".to_owned()));
        }
        match self.known.insert(path.as_slice().into(), kind) {
            None => {}
            Some(Kind::Directory) if kind == Kind::Directory => {}
            Some(_) => return Err(self.no(format!("has `{}` twice", shown(path)))),
        }
        Ok(Some(member))
    }

    /// Reads the contents of a GNU long name (`L`) or long link (`K`) entry.
    fn long<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, name: bool) -> Result<(), Bad> {
        if entry.size() > PATH + 1 {
            return Err(self.no(format!("has a path of more than {PATH} bytes")));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(Bad::Read)?;
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            bytes.truncate(end);
        }
        let slot = if name { &mut self.long_name } else { &mut self.long_link };
        if slot.replace(bytes).is_some() {
            return Err(self.no("has two long names for one entry".to_owned()));
        }
        Ok(())
    }

    fn no(&self, why: String) -> Bad {
        Bad::Refused(refused(format!("its `{}` {why}", self.member)))
    }
}

/// The path without `.` and empty parts, or `None` where it is absolute, leads up, or holds a line break (which
/// dpkg refuses as well: its lists of files are lines).
fn plain(path: &[u8]) -> Option<Vec<u8>> {
    if path.starts_with(b"/") || path.contains(&b'\n') || path.contains(&0) {
        return None;
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    (!parts.contains(&b"..".as_slice())).then(|| parts.join(&b'/'))
}

/// Whether a symbolic link at `path` goes above the top of the tree. An absolute target does not: it is
/// below the top of the tree the package is installed in, and Policy 10.5 asks for one between two top-level
/// directories. That nothing of the same package is written through a link is asked apart.
fn leads_out(path: &[u8], target: &[u8]) -> bool {
    let mut depth =
        if target.starts_with(b"/") { 0 } else { path.iter().filter(|byte| **byte == b'/').count() };
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    target.contains(&b'\n') || target.contains(&0)
}

/// What a type of entry is that a package may not have.
fn what(kind: u8) -> &'static str {
    match kind {
        b'3' => "a character device",
        b'4' => "a block device",
        b'6' => "a FIFO",
        b'x' | b'g' => "an extended header that dpkg does not read",
        _ => "which is of an unknown type",
    }
}
