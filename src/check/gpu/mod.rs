//! Layer 1: GPUs on PCI, the kernel module, and what NVML sees.

mod access;
mod branch;
mod checks;
mod health;
pub mod xid;

use super::{subject::Subject, verdict::Verdict};
use crate::host::facts::{Facts, Gpus, Nvml};

pub(super) use self::checks::CHECKS;

/// The GPUs that NVML reaches, or why it reaches none.
fn reached(facts: &Facts) -> Result<&Gpus, String> {
    match facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) => Ok(gpus),
        Ok(Nvml::NoLibrary(why)) => Err(format!("no NVML library: {why}")),
        Ok(Nvml::DriverNotLoaded) => Err("NVML: the driver is not loaded".to_owned()),
        Ok(Nvml::VersionMismatch) => Err("NVML: driver/library version mismatch".to_owned()),
        Err(why) => Err(why.to_owned()),
    }
}

/// As [`reached`], where it reaches any.
fn answering(facts: &Facts) -> Result<&Gpus, String> {
    let gpus = reached(facts)?;
    if gpus.devices.is_empty() { Err("NVML reaches no GPU".to_owned()) } else { Ok(gpus) }
}

fn pci(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let devices = match facts.pci.as_result() {
        Ok(devices) => devices,
        Err(why) => return Verdict::unknown(why),
    };
    // A profile with a driver and no count still wants one.
    let wanted = subject.profile.gpu.as_ref().and_then(|gpu| gpu.count).unwrap_or(1);
    let found = devices.len();
    let mut verdict = if (found as u64) < u64::from(wanted) {
        Verdict::fail(format!("{found} of {wanted} NVIDIA devices on PCI"))
            .next("hardware or passthrough, not software: `lspci -d 10de:`; seat the card, or give the machine its devices")
    } else {
        Verdict::pass(format!("{found} NVIDIA devices on PCI"))
    };
    verdict.evidence = devices
        .iter()
        .map(|d| {
            format!("`{}`: device {}, driver {}", d.address, d.device, d.driver.as_deref().unwrap_or("none"))
        })
        .collect();
    if verdict.evidence.is_empty() {
        verdict.evidence.push("`/sys/bus/pci/devices`: no display controller of vendor 0x10de".to_owned());
    }
    verdict
}

fn module(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let module = match facts.module.as_result() {
        Ok(module) => module,
        Err(why) => return Verdict::unknown(why),
    };
    if let Some(version) = &module.loaded {
        let verdict = Verdict::pass(format!("module {version} is loaded"))
            .saw(format!("`/sys/module/nvidia/version`: {version}"));
        return match &subject.profile.driver.version {
            Some(wanted) => verdict.saw(format!("profile: driver {wanted}")),
            None => verdict,
        };
    }
    let release = facts.kernel.ok().map_or("the running kernel", |kernel| kernel.release.as_str());
    let absent = "`/sys/module/nvidia`: not there";
    match &module.file {
        None => {
            let mut verdict = Verdict::fail(format!("there is no NVIDIA module for kernel {release}: it was not built"))
                .saw(absent)
                .saw(format!("`/lib/modules/{release}/modules.dep`: names no `nvidia.ko`"))
                .next(subject.brings(
                    "provision",
                    "install the driver package and the headers of this kernel, then `dkms status`",
                ));
            if !module.other_kernels.is_empty() {
                let others = module.other_kernels.join(", ");
                verdict = verdict
                    .saw(format!("built for other kernels: {others}"))
                    .next(format!("reboot into a kernel it was built for ({others})"));
            }
            verdict
        }
        Some(file) if module.secure_boot == Some(true) => {
            Verdict::fail("the NVIDIA module is there and not loaded; Secure Boot is on, which refuses an unsigned one")
                .saw(absent)
                .saw(format!("file: `{file}`"))
                .saw("Secure Boot: on")
                .next("`modprobe nvidia`; if it says `Key was rejected`, enrol the signing key with `mokutil --import` and reboot")
        }
        Some(file) => Verdict::fail("the NVIDIA module is there and not loaded")
            .saw(absent)
            .saw(format!("file: `{file}`"))
            .next("`modprobe nvidia`, and if that fails `dmesg | grep -i -e nvrm -e nvidia` says why"),
    }
}

