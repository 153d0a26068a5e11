//! Outcomes of checks, per layer, as plain data.

use serde::{Deserialize, Serialize};

/// Who is responsible, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The host: `bedplate doctor`.
    Doctor,
    /// GPU access of containers: `bedplate toolkit verify`.
    Toolkit,
    /// The engine image: `bedplate runtime prepare`.
    Runtime,
    /// The deployment: `bedplate up`.
    Up,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Looked, and it is as it should be.
    Pass,
    /// Works, but should be mended.
    Warn,
    /// Does not hold.
    Fail,
    /// Could not look. Never counts as a pass.
    Unknown,
    /// A lower layer failed, so looking would blame the wrong one.
    Skipped,
    /// Does not apply to this profile.
    #[serde(rename = "n/a")]
    NotApplicable,
}

/// How much an outcome counts for the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// A fail or unknown shuts the gate.
    Required,
    /// At most a warning.
    Advisory,
}

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable id, such as `host.disk`.
    pub id: String,
    /// Whose responsibility.
    pub layer: Layer,
    /// Whether it counts for the gate.
    pub weight: Weight,
    /// What was found.
    pub outcome: Outcome,
    /// One line: what was seen, or why nothing could be.
    pub because: String,
    /// What it was seen in: `path: value` lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// The one thing to do next. Absent where nothing is to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The reason of a recorded exception (`[checks] accept`), which lets a fail through the gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    /// Of a skipped check: what fails there already, whatever it was skipped for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Ahead>,
}

/// What a skipped check saw all the same: the next fault, behind the one to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// One line: what was seen.
    pub because: String,
    /// What it was seen in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// The one thing to do, once what is below is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Finding {
    /// Whether this finding shuts the gate: a fail, or an unknown of a required check, not accepted.
    pub fn shuts_gate(&self) -> bool {
        self.accepted.is_none()
            && match self.outcome {
                Outcome::Fail => true,
                Outcome::Unknown | Outcome::Skipped => self.weight == Weight::Required,
                Outcome::Pass | Outcome::Warn | Outcome::NotApplicable => false,
            }
    }
}

/// Findings of one run, lowest layer first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was checked: `host`, or a deployment's name.
    pub subject: String,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether this check is in it, and unknown: where a container decides, whether one is to be started.
    pub fn is_unknown(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding.id == id && finding.outcome == Outcome::Unknown)
    }

    /// Whether the gate opens: nothing shuts it, and something was looked at.
    pub fn opens_gate(&self) -> bool {
        self.findings.iter().any(|f| f.outcome == Outcome::Pass)
            && !self.findings.iter().any(Finding::shuts_gate)
    }

    /// The skipped checks that fail as well, in order, each once.
    pub fn ahead(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = Vec::new();
        for finding in self.findings.iter().filter(|finding| finding.ahead.is_some()) {
            if !ids.contains(&finding.id.as_str()) {
                ids.push(&finding.id);
            }
        }
        ids
    }

    /// The lowest layer whose finding shuts the gate: the one to blame.
    pub fn layer_to_blame(&self) -> Option<Layer> {
        self.findings
            .iter()
            .filter(|f| f.shuts_gate() && f.outcome != Outcome::Skipped)
            .map(|f| f.layer)
            .min()
    }
}
