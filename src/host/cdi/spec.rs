//! The specification as text. Pure.

use serde_json::{Value, json};

use super::driver::Driver;
use crate::{
    error::{Error, Result},
    host::facts::DeviceNodes,
};

/// Nodes that every container with a GPU needs.
const SHARED: [&str; 4] =
    ["/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl"];
/// Version of the form: the oldest that has all that is used here (CDI `SPEC.md`, "Version").
const VERSION: &str = "0.5.0";
/// How files come in: read-only, and without what a bind mount would let through.
const OPTIONS: [&str; 5] = ["ro", "nosuid", "nodev", "rbind", "rprivate"];

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpu {
    /// NVML's index.
    pub(super) index: u32,
    /// `GPU-…`.
    pub(super) uuid: Option<String>,
    /// Its node.
    pub(super) node: String,
}

/// The specification of these GPUs: each by index and UUID, and `all`.
///
/// # Errors
/// None that a host can cause: it could not be written as JSON.
pub(super) fn text(gpus: &[Gpu], nodes: &DeviceNodes, driver: &Driver) -> Result<String> {
    let device = |name: &str, nodes: &[&str]| {
        let nodes: Vec<Value> = nodes.iter().map(|path| json!({ "path": path })).collect();
        json!({ "name": name, "containerEdits": { "deviceNodes": nodes } })
    };
    let mut devices = Vec::new();
    for gpu in gpus {
        devices.push(device(&gpu.index.to_string(), &[&gpu.node]));
        devices.extend(gpu.uuid.iter().map(|uuid| device(uuid, &[&gpu.node])));
    }
    let all: Vec<&str> = gpus.iter().map(|gpu| gpu.node.as_str()).collect();
    devices.push(device("all", &all));
    let shared: Vec<Value> = SHARED
        .iter()
        .filter(|path| nodes.nodes.contains_key(**path))
        .map(|path| json!({ "path": path }))
        .collect();
    let spec = json!({
        "cdiVersion": VERSION,
        "kind": "nvidia.com/gpu",
        "devices": devices,
        "containerEdits": {
            // Where the vendor's runtime is there too, it is to keep its hands off.
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": shared,
            "mounts": mounts(driver),
        },
    });
    let text = serde_json::to_string_pretty(&spec)
        .map_err(|error| Error::failed("writing the CDI specification failed").because(error))?;
    Ok(text + "\n")
}

/// Libraries under every name that is asked for, where Debian's and Ubuntu's loader looks by itself: then no hook has to run
/// in the container.
fn mounts(driver: &Driver) -> Vec<Value> {
    let mount = |host: &str, container: &str, more: &[&str]| {
        let options: Vec<&str> = OPTIONS.iter().chain(more).copied().collect();
        json!({ "hostPath": host, "containerPath": container, "options": options })
    };
    let place = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let libraries = driver.libraries.iter().map(|(name, host)| mount(host, &format!("{place}/{name}"), &[]));
    let programs = driver.programs.iter().map(|(name, host)| mount(host, &format!("/usr/bin/{name}"), &[]));
    let firmware =
        driver.firmware.iter().map(|path| mount(path, &path.replacen("/usr/lib/", "/lib/", 1), &[]));
    let sockets = driver.sockets.iter().map(|path| mount(path, path, &["noexec"]));
    libraries.chain(programs).chain(firmware).chain(sockets).collect()
}
