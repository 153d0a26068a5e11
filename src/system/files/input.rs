//! Files the user named: links are followed, sizes are bounded, and the errors are about usage.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use super::{
    Entry, Owner, failure,
    pending::{Finish, Pending},
    root::{list_of, read_bounded},
    walk::{Place, open_place},
};
use crate::error::{Error, Result};

/// Opens a regular file for reading, following links. Also gives its size in bytes.
///
/// # Errors
/// Usage errors for a missing path and for anything that is not a regular file.
pub fn open_input(path: &Path) -> Result<(File, u64)> {
    let shown = path.display();
    // Without blocking: the open of a FIFO would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => missing(path),
        Errno::NOTDIR => Error::usage(format!("reading `{shown}`: a part of the path is not a directory"))
            .hint(format!("see where it goes: `namei -l {shown}`")),
        Errno::LOOP => Error::usage(format!("reading `{shown}`: links go in a circle"))
            .hint(format!("see where it goes: `namei -l {shown}`")),
        Errno::NXIO => not_regular(path),
        error => failure("reading", path, error),
    })?;
    let file = File::from(fd);
    let meta = file.metadata().map_err(|error| failure("reading", path, error))?;
    if meta.is_dir() {
        return Err(Error::usage(format!("reading `{shown}`: it is a directory")).hint("name a file in it"));
    }
    if !meta.is_file() {
        return Err(not_regular(path));
    }
    Ok((file, meta.len()))
}

fn not_regular(path: &Path) -> Error {
    Error::usage(format!("reading `{}`: it is not a regular file", path.display()))
        .hint("name a plain file: pipes and devices are not read")
}

fn not_a_disk(path: &Path) -> Error {
    Error::usage(format!("writing a disk to `{}`: it is not a regular file", path.display())).hint(
        "name a plain file, and copy it to a device afterwards: `dd if=FILE of=DEVICE bs=4M conv=fsync`",
    )
}

fn missing(path: &Path) -> Error {
    let error = Error::usage(format!("`{}` does not exist", path.display()));
    match path.symlink_metadata() {
        Ok(_) => {
            error.hint(format!("it is a link to something that is gone: `readlink -f {}`", path.display()))
        }
        Err(_) => error.hint("check the spelling and the directory it is looked up from"),
    }
}

/// Reads a file the user named, at most `limit` bytes.
///
/// # Errors
/// Usage errors for a missing path, a directory, a device, and a file larger than `limit`.
pub fn read_input(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, size) = open_input(path)?;
    let too_large = || {
        Error::usage(format!("reading `{}`: it is larger than {limit} bytes", path.display()))
            .hint("no such file is that large: check that the right one is named")
    };
    if size > limit {
        return Err(too_large());
    }
    let content = read_bounded(&file, limit.saturating_add(1)).map_err(|e| failure("reading", path, e))?;
    if content.len() as u64 > limit { Err(too_large()) } else { Ok(content) }
}

/// Reads a text file the user named, at most `limit` bytes.
///
/// # Errors
/// As [`read_input`]; also the byte offset of what is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read_input(path, limit)?).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        Error::usage(format!("reading `{}`: byte {offset} is not valid UTF-8", path.display()))
            .hint("save the file as UTF-8")
    })
}

/// Writes a file the user named, whole or not at all: beside its target, flushed, renamed. A final
/// link is followed to its target. An existing file keeps its mode and owner; a new one gets `mode`
/// less the umask. What is there and is no regular file (`/dev/stdout`, a FIFO) is written to.
///
/// # Errors
/// The file cannot be written; what was there before is then unchanged.
pub fn write_output(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut output = create_output(path, mode)?;
    output.put(content)?;
    output.commit()
}

/// A file the user named, being written piece by piece, as [`write_output`] does it. Dropped before
/// [`Output::commit`], it leaves what was there.
pub struct Output(Written);

enum Written {
    Beside(Pending),
    /// Something that is no regular file.
    Through(File, PathBuf),
}

impl Output {
    /// Adds content.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&mut self, content: &[u8]) -> Result<()> {
        match &mut self.0 {
            Written::Beside(pending) => pending.put(content),
            Written::Through(file, path) => {
                file.write_all(content).map_err(|error| failure("writing", path, error))
            }
        }
    }

    /// The unfinished file itself, for what is not written from its start to its end: a disk image.
    ///
    /// # Errors
    /// A usage error for something that is no regular file.
    pub fn file(&mut self) -> Result<&mut File> {
        match &mut self.0 {
            Written::Beside(pending) => Ok(pending.file()),
            Written::Through(_, path) => Err(not_a_disk(path)),
        }
    }

    /// Flushes it and gives it its name.
    ///
    /// # Errors
    /// That cannot be done; what was there before is then unchanged.
    pub fn commit(self) -> Result<()> {
        match self.0 {
            Written::Beside(pending) => pending.commit(),
            Written::Through(..) => Ok(()),
        }
    }
}

