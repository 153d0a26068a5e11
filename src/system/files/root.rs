//! The host's own paths, beneath one directory.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Uid, chmodat, chownat, flock, fstat,
        mkdirat, openat, readlinkat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{
    Entry, FileKind, Owner, Stat, failure,
    pending::{Finish, PREFIX, Pending, copy, sync_directory, temporary_name},
    walk::{Place, link, open_place},
};
use crate::error::{Error, Result};

/// A directory beneath which all paths are resolved: `/` on a running host, DIR with `--root DIR`.
///
/// Paths are absolute as the host sees them (`/data/minerhome`) and resolved one component after the
/// other; a link anywhere is an error that names it. Only links of the distribution's own layout
/// (`/bin`, `/lib`, `/sbin`, `/lib64`, `/var/run`, `/var/lock`) are rewritten beforehand.
#[derive(Debug)]
pub struct Root {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Root {
    /// Opens the directory; links in `path` itself are followed.
    ///
    /// # Errors
    /// It is not there, not a directory, or may not be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = open_place(path)?;
        let path = path.canonicalize().map_err(|error| failure("opening", path, error))?;
        Ok(Self { fd, path })
    }

    /// The directory, from `/` on.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True for `/`: the running host itself.
    pub fn is_host(&self) -> bool {
        self.path == Path::new("/")
    }

    /// What is at `path`; `None` if nothing. A link at the end is not followed.
    ///
    /// # Errors
    /// A link or a non-directory above it, or permission denied.
    pub fn stat(&self, path: &str) -> Result<Option<Stat>> {
        if self.components(path, false)?.is_empty() {
            let raw = fstat(&self.fd).map_err(|error| failure("reading", &self.path, error))?;
            return Ok(Some(Stat::from_raw(&raw)));
        }
        match self.place(path)? {
            Some(place) => stat_in(&place),
            None => Ok(None),
        }
    }

