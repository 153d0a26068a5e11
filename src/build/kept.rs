//! What a build keeps in the store for the next one: the tree of its configured packages, and the initramfs made in it.
//!
//! A tree of packages depends on them and on this program alone, and takes most of a build's time. It is kept as further
//! names of the same files (hard links), so that neither keeping nor using it copies anything. Nothing writes into a file of a
//! tree that is there: bedplate and the programs it runs put another in its place. Whether that held is looked at before it is
//! used again, by every entry's type, size, mode, owner, time and attributes; where it did not, it is thrown away.
//!
//! The initramfs is made from the finished tree. It is used again where that differs from the kept tree in the same way as
//! the one it was made in, but for [`UNREAD`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::root::Built;
use crate::{
    digest::{Digest, Hasher},
    error::{Doing, Error, Result},
    lock::LockedPackage,
    system::files::{Found, FoundKind, Meta, Owner, Planter, Root, make_private_dir},
};

/// Where it lies in the directory a build works in, from its top.
pub const NAME: &str = "kept";
/// The tree, beneath that.
const TREE: &str = "/kept/tree";
/// What it is made from, and what it was: written last.
const INDEX: &str = "/kept/index.json";
/// Files of the initramfs, by number.
const INITRAMFS: &str = "/kept/initramfs";
/// What they are, and what they were made in: written last.
const INITRAMFS_INDEX: &str = "/kept/initramfs.json";
/// Largest index read, in bytes.
const MAX_INDEX: u64 = 16 << 20;
/// Largest file of an initramfs read, in bytes.
const MAX_FILE: u64 = 1 << 30;
/// Changed with what is kept, or how.
const REVISION: &[u8] = b"kept 1\0";

/// What no hook of initramfs-tools(7) reads: bedplate's own, and what belongs to services that run after the root file
/// system is there. A prefix of a path, from the tree's top. `build --verify-twice` makes the initramfs anew, and shows a mistake
/// here.
const UNREAD: [&str; 14] = [
    "data/",
    "etc/apt/",
    "etc/bedplate/",
    "etc/chrony/",
    "etc/containerd/",
    "etc/cron.d/",
    "etc/docker/",
    "etc/logrotate.d/",
    "etc/ssh/",
    "etc/sudoers.d/",
    "etc/sysctl.d/",
    "usr/local/bin/bedplate",
    "usr/lib/bedplate/",
    "var/lib/bedplate/",
];
/// What making an initramfs writes.
const WRITTEN: [&str; 2] = ["boot/initrd.img-", "var/lib/initramfs-tools/"];

