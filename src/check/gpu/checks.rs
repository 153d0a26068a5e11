//! The checks of GPUs: what `explain` says of each, and what each builds on.

use super::{access, branch, health, xid};
use crate::check::{
    registry::{Check, advisory, check, on_gpus},
    report::Layer,
};

const PCI: &[&str] = &["gpu.pci"];
/// What the loaded driver builds on.
const OWNED: &[&str] = &["gpu.pci", "gpu.nouveau"];
/// What NVML builds on.
const LOADED: &[&str] = &["gpu.pci", "gpu.nouveau", "gpu.module", "gpu.device-nodes"];
/// What all that NVML says builds on.
const ASKED: &[&str] = &["gpu.pci", "gpu.nouveau", "gpu.module", "gpu.device-nodes", "gpu.version-match"];

/// In the catalogue's order, but that the nodes come before what is asked through them.
pub(in crate::check) const CHECKS: &[Check] = &[
    on_gpus(
        check(
            "gpu.pci",
            Layer::Doctor,
            super::pci,
            [
                "NVIDIA display controllers in `/sys/bus/pci/devices`, against `[gpu] count`",
                "a device that is not on PCI is a matter of hardware or passthrough: no driver can help",
                "seat the card, check its power, or give the virtual machine its devices",
            ],
        ),
        &[],
    ),
    on_gpus(
        check(
            "gpu.nouveau",
            Layer::Doctor,
            access::nouveau,
            [
                "the kernel driver that has each NVIDIA device (`/sys/bus/pci/devices/*/driver`)",
                "a device has one driver: while nouveau, or one for virtual machines, has it, NVIDIA's cannot, and no program sees the GPU",
                "keep the other driver from loading: `modules = { blacklist = [\"nouveau\"] }` of `[kernel]`, `bedplate provision`, reboot",
            ],
        ),
        PCI,
    ),
    on_gpus(
        check(
            "gpu.module",
            Layer::Doctor,
            super::module,
            [
                "whether the kernel module is loaded (`/sys/module/nvidia/version`); else whether one was built for this kernel, and Secure Boot",
                "without it no process sees a GPU",
                "absent: `bedplate provision` brings the locked kernel and the modules that were built for it (with `pin-packages = false` install driver and headers, DKMS builds it); refused: enrol the signing key; else `dmesg` says why",
            ],
        ),
        OWNED,
    ),
    on_gpus(
        check(
            "gpu.device-nodes",
            Layer::Doctor,
            access::device_nodes,
            [
                "`/dev/nvidiactl`, `/dev/nvidia-uvm`, a `/dev/nvidiaN` for each GPU the driver has, and `/dev/nvidia-caps` in MIG mode: that they are devices, with the driver's number and the mode it wants",
                "programs reach the driver through them; without `nvidia-uvm` the GPU is seen and CUDA fails all the same",
                "`modprobe nvidia-uvm`, then `nvidia-modprobe -u -c 0`; `nvidia-persistenced` keeps them over reboots",
            ],
        ),
        &["gpu.pci", "gpu.nouveau", "gpu.module"],
    ),
    on_gpus(
        check(
            "gpu.version-match",
            Layer::Doctor,
            super::version_match,
            [
                "the loaded module's version against the user-space library's, by its file name and by NVML",
                "a driver upgraded under a running module breaks every new process, while running ones go on",
                "reboot, or unload and load the module while nothing uses a GPU",
            ],
        ),
        LOADED,
    ),
    on_gpus(
        check(
            "gpu.count",
            Layer::Doctor,
            super::count,
            [
                "how many GPUs NVML sees, against PCI and `[gpu] count`",
                "a GPU that fell off the bus is still on PCI, and an engine that wants it fails or hangs",
                "`dmesg | grep -i xid`, then power-cycle the host; if it stays away, the card or its slot is bad",
            ],
        ),
        ASKED,
    ),
    on_gpus(
        check(
            "gpu.fabric-manager",
            Layer::Doctor,
            access::fabric_manager,
            [
                "NVSwitches on PCI (class 0680), Fabric Manager's unit, process and version, and what NVML says of each GPU's fabric",
                "GPUs that are joined by switches start no CUDA program until the fabric is completed (error 802), though `nvidia-smi` looks well",
                "install `nvidia-fabricmanager` of exactly the driver's version, `systemctl enable --now nvidia-fabricmanager`",
            ],
        ),
        ASKED,
    ),
    advisory(on_gpus(
        check(
            "gpu.persistence",
            Layer::Doctor,
            health::persistence,
            [
                "persistence mode of each GPU, by NVML",
                "without it the driver lets go of a GPU that nobody uses: settings are lost, and the next program starts seconds later",
                "`systemctl enable --now nvidia-persistenced`",
            ],
        ),
        ASKED,
    )),
    on_gpus(
        check(
            "gpu.ecc",
            Layer::Doctor,
            health::ecc,
            [
                "ECC, uncorrected errors since the driver was loaded, rows of memory that are remapped and pages that are retired, by NVML",
                "memory that gives wrong values ends programs, or changes their results; a row that waits for a reset is still in use",
                "reset the GPU (`nvidia-smi --gpu-reset -i N`) or reboot; where a remap failed, have the card replaced",
            ],
        ),
        ASKED,
    ),
    on_gpus(
        check(
            "gpu.xid",
            Layer::Doctor,
            xid::xid,
            [
                "errors that the driver reported in the kernel's log (`/dev/kmsg`: `NVRM: Xid`, and `SXid` of switches) within `[checks] xid-hours`",
                "an Xid tells hardware, driver and application apart before anything else does; some leave a GPU that only a reset mends",
                "`bedplate explain xid-NUMBER` says what it means and what to do",
            ],
        ),
        PCI,
    ),
    advisory(on_gpus(
        check(
            "gpu.link",
            Layer::Doctor,
            health::link,
            [
                "PCI Express generation and lanes of each GPU now, against what card and slot can, by NVML",
                "a link with fewer lanes still works, and loading a model takes several times as long",
                "reseat the card or its riser; look at the slot's settings in the firmware",
            ],
        ),
        ASKED,
    )),
    advisory(on_gpus(
        check(
            "gpu.thermal",
            Layer::Doctor,
            health::thermal,
            [
                "why each GPU's clocks are lowered at this moment, and its temperature, by NVML",
                "a GPU that is slowed down for heat or power serves at a fraction of its speed and reports no error",
                "look at fans, filters, inlet air, power supplies and the power limit",
            ],
        ),
        ASKED,
    )),
    on_gpus(
        check(
            "gpu.mig",
            Layer::Doctor,
            health::mig,
            [
                "MIG mode of each GPU now and after the next reset, and its MIG devices, against `gpu_ids` of the deployments",
                "an engine that wants whole GPUs fails on divided ones, and the other way round",
                "`nvidia-smi -i N -mig 0` (or 1) and a reset, or other `gpu_ids`",
            ],
        ),
        ASKED,
    ),
    advisory(on_gpus(
        check(
            "gpu.driver-branch",
            Layer::Doctor,
            branch::driver_branch,
            [
                "the loaded driver's version against the profile's, and its branch against NVIDIA's list of branches and their ends",
                "a branch that has ended gets no security updates, and new images ask for newer ones",
                "choose a branch that lasts in `[driver] version`, `bedplate lock`, `bedplate provision`, reboot",
            ],
        ),
        &["gpu.pci", "gpu.nouveau", "gpu.module"],
    )),
];
