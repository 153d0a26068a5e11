//! Facts of the machine the tests run on: what is judged must be true of it.

use std::{path::Path, sync::Arc, time::Duration};

use bedplate::{
    host::facts::{Sources, gather},
    system::files::Root,
};

use super::*;

fn sources() -> Sources {
    let mut sources = Sources::of(Arc::new(Root::open(Path::new("/")).unwrap()));
    sources.network_limit = Duration::from_secs(2);
    sources
}

fn gpus_here() -> usize {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    devices
        .filter(|device| {
            let read = |name| std::fs::read_to_string(device.path().join(name)).unwrap_or_default();
            read("vendor").trim() == "0x10de" && read("class").starts_with("0x03")
        })
        .count()
}

#[tokio::test]
async fn what_is_said_of_this_machine_is_true() {
    let (profile, mut sources) = (profile(), sources());
    let directory = tempfile::tempdir().unwrap();
    sources.docker_socket = directory.path().join("docker.sock").display().to_string();
    let subject = Subject::new("host", &profile, None, Vec::new()).unwrap();
    let facts = gather(&subject.wanted, &sources).await;
    let report = judge(&[Layer::Doctor, Layer::Toolkit], &subject, &facts);

    let kernel = facts.kernel.ok().unwrap();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(kernel.release, release.trim());
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(facts.boot_id.ok().map(String::as_str), Some(boot.trim()));
    assert!(facts.memory.ok().unwrap().total > 0);

    let os = std::fs::read_to_string("/etc/os-release").unwrap();
    let trixie = os.contains("VERSION_CODENAME=trixie");
    assert_eq!(finding(&report, "host.os").outcome == Outcome::Pass, trixie && kernel.machine == "x86_64");

    let here = gpus_here();
    let pci = finding(&report, "gpu.pci");
    if here < 8 {
        assert_eq!(
            (pci.outcome, pci.because.as_str()),
            (Outcome::Fail, &*format!("{here} of 8 NVIDIA devices on PCI"))
        );
        for id in [
            "gpu.module",
            "gpu.version-match",
            "gpu.count",
            "docker.daemon",
            "toolkit.wiring",
            "toolkit.cdi-fresh",
        ] {
            assert_eq!(finding(&report, id).outcome, Outcome::Skipped, "{id}");
        }
    }
    // The second layer by itself: no daemon listens on that socket.
    let toolkit = judge(&[Layer::Toolkit], &subject, &facts);
    assert_eq!(finding(&toolkit, "docker.daemon").outcome, Outcome::Fail);
    assert!(finding(&toolkit, "docker.daemon").next.is_some());
    assert_eq!(finding(&toolkit, "toolkit.wiring").outcome, Outcome::Skipped);
    assert!(!report.opens_gate());
}

#[tokio::test]
async fn a_taken_port_is_seen_with_its_process() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (profile, sources) = (profile(), sources());
    let mut deployment = deployment();
    deployment.port = port;
    let mut subject = Subject::new("tiny", &profile, None, vec![&deployment]).unwrap();
    // Nothing but the port is of interest here, least of all the network.
    subject.wanted.hub = "http://127.0.0.1:1".to_owned();
    let facts = gather(&subject.wanted, &sources).await;
    let report = judge(&[Layer::Doctor], &subject, &facts);
    let ports = finding(&report, "host.ports");
    assert_eq!(ports.outcome, Outcome::Fail);
    let process = format!("(pid {})", std::process::id());
    assert!(ports.because.contains(&process), "{} lacks {process}", ports.because);
    drop(listener);
    let facts = gather(&subject.wanted, &sources).await;
    let report = judge(&[Layer::Doctor], &subject, &facts);
    assert_eq!(finding(&report, "host.ports").outcome, Outcome::Pass);
}
