//! A file being written beside its target: nobody sees it before it is whole.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{
        AtFlags, FlockOperation, Gid, Mode, OFlags, Uid, fchmod, fchown, flock, fstat, fsync, openat,
        renameat, unlinkat,
    },
    io::Errno,
};

use super::{Owner, Root, failure, walk::Place};
use crate::error::{Error, Result};

/// How temporary names begin; then the process id, a dash and a counter.
pub(super) const PREFIX: &str = ".bedplate-";

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A temporary name no other thread or living process of this host uses.
pub(super) fn temporary_name() -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{count}", std::process::id())
}

/// What mode and owner a finished file gets.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// Exactly these, whatever the umask.
    Exactly(u32, Owner),
    /// The mode the file was made with, less the umask, and the owner of this process.
    AsMade,
    /// These if it can be; where the owner cannot be given, the group gets no more than others have.
    Like(u32, Owner),
}

/// A file that takes its name only when it is whole: `write` to it, then [`Pending::commit`]. Dropped
/// before that, it is removed and the target is as it was.
pub struct Pending {
    file: File,
    place: Place,
    temporary: String,
    finish: Finish,
    /// The temporary file has its own name still.
    named: bool,
}

impl Pending {
    /// Makes the temporary file beside `place`, readable by its owner alone until it is committed
    /// (`mode` less the umask with [`Finish::AsMade`]).
    pub(super) fn create(place: Place, finish: Finish, mode: u32) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let first = if matches!(finish, Finish::AsMade) { mode } else { 0o600 };
        loop {
            let temporary = temporary_name();
            match openat(&place.parent, temporary.as_str(), flags, Mode::from_raw_mode(first)) {
                Ok(fd) => {
                    // Tells a sweep, also one in another process namespace, that someone is at it. A
                    // file system without locks leaves the process id to go by.
                    let _ = flock(&fd, FlockOperation::NonBlockingLockExclusive);
                    return Ok(Self { file: File::from(fd), place, temporary, finish, named: true });
                }
                // A leftover of a killed process that had this id.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failure("writing", &place.shown, error)),
            }
        }
    }

    /// Writes all of `content`.
    ///
    /// # Errors
    /// The file cannot be written: no space, input/output error.
    pub fn put(&mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(|error| failure("writing", &self.place.shown, error))
    }

    /// Flushes, sets owner and mode, takes the name, and flushes the directory.
    ///
    /// # Errors
    /// Any of these fails; the target is then as it was.
    pub fn commit(mut self) -> Result<()> {
        self.seal()?;
        let Place { parent, name, shown } = &self.place;
        renameat(parent, self.temporary.as_str(), parent, name.as_str())
            .map_err(|error| failure("writing", shown, error))?;
        self.named = false;
        sync_directory(parent, shown)
    }

    /// As [`Pending::commit`], under another path of the same file system.
    ///
    /// # Errors
    /// As [`Pending::commit`]; also a missing parent directory.
    pub fn commit_at(mut self, root: &Root, path: &str) -> Result<()> {
        let target = root.place_in(path, "writing")?;
        self.seal()?;
        renameat(&self.place.parent, self.temporary.as_str(), &target.parent, target.name.as_str())
            .map_err(|error| failure("writing", &target.shown, error))?;
        self.named = false;
        sync_directory(&target.parent, &target.shown)
    }

    fn seal(&mut self) -> Result<()> {
        let shown = &self.place.shown;
        let fail = |error: Errno| failure("writing", shown, error);
        match self.finish {
            Finish::Exactly(mode, owner) => {
                // Owner first: a change of owner clears the set-user-id bits.
                give(&self.file, owner).map_err(|error| failure("changing the owner of", shown, error))?;
                fchmod(&self.file, Mode::from_raw_mode(mode & 0o7777)).map_err(fail)?;
            }
            Finish::Like(mode, owner) => {
                let mode = match give(&self.file, owner) {
                    Ok(()) => mode & 0o7777,
                    Err(_) => (mode & 0o707) | ((mode & 0o7) << 3),
                };
                fchmod(&self.file, Mode::from_raw_mode(mode)).map_err(fail)?;
            }
            Finish::AsMade => {}
        }
        fsync(&self.file).map_err(fail)
    }
}

/// Gives a file to `owner`, unless it already has it.
fn give(file: impl AsFd, owner: Owner) -> rustix::io::Result<()> {
    let stat = fstat(&file)?;
    if (stat.st_uid, stat.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

impl Write for Pending {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.file.write(content)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.named {
            // Nothing more can be done about a failure here; `Root::sweep` removes what is left.
            let _ = unlinkat(&self.place.parent, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

/// Flushes a directory, so that a rename in it outlives a power cut.
pub(super) fn sync_directory(place: &OwnedFd, shown: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(place, ".", flags, Mode::empty()) {
        Ok(fd) => match fsync(&fd) {
            // Some file systems cannot flush a directory; there is nothing to wait for there.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(failure("flushing the directory of", shown, error)),
        },
        // Writable but not readable for this user: it cannot be flushed by anyone but its owner.
        Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(failure("flushing the directory of", shown, error)),
    }
}

/// For errors about a whole file: the path it will have.
impl Pending {
    /// The unfinished file itself, for reading and for writing anywhere in it.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The path the file will have, as this process sees it.
    pub fn shown(&self) -> &PathBuf {
        &self.place.shown
    }
}

/// Copies all of `reader` into `pending`, and says how many bytes there were.
pub(super) fn copy(reader: &mut dyn io::Read, pending: &mut Pending) -> Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                pending.put(&buffer[..count])?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let shown = pending.shown().display();
                return Err(Error::failed(format!("reading what goes into `{shown}`")).because(error));
            }
        }
    }
}
