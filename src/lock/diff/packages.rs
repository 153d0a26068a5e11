//! What changed of archives, the set and packages.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Change, kind, union};
use crate::lock::{Lock, LockedPackage, LockedRepository, LockedSuite, PackageSet};

/// A part of the set that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetChange {
    /// Which: `driver`, `kernel`, `firmware`, `fabric-manager`, `toolkit`, `engine`, `builds`.
    pub what: &'static str,
    /// What it was; `None`: it was not part of the host.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
    /// Of `builds`: what is known of the pair now.
    pub because: Option<String>,
}

/// Images whose verdict moved the same way while the driver changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerdictsChange {
    /// The outcome before.
    pub from: &'static str,
    /// The outcome now.
    pub to: &'static str,
    /// The images, by their names in the lock.
    pub images: Vec<String>,
}

/// An archive that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RepositoryChange {
    /// Its name in the lock.
    pub name: String,
    /// How it differs.
    pub change: Change,
    /// Its snapshot before and now.
    pub snapshot: (Option<String>, Option<String>),
    /// Its suites that differ.
    pub suites: Vec<SuiteChange>,
}

/// A suite that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SuiteChange {
    /// Its name.
    pub name: String,
    /// How it differs.
    pub change: Change,
    /// Date of its release file before and now.
    pub date: (Option<String>, Option<String>),
    /// Fingerprints that sign it now and did not.
    pub new_keys: Vec<String>,
    /// Fingerprints that signed it and do not now.
    pub gone_keys: Vec<String>,
}

/// A package that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageChange {
    /// The package in the old lock.
    pub from: Option<LockedPackage>,
    /// The package in the new lock.
    pub to: Option<LockedPackage>,
}

impl PackageChange {
    /// Its name.
    pub fn name(&self) -> &str {
        self.to.as_ref().or(self.from.as_ref()).map_or("", |package| package.name.as_str())
    }

    /// How it differs.
    pub fn change(&self) -> Change {
        kind(self.from.is_some(), self.to.is_some())
    }

    /// Whether it is another version, and that from an archive of security updates.
    pub fn is_security(&self) -> bool {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => to.repository.ends_with("-security") && from.version != to.version,
            _ => false,
        }
    }

    /// Whether it is the same version with other content, or from another archive.
    pub fn is_same_version(&self) -> bool {
        matches!((&self.from, &self.to), (Some(from), Some(to)) if from.version == to.version)
    }

    /// The same for machines.
    pub(super) fn json(&self) -> Value {
        let side = |package: &Option<LockedPackage>| {
            package.as_ref().map(|package| {
                json!({
                    "version": package.version,
                    "architecture": package.architecture,
                    "repository": package.repository,
                    "sha256": package.sha256.hex(),
                    "wanted-by": package.wanted_by,
                })
            })
        };
        json!({
            "name": self.name(),
            "change": self.change(),
            "security": self.is_security(),
            "from": side(&self.from),
            "to": side(&self.to),
        })
    }
}

pub(super) fn set(old: &Lock, new: &Lock) -> Vec<SetChange> {
    let none = PackageSet::default();
    let (old, new) = (old.set.as_ref().unwrap_or(&none), new.set.as_ref().unwrap_or(&none));
    let builds = |set: &PackageSet| set.builds.map(|builds| builds.name().to_owned());
    let mut changes = Vec::new();
    for (what, from, to) in [
        ("driver", &old.driver, &new.driver),
        ("kernel", &old.kernel, &new.kernel),
        ("builds", &builds(old), &builds(new)),
        ("firmware", &old.firmware, &new.firmware),
        ("fabric-manager", &old.fabric_manager, &new.fabric_manager),
        ("toolkit", &old.toolkit, &new.toolkit),
        ("engine", &old.engine, &new.engine),
    ] {
        if from != to {
            let because = (what == "builds").then(|| new.because.clone()).flatten();
            changes.push(SetChange { what, from: from.clone(), to: to.clone(), because });
        }
    }
    changes
}

