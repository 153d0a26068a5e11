//! What must be looked at of the host itself, whatever is deployed on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{lock::Lock, plan, profile::Profile};

/// Where tokens are looked for unless the profile says: home directories, shell profiles of all users, and where people
/// put what they start.
const LEAK_PATHS: [&str; 7] =
    ["/root", "/home", "/etc/environment", "/etc/profile", "/etc/profile.d", "/opt", "/srv"];

/// What must be looked at of the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedOfHost {
    /// Directories and files that are searched for tokens.
    pub leak_paths: Vec<String>,
    /// Keys of Docker's `daemon.json` that the profile wants, by JSON pointer, with their values.
    pub daemon: BTreeMap<String, serde_json::Value>,
    /// Directories of state.
    pub mounts: BTreeSet<String>,
    /// Names of the packages that are locked for this host.
    pub packages: BTreeSet<String>,
}

impl WantedOfHost {
    /// What the profile alone asks for.
    pub(super) fn of_profile(profile: &Profile) -> Self {
        let usual = || LEAK_PATHS.iter().map(|path| (*path).to_owned()).collect();
        Self {
            leak_paths: profile.checks.leak_paths.clone().unwrap_or_else(usual),
            daemon: plan::daemon_keys(&profile.container),
            mounts: profile.mounts.iter().map(|mount| mount.path.clone()).collect(),
            packages: BTreeSet::new(),
        }
    }

    /// The packages of its lock.
    pub(super) fn with_packages(&mut self, lock: &Lock) {
        self.packages = lock.host_packages().iter().map(|package| package.name.clone()).collect();
    }
}
