//! GPUs: what PCI, the kernel module and NVML say.

use super::{
    basics::SMALL,
    data::{Device, Gpus, Module, Nvml, PciDevice},
    tree::Tree,
};
use crate::{
    error::{Error, Result},
    gpu::{self, GpuError, Health, Library},
};

/// NVIDIA's vendor id (PCI-SIG).
pub(super) const NVIDIA: &str = "0x10de";
/// Where the driver packages install the library: Debian and Ubuntu, then others.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "/usr/lib64/libnvidia-ml.so.1"];
/// `modules.dep` of a distribution's kernel is below 1 MB.
const MODULES_DEP: u64 = 16 << 20;

/// NVIDIA's display controllers (PCI class 03) in sysfs.
pub(super) fn pci(tree: &Tree) -> Result<Vec<PciDevice>> {
    devices_of_class(tree, NVIDIA, "0x03")
}

/// Devices of a vendor whose class begins so, in sysfs.
pub(super) fn devices_of_class(tree: &Tree, vendor: &str, class: &str) -> Result<Vec<PciDevice>> {
    const DEVICES: &str = "/sys/bus/pci/devices";
    if tree.stat("/sys/bus")?.is_none() {
        return Err(Error::failed("reading `/sys/bus`: it does not exist; is sysfs mounted?"));
    }
    let mut devices = Vec::new();
    for entry in tree.list(DEVICES)? {
        let place = tree.real(&format!("{DEVICES}/{}", entry.name))?;
        let value = |name: &str| -> Result<String> {
            Ok(tree
                .root()
                .read_text(&format!("{place}/{name}"), SMALL)?
                .unwrap_or_default()
                .trim()
                .to_owned())
        };
        if value("vendor")? != vendor || !value("class")?.starts_with(class) {
            continue;
        }
        let driver = tree.root().read_link(&format!("{place}/driver"))?;
        let driver = driver.and_then(|link| Some(link.rsplit_once('/')?.1.to_owned()));
        devices.push(PciDevice { address: entry.name, device: value("device")?, driver });
    }
    Ok(devices)
}

/// The NVIDIA kernel module: loaded, else whether there is one for this kernel.
pub(super) fn module(tree: &Tree, release: &str) -> Result<Module> {
    if let Some(version) = loaded(tree)? {
        return Ok(Module { loaded: Some(version), ..Module::default() });
    }
    let dep = tree.text(&format!("/lib/modules/{release}/modules.dep"), MODULES_DEP)?.unwrap_or_default();
    let file = dep
        .lines()
        .filter_map(|line| line.split_once(':').map(|(path, _)| path))
        .find(|path| is_module(path))
        .map(|path| format!("/lib/modules/{release}/{path}"));
    let mut other_kernels = Vec::new();
    if file.is_none() {
        for kernel in tree.list("/lib/modules")? {
            if kernel.name == release {
                continue;
            }
            // Where the modules that `lock --modules` builds are, and where DKMS puts its own on Debian and Ubuntu
            // (dkms.conf(5), DEST_MODULE_LOCATION).
            for place in ["bedplate", "dkms"] {
                let built = tree.list(&format!("/lib/modules/{}/updates/{place}", kernel.name))?;
                if built.iter().any(|entry| is_module(&entry.name)) {
                    other_kernels.push(kernel.name);
                    break;
                }
            }
        }
    }
    // Four bytes of attributes, then the value (Linux, Documentation/filesystems/efivarfs.rst).
    let secure_boot = tree
        .read("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", SMALL)
        .ok()
        .flatten()
        .and_then(|value| value.get(4).map(|byte| *byte == 1));
    Ok(Module { loaded: None, file, other_kernels, secure_boot })
}

fn loaded(tree: &Tree) -> Result<Option<String>> {
    if let Some(version) = tree.text("/sys/module/nvidia/version", SMALL)? {
        return Ok(Some(version.trim().to_owned()));
    }
    let Some(text) = tree.text("/proc/driver/nvidia/version", SMALL)? else { return Ok(None) };
    let line = text.lines().find(|line| line.starts_with("NVRM version:")).unwrap_or_default();
    let version = line.split_whitespace().find(|word| is_version(word));
    version.map_or_else(
        || Err(Error::failed("reading `/proc/driver/nvidia/version`: it names no version")),
        |version| Ok(Some(version.to_owned())),
    )
}

/// Whether a file is NVIDIA's core module: `nvidia.ko`, or as Debian names it `nvidia-current.ko` and
/// `nvidia-current-open.ko`, perhaps compressed; not `nvidia-drm` and its like.
fn is_module(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some((stem, _)) = name.split_once(".ko") else { return false };
    let rest = stem.strip_prefix("nvidia");
    rest.is_some_and(|rest| {
        matches!(rest, "" | "-open" | "-current" | "-current-open" | "-tesla" | "-tesla-open")
    })
}

/// `550.163.01`: numbers and dots, at least one dot.
pub(super) fn is_version(word: &str) -> bool {
    word.contains('.')
        && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Version of the user-space library, from the name of the file that its link ends at.
pub(super) fn user_space(tree: &Tree, library: Option<&str>) -> Result<Option<String>> {
    for path in library.into_iter().chain(LIBRARIES) {
        let real = tree.real(path)?;
        if tree.root().stat(&real)?.is_none() {
            continue;
        }
        let version = real.rsplit_once(".so.").map(|(_, version)| version).filter(|v| is_version(v));
        return Ok(version.map(str::to_owned));
    }
    Ok(None)
}

/// What NVML says, and the library that said it, to be asked further. An answer such as "not loaded" is known;
/// anything odd is an error.
pub(super) fn nvml(library: Option<&std::path::Path>) -> Result<(Nvml, Option<Library>)> {
    let seen = Library::open(library).and_then(|library| Ok((library.observe()?, library)));
    match seen {
        Ok((gpus, library)) => Ok((Nvml::Answers(answers(gpus)), Some(library))),
        Err(GpuError::NoLibrary(why)) => Ok((Nvml::NoLibrary(why), None)),
        Err(GpuError::DriverNotLoaded) => Ok((Nvml::DriverNotLoaded, None)),
        Err(GpuError::VersionMismatch) => Ok((Nvml::VersionMismatch, None)),
        Err(error) => Err(Error::failed(error.to_string())),
    }
}

/// How one GPU is.
pub(super) fn health(library: &Library, index: u32) -> Result<Health> {
    library.health(index).map_err(|error| Error::failed(error.to_string()))
}

fn answers(gpus: gpu::Gpus) -> Gpus {
    Gpus {
        driver: gpus.driver,
        cuda: gpus.cuda.map(|(major, minor)| format!("{major}.{minor}")),
        devices: gpus
            .devices
            .into_iter()
            .map(|gpu| Device {
                index: gpu.index,
                name: gpu.name,
                uuid: gpu.uuid,
                memory: gpu.memory,
                mig: gpu.mig,
                compute_capability: gpu.compute_capability,
                brand: gpu.brand.map(str::to_owned),
            })
            .collect(),
        lost: gpus.lost.into_iter().map(|(index, why)| format!("GPU {index}: {why}")).collect(),
    }
}