    /// True if anything is at `path`.
    ///
    /// # Errors
    /// As [`Root::stat`].
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.stat(path)?.is_some())
    }

    /// Reads a regular file of at most `limit` bytes; `None` if nothing is there. Never blocks.
    ///
    /// # Errors
    /// A link, a directory, a device, a FIFO, or a file larger than `limit`.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, stat)) = self.open_file(path)? else { return Ok(None) };
        let shown = self.shown(path);
        let too_large =
            || Error::failed(format!("reading `{}`: it is larger than {limit} bytes", shown.display()));
        if stat.size > limit {
            return Err(too_large());
        }
        let content = read_bounded(&file, limit.saturating_add(1))
            .map_err(|error| failure("reading", &shown, error))?;
        if content.len() as u64 > limit { Err(too_large()) } else { Ok(Some(content)) }
    }

    /// As [`Root::read`], for text.
    ///
    /// # Errors
    /// As [`Root::read`]; also the byte offset of what is not UTF-8.
    pub fn read_text(&self, path: &str, limit: u64) -> Result<Option<String>> {
        let Some(content) = self.read(path, limit)? else { return Ok(None) };
        String::from_utf8(content).map(Some).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            let shown = self.shown(path);
            Error::failed(format!("reading `{}`: byte {offset} is not valid UTF-8", shown.display()))
        })
    }

    /// A directory beneath this one, for many paths in it; `None` if nothing is there.
    ///
    /// # Errors
    /// As [`Root::list`].
    pub fn beneath(&self, path: &str) -> Result<Option<Self>> {
        let parts = self.components(path, true)?;
        Ok(self.walk(&parts)?.map(|fd| Self { fd, path: self.shown(path) }))
    }

    /// Opens a regular file for reading; `None` if nothing is there. Never blocks.
    ///
    /// # Errors
    /// A link, or anything that is not a regular file.
    pub fn open_file(&self, path: &str) -> Result<Option<(std::fs::File, Stat)>> {
        let Some(place) = self.place(path)? else { return Ok(None) };
        // Looked at first: the mere open of a device can do something.
        match stat_in(&place)? {
            None => return Ok(None),
            Some(stat) => must_be_file(&place, &stat, "reading")?,
        }
        let Some(fd) = open_to_read(&place)? else { return Ok(None) };
        let stat = Stat::from_raw(&fstat(&fd).map_err(|error| failure("reading", &place.shown, error))?);
        must_be_file(&place, &stat, "reading")?;
        Ok(Some((std::fs::File::from(fd), stat)))
    }

    /// Opens a regular file or a character device for reading, without blocking; `None` if nothing is there. Only for
    /// devices whose mere opening does nothing, such as `/dev/kmsg`.
    ///
    /// # Errors
    /// A link, or anything else that cannot be read so.
    pub fn open_stream(&self, path: &str) -> Result<Option<std::fs::File>> {
        let Some(place) = self.place(path)? else { return Ok(None) };
        let Some(stat) = stat_in(&place)? else { return Ok(None) };
        if stat.number.is_none() {
            must_be_file(&place, &stat, "reading")?;
        }
        Ok(open_to_read(&place)?.map(std::fs::File::from))
    }

    /// Writes a file, whole or not at all: beside its target, flushed, renamed. It can be read by
    /// nobody else before owner and mode are set, whatever the umask. Its directory must exist.
    ///
    /// # Errors
    /// A link or a directory has that name, or the file cannot be written; nothing is changed then.
    pub fn write(&self, path: &str, content: &[u8], mode: u32, owner: Owner) -> Result<()> {
        let mut pending = self.create(path, mode, owner)?;
        pending.put(content)?;
        pending.commit()
    }

    /// As [`Root::write`], with content that streams in. Says how many bytes there were.
    ///
    /// # Errors
    /// As [`Root::write`]; also a failure of `reader`.
    pub fn write_from(&self, path: &str, reader: &mut dyn io::Read, mode: u32, owner: Owner) -> Result<u64> {
        let mut pending = self.create(path, mode, owner)?;
        let total = copy(reader, &mut pending)?;
        pending.commit()?;
        Ok(total)
    }

    /// Begins a file that appears only when it is committed.
    ///
    /// # Errors
    /// A link or a directory has that name, or nothing can be written there.
    pub fn create(&self, path: &str, mode: u32, owner: Owner) -> Result<Pending> {
        let place = self.place_in(path, "writing")?;
        if let Some(stat) = stat_in(&place)? {
            must_be_file(&place, &stat, "writing")?;
        }
        Pending::create(place, Finish::Exactly(mode, owner), mode)
    }

    /// Makes a directory with this mode and owner, or gives them to the one that is there. Missing
    /// directories above it are made with 0755, owned by this process's user (root, when provisioning).
    ///
    /// # Errors
    /// A link or a file has that name, or it cannot be made.
    pub fn make_dir(&self, path: &str, mode: u32, owner: Owner) -> Result<()> {
        let parts = self.components(path, true)?;
        let mut at =
            self.walk(&[])?.ok_or_else(|| Error::failed(format!("`{}` is gone", self.path.display())))?;
        for (index, part) in parts.iter().enumerate() {
            let shown = self.path.join(parts[..=index].join("/"));
            // Shut until owner and mode are right; the umask can only take away.
            let made = match mkdirat(&at, part.as_str(), Mode::from_raw_mode(0o700)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(failure("making directory", &shown, error)),
            };
            let parent = at;
            at = open_directory(&parent, part, &shown)?;
            if index + 1 == parts.len() {
                adjust(&at, &shown, Some(mode), Some(owner))?;
            } else if made {
                adjust(&at, &shown, Some(0o755), Some(Owner::current()))?;
            }
            if made {
                sync_directory(&parent, &shown)?;
            }
        }
        Ok(())
    }

    /// Sets the permission bits of a file or directory.
    ///
    /// # Errors
    /// Nothing there, a link, a device, or a file with more than one name.
    pub fn set_mode(&self, path: &str, mode: u32) -> Result<()> {
        self.adjust_path(path, Some(mode), None)
    }

    /// Sets the owner of a file or directory. Set-user-id bits are cleared by the kernel: set the mode
    /// afterwards.
    ///
    /// # Errors
    /// As [`Root::set_mode`].
    pub fn set_owner(&self, path: &str, owner: Owner) -> Result<()> {
        self.adjust_path(path, None, Some(owner))
    }

    fn adjust_path(&self, path: &str, mode: Option<u32>, owner: Option<Owner>) -> Result<()> {
        let place = self.place_in(path, "changing")?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&place.parent, place.name.as_str(), flags, Mode::empty())
            .map_err(|error| failure("changing", &place.shown, error))?;
        let stat = Stat::from_raw(&fstat(&fd).map_err(|error| failure("changing", &place.shown, error))?);
        let shown = place.shown.display();
        match stat.kind {
            FileKind::Link => return Err(link(&place.parent, &place.name, &place.shown)),
            FileKind::Other => {
                return Err(Error::failed(format!("changing `{shown}`: it is not a file or directory")));
            }
            FileKind::File if stat.links > 1 => {
                return Err(Error::failed(format!(
                    "changing `{shown}`: the file has {} names, and all would change",
                    stat.links
                ))
                .hint(format!(
                    "see the others: `find / -xdev -samefile {shown}`; then replace it by a copy of its own"
                )));
            }
            FileKind::File | FileKind::Directory => {}
        }
        adjust(&fd, &place.shown, mode, owner)
    }

    /// Removes a file or a link (not what it points to). False: nothing was there.
    ///
    /// # Errors
    /// It is a directory, or cannot be removed.
    pub fn remove_file(&self, path: &str) -> Result<bool> {
        let Some(place) = self.place(path)? else { return Ok(false) };
        remove(&place, AtFlags::empty())
    }

    /// Removes an empty directory. False: it is not empty, or nothing was there.
    ///
    /// # Errors
    /// It is not a directory, or cannot be removed.
    pub fn remove_dir(&self, path: &str) -> Result<bool> {
        let Some(place) = self.place(path)? else { return Ok(false) };
        remove(&place, AtFlags::REMOVEDIR)
    }

    /// Removes a directory and all in it, following no link. False: nothing was there. For
    /// bedplate's own directories only.
    ///
    /// # Errors
    /// Something in it cannot be removed; the rest may be gone then.
    pub fn remove_tree(&self, path: &str) -> Result<bool> {
        let Some(place) = self.place(path)? else { return Ok(false) };
        match stat_in(&place)? {
            None => Ok(false),
            Some(stat) if stat.is_dir() => {
                empty(&place)?;
                remove(&place, AtFlags::REMOVEDIR)
            }
            Some(_) => remove(&place, AtFlags::empty()),
        }
    }

    /// The names in a directory, sorted; empty if it is not there.
    ///
    /// # Errors
    /// It is not a directory, or cannot be read.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>> {
        let parts = self.components(path, true)?;
        let Some(fd) = self.walk(&parts)? else { return Ok(Vec::new()) };
        list_of(&fd).map_err(|error| failure("listing", &self.shown(path), error))
    }

    /// As [`Root::list`], the names alone.
    ///
    /// # Errors
    /// As [`Root::list`].
    pub fn names(&self, path: &str) -> Result<Vec<String>> {
        Ok(self.list(path)?.into_iter().map(|entry| entry.name).collect())
    }

    /// Makes a link to `target`, replacing a link of that name in one step.
    ///
    /// # Errors
    /// Something that is no link has that name, or the link cannot be made.
    pub fn symlink(&self, target: &str, path: &str) -> Result<()> {
        let place = self.place_in(path, "linking")?;
        if stat_in(&place)?.is_some_and(|stat| stat.kind != FileKind::Link) {
            return Err(Error::failed(format!(
                "linking `{}`: it is there and no link",
                place.shown.display()
            ))
            .hint("move it away"));
        }
        let fail = |error: Errno| failure("linking", &place.shown, error);
        let temporary = loop {
            let name = temporary_name();
            match symlinkat(target, &place.parent, name.as_str()) {
                Ok(()) => break name,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(fail(error)),
            }
        };
        if let Err(error) = renameat(&place.parent, temporary.as_str(), &place.parent, place.name.as_str()) {
            let _ = unlinkat(&place.parent, temporary.as_str(), AtFlags::empty());
            return Err(fail(error));
        }
        sync_directory(&place.parent, &place.shown)
    }

    /// Where a link points to; `None` if nothing is there.
    ///
    /// # Errors
    /// It is no link, or its target is not UTF-8.
    pub fn read_link(&self, path: &str) -> Result<Option<String>> {
        let Some(place) = self.place(path)? else { return Ok(None) };
        match readlinkat(&place.parent, place.name.as_str(), Vec::new()) {
            Ok(target) => target.into_string().map(Some).map_err(|_| {
                Error::failed(format!("reading `{}`: the link's target is not UTF-8", place.shown.display()))
            }),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::INVAL) => {
                Err(Error::failed(format!("reading `{}`: it is not a link", place.shown.display())))
            }
            Err(error) => Err(failure("reading", &place.shown, error)),
        }
    }

    /// Gives a file or directory another name, replacing a file of that name.
    ///
    /// # Errors
    /// `from` or the directory of `to` is not there, or they are on two file systems.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let from = self.place_in(from, "renaming")?;
        let to = self.place_in(to, "renaming to")?;
        renameat(&from.parent, from.name.as_str(), &to.parent, to.name.as_str())
            .map_err(|error| failure("renaming", &from.shown, error))?;
        sync_directory(&to.parent, &to.shown)?;
        sync_directory(&from.parent, &from.shown)
    }

    /// Removes the temporary files that processes which ended without cleaning up (a kill, a power
    /// cut) left in the directory at `path`. Says how many. Those still being written stay.
    ///
    /// # Errors
    /// The directory cannot be read, or a file cannot be removed.
    pub fn sweep(&self, path: &str) -> Result<usize> {
        let mut swept = 0;
        for entry in self.list(path)? {
            let owner = entry.name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
            let Some(process) = owner.and_then(|(process, _)| process.parse().ok()) else { continue };
            let own = process == rustix::process::getpid().as_raw_nonzero().get();
            let gone = Pid::from_raw(process).is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH));
            let temporary = format!("{path}/{}", entry.name);
            if gone
                && !own
                && !entry.is_dir
                && self.is_abandoned(&temporary)?
                && self.remove_file(&temporary)?
            {
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// False if a process, perhaps of another process namespace, still writes to this temporary file.
    fn is_abandoned(&self, temporary: &str) -> Result<bool> {
        let Some(place) = self.place(temporary)? else { return Ok(false) };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(match openat(&place.parent, place.name.as_str(), flags, Mode::empty()) {
            Ok(fd) => flock(&fd, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK),
            // A temporary link, or a file shut even to its owner: the process id decides.
            Err(_) => true,
        })
    }
}

