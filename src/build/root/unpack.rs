//! Unpacking: every package's files into the tree, several packages at once, with the result dpkg would leave.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Read,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::package::{self, Package};
use crate::{
    apt::deb::{self, Limits, Member, MemberKind, Sink},
    build::owners::Diversions,
    error::{Doing, Error, Result},
    store::Store,
    system::files::{Meta, Owner, Planted, Planter, Root},
};

/// What dpkg calls a configuration file until its package is configured (dpkg(1)).
const NEW: &[u8] = b".dpkg-new";
/// Most packages unpacked at once: each takes up to 64 MiB for its decompression.
const THREADS: usize = 16;
/// How often an entry is written anew where another thread is at the same path: twice is all that can happen.
const ATTEMPTS: usize = 4;

/// Which paths each package has, as dpkg's lists have them.
#[derive(Debug, Default)]
pub struct Contents {
    /// By package: its entries in the package's order, relative to the top, without a leading `/`.
    pub lists: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Places of files and links, and whose they are.
    owners: HashMap<Vec<u8>, Claimed>,
    /// Entries that another package replaced, by the package that lost them.
    lost: BTreeMap<usize, BTreeSet<Vec<u8>>>,
    /// Directories of this wave: path, place of the package in the order, mode, owner.
    directories: Vec<(Vec<u8>, usize, u32, Owner)>,
    /// Directories that earlier waves have finished.
    finished: BTreeSet<Vec<u8>>,
    /// Bytes unpacked, by package.
    pub bytes: BTreeMap<usize, u64>,
}

/// Whose a place is, and what its owner calls it.
#[derive(Debug)]
struct Claimed {
    at: usize,
    path: Vec<u8>,
}

impl Contents {
    /// A package's paths, less what another has replaced.
    pub fn list(&self, at: usize) -> Vec<&[u8]> {
        let lost = self.lost.get(&at);
        let all = self.lists.get(&at).into_iter().flatten().map(Vec::as_slice);
        all.filter(|path| lost.is_none_or(|lost| !lost.contains(*path))).collect()
    }
}

/// What unpacking works on.
pub struct Unpacking<'a> {
    /// All packages of the lock.
    pub packages: &'a [Package<'a>],
    /// By package: its place in the order of installing.
    pub place: &'a [usize],
    /// Where the files are.
    pub store: &'a Store,
    /// The tree.
    pub root: &'a Root,
    /// Diversions that hold now.
    pub diversions: Diversions,
    /// How many packages at once.
    pub threads: usize,
    /// Told of each package that is done.
    pub told: &'a (dyn Fn(usize) + Sync),
}

