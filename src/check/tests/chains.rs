//! A chain of failures is one cause with its consequences.

use super::{
    facts::*,
    gpu::{FAULTS, load, logged, nodes_of},
    *,
};
use crate::{
    check::diagnosis::{Chain, Repair, chains, lines},
    host::facts::*,
};

const ALL: [Layer; 4] = [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up];

fn of(world: &World) -> Vec<Chain> {
    chains(&world.report(&ALL))
}

fn ids(chain: &Chain) -> Vec<&str> {
    chain.consequences.iter().map(|one| one.id.as_str()).collect()
}

#[test]
fn a_healthy_host_has_no_cause() {
    assert_eq!(of(&world()), []);
    assert_eq!(of(&without_gpus()), []);
    assert!(lines(&[]).is_empty());
}

#[test]
fn each_fault_is_one_cause_and_the_rest_follows() {
    for (id, fault) in FAULTS {
        let mut broken = world();
        nodes_of(&mut broken).nodes.insert("/dev/nvidia-caps/nvidia-cap1".into(), node(241, 1));
        fault(&mut broken);
        let report = broken.report(&ALL);
        let found = chains(&report);
        // A GPU that fell off, or MIG that is on, is another fault of a deployment that wants it whole.
        let causes: Vec<&str> = found.iter().map(|chain| chain.id.as_str()).collect();
        assert_eq!(causes, [*id], "{id}");
        let [chain] = found.as_slice() else { panic!("{id}") };
        // Whatever shuts the gate, or was skipped, is there once.
        let bad = report.findings.iter().filter(|f| f.shuts_gate() || f.outcome == Outcome::Skipped);
        let bad: Vec<&str> = bad.map(|finding| finding.id.as_str()).filter(|other| other != id).collect();
        assert_eq!(ids(chain), bad, "{id}");
        assert_eq!(report.layer_to_blame(), Some(chain.layer), "{id}");
    }
}

#[test]
fn what_cannot_be_looked_at_follows_from_a_silent_driver() {
    let mut broken = world();
    broken.facts.nvml = Known::Ok(Nvml::VersionMismatch);
    broken.facts.health.clear();
    let found = of(&broken);
    let [chain] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((chain.id.as_str(), chain.repair), ("gpu.version-match", Some(Repair::Reboot)));
    assert!(chain.next.as_ref().unwrap().contains("reboot"));
    for id in ["gpu.count", "gpu.ecc", "deploy.fit", "docker.daemon", "toolkit.wiring", "up.started"] {
        assert!(ids(chain).contains(&id), "{id}: {:?}", ids(chain));
    }
    let fit = chain.consequences.iter().find(|one| one.id == "deploy.fit").unwrap();
    assert_eq!((fit.outcome, fit.layer), (Outcome::Unknown, Layer::Doctor));
    let line = lines(&found).concat();
    let (follows, waits) = line.split_once("; skipped: ").unwrap();
    assert!(follows.starts_with("gpu.version-match failed, and so: "), "{line}");
    assert!(follows.contains("deploy.fit"), "{line}");
    assert!(waits.starts_with("gpu.* (") && waits.contains("toolkit.* ("), "{line}");
    let value = serde_json::to_value(&found).unwrap();
    assert_eq!(value[0]["outcome"], "fail");
    assert_eq!(value[0]["repair"], "reboot");
    assert_eq!(value[0]["consequences"][0]["id"], "gpu.count");
}

