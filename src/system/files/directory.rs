//! A directory being filled beside its target: nobody sees it before it is whole.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, RenameFlags, flock, mkdirat, openat, renameat, renameat_with},
    io::Errno,
};

use super::{
    Root, failure,
    pending::{PREFIX, sync_directory, temporary_name},
};
use crate::error::{Error, Result};

/// A directory that takes its name only when it is whole: fill [`OutputDir::root`], then [`OutputDir::commit`]. Dropped
/// before that, it is removed and the target is as it was.
#[derive(Debug)]
pub struct OutputDir {
    root: Root,
    parent: Root,
    temporary: String,
    name: String,
    shown: PathBuf,
    /// Locked for as long as this is alive: tells a sweep that someone is at it.
    _held: OwnedFd,
    /// The temporary directory has its own name still.
    named: bool,
}

/// Begins a directory the user named, with 0777 less the umask. One that is there is replaced, if it is empty or has a
/// file `sign`, by which those made here before are known. What killed processes left beside it is removed.
///
/// # Errors
/// Something else has its name, or nothing can be written there.
pub fn create_output_dir(path: &Path, sign: &str) -> Result<OutputDir> {
    let shown = path.display();
    let target = if path.exists() { super::absolute(path)? } else { path.to_owned() };
    let parent = match target.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(Error::usage(format!("writing `{shown}`: it is the whole file system"))),
    };
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else {
        return Err(Error::usage(format!("writing `{shown}`: it has no usable name")));
    };
    refuse_foreign(&target, sign)?;
    let parent = Root::open(parent)?;
    sweep(&parent)?;
    let temporary = loop {
        let name = temporary_name();
        match mkdirat(&parent.fd, name.as_str(), Mode::from_raw_mode(0o777)) {
            Ok(()) => break name,
            // A leftover of a killed process that had this id.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failure("making directory", path, error)),
        }
    };
    let held = hold(&parent, &temporary).map_err(|error| failure("making directory", path, error))?;
    let root = Root::open(&parent.path().join(&temporary))?;
    let (name, shown) = (name.to_owned(), path.to_owned());
    Ok(OutputDir { root, parent, temporary, name, shown, _held: held, named: true })
}

/// An error unless `target` is not there, or a directory that may be replaced.
fn refuse_foreign(target: &Path, sign: &str) -> Result<()> {
    let shown = target.display();
    let is_dir = match target.symlink_metadata() {
        Ok(meta) => meta.is_dir(),
        Err(_) => return Ok(()),
    };
    if !is_dir {
        return Err(Error::usage(format!("writing `{shown}`: it is there, and is no directory"))
            .hint("name another directory"));
    }
    let entries = super::list_input(target)?.unwrap_or_default();
    if entries.is_empty() || entries.iter().any(|entry| entry.name == sign) {
        return Ok(());
    }
    Err(Error::usage(format!("writing `{shown}`: it holds other things, and has no `{sign}`"))
        .hint("name another directory: what is in this one would be lost"))
}

/// Opens a directory and locks it. A file system without locks leaves the process id to go by.
fn hold(parent: &Root, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&parent.fd, name, flags, Mode::empty())?;
    let _ = flock(&fd, FlockOperation::NonBlockingLockExclusive);
    Ok(fd)
}

/// Removes the unfinished directories that killed processes left in `parent`.
fn sweep(parent: &Root) -> Result<()> {
    for entry in parent.list("/")? {
        let ours = entry.is_dir
            && entry.name.strip_prefix(PREFIX).is_some_and(|rest| {
                rest.split_once('-').is_some_and(|(process, count)| {
                    [process, count].iter().all(|part| part.parse::<u32>().is_ok())
                })
            });
        if !ours {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = openat(&parent.fd, entry.name.as_str(), flags, Mode::empty()) else { continue };
        if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
            parent.remove_tree(&format!("/{}", entry.name))?;
        }
    }
    Ok(())
}

impl OutputDir {
    /// The directory as it is being filled.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Gives it its name, in one step also where another one has it, which is then removed. What is in it is to be flushed
    /// before.
    ///
    /// # Errors
    /// That cannot be done; what was there before is then unchanged.
    pub fn commit(mut self) -> Result<()> {
        let parent = &self.parent.fd;
        let (from, to) = (self.temporary.as_str(), self.name.as_str());
        let fail = |error: Errno| failure("writing", &self.shown, error);
        match renameat(parent, from, parent, to) {
            Ok(()) => self.named = false,
            // What has the temporary name afterwards is the old one.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                renameat_with(parent, from, parent, to, RenameFlags::EXCHANGE).map_err(fail)?;
            }
            Err(error) => return Err(fail(error)),
        }
        sync_directory(parent, &self.shown)?;
        if self.named {
            self.parent.remove_tree(&format!("/{}", self.temporary))?;
            self.named = false;
        }
        Ok(())
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if self.named {
            // Nothing more can be done about a failure here; the next one sweeps what is left.
            let _ = self.parent.remove_tree(&format!("/{}", self.temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SIGN: &str = "made-here";

    fn write(output: &OutputDir, name: &str) {
        output.root().write(&format!("/{name}"), b"x", 0o644, super::super::Owner::current()).unwrap();
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_there_only_when_it_is_whole_and_replaces_its_like() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("image");
        let output = create_output_dir(&target, SIGN).unwrap();
        write(&output, SIGN);
        write(&output, "one");
        assert!(!target.exists());
        output.commit().unwrap();
        assert_eq!(names(&target), [SIGN, "one"]);

        let output = create_output_dir(&target, SIGN).unwrap();
        write(&output, SIGN);
        write(&output, "two");
        assert_eq!(names(&target), [SIGN, "one"]);
        // Another one beside it leaves it alone.
        drop(create_output_dir(&dir.path().join("other"), SIGN).unwrap());
        output.commit().unwrap();
        assert_eq!(names(&target), [SIGN, "two"]);
        assert_eq!(names(dir.path()), ["image"]);

        drop(create_output_dir(&target, SIGN).unwrap());
        assert_eq!(names(&target), [SIGN, "two"]);
        assert_eq!(names(dir.path()), ["image"]);
    }

    #[test]
    fn other_things_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("home");
        fs::create_dir(&target).unwrap();
        let output = create_output_dir(&target, SIGN).unwrap();
        output.commit().unwrap();
        fs::write(target.join("letter"), "dear").unwrap();
        let error = create_output_dir(&target, SIGN).unwrap_err();
        assert!(error.message().contains("holds other things"), "{error:?}");
        let error = create_output_dir(&target.join("letter"), SIGN).unwrap_err();
        assert!(error.message().contains("is no directory"), "{error:?}");
        assert_eq!(names(&target), ["letter"]);
        // Filled by someone else meanwhile.
        let later = dir.path().join("later");
        let output = create_output_dir(&later, SIGN).unwrap();
        fs::write(&later, "file").unwrap();
        assert!(output.commit().is_err());
        assert_eq!(fs::read(&later).unwrap(), b"file");
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".bedplate-1-0/deep")).unwrap();
        fs::create_dir_all(dir.path().join(".bedplate-mine")).unwrap();
        let alive = create_output_dir(&dir.path().join("a"), SIGN).unwrap();
        let second = create_output_dir(&dir.path().join("b"), SIGN).unwrap();
        let kept = [".bedplate-mine".to_owned(), alive.temporary.clone(), second.temporary.clone()];
        let there = names(dir.path());
        assert_eq!(there.len(), 3, "{there:?}");
        assert!(kept.iter().all(|name| there.contains(name)), "{there:?}");
    }
}
