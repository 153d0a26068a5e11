//! The bundle: profile, lock, deployments and files as one deterministic archive, named by its digest.
//!
//! | archive path | what it is |
//! |---|---|
//! | `index.json` | which archive path holds which input, by the path the profile writes |
//! | `profile.toml`, `profile.lock` | the profile and its lock, as they are |
//! | `inputs/NNN-NAME` | deployments and files, numbered in the order of their paths |
//! | `store/sha256/HEX` | content that is carried along ([`carried`]) |
//!
//! One bundle has one form: an archive with any other order, mode, time or padding is refused.

pub mod carried;

use std::{collections::BTreeMap, io::Read as _};

use serde::{Deserialize, Serialize};

use super::{
    Freshness, Lock,
    set::{self, Contradiction},
};
use crate::{
    digest::Digest,
    error::{Doing as _, Error, Result},
    profile::{self, Deployment, Profile},
};

/// Version of the bundle's form.
const VERSION: u32 = 1;
/// Largest file in a bundle, in bytes.
const MAX_FILE: usize = 64 * 1024 * 1024;
/// Largest bundle, in bytes.
const MAX_TOTAL: usize = 256 * 1024 * 1024;
/// Most files in a bundle.
const MAX_FILES: usize = 4096;
/// Longest part of an input's name that its archive path keeps. An archive path fits the 100 bytes of a tar header.
const MAX_NAME: usize = 64;
const BLOCK: usize = 512;

const INDEX: &str = "index.json";
const PROFILE: &str = "profile.toml";
const LOCK: &str = "profile.lock";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    version: u32,
    /// File name of the profile.
    profile: String,
    /// Path as the profile writes it → archive path.
    inputs: BTreeMap<String, String>,
}

/// What is read first: is the rest of the index in a form known here?
#[derive(Deserialize)]
struct Header {
    version: u32,
}

/// A pinned profile with all it reads, as files of an archive.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    index: Index,
    files: BTreeMap<String, Vec<u8>>,
}

