//! Cases of the checks of GPUs: a failure, an unknown, what does not apply, and chains that have one cause.

#![allow(clippy::semicolon_if_nothing_returned)]

use super::{
    facts::*,
    table::{Case, Change},
    *,
};
use crate::{check::named_xid, host::facts::*, profile::deployment::GpuIds};

use Outcome::{Fail, NotApplicable, Pass, Skipped, Unknown, Warn};

/// Changes how GPU 3 is.
pub(super) fn third(w: &mut World, change: impl FnOnce(&mut Health)) {
    if let Some(Known::Ok(health)) = w.facts.health.get_mut(&3) {
        change(health);
    }
}

/// Changes how each GPU is.
fn all(w: &mut World, change: impl Fn(&mut Health)) {
    for health in w.facts.health.values_mut() {
        if let Known::Ok(health) = health {
            change(health);
        }
    }
}

pub(super) fn nodes_of(w: &mut World) -> &mut DeviceNodes {
    let Known::Ok(nodes) = &mut w.facts.nodes else { panic!("no nodes") };
    nodes
}

pub(super) fn manager(w: &mut World) -> &mut FabricManager {
    let Known::Ok(manager) = &mut w.facts.fabric else { panic!("no manager") };
    manager
}

fn bound(w: &mut World, driver: &str) {
    let Known::Ok(devices) = &mut w.facts.pci else { panic!("no devices") };
    devices[3].driver = Some(driver.to_owned());
}

pub(super) fn load(w: &mut World, version: &str) {
    let Known::Ok(module) = &mut w.facts.module else { panic!("no module") };
    module.loaded = Some(version.to_owned());
}

pub(super) fn logged(w: &mut World, code: u32, ago: u64, says: &str) {
    let Known::Ok(log) = &mut w.facts.kernel_log else { panic!("no log") };
    log.xids.push(Xid {
        code,
        switch: code > 10_000,
        address: "0000:03:00".to_owned(),
        count: 2,
        ago,
        says: says.to_owned(),
    });
}

pub(super) fn fabric_of(w: &mut World, state: FabricState, status: Option<&str>, complaint: Option<&str>) {
    third(w, |gpu| {
        gpu.fabric = Reading::Value(Fabric {
            state,
            status: status.map(str::to_owned),
            complaints: complaint.map(str::to_owned).into_iter().collect(),
        });
    });
}

fn mode(now: bool, next: bool) -> Reading<Mode> {
    Reading::Value(Mode { now, next })
}

fn remaps(pending: bool, failed: bool) -> Reading<Remaps> {
    Reading::Value(Remaps { corrected: 1, uncorrected: 1, pending, failed })
}

fn errors(recent: u64) -> Reading<Errors> {
    Reading::Value(Errors { recent, ever: 5 })
}

fn gpu_ids(w: &mut World, ids: &[&str]) {
    w.deployments[0].gpu_ids = GpuIds::List(ids.iter().map(|id| (*id).to_owned()).collect());
}

/// Every GPU divided in two.
fn divided(w: &mut World) {
    all(w, |gpu| (gpu.mig, gpu.instances) = (mode(true, true), Reading::Value(2)));
}

const REMAP: &str = "GPU 3 waits for a reset to replace a row of memory (1 uncorrected errors";

