//! NVSwitches on PCI, and the service that manages their fabric.

use serde::{Deserialize, Serialize};

use super::{
    basics::SMALL,
    gpu::{NVIDIA, devices_of_class},
    tree::Tree,
};
use crate::{
    error::{Error, Result},
    host::packages,
    version,
};

/// PCI class of an NVSwitch: another bridge.
const BRIDGE: &str = "0x0680";
const UNIT: &str = "nvidia-fabricmanager.service";
/// The program's name as `/proc/PID/comm` has it: the first 15 letters of `nv-fabricmanager`.
const PROGRAM: &str = "nv-fabricmanage";

/// NVSwitches, and Fabric Manager.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FabricManager {
    /// PCI addresses of NVSwitches. From Blackwell on the switches are not on PCI.
    pub switches: Vec<String>,
    /// Whether its unit is there.
    pub installed: bool,
    /// Version of its package, as the driver's is written: `550.163.01`.
    pub version: Option<String>,
    /// The process of its unit; `None`: it does not run.
    pub process: Option<u32>,
}

/// Looks at PCI, the unit's control group and dpkg's database.
pub(super) fn read(tree: &Tree) -> Result<FabricManager> {
    let switches: Vec<String> =
        devices_of_class(tree, NVIDIA, BRIDGE)?.into_iter().map(|device| device.address).collect();
    let mut installed = false;
    for folder in ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"] {
        installed |= tree.stat(&format!("{folder}/{UNIT}"))?.is_some();
    }
    let version = if installed { package(tree)? } else { None };
    let process = match of_unit(tree)? {
        // Started by hand it is in no unit; where there are no switches nobody asks.
        None if !switches.is_empty() => by_name(tree)?,
        found => found,
    };
    Ok(FabricManager { switches, installed, version, process })
}

/// `nvidia-fabricmanager` or, in NVIDIA's archive, with the branch at its end.
fn package(tree: &Tree) -> Result<Option<String>> {
    let Some(packages) = packages::read(tree.root())? else { return Ok(None) };
    let is = |name: &str| {
        let rest = name.strip_prefix("nvidia-fabricmanager");
        rest.is_some_and(|rest| rest.is_empty() || rest[1..].bytes().all(|b| b.is_ascii_digit()))
    };
    let found = packages.present().find(|package| is(&package.name));
    Ok(found.map(|package| version::upstream(&package.version).to_owned()))
}

/// A process of the unit, by its control group: systemd's one hierarchy, or its own beside others (systemd, "The
/// pragmatic guide to cgroups").
fn of_unit(tree: &Tree) -> Result<Option<u32>> {
    if tree.stat("/sys/fs/cgroup")?.is_none() {
        return Err(Error::failed("reading `/sys/fs/cgroup`: it does not exist"));
    }
    for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd"] {
        let path = format!("{hierarchy}/system.slice/{UNIT}/cgroup.procs");
        let text = tree.text(&path, SMALL)?.unwrap_or_default();
        if let Some(process) = text.lines().find_map(|line| line.trim().parse().ok()) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

/// A process of the program, by its name.
fn by_name(tree: &Tree) -> Result<Option<u32>> {
    for entry in tree.list("/proc")? {
        let Ok(process) = entry.name.parse() else { continue };
        // It may have ended meanwhile.
        let name = tree.text(&format!("/proc/{process}/comm"), SMALL).ok().flatten();
        if name.is_some_and(|name| name.trim() == PROGRAM) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}
