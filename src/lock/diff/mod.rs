//! What changed between two locks, in the words of what it means: not two digests but
//! "CUDA 12.4.1 → 12.8.1, driver wanted 550.54.14 → 570.26, entrypoint changed, +1.2 GB".

mod images;
mod markdown;
mod packages;
mod text;

use serde::Serialize;
use serde_json::{Value, json};

pub use images::{Detail, ImageChange};
pub use packages::{PackageChange, RepositoryChange, SetChange, SuiteChange, VerdictsChange};

use super::Lock;

/// Version of the JSON form of a [`Diff`].
const SCHEMA: u32 = 1;

/// What changed between two locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Parts of the set that differ: driver, kernel, …
    pub set: Vec<SetChange>,
    /// How verdicts of images moved with the driver.
    pub verdicts: Vec<VerdictsChange>,
    /// Archives that differ, by name.
    pub repositories: Vec<RepositoryChange>,
    /// Packages that differ, by name.
    pub packages: Vec<PackageChange>,
    /// Images that differ, by name.
    pub images: Vec<ImageChange>,
    /// Inputs that differ, by name.
    pub inputs: Vec<InputChange>,
}

/// Whether something is new, gone or different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the new lock has it.
    Added,
    /// Only the old lock has it.
    Removed,
    /// Both have it, and it differs.
    Changed,
}

impl Change {
    pub(super) fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => '~',
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// An input that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputChange {
    /// Its name in the lock.
    pub name: String,
    /// How it differs.
    pub change: Change,
}

/// What changed from one lock to another.
pub fn diff(old: &Lock, new: &Lock) -> Diff {
    let inputs = union(old.inputs.keys(), new.inputs.keys())
        .into_iter()
        .filter(|name| old.inputs.get(*name) != new.inputs.get(*name))
        .map(|name| InputChange {
            name: name.clone(),
            change: kind(old.inputs.contains_key(name), new.inputs.contains_key(name)),
        })
        .collect();
    Diff {
        set: packages::set(old, new),
        verdicts: packages::verdicts(old, new),
        repositories: packages::repositories(old, new),
        packages: packages::packages(old, new),
        images: images::images(old, new),
        inputs,
    }
}

fn union<'a>(
    one: impl Iterator<Item = &'a String>,
    other: impl Iterator<Item = &'a String>,
) -> std::collections::BTreeSet<&'a String> {
    one.chain(other).collect()
}

fn kind(old: bool, new: bool) -> Change {
    match (old, new) {
        (false, _) => Change::Added,
        (true, false) => Change::Removed,
        (true, true) => Change::Changed,
    }
}

impl Diff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
            && self.repositories.is_empty()
            && self.packages.is_empty()
            && self.images.is_empty()
            && self.inputs.is_empty()
    }

    /// Lines for a terminal, what matters most first; empty when nothing changed. `all`: every package by name, not
    /// only those that matter.
    pub fn text(&self, all: bool) -> String {
        text::text(self, all)
    }

    /// Tables for the reviewer of a pull request; one line when nothing changed.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// The same data for machines. `schema` rises when a field changes its meaning or goes.
    pub fn json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "changed": !self.is_empty(),
            "set": self.set,
            "verdicts": self.verdicts,
            "repositories": self.repositories,
            "packages": self.packages.iter().map(PackageChange::json).collect::<Vec<_>>(),
            "images": self.images.iter().map(ImageChange::json).collect::<Vec<_>>(),
            "inputs": self.inputs,
        })
    }
}

#[cfg(test)]
mod tests;
