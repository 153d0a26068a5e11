//! What a generation owns, and what was there before it: enough to undo it, and to go on after an
//! interruption without asking the host what it may have done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;

/// Version of the record's form that this bedplate reads and writes.
pub const VERSION: u32 = 1;

/// All that a generation owns. While a run is on its way the record is a superset: what the run will
/// make, and what it is about to remove (`wanted` is false), so that a later run with other inputs can
/// clean up whatever this one got done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Files, directories and links, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, OwnedPath>,
    /// Keys of Docker's `daemon.json`, by JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub daemon: BTreeMap<String, OwnedKey>,
    /// Objects in `daemon.json` that bedplate made to hold its keys, by JSON pointer; the empty pointer is
    /// the file itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub daemon_made: BTreeSet<String>,
    /// Accounts and groups that bedplate made.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accounts: BTreeSet<String>,
    /// Secrets, by name: how they are kept. Never their contents, nor a digest of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, OwnedSecret>,
    /// Images, by lock key: the tag that keeps each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Packages that bedplate brought to their locked versions, as apt names them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, OwnedPackage>,
    /// What must still be done because of a step that is done: services to restart.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub due: BTreeSet<Due>,
    /// What waits for the first boot of a tree that was prepared with `--root`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deferred: Vec<String>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: VERSION,
            paths: BTreeMap::new(),
            daemon: BTreeMap::new(),
            daemon_made: BTreeSet::new(),
            accounts: BTreeSet::new(),
            secrets: BTreeMap::new(),
            images: BTreeMap::new(),
            packages: BTreeMap::new(),
            due: BTreeSet::new(),
            deferred: Vec::new(),
        }
    }
}

/// A path that bedplate owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OwnedPath {
    /// What bedplate puts there.
    pub kind: OwnedKind,
    /// What was there before bedplate first touched it.
    pub before: Before,
    /// Contents bedplate may have left there, newest last: more than one only while a run is on its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Digest>,
    /// Contents that people put there since, kept beside the generation.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub by_hand: BTreeSet<Digest>,
    /// False while a run is removing it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub wanted: bool,
}

/// What bedplate puts at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnedKind {
    /// A configuration file.
    File,
    /// A directory that configuration files needed.
    Directory,
    /// A directory that holds state: never removed.
    Mount,
    /// A symbolic link; `written` has the digest of its target.
    Link,
}

/// What was at a path before bedplate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Before {
    /// Nothing.
    Absent,
    /// A file; its content is kept under its digest.
    File {
        /// Digest of the content.
        digest: Digest,
        /// Permission bits.
        mode: u32,
        /// Owning user.
        uid: u32,
        /// Owning group.
        gid: u32,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// Its target.
        target: String,
    },
}

/// A key of `daemon.json` that bedplate owns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OwnedKey {
    /// The value before bedplate; absent where the key was.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    pub before: Option<Value>,
    /// Values bedplate may have left there, newest last.
    pub written: Vec<Value>,
    /// False while a run is removing it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub wanted: bool,
}

/// How a secret is kept on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OwnedSecret {
    /// Name of the systemd credential that holds it over a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Whether bedplate made that credential, and may remove it.
    pub ours: bool,
    /// False while a run is removing it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub wanted: bool,
}

/// A package that bedplate brings to its locked version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OwnedPackage {
    /// Its version before bedplate; absent where it was not there, so that bedplate may remove it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Whether the hold on it is bedplate's, and not an administrator's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub held: bool,
    /// False while a run is giving it up.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub wanted: bool,
}

/// What must follow a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Due {
    /// The Docker daemon reads its configuration only when it starts.
    RestartDocker,
    /// systemd has not seen a changed unit.
    ReloadSystemd,
    /// The kernel has not been given changed settings (sysctl.d(5)).
    ApplySysctl,
    /// GRUB's menu is not made from its changed configuration yet (grub-mkconfig(8)).
    MakeBootMenu,
}

impl Record {
    /// What may be on the host: the current generation's record, with those of interrupted runs. The
    /// `before` of the earliest wins, for a later run may have seen what an earlier one made.
    pub fn merged<'a>(current: Option<&Record>, interrupted: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut merged = current.cloned().unwrap_or_default();
        for record in interrupted {
            for (path, owned) in &record.paths {
                match merged.paths.get_mut(path) {
                    None => drop(merged.paths.insert(path.clone(), owned.clone())),
                    Some(known) => {
                        known.kind = owned.kind;
                        for digest in &owned.written {
                            push_last(&mut known.written, *digest);
                        }
                        known.by_hand.extend(owned.by_hand.iter().copied());
                    }
                }
            }
            for (pointer, key) in &record.daemon {
                match merged.daemon.get_mut(pointer) {
                    None => drop(merged.daemon.insert(pointer.clone(), key.clone())),
                    Some(known) => {
                        for value in &key.written {
                            push_last(&mut known.written, value.clone());
                        }
                    }
                }
            }
            merged.daemon_made.extend(record.daemon_made.iter().cloned());
            merged.accounts.extend(record.accounts.iter().cloned());
            for (name, secret) in &record.secrets {
                merged.secrets.insert(name.clone(), secret.clone());
            }
            merged.images.extend(record.images.clone());
            for (name, package) in &record.packages {
                let known = merged.packages.entry(name.clone()).or_insert_with(|| package.clone());
                known.held |= package.held;
            }
            merged.due.extend(record.due.iter().copied());
        }
        for owned in merged.paths.values_mut() {
            owned.wanted = false;
        }
        for key in merged.daemon.values_mut() {
            key.wanted = false;
        }
        for secret in merged.secrets.values_mut() {
            secret.wanted = false;
        }
        for package in merged.packages.values_mut() {
            package.wanted = false;
        }
        merged.deferred.clear();
        merged
    }

    /// The record once every step is done: only what is wanted, each with its last content.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.paths.retain(|_, owned| owned.wanted);
        for owned in self.paths.values_mut() {
            let last = owned.written.pop();
            owned.written = last.into_iter().collect();
        }
        self.daemon.retain(|_, key| key.wanted);
        for key in self.daemon.values_mut() {
            let last = key.written.pop();
            key.written = last.into_iter().collect();
        }
        let wanted: Vec<String> = self.daemon.keys().cloned().collect();
        self.daemon_made
            .retain(|made| wanted.iter().any(|key| made.is_empty() || key.starts_with(&format!("{made}/"))));
        self.secrets.retain(|_, secret| secret.wanted);
        self.packages.retain(|_, package| package.wanted);
        self.due.clear();
        self
    }

    /// Digests of the saved contents this record refers to: originals and hand-made versions.
    pub fn saved(&self) -> BTreeSet<Digest> {
        let mut digests = BTreeSet::new();
        for owned in self.paths.values() {
            if let Before::File { digest, .. } = &owned.before {
                digests.insert(*digest);
            }
            digests.extend(owned.by_hand.iter().copied());
        }
        digests
    }
}

/// Appends `item`, taking it away from an earlier place.
pub(super) fn push_last<T: PartialEq>(list: &mut Vec<T>, item: T) {
    list.retain(|known| *known != item);
    list.push(item);
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// Keeps a JSON `null` that was there apart from a key that was not.
fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
