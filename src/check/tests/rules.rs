//! What applies, what is skipped, what is accepted; and that nothing unseen ever passes.

use proptest::prelude::*;
use serde_json::Value;

use super::{facts::*, *};
use crate::{
    check::{explain, registry, up_to},
    error::Kind,
    host::facts::*,
};

use Outcome::{Fail, NotApplicable, Pass, Skipped, Unknown, Warn};

const ALL: [Layer; 4] = [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up];

fn outcome(report: &Report, id: &str) -> (Outcome, String) {
    let finding = report.findings.iter().find(|finding| finding.id == id).unwrap();
    (finding.outcome, finding.because.clone())
}

#[test]
fn a_healthy_host_opens_the_gate_in_every_layer() {
    let report = world().report(&ALL);
    assert!(
        report.opens_gate(),
        "{:?}",
        report.findings.iter().filter(|f| f.outcome != Pass).collect::<Vec<_>>()
    );
    assert_eq!(report.findings.len(), registry().len());
    assert_eq!(up_to(Layer::Runtime), ALL[..3]);
}

#[test]
fn no_device_on_pci_skips_every_other_gpu_check_and_the_layers_above() {
    let mut world = world();
    world.facts.pci = Known::Ok(Vec::new());
    world.facts.module = Known::Ok(Module::default());
    world.facts.nvml = Known::Ok(Nvml::NoLibrary("not found".to_owned()));
    let report = world.report(&ALL);
    assert_eq!(outcome(&report, "gpu.pci").0, Fail);
    let gpu = registry().iter().filter(|check| check.id.starts_with("gpu.") && check.id != "gpu.pci");
    for check in gpu {
        assert_eq!(outcome(&report, check.id), (Skipped, "skipped: `gpu.pci` failed".to_owned()));
    }
    for finding in report.findings.iter().filter(|finding| finding.layer > Layer::Doctor) {
        assert_eq!(
            (finding.outcome, finding.because.as_str()),
            (Skipped, "skipped: `gpu.pci` failed"),
            "{}",
            finding.id
        );
    }
    assert_eq!(report.layer_to_blame(), Some(Layer::Doctor));
    assert!(!report.opens_gate());
}

#[test]
fn an_unknown_of_a_required_check_skips_the_layers_above() {
    let mut world = world();
    world.facts.docker = Known::unknown("Docker did not answer within 10 s");
    let report = world.report(&ALL);
    assert_eq!(outcome(&report, "docker.daemon").0, Unknown);
    assert_eq!(
        outcome(&report, "toolkit.wiring"),
        (Skipped, "skipped: `docker.daemon` is unknown".to_owned())
    );
    assert_eq!(outcome(&report, "image.locked").0, Skipped);
    assert!(!report.opens_gate());
}

#[test]
fn a_host_without_gpus_goes_the_same_road() {
    let report = without_gpus().report(&ALL);
    let shut: Vec<_> = report.findings.iter().filter(|finding| finding.shuts_gate()).collect();
    assert!(report.opens_gate(), "{shut:?}");
    for check in registry().iter().filter(|check| check.gpus_only) {
        assert_eq!(outcome(&report, check.id).0, NotApplicable, "{}", check.id);
    }
    assert_eq!(outcome(&report, "docker.daemon").0, Pass);
    let mut wants = without_gpus();
    wants.deployments[0].tensor_parallel = 2;
    assert_eq!(wants.finding("deploy.fit").outcome, Fail);
}

#[test]
fn nothing_passes_where_nothing_was_seen() {
    for mut world in [world(), without_gpus()] {
        let outcome = |check: &crate::check::Check| world.finding(check.id).outcome;
        let applies: Vec<&str> =
            registry().iter().filter(|check| outcome(check) != NotApplicable).map(|check| check.id).collect();
        world.facts = Facts::default();
        world.observed = None;
        world.gate = None;
        // One by one, so that none hides behind a lower layer. The lock is an input, not an observation.
        for check in registry().iter().filter(|check| check.id != "image.locked") {
            let finding = world.finding(check.id);
            assert_ne!(finding.outcome, Pass, "{}: {}", check.id, finding.because);
            assert_ne!(finding.outcome, Warn, "{}: {}", check.id, finding.because);
            assert!(!finding.because.is_empty(), "{}", check.id);
            // What applies to the profile still applies where nothing was seen. Without GPUs the fit is that of the model
            // alone, where it is known.
            if applies.contains(&check.id) && (world.subject().gpus() || check.id != "deploy.fit") {
                assert_ne!(finding.outcome, NotApplicable, "{}: {}", check.id, finding.because);
            }
        }
        let report = world.report(&ALL);
        assert!(!report.opens_gate());
        assert!(
            report.findings.iter().all(|f| matches!(f.outcome, Unknown | Fail | Skipped | NotApplicable))
        );
    }
    assert!(!Report::default().opens_gate());
}

