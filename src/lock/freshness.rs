//! Whether a lock still matches its inputs, and if not, which one changed.

use std::{collections::BTreeMap, fmt};

use super::{Lock, PACKAGES, TABLE_PAIRS, Wanted};
use crate::digest::Digest;

/// Whether a lock matches its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// It does.
    Fresh,
    /// It does not, for these reasons, in a stable order. Never empty.
    Stale(Vec<StaleReason>),
}

/// Why a lock is stale. Displayed as one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaleReason {
    /// The profile's packages are to be locked, and are not.
    PackagesMissing,
    /// Other packages are asked of the archives than were locked.
    PackagesChanged,
    /// Packages are locked that the profile leaves to others.
    PackagesLeftOver,
    /// An input is not what it was when the lock was made.
    InputChanged(String),
    /// An input the lock does not know.
    InputAdded(String),
    /// An input of the lock that is no longer one.
    InputRemoved(String),
    /// An image that is wanted and not locked.
    ImageMissing {
        /// Its key.
        name: String,
        /// Its reference.
        reference: String,
    },
    /// An image that is locked and no longer wanted.
    ImageLeftOver {
        /// Its key.
        name: String,
    },
    /// An image that is locked under another reference than is wanted.
    ImageChanged {
        /// Its key.
        name: String,
        /// The reference in the lock.
        locked: String,
        /// The reference in the profile.
        wanted: String,
    },
}

impl Freshness {
    /// Whether the lock matches its inputs.
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }

    /// Why it is stale; empty when it is not.
    pub fn reasons(&self) -> &[StaleReason] {
        match self {
            Self::Fresh => &[],
            Self::Stale(reasons) => reasons,
        }
    }
}

/// One line for people, all reasons in it.
impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("the lock matches its inputs"),
            Self::Stale(reasons) => {
                let lines: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("; "))
            }
        }
    }
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PackagesMissing => f.write_str("packages are not locked"),
            Self::PackagesChanged => {
                f.write_str("the packages that the profile asks for changed since they were locked")
            }
            Self::PackagesLeftOver => {
                f.write_str("packages are locked, and the profile has `pin-packages = false`")
            }
            Self::InputChanged(name) => write!(f, "`{name}` changed since it was locked"),
            Self::InputAdded(name) => write!(f, "`{name}` is new since it was locked"),
            Self::InputRemoved(name) => {
                write!(f, "`{name}` was an input when it was locked and no longer is")
            }
            Self::ImageMissing { name, reference } if name == reference => {
                write!(f, "image `{reference}` is not locked")
            }
            Self::ImageMissing { name, reference } => {
                write!(f, "image `{name}` (`{reference}`) is not locked")
            }
            Self::ImageLeftOver { name } => write!(f, "image `{name}` is locked and no longer wanted"),
            Self::ImageChanged { name, locked, wanted } => {
                write!(f, "image `{name}` is locked as `{locked}`, and wanted as `{wanted}`")
            }
        }
    }
}

/// Holds a lock against its inputs as they are now ([`super::inputs`]) and the images wanted ([`super::wanted`]).
pub fn freshness(
    lock: &Lock,
    inputs: &BTreeMap<String, Digest>,
    wanted: &BTreeMap<String, Wanted>,
) -> Freshness {
    let mut reasons = Vec::new();
    let wants_packages = inputs.contains_key(PACKAGES);
    let has_packages = !lock.packages.is_empty();
    match (inputs.get(PACKAGES), lock.inputs.get(PACKAGES)) {
        (Some(_), None) => reasons.push(StaleReason::PackagesMissing),
        (Some(_), Some(_)) if !has_packages => reasons.push(StaleReason::PackagesMissing),
        (Some(wanted), Some(locked)) if wanted != locked => reasons.push(StaleReason::PackagesChanged),
        (None, locked) if locked.is_some() || has_packages => reasons.push(StaleReason::PackagesLeftOver),
        _ => {}
    }
    // Told above: of packages, and of the table that comes and goes with them.
    let told = |name: &str| {
        name == PACKAGES || (name == TABLE_PAIRS && wants_packages != lock.inputs.contains_key(PACKAGES))
    };
    for (name, digest) in inputs.iter().filter(|(name, _)| !told(name)) {
        match lock.inputs.get(name) {
            Some(locked) if locked == digest => {}
            Some(_) => reasons.push(StaleReason::InputChanged(name.clone())),
            None => reasons.push(StaleReason::InputAdded(name.clone())),
        }
    }
    for name in lock.inputs.keys().filter(|name| !inputs.contains_key(*name) && !told(name)) {
        reasons.push(StaleReason::InputRemoved(name.clone()));
    }
    for (name, wanted) in wanted {
        match lock.images.get(name) {
            None => reasons
                .push(StaleReason::ImageMissing { name: name.clone(), reference: wanted.reference.clone() }),
            Some(image) if image.reference != wanted.reference => reasons.push(StaleReason::ImageChanged {
                name: name.clone(),
                locked: image.reference.clone(),
                wanted: wanted.reference.clone(),
            }),
            Some(_) => {}
        }
    }
    for name in lock.images.keys().filter(|name| !wanted.contains_key(*name)) {
        reasons.push(StaleReason::ImageLeftOver { name: name.clone() });
    }
    if reasons.is_empty() { Freshness::Fresh } else { Freshness::Stale(reasons) }
}