/// Verdicts that moved, where both locks have a driver and it differs.
pub(super) fn verdicts(old: &Lock, new: &Lock) -> Vec<VerdictsChange> {
    let driver = |lock: &Lock| lock.set.as_ref().and_then(|set| set.driver.clone());
    if driver(old).is_none() || driver(new).is_none() || driver(old) == driver(new) {
        return Vec::new();
    }
    let mut moved: BTreeMap<(&'static str, &'static str), Vec<String>> = BTreeMap::new();
    for (name, to) in &new.images {
        let Some(from) = old.images.get(name) else { continue };
        let key = (from.verdict.outcome.name(), to.verdict.outcome.name());
        if key.0 != key.1 {
            moved.entry(key).or_default().push(name.clone());
        }
    }
    moved.into_iter().map(|((from, to), images)| VerdictsChange { from, to, images }).collect()
}

pub(super) fn repositories(old: &Lock, new: &Lock) -> Vec<RepositoryChange> {
    let none = LockedRepository::default();
    union(old.repositories.keys(), new.repositories.keys())
        .into_iter()
        .filter(|name| old.repositories.get(*name) != new.repositories.get(*name))
        .map(|name| {
            let (before, after) = (old.repositories.get(name), new.repositories.get(name));
            let change = kind(before.is_some(), after.is_some());
            let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
            RepositoryChange {
                name: name.clone(),
                change,
                snapshot: (before.snapshot.clone(), after.snapshot.clone()),
                suites: suites(before, after),
            }
        })
        .collect()
}

fn suites(before: &LockedRepository, after: &LockedRepository) -> Vec<SuiteChange> {
    union(before.suites.keys(), after.suites.keys())
        .into_iter()
        .filter(|name| before.suites.get(*name) != after.suites.get(*name))
        .map(|name| {
            let (from, to) = (before.suites.get(name), after.suites.get(name));
            let date = |suite: Option<&LockedSuite>| suite.map(|suite| suite.date.clone());
            let keys = |suite: Option<&LockedSuite>| -> BTreeSet<String> {
                suite.map(|suite| suite.signed_by.iter().cloned().collect()).unwrap_or_default()
            };
            let (old_keys, new_keys) = (keys(from), keys(to));
            SuiteChange {
                name: name.clone(),
                change: kind(from.is_some(), to.is_some()),
                date: (date(from), date(to)),
                new_keys: new_keys.difference(&old_keys).cloned().collect(),
                gone_keys: old_keys.difference(&new_keys).cloned().collect(),
            }
        })
        .collect()
}

/// Packages that differ in what is installed: a change of the reasons for one is none.
pub(super) fn packages(old: &Lock, new: &Lock) -> Vec<PackageChange> {
    type Key<'l> = (&'l str, &'l str);
    let by_key = |lock: &'_ Lock| -> BTreeMap<(String, String), LockedPackage> {
        let entry = |p: &LockedPackage| ((p.name.clone(), p.architecture.clone()), p.clone());
        let modules = lock.modules.iter().map(|modules| &modules.package);
        lock.packages.iter().chain(modules).map(entry).collect()
    };
    let (before, after) = (by_key(old), by_key(new));
    let keys: BTreeSet<Key<'_>> = before
        .keys()
        .chain(after.keys())
        .map(|(name, architecture)| (name.as_str(), architecture.as_str()))
        .collect();
    keys.into_iter()
        .map(|(name, architecture)| {
            let key = (name.to_owned(), architecture.to_owned());
            PackageChange { from: before.get(&key).cloned(), to: after.get(&key).cloned() }
        })
        .filter(|change| match (&change.from, &change.to) {
            (Some(from), Some(to)) => from.sha256 != to.sha256 || from.version != to.version,
            _ => true,
        })
        .collect()
}