#[derive(serde::Serialize, serde::Deserialize)]
struct Index {
    key: Digest,
    /// Of its census.
    tree: Digest,
    built: Built,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct InitramfsIndex {
    /// How that tree differed from the kept one: [`Trees::difference`].
    made_in: Digest,
    files: Vec<KeptFile>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct KeptFile {
    path: String,
    mode: u32,
    uid: u32,
    gid: u32,
    digest: Digest,
}

/// What decides what a tree of packages is.
pub fn key(program: &Digest, packages: &[LockedPackage], architecture: &str) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(REVISION);
    hasher.update(program.as_bytes());
    field(&mut hasher, architecture.as_bytes());
    for LockedPackage { name, version, architecture, sha256, .. } in packages {
        for text in [name, version, architecture] {
            field(&mut hasher, text.as_bytes());
        }
        hasher.update(sha256.as_bytes());
    }
    hasher.finish()
}

/// Bytes of any length, so that no two lists of them run into the same.
fn field(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// A kept tree, which another one began as.
#[derive(Debug)]
pub struct Trees {
    above: Root,
    /// The entries that both had then.
    entries: BTreeMap<String, Found>,
    key: Digest,
}

/// Fills the empty `tree` with what is kept in `above` under `key`, if it is sound. What is not is removed.
///
/// # Errors
/// What is kept cannot be read or removed; `tree` cannot be filled.
pub fn take(above: &Root, key: Digest, tree: &Root) -> Result<Option<(Built, Trees)>> {
    let index: Option<Index> = above
        .read(INDEX, MAX_INDEX)?
        .and_then(|text| serde_json::from_slice(&text).ok())
        .filter(|index: &Index| index.key == key);
    if let (Some(index), Some(kept)) = (index, above.beneath(TREE)?) {
        let entries = kept.census()?;
        if digest_of(&entries) == index.tree {
            tree.twin(&kept, &entries)?;
            return Ok(Some((index.built, Trees::new(above, key, entries)?)));
        }
    }
    above.remove_tree(&format!("/{NAME}"))?;
    Ok(None)
}

/// Keeps `tree`, in which packages are configured and nothing else is done yet, in the place of what was kept before.
///
/// # Errors
/// The file system gives files no further names, or has no room; nothing is kept then.
pub fn put(above: &Root, key: Digest, tree: &Root, built: &Built) -> Result<Trees> {
    let fill = || -> Result<Trees> {
        above.remove_tree(&format!("/{NAME}"))?;
        make_private_dir(&path(above, TREE))?;
        let entries = tree.census()?;
        let kept = above.beneath(TREE)?.ok_or_else(|| Error::failed("what was made is gone"))?;
        kept.twin(tree, &entries)?;
        let built = Built { spent: Vec::new(), ..built.clone() };
        write_index(above, INDEX, &Index { key, tree: digest_of(&entries), built })?;
        Trees::new(above, key, entries)
    };
    fill().inspect_err(|_| {
        // The first error is the one to tell.
        let _ = above.remove_tree(&format!("/{NAME}"));
    })
}

/// The initramfs of a finished tree, on its way from what is kept, or to it.
#[derive(Debug)]
pub struct Initramfs<'t> {
    above: &'t Root,
    tree: &'t Root,
    /// The tree's census before there is one.
    before: BTreeMap<String, Found>,
    made_in: Digest,
}

impl Trees {
    fn new(above: &Root, key: Digest, entries: Vec<Found>) -> Result<Self> {
        Ok(Self { above: Root::open(above.path())?, entries: by_path(entries), key })
    }

    /// That of `tree`, which has none yet.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn initramfs<'t>(&'t self, tree: &'t Root) -> Result<Initramfs<'t>> {
        let before = by_path(tree.census()?);
        let made_in = self.difference(tree, &before)?;
        Ok(Initramfs { above: &self.above, tree, before, made_in })
    }

    /// A digest of how `tree` differs from the kept one, where an initramfs could see it.
    fn difference(&self, tree: &Root, now: &BTreeMap<String, Found>) -> Result<Digest> {
        let mut hasher = Hasher::new();
        hasher.update(self.key.as_bytes());
        let read = |path: &str| !UNREAD.iter().any(|prefix| format!("{path}/").starts_with(prefix));
        for (path, entry) in now.iter().filter(|(path, _)| read(path)) {
            if self.entries.get(path).is_some_and(|kept| same(kept, entry)) {
                continue;
            }
            field(&mut hasher, path.as_bytes());
            field(&mut hasher, described(entry, false).as_bytes());
            if let FoundKind::File(_) = entry.kind
                && let Some((file, _)) = tree.open_file(&format!("/{path}"))?
            {
                let (digest, _) = Digest::of_reader(file).doing(|| format!("reading `/{path}`"))?;
                hasher.update(digest.as_bytes());
            }
        }
        for path in self.entries.keys().filter(|path| read(path) && !now.contains_key(*path)) {
            field(&mut hasher, b"gone");
            field(&mut hasher, path.as_bytes());
        }
        Ok(hasher.finish())
    }
}

