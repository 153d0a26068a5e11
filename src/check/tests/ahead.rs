//! What is seen behind the fault to begin with: a second fault, never the first one again.

use super::{
    facts::{GIB, World},
    table::cases,
    *,
};
use crate::{
    check::{ahead::stands_alone, registry},
    host::facts::*,
};

const ALL: [Layer; 4] = [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up];

/// A healthy host on which every name resolves that something may be fetched from.
fn world() -> World {
    let mut world = super::facts::world();
    for name in ["registry-1.docker.io", "huggingface.co"] {
        let found = Resolution::Addresses(vec!["192.0.2.1".parse().unwrap()]);
        world.facts.names.insert(name.to_owned(), Known::Ok(found));
    }
    world
}

fn ahead(report: &Report) -> Vec<(&str, &Ahead)> {
    report.findings.iter().filter_map(|found| Some((found.id.as_str(), found.ahead.as_ref()?))).collect()
}

fn ids(world: &World) -> Vec<String> {
    ahead(&world.report(&ALL)).into_iter().map(|(id, _)| id.to_owned()).collect()
}

/// The host has too little memory: a fault of the lowest layer that nothing else follows from.
fn small(mut world: World) -> World {
    world.facts.memory = Known::Ok(Memory { total: GIB, available: GIB });
    world
}

/// Docker is stopped.
fn stopped(mut world: World) -> World {
    let away = Away { why: "no socket".to_owned(), next: Some("start it".to_owned()) };
    world.facts.docker = Known::Ok(Docker::Away(away));
    world
}

#[test]
fn a_fault_of_a_higher_layer_is_seen_behind_a_lower_one() {
    let world = small(stopped(world()));
    let report = world.report(&ALL);
    let found = report.findings.iter().find(|found| found.id == "docker.daemon").unwrap();
    assert_eq!((found.outcome, found.because.as_str()), (Outcome::Skipped, "skipped: `host.memory` failed"));
    let alone = stopped(self::world()).finding("docker.daemon");
    let seen = found.ahead.as_ref().unwrap();
    assert_eq!((&seen.because, &seen.next), (&alone.because, &alone.next));
    // It is nobody's consequence, and blames nobody.
    assert_eq!(report.layer_to_blame(), Some(Layer::Doctor));
    let chains = crate::check::diagnosis::chains(&report);
    let waits = |id: &str| chains.iter().flat_map(|chain| &chain.consequences).any(|one| one.id == id);
    assert!(!waits("docker.daemon") && waits("image.present"), "{chains:?}");
    assert!(!chains.iter().any(|chain| chain.id == "docker.daemon"), "{chains:?}");
    // Kept with the report, and absent where there is nothing.
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(text.matches("\"ahead\"").count(), ahead(&report).len());
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn a_fault_alone_has_nothing_behind_it() {
    let faults = cases().filter(|case| matches!(case.1, Outcome::Fail | Outcome::Unknown));
    let faults = faults.map(|case| (case.0, case.2, case.3));
    let faults = faults.chain(super::gpu::FAULTS.iter().map(|(id, fault)| (*id, "", *fault)));
    let mut wrong = Vec::new();
    for (id, says, fault) in faults {
        let mut world = world();
        fault(&mut world);
        let mut behind = ids(&world);
        // The fault itself, where what it is planted by is another one below it; and where two are planted.
        behind.retain(|one| one != id && (id, one.as_str()) != ("net.exposed", "docker.daemon"));
        if !behind.is_empty() {
            wrong.push(format!("{id} {says}: {behind:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_is_accepted_advisory_or_unseen_is_not_told() {
    let mut accepted = small(stopped(world()));
    assert!(ids(&accepted).contains(&"docker.daemon".to_owned()));
    accepted.profile.checks.accept.insert("docker.daemon".to_owned(), "comes later".to_owned());
    assert!(!ids(&accepted).contains(&"docker.daemon".to_owned()));
    let mut unseen = small(world());
    unseen.facts.docker = Known::unknown("Docker did not answer within 10 s");
    assert_eq!(ids(&unseen), Vec::<String>::new());
}

#[test]
fn what_builds_on_the_second_fault_is_not_a_third() {
    assert_eq!(ids(&small(stopped(world()))), ["docker.daemon"]);
}

#[test]
fn a_path_or_secret_that_is_at_fault_is_not_a_second_fault() {
    // The cache is reached through a link, which both say; a secret that is gone is the token.
    let link = |world: &mut World| {
        let cache = Cache { exists: true, writable: false, why: Some("it is a symbolic link".to_owned()) };
        world.facts.caches.insert("/data/huggingface".to_owned(), Known::Ok(cache));
    };
    let mut world = small(world());
    link(&mut world);
    assert_eq!(ids(&world), ["runtime.cache"]);
    let subject = world.subject();
    let mut before = world.report(&[Layer::Doctor]).findings;
    let modes = before.iter_mut().find(|found| found.id == "secret.modes").unwrap();
    modes.outcome = Outcome::Fail;
    let cache = registry().iter().find(|check| check.id == "runtime.cache").unwrap();
    "`/data/minerhome` is a link".clone_into(&mut modes.because);
    modes.evidence.clear();
    assert!(stands_alone(cache, &subject, &before));
    let modes = before.iter_mut().find(|found| found.id == "secret.modes").unwrap();
    "`/data/huggingface` is a link".clone_into(&mut modes.because);
    assert!(!stands_alone(cache, &subject, &before));
}
