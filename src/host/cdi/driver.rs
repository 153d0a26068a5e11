//! What of the driver's user space a container needs, and where this host has it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    error::{Error, Result},
    host::facts::Tree,
    system::files::Root,
};

/// Where distributions install the driver's libraries: Debian's multiarch directory and its alternatives, Ubuntu, others.
const DIRECTORIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib64",
];
/// Libraries of computing and of tools (NVIDIA driver README, "Installed Components"; those that the vendor's generator
/// gives containers for `compute` and `utility`).
const LIBRARIES: [&str; 14] = [
    "libcuda",
    "libcudadebugger",
    "libnvidia-allocator",
    "libnvidia-cfg",
    "libnvidia-compiler",
    "libnvidia-gpucomp",
    "libnvidia-ml",
    "libnvidia-nvvm",
    "libnvidia-nvvm70",
    "libnvidia-opencl",
    "libnvidia-pkcs11",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-ptxjitcompiler",
    "libnvidia-sandboxutils",
];
/// Programs of the same.
const PROGRAMS: [&str; 5] = [
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
];
/// Sockets of the driver's services.
const SOCKETS: [&str; 2] = ["/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"];

/// A driver's user space.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Driver {
    /// Its version.
    pub(super) version: String,
    /// Libraries: each name that programs ask for, and the file on the host, without links.
    pub(super) libraries: BTreeMap<String, String>,
    /// Programs by name, and the file on the host.
    pub(super) programs: BTreeMap<String, String>,
    /// Firmware that the driver loads for the GPU's own processor.
    pub(super) firmware: Vec<String>,
    /// Sockets that are there.
    pub(super) sockets: Vec<String>,
}

impl Driver {
    /// Looks for version `version` of it.
    ///
    /// # Errors
    /// CUDA's or NVML's library is not there in that version; a directory cannot be read.
    pub(super) fn find(root: &Arc<Root>, version: &str) -> Result<Self> {
        let tree = Tree::new(Arc::clone(root));
        let mut driver = Self { version: version.to_owned(), ..Self::default() };
        let ending = format!(".so.{version}");
        for directory in DIRECTORIES {
            for entry in tree.list(directory)? {
                let stem = entry.name.split_once(".so").map_or("", |(stem, _)| stem);
                if !LIBRARIES.contains(&stem) {
                    continue;
                }
                let real = tree.real(&format!("{directory}/{}", entry.name))?;
                let own = real.rsplit('/').next().unwrap_or_default().to_owned();
                if own.ends_with(&ending) && tree.stat(&real)?.is_some() {
                    driver.libraries.entry(own).or_insert_with(|| real.clone());
                    driver.libraries.entry(entry.name).or_insert(real);
                }
            }
        }
        for library in ["libcuda.so.1", "libnvidia-ml.so.1"] {
            if !driver.libraries.contains_key(library) {
                return Err(Error::failed(format!("`{library}` of driver {version} is not on this host"))
                    .hint("`bedplate doctor`: `gpu.version-match` says which there is"));
            }
        }
        // Programs that do not name a version ask for this one.
        if let Some(cuda) = driver.libraries.get("libcuda.so.1").cloned() {
            driver.libraries.entry("libcuda.so".to_owned()).or_insert(cuda);
        }
        for program in PROGRAMS {
            let real = tree.real(&format!("/usr/bin/{program}"))?;
            if tree.stat(&real)?.is_some_and(|stat| !stat.is_dir()) {
                driver.programs.insert(program.to_owned(), real);
            }
        }
        let firmware = format!("/usr/lib/firmware/nvidia/{version}");
        for entry in tree.list(&firmware)? {
            driver.firmware.push(format!("{firmware}/{}", entry.name));
        }
        driver.firmware.sort();
        for socket in SOCKETS {
            if tree.stat(socket)?.is_some() {
                driver.sockets.push(socket.to_owned());
            }
        }
        Ok(driver)
    }
}
