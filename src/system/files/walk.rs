//! From a path as the host sees it to an open directory, without following a link.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, readlinkat, statat},
    io::Errno,
};

use super::{Root, failure};
use crate::error::{Error, Result};

/// Links that belong to the layout of the distribution: merged `/usr` (Debian's base-files) and the
/// old names of `/run` (FHS 3.0, 3.15). They are rewritten before the walk, never followed: first
/// the path, then what it stands for, then the targets the link may have.
const LAYOUT: &[(&[&str], &[&str], &[&str])] = &[
    (&["bin"], &["usr", "bin"], &["usr/bin", "/usr/bin"]),
    (&["sbin"], &["usr", "sbin"], &["usr/sbin", "/usr/sbin"]),
    (&["lib"], &["usr", "lib"], &["usr/lib", "/usr/lib"]),
    (&["lib32"], &["usr", "lib32"], &["usr/lib32", "/usr/lib32"]),
    (&["lib64"], &["usr", "lib64"], &["usr/lib64", "/usr/lib64"]),
    (&["var", "run"], &["run"], &["/run", "../run"]),
    (&["var", "lock"], &["run", "lock"], &["/run/lock", "../run/lock"]),
];

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A path split at its last component, its directory open.
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    pub(super) name: String,
    /// The whole path as this process sees it, for messages.
    pub(super) shown: PathBuf,
}

impl Root {
    /// The path as this process sees it: with `--root`, the tree's directory in front.
    pub fn shown(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// The components of `path`, layout links rewritten. `whole` says whether the last one is
    /// rewritten too.
    pub(super) fn components(&self, path: &str, whole: bool) -> Result<Vec<String>> {
        let wrong = |what: &str| Error::usage(format!("path `{}` {what}", path.escape_debug()));
        if !path.starts_with('/') {
            return Err(wrong("is not absolute").hint("write it from `/` on"));
        }
        if path.contains('\0') {
            return Err(wrong("holds a zero byte"));
        }
        let mut parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
        if parts.iter().any(|part| part == "..") {
            return Err(wrong("holds `..`").hint("write the path it stands for"));
        }
        for (from, to, targets) in LAYOUT {
            let inside = if whole { parts.len() >= from.len() } else { parts.len() > from.len() };
            if inside && parts.iter().zip(*from).all(|(a, b)| a == b) && self.is_layout_link(from, targets) {
                parts.splice(..from.len(), to.iter().map(|part| (*part).to_owned()));
                break;
            }
        }
        Ok(parts)
    }

    /// True if the link is there with a target it may have, or nothing is there at all.
    fn is_layout_link(&self, from: &[&str], targets: &[&str]) -> bool {
        let [above @ .., name] = from else { return false };
        let mut parent = None;
        for part in above {
            let at = parent.as_ref().unwrap_or(&self.fd);
            match openat(at, *part, DIRECTORY, Mode::empty()) {
                Ok(fd) => parent = Some(fd),
                Err(error) => return error == Errno::NOENT,
            }
        }
        let parent = parent.as_ref().unwrap_or(&self.fd);
        match readlinkat(parent, *name, Vec::new()) {
            Ok(target) => targets.iter().any(|t| t.as_bytes() == target.as_bytes()),
            Err(error) => error == Errno::NOENT,
        }
    }

    /// Opens a directory (as a place, not for reading). `None`: it, or one above it, is not there.
    pub(super) fn walk(&self, parts: &[String]) -> Result<Option<OwnedFd>> {
        let mut at = openat(&self.fd, ".", DIRECTORY, Mode::empty())
            .map_err(|error| failure("opening", &self.path, error))?;
        for (index, part) in parts.iter().enumerate() {
            match openat(&at, part.as_str(), DIRECTORY, Mode::empty()) {
                Ok(next) => at = next,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => {
                    let shown = self.path.join(parts[..=index].join("/"));
                    return Err(refuse(&at, part, &shown, error));
                }
            }
        }
        Ok(Some(at))
    }

    /// Splits `path` and opens the directory of its last component. `None`: that is not there.
    pub(super) fn place(&self, path: &str) -> Result<Option<Place>> {
        let mut parts = self.components(path, false)?;
        let shown = self.path.join(parts.join("/"));
        let Some(name) = parts.pop() else {
            return Err(Error::usage(format!("`{}` is the root itself", self.path.display())));
        };
        Ok(self.walk(&parts)?.map(|parent| Place { parent, name, shown }))
    }

    /// As [`Root::place`], where the directory must be there.
    pub(super) fn place_in(&self, path: &str, doing: &str) -> Result<Place> {
        self.place(path)?.ok_or_else(|| {
            let shown = self.shown(path);
            let parent = shown.parent().unwrap_or(&shown).display().to_string();
            Error::failed(format!("{doing} `{}`: directory `{parent}` does not exist", shown.display()))
        })
    }
}

/// Why `name` in `at` could not be opened as a directory: a link is named with its target.
fn refuse(at: &OwnedFd, name: &str, shown: &Path, error: Errno) -> Error {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => link(at, name, shown),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            Error::failed(format!("`{}` is not a directory", shown.display()))
                .hint("move it away, or choose another path")
        }
        _ => failure("opening", shown, error),
    }
}

/// The error for a link where none may be.
pub(super) fn link(at: &OwnedFd, name: &str, shown: &Path) -> Error {
    let target = readlinkat(at, name, Vec::new()).map(|t| t.to_string_lossy().into_owned());
    let target = target.unwrap_or_else(|_| "?".to_owned());
    Error::failed(format!(
        "`{}` is a link to `{}`; links are not followed",
        shown.display(),
        target.escape_debug()
    ))
    .hint("name the real path, or replace the link by what it points to")
}

/// Opens a directory the user named as a place; links on the way are followed.
pub(super) fn open_place(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOTDIR => {
            Error::usage(format!("`{}` is not a directory", path.display())).hint("name a directory")
        }
        Errno::NOENT => Error::usage(format!("directory `{}` does not exist", path.display()))
            .hint(format!("check the spelling, or make it: `mkdir -p {}`", path.display())),
        error => failure("opening", path, error),
    })
}
