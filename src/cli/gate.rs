//! Keeping what checks proved: readiness of the host and of a deployment, for `up`.

use super::{subject, subject::Held};
use crate::{
    check::{
        readiness::{self, Binding, Readiness},
        report::{Finding, Layer, Outcome, Report, Weight},
    },
    error::Result,
    host::facts::Facts,
    profile::Deployment,
    system::{clock, files::Root},
};

/// The part of a report that is about these layers.
pub fn part(report: &Report, highest: Layer) -> Report {
    Report {
        subject: report.subject.clone(),
        findings: report.findings.iter().filter(|finding| finding.layer <= highest).cloned().collect(),
    }
}

/// Keeps the host's readiness, where what was judged is this host's generation. Where GPUs are asked for it includes the
/// smoke test: a report for which none was asked is not kept.
pub fn save_host(root: &Root, held: &Held, report: &Report, facts: &Facts) -> Result<()> {
    let Some((number, lock)) = held.generation else { return Ok(()) };
    let not_asked = |finding: &Finding| {
        finding.id == subject::SMOKE
            && finding.outcome == Outcome::Unknown
            && finding.weight == Weight::Advisory
    };
    if report.findings.iter().any(not_asked) {
        return Ok(());
    }
    let mut report = part(report, Layer::Toolkit);
    "host".clone_into(&mut report.subject);
    let binding = Binding::of(number, lock, None, facts);
    readiness::save(root, None, &Readiness::new(binding, report, clock::now()))
}

/// Keeps a deployment's readiness, where what was judged is this host's generation.
pub fn save_deployment(
    root: &Root,
    held: &Held,
    deployment: &Deployment,
    report: &Report,
    facts: &Facts,
) -> Result<()> {
    let Some((number, lock)) = held.generation else { return Ok(()) };
    let binding = Binding::of(number, lock, Some(subject::deployment_digest(deployment)), facts);
    readiness::save(root, Some(&deployment.name), &Readiness::new(binding, report.clone(), clock::now()))
}