fn stat_in(place: &Place) -> Result<Option<Stat>> {
    match statat(&place.parent, place.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(raw) => Ok(Some(Stat::from_raw(&raw))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failure("reading", &place.shown, error)),
    }
}

fn open_to_read(place: &Place) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&place.parent, place.name.as_str(), flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(link(&place.parent, &place.name, &place.shown)),
        Err(error) => Err(failure("reading", &place.shown, error)),
    }
}

fn must_be_file(place: &Place, stat: &Stat, doing: &str) -> Result<()> {
    let shown = place.shown.display();
    match stat.kind {
        FileKind::File => Ok(()),
        FileKind::Link => Err(link(&place.parent, &place.name, &place.shown)),
        FileKind::Directory => Err(Error::failed(format!("{doing} `{shown}`: it is a directory"))),
        FileKind::Other => Err(Error::failed(format!(
            "{doing} `{shown}`: it is a device, socket or FIFO, not a regular file"
        ))),
    }
}

fn open_directory(at: &OwnedFd, name: &str, shown: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(at, name, flags, Mode::empty()).map_err(|error| failure("opening", shown, error))?;
    let raw = fstat(&fd).map_err(|error| failure("opening", shown, error))?;
    match FileKind::from_raw(FileType::from_raw_mode(raw.st_mode)) {
        FileKind::Directory => Ok(fd),
        FileKind::Link => Err(link(at, name, shown)),
        FileKind::File | FileKind::Other => {
            Err(Error::failed(format!("`{}` is not a directory", shown.display()))
                .hint("move it away, or choose another path"))
        }
    }
}

