//! The lock: every image and package by digest, and the facts read from them (`profiles/NAME.lock`).
//! Pure, but for `resolve`, which drives `oci` and `apt`.

pub mod bundle;
pub mod cuda;
pub mod diff;
mod freshness;
mod graph;
mod inputs;
pub mod modules;
mod names;
pub mod pairs;
mod reference;
pub mod resolve;
pub mod set;
pub mod why;
mod wire;
mod write;

use std::collections::BTreeMap;

pub use diff::{Diff, diff};
pub use freshness::{Freshness, StaleReason, freshness};
pub use inputs::{
    PACKAGES, TABLE_CUDA, TABLE_GPUS, TABLE_PAIRS, Wanted, deployment_digest, find, image_definition_digest,
    inputs, packages_digest, profile_digest, wanted,
};
pub use modules::LockedModules;
pub use reference::{is_floating, is_pinned, layout, normalise};
pub use wire::{MAX_SIZE, not_text, parse};
pub use write::write;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Breaking version of the lock format this bedplate reads and writes.
pub const VERSION: u32 = 1;
/// Highest additive revision of the lock format this bedplate reads and writes. 1: `[modules]`. A lock that holds nothing
/// of a revision is written as the one before.
pub const REVISION: u32 = 1;

/// A lock, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// Digest of each input as parsed, by its path relative to the lock, or by a table's name.
    pub inputs: BTreeMap<String, Digest>,
    /// Images, by the profile's name for them or one made from the reference.
    pub images: BTreeMap<String, LockedImage>,
    /// Archives the packages come from, by name: the distribution's own and the profile's.
    pub repositories: BTreeMap<String, LockedRepository>,
    /// Kernel, driver, toolkit and engine as one unit; `None` where no packages are locked.
    pub set: Option<PackageSet>,
    /// Every package that was asked for, and all they need, sorted by name, then architecture. What of them goes to the
    /// host: [`Lock::host_packages`].
    pub packages: Vec<LockedPackage>,
    /// The driver's kernel modules, where they are built.
    pub modules: Option<LockedModules>,
}

/// One image, pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedImage {
    /// Normalised reference it was resolved from, such as `docker.io/vllm/vllm-openai:v0.11.0`.
    pub reference: String,
    /// `os/architecture`, such as `linux/amd64`.
    pub platform: String,
    /// Digest of the index the tag named, where it named one.
    pub index: Option<Digest>,
    /// Digest of the platform's manifest: what the host pulls.
    pub manifest: Digest,
    /// Digest of the image configuration.
    pub config: Digest,
    /// What a host must fetch, in bytes: configuration and compressed layers.
    pub download: u64,
    /// Layer digests, lowest first.
    pub layers: Vec<Digest>,
    /// What the configuration says.
    pub facts: ImageFacts,
    /// Whether the profile's driver and GPUs can run it.
    pub verdict: Verdict,
}

impl LockedImage {
    /// What a host pulls: `registry/repository@sha256:…`, by the platform's manifest. Of an image layout, which no
    /// engine can pull from, `oci:DIR@sha256:…`: see [`LockedImage::is_layout`].
    pub fn pull_reference(&self) -> String {
        format!("{}@{}", reference::without_tag(&self.reference), self.manifest)
    }

    /// Whether it was locked from an image layout on disk, and is loaded rather than pulled.
    pub fn is_layout(&self) -> bool {
        reference::layout(&self.reference).is_some()
    }

    /// What the reference itself named when it was locked: the index, or the manifest where there is none. Held against
    /// what it names now, it tells whether a tag has moved.
    pub fn named(&self) -> Digest {
        self.index.unwrap_or(self.manifest)
    }
}

/// Facts read from an image's configuration. Absent means unknown, never "fine".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFacts {
    /// `CUDA_VERSION`.
    pub cuda: Option<String>,
    /// `NVIDIA_REQUIRE_*`: variable name to requirement.
    pub require: BTreeMap<String, String>,
    /// `NVIDIA_DISABLE_REQUIRE` is set to a true value.
    pub disable_require: bool,
    /// The entrypoint.
    pub entrypoint: Vec<String>,
    /// The command.
    pub command: Vec<String>,
    /// The user, as the configuration writes it.
    pub user: Option<String>,
}

