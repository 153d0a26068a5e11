//! Readiness and the gate.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{facts::*, *};
use crate::{
    check::{
        gate::{self, AGAIN, Decision, Now},
        readiness::{self, Binding, Fresh, Readiness, Reason, freshness},
    },
    digest::Digest,
    host::facts::*,
    system::files::{Owner, Root},
};

fn made() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn binding(deployment: bool) -> Binding {
    Binding::of(7, Digest::of("lock"), deployment.then(|| Digest::of("qwen72b")), &world().facts)
}

fn ready(deployment: bool) -> Readiness {
    let layers: &[Layer] = if deployment { &[Layer::Runtime] } else { &[Layer::Doctor, Layer::Toolkit] };
    Readiness::new(binding(deployment), world().report(layers), made())
}

fn now() -> Now {
    Now {
        host: binding(false),
        deployment: binding(true),
        at: made() + SignedDuration::from_hours(1),
        hours: 24,
    }
}

fn again(world: &World) -> Report {
    judge_only(&AGAIN, &world.subject(), &world.facts)
}

type Change = fn(&mut Binding);

#[test]
fn a_readiness_names_what_made_it_stale() {
    let ready = ready(true);
    assert!(ready.report.opens_gate());
    let later = made() + SignedDuration::from_hours(1);
    let base = binding(true);
    assert_eq!(freshness(&ready, &base, later, 24), Fresh::Fresh);
    let cases: [(&str, Change); 9] = [
        ("the generation changed: 7, now 8", |b| b.generation = 8),
        ("the lock changed", |b| b.lock = Digest::of("other")),
        ("the boot id changed: the host was restarted", |b| b.boot_id = Some("other".to_owned())),
        ("the boot id cannot be seen, so nothing can be bound to it", |b| b.boot_id = None),
        ("the loaded driver changed: 580.159.04, now none", |b| b.driver = None),
        ("the Docker daemon was restarted", |b| b.docker = Some("9@9".to_owned())),
        ("the Docker daemon's start cannot be seen, so nothing can be bound to it", |b| b.docker = None),
        ("the CDI specification changed", |b| b.cdi = None),
        ("the deployment changed", |b| b.deployment = None),
    ];
    for (says, change) in cases {
        let mut changed = base.clone();
        change(&mut changed);
        match freshness(&ready, &changed, later, 24) {
            Fresh::Stale(reason) => assert_eq!(reason.to_string(), says),
            Fresh::Fresh => panic!("{says}"),
        }
    }
    let day = made() + SignedDuration::from_hours(25);
    assert_eq!(freshness(&ready, &base, day, 24), Fresh::Stale(Reason::Age(24)));
    assert_eq!(freshness(&ready, &base, day, u64::MAX), Fresh::Fresh);
    let before = made() - SignedDuration::from_hours(1);
    assert_eq!(freshness(&ready, &base, before, 24), Fresh::Stale(Reason::Future));
    let failed = Readiness::new(base.clone(), Report::default(), made());
    assert_eq!(freshness(&failed, &base, later, 24), Fresh::Stale(Reason::NotReady));
}

#[test]
fn the_gate_opens_on_two_fresh_readinesses_and_what_is_looked_at_again() {
    let (host, deployment, world) = (ready(false), ready(true), world());
    let open = gate::decide(Some(&host), Some(&deployment), &now(), &again(&world));
    assert!(open.is_open(), "{open:?}");
    let shut = |decision: Decision| match decision {
        Decision::Shut { because, .. } => because,
        Decision::Open { .. } => panic!("open"),
    };
    assert_eq!(
        shut(gate::decide(None, Some(&deployment), &now(), &again(&world))),
        "there is no readiness of the host on this generation"
    );
    assert_eq!(
        shut(gate::decide(Some(&host), None, &now(), &again(&world))),
        "there is no readiness of the deployment on this generation"
    );
    let mut rebooted = now();
    rebooted.host.boot_id = Some("after".to_owned());
    assert_eq!(
        shut(gate::decide(Some(&host), Some(&deployment), &rebooted, &again(&world))),
        "the readiness of the host is stale: the boot id changed: the host was restarted"
    );
    let mut lost = world.clone();
    lost.facts.nvml = Known::Ok(Nvml::Answers(gpus(7)));
    assert!(
        shut(gate::decide(Some(&host), Some(&deployment), &now(), &again(&lost)))
            .starts_with("`gpu.count`: NVML sees 7 of 8")
    );
    let mut unseen = world.clone();
    unseen.facts.secrets.clear();
    assert!(
        shut(gate::decide(Some(&host), Some(&deployment), &now(), &again(&unseen)))
            .starts_with("`secret.present`")
    );
    assert_eq!(
        shut(gate::decide(Some(&host), Some(&deployment), &now(), &Report::default())),
        "`host.ports` was not looked at again"
    );
}

#[test]
fn a_readiness_is_kept_shut_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let root = Arc::new(Root::open(directory.path()).unwrap());
    root.make_dir("/var/lib/bedplate/generations/7", 0o700, Owner::current()).unwrap();
    for (name, readiness) in [(None, ready(false)), (Some("host"), ready(true))] {
        assert_eq!(readiness::load(&root, 7, name).unwrap(), None);
        readiness::save(&root, name, &readiness).unwrap();
        assert_eq!(readiness::load(&root, 7, name).unwrap(), Some(readiness));
    }
    let path = "/var/lib/bedplate/generations/7/readiness/host.json";
    assert_eq!(root.stat(path).unwrap().unwrap().mode, 0o600);
    root.write(path, b"{\"version\": 2}", 0o600, Owner::current()).unwrap();
    assert_eq!(readiness::load(&root, 7, None).unwrap(), None);
    root.write(path, b"{", 0o600, Owner::current()).unwrap();
    assert!(readiness::load(&root, 7, None).unwrap_err().hints().concat().contains("rm "));
    readiness::forget(&root, 7, None).unwrap();
    assert_eq!(readiness::load(&root, 7, None).unwrap(), None);
    assert!(readiness::save(&root, Some("../x"), &ready(true)).is_err());
}