/// Gives what is open at `fd` (as a place) its owner, then its mode; what is right is not touched.
fn adjust(fd: &OwnedFd, shown: &Path, mode: Option<u32>, owner: Option<Owner>) -> Result<()> {
    let now = |fd: &OwnedFd| {
        fstat(fd).map(|raw| Stat::from_raw(&raw)).map_err(|error| failure("changing", shown, error))
    };
    if let Some(owner) = owner
        && now(fd)?.owner() != owner
    {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            .map_err(|error| failure("changing the owner of", shown, error))?;
    }
    if let Some(mode) = mode.map(|mode| mode & 0o7777)
        && now(fd)?.mode != mode
    {
        // fchmod(2) refuses a descriptor opened as a place; its entry in /proc is the same inode.
        let same = format!("/proc/self/fd/{}", fd.as_raw_fd());
        chmodat(CWD, same.as_str(), Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|error| failure("changing the mode of", shown, error))?;
    }
    Ok(())
}

fn remove(place: &Place, flags: AtFlags) -> Result<bool> {
    match unlinkat(&place.parent, place.name.as_str(), flags) {
        Ok(()) => sync_directory(&place.parent, &place.shown).map(|()| true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::NOTEMPTY | Errno::EXIST) if flags.contains(AtFlags::REMOVEDIR) => Ok(false),
        Err(error) => Err(failure("removing", &place.shown, error)),
    }
}

