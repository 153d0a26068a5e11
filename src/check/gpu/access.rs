//! Layer 1: who owns the devices, the nodes programs reach them through, and the fabric between them.

use super::answering;
use crate::{
    check::{
        subject::Subject,
        verdict::{Tally, Verdict},
    },
    host::facts::{DeviceNodes, FabricManager, FabricState, Facts, Known, Node, Reading, looked_at},
    system::files::format_mode,
};

pub(super) fn nouveau(_: &Subject<'_>, facts: &Facts) -> Verdict {
    let devices = match facts.pci.as_result() {
        Ok(devices) => devices,
        Err(why) => return Verdict::unknown(why),
    };
    let mut tally = Tally::default();
    for device in devices {
        let address = &device.address;
        match device.driver.as_deref() {
            None => tally.good(format!("`{address}`: no driver")),
            Some("nvidia") => tally.good(format!("`{address}`: driver nvidia")),
            Some(driver @ ("vfio-pci" | "pci-stub")) => tally.bad(
                format!("`{address}` belongs to `{driver}`: it is kept for a virtual machine"),
                format!("take its id out of `{driver}`'s options and the kernel's command line (`bedplate provision` sets `[kernel] parameters`), then reboot"),
            ),
            Some(driver) => tally.bad(
                format!("`{address}` belongs to `{driver}`, so NVIDIA's driver cannot have it"),
                format!("add \"{driver}\" to `modules = {{ blacklist = […] }}` of `[kernel]` in the profile, `bedplate provision`, then reboot"),
            ),
        }
    }
    tally.verdict("no other driver owns a device", "no NVIDIA device is on PCI")
}

/// What of the nodes a GPU, and every program, needs.
pub(super) fn device_nodes(_: &Subject<'_>, facts: &Facts) -> Verdict {
    let nodes = match facts.nodes.as_result() {
        Ok(nodes) => nodes,
        Err(why) => return Verdict::unknown(why),
    };
    let mut tally = Tally::default();
    if nodes.minors.is_empty() {
        tally.unknown_until(
            "`/proc/driver/nvidia/gpus` names no GPU, so which nodes there must be is not known",
            "`cat /proc/driver/nvidia/gpus/*/information`; the driver writes one for each GPU it has",
        );
    }
    let mut wanted =
        vec![("/dev/nvidiactl".to_owned(), None), ("/dev/nvidia-uvm".to_owned(), Some("nvidia-uvm"))];
    wanted.extend(nodes.minors.iter().map(|minor| (format!("/dev/nvidia{minor}"), None)));
    for (path, name) in wanted {
        one(&mut tally, nodes, &path, name);
    }
    // Needed only where GPUs are divided.
    let divided =
        facts.health.values().filter_map(Known::ok).any(|gpu| gpu.mig.value().is_some_and(|mig| mig.now));
    if divided {
        let caps = nodes.nodes.keys().filter(|path| path.starts_with("/dev/nvidia-caps/")).count();
        if caps == 0 {
            tally.bad(
                "`/dev/nvidia-caps` is empty, and a GPU is in MIG mode",
                "`nvidia-modprobe -f /proc/driver/nvidia/capabilities/mig/config`, and the same for `monitor`",
            );
        } else {
            tally.good(format!("`/dev/nvidia-caps`: {caps} nodes"));
        }
    }
    tally.verdict("every device node is there", "no node is needed")
}

