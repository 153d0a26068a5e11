//! Scripted machines through the real `nvml-wrapper`, trees on disk and the real checks.

use std::path::Path;

use bedplate::{
    check::report::Weight,
    host::facts::{FabricState, Known, Nvml, Reading},
};

use super::{
    nvml::{EIGHT, machine},
    tree::{host, look, node, write},
    *,
};

/// The GPU checks that shut the gate, lowest first, without those that are skipped.
fn blamed(report: &Report) -> Vec<&str> {
    let gpu = report.findings.iter().filter(|finding| finding.id.starts_with("gpu."));
    gpu.filter(|finding| finding.shuts_gate() && finding.outcome != Outcome::Skipped)
        .map(|finding| finding.id.as_str())
        .collect()
}

#[tokio::test]
async fn each_scripted_machine_is_judged_as_it_is() {
    let host = host();
    let cases: [(&str, &[&str]); 6] = [
        ("eight-h100", &[]),
        ("off-the-bus", &["gpu.count"]),
        ("remap-pending", &["gpu.ecc"]),
        ("mismatch", &["gpu.version-match"]),
        // The deployment wants whole GPUs.
        ("mig", &["gpu.mig"]),
        ("none", &["gpu.count", "gpu.fabric-manager", "gpu.ecc", "gpu.mig"]),
    ];
    for (name, wanted) in cases {
        let (facts, report) = look(host.path(), &machine(name)).await;
        assert_eq!(blamed(&report), wanted, "{name}: {:#?}", report.findings);
        if name == "eight-h100" {
            for finding in report.findings.iter().filter(|finding| finding.id.starts_with("gpu.")) {
                // 550 has ended; idle cards say whether their link is as it should be.
                let passes = if finding.id == "gpu.driver-branch" { Outcome::Warn } else { Outcome::Pass };
                assert_eq!(finding.outcome, passes, "{}: {}", finding.id, finding.because);
            }
            assert_eq!(facts.health.len(), 8);
            let third = facts.health[&3].ok().unwrap();
            assert_eq!(third.address, Reading::Value("0000:03:00.0".to_owned()));
            assert_eq!(third.fabric.value().unwrap().state, FabricState::Completed);
            let nodes = facts.nodes.ok().unwrap();
            assert_eq!((nodes.minors.len(), nodes.nodes.len(), nodes.mode), (8, 11, Some(0o666)));
        }
    }
    let (_, report) = look(host.path(), &machine("remap-pending")).await;
    let ecc = finding(&report, "gpu.ecc");
    assert_eq!(
        ecc.because,
        "GPU 3 waits for a reset to replace a row of memory (1 uncorrected errors since the driver was loaded, 1 ever)"
    );
    assert!(ecc.next.as_deref().unwrap().contains("--gpu-reset -i 3"), "{:?}", ecc.next);
}

#[tokio::test]
async fn advisory_faults_warn_and_open_the_gate() {
    let host = host();
    for (script, id, says) in [
        ("3.persistence 0\n", "gpu.persistence", "persistence mode of GPU 3 is off"),
        ("3.link 5 5 8 16\n", "gpu.link", "the link of GPU 3 has 8 of 16 lanes"),
        ("3.slowed 72\n", "gpu.thermal", "GPU 3 is slowed down for heat at 38 °C"),
    ] {
        let (_, report) = look(host.path(), &format!("{EIGHT}{script}")).await;
        let found = finding(&report, id);
        assert_eq!((found.outcome, found.weight), (Outcome::Warn, Weight::Advisory), "{}", found.because);
        assert!(found.because.contains(says), "{}", found.because);
        assert!(blamed(&report).is_empty());
    }
}

#[tokio::test]
async fn a_gpu_that_hangs_makes_only_what_is_said_of_it_unknown() {
    let host = host();
    let (facts, report) = look(host.path(), &format!("{EIGHT}3.temperature hang\n")).await;
    assert!(matches!(&facts.nvml, Known::Ok(Nvml::Answers(gpus)) if gpus.devices.len() == 8));
    let why = facts.health[&3].as_result().unwrap_err();
    assert!(why.contains("GPU 3, did not answer within"), "{why}");
    assert_eq!(facts.health.values().filter(|health| health.ok().is_some()).count(), 7);
    assert_eq!(finding(&report, "gpu.count").outcome, Outcome::Pass);
    let ecc = finding(&report, "gpu.ecc");
    assert_eq!(ecc.outcome, Outcome::Unknown);
    assert!(ecc.because.contains("GPU 3"), "{}", ecc.because);
}

