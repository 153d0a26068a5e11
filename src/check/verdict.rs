//! What a check says, and how many looks become one verdict.

use super::{diagnosis::Diagnosis, report::Outcome};

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// One line: what was seen, or why nothing could be.
    pub because: String,
    /// What it was seen in.
    pub evidence: Vec<String>,
    /// The one thing to do next.
    pub next: Option<String>,
    /// An unknown that does not shut the gate: what would be asked cannot be reached from this host.
    pub tolerated: bool,
}

impl Verdict {
    fn new(outcome: Outcome, because: impl Into<String>) -> Self {
        Self { outcome, because: because.into(), evidence: Vec::new(), next: None, tolerated: false }
    }

    /// It is as it should be; seen in `evidence`. Without evidence the judge makes it unknown.
    pub fn pass(because: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, because)
    }

    /// It works, but should be mended.
    pub fn warn(because: impl Into<String>) -> Self {
        Self::new(Outcome::Warn, because)
    }

    /// It does not hold.
    pub fn fail(because: impl Into<String>) -> Self {
        Self::new(Outcome::Fail, because)
    }

    /// Could not look.
    pub fn unknown(because: impl Into<String>) -> Self {
        Self::new(Outcome::Unknown, because)
    }

    /// Does not apply.
    pub fn not_applicable(because: impl Into<String>) -> Self {
        Self::new(Outcome::NotApplicable, because)
    }

    /// Adds a line of evidence.
    pub fn saw(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    /// Adds what a program said at its end.
    pub(super) fn said(self, words: &str) -> Self {
        self.saw(if words.is_empty() { "it said nothing" } else { words })
    }

    /// Does not shut the gate where it is unknown.
    pub fn tolerated(mut self) -> Self {
        self.tolerated = true;
        self
    }

    /// With what a symptom stands for. `otherwise`: what to do where no symptom is known, or none of its causes holds.
    pub(super) fn told(mut self, known: Option<&Diagnosis>, otherwise: impl Into<String>) -> Self {
        let Some(known) = known else { return self.next(otherwise) };
        self.evidence.push(known.says());
        self.evidence.extend(known.evidence());
        match known.next() {
            Some(next) => self.next(next),
            None => self.next(otherwise),
        }
    }

    /// Says what to do next.
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }
}

/// Several looks of one check. The worst decides; a fail outweighs an unknown.
#[derive(Debug, Default)]
pub(super) struct Tally {
    fails: Vec<(String, String)>,
    unknowns: Vec<(String, Option<String>)>,
    warns: Vec<(String, String)>,
    good: usize,
    evidence: Vec<String>,
}

impl Tally {
    /// Looked, and it is well.
    pub(super) fn good(&mut self, line: impl Into<String>) {
        self.good += 1;
        self.evidence.push(line.into());
    }

    /// A line that helps, and proves nothing.
    pub(super) fn note(&mut self, line: impl Into<String>) {
        self.evidence.push(line.into());
    }

    /// Looked, and it does not hold; what to do.
    pub(super) fn bad(&mut self, because: impl Into<String>, next: impl Into<String>) {
        self.fails.push((because.into(), next.into()));
    }

    /// Looked, and it should be mended; what to do.
    pub(super) fn weak(&mut self, because: impl Into<String>, next: impl Into<String>) {
        self.warns.push((because.into(), next.into()));
    }

    /// Could not look.
    pub(super) fn unknown(&mut self, because: impl Into<String>) {
        self.unknowns.push((because.into(), None));
    }

    /// Could not look; what would let it.
    pub(super) fn unknown_until(&mut self, because: impl Into<String>, next: impl Into<String>) {
        self.unknowns.push((because.into(), Some(next.into())));
    }

    /// One verdict. `pass` says what holds; `nothing` why there was nothing to look at.
    pub(super) fn verdict(self, pass: impl Into<String>, nothing: impl Into<String>) -> Verdict {
        let some = |problems: Vec<(String, Option<String>)>| {
            let because = match problems.as_slice() {
                [(only, _)] => only.clone(),
                [(first, _), rest @ ..] => format!("{first}, and {} more", rest.len()),
                [] => String::new(),
            };
            let next = problems.iter().find_map(|(_, next)| next.clone());
            let lines = if problems.len() > 1 {
                problems.into_iter().map(|(line, _)| line).collect()
            } else {
                Vec::new()
            };
            (because, next, lines)
        };
        let with_next =
            |list: Vec<(String, String)>| list.into_iter().map(|(line, next)| (line, Some(next))).collect();
        let (outcome, problems): (_, Vec<(String, Option<String>)>) = if !self.fails.is_empty() {
            (Outcome::Fail, with_next(self.fails))
        } else if !self.unknowns.is_empty() {
            (Outcome::Unknown, self.unknowns)
        } else if !self.warns.is_empty() {
            (Outcome::Warn, with_next(self.warns))
        } else if self.good > 0 {
            return Verdict {
                outcome: Outcome::Pass,
                because: pass.into(),
                evidence: self.evidence,
                next: None,
                tolerated: false,
            };
        } else {
            return Verdict {
                outcome: Outcome::NotApplicable,
                because: nothing.into(),
                evidence: self.evidence,
                next: None,
                tolerated: false,
            };
        };
        let (because, next, mut evidence) = some(problems);
        evidence.extend(self.evidence);
        Verdict { outcome, because, evidence, next, tolerated: false }
    }
}

/// Bytes for people: GiB or MiB with one digit.
pub(super) fn size(bytes: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = bytes as f64 / MIB;
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}