#[test]
fn two_faults_are_two_causes_and_what_follows_stands_under_its_own() {
    let mut broken = world();
    broken.facts.nvml = Known::Ok(Nvml::VersionMismatch);
    broken.facts.memory = Known::Ok(Memory { total: GIB, available: GIB });
    let found = of(&broken);
    let causes: Vec<&str> = found.iter().map(|chain| chain.id.as_str()).collect();
    assert_eq!(causes, ["host.memory", "gpu.version-match"]);
    // Layers above are skipped for the first; what NVML does not tell is the other's.
    assert!(ids(&found[0]).contains(&"docker.daemon") && !ids(&found[0]).contains(&"gpu.count"));
    assert!(ids(&found[1]).contains(&"gpu.count") && ids(&found[1]).contains(&"deploy.fit"));
    // A fit that fails of itself is a cause.
    broken.facts.nvml = Known::Ok(Nvml::Answers(gpus(8)));
    broken.deployments[0].tensor_parallel = 3;
    let causes: Vec<String> = of(&broken).into_iter().map(|chain| chain.id).collect();
    assert_eq!(causes, ["host.memory", "deploy.fit"]);
}

#[test]
fn failures_that_are_known_to_follow_are_no_causes() {
    // Another kernel runs, and its module was never built.
    let mut broken = world();
    if let Known::Ok(kernel) = &mut broken.facts.kernel {
        kernel.release = "6.1.0-9-amd64".to_owned();
    }
    broken.facts.module =
        Known::Ok(Module { other_kernels: vec!["6.12.57+deb13-amd64".to_owned()], ..Module::default() });
    broken.facts.nvml = Known::Ok(Nvml::DriverNotLoaded);
    let found = of(&broken);
    let [chain] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((chain.id.as_str(), chain.repair), ("host.kernel", Some(Repair::Reboot)));
    assert!(ids(chain).contains(&"gpu.module") && ids(chain).contains(&"deploy.fit"), "{:?}", ids(chain));

    // A GPU fell off the bus, and said so.
    let mut broken = world();
    logged(&mut broken, 79, 60, "GPU has fallen off the bus.");
    broken.facts.nvml = Known::Ok(Nvml::Answers(gpus(7)));
    let found = of(&broken);
    let [chain] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(chain.id, "gpu.count");
    assert!(ids(chain).contains(&"gpu.xid"));
    // Another Xid is another matter.
    let mut broken = world();
    logged(&mut broken, 48, 60, "DBE");
    broken.facts.nvml = Known::Ok(Nvml::Answers(gpus(7)));
    let causes: Vec<String> = of(&broken).into_iter().map(|chain| chain.id).collect();
    assert_eq!(causes, ["gpu.count", "gpu.xid"]);
}

#[test]
fn what_is_accepted_or_advisory_is_no_cause() {
    let mut broken = world();
    load(&mut broken, "580.95.05");
    broken.facts.user_space = Known::Ok(Some("580.95.05".to_owned()));
    broken.profile.checks.accept.insert("host.memory".to_owned(), "a small test host".to_owned());
    broken.facts.memory = Known::Ok(Memory { total: GIB, available: GIB });
    let causes: Vec<String> = of(&broken).into_iter().map(|chain| chain.id).collect();
    assert!(!causes.iter().any(|id| id == "host.memory" || id == "gpu.driver-branch"), "{causes:?}");
}

#[test]
fn a_report_put_together_keeps_what_was_skipped_under_the_lowest_cause() {
    let finding = |id: &str, layer, outcome| Finding {
        id: id.to_owned(),
        layer,
        weight: Weight::Required,
        outcome,
        because: String::new(),
        evidence: Vec::new(),
        next: None,
        accepted: None,
        ahead: None,
    };
    let report = Report {
        subject: "host".to_owned(),
        findings: vec![
            finding("host.ports", Layer::Doctor, Outcome::Unknown),
            finding("no.check", Layer::Toolkit, Outcome::Skipped),
            finding("up.readiness", Layer::Up, Outcome::Skipped),
        ],
    };
    let found = chains(&report);
    assert_eq!(found.len(), 1);
    assert_eq!(ids(&found[0]), ["no.check", "up.readiness"]);
    assert_eq!(lines(&found), ["host.ports is unknown; skipped: no.check, up.readiness"]);
    // Skipped for what is not in the report.
    let alone = Report { findings: report.findings[2..].to_vec(), ..report };
    assert_eq!(chains(&alone), []);
}
