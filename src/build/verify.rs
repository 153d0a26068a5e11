//! A root (a directory, or the running host's `/`) held against a lock: its packages, and the content of their files;
//! and images as `build` writes them, held against their record ([`image`]).
//!
//! What is installed is dpkg's word (dpkg-query(1)); contents are compared with the digests that dpkg keeps of each
//! package's files (deb-md5sums(5)), as `dpkg --verify` does. What cannot be known is said: [`UNSEEN`] of every root,
//! [`Class::Unverifiable`] of this one. It never counts as the same.

mod files;
pub mod image;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    digest::Digest,
    error::{Error, Result},
    lock::Lock,
    plan::dpkg::{Package, Packages, UPDATES},
    system::files::Root,
};

/// Largest file of dpkg's database that is read, in bytes.
const LIMIT: u64 = 256 << 20;

/// What is not looked at, since dpkg keeps nothing to compare it with.
pub const UNSEEN: [&str; 4] = [
    "modes, owners, times and extended attributes of files",
    "where symbolic links point",
    "files that no package has",
    "whether the digests that dpkg keeps are those of the locked packages: they are read from the same root",
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Digest of the lock it was held against; absent of an image that says of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<Digest>,
    /// What of an image it was, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<image::About>,
    /// Everything in short.
    pub outcome: Outcome,
    /// How much of each.
    pub counts: Counts,
    /// What was found, by package, then path.
    pub findings: Vec<Finding>,
    /// What was not looked at, in words: [`UNSEEN`] of a root.
    pub unseen: Vec<&'static str>,
}

/// Everything in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every locked package is there and no other, and all of their files are theirs, but for changed configuration.
    Same,
    /// Nothing differs as far as is known; something cannot be verified.
    Unverifiable,
    /// Something differs.
    Differs,
}

/// How much was looked at, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Parts of an image that were held against its record: files, blobs, partitions.
    pub parts: usize,
    /// Packages in the lock.
    pub locked: usize,
    /// Packages that are there, whole or in part.
    pub installed: usize,
    /// Files whose content was compared, configuration files included.
    pub files: usize,
    /// Findings of [`Class::Difference`].
    pub differences: usize,
    /// Findings of [`Class::Administrator`].
    pub administrator: usize,
    /// Findings of [`Class::Unverifiable`].
    pub unverifiable: usize,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// How it is to be taken: [`What::class`].
    pub class: Class,
    /// What it is.
    pub what: What,
    /// The part of an image: a file, a blob, a partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The package, `NAME:ARCHITECTURE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The path, as the root sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it should be: a version, an MD5 digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What it is: a version, an MD5 digest, dpkg's word for a state, or why it could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The root is not what the lock says.
    Difference,
    /// Changed by the administrator, who may: a configuration file (Debian Policy 10.7). No difference.
    Administrator,
    /// It cannot be verified: neither the same nor different.
    Unverifiable,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A part of an image is not there.
    PartMissing,
    /// A part of an image is not what its record says.
    Part,
    /// A part of an image has not the form it was written in.
    Damaged,
    /// A part of an image is read no further: its form is none that `build` writes, or it is larger than it may be.
    Refused,
    /// Nothing says what a part of an image should be.
    NoRecord,
    /// The record in the tree is another image's.
    OtherRecord,
    /// It was made from another lock.
    OtherLock,
    /// The tree has no dpkg database.
    NoDatabase,
    /// dpkg was interrupted and has yet to write its database.
    Interrupted,
    /// A locked package is not there.
    Absent,
    /// A package is there in another version.
    OtherVersion,
    /// A package is there and not configured, or waits for triggers.
    NotConfigured,
    /// A package is there and not in the lock.
    NotLocked,
    /// A path of a package is not there.
    Missing,
    /// A file of a package is no regular file.
    NotAFile,
    /// A file has another content.
    Content,
    /// A configuration file has another content.
    Conffile,
    /// A configuration file was removed.
    ConffileMissing,
    /// dpkg has no list of a package's files, or no digests of them.
    NoDigests,
    /// dpkg has no digest of some files of a package: the first, and how many.
    NoDigest,
    /// A path or a list could not be looked at.
    Unreadable,
}

impl What {
    /// How it is to be taken.
    pub fn class(self) -> Class {
        match self {
            Self::PartMissing
            | Self::Part
            | Self::Damaged
            | Self::OtherRecord
            | Self::OtherLock
            | Self::Interrupted
            | Self::Absent
            | Self::OtherVersion
            | Self::NotConfigured
            | Self::NotLocked
            | Self::Missing
            | Self::NotAFile
            | Self::Content => Class::Difference,
            Self::Conffile | Self::ConffileMissing => Class::Administrator,
            Self::Refused
            | Self::NoRecord
            | Self::NoDatabase
            | Self::NoDigests
            | Self::NoDigest
            | Self::Unreadable => Class::Unverifiable,
        }
    }