#[test]
fn an_exception_keeps_its_reason_and_covers_no_unknown() {
    let mut world = world();
    world.profile.checks.accept.insert("host.memory".to_owned(), "a small test host".to_owned());
    if let Known::Ok(memory) = &mut world.facts.memory {
        memory.total = GIB;
    }
    let finding = world.finding("host.memory");
    assert_eq!((finding.outcome, finding.accepted.as_deref()), (Fail, Some("a small test host")));
    let report = world.report(&ALL);
    assert!(report.opens_gate());
    assert_eq!(outcome(&report, "image.present").0, Pass);

    world.facts.memory = Known::unknown("no /proc");
    let finding = world.finding("host.memory");
    assert_eq!((finding.outcome, finding.accepted), (Unknown, None));
    assert!(!world.report(&ALL).opens_gate());
}

#[test]
fn an_exception_for_a_check_that_is_none_is_a_configuration_error() {
    let mut world = world();
    world.profile.checks.accept.insert("gpu.driver-branch".to_owned(), "until March".to_owned());
    crate::check::accept::validate(&world.profile).unwrap();
    world.profile.checks.accept.insert("host.memmory".to_owned(), "x".to_owned());
    world.profile.checks.accept.insert("host.disk".to_owned(), " ".to_owned());
    let error = crate::check::accept::validate(&world.profile).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    let all: Vec<_> =
        std::iter::once(&error).chain(error.related()).map(|e| (e.to_string(), e.hints().concat())).collect();
    assert!(all.iter().any(|(_, hint)| hint == "did you mean `host.memory`?"), "{all:?}");
    assert!(all.iter().any(|(message, _)| message.contains("no reason for `host.disk`")), "{all:?}");
}

#[test]
fn every_check_is_explained() {
    for (at, check) in registry().iter().enumerate() {
        let explained = explain(check.id).unwrap();
        assert!(!explained.what.is_empty() && !explained.why.is_empty() && !explained.mend.is_empty());
        assert!(registry()[..at].iter().all(|other| other.id != check.id && other.layer <= check.layer));
        // What a check builds on comes before it, in its own layer.
        for need in check.needs {
            let base = registry()[..at].iter().find(|other| other.id == *need);
            assert_eq!(base.map(|base| base.layer), Some(check.layer), "{} needs {need}", check.id);
        }
    }
    let wrong = explain("host.diks").unwrap_err();
    assert_eq!((wrong.kind(), wrong.hints().concat().as_str()), (Kind::Usage, "did you mean `host.disk`?"));
}

#[test]
fn the_catalogue_is_whole() {
    // Every id of the catalogue of checks.
    assert_eq!(registry().len(), 52);
}

/// Changes facts at random places, as a recording of another host or version would.
fn shaken(value: &mut Value, dice: &mut impl Iterator<Item = u32>) {
    match dice.next().unwrap_or(1) % 9 {
        0 => *value = serde_json::json!({ "unknown": { "why": "shaken" } }),
        1 => match value {
            Value::Number(_) => *value = Value::from(dice.next().map_or(0, |n| u64::from(n) << 32)),
            Value::String(text) => *text = text.chars().rev().collect(),
            Value::Array(items) => items.truncate(1),
            Value::Null | Value::Bool(_) => *value = Value::Null,
            Value::Object(entries) => {
                let at = dice.next().unwrap_or(0) as usize;
                if let Some(key) = entries.keys().nth(at % entries.len().max(1)).cloned() {
                    entries.remove(&key);
                }
            }
        },
        _ => match value {
            Value::Array(items) => items.iter_mut().for_each(|item| shaken(item, dice)),
            Value::Object(entries) => entries.iter_mut().for_each(|(_, value)| shaken(value, dice)),
            _ => {}
        },
    }
}

proptest! {
    #[test]
    fn any_facts_are_judged_without_panic(dice in proptest::collection::vec(any::<u32>(), 1..400), gpus in any::<bool>()) {
        let mut world = if gpus { world() } else { without_gpus() };
        let mut value = serde_json::to_value(&world.facts).unwrap();
        let mut dice = dice.into_iter();
        if let Value::Object(entries) = &mut value {
            entries.iter_mut().for_each(|(_, fact)| shaken(fact, &mut dice));
        }
        if let Ok(facts) = serde_json::from_value::<Facts>(value) {
            world.facts = facts;
            let again: Facts = serde_json::from_str(&serde_json::to_string(&world.facts).unwrap()).unwrap();
            prop_assert_eq!(&again, &world.facts);
            let report = world.report(&ALL);
            prop_assert_eq!(report.findings.len(), registry().len());
            for finding in &report.findings {
                prop_assert!(finding.outcome != Pass || !finding.evidence.is_empty(), "{}", finding.id);
            }
            let text = serde_json::to_string(&report).unwrap();
            prop_assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        }
    }
}
