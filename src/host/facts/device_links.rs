//! Whether `/dev/char` has a link for each device node of the driver.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::tree::Tree;
use crate::error::{Error, Result};

/// The driver's device nodes, and which of them have no link in `/dev/char`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceLinks {
    /// Device nodes of the driver.
    pub nodes: BTreeSet<String>,
    /// Those without a link.
    pub missing: BTreeSet<String>,
}

/// Looks for the links. The driver makes its nodes by itself, past udev, which makes the links of others
/// (NVIDIA container toolkit, "Troubleshooting": containers that lose access to GPUs).
pub(super) fn links(tree: &Tree) -> Result<DeviceLinks> {
    let mut found = DeviceLinks::default();
    let names = tree.list("/dev")?;
    if names.is_empty() {
        return Err(Error::failed("reading `/dev`: it does not exist or is empty"));
    }
    let is_node = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|rest| {
            matches!(rest, "ctl" | "-uvm" | "-uvm-tools" | "-modeset")
                || !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    found.nodes = names
        .into_iter()
        .filter(|entry| !entry.is_dir && is_node(&entry.name))
        .map(|entry| entry.name)
        .collect();
    if found.nodes.is_empty() {
        return Ok(found);
    }
    let mut linked = BTreeSet::new();
    for entry in tree.list("/dev/char")? {
        // Something else than a link links to nothing.
        if let Ok(Some(target)) = tree.root().read_link(&format!("/dev/char/{}", entry.name)) {
            linked.insert(target.rsplit('/').next().unwrap_or(&target).to_owned());
        }
    }
    found.missing = found.nodes.difference(&linked).cloned().collect();
    Ok(found)
}
