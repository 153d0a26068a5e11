//! A file that is filled over several runs: what one run wrote, the next one goes on from.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, fstat, fsync, openat, renameat, statat, syncfs,
    },
    io::Errno,
};

use super::{FileKind, Root, Stat, failure, walk::Place};
use crate::error::{Error, Result};

/// An unfinished file, held by this process alone. Dropped, it stays as it is, for the next run.
pub struct Partial {
    file: File,
    place: Place,
    size: u64,
}

impl Root {
    /// Opens the unfinished file at `path`, readable by its owner alone, or begins it. `None`: another process is
    /// at it.
    ///
    /// # Errors
    /// Its directory is not there, something that is no file has its name, or it cannot be written.
    pub fn partial(&self, path: &str) -> Result<Option<Partial>> {
        let place = self.place_in(path, "writing")?;
        let fail = |error: Errno| failure("writing", &place.shown, error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let fd = openat(&place.parent, place.name.as_str(), flags, Mode::from_raw_mode(0o600))
                .map_err(fail)?;
            // A file system without locks leaves it to the digest to find two writers out.
            if flock(&fd, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                return Ok(None);
            }
            let opened = Stat::from_raw(&fstat(&fd).map_err(fail)?);
            if opened.kind != FileKind::File {
                return Err(Error::failed(format!("`{}` is not a regular file", place.shown.display()))
                    .hint("remove it"));
            }
            // Another process may have finished and renamed it between the open and the lock.
            match statat(&place.parent, place.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(raw) if Stat::from_raw(&raw).inode == opened.inode => {
                    let mut file = File::from(fd);
                    file.seek(SeekFrom::End(0)).map_err(|error| failure("writing", &place.shown, error))?;
                    return Ok(Some(Partial { file, place, size: opened.size }));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(fail(error)),
            }
        }
    }

    /// Writes all that is not yet on the disk of this file system. One call costs less than one for each file as
    /// soon as there are some.
    ///
    /// # Errors
    /// Input/output error, no space.
    pub fn sync(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.fd, ".", flags, Mode::empty())
            .and_then(syncfs)
            .map_err(|error| failure("flushing", &self.path, error))
    }
}

impl Partial {
    /// Bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds to its end.
    ///
    /// # Errors
    /// No space, input/output error; part of `content` may be there then.
    pub fn put(&mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(|error| failure("writing", &self.place.shown, error))?;
        self.size += content.len() as u64;
        Ok(())
    }

    /// Cuts it to nothing.
    ///
    /// # Errors
    /// Input/output error.
    pub fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|error| failure("writing", &self.place.shown, error))?;
        self.size = 0;
        Ok(())
    }

    /// Gives all its content to `take`, piece by piece.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn each(&mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut read = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(0))?;
            let mut buffer = vec![0; 128 * 1024];
            loop {
                match self.file.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => take(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        read().map_err(|error| failure("reading", &self.place.shown, error))
    }

    /// The file itself, at its start, for reading. It has one position, which writing here moves too.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn reader(&self) -> Result<File> {
        let mut file = self.file.try_clone().map_err(|error| failure("reading", &self.place.shown, error))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| failure("reading", &self.place.shown, error))?;
        Ok(file)
    }

    /// Flushes this file alone.
    ///
    /// # Errors
    /// Input/output error, no space.
    pub fn flush(&self) -> Result<()> {
        fsync(&self.file).map_err(|error| failure("writing", &self.place.shown, error))
    }

    /// Gives it its final name and mode. Nothing is flushed: the caller has done so, and a lost rename leaves the
    /// unfinished file, whole.
    ///
    /// # Errors
    /// The directory of `path` is not there, or is on another file system.
    pub fn rename(self, root: &Root, path: &str, mode: u32) -> Result<()> {
        let target = root.place_in(path, "writing")?;
        let fail = |error: Errno| failure("writing", &target.shown, error);
        fchmod(&self.file, Mode::from_raw_mode(mode & 0o7777)).map_err(fail)?;
        renameat(&self.place.parent, self.place.name.as_str(), &target.parent, target.name.as_str())
            .map_err(fail)
    }

    /// The path it has now, as this process sees it.
    pub fn shown(&self) -> &Path {
        &self.place.shown
    }
}
