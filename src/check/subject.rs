//! What is judged: the profile, its lock and deployments, and what `up` observed.

use super::{accept, gate::Decision, up::Observed};
use crate::{
    error::Result,
    host::facts::Wanted,
    lock::Lock,
    profile::{Deployment, Profile},
};

/// What is judged.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// `host`, or a deployment's name.
    pub name: String,
    /// The profile.
    pub profile: &'a Profile,
    /// Its lock, where there is one.
    pub lock: Option<Locked<'a>>,
    /// The deployments: of the profile, or the one that was named.
    pub deployments: Vec<&'a Deployment>,
    /// What all of that needs of a host.
    pub wanted: Wanted,
    /// What was observed of a started deployment (layer 4).
    pub observed: Option<&'a Observed>,
    /// What the gate said before the start (layer 4).
    pub gate: Option<&'a Decision>,
}

/// A lock, and whether it matches its inputs.
#[derive(Debug, Clone)]
pub struct Locked<'a> {
    /// The lock.
    pub lock: &'a Lock,
    /// Why it is stale, where it is.
    pub stale: Option<String>,
}

impl<'a> Subject<'a> {
    /// A subject, with what it needs of a host worked out.
    ///
    /// # Errors
    /// `[checks] accept` names a check that does not exist.
    pub fn new(
        name: impl Into<String>,
        profile: &'a Profile,
        lock: Option<Locked<'a>>,
        deployments: Vec<&'a Deployment>,
    ) -> Result<Self> {
        accept::validate(profile)?;
        let wanted = Wanted::of(profile, lock.as_ref().map(|locked| locked.lock), &deployments);
        Ok(Self { name: name.into(), profile, lock, deployments, wanted, observed: None, gate: None })
    }

    /// How packages come to the host: from the lock by this verb of `bedplate`, or by hand where nothing is locked.
    pub(super) fn brings(&self, verb: &str, by_hand: &str) -> String {
        if self.profile.host.pin_packages { format!("`bedplate {verb}`") } else { by_hand.to_owned() }
    }

    /// Whether the host has GPUs.
    pub(super) fn gpus(&self) -> bool {
        self.profile.wants_gpus()
    }
}
