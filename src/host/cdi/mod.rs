//! The CDI specification of this host's GPUs, where the vendor's toolkit is not there to write one.
//!
//! It lies on tmpfs, so that it is never of another boot: the boot unit writes it after the module is loaded.
//! See `docs/decisions/cdi.md`.

mod driver;
mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::{driver::Driver, spec::Gpu};
use super::facts::{Facts, Nvml};
use crate::{
    error::{Error, Result},
    system::files::{Owner, Root},
};

/// Where it lies: of the two directories that the specification gives, the one that a reboot empties and that counts
/// before the other (CDI `SPEC.md`, "Dynamic").
pub const PATH: &str = "/var/run/cdi/bedplate-nvidia.json";

/// What was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is there, byte for byte.
    Unchanged,
    /// It was written: how many GPUs, and the driver's version.
    New(usize, String),
    /// It is not ours to write: the vendor's toolkit is installed.
    Vendors,
    /// It is not to be written yet, and why. Layer 1 says what to do about that.
    Waits(String),
}

/// Writes the specification of the GPUs in `facts`, unless it is there already.
///
/// # Errors
/// A GPU is divided (MIG) or lost, or its node is not known; the driver's libraries are not found; it cannot be written.
pub fn refresh(root: &Arc<Root>, facts: &Facts) -> Result<Written> {
    let waits = |what: &str, why: &str| Ok(Written::Waits(format!("{what}: {why}")));
    match facts.toolkit.as_result() {
        Ok(toolkit) if toolkit.version.is_some() => return Ok(Written::Vendors),
        Ok(_) => {}
        Err(why) => return waits("whether the vendor's toolkit is installed", why),
    }
    let gpus = match facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) if gpus.devices.is_empty() => return waits("NVML", "it sees no GPU"),
        Ok(Nvml::Answers(gpus)) => gpus,
        Ok(Nvml::NoLibrary(why)) => return waits("NVML", why),
        Ok(Nvml::DriverNotLoaded) => return waits("NVML", "the driver is not loaded"),
        Ok(Nvml::VersionMismatch) => return waits("NVML", "the loaded driver is of another version"),
        Err(why) => return waits("NVML", why),
    };
    let nodes = match facts.nodes.as_result() {
        Ok(nodes) => nodes,
        Err(why) => return waits("device nodes", why),
    };
    let mut found = Vec::new();
    for device in &gpus.devices {
        let index = device.index;
        if device.mig == Some(true) {
            return Err(Error::failed(format!("GPU {index} is divided (MIG): its parts are not described"))
                .hint("use the vendor's toolkit (`nvidia-container-toolkit` in `[host] packages`), or switch MIG off: `nvidia-smi -mig 0`"));
        }
        let minor = facts.health.get(&index).and_then(|health| health.ok()?.minor.value().copied());
        let minor = minor.ok_or_else(|| {
            Error::failed(format!("NVML does not say which `/dev/nvidiaN` is GPU {index}"))
                .hint("`bedplate doctor` says how it is")
        })?;
        found.push(Gpu { index, uuid: device.uuid.clone(), node: format!("/dev/nvidia{minor}") });
    }
    let driver = Driver::find(root, &gpus.driver)?;
    let text = spec::text(&found, nodes, &driver)?;
    if root.read(PATH, 4 << 20)?.is_some_and(|held| held == text.as_bytes()) {
        return Ok(Written::Unchanged);
    }
    let (directory, _) = PATH.rsplit_once('/').unwrap_or(("/", ""));
    root.make_dir(directory, 0o755, Owner::current())?;
    root.write(PATH, text.as_bytes(), 0o644, Owner::current())?;
    Ok(Written::New(found.len(), driver.version))
}