fn version_match(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let loaded = match facts.module.as_result() {
        Ok(module) => module.loaded.as_deref(),
        Err(why) => return Verdict::unknown(why),
    };
    let Some(loaded) = loaded else { return Verdict::unknown("no module is loaded to compare with") };
    let kernel = format!("loaded module: {loaded}");
    let library = facts.user_space.ok().and_then(Option::as_deref);
    let library_line = match facts.user_space.as_result() {
        Ok(Some(version)) => format!("user-space library: {version}"),
        Ok(None) => "user-space library: its file name carries no version".to_owned(),
        Err(why) => format!("user-space library: {why}"),
    };
    let mismatch = |other: &str| {
        Verdict::fail(format!(
            "the loaded module is {loaded}, the user-space library {other}: upgraded under a running driver"
        ))
        .saw(kernel.clone())
        .saw(library_line.clone())
        .next("reboot, or unload and load the module while no process uses a GPU")
    };
    match facts.nvml.as_result() {
        Ok(Nvml::VersionMismatch) => {
            mismatch(library.filter(|library| *library != loaded).unwrap_or("another version"))
                .saw("NVML: driver/library version mismatch (18)")
        }
        _ if library.is_some_and(|library| library != loaded) => mismatch(library.unwrap_or_default()),
        Ok(Nvml::Answers(gpus)) if gpus.driver != loaded => mismatch(&gpus.driver),
        Ok(Nvml::Answers(gpus)) => Verdict::pass(format!("module and library are both {loaded}"))
            .saw(kernel)
            .saw(library_line)
            .saw(format!("NVML: driver {}", gpus.driver)),
        Ok(Nvml::NoLibrary(why)) => Verdict::fail("the driver's user-space library is not installed")
            .saw(kernel)
            .saw(format!("NVML: {why}"))
            .next(subject.brings(
                "provision",
                &format!("install the user-space packages of driver {loaded} (`libnvidia-ml1`)"),
            )),
        Ok(Nvml::DriverNotLoaded) => Verdict::unknown(
            "the module is loaded, but NVML cannot reach it: device nodes missing or not accessible?",
        )
        .saw(kernel)
        .saw(library_line)
        .next("`ls -l /dev/nvidia*`; `nvidia-modprobe -u -c 0` makes the nodes"),
        Err(why) => Verdict::unknown(why).saw(kernel).saw(library_line),
    }
}

fn count(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let gpus = match reached(facts) {
        Ok(gpus) => gpus,
        Err(why) => return Verdict::unknown(why),
    };
    let on_pci = match facts.pci.as_result() {
        Ok(devices) => devices.len() as u64,
        Err(why) => return Verdict::unknown(format!("nothing to compare NVML's count with: {why}")),
    };
    let asked = subject.profile.gpu.as_ref().and_then(|gpu| gpu.count).map_or(0, u64::from);
    let wanted = on_pci.max(asked).max(1);
    let seen = gpus.devices.len() as u64;
    let mut verdict = if seen < wanted {
        Verdict::fail(format!("NVML sees {seen} of {wanted} GPUs: one fell off the bus"))
            .next("`dmesg | grep -i xid`, drain the host and power-cycle it; if it stays away, the card or its slot is bad")
    } else {
        Verdict::pass(format!("NVML sees {seen} of {wanted} GPUs"))
    };
    verdict.evidence.push(format!("PCI: {on_pci} devices"));
    verdict.evidence.extend(gpus.devices.iter().map(|device| {
        format!(
            "GPU {}: {} {}",
            device.index,
            device.name.as_deref().unwrap_or("(no name)"),
            device.uuid.as_deref().unwrap_or("")
        )
    }));
    verdict.evidence.extend(gpus.lost.iter().cloned());
    if seen < wanted {
        // What the driver said when it went.
        let xids = facts.kernel_log.ok().into_iter().flat_map(|log| &log.xids).filter(|xid| !xid.switch);
        verdict
            .evidence
            .extend(xids.map(|xid| format!("kernel log: Xid {} on {}: {}", xid.code, xid.address, xid.says)));
    }
    verdict
}