#[tokio::test]
async fn values_that_nvml_does_not_give_make_checks_unknown_or_not_applicable() {
    let host = host();
    for (word, outcome) in [("error 999", Outcome::Unknown), ("unsupported", Outcome::NotApplicable)] {
        let keys = ["persistence", "ecc", "link", "slowed", "fabric"];
        let script: String = keys.iter().map(|key| format!("{key} {word}\n")).collect();
        let (_, report) = look(host.path(), &format!("{EIGHT}{script}")).await;
        for id in ["gpu.persistence", "gpu.ecc", "gpu.link", "gpu.thermal", "gpu.fabric-manager"] {
            let finding = finding(&report, id);
            assert_eq!(finding.outcome, outcome, "{id} ({word}): {}", finding.because);
        }
    }
}

#[tokio::test]
async fn fabric_manager_is_found_with_its_version() {
    let host = host();
    let root = host.path();
    super::faults::switch(root);
    write(root, "/sys/fs/cgroup/system.slice/nvidia-fabricmanager.service/cgroup.procs", "901\n");
    let status = |version: &str| {
        let text = format!(
            "Package: nvidia-fabricmanager-550\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}-1\n\
             Maintainer: N <n@example.org>\nDescription: x\n"
        );
        write(root, "/var/lib/dpkg/status", &text);
    };
    status("550.163.01");
    let (facts, report) = look(root, EIGHT).await;
    let manager = facts.fabric.ok().unwrap();
    assert_eq!((manager.switches.len(), manager.process), (1, Some(901)));
    assert_eq!(manager.version.as_deref(), Some("550.163.01"));
    assert_eq!(finding(&report, "gpu.fabric-manager").outcome, Outcome::Pass);
    status("550.90.07");
    let (_, report) = look(root, EIGHT).await;
    let found = finding(&report, "gpu.fabric-manager");
    assert_eq!(found.because, "Fabric Manager is 550.90.07, the driver 550.163.01: they must be the same");
}

#[tokio::test]
async fn nodes_of_another_boot_or_with_a_narrow_mode_are_seen() {
    for (path, mode, major, says) in [
        ("dev/nvidia-uvm", 0o666, 237, "has the major number 237, the driver's is 238"),
        ("dev/nvidia4", 0o600, 195, "has mode 0600, the driver wants 0666"),
    ] {
        let host = host();
        std::fs::remove_file(host.path().join(path)).unwrap();
        node(host.path(), path, mode, major, 4);
        let (_, report) = look(host.path(), EIGHT).await;
        let nodes = finding(&report, "gpu.device-nodes");
        assert_eq!(nodes.outcome, Outcome::Fail);
        assert!(nodes.because.contains(says), "{}", nodes.because);
    }
    let host = host();
    std::fs::remove_file(host.path().join("dev/nvidia4")).unwrap();
    write(host.path(), "/dev/nvidia4", "");
    let (_, report) = look(host.path(), EIGHT).await;
    assert!(finding(&report, "gpu.device-nodes").because.contains("`/dev/nvidia4` is no device"));
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_unknown_and_says_why() {
    let host = host();
    std::fs::remove_file(host.path().join("dev/kmsg")).unwrap();
    let (_, report) = look(host.path(), EIGHT).await;
    let xid = finding(&report, "gpu.xid");
    assert_eq!(xid.outcome, Outcome::Unknown);
    assert!(xid.because.contains("there is no `/dev/kmsg`"), "{}", xid.because);
    // This machine's own ends where it ends: reading it does not wait for what comes.
    let root = bedplate::system::files::Root::open(Path::new("/")).unwrap();
    if let Ok(Some(records)) = bedplate::system::kernel_log::read(&root) {
        assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    }
}