/// A bundle, read: what a host is provisioned from.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The profile's name: its file name without `.toml`.
    pub name: String,
    /// The profile.
    pub profile: Profile,
    /// Its lock.
    pub lock: Lock,
    /// Digest of the lock's canonical text.
    pub lock_digest: Digest,
    /// Deployments, by path as the profile writes it.
    pub deployments: BTreeMap<String, Deployment>,
    /// Every other file the profile reads, by path as the profile writes it.
    pub sources: BTreeMap<String, Vec<u8>>,
    /// Whether the lock matches the profile, the deployments and the files.
    pub freshness: Freshness,
    /// What the lock's set says that does not follow from the rest of the lock.
    pub contradictions: Vec<Contradiction>,
    /// The lock's text, for the places of what is wrong in it.
    pub lock_text: String,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("profile", &self.index.profile)
            .field("files", &self.files.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn refused(why: impl std::fmt::Display) -> Error {
    Error::failed(format!("this is not a bundle as bedplate writes it: {why}"))
        .hint("make it again with `bedplate bundle`")
}

impl Bundle {
    /// Puts a bundle together. `inputs`: every file the profile reads, by path as the profile writes it
    /// ([`Profile::input_paths`]). Nothing is parsed yet.
    ///
    /// # Errors
    /// A profile name that is no plain `NAME.toml`; too many or too large files.
    pub fn assemble(
        profile_file_name: &str,
        profile_text: &str,
        lock_text: &str,
        inputs: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self> {
        if profile_name(profile_file_name).is_none() {
            return Err(Error::usage(format!(
                "`{}` is not a profile's file name",
                profile_file_name.escape_debug()
            ))
            .hint("name it `NAME.toml`"));
        }
        let mut files = BTreeMap::from([
            (PROFILE.to_owned(), profile_text.as_bytes().to_vec()),
            (LOCK.to_owned(), lock_text.as_bytes().to_vec()),
        ]);
        let mut index =
            Index { version: VERSION, profile: profile_file_name.to_owned(), inputs: BTreeMap::new() };
        for (number, (path, content)) in inputs.into_iter().enumerate() {
            let archive_path = format!("inputs/{number:03}-{}", plain_name(&path));
            index.inputs.insert(path, archive_path.clone());
            files.insert(archive_path, content);
        }
        let mut text = serde_json::to_string_pretty(&index).doing(|| "writing the index of a bundle")?;
        text.push('\n');
        files.insert(INDEX.to_owned(), text.into_bytes());
        if files.len() > MAX_FILES {
            return Err(Error::usage(format!(
                "a bundle holds at most {MAX_FILES} files, and this one has {}",
                files.len()
            )));
        }
        let mut total = 0;
        for (path, content) in &files {
            total += content.len();
            if content.len() > MAX_FILE || total > MAX_TOTAL {
                return Err(Error::usage(format!(
                    "`{path}` is too large for a bundle: a file has at most {} MiB, all together {} MiB",
                    MAX_FILE >> 20,
                    MAX_TOTAL >> 20
                )));
            }
        }
        Ok(Self { index, files })
    }

    /// A bundle from its files, as [`Bundle::files`] gives them.
    ///
    /// # Errors
    /// Files that are not exactly those of a bundle.
    pub fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let file = |path: &str| files.get(path).ok_or_else(|| refused(format_args!("`{path}` is missing")));
        let text = |path: &str| {
            std::str::from_utf8(file(path)?).map_err(|_| refused(format_args!("`{path}` is not UTF-8 text")))
        };
        let index = text(INDEX)?;
        let header: Header =
            serde_json::from_str(index).map_err(|e| refused(format_args!("`{INDEX}`: {e}")))?;
        if header.version > VERSION {
            return Err(Error::usage(format!(
                "the bundle was made by a newer bedplate (bundle version {}, this one reads {VERSION})",
                header.version
            ))
            .hint("use the bedplate that wrote it, or a newer one"));
        }
        let index: Index =
            serde_json::from_str(index).map_err(|e| refused(format_args!("`{INDEX}`: {e}")))?;
        let mut inputs = BTreeMap::new();
        for (path, archive_path) in &index.inputs {
            inputs.insert(path.clone(), file(archive_path)?.clone());
        }
        let bundle = Self::assemble(&index.profile, text(PROFILE)?, text(LOCK)?, inputs)?;
        if bundle.files != files {
            return Err(refused("its files are not those its index names, or are named otherwise"));
        }
        Ok(bundle)
    }

    /// A file the profile reads, by path as the profile writes it.
    pub fn input(&self, path: &str) -> Option<&[u8]> {
        self.index.inputs.get(path).and_then(|archive_path| self.files.get(archive_path)).map(Vec::as_slice)
    }

    /// Archive path → bytes.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// The archive: ustar, sorted, mode 0644, owner 0, time 0.
    pub fn to_tar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, content) in &self.files {
            out.extend_from_slice(&header(path, content.len() as u64));
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        // Two empty blocks end an archive (POSIX, pax, "ustar interchange format").
        out.resize(out.len() + 2 * BLOCK, 0);
        out
    }

    /// Reads an archive. Safe on any bytes.
    ///
    /// # Errors
    /// Anything but an archive exactly as [`Bundle::to_tar`] writes it: links, directories, absolute or climbing paths,
    /// duplicates, other modes or times, bytes after the end, more or larger files than a bundle has.
    pub fn from_tar(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_TOTAL + MAX_FILES * 2 * BLOCK {
            return Err(refused("it is too large"));
        }
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().map_err(refused)?.raw(true);
        let mut files = BTreeMap::new();
        for entry in entries {
            let mut entry = entry.map_err(refused)?;
            if entry.header().entry_type() != tar::EntryType::Regular {
                return Err(refused("it holds something that is not a regular file"));
            }
            let path = match std::str::from_utf8(&entry.path_bytes()) {
                Ok(path) if is_plain_path(path) => path.to_owned(),
                _ => return Err(refused("it holds a path that is not plain")),
            };
            let size = entry.size();
            if size > MAX_FILE as u64 || files.len() >= MAX_FILES {
                return Err(refused(format_args!("`{path}` is too large, or one file too many")));
            }
            let mut content = Vec::new();
            entry.by_ref().take(size).read_to_end(&mut content).map_err(refused)?;
            if content.len() as u64 != size {
                return Err(refused(format_args!("it ends within `{path}`")));
            }
            if files.insert(path.clone(), content).is_some() {
                return Err(refused(format_args!("it holds `{path}` twice")));
            }
        }
        let bundle = Self::from_files(files)?;
        if bundle.to_tar() != bytes {
            return Err(refused("order, modes, owners, times or padding differ"));
        }
        Ok(bundle)
    }

    /// Digest of the archive: names the bundle.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_tar())
    }

    /// Reads what is in the bundle and judges whether the lock is fresh, and agrees with itself.
    ///
    /// # Errors
    /// Whatever is wrong in profile, lock or deployments, and an input the profile reads that the bundle lacks: all at
    /// once where possible.
    pub fn open(&self) -> Result<Pinned> {
        let name = profile_name(&self.index.profile).unwrap_or_default().to_owned();
        let lock_path = format!("{name}.lock");
        let text = |archive_path: &str, path: &str| {
            let bytes = self.files.get(archive_path).map(Vec::as_slice).unwrap_or_default();
            std::str::from_utf8(bytes).map_err(|_| Error::usage(format!("`{path}` is not UTF-8 text")))
        };
        let profile = profile::parse(&self.index.profile, text(PROFILE, &self.index.profile)?)?;
        let lock_text = text(LOCK, &lock_path)?.to_owned();
        let lock = super::parse(&lock_path, &lock_text)?;
        let mut deployments = BTreeMap::new();
        let mut sources = BTreeMap::new();
        let mut errors = Vec::new();
        for path in profile.input_paths() {
            let Some(archive_path) = self.index.inputs.get(path) else {
                errors.push(Error::usage(format!("the bundle lacks `{path}`, which its profile reads")));
                continue;
            };
            if profile.deployments.iter().any(|deployment| deployment == path) {
                match text(archive_path, path).and_then(|text| profile::deployment::parse(path, text)) {
                    Ok(parsed) => {
                        deployments.insert(path.to_owned(), parsed.deployment);
                    }
                    Err(error) => errors.push(error),
                }
            } else {
                sources.insert(path.to_owned(), self.files.get(archive_path).cloned().unwrap_or_default());
            }
        }
        if let Some(error) = Error::join(errors) {
            return Err(error);
        }
        let inputs = super::inputs(&self.index.profile, &profile, &deployments, &sources);
        let wanted = super::wanted(&profile, &deployments.values().collect::<Vec<_>>())?;
        let freshness = super::freshness(&lock, &inputs, &wanted);
        let contradictions = set::contradictions(&profile, &lock, freshness.is_fresh());
        let lock_digest = lock.digest();
        Ok(Pinned {
            name,
            profile,
            lock,
            lock_digest,
            deployments,
            sources,
            freshness,
            contradictions,
            lock_text,
        })
    }
}

/// The one header a file of this path and size has.
fn header(path: &str, size: u64) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    // The name is the header's first field; every path is below its 100 bytes.
    let length = path.len().min(100);
    header.as_mut_bytes()[..length].copy_from_slice(&path.as_bytes()[..length]);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    *header.as_bytes()
}

/// `NAME` of a plain file name `NAME.toml`.
fn profile_name(file_name: &str) -> Option<&str> {
    let name = file_name.strip_suffix(".toml")?;
    let plain = !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('.')
        && name.chars().all(|c| c != '/' && c != '\\' && !c.is_control());
    plain.then_some(name)
}

/// The last part of a path, with what an archive path may not hold replaced.
fn plain_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain: String = name
        .chars()
        .take(MAX_NAME)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' })
        .collect();
    if plain.is_empty() { "_".to_owned() } else { plain }
}

/// Relative, and every part a name.
fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/'))
}

#[cfg(test)]
mod tests;
