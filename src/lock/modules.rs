//! The driver's kernel modules: built once from locked packages, and locked as a package of their own, so that no host
//! compiles anything.
//!
//! A lock whose modules are built has two kinds of packages besides those of the host: the modules' source, and what is
//! only there to build them (headers, compiler, DKMS). Those stay in the lock, since the modules are made from them, and
//! go to no host.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{Lock, LockedPackage, set};
use crate::{
    digest::{Digest, Hasher},
    profile::Profile,
};

/// What [`LockedPackage::repository`] says of a package that bedplate has built: it lies in no archive.
pub const BUILT: &str = "bedplate";
/// Counts up when the way modules are built changes, so that they are built anew.
const RECIPE: u32 = 1;
/// Start of the names of packages with a kernel's headers.
const HEADERS: &str = "linux-headers-";
/// Reasons for which a package is on every host.
const BASE: [&str; 2] = ["essential", "required"];

/// The package of modules that was built for the lock's kernel and driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedModules {
    /// Digest of all it was made from ([`inputs`]).
    pub inputs: Digest,
    /// The package; its archive is [`BUILT`].
    pub package: LockedPackage,
}

/// What modules are built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workshop {
    /// The package with the modules' source.
    pub source: LockedPackage,
    /// The package of the kernel they are built for.
    pub kernel: LockedPackage,
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// All that is installed to build them, sorted by name, then architecture.
    pub packages: Vec<LockedPackage>,
}

impl Workshop {
    /// What the lock builds modules from; `None` where it has no driver to build, or no kernel.
    pub fn of(packages: &[LockedPackage]) -> Option<Self> {
        let source = set::driver(packages)?;
        let release = set::kernel(packages)?.release;
        let wanted = |name: &str| {
            let package = packages.iter().find(|package| package.name == name);
            package.map(|package| package.name.clone())
        };
        let headers = wanted(&format!("{HEADERS}{release}"))?;
        let kernel = packages.iter().find(|package| {
            let kernel = set::Kernel::of(&package.name, &package.version);
            kernel.is_some_and(|kernel| kernel.release == release)
        })?;
        let is_base =
            |package: &&LockedPackage| package.wanted_by.iter().any(|word| BASE.contains(&word.as_str()));
        let base = packages.iter().filter(is_base).map(|package| package.name.clone());
        let first = base.chain([source.name.clone(), headers]).collect();
        Some(Self {
            source: source.clone(),
            kernel: kernel.clone(),
            release,
            packages: closure(packages, first, None),
        })
    }
}

impl Lock {
    /// The packages of the host, sorted by name, then architecture: where modules are built, these instead of their
    /// source and what only builds them.
    pub fn host_packages(&self) -> Cow<'_, [LockedPackage]> {
        let Some(modules) = &self.modules else { return Cow::Borrowed(&self.packages) };
        let source = set::driver(&self.packages).map(|package| package.name.as_str());
        let is_tool = |package: &LockedPackage| {
            Some(package.name.as_str()) == source
                || package.name.starts_with(HEADERS) && package.wanted_by == ["kernel"]
        };
        let asked = self.packages.iter().filter(|package| !package.wanted_by.is_empty() && !is_tool(package));
        let first = asked.map(|package| package.name.clone()).chain(modules.package.depends.iter().cloned());
        let mut all = closure(&self.packages, first.collect(), source);
        for needed in all.iter_mut().flat_map(|package| &mut package.depends) {
            if Some(needed.as_str()) == source {
                needed.clone_from(&modules.package.name);
            }
        }
        all.push(modules.package.clone());
        all.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        Cow::Owned(all)
    }

    /// Takes modules that were built from what is locked here; others are left.
    pub fn adopt(&mut self, profile: &Profile, modules: LockedModules) {
        if inputs(profile, &self.packages, &self.inputs) == Some(modules.inputs) {
            if let Some(set) = &mut self.set {
                set::built(set, profile);
            }
            self.modules = Some(modules);
        }
    }

    /// Whether the host needs modules that are not built yet.
    pub fn lacks_modules(&self) -> bool {
        self.modules.is_none() && set::driver(&self.packages).is_some()
    }
}

/// The digest of what modules are made from: the packages of their workshop, the profile's patches and the certificate
/// they are signed for, whose digests are among the lock's `known` inputs. `None` where there is nothing to build.
pub fn inputs(
    profile: &Profile,
    packages: &[LockedPackage],
    known: &BTreeMap<String, Digest>,
) -> Option<Digest> {
    let workshop = Workshop::of(packages)?;
    let mut hasher = Hasher::new();
    let mut line = |words: &[&str]| hasher.update(format!("{}\n", words.join(" ")).as_bytes());
    line(&["recipe", &RECIPE.to_string(), &workshop.source.name, &workshop.release]);
    for package in &workshop.packages {
        line(&["package", &package.name, &package.architecture, &package.sha256.to_string()]);
    }
    let files = profile.driver.patches.iter().map(|path| ("patch", path));
    let certificate = profile.driver.signing.iter().map(|signing| ("certificate", &signing.certificate));
    for (word, path) in files.chain(certificate) {
        let digest = known.get(path).map_or_else(|| "unknown".to_owned(), Digest::to_string);
        line(&[word, &digest]);
    }
    Some(hasher.finish())
}

/// The packages of these names, and all they depend on, in the order of `packages`. `not`: one that is never entered.
fn closure(packages: &[LockedPackage], first: Vec<String>, not: Option<&str>) -> Vec<LockedPackage> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, package) in packages.iter().enumerate() {
        by_name.entry(&package.name).or_default().push(at);
    }
    let mut reached: BTreeSet<usize> = BTreeSet::new();
    let mut open = first;
    while let Some(needed) = open.pop() {
        let (name, architecture) = match needed.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (needed.as_str(), None),
        };
        if Some(name) == not {
            continue;
        }
        for at in by_name.get(name).into_iter().flatten() {
            let fits = architecture.is_none_or(|architecture| packages[*at].architecture == architecture);
            if fits && reached.insert(*at) {
                open.extend(packages[*at].depends.iter().cloned());
            }
        }
    }
    reached.into_iter().map(|at| packages[at].clone()).collect()
}

/// The first line of a build log that is an error: of the compiler, else of make.
pub fn first_error(log: &str) -> Option<String> {
    let find = |marks: &[&str]| log.lines().find(|line| marks.iter().any(|mark| line.contains(mark)));
    find(&[" error: ", " fatal error: "])
        .or_else(|| find(&["*** ", "Error "]))
        .map(|line| line.trim().to_owned())
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