pub(super) const CASES: &[Case] = &[
    Case("gpu.nouveau", Fail, "belongs to `nouveau`", |w| bound(w, "nouveau")),
    Case("gpu.nouveau", Fail, "kept for a virtual machine", |w| bound(w, "vfio-pci")),
    Case("gpu.nouveau", Unknown, "no sysfs", |w| w.facts.pci = Known::unknown("no sysfs")),
    Case("gpu.nouveau", NotApplicable, "no NVIDIA device", |w| w.facts.pci = Known::Ok(Vec::new())),
    Case("gpu.device-nodes", Fail, "`/dev/nvidia-uvm` is not there", |w| {
        nodes_of(w).nodes.remove("/dev/nvidia-uvm");
    }),
    Case("gpu.device-nodes", Fail, "`/dev/nvidia7` is not there", |w| {
        nodes_of(w).nodes.remove("/dev/nvidia7");
    }),
    Case("gpu.device-nodes", Fail, "is no device", |w| {
        nodes_of(w).nodes.get_mut("/dev/nvidia7").unwrap().number = None;
    }),
    Case("gpu.device-nodes", Fail, "from another boot", |w| {
        nodes_of(w).nodes.insert("/dev/nvidia-uvm".into(), node(510, 0));
    }),
    Case("gpu.device-nodes", Fail, "mode 0600, the driver wants 0666", |w| {
        nodes_of(w).nodes.get_mut("/dev/nvidiactl").unwrap().mode = 0o600;
    }),
    Case("gpu.device-nodes", Pass, "", |w| {
        nodes_of(w).mode = Some(0o660);
        nodes_of(w).nodes.values_mut().for_each(|node| node.mode = 0o660);
    }),
    Case("gpu.device-nodes", Fail, "`/dev/nvidia-caps` is empty", divided),
    Case("gpu.device-nodes", Pass, "", |w| {
        divided(w);
        nodes_of(w).nodes.insert("/dev/nvidia-caps/nvidia-cap1".into(), node(241, 1));
    }),
    Case("gpu.device-nodes", Unknown, "names no GPU", |w| nodes_of(w).minors.clear()),
    Case("gpu.device-nodes", Unknown, "`/proc/devices` does not say", |w| nodes_of(w).majors.clear()),
    Case("gpu.device-nodes", Unknown, "no /dev", |w| w.facts.nodes = Known::unknown("no /dev")),
    Case("gpu.fabric-manager", Fail, "is not installed", |w| manager(w).installed = false),
    Case("gpu.fabric-manager", Fail, "does not run", |w| manager(w).process = None),
    Case("gpu.fabric-manager", Fail, "they must be the same", |w| {
        manager(w).version = Some("580.95.05".into());
    }),
    Case("gpu.fabric-manager", Fail, "GPU 3 has not begun to join", |w| {
        fabric_of(w, FabricState::NotStarted, None, None);
    }),
    Case("gpu.fabric-manager", Fail, "GPU 3 is still joining", |w| {
        fabric_of(w, FabricState::InProgress, None, None);
    }),
    Case("gpu.fabric-manager", Fail, "could not join the fabric: an internal error", |w| {
        fabric_of(w, FabricState::Completed, Some("an internal error"), None);
    }),
    Case("gpu.fabric-manager", Fail, "and its bandwidth is degraded", |w| {
        fabric_of(w, FabricState::Completed, None, Some("its bandwidth is degraded"));
    }),
    // Switches of the machine that holds this one: the service is there.
    Case("gpu.fabric-manager", Pass, "", |w| *manager(w) = FabricManager::default()),
    // Before Hopper a GPU says nothing of the fabric: the service decides.
    Case("gpu.fabric-manager", Pass, "", |w| all(w, |gpu| gpu.fabric = Reading::NotSupported)),
    Case("gpu.fabric-manager", NotApplicable, "no NVSwitch", |w| {
        *manager(w) = FabricManager::default();
        all(w, |gpu| gpu.fabric = Reading::NotSupported);
    }),
    Case("gpu.fabric-manager", Unknown, "does not know its version", |w| manager(w).version = None),
    Case("gpu.fabric-manager", Unknown, "fabric state of GPU 3: hung", |w| {
        third(w, |gpu| gpu.fabric = Reading::unknown("hung"));
    }),
    Case("gpu.fabric-manager", Unknown, "no sysfs", |w| w.facts.fabric = Known::unknown("no sysfs")),
    Case("gpu.persistence", Warn, "persistence mode of GPU 3 is off", |w| {
        third(w, |gpu| gpu.persistence = Reading::Value(false));
    }),
    Case("gpu.persistence", Unknown, "GPU 3: hung", |w| {
        w.facts.health.insert(3, Known::unknown("hung"));
    }),
    Case("gpu.persistence", NotApplicable, "", |w| all(w, |gpu| gpu.persistence = Reading::NotSupported)),
    Case("gpu.persistence", Pass, "", |w| third(w, |gpu| gpu.persistence = Reading::NotSupported)),
    Case("gpu.ecc", Fail, REMAP, |w| {
        third(w, |gpu| (gpu.remaps, gpu.uncorrected) = (remaps(true, false), errors(1)));
    }),
    Case("gpu.ecc", Fail, "no spare one is left", |w| third(w, |gpu| gpu.remaps = remaps(true, true))),
    Case("gpu.ecc", Fail, "waits for a reboot to take a page", |w| {
        third(w, |gpu| {
            gpu.remaps = Reading::NotSupported;
            gpu.retired = Reading::Value(Retired { single: 0, double: 1, pending: true });
        });
    }),
    Case("gpu.ecc", Fail, "GPU 3 had memory errors that ECC could not correct (2", |w| {
        third(w, |gpu| gpu.uncorrected = errors(2));
    }),
    Case("gpu.ecc", Pass, "", |w| {
        third(w, |gpu| (gpu.remaps, gpu.uncorrected) = (remaps(false, false), errors(0)));
    }),
    Case("gpu.ecc", Warn, "ECC of GPU 3 is off", |w| {
        third(w, |gpu| (gpu.ecc, gpu.uncorrected) = (mode(false, false), Reading::NotSupported));
    }),
    Case("gpu.ecc", Warn, "goes off with the next reset", |w| third(w, |gpu| gpu.ecc = mode(true, false))),
    Case("gpu.ecc", Unknown, "NVML gives no count", |w| {
        third(w, |gpu| gpu.uncorrected = Reading::NotSupported);
    }),
    Case("gpu.ecc", Unknown, "remapped rows of GPU 3: hung", |w| {
        third(w, |gpu| gpu.remaps = Reading::unknown("hung"));
    }),
    Case("gpu.ecc", Unknown, "ECC of GPU 3: no permission", |w| {
        third(w, |gpu| gpu.ecc = Reading::unknown("no permission"));
    }),
    Case("gpu.ecc", Unknown, "nothing was looked at", |w| w.facts.health.clear()),
    Case("gpu.ecc", Unknown, "NVML reaches no GPU", |w| w.facts.nvml = Known::Ok(Nvml::Answers(gpus(0)))),
    Case("gpu.ecc", NotApplicable, "no GPU has ECC", |w| all(w, |gpu| gpu.ecc = Reading::NotSupported)),
    Case("gpu.xid", Fail, "Xid 79 on 0000:03:00, 2 times, 60 s ago (hardware)", |w| logged(w, 79, 60, "x")),
    Case("gpu.xid", Fail, "(driver or hardware)", |w| logged(w, 119, 60, "Timeout")),
    Case("gpu.xid", Fail, "(Node Reboot Required)", |w| {
        logged(w, 154, 60, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)");
    }),
    Case("gpu.xid", Pass, "", |w| {
        logged(w, 154, 60, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)");
    }),
    Case("gpu.xid", Warn, "a program touched GPU memory that it does not have", |w| logged(w, 31, 60, "x")),
    Case("gpu.xid", Pass, "of the last 24 h", |w| logged(w, 63, 60, "Row Remapper")),
    Case("gpu.xid", Pass, "", |w| logged(w, 79, 25 * 3600, "x")),
    Case("gpu.xid", Fail, "Xid 79", |w| {
        w.profile.checks.xid_hours = Some(48);
        logged(w, 79, 25 * 3600, "x");
    }),
    Case("gpu.xid", Unknown, "Xid 999 on 0000:03:00", |w| logged(w, 999, 60, "new")),
    Case("gpu.xid", Fail, "SXid 19084", |w| logged(w, 19_084, 60, "Fatal, Link 53")),
    Case("gpu.xid", Pass, "", |w| logged(w, 12_028, 60, "Non-fatal, Link 53")),
    Case("gpu.xid", Unknown, "SXid 12028", |w| logged(w, 12_028, 60, "Severity 0")),
    Case("gpu.xid", Unknown, "permission", |w| w.facts.kernel_log = Known::unknown("permission")),
    Case("gpu.xid", Unknown, "is empty", |w| w.facts.kernel_log = Known::Ok(KernelLog::default())),
    Case("gpu.xid", Pass, "of the last 60 min", |w| {
        let log = KernelLog { reach: 3600, whole: false, xids: Vec::new(), kills: Vec::new() };
        w.facts.kernel_log = Known::Ok(log);
    }),
    Case("gpu.link", Warn, "the link of GPU 3 has 8 of 16 lanes", |w| {
        third(w, |gpu| gpu.link_width = Reading::Value(Of { now: 8, most: 16 }));
    }),
    Case("gpu.link", Warn, "runs at generation 3 of 5", |w| {
        third(w, |gpu| gpu.link_generation = Reading::Value(Of { now: 3, most: 5 }));
    }),
    Case("gpu.link", Unknown, "the GPU is idle", |w| {
        third(w, |gpu| {
            gpu.link_generation = Reading::Value(Of { now: 1, most: 5 });
            gpu.clocks = Reading::Value([Slowed::Idle].into());
        });
    }),
    Case("gpu.link", Unknown, "link width of GPU 3: hung", |w| {
        third(w, |gpu| gpu.link_width = Reading::unknown("hung"));
    }),
    Case("gpu.link", NotApplicable, "", |w| {
        all(w, |gpu| (gpu.link_width, gpu.link_generation) = (Reading::NotSupported, Reading::NotSupported));
    }),
    Case("gpu.thermal", Warn, "GPU 3 is slowed down for heat at 38 °C, by the hardware", |w| {
        third(w, |gpu| gpu.clocks = Reading::Value([Slowed::Hardware, Slowed::HeatByHardware].into()));
    }),
    Case("gpu.thermal", Warn, "by the driver", |w| {
        third(w, |gpu| gpu.clocks = Reading::Value([Slowed::HeatByDriver].into()));
    }),
    Case("gpu.thermal", Warn, "the power supply asks for it", |w| {
        third(w, |gpu| gpu.clocks = Reading::Value([Slowed::Hardware, Slowed::PowerBrake].into()));
    }),
    Case("gpu.thermal", Warn, "heat, power supply or a spike", |w| {
        third(w, |gpu| gpu.clocks = Reading::Value([Slowed::Hardware].into()));
    }),
    Case("gpu.thermal", Warn, "by its power limit", |w| {
        third(w, |gpu| gpu.clocks = Reading::Value([Slowed::PowerLimit].into()));
    }),
    Case("gpu.thermal", Pass, "", |w| {
        third(w, |gpu| gpu.clocks = Reading::Value([Slowed::Idle, Slowed::Setting].into()));
    }),
    Case("gpu.thermal", Unknown, "clocks of GPU 3: hung", |w| {
        third(w, |gpu| gpu.clocks = Reading::unknown("hung"));
    }),
    Case("gpu.thermal", NotApplicable, "", |w| all(w, |gpu| gpu.clocks = Reading::NotSupported)),
    Case("gpu.mig", Fail, "wants GPU 0 whole, and its MIG mode is on", divided),
    Case("gpu.mig", Pass, "", |w| {
        // Of the four that the deployment has none is divided.
        w.facts.health.insert(7, Known::Ok(Health { mig: mode(true, true), ..health(7) }));
    }),
    Case("gpu.mig", Fail, "is off, and on after the next reset", |w| {
        third(w, |gpu| gpu.mig = mode(false, true));
    }),
    Case("gpu.mig", Fail, "wants a MIG device of GPU 3, and its MIG mode is off", |w| gpu_ids(w, &["3:0"])),
    Case("gpu.mig", Fail, "wants MIG device 2 of GPU 3, which has 2", |w| {
        divided(w);
        gpu_ids(w, &["3:2"]);
    }),
    Case("gpu.mig", Pass, "", |w| {
        divided(w);
        gpu_ids(w, &["3:1"]);
    }),
    Case("gpu.mig", Fail, "wants MIG devices, and there are none", |w| gpu_ids(w, &["MIG-0a"])),
    Case("gpu.mig", Pass, "", |w| {
        divided(w);
        gpu_ids(w, &["MIG-0a"]);
    }),
    Case("gpu.mig", Fail, "wants GPU 7 whole", |w| {
        w.facts.health.insert(7, Known::Ok(Health { mig: mode(true, true), ..health(7) }));
        gpu_ids(w, &["GPU-00000007"]);
    }),
    // A card that cannot be divided is whole.
    Case("gpu.mig", Pass, "", |w| all(w, |gpu| gpu.mig = Reading::NotSupported)),
    Case("gpu.mig", Unknown, "MIG mode of GPU 3: hung", |w| {
        third(w, |gpu| gpu.mig = Reading::unknown("hung"))
    }),
    Case("gpu.mig", NotApplicable, "no deployment", |w| w.deployments.clear()),
    Case("gpu.driver-branch", Warn, "driver 580.95.05 is loaded, the profile says 580.159.04", |w| {
        load(w, "580.95.05");
    }),
    Case("gpu.driver-branch", Warn, "branch 535 of the driver ended in 2026-06", |w| {
        w.profile.driver.version = Some("535".into());
        load(w, "535.261.03");
    }),
    Case("gpu.driver-branch", Pass, "", |w| {
        w.profile.driver.version = Some("535".into());
        load(w, "535.261.03");
        w.facts.at = Known::Ok("2026-06-30T00:00:00Z".parse().unwrap());
    }),
    Case("gpu.driver-branch", Warn, "branch 550 of the driver has ended", |w| {
        w.profile.driver.version = None;
        load(w, "550.163.01");
    }),
    Case("gpu.driver-branch", Unknown, "branch 700 is not in the list", |w| load(w, "700.1.02")),
    Case("gpu.driver-branch", Unknown, "today's date", |w| w.facts.at = Known::default()),
    Case("gpu.driver-branch", Unknown, "no sysfs", |w| w.facts.module = Known::unknown("no sysfs")),
];

