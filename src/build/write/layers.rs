//! Which entry goes into which layer of an image.
//!
//! A host fetches whole layers, and Docker's own store fetches every layer above one that changed again. So layers are
//! made of what changes together, and stand in the order of how seldom that is: `docs/decisions/image-layers.md`.

use std::collections::HashMap;

use crate::build::tree::{Entry, Kind};

/// What changes together. Their order is that of the layers, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Container images that are baked in, as content. By far the largest: what lies under it costs less when it changes
    /// than this would.
    Images,
    /// The distribution: essential and required packages, and every other one that no group below names.
    Base,
    /// The kernel's packages and firmware.
    Kernel,
    /// The driver: its user space and its modules.
    Driver,
    /// The container engine, and what gives containers their GPUs.
    Engine,
    /// What the machine starts from and the build made: the initial RAM disk, a unified kernel image.
    Boot,
    /// bedplate's own program, and other programs that are no package.
    Agent,
    /// What is made anew with any package: the package database, the caches and indices that maintainer scripts make.
    Database,
    /// What the profile says: its files, the profile and its lock. It changes with every one of the others.
    Configuration,
}

impl Group {
    /// All groups, in order.
    pub const ALL: [Self; 9] = [
        Self::Images,
        Self::Base,
        Self::Kernel,
        Self::Driver,
        Self::Engine,
        Self::Boot,
        Self::Agent,
        Self::Database,
        Self::Configuration,
    ];

    /// Its name, in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Base => "base",
            Self::Kernel => "kernel",
            Self::Driver => "driver",
            Self::Engine => "engine",
            Self::Boot => "boot",
            Self::Agent => "agent",
            Self::Database => "database",
            Self::Configuration => "configuration",
        }
    }
}

/// The entries of one group, in the order of their paths' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer<'a> {
    /// What it is made of.
    pub group: Group,
    /// Never none.
    pub entries: Vec<&'a Entry>,
}

/// Splits a tree's entries, each into one layer. Layers are in order, and none is empty.
///
/// `owner_of` says whose a path is: the group of the package that has it, [`Group::Agent`] or [`Group::Configuration`] of
/// what the build put there; `None` of what nobody owns, such as what maintainer scripts made. Of a directory that
/// several have, any of theirs will do.
///
/// - A directory is in the lowest layer that has it or anything below it. So a layer finds every directory it writes
///   into, with its mode and owner, in itself or below.
/// - A further name of a file is where the first one is: a link into a layer below would copy the file.
/// - What Python compiled is where its source is.
/// - Anything else that nobody owns is [`Group::Boot`] below `/boot`, and [`Group::Database`] elsewhere: it may depend on
///   any package, and one such file would move all of a lower layer.
pub fn split<'a>(entries: &'a [Entry], owner_of: &dyn Fn(&str) -> Option<Group>) -> Vec<Layer<'a>> {
    let mut directories: HashMap<&str, Group> = HashMap::new();
    let mut groups: Vec<(Group, &Entry)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let owner = match &entry.kind {
            Kind::Hard { to } => owner_of(to).or_else(|| source_of(to).and_then(|path| owner_of(&path))),
            Kind::Directory => owner_of(&entry.path),
            _ => owner_of(&entry.path).or_else(|| source_of(&entry.path).and_then(|path| owner_of(&path))),
        };
        let path = if let Kind::Hard { to } = &entry.kind { to } else { &entry.path };
        let group = owner.unwrap_or_else(|| unowned(path));
        match (&entry.kind, owner) {
            // Where nothing is in it either, it is taken up below.
            (Kind::Directory, None) => {}
            (Kind::Directory, Some(group)) => lower(&mut directories, Some(&entry.path), group),
            _ => {
                lower(&mut directories, above(&entry.path), group);
                groups.push((group, entry));
            }
        }
    }
    let mut layers: Vec<Layer> = Group::ALL.map(|group| Layer { group, entries: Vec::new() }).into();
    // An empty directory that nobody owns: its own first, then those above it.
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Directory) {
        if !directories.contains_key(entry.path.as_str()) {
            lower(&mut directories, Some(&entry.path), unowned(&entry.path));
        }
    }
    let own = entries.iter().filter(|entry| entry.kind == Kind::Directory);
    groups.extend(own.filter_map(|entry| Some((*directories.get(entry.path.as_str())?, entry))));
    for (group, entry) in groups {
        if let Some(layer) = layers.iter_mut().find(|layer| layer.group == group) {
            layer.entries.push(entry);
        }
    }
    for layer in &mut layers {
        layer.entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    }
    layers.retain(|layer| !layer.entries.is_empty());
    layers
}

/// Has a directory and all above it at least as low as `group`.
fn lower<'a>(directories: &mut HashMap<&'a str, Group>, path: Option<&'a str>, group: Group) {
    let mut next = path;
    while let Some(path) = next {
        match directories.get_mut(path) {
            // Then those above are as low, too.
            Some(there) if *there <= group => return,
            Some(there) => *there = group,
            None => {
                directories.insert(path, group);
            }
        }
        next = above(path);
    }
}

/// The directory a path is in; the top of the tree is in none.
fn above(path: &str) -> Option<&str> {
    if path.is_empty() { None } else { Some(path.rsplit_once('/').map_or("", |(above, _)| above)) }
}

/// The source of what Python compiled (PEP 3147): `D/__pycache__/N.TAG.pyc` of `D/N.py`.
fn source_of(path: &str) -> Option<String> {
    let (cache, name) = path.rsplit_once('/')?;
    let directory = cache.strip_suffix("__pycache__")?;
    let (stem, _) = name.strip_suffix(".pyc")?.split_once('.')?;
    Some(format!("{directory}{stem}.py"))
}

fn unowned(path: &str) -> Group {
    if path.starts_with("boot/") { Group::Boot } else { Group::Database }
}

#[cfg(test)]
mod tests;
