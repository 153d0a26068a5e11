//! The device nodes through which programs reach the driver.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{basics::SMALL, tree::Tree};
use crate::error::{Error, Result};

/// Device nodes, and what the driver says of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceNodes {
    /// `/dev/nvidia*` and what is in `/dev/nvidia-caps`, by path.
    pub nodes: BTreeMap<String, Node>,
    /// `N` of the `/dev/nvidiaN` that the driver has GPUs for (`/proc/driver/nvidia/gpus/*/information`).
    pub minors: BTreeSet<u32>,
    /// The mode the driver wants (`DeviceFileMode` in `/proc/driver/nvidia/params`), where it says.
    pub mode: Option<u32>,
    /// Major numbers of the driver's devices, by name (`/proc/devices`).
    pub majors: BTreeMap<String, u32>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Permission bits.
    pub mode: u32,
    /// User and group as numbers.
    pub ids: (u32, u32),
    /// Major and minor number; `None`: it is no character device.
    pub number: Option<(u32, u32)>,
}

/// Reads them.
pub(super) fn read(tree: &Tree) -> Result<DeviceNodes> {
    if tree.stat("/dev")?.is_none() {
        return Err(Error::failed("reading `/dev`: it does not exist"));
    }
    let mut nodes = BTreeMap::new();
    for (folder, prefix) in [("/dev", "nvidia"), ("/dev/nvidia-caps", "nvidia-cap")] {
        for entry in tree.list(folder)? {
            let path = format!("{folder}/{}", entry.name);
            if let (true, Some(stat)) = (entry.name.starts_with(prefix), tree.stat(&path)?)
                && !stat.is_dir()
            {
                nodes.insert(path, Node { mode: stat.mode, ids: (stat.uid, stat.gid), number: stat.number });
            }
        }
    }
    Ok(DeviceNodes { nodes, minors: minors(tree)?, mode: wanted_mode(tree)?, majors: majors(tree)? })
}

/// The line `Device Minor:`, in one file a GPU.
fn minors(tree: &Tree) -> Result<BTreeSet<u32>> {
    const GPUS: &str = "/proc/driver/nvidia/gpus";
    let mut minors = BTreeSet::new();
    for entry in tree.list(GPUS)? {
        let text = tree.text(&format!("{GPUS}/{}/information", entry.name), SMALL)?.unwrap_or_default();
        let minor = text.lines().find_map(|line| line.strip_prefix("Device Minor:")?.trim().parse().ok());
        minors.extend::<Option<u32>>(minor);
    }
    Ok(minors)
}

/// `DeviceFileMode: 438`, decimal; only where `ModifyDeviceFiles` is on does the driver's helper set it.
fn wanted_mode(tree: &Tree) -> Result<Option<u32>> {
    let text = tree.text("/proc/driver/nvidia/params", SMALL)?.unwrap_or_default();
    Ok(text.lines().find_map(|line| line.strip_prefix("DeviceFileMode:")?.trim().parse().ok()))
}

/// `195 nvidia` and the like, in the part on character devices.
fn majors(tree: &Tree) -> Result<BTreeMap<String, u32>> {
    let text = tree.text("/proc/devices", SMALL)?.unwrap_or_default();
    let lines = text.lines().take_while(|line| !line.starts_with("Block devices"));
    let pairs = lines.filter_map(|line| {
        let (major, name) = line.trim().split_once(' ')?;
        name.starts_with("nvidia").then_some((name.to_owned(), major.parse().ok()?))
    });
    Ok(pairs.collect())
}