/// Removes all that is in a directory.
fn empty(place: &Place) -> Result<()> {
    let fd = open_directory(&place.parent, &place.name, &place.shown)?;
    for entry in list_of(&fd).map_err(|error| failure("listing", &place.shown, error))? {
        let parent = openat(&fd, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failure("opening", &place.shown, error))?;
        let shown = place.shown.join(&entry.name);
        let inner = Place { parent, name: entry.name, shown };
        let flags = if entry.is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        if entry.is_dir {
            empty(&inner)?;
        }
        unlinkat(&inner.parent, inner.name.as_str(), flags)
            .map_err(|error| failure("removing", &inner.shown, error))?;
    }
    Ok(())
}

/// The names in an open directory, sorted.
pub(super) fn list_of(fd: &OwnedFd) -> rustix::io::Result<Vec<Entry>> {
    // A descriptor opened as a place cannot be read itself.
    let readable = openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|raw| FileType::from_raw_mode(raw.st_mode) == FileType::Directory),
            kind => kind == FileType::Directory,
        };
        entries.push(Entry { name: name.to_string_lossy().into_owned(), is_dir });
    }
    entries.sort();
    Ok(entries)
}

/// Reads from the start of a file, at most `limit` bytes.
pub(super) fn read_bounded(file: impl AsFd, limit: u64) -> rustix::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while (content.len() as u64) < limit {
        let room = usize::try_from(limit - content.len() as u64).unwrap_or(usize::MAX).min(buffer.len());
        match rustix::io::pread(&file, &mut buffer[..room], content.len() as u64) {
            Ok(0) => break,
            Ok(count) => content.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(content)
}
