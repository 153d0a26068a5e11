//! The gate: `up` starts only on two fresh readinesses, and on what is looked at again each time.

use jiff::Timestamp;

use super::{
    readiness::{Binding, Fresh, Readiness, freshness},
    report::Report,
};

/// Checks that are looked at again at every `up`, however fresh the readiness: GPU count, ports, secrets.
pub const AGAIN: [&str; 4] = ["host.ports", "gpu.count", "secret.modes", "secret.present"];

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// `up` may start.
    Open {
        /// In one line.
        because: String,
        /// What it rests on.
        evidence: Vec<String>,
    },
    /// It may not.
    Shut {
        /// Why, in one line.
        because: String,
        /// What to do.
        next: String,
    },
}

impl Decision {
    /// Whether `up` may start.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// What is there now.
#[derive(Debug, Clone)]
pub struct Now {
    /// The host's binding.
    pub host: Binding,
    /// The deployment's.
    pub deployment: Binding,
    /// The time.
    pub at: Timestamp,
    /// How old a readiness may be, in hours (`[checks] readiness-hours`).
    pub hours: u64,
}

/// Why layers must run again before the gate can open; `None`: both readinesses are fresh.
pub fn stale(host: Option<&Readiness>, deployment: Option<&Readiness>, now: &Now) -> Option<String> {
    let one = |what: &str, readiness: Option<&Readiness>, binding: &Binding| match readiness {
        None => Some(format!("there is no readiness of {what} on this generation")),
        Some(readiness) => match freshness(readiness, binding, now.at, now.hours) {
            Fresh::Fresh => None,
            Fresh::Stale(reason) => Some(format!("the readiness of {what} is stale: {reason}")),
        },
    };
    one("the host", host, &now.host).or_else(|| one("the deployment", deployment, &now.deployment))
}

/// Whether `up` may start. `again` is the report of [`AGAIN`], made just now. A finding that is not
/// applicable does not shut the gate; one that is missing from `again` does.
pub fn decide(
    host: Option<&Readiness>,
    deployment: Option<&Readiness>,
    now: &Now,
    again: &Report,
) -> Decision {
    if let Some(because) = stale(host, deployment, now) {
        return Decision::Shut {
            because,
            next: "run `bedplate up`, which runs the layers again, or `bedplate provision`".to_owned(),
        };
    }
    if let Some(missing) = AGAIN.iter().find(|id| !again.findings.iter().any(|finding| finding.id == **id)) {
        return Decision::Shut {
            because: format!("`{missing}` was not looked at again"),
            next: "run `bedplate doctor`".to_owned(),
        };
    }
    if let Some(finding) = again.findings.iter().find(|finding| finding.shuts_gate()) {
        return Decision::Shut {
            because: format!("`{}`: {}", finding.id, finding.because),
            next: finding.next.clone().unwrap_or_else(|| "run `bedplate doctor`".to_owned()),
        };
    }
    let made = |readiness: Option<&Readiness>| readiness.map(|r| r.made.to_string()).unwrap_or_default();
    Decision::Open {
        because: format!("layers 1 to 3 passed on generation {}", now.host.generation),
        evidence: vec![
            format!("host: ready since {}", made(host)),
            format!("deployment: ready since {}", made(deployment)),
            format!("looked at again: {}", AGAIN.join(", ")),
        ],
    }
}