/// Majors: 195 is NVIDIA's own (Linux, `devices.txt`); that of `nvidia-uvm` is another one after each boot.
fn one(tally: &mut Tally, nodes: &DeviceNodes, path: &str, name: Option<&str>) {
    const MAKE: &str = "`nvidia-modprobe -u -c 0` makes the nodes (with `modprobe nvidia-uvm` before it); `nvidia-persistenced` keeps them";
    let Some(Node { mode, number, .. }) = nodes.nodes.get(path) else {
        return tally.bad(format!("`{path}` is not there"), MAKE);
    };
    let Some((major, minor)) = number else {
        return tally.bad(
            format!("`{path}` is no device: something made a file of that name"),
            format!("`rm {path}`, then {MAKE}"),
        );
    };
    let right = match name {
        None => Some(195),
        Some(name) => nodes.majors.get(name).copied(),
    };
    if let Some(right) = right.filter(|right| right != major) {
        return tally.bad(
            format!(
                "`{path}` has the major number {major}, the driver's is {right}: it is from another boot"
            ),
            format!("`rm {path}`, then {MAKE}"),
        );
    }
    // As the driver's own helper makes them, unless told otherwise: 0666.
    let wanted = nodes.mode.unwrap_or(0o666);
    if mode & wanted != wanted {
        return tally.bad(
            format!(
                "`{path}` has mode {}, the driver wants {}: not every program may open it",
                format_mode(*mode),
                format_mode(wanted)
            ),
            format!("`chmod {} {path}`, and look at udev rules that change it", format_mode(wanted)),
        );
    }
    if right.is_none() {
        return tally.unknown(format!(
            "`{path}` is there, and `/proc/devices` does not say whether its number is right"
        ));
    }
    tally.good(format!("`{path}`: {major}, {minor}, mode {}", format_mode(*mode)));
}

pub(super) fn fabric_manager(_: &Subject<'_>, facts: &Facts) -> Verdict {
    let manager = match facts.fabric.as_result() {
        Ok(manager) => manager,
        Err(why) => return Verdict::unknown(why),
    };
    let gpus = match answering(facts) {
        Ok(gpus) => gpus,
        Err(why) => return Verdict::unknown(why),
    };
    let mut tally = Tally::default();
    if !manager.switches.is_empty() {
        service(&mut tally, manager, &gpus.driver);
    }
    for gpu in &gpus.devices {
        let index = gpu.index;
        match looked_at(&facts.health, index).map(|health| &health.fabric) {
            Err(why) => tally.unknown(format!("GPU {index}: {why}")),
            Ok(Reading::Unknown { why }) => tally.unknown(format!("the fabric state of GPU {index}: {why}")),
            Ok(Reading::NotSupported) => tally.note(format!("GPU {index}: has no part in a fabric")),
            Ok(Reading::Value(fabric)) => match (fabric.state, &fabric.status, fabric.complaints.as_slice()) {
                (FabricState::Completed, None, []) => tally.good(format!("GPU {index}: the fabric is completed")),
                (FabricState::Completed, None, complaints) => tally.bad(
                    format!("GPU {index} is in the fabric, and {}", complaints.join(", ")),
                    "`nvidia-smi -q | grep -A 12 Fabric` and `journalctl -u nvidia-fabricmanager`; then reset the GPUs or reboot",
                ),
                (FabricState::Completed, Some(status), _) => tally.bad(
                    format!("GPU {index} could not join the fabric: {status}"),
                    "`journalctl -u nvidia-fabricmanager` says why; then reboot",
                ),
                (state, ..) => {
                    let word = if state == FabricState::NotStarted { "has not begun to join" } else { "is still joining" };
                    tally.bad(
                        format!("GPU {index} {word} the fabric: CUDA fails with error 802 until it has"),
                        "`systemctl restart nvidia-fabricmanager`, where it is not on the machine that holds this one",
                    );
                }
            },
        }
    }
    tally.verdict("the fabric is completed", "there is no NVSwitch and no GPU of a fabric")
}

fn service(tally: &mut Tally, manager: &FabricManager, driver: &str) {
    let switches = manager.switches.len();
    tally.note(format!("PCI: {switches} NVSwitches"));
    let install = format!(
        "install `nvidia-fabricmanager` of version {driver} from NVIDIA's archive (name it in `[host] packages`), then `systemctl enable --now nvidia-fabricmanager`"
    );
    if !manager.installed {
        return tally
            .bad(format!("there are {switches} NVSwitches, and Fabric Manager is not installed"), install);
    }
    let Some(process) = manager.process else {
        return tally.bad(
            "Fabric Manager is installed and does not run",
            "`systemctl enable --now nvidia-fabricmanager`; if it ends again: `journalctl -u nvidia-fabricmanager`",
        );
    };
    match &manager.version {
        Some(version) if version != driver => tally
            .bad(format!("Fabric Manager is {version}, the driver {driver}: they must be the same"), install),
        Some(version) => tally.good(format!("Fabric Manager {version} runs (pid {process})")),
        None => tally.unknown("Fabric Manager runs, and dpkg does not know its version"),
    }
}