impl Initramfs<'_> {
    /// Puts the one that was made in such a tree into this one, with the image's time; false: there is none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn take(&self, time: i64) -> Result<bool> {
        let index: Option<InitramfsIndex> = self
            .above
            .read(INITRAMFS_INDEX, MAX_INDEX)?
            .and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|index: &InitramfsIndex| index.made_in == self.made_in);
        let Some(index) = index else { return Ok(false) };
        let mut contents = Vec::new();
        for (number, file) in index.files.iter().enumerate() {
            let content = self.above.read(&format!("{INITRAMFS}/{number}"), MAX_FILE)?;
            let Some(content) = content.filter(|content| Digest::of(content) == file.digest) else {
                return Ok(false);
            };
            contents.push(content);
        }
        let mut planter = Planter::new(self.tree);
        for (KeptFile { path, mode, uid, gid, .. }, content) in index.files.iter().zip(contents) {
            let meta = Meta { mode: *mode, owner: Owner { uid: *uid, gid: *gid }, modified: time };
            planter.remove(path.as_bytes())?;
            planter.file(path.as_bytes(), meta, &mut content.as_slice())?;
        }
        Ok(true)
    }

    /// Keeps the one that was just made. Where making it has changed anything else, nothing is kept.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn put(self) -> Result<()> {
        let Self { above, tree, before, made_in } = self;
        above.remove_file(INITRAMFS_INDEX)?;
        above.remove_tree(INITRAMFS)?;
        let now = by_path(tree.census()?);
        let changed = |path: &&String| match (now.get(*path), before.get(*path)) {
            // Its time alone, and how many names are in it.
            (Some(now), Some(before)) if now.kind == FoundKind::Directory => now.kind != before.kind,
            (now, before) => now != before,
        };
        let all: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let mut files = Vec::new();
        make_private_dir(&path(above, INITRAMFS))?;
        for path in all.into_iter().filter(changed) {
            let written = WRITTEN.iter().any(|prefix| path.starts_with(prefix));
            let (true, Some(Found { kind: FoundKind::File(_), mode, uid, gid, .. })) =
                (written, now.get(path))
            else {
                return above.remove_tree(INITRAMFS).map(drop);
            };
            let content = tree.read(&format!("/{path}"), MAX_FILE)?.unwrap_or_default();
            let digest = Digest::of(&content);
            above.write(&format!("{INITRAMFS}/{}", files.len()), &content, 0o600, Owner::current())?;
            files.push(KeptFile { path: path.clone(), mode: *mode, uid: *uid, gid: *gid, digest });
        }
        write_index(above, INITRAMFS_INDEX, &InitramfsIndex { made_in, files })
    }
}

/// Whether an entry of the new tree is the kept one's: the same file, or such a directory.
fn same(kept: &Found, entry: &Found) -> bool {
    match entry.kind {
        FoundKind::Directory => described(kept, false) == described(entry, false),
        _ => entry.inode == kept.inode,
    }
}

/// An entry without its path; with its time where that counts.
fn described(entry: &Found, time: bool) -> String {
    let Found { kind, mode, uid, gid, modified, xattrs, .. } = entry;
    let modified = time.then_some(modified);
    format!("{kind:?} {mode:o} {uid} {gid} {modified:?} {xattrs:?}")
}

fn digest_of(entries: &[Found]) -> Digest {
    let mut all: Vec<(&str, String)> =
        entries.iter().map(|entry| (entry.path.as_str(), described(entry, true))).collect();
    all.sort_unstable();
    let mut hasher = Hasher::new();
    for (path, text) in all {
        field(&mut hasher, path.as_bytes());
        field(&mut hasher, text.as_bytes());
    }
    hasher.finish()
}

fn by_path(entries: Vec<Found>) -> BTreeMap<String, Found> {
    entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
}

fn path(above: &Root, below: &str) -> PathBuf {
    above.path().join(below.trim_start_matches('/'))
}

fn write_index(above: &Root, path: &str, index: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec(index)
        .map_err(|error| Error::failed("writing what is kept of a build").because(error))?;
    above.write(path, &text, 0o600, Owner::current())
}
