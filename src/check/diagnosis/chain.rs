//! Chains of failures: one cause, and under it what follows from it.

use serde::Serialize;

use super::Repair;
use crate::check::{
    judge::skipped_by,
    registry::registry,
    report::{Finding, Layer, Outcome, Report},
};

/// A cause, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// The check that failed, or could not look.
    pub id: String,
    /// Whose responsibility.
    pub layer: Layer,
    /// `fail` or `unknown`.
    pub outcome: Outcome,
    /// What was seen.
    pub because: String,
    /// The one thing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What kind of repair, where the check's failure means one kind only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// What follows from it, in the report's order. It is mended with its cause.
    pub consequences: Vec<Consequence>,
}

/// A finding that follows from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Consequence {
    /// The check.
    pub id: String,
    /// Whose responsibility.
    pub layer: Layer,
    /// `skipped`, `unknown` or `fail`.
    pub outcome: Outcome,
}

/// A rule: a finding of `then` follows from one of `from`, where `when` holds of both.
struct Follows {
    from: &'static [&'static str],
    then: &'static [&'static str],
    when: fn(&Finding, &Finding) -> bool,
}

/// What keeps NVML from answering.
const SILENT: &[&str] = &["gpu.pci", "gpu.nouveau", "gpu.module", "gpu.device-nodes", "gpu.version-match"];

/// What is known to follow, beside what builds on a check by the registry.
const RULES: &[Follows] = &[
    // Who counts GPUs, or asks them, cannot where NVML does not answer.
    Follows {
        from: SILENT,
        then: &["deploy.fit", "gpu.count", "gpu.fabric-manager", "gpu.ecc", "gpu.mig"],
        when: could_not_look,
    },
    Follows {
        from: &["gpu.pci", "gpu.nouveau", "gpu.module"],
        then: &["image.cuda", "toolkit.cdi-fresh"],
        when: could_not_look,
    },
    // Modules are built for one kernel.
    Follows {
        from: &["host.kernel"],
        then: &["gpu.module"],
        when: |cause, one| cause.outcome == Outcome::Fail && one.outcome == Outcome::Fail,
    },
    // The GPU that is gone said so: Xid 79, "GPU has fallen off the bus" (NVIDIA, "Xid errors").
    Follows {
        from: &["gpu.count"],
        then: &["gpu.xid"],
        when: |_, one| one.outcome == Outcome::Fail && one.because.contains("Xid 79"),
    },
    // The runtime comes with the toolkit.
    Follows {
        from: &["toolkit.package"],
        then: &["toolkit.wiring"],
        when: |cause, one| {
            cause.outcome == Outcome::Fail && one.outcome == Outcome::Fail && one.because.contains("`nvidia`")
        },
    },
    // Docker is asked for images, containers and their ports.
    Follows {
        from: &["docker.daemon"],
        then: &["image.present", "image.platform", "image.entrypoint"],
        when: could_not_look,
    },
    // Nothing was started, so nothing can be seen of it.
    Follows {
        from: &["up.readiness", "up.started"],
        then: &["up.started", "up.serving", "up.exposed", "up.agent"],
        when: could_not_look,
    },
];

fn could_not_look(_: &Finding, one: &Finding) -> bool {
    one.outcome == Outcome::Unknown
}

/// The causes of a report, lowest layer first, each with what follows from it. Findings that shut no gate of themselves
/// (warnings, exceptions, advisory ones) are no causes.
pub fn chains(report: &Report) -> Vec<Chain> {
    let findings = &report.findings;
    let mut chains: Vec<Chain> = Vec::new();
    for (at, finding) in findings.iter().enumerate() {
        let skipped = finding.outcome == Outcome::Skipped;
        // What fails already, whatever it was skipped for, is not mended with that.
        if finding.ahead.is_some() || !skipped && !finding.shuts_gate() {
            continue;
        }
        let before = findings.get(..at).unwrap_or_default();
        match root(finding, before, &chains) {
            Some(cause) => {
                if let Some(chain) = chains.get_mut(cause) {
                    let Finding { id, layer, outcome, .. } = finding;
                    let consequence = Consequence { id: id.clone(), layer: *layer, outcome: *outcome };
                    chain.consequences.push(consequence);
                }
            }
            // What was skipped for a reason that this report does not show is no cause.
            None if skipped => {}
            None => chains.push(Chain {
                id: finding.id.clone(),
                layer: finding.layer,
                outcome: finding.outcome,
                because: finding.because.clone(),
                next: finding.next.clone(),
                repair: repair(finding),
                consequences: Vec::new(),
            }),
        }
    }
    chains
}