/// Begins a file the user named, to be written piece by piece.
///
/// # Errors
/// As [`write_output`].
pub fn create_output(path: &Path, mode: u32) -> Result<Output> {
    let mut target = path.to_owned();
    // As many links as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        match std::fs::read_link(&target) {
            // The links of /proc (`/dev/stdout`) name no path; they are opened as they are.
            Ok(_) if target.starts_with("/proc") => break,
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => break,
        }
    }
    let finish = match std::fs::metadata(&target) {
        Ok(meta) if meta.is_dir() => {
            return Err(Error::usage(format!("writing `{}`: it is a directory", path.display()))
                .hint("name a file in it"));
        }
        Ok(meta) if !meta.is_file() => {
            let opened = File::options().write(true).custom_flags(0).open(&target);
            let file = opened.map_err(|error| failure("writing", path, error))?;
            return Ok(Output(Written::Through(file, path.to_owned())));
        }
        Ok(meta) => Finish::Like(meta.permissions().mode(), Owner { uid: meta.uid(), gid: meta.gid() }),
        Err(_) => Finish::AsMade,
    };
    let parent = match target.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(Error::usage(format!("writing `{}`: it is a directory", path.display()))),
    };
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else {
        return Err(Error::usage(format!("writing `{}`: it has no usable file name", path.display())));
    };
    let place = Place { parent: open_place(parent)?, name: name.to_owned(), shown: path.to_owned() };
    Pending::create(place, finish, mode).map(|pending| Output(Written::Beside(pending)))
}

/// Bytes that are free where a file the user named is, or would be.
///
/// # Errors
/// Its directory is not there, or the file system does not say.
pub fn room_for(path: &Path) -> Result<u64> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    };
    rustix::fs::statvfs(parent)
        .map(|raw| raw.f_bavail.saturating_mul(raw.f_frsize))
        .map_err(|error| failure("measuring", parent, error))
}

/// Writes a file the user named that nobody else may read, whole or not at all: 0600 and this user's,
/// also where another file was. A final link is not followed, and is left as it is.
///
/// # Errors
/// A link or something else that is no regular file has that name, or the file cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let shown = path.display();
    match path.symlink_metadata() {
        Ok(meta) if meta.is_symlink() => {
            let target = std::fs::read_link(path).map_err(|error| failure("writing", path, error))?;
            return Err(Error::usage(format!("writing `{shown}`: it is a link to `{}`", target.display()))
                .hint(format!("remove the link: `rm {shown}`; or name another file")));
        }
        Ok(meta) if !meta.is_file() => {
            return Err(Error::usage(format!("writing `{shown}`: it is there, and is no regular file"))
                .hint("name another file"));
        }
        // What cannot be looked at cannot be written either, and that says why.
        _ => {}
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(Error::usage(format!("writing `{shown}`: it is a directory"))),
    };
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(Error::usage(format!("writing `{shown}`: it has no usable file name")));
    };
    let place = Place { parent: open_place(parent)?, name: name.to_owned(), shown: path.to_owned() };
    // A link put there meanwhile is replaced by the rename, never followed.
    let mut pending = Pending::create(place, Finish::Exactly(0o600, Owner::current()), 0o600)?;
    pending.put(content)?;
    pending.commit()
}

/// Makes a directory the user named, and those above it, for this user alone (0700 each). One that
/// is there is left as it is.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub fn make_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| failure("making directory", path, error))
}

/// Makes a directory the user named, and those above it, open as the umask allows. One that is there is
/// left as it is.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub fn make_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .create(path)
        .map_err(|error| failure("making directory", path, error))
}

/// The names in a directory the user named, sorted. `None`: it is not there.
///
/// # Errors
/// It is not a directory, or cannot be read.
pub fn list_input(path: &Path) -> Result<Option<Vec<Entry>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => list_of(&fd).map(Some).map_err(|error| failure("listing", path, error)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failure("listing", path, error)),
    }
}

/// True if something is at `path`, links followed. What cannot be looked at counts as absent.
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// True if something is at `path`, a link that leads nowhere too. What cannot be looked at counts as absent.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// True if `path` is a directory, links followed.
pub fn is_dir(path: &Path) -> bool {
    path.is_dir()
}

/// `path` from `/` on, links and `..` resolved.
///
/// # Errors
/// It does not exist, or a directory on the way cannot be searched.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => missing(path),
        _ => failure("resolving", path, error),
    })
}
