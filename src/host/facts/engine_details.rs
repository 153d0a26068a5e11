//! What further the Docker daemon says of itself, and what its configuration says of keys that matter.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{basics::SMALL, tree::Tree};
use crate::{
    docker::EngineInfo,
    error::{Doing, Result},
    plan,
};

/// The key that keeps containers running while the daemon restarts.
pub const LIVE_RESTORE: &str = "/live-restore";

/// What further the Docker daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EngineDetails {
    /// The file system under its data, as the storage driver names it.
    pub backing: Option<String>,
    /// Whether that file system tells what a directory's entries are.
    pub d_type: Option<bool>,
    /// `systemd` or `cgroupfs`.
    pub cgroup_driver: Option<String>,
    /// `1` or `2`.
    pub cgroup_version: Option<String>,
    /// Version of runc.
    pub runc: Option<String>,
    /// Containers outlive the daemon.
    pub live_restore: bool,
    /// Images are kept by containerd, not below Docker's own directory.
    #[serde(default)]
    pub containerd_store: bool,
}

impl From<&EngineInfo> for EngineDetails {
    fn from(engine: &EngineInfo) -> Self {
        Self {
            backing: engine.backing.clone(),
            d_type: engine.d_type,
            cgroup_driver: engine.cgroup_driver.clone(),
            cgroup_version: engine.cgroup_version.clone(),
            runc: engine.runc.clone(),
            live_restore: engine.live_restore,
            containerd_store: engine.containerd_store,
        }
    }
}

/// Values of `daemon.json`, as JSON text, by pointer: of the keys that are wanted, and of `live-restore`. A key that is
/// not there is not in the table.
pub(super) fn keys(tree: &Tree, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
    let path = plan::DAEMON;
    let text = tree.read(path, SMALL)?.unwrap_or_default();
    if text.trim_ascii().is_empty() {
        return Ok(BTreeMap::new());
    }
    let daemon: Value = serde_json::from_slice(&text).doing(|| format!("reading `{path}` as JSON"))?;
    let pointers = wanted.iter().map(String::as_str).chain([LIVE_RESTORE]);
    let value = |pointer: &str| Some((pointer.to_owned(), daemon.pointer(pointer)?.to_string()));
    Ok(pointers.filter_map(value).collect())
}
