//! From facts to a report: what applies, what is skipped, what is accepted.

use super::{
    ahead::{failing, stands_alone},
    registry::{Check, registry},
    report::{Finding, Layer, Outcome, Report, Weight},
    subject::Subject,
    verdict::Verdict,
};
use crate::host::facts::Facts;

/// Judges every check of these layers, lowest first.
pub fn judge(layers: &[Layer], subject: &Subject<'_>, facts: &Facts) -> Report {
    run(registry().iter().filter(|check| layers.contains(&check.layer)), subject, facts)
}

/// Judges these checks alone, in the catalogue's order. Ids that are none are passed over.
pub fn judge_only(ids: &[&str], subject: &Subject<'_>, facts: &Facts) -> Report {
    run(registry().iter().filter(|check| ids.contains(&check.id)), subject, facts)
}

fn run<'c>(checks: impl Iterator<Item = &'c Check>, subject: &Subject<'_>, facts: &Facts) -> Report {
    let mut report = Report { subject: subject.name.clone(), findings: Vec::new() };
    for check in checks {
        let judged = || finding(check, guarded((check.run)(subject, facts)), subject);
        let found = if check.gpus_only && !subject.gpus() {
            finding(check, Verdict::not_applicable("the profile's host has no GPUs"), subject)
        } else if let Some(blame) = skipped_by(check, &report.findings) {
            let mut skipped = finding(check, skipped(blame), subject);
            if stands_alone(check, subject, &report.findings) {
                skipped.ahead = failing(judged());
            }
            skipped
        } else {
            judged()
        };
        report.findings.push(found);
    }
    report
}

/// The verdict of a check that is not judged because of this finding.
fn skipped(blame: &Finding) -> Verdict {
    let word = if blame.outcome == Outcome::Fail { "failed" } else { "is unknown" };
    Verdict {
        outcome: Outcome::Skipped,
        because: format!("skipped: `{}` {word}", blame.id),
        evidence: Vec::new(),
        next: None,
        tolerated: false,
    }
}

/// The finding that keeps a check from being run: the first of a lower layer that shuts the gate, else one that the check
/// builds on.
pub(super) fn skipped_by<'f>(check: &Check, before: &'f [Finding]) -> Option<&'f Finding> {
    let bad = |finding: &&Finding| finding.shuts_gate() && finding.outcome != Outcome::Skipped;
    let lower = before.iter().filter(bad).find(|finding| finding.layer < check.layer);
    let base = || before.iter().filter(bad).find(|finding| check.needs.contains(&finding.id.as_str()));
    lower.or_else(base)
}

/// A pass must have been seen in something.
fn guarded(verdict: Verdict) -> Verdict {
    if verdict.outcome == Outcome::Pass && verdict.evidence.is_empty() {
        return Verdict::unknown(format!("nothing was read that would show it ({})", verdict.because));
    }
    verdict
}

fn finding(check: &Check, verdict: Verdict, subject: &Subject<'_>) -> Finding {
    let Verdict { mut outcome, because, mut evidence, mut next, tolerated } = verdict;
    if check.weight == Weight::Advisory && outcome == Outcome::Fail {
        outcome = Outcome::Warn;
    }
    let mut accepted = None;
    if let Some(reason) = subject.profile.checks.accept.get(check.id) {
        match outcome {
            Outcome::Fail | Outcome::Warn => accepted = Some(reason.clone()),
            // An exception is made for what was seen, not for what nobody could look at.
            Outcome::Unknown => evidence.push(format!(
                "`[checks] accept` has `{}`, but that does not cover a check that could not look",
                check.id
            )),
            Outcome::Pass | Outcome::Skipped | Outcome::NotApplicable => {}
        }
    }
    if next.is_none() && matches!(outcome, Outcome::Fail | Outcome::Unknown | Outcome::Warn) {
        next = Some(format!("see `bedplate explain {}`", check.id));
    }
    Finding {
        id: check.id.to_owned(),
        layer: check.layer,
        weight: if tolerated && outcome == Outcome::Unknown { Weight::Advisory } else { check.weight },
        outcome,
        because,
        evidence,
        next,
        accepted,
        ahead: None,
    }
}

/// Layers in order, for callers that want a layer and all below it.
pub fn up_to(layer: Layer) -> Vec<Layer> {
    [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up].into_iter().filter(|l| *l <= layer).collect()
}
