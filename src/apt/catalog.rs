//! The packages of several indices, side by side: the same name may be there in several versions.

use std::collections::HashMap;

use crate::digest::Digest;

/// A package's place in its [`Catalog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub(super) u32);

/// `Multi-Arch` of a package (Debian's multi-arch specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MultiArch {
    /// Satisfies dependencies of its own architecture only.
    #[default]
    No,
    /// May be installed for several architectures at once.
    Same,
    /// Satisfies dependencies of every architecture.
    Foreign,
    /// Either, as the dependency asks for (`NAME:any`).
    Allowed,
}

/// One package of an index. Relations are the raw fields; empty where absent.
#[derive(Debug, Clone, Copy)]
pub struct Record<'c> {
    /// Name of the archive it is from.
    pub repository: &'c str,
    /// The suite (or path of a flat repository) it is from.
    pub suite: &'c str,
    /// How much its suite is preferred, as apt_preferences(5) counts: 500 for a suite of the distribution, 100
    /// for backports (`NotAutomatic` with `ButAutomaticUpgrades`), 1 for `NotAutomatic` alone.
    pub priority: u16,
    /// `Package`.
    pub name: &'c str,
    /// `Version`.
    pub version: &'c str,
    /// `Architecture`.
    pub architecture: &'c str,
    /// `Multi-Arch`.
    pub multi_arch: MultiArch,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Priority: required`.
    pub required: bool,
    /// `Source` without its version; the package's own name where absent.
    pub source: &'c str,
    /// `Pre-Depends`.
    pub pre_depends: &'c str,
    /// `Depends`.
    pub depends: &'c str,
    /// `Recommends`.
    pub recommends: &'c str,
    /// `Conflicts`.
    pub conflicts: &'c str,
    /// `Breaks`.
    pub breaks: &'c str,
    /// `Provides`.
    pub provides: &'c str,
    /// `Filename`: path below the archive's base address.
    pub path: &'c str,
    /// `Size`, in bytes.
    pub size: u64,
    /// `SHA256`.
    pub sha256: Digest,
}

/// The packages of several indices.
#[derive(Debug, Default)]
pub struct Catalog {
    by_name: HashMap<String, Vec<PackageId>>,
}

impl Catalog {
    /// Every version of this name, in every architecture, in the order of the indices.
    pub fn named(&self, name: &str) -> &[PackageId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }
}
