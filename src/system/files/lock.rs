//! One writer at a time on a host.

use std::{fs::File, io::Write, os::fd::OwnedFd, time::Duration};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, fchmod, flock, fstat, ftruncate, openat, statat},
    io::Errno,
};

use super::{FileKind, Owner, Root, Stat, failure, root::read_bounded, walk::link};
use crate::error::{Error, Result};

/// The lock of a host, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct HostLock {
    file: File,
}

impl HostLock {
    /// Takes the lock at `path` (its directory is made) for `what`, such as ``provision `h100` ``.
    ///
    /// # Errors
    /// Another process holds it: exit code 1, and the error says which one, since when, for what.
    pub fn acquire(root: &Root, path: &str, what: &str) -> Result<Self> {
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty())
            && root.stat(parent)?.is_none()
        {
            root.make_dir(parent, 0o755, Owner::current())?;
        }
        let place = root.place_in(path, "locking")?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // 0600: whoever may open the file may lock it, and keep everyone else out.
        let fd: OwnedFd = match openat(&place.parent, place.name.as_str(), flags, Mode::from_raw_mode(0o600))
        {
            Ok(fd) => fd,
            Err(Errno::LOOP) => return Err(link(&place.parent, &place.name, &place.shown)),
            Err(error) => return Err(failure("locking", &place.shown, error)),
        };
        let fail = |error: Errno| failure("locking", &place.shown, error);
        let stat = Stat::from_raw(&fstat(&fd).map_err(fail)?);
        if stat.kind != FileKind::File {
            return Err(Error::failed(format!(
                "locking `{}`: it is not a regular file",
                place.shown.display()
            )));
        }
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(&fd)),
            Err(error) => return Err(fail(error)),
        }
        // Someone may have removed the file between our open and our lock: then others lock another.
        let now = statat(&place.parent, place.name.as_str(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if now.map(|now| (now.st_dev, now.st_ino)) != Ok((stat.device, stat.inode)) {
            return Err(Error::failed(format!("`{}` was removed while it was taken", place.shown.display()))
                .hint("run the command again"));
        }
        fchmod(&fd, Mode::from_raw_mode(0o600)).map_err(fail)?;
        let mut file = File::from(fd);
        ftruncate(&file, 0).map_err(fail)?;
        let line = format!("{}\n{:.0}\n{what}\n", std::process::id(), jiff::Timestamp::now());
        file.write_all(line.as_bytes()).map_err(|error| failure("locking", &place.shown, error))?;
        Ok(Self { file })
    }
}

/// An error where another process holds the lock at `path`; changes nothing.
///
/// # Errors
/// As [`HostLock::acquire`] for a lock that is held.
pub fn refuse_held(root: &Root, path: &str) -> Result<()> {
    let Some((file, _)) = root.open_file(path)? else { return Ok(()) };
    let fd = OwnedFd::from(file);
    match flock(&fd, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Err(held(&fd)),
        // Dropped with the descriptor, before anyone could meet it.
        _ => Ok(()),
    }
}

impl Drop for HostLock {
    fn drop(&mut self) {
        // The lock itself goes with the descriptor; the text is only for people.
        let _ = ftruncate(&self.file, 0);
    }
}

/// The error that names the holder.
fn held(fd: &OwnedFd) -> Error {
    let mut text = String::new();
    for _ in 0..5 {
        text = read_bounded(fd, 4096).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        if text.lines().count() >= 3 {
            break;
        }
        // The holder has the lock and is about to write who it is.
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut lines = text.lines();
    match (lines.next(), lines.next(), lines.next()) {
        (Some(process), Some(since), Some(what)) => Error::failed(format!(
            "another run holds the host: process {process} since {since}, {}",
            what.escape_debug()
        ))
        .hint(format!("wait for it, or see what it does: `ps -fp {process}`")),
        _ => Error::failed("another run holds the host").hint("wait for it, then run the command again"),
    }
}
