//! Faults of GPUs, planted in a host's tree and in what the NVML stand-in says: one at a time and in pairs, the lowest one
//! is blamed. Those of everything else are planted on a real machine: `tests/support/faults`.

use std::{os::unix::fs::symlink, path::Path};

use bedplate::{check, host::facts::Facts};

use super::{
    nvml::EIGHT,
    tree::{host, log, look, node, write},
    *,
};

/// One fault: what it is, the checks that fail or warn for it, what the stand-in says, what is done to the tree.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) names: &'static [&'static str],
    script: &'static str,
    plant: fn(&Path),
    pub(crate) warns: bool,
}

const fn fault(
    name: &'static str,
    names: &'static [&'static str],
    script: &'static str,
    plant: fn(&Path),
) -> Fault {
    Fault { name, names, script, plant, warns: false }
}

const fn warning(name: &'static str, names: &'static [&'static str], script: &'static str) -> Fault {
    Fault { name, names, script, plant: NONE, warns: true }
}

const NONE: fn(&Path) = |_| {};

/// All of them, from the lowest up.
pub(crate) const FAULTS: &[Fault] = &[
    fault("no GPU on PCI", &["gpu.pci"], "", |root| {
        std::fs::remove_dir_all(root.join("sys/bus/pci/devices")).unwrap();
        std::fs::create_dir(root.join("sys/bus/pci/devices")).unwrap();
    }),
    fault("one GPU of eight is not on PCI", &["gpu.pci"], "", |root| {
        std::fs::remove_file(root.join("sys/bus/pci/devices/0000:07:00.0")).unwrap();
    }),
    fault("nouveau has the GPUs", &["gpu.nouveau"], "init 9\n", |root| {
        (0..8).for_each(|gpu| owner(root, gpu, "nouveau"));
    }),
    fault("one GPU is kept for a virtual machine", &["gpu.nouveau"], "", |root| owner(root, 2, "vfio-pci")),
    fault("the driver's module is not loaded", &["gpu.module"], "init 9\n", |root| {
        std::fs::remove_dir_all(root.join("sys/module/nvidia")).unwrap();
    }),
    fault("`/dev/nvidia-uvm` is missing", &["gpu.device-nodes"], "", |root| {
        std::fs::remove_file(root.join("dev/nvidia-uvm")).unwrap();
    }),
    fault("a device node is shut to others", &["gpu.device-nodes"], "", |root| {
        std::fs::remove_file(root.join("dev/nvidia4")).unwrap();
        node(root, "/dev/nvidia4", 0o600, 195, 4);
    }),
    fault("a device node is of another boot", &["gpu.device-nodes"], "", |root| {
        std::fs::remove_file(root.join("dev/nvidia5")).unwrap();
        node(root, "/dev/nvidia5", 0o666, 196, 5);
    }),
    fault("a file stands in place of a device node", &["gpu.device-nodes"], "", |root| {
        std::fs::remove_file(root.join("dev/nvidia6")).unwrap();
        write(root, "/dev/nvidia6", "");
    }),
    fault("the library is of another version than the module", &["gpu.version-match"], "init 18\n", NONE),
    fault("a GPU fell off the bus", &["gpu.count"], "lost 3\n", NONE),
    fault("a GPU falls off the bus while it is asked", &["gpu.count"], "lost-later 6\n", NONE),
    fault("Fabric Manager does not run", &["gpu.fabric-manager"], "fabric 2 0 0\n", switch),
    fault("Fabric Manager is of another version", &["gpu.fabric-manager"], "", |root| {
        switch(root);
        write(root, "/sys/fs/cgroup/system.slice/nvidia-fabricmanager.service/cgroup.procs", "901\n");
        write(
            root,
            "/var/lib/dpkg/status",
            "Package: nvidia-fabricmanager-550\nStatus: install ok installed\nArchitecture: amd64\nVersion: 550.90.07-1\n\
             Maintainer: N <n@example.org>\nDescription: x\n",
        );
    }),
    fault("a row of memory waits for a reset", &["gpu.ecc"], "5.remaps 0 1 1 0\n", NONE),
    fault("a row of memory could not be replaced", &["gpu.ecc"], "4.remaps 0 1 0 1\n", NONE),
    fault("an Xid in the kernel's log", &["gpu.xid"], "", |root| {
        log(
            root,
            "6,0,0,-;Linux version\n3,9,7100000000,-;NVRM: Xid (PCI:0000:06:00): 119, pid=1, Timeout\n",
        );
    }),
    fault(
        "a GPU is divided, and the engine wants it whole",
        &["gpu.mig"],
        "1.mig 1 1\n1.mig-instances 1\n",
        NONE,
    ),
    fault("the CDI specification is of another driver", &["toolkit.cdi-fresh"], "", |root| {
        specification(root, "/dev/nvidia0", "535.261.03");
        write(root, "/usr/lib/x86_64-linux-gnu/libcuda.so.535.261.03", "");
    }),
    fault("the CDI specification names a device that is gone", &["toolkit.cdi-fresh"], "", |root| {
        specification(root, "/dev/nvidia42", "550.163.01");
    }),
    fault("there is no CDI specification", &["toolkit.cdi-fresh"], "", |root| {
        std::fs::remove_file(root.join("etc/cdi/nvidia.yaml")).unwrap();
    }),
    fault("the CDI specification is broken", &["toolkit.cdi-fresh"], "", |root| {
        write(root, "/etc/cdi/nvidia.yaml", "kind: [nvidia.com/gpu\n");
    }),
    warning("persistence mode is off", &["gpu.persistence"], "3.persistence 0\n"),
    warning("a card has half its lanes", &["gpu.link"], "3.link 5 5 8 16\n"),
    warning("a GPU is slowed down for heat", &["gpu.thermal"], "3.slowed 72\n"),
];

/// Gives a GPU to another driver.
fn owner(root: &Path, gpu: u8, driver: &str) {
    let link = root.join(format!("sys/devices/pci0000:00/0000:{gpu:02x}:00.0/driver"));
    std::fs::remove_file(&link).unwrap();
    symlink(format!("../../../bus/pci/drivers/{driver}"), link).unwrap();
}

/// An NVSwitch, and Fabric Manager's unit.
pub(super) fn switch(root: &Path) {
    let place = "/sys/devices/pci0000:00/0000:c1:00.0";
    write(root, &format!("{place}/vendor"), "0x10de");
    write(root, &format!("{place}/class"), "0x068000");
    write(root, &format!("{place}/device"), "0x22a3");
    let entry = root.join("sys/bus/pci/devices/0000:c1:00.0");
    if entry.symlink_metadata().is_err() {
        symlink("../../../devices/pci0000:00/0000:c1:00.0", entry).unwrap();
    }
    write(root, "/usr/lib/systemd/system/nvidia-fabricmanager.service", "[Service]\n");
}

fn specification(root: &Path, device: &str, driver: &str) {
    let library = format!("/usr/lib/x86_64-linux-gnu/libcuda.so.{driver}");
    write(
        root,
        "/etc/cdi/nvidia.yaml",
        &format!(
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    deviceNodes:\n    - path: {device}\n\
             containerEdits:\n  mounts:\n  - hostPath: {library}\n    containerPath: {library}\n    options: [ro, bind]\n"
        ),
    );
}

/// The checks of GPUs, and the one of the second layer that needs no Docker.
fn judged(facts: &Facts) -> Report {
    let ids = check::registry().iter().map(|check| check.id);
    let ids: Vec<&str> = ids.filter(|id| id.starts_with("gpu.") || *id == "toolkit.cdi-fresh").collect();
    let (profile, deployment) = (profile(), deployment());
    let subject = Subject::new("tiny", &profile, None, vec![&deployment]).unwrap();
    check::judge_only(&ids, &subject, facts)
}

/// Plants these, the lowest last: where two write the same, it holds.
async fn planted(faults: &[&Fault]) -> Report {
    let host = host();
    let mut script = EIGHT.to_owned();
    for fault in faults.iter().rev() {
        (fault.plant)(host.path());
        script.push_str(fault.script);
    }
    let (facts, _) = look(host.path(), &script).await;
    judged(&facts)
}

/// What shuts the gate, lowest first.
fn blamed(report: &Report) -> Vec<&str> {
    let cause = |finding: &&Finding| finding.shuts_gate() && finding.outcome != Outcome::Skipped;
    report.findings.iter().filter(cause).map(|finding| finding.id.as_str()).collect()
}

#[tokio::test]
async fn each_alone_is_named_with_its_next_step() {
    assert_eq!(blamed(&planted(&[]).await), [""; 0]);
    for fault in FAULTS {
        let report = planted(&[fault]).await;
        let found = finding(&report, fault.names[0]);
        if fault.warns {
            assert_eq!(found.outcome, Outcome::Warn, "{}: {}", fault.name, found.because);
            assert!(report.opens_gate(), "{}", fault.name);
        } else {
            assert_eq!(blamed(&report), fault.names, "{}: {:#?}", fault.name, report.findings);
            assert_eq!(report.layer_to_blame(), Some(found.layer), "{}", fault.name);
        }
        assert!(found.next.is_some(), "{}", fault.name);
        let behind = report.findings.iter().find(|found| found.ahead.is_some());
        assert_eq!(behind, None, "{} is alone", fault.name);
    }
}

/// Pairs, the lower one first: all, or those of `make test`, in which each fault has its neighbour and some others.
pub(crate) fn pairs(full: bool) -> Vec<[&'static Fault; 2]> {
    let mut pairs = Vec::new();
    for (at, lower) in FAULTS.iter().enumerate() {
        for (further, higher) in FAULTS[at + 1..].iter().enumerate() {
            if full || further % 7 == 0 {
                pairs.push([lower, higher]);
            }
        }
    }
    pairs
}

#[tokio::test]
async fn of_each_pair_the_lowest_is_named() {
    for [lower, higher] in pairs(std::env::var_os("BEDPLATE_FULL").is_some()) {
        let both = format!("{} + {}", lower.name, higher.name);
        let report = planted(&[lower, higher]).await;
        let first = [lower, higher].into_iter().find(|fault| !fault.warns);
        assert_eq!(blamed(&report).first().copied(), first.map(|fault| fault.names[0]), "{both}");
        let layer = first.map(|fault| finding(&report, fault.names[0]).layer);
        assert_eq!(report.layer_to_blame(), layer, "{both}");
    }
}
