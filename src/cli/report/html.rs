//! The report as one page that a person can send: no script, nothing that is fetched, readable on paper, in the dark and by
//! a screen reader. `templates/report.html` is its form, and escapes every value.

use askama::Template;
use jiff::Timestamp;

use super::{ALSO, LAYERS, command, counts, duty, is_cause, next, verdict, word};
use crate::{
    check::report::{Ahead, Finding, Layer, Outcome, Report, Weight},
    error::{Doing as _, Result},
    ui::text::visible,
};

/// The report as a page, made `at` that time.
///
/// # Errors
/// The page cannot be written.
pub fn html(report: &Report, at: Timestamp) -> Result<String> {
    Page::of(report, at).render().doing(|| "writing HTML failed")
}

/// What the page shows. All that comes from a host has gone through [`visible`].
#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    subject: String,
    ready: bool,
    verdict: String,
    version: &'static str,
    at: String,
    counts: Vec<Count>,
    /// What shuts the gate, lowest layer first.
    causes: Vec<Row>,
    /// What fails as well, though it was skipped.
    behind: Vec<Row>,
    /// What is said of them.
    also: &'static str,
    /// How many more were skipped.
    skipped: usize,
    sections: Vec<Section>,
}

/// How many findings have an outcome.
struct Count {
    class: &'static str,
    word: String,
    number: usize,
}

/// A layer.
struct Section {
    name: &'static str,
    duty: &'static str,
    counts: String,
    rows: Vec<Row>,
}

/// A finding.
#[derive(Clone)]
struct Row {
    /// Its place in the report: one id may be there for each deployment.
    at: usize,
    id: String,
    layer: &'static str,
    class: &'static str,
    mark: &'static str,
    word: String,
    advisory: bool,
    because: String,
    evidence: Vec<String>,
    next: Option<String>,
    accepted: Option<String>,
    ahead: Option<Ahead>,
}

impl Page {
    fn of(report: &Report, at: Timestamp) -> Self {
        let rows: Vec<(&Finding, Row)> =
            report.findings.iter().enumerate().map(|(at, finding)| (finding, Row::of(at, finding))).collect();
        let mut causes: Vec<_> = rows.iter().filter(|(finding, _)| is_cause(finding)).collect();
        causes.sort_by_key(|(finding, _)| finding.layer);
        Self {
            subject: visible(&report.subject),
            ready: report.opens_gate(),
            verdict: verdict(report).0,
            version: env!("CARGO_PKG_VERSION"),
            at: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            counts: counts(&report.findings).into_iter().map(Count::of).collect(),
            causes: causes.into_iter().map(|(_, row)| row.clone()).collect(),
            behind: rows.iter().filter(|(_, row)| row.ahead.is_some()).map(|(_, row)| row.clone()).collect(),
            also: ALSO,
            skipped: report
                .findings
                .iter()
                .filter(|finding| finding.outcome == Outcome::Skipped && finding.ahead.is_none())
                .count(),
            sections: LAYERS.into_iter().filter_map(|layer| Section::of(layer, &rows)).collect(),
        }
    }
}

impl Count {
    fn of((outcome, number): (Outcome, usize)) -> Self {
        Self { class: class(outcome), word: word(outcome).to_lowercase(), number }
    }
}

impl Section {
    /// A layer with what was found there, what is to be mended first. `None`: nothing was looked at.
    fn of(layer: Layer, rows: &[(&Finding, Row)]) -> Option<Self> {
        let mut own: Vec<_> = rows.iter().filter(|(finding, _)| finding.layer == layer).collect();
        if own.is_empty() {
            return None;
        }
        own.sort_by_key(|(finding, _)| rank(finding));
        let counts: Vec<String> = counts(own.iter().map(|(finding, _)| *finding))
            .into_iter()
            .map(|(outcome, number)| format!("{number} {}", word(outcome).to_lowercase()))
            .collect();
        Some(Self {
            name: command(layer),
            duty: duty(layer),
            counts: counts.join(", "),
            rows: own.into_iter().map(|(_, row)| row.clone()).collect(),
        })
    }
}

impl Row {
    fn of(at: usize, finding: &Finding) -> Self {
        Self {
            at,
            id: visible(&finding.id),
            layer: command(finding.layer),
            class: class(finding.outcome),
            mark: mark(finding.outcome),
            word: word(finding.outcome).to_lowercase(),
            advisory: finding.weight == Weight::Advisory,
            because: visible(&finding.because),
            evidence: finding.evidence.iter().map(|line| visible(line)).collect(),
            next: next(finding).map(visible),
            accepted: finding.accepted.as_deref().map(visible),
            ahead: finding.ahead.as_ref().map(|ahead| Ahead {
                because: visible(&ahead.because),
                evidence: ahead.evidence.iter().map(|line| visible(line)).collect(),
                next: ahead.next.as_deref().map(visible),
            }),
        }
    }
}

/// How soon a reader should see it.
fn rank(finding: &Finding) -> u8 {
    match finding.outcome {
        _ if is_cause(finding) => 0,
        _ if finding.ahead.is_some() => 1,
        Outcome::Fail | Outcome::Unknown => 1,
        Outcome::Warn => 2,
        Outcome::Pass => 3,
        Outcome::Skipped => 4,
        Outcome::NotApplicable => 5,
    }
}

/// The outcome's class in the page's style.
fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
        Outcome::Unknown => "unknown",
        Outcome::Skipped | Outcome::NotApplicable => "aside",
    }
}

/// A sign beside the outcome's word, for those who see no colours and skim.
fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "✓",
        Outcome::Warn => "!",
        Outcome::Fail => "✗",
        Outcome::Unknown => "?",
        Outcome::Skipped | Outcome::NotApplicable => "–",
    }
}