/// Which of the chains so far a finding belongs to.
fn root(finding: &Finding, before: &[Finding], chains: &[Chain]) -> Option<usize> {
    let chain_of = |id: &str| {
        chains.iter().position(|chain| chain.id == id || chain.consequences.iter().any(|one| one.id == id))
    };
    if finding.outcome == Outcome::Skipped {
        let check = registry().iter().find(|check| check.id == finding.id);
        let blame = check.and_then(|check| skipped_by(check, before));
        // A report that was put together from several keeps what was skipped, though what it was skipped for is
        // elsewhere in it: then the lowest cause counts.
        return blame
            .and_then(|blame| chain_of(&blame.id))
            .or_else(|| chains.iter().position(|chain| chain.layer <= finding.layer));
    }
    let rule = |cause: &Finding| {
        RULES.iter().any(|rule| {
            rule.from.contains(&cause.id.as_str())
                && rule.then.contains(&finding.id.as_str())
                && (rule.when)(cause, finding)
        })
    };
    let cause = before.iter().find(|cause| {
        cause.id != finding.id && cause.shuts_gate() && cause.outcome != Outcome::Skipped && rule(cause)
    })?;
    chain_of(&cause.id)
}

/// What kind of repair a failure takes, where it is one kind only.
fn repair(finding: &Finding) -> Option<Repair> {
    if finding.outcome != Outcome::Fail {
        return None;
    }
    Some(match finding.id.as_str() {
        "host.kernel" => Repair::Reboot,
        "host.disk" | "host.inodes" => Repair::MakeRoom,
        "host.ports" => Repair::EndProcess,
        "gpu.pci" | "gpu.count" => Repair::Hardware,
        "gpu.version-match" if finding.because.contains("upgraded under") => Repair::Reboot,
        "gpu.version-match" | "toolkit.package" => Repair::Install,
        "gpu.ecc" if finding.because.contains("could not replace") => Repair::Hardware,
        "gpu.ecc" => Repair::ResetGpu,
        "gpu.nouveau" => Repair::EditProfile,
        "deploy.fit" => Repair::EditDeployment,
        "secret.present" => Repair::GiveToken,
        "image.present" => Repair::Provision,
        _ => return None,
    })
}

/// The chains that have consequences, for people: a line a cause. What was skipped is not what follows.
pub fn lines(chains: &[Chain]) -> Vec<String> {
    let chains = chains.iter().filter(|chain| !chain.consequences.is_empty());
    chains
        .map(|chain| {
            let word = if chain.outcome == Outcome::Fail { "failed" } else { "is unknown" };
            let (waits, follows): (Vec<_>, Vec<_>) =
                chain.consequences.iter().partition(|one| one.outcome == Outcome::Skipped);
            let part = |says: &str, of: &[&Consequence]| {
                if of.is_empty() { String::new() } else { format!("{says}: {}", families(of).join(", ")) }
            };
            let (follows, waits) = (part(", and so", &follows), part("; skipped", &waits));
            format!("{} {word}{follows}{waits}", chain.id)
        })
        .collect()
}

/// Ids, with neighbours of one family as one where they are more than two: `gpu.* (9)`.
fn families(consequences: &[&Consequence]) -> Vec<String> {
    let family = |id: &str| id.split_once('.').map_or(id, |(family, _)| family).to_owned();
    let mut said = Vec::new();
    for alike in consequences.chunk_by(|one, next| family(&one.id) == family(&next.id)) {
        match alike {
            [first, _, _, ..] => said.push(format!("{}.* ({})", family(&first.id), alike.len())),
            few => said.extend(few.iter().map(|one| one.id.clone())),
        }
    }
    said
}