impl Unpacking<'_> {
    /// Unpacks packages; what an earlier wave did is in `contents`.
    ///
    /// # Errors
    /// A package is not in the store, damaged or hostile; two packages have one path and neither replaces the other; the
    /// tree cannot be written.
    pub fn unpack(&self, which: &[usize], contents: Contents) -> Result<Contents> {
        // The largest first: the last thread to end then ends soon after the others.
        let mut queue = which.to_vec();
        queue.sort_by_key(|at| (std::cmp::Reverse(self.packages[*at].locked.size), *at));
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let contents = Mutex::new(contents);
        let failures = Mutex::new(BTreeMap::new());
        let threads = self.threads.clamp(1, queue.len().clamp(1, THREADS));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut planter = Planter::one_of(threads, self.root);
                    while !stop.load(Ordering::Relaxed)
                        && let Some(at) = queue.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(error) = self.one(*at, &mut planter, &contents) {
                            stop.store(true, Ordering::Relaxed);
                            held(&failures).insert(*at, error);
                        }
                        (self.told)(*at);
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = failures.into_iter().next() {
            return Err(error);
        }
        let mut contents = contents.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.finish_directories(&mut contents)?;
        Ok(contents)
    }

    fn one(&self, at: usize, planter: &mut Planter<'_>, contents: &Mutex<Contents>) -> Result<()> {
        let package = &self.packages[at];
        let conffiles = package.conffiles.iter().filter(|file| !file.removed);
        let conffiles = conffiles.map(|file| file.path.trim_start_matches('/').as_bytes().to_vec()).collect();
        let mut into = Into { unpacking: self, at, planter, contents, conffiles, list: Vec::new() };
        let mut file = package::open(self.store, package.locked)?;
        let facts = deb::read(&mut file, &Limits::default(), &mut into)
            .doing(|| format!("unpacking {}", package.shown()))?;
        let list = std::mem::take(&mut into.list);
        let mut contents = held(contents);
        contents.lists.insert(at, list);
        contents.bytes.insert(at, facts.unpacked);
        drop(contents);
        file.finish(package.locked)
    }

    /// A directory's mode and owner are those of the first package, in the order of installing, that has it: dpkg leaves
    /// one that is there as it is.
    fn finish_directories(&self, contents: &mut Contents) -> Result<()> {
        let mut directories = std::mem::take(&mut contents.directories);
        // What an earlier wave has finished may have been changed by a script since.
        directories.retain(|(path, ..)| !contents.finished.contains(path));
        directories.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
        let mut planter = Planter::new(self.root);
        for (path, _, mode, owner) in directories {
            planter.finish_directory(&path, mode, owner)?;
            contents.finished.insert(path);
        }
        Ok(())
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One package on its way into the tree.
struct Into<'u, 'a, 'p, 'r> {
    unpacking: &'u Unpacking<'a>,
    at: usize,
    planter: &'p mut Planter<'r>,
    contents: &'u Mutex<Contents>,
    conffiles: BTreeSet<Vec<u8>>,
    list: Vec<Vec<u8>>,
}

/// Whether an entry is to be written.
enum Claim {
    /// It is ours, and nobody had it.
    New,
    /// It was another package's, which we replace.
    Over,
    /// It is another package's, which replaces us.
    Theirs,
}

impl Into<'_, '_, '_, '_> {
    fn package(&self) -> &Package<'_> {
        &self.unpacking.packages[self.at]
    }

    /// Where an entry of this path is written.
    fn place(&self, path: &[u8]) -> Vec<u8> {
        let name = &self.package().locked.name;
        let mut place = match std::str::from_utf8(path) {
            Ok(path) => {
                let full = format!("/{path}");
                self.unpacking.diversions.place(name, &full).trim_start_matches('/').as_bytes().to_vec()
            }
            Err(_) => path.to_vec(),
        };
        if self.conffiles.contains(path) {
            place.extend_from_slice(NEW);
        }
        place
    }

    /// Claims the place an entry is written at; `path` is what the package calls it.
    fn claim(&self, path: &[u8], place: &[u8]) -> Result<Claim> {
        let key = canonical(place);
        let mut contents = held(self.contents);
        let before = contents.owners.get(&key).map(|owner| (owner.at, owner.path.clone()));
        let Some((other, their_path)) = before.filter(|(other, _)| *other != self.at) else {
            contents.owners.insert(key, Claimed { at: self.at, path: path.to_vec() });
            return Ok(Claim::New);
        };
        let (us, them) = (self.package(), &self.unpacking.packages[other]);
        let (ours, theirs) = (us.replaces(them), them.replaces(us));
        // Where each replaces the other, the one that is installed later does.
        let later = self.unpacking.place[self.at] > self.unpacking.place[other];
        if ours && (later || !theirs) {
            contents.owners.insert(key, Claimed { at: self.at, path: path.to_vec() });
            contents.lost.entry(other).or_default().insert(their_path);
            Ok(Claim::Over)
        } else if theirs {
            contents.lost.entry(self.at).or_default().insert(path.to_vec());
            Ok(Claim::Theirs)
        } else {
            let shown = String::from_utf8_lossy(path).into_owned();
            Err(Error::failed(format!(
                "`/{shown}` is in two packages: {} and {}",
                them.shown(),
                us.shown()
            ))
            .hint("one of them is not of this release; dpkg would refuse it too: `bedplate lock --why NAME` says what wants it"))
        }
    }

    fn plant(
        &mut self,
        path: &[u8],
        mut write: impl FnMut(&mut Planter<'_>, &[u8]) -> Result<Planted>,
    ) -> Result<()> {
        let place = self.place(path);
        match self.claim(path, &place)? {
            Claim::Theirs => return Ok(()),
            Claim::Over => {
                self.planter.remove(&place)?;
            }
            Claim::New => {}
        }
        for _ in 0..ATTEMPTS {
            if write(self.planter, &place)? == Planted::Made {
                return Ok(());
            }
            // Whoever wrote it there has lost it to us meanwhile, or it is nobody's: a script made it.
            if held(self.contents).owners.get(&canonical(&place)).map(|owner| owner.at) != Some(self.at) {
                return Ok(());
            }
            self.planter.remove(&place)?;
        }
        let shown = String::from_utf8_lossy(&place).into_owned();
        Err(Error::failed(format!("`/{shown}` came back while {} was unpacked", self.package().shown())))
    }
}

impl Sink for Into<'_, '_, '_, '_> {
    fn wants(&self, _: &str) -> bool {
        false
    }

    fn control(&mut self, _: &str, _: &Member, _: Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<()> {
        let path = member.path.as_slice();
        self.list.push(path.to_vec());
        let meta = Meta {
            mode: member.mode,
            owner: Owner { uid: member.uid, gid: member.gid },
            modified: member.modified,
        };
        match &member.kind {
            MemberKind::Directory => {
                if !path.is_empty() {
                    self.planter.directory(path)?;
                }
                let place = self.unpacking.place[self.at];
                held(self.contents).directories.push((path.to_vec(), place, meta.mode, meta.owner));
                Ok(())
            }
            MemberKind::File(_) => self.plant(path, |planter, place| planter.file(place, meta, content)),
            MemberKind::Hard(to) => {
                let first = self.place(to);
                if held(self.contents).owners.get(&canonical(&first)).map(|owner| owner.at) != Some(self.at) {
                    return Err(Error::failed(format!(
                        "{} has `/{}` under a further name, and another package replaces it",
                        self.package().shown(),
                        String::from_utf8_lossy(to)
                    ))
                    .hint("report it: no package of Debian is known to do that"));
                }
                self.plant(path, |planter, place| planter.hard(place, &first))
            }
            MemberKind::Link(target) => {
                // The links of a merged `/usr` are made beforehand, and base-files has them too.
                let place = self.place(path);
                if self.planter.link_target(&place).is_some_and(|there| there == *target) {
                    return self.claim(path, &place).map(drop);
                }
                self.plant(path, |planter, place| planter.link(place, target, meta))
            }
        }
    }
}

/// The path with a merged `/usr`: `bin/ls` and `usr/bin/ls` are one file.
fn canonical(path: &[u8]) -> Vec<u8> {
    let merged = [&b"bin/"[..], b"sbin/", b"lib/", b"lib32/", b"lib64/", b"libx32/"];
    let mut key = if merged.iter().any(|top| path.starts_with(top)) { b"usr/".to_vec() } else { Vec::new() };
    key.extend_from_slice(path);
    key
}
