//! Each row of the diagnosis: every cause with its evidence, what stays undecided without, and the repair.

use super::{
    facts::*,
    symptoms_data::{ROWS, Row},
    table::{Change, exit},
    *,
};
use crate::{
    check::{
        diagnosis::{Diagnosis, Is, Seen, diagnose, named, symptoms},
        up::ContainerState,
    },
    error::Kind,
    host::facts::{Facts, Known},
};

/// What a row comes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    /// This cause holds.
    Decided(&'static str),
    /// No cause is known to hold, and these remain.
    Undecided(&'static [&'static str]),
    /// Evidence rules every known cause out.
    RuledOut,
}

use Expect::{Decided, RuledOut, Undecided};

fn state(world: &World) -> ContainerState {
    world.observed.as_ref().unwrap().services[0].state.ok().unwrap().clone()
}

fn diagnosed(world: &World) -> Option<Diagnosis> {
    let state = state(world);
    diagnose(&world.subject(), &world.facts, Seen::of("qwen72b", &state))
}

/// A world where the symptom is seen.
fn with(line: &str, change: Change) -> World {
    let mut world = world();
    match line.parse() {
        Ok(code) => exit(&mut world, code, ""),
        Err(_) => exit(&mut world, 1, line),
    }
    change(&mut world);
    world
}

#[test]
fn every_cause_is_told_by_its_evidence() {
    for Row(id, expect, line, change) in ROWS {
        let world = with(line, *change);
        let found = diagnosed(&world).unwrap_or_else(|| panic!("{id}: `{line}` shows nothing"));
        assert_eq!(found.symptom, *id, "{line}");
        let remaining: Vec<&str> = found.remaining().iter().map(|cause| cause.id).collect();
        let cause = found.cause();
        let shown = format!("{id} {expect:?}: {:#?}", found.causes);
        match expect {
            Decided(wanted) => {
                assert_eq!(cause.map(|cause| cause.id), Some(*wanted), "{shown}");
                let cause = cause.unwrap();
                assert!(!cause.because.is_empty() && !cause.fix.is_empty(), "{shown}");
                assert_eq!(found.layer(), Some(cause.layer), "{shown}");
                assert_eq!(found.next().as_ref(), Some(&cause.fix), "{shown}");
                assert!(found.says().contains(cause.means), "{shown}");
            }
            Undecided(wanted) => {
                assert!(cause.is_none(), "{shown}");
                assert_eq!(remaining, *wanted, "{shown}");
                // All that remain are named, and what would decide.
                assert!(found.says().contains("not decided"), "{}", found.says());
                let next = found.next().unwrap();
                for cause in found.remaining() {
                    assert!(found.says().contains(cause.means), "{shown}");
                    assert!(next.contains(cause.decides), "{next}");
                }
            }
            RuledOut => {
                assert!(cause.is_none() && remaining.is_empty(), "{shown}");
                assert_eq!((found.layer(), found.next()), (None, None), "{shown}");
                assert!(found.says().contains("none of its known causes"), "{}", found.says());
            }
        }
        assert!(found.causes.iter().all(|cause| !cause.because.is_empty()), "{shown}");
        // The check says the same, with the evidence.
        let finding = world.finding("up.started");
        assert_eq!(finding.outcome, Outcome::Fail, "{id}");
        assert!(finding.because.contains(&found.says()), "{id}: {}", finding.because);
        assert!(finding.evidence.iter().any(|seen| seen.contains(id)), "{id}: {:?}", finding.evidence);
        assert!(finding.next.is_some(), "{id}");
    }
}

#[test]
fn nothing_is_seen_of_a_healthy_container() {
    let world = world();
    assert_eq!(diagnosed(&world), None);
    assert_eq!(world.finding("up.started").outcome, Outcome::Pass);
}

#[test]
fn a_cause_is_never_said_without_facts() {
    for Row(id, _, line, _) in ROWS {
        let mut world = with(line, |_| ());
        world.facts = Facts::default();
        let found = diagnosed(&world).unwrap();
        // What the line itself says is evidence; a deployment is an input.
        let by_line = ["licence", "shared-memory", "anonymous-quota"];
        if let Some(cause) = found.cause() {
            assert!(by_line.contains(&cause.id), "{id}: {cause:?}");
        }
    }
}

/// The rows of the catalogue of checks, "Diagnosis", in its order.
const CATALOGUE: [&str; 14] = [
    "symptom.device-driver",
    "symptom.cuda-requirement",
    "symptom.cuda-804",
    "symptom.cuda-803",
    "symptom.cuda-802",
    "symptom.version-mismatch",
    "symptom.gpus-taken-away",
    "symptom.no-kernel-image",
    "symptom.ptx",
    "symptom.no-space",
    "symptom.exit-137",
    "symptom.gpu-memory",
    "symptom.hub-refused",
    "symptom.registry-429",
];

#[test]
fn every_row_of_the_catalogue_is_here_and_each_cause_is_tried() {
    for id in CATALOGUE {
        assert!(symptoms().any(|symptom| symptom.id == id), "{id} is not here");
    }
    for symptom in symptoms() {
        let rows = || ROWS.iter().filter(|row| row.0 == symptom.id);
        for cause in symptom.causes {
            let tried = rows().any(|row| matches!(row.1, Decided(id) if id == cause.id));
            assert!(tried, "{}: no row decides for {}", symptom.id, cause.id);
        }
        assert!(rows().any(|row| matches!(row.1, Undecided(_))), "{}: no undecided row", symptom.id);
        assert!(symptom.texts.iter().all(|text| *text == text.to_lowercase()), "{}", symptom.id);
        assert!(!symptom.texts.is_empty() || symptom.exit.is_some(), "{}", symptom.id);
        for text in symptom.texts {
            assert!(
                symptoms().filter(|other| other.texts.contains(text)).count() == 1,
                "`{text}` is of two symptoms"
            );
        }
    }
    let mut ids: Vec<&str> = symptoms().map(|symptom| symptom.id).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn a_symptom_is_found_by_its_id() {
    assert_eq!(named("symptom.cuda-802").unwrap().unwrap().causes.len(), 5);
    assert!(named("gpu.pci").is_none() && named("xid-79").is_none());
    let wrong = named("symptom.cuda-805").unwrap().unwrap_err();
    assert_eq!(wrong.kind(), Kind::Usage);
    assert!(wrong.hints().concat().contains("did you mean `symptom.cuda-80"), "{:?}", wrong.hints());
}

#[test]
fn the_kernels_word_counts_before_the_log() {
    let mut world = with("CUDA out of memory", |_| ());
    let Known::Ok(state) = &mut world.observed.as_mut().unwrap().services[0].state else {
        panic!("no state")
    };
    state.oom_killed = true;
    state.exit_code = Some(137);
    assert_eq!(diagnosed(&world).unwrap().symptom, "symptom.exit-137");
}

#[test]
fn causes_that_remain_of_one_layer_blame_it() {
    let mut world = with("could not select device driver", |_| ());
    world.facts.docker = Known::unknown("hung");
    let found = diagnosed(&world).unwrap();
    assert!(found.causes.iter().all(|cause| cause.is != Is::Holds));
    assert_eq!(found.layer(), Some(Layer::Toolkit));
    let value = serde_json::to_value(&found).unwrap();
    assert_eq!(value["symptom"], "symptom.device-driver");
    assert_eq!(value["causes"][0]["is"], "open");
    assert_eq!(value["causes"][1]["is"], "ruled-out");
}