    /// What it is, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::PartMissing | Self::Missing => "is missing",
            Self::Part => "is not what its record says",
            Self::Damaged => "is damaged",
            Self::Refused => "cannot be verified",
            Self::NoRecord => "cannot be verified: no record says what it should be",
            Self::OtherRecord => "has the record of another image in it",
            Self::OtherLock => "was made from another lock",
            Self::NoDatabase => "cannot be verified: its tree has no dpkg database",
            Self::Interrupted => "dpkg was interrupted",
            Self::Absent => "is locked and not there",
            Self::OtherVersion => "is there in another version",
            Self::NotConfigured => "is not configured",
            Self::NotLocked => "is there and not locked",
            Self::NotAFile => "is no regular file",
            Self::Content => "has another content",
            Self::Conffile => "was changed by the administrator",
            Self::ConffileMissing => "was removed by the administrator",
            Self::NoDigests => "cannot be verified: dpkg has no digests of its files",
            Self::NoDigest => "cannot be verified: dpkg has no digest of it",
            Self::Unreadable => "cannot be verified: it cannot be read",
        }
    }
}

impl Finding {
    fn new(what: What, package: Option<&Package>) -> Self {
        Self {
            class: what.class(),
            what,
            part: None,
            package: package.map(|package| key(&package.name, &package.architecture)),
            path: None,
            expected: None,
            found: None,
        }
    }

    fn of(mut self, part: &str) -> Self {
        self.part = Some(part.to_owned());
        self
    }

    fn at(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }
}

/// Holds `root` against `lock`. Contents are read `threads` at once; what cannot be read becomes a finding.
///
/// # Errors
/// The lock has no packages, the root has no dpkg database, or that database cannot be understood.
pub fn verify(root: &Root, lock: &Lock, threads: usize) -> Result<Report> {
    if lock.packages.is_empty() {
        return Err(Error::usage("no packages are locked: there is nothing to hold a root against")
            .hint("remove `pin-packages = false` from the profile, and lock it: `bedplate lock`"));
    }
    let installed = Packages::read(|path| root.read_text(path, LIMIT), |path| root.names(path))?;
    let Some(installed) = installed else {
        return Err(Error::failed(format!("`{}` has no dpkg database", root.path().display()))
            .hint("name the top of a Debian or Ubuntu root tree"));
    };
    let checked = files::check(root, root, &installed, threads)?;
    let findings = [packages(lock, &installed), checked.findings].concat();
    let counts = Counts {
        locked: lock.host_packages().len(),
        installed: installed.present().count(),
        files: checked.files,
        ..Counts::default()
    };
    Ok(report(Some(lock.digest()), None, counts, findings, UNSEEN.to_vec()))
}

/// What differs between the packages of a lock and those dpkg knows, by name and architecture.
pub fn packages(lock: &Lock, installed: &Packages) -> Vec<Finding> {
    let mut found = Vec::new();
    if installed.interrupted {
        found.push(Finding::new(What::Interrupted, None).found(UPDATES));
    }
    let mut locked = BTreeSet::new();
    for package in lock.host_packages().iter() {
        let named = (package.name.clone(), package.architecture.clone());
        match installed.known.get(&named).filter(|known| known.present()) {
            None => found.push(Finding {
                package: Some(key(&package.name, &package.architecture)),
                ..Finding::new(What::Absent, None).expected(&package.version)
            }),
            Some(known) => {
                if known.version != package.version {
                    let finding = Finding::new(What::OtherVersion, Some(known));
                    found.push(finding.expected(&package.version).found(&known.version));
                }
                if known.broken() {
                    let word = if known.reinstall { "reinstreq" } else { known.state.word() };
                    found.push(Finding::new(What::NotConfigured, Some(known)).found(word));
                }
            }
        }
        locked.insert(named);
    }
    for package in installed.present() {
        if !locked.contains(&(package.name.clone(), package.architecture.clone())) {
            found.push(Finding::new(What::NotLocked, Some(package)).found(&package.version));
        }
    }
    found
}

/// Sorts and counts.
fn report(
    lock: Option<Digest>,
    image: Option<image::About>,
    counts: Counts,
    mut findings: Vec<Finding>,
    unseen: Vec<&'static str>,
) -> Report {
    findings
        .sort_by(|a, b| (&a.part, &a.package, &a.path, a.what).cmp(&(&b.part, &b.package, &b.path, b.what)));
    let mut by_class: BTreeMap<Class, usize> = BTreeMap::new();
    for finding in &findings {
        *by_class.entry(finding.class).or_default() += 1;
    }
    let count = |class| by_class.get(&class).copied().unwrap_or_default();
    let counts = Counts {
        differences: count(Class::Difference),
        administrator: count(Class::Administrator),
        unverifiable: count(Class::Unverifiable),
        ..counts
    };
    let outcome = match counts {
        Counts { differences: 1.., .. } => Outcome::Differs,
        Counts { unverifiable: 1.., .. } => Outcome::Unverifiable,
        _ => Outcome::Same,
    };
    Report { lock, image, outcome, counts, findings, unseen }
}

fn key(name: &str, architecture: &str) -> String {
    format!("{name}:{architecture}")
}

#[cfg(test)]
mod tests;