/// Faults, and the check that must be named first.
pub(super) const FAULTS: &[(&str, Change)] = &[
    ("gpu.pci", |w| w.facts.pci = Known::Ok(pci(7))),
    ("gpu.nouveau", |w| {
        bound(w, "nouveau");
        w.facts.module = Known::Ok(Module::default());
        w.facts.nodes = Known::Ok(DeviceNodes::default());
        w.facts.nvml = Known::Ok(Nvml::DriverNotLoaded);
        w.facts.health.clear();
    }),
    ("gpu.module", |w| {
        w.facts.module = Known::Ok(Module::default());
        w.facts.nodes = Known::Ok(DeviceNodes::default());
        w.facts.nvml = Known::Ok(Nvml::DriverNotLoaded);
        w.facts.health.clear();
    }),
    ("gpu.device-nodes", |w| {
        if let Known::Ok(nodes) = &mut w.facts.nodes {
            nodes.nodes.remove("/dev/nvidiactl");
        }
        w.facts.nvml = Known::Ok(Nvml::DriverNotLoaded);
        w.facts.health.clear();
    }),
    ("gpu.version-match", |w| {
        w.facts.nvml = Known::Ok(Nvml::VersionMismatch);
        w.facts.health.clear();
    }),
    ("gpu.count", |w| {
        if let Known::Ok(Nvml::Answers(gpus)) = &mut w.facts.nvml {
            gpus.devices.retain(|gpu| gpu.index != 5);
        }
        w.facts.health.remove(&5);
    }),
    ("gpu.fabric-manager", |w| {
        if let Known::Ok(manager) = &mut w.facts.fabric {
            manager.process = None;
        }
        all(w, |gpu| {
            gpu.fabric = Reading::Value(Fabric {
                state: FabricState::NotStarted,
                status: None,
                complaints: Vec::new(),
            })
        });
    }),
    ("gpu.ecc", |w| third(w, |gpu| gpu.remaps = remaps(true, false))),
    ("gpu.xid", |w| {
        if let Known::Ok(_) = w.facts.kernel_log {
            logged(w, 79, 60, "GPU has fallen off the bus.");
        }
    }),
    ("gpu.mig", divided),
];