/// Whether the profile's driver and GPUs can run an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The verdict.
    pub outcome: VerdictOutcome,
    /// The clause that decides, for people.
    pub because: String,
}

/// CUDA compatibility, as NVIDIA's CUDA Compatibility guide names its kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictOutcome {
    /// The driver is as new as the toolkit wants for its full feature level.
    Native,
    /// Minor version compatibility: at or above the major release's floor.
    Minor,
    /// Forward compatibility, with the libraries in the image.
    Forward,
    /// It cannot run.
    Refuse,
    /// Nothing in the configuration says.
    Unknown,
    /// The host has no GPU and the image asks for none.
    #[serde(rename = "n/a")]
    NotApplicable,
}

impl VerdictOutcome {
    /// The word for it in locks, reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Minor => "minor",
            Self::Forward => "forward",
            Self::Refuse => "refuse",
            Self::Unknown => "unknown",
            Self::NotApplicable => "n/a",
        }
    }
}

/// An archive, as it was verified. Where it lies is configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedRepository {
    /// The snapshot its release files are of, such as `20261121T091500Z`; `None`: the archive as it was that day.
    pub snapshot: Option<String>,
    /// Its suites (or paths of a flat repository), by name.
    pub suites: BTreeMap<String, LockedSuite>,
}

/// One suite's release file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedSuite {
    /// Digest of the release file's signed text.
    pub release: Digest,
    /// Its `Date`, as RFC 3339 in UTC.
    pub date: String,
    /// Fingerprints of the primary keys whose signatures were verified, uppercase hexadecimal, sorted.
    pub signed_by: Vec<String>,
}

/// One package, pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// Name of its archive in [`Lock::repositories`]; [`modules::BUILT`]: bedplate has built it.
    pub repository: String,
    /// Its name.
    pub name: String,
    /// Its version, as the archive writes it (deb-version(7)).
    pub version: String,
    /// Debian's name of its architecture, or `all`.
    pub architecture: String,
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// Size of the `.deb`, in bytes.
    pub size: u64,
    /// Its path below the archive's base address.
    pub path: String,
    /// Names of the locked packages that satisfy its `Pre-Depends` and `Depends`, sorted; of another
    /// architecture: `NAME:ARCHITECTURE`.
    pub depends: Vec<String>,
    /// Why it is there by itself, sorted: `essential`, `required`, `apt`, `packages`, `kernel`, `driver`,
    /// `container`. Empty: only because others depend on it.
    pub wanted_by: Vec<String>,
}

impl LockedPackage {
    /// The name its file has in an archive (Debian Policy 3.2.1 and 5.6.12: an epoch is left out).
    pub fn file_name(&self) -> String {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, rest)| rest);
        format!("{}_{version}_{}.deb", self.name, self.architecture)
    }
}

/// Kernel, driver, toolkit and engine: one unit. Absent: not part of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackageSet {
    /// The kernel's release, as `uname -r` will say it: `6.12.117+deb13-cloud-amd64`.
    pub kernel: Option<String>,
    /// Upstream version of the driver: `550.163.01`.
    pub driver: Option<String>,
    /// Upstream version of the GPU firmware package.
    pub firmware: Option<String>,
    /// Upstream version of Fabric Manager.
    pub fabric_manager: Option<String>,
    /// Version of the container toolkit.
    pub toolkit: Option<String>,
    /// Package and version of the container engine: `docker.io 26.1.5+dfsg1-9`.
    pub engine: Option<String>,
    /// Whether the driver's modules build for that kernel.
    pub builds: Option<Builds>,
    /// What is known of that pair, and the newest pair that builds where this one does not.
    pub because: Option<String>,
}

/// Whether the driver's modules build for the locked kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Builds {
    /// They do.
    Yes,
    /// They do with the profile's patches.
    Patched,
    /// They do not.
    No,
    /// Nobody tried that is known.
    Untried,
}

impl Builds {
    /// The word for it in locks, reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Patched => "patched",
            Self::No => "no",
            Self::Untried => "untried",
        }
    }
}

#[cfg(test)]
mod package_tests;
#[cfg(test)]
mod tests;
