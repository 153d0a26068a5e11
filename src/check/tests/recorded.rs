//! Facts that were recorded are judged elsewhere as they were on the host.

use super::{facts::*, table::cases, *};
use crate::host::facts::{
    Known, Nvml,
    record::{self, Words},
};

const ALL: [Layer; 3] = [Layer::Doctor, Layer::Toolkit, Layer::Runtime];

/// The report of a world whose facts went through a file.
fn elsewhere(world: &World) -> Report {
    let words = Words::of(&world.subject().wanted);
    let text = record::write(&world.facts, &words, "gpu17").unwrap();
    let recorded = record::read(text.as_bytes(), &words, "case.json").unwrap();
    assert!(recorded.same);
    World { facts: recorded.facts, ..world.clone() }.report(&ALL)
}

#[test]
fn a_healthy_host_is_judged_the_same_to_the_letter() {
    for mut world in [world(), without_gpus()] {
        // These are left out of a file, and shown as evidence on the host.
        if let Known::Ok(Nvml::Answers(gpus)) = &mut world.facts.nvml {
            gpus.devices.iter_mut().for_each(|device| device.uuid = None);
        }
        assert_eq!(elsewhere(&world), world.report(&ALL));
    }
}

#[test]
fn every_way_to_fail_is_judged_the_same() {
    let verdicts = |report: Report| -> Vec<(String, Outcome, Weight, bool)> {
        report.findings.into_iter().map(|f| (f.id, f.outcome, f.weight, f.next.is_some())).collect()
    };
    for case in cases() {
        let mut world = world();
        (case.3)(&mut world);
        assert_eq!(verdicts(elsewhere(&world)), verdicts(world.report(&ALL)), "{}: {}", case.0, case.2);
    }
}

#[test]
fn a_gpu_that_a_deployment_names_by_its_uuid_is_known_again() {
    let mut world = world();
    world.deployments[0].tensor_parallel = 2;
    world.facts.models.get_mut("qwen72b").unwrap().weights = Known::Ok(100 * GIB);
    // Whole, and as a beginning.
    let ids = ["GPU-00000001-aaaa-4bbb-8ccc-0123456789ab", "GPU-00000002"].map(str::to_owned);
    world.deployments[0].gpu_ids = crate::profile::deployment::GpuIds::List(ids.to_vec());
    if let Known::Ok(Nvml::Answers(gpus)) = &mut world.facts.nvml {
        for device in &mut gpus.devices {
            device.uuid = Some(format!("GPU-{:08}-aaaa-4bbb-8ccc-0123456789ab", device.index));
        }
    }
    let text = record::write(&world.facts, &Words::of(&world.subject().wanted), "gpu17").unwrap();
    assert!(!text.contains("aaaa-4bbb"), "{text}");
    let verdict = |report: Report| {
        let fit = report.findings.into_iter().find(|finding| finding.id == "deploy.fit").unwrap();
        (fit.outcome, fit.because)
    };
    assert_eq!(verdict(world.report(&ALL)).0, Outcome::Pass);
    assert_eq!(verdict(elsewhere(&world)), verdict(world.report(&ALL)));
}
