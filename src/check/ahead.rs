//! What fails as well, though it was skipped for a lower fault (`docs/decisions/diagnosis.md`).

use super::{
    registry::Check,
    report::{Ahead, Finding, Layer, Outcome},
    subject::Subject,
};

/// Faults that a higher layer, or a check beside them, meets again in its own words. What a check builds on by the registry
/// needs no line here.
const ECHOES: &[(&str, &[&str])] = &[
    ("host.disk", &["docker.storage", "image.present", "runtime.cache"]),
    ("host.inodes", &["image.present", "runtime.cache"]),
    ("host.dns", &["image.present"]),
    ("deploy.fit", &["runtime.smoke"]),
    ("docker.daemon", &["docker.storage", "image.present"]),
    ("docker.storage", &["image.present"]),
    ("toolkit.package", &["toolkit.wiring", "toolkit.cdi-fresh"]),
    ("toolkit.wiring", &["toolkit.cdi-fresh"]),
];

/// Whether what a skipped check sees says something of itself, and is not a lower fault seen again. Where one of those is
/// that nobody could look, the same may be true here. On another system nothing of the profile holds. A start follows from
/// all, what is about GPUs from a fault of theirs, and what builds on a check from that one's.
pub(super) fn stands_alone(check: &Check, subject: &Subject<'_>, before: &[Finding]) -> bool {
    let fault = |finding: &&Finding| {
        finding.shuts_gate() && (finding.outcome != Outcome::Skipped || finding.ahead.is_some())
    };
    let echoed = |finding: &Finding| {
        let id = finding.id.as_str();
        finding.outcome == Outcome::Unknown
            || id == "host.os"
            || check.needs.contains(&id)
            || (check.gpus_only && id.starts_with("gpu."))
            || match (id, check.id) {
                ("secret.present", "runtime.hf-token") => {
                    subject.deployments.iter().any(|deployment| names(finding, &deployment.hf_token))
                }
                ("secret.modes", "runtime.cache") => {
                    subject.wanted.deployments.iter().any(|deployment| names(finding, &deployment.cache))
                }
                _ => false,
            }
            || ECHOES.iter().any(|(fault, again)| *fault == id && again.contains(&check.id))
    };
    check.layer != Layer::Up && !before.iter().filter(fault).any(echoed)
}

/// Whether a finding speaks of this secret or path.
fn names(finding: &Finding, what: &str) -> bool {
    let what = format!("`{what}`");
    std::iter::once(&finding.because).chain(&finding.evidence).any(|line| line.contains(&what))
}

/// What would fail once the lower layers are well. What could not be looked at may be theirs, and is not told.
pub(super) fn failing(judged: Finding) -> Option<Ahead> {
    let fails = judged.outcome == Outcome::Fail && judged.accepted.is_none();
    fails.then_some(Ahead { because: judged.because, evidence: judged.evidence, next: judged.next })
}