/// What is not skipped and shuts the gate, lowest first.
fn blamed(world: &World) -> Vec<String> {
    let report = world.report(&[Layer::Doctor, Layer::Toolkit]);
    let bad = report.findings.iter().filter(|f| f.shuts_gate() && f.outcome != Skipped);
    bad.map(|finding| finding.id.clone()).collect()
}

#[test]
fn a_chain_of_failures_has_one_cause() {
    for (id, fault) in FAULTS {
        let mut broken = world();
        // MIG is asked of the node's capabilities, too.
        nodes_of(&mut broken).nodes.insert("/dev/nvidia-caps/nvidia-cap1".into(), node(241, 1));
        fault(&mut broken);
        // Whether a deployment fits is judged by what NVML sees; it is no GPU check.
        broken.deployments.truncate(usize::from(*id == "gpu.mig"));
        assert_eq!(blamed(&broken), [*id], "{id}");
    }
}

#[test]
fn of_two_faults_the_lower_one_is_named_first() {
    for (at, (lower, one)) in FAULTS.iter().enumerate() {
        for (higher, other) in &FAULTS[at + 1..] {
            let mut broken = world();
            nodes_of(&mut broken).nodes.insert("/dev/nvidia-caps/nvidia-cap1".into(), node(241, 1));
            other(&mut broken);
            one(&mut broken);
            assert_eq!(blamed(&broken).first().map(String::as_str), Some(*lower), "{lower} and {higher}");
        }
    }
}

#[test]
fn a_lost_gpu_is_shown_with_what_the_driver_said() {
    let mut broken = world();
    logged(&mut broken, 79, 60, "GPU has fallen off the bus.");
    broken.facts.nvml = Known::Ok(Nvml::Answers(gpus(7)));
    let count = broken.finding("gpu.count");
    assert_eq!(count.outcome, Fail);
    let line = "kernel log: Xid 79 on 0000:03:00: GPU has fallen off the bus.";
    assert!(count.evidence.iter().any(|seen| seen == line), "{:?}", count.evidence);
    // The seven others are looked at all the same.
    assert_eq!(broken.finding("gpu.ecc").outcome, Pass);
}

#[test]
fn an_xid_of_a_finding_can_be_explained() {
    let mut broken = world();
    logged(&mut broken, 48, 60, "DBE");
    let finding = broken.finding("gpu.xid");
    let (code, meaning) = named_xid("xid-48").unwrap().unwrap();
    assert_eq!(code, 48);
    assert!(finding.because.contains(&meaning.means), "{}", finding.because);
    assert_eq!(finding.next.as_deref(), Some(meaning.action.step()));
}
