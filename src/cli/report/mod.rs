//! How a report of checks is printed: a table for people, a page for people elsewhere, JSON and JUnit for programs. All
//! four are made from one [`Report`] and hold the same findings.

mod html;
mod json;
mod junit;
mod table;
#[cfg(test)]
mod tests;

pub use self::{html::html, json::json, junit::junit};
use super::Context;
use crate::{
    check::report::{Finding, Layer, Outcome, Report},
    error::Result,
    system::clock,
    ui::{Format, exit, table::terminal_width},
};

/// Prints a report in the format asked for, and gives the exit code it stands for.
pub fn print(context: &Context, report: &Report) -> Result<u8> {
    match context.ui.format {
        Format::Text => {
            context.ui.data(&table::table(report, context.ui.verbose > 0, terminal_width()))?;
        }
        Format::Json => context.ui.json(&json(report))?,
        Format::Junit => context.ui.data(&junit(report)?)?,
        Format::Html => context.ui.data(&html(report, clock::now())?)?,
    }
    Ok(if report.opens_gate() { exit::DONE } else { exit::CHECK })
}

/// Prints one layer of a report, with whatever below it shuts the gate, or fails as well.
pub fn print_layer(context: &Context, report: &Report, layer: Layer) -> Result<u8> {
    let mut shown = report.clone();
    shown.findings.retain(|finding| finding.layer == layer || is_cause(finding) || finding.ahead.is_some());
    print(context, &shown)?;
    if context.ui.format == Format::Text
        && let Some(next) = if report.opens_gate() { after(layer) } else { beside(layer) }
    {
        context.ui.say(next);
    }
    Ok(if report.opens_gate() { exit::DONE } else { exit::CHECK })
}

/// What a layer that is well leaves open: those above it were not looked at. None above the last.
fn after(layer: Layer) -> Option<&'static str> {
    match layer {
        Layer::Doctor => {
            Some("this was the host alone; what comes next: `bedplate toolkit verify` (Docker and its GPUs)")
        }
        Layer::Toolkit => {
            Some("what comes next: `bedplate runtime prepare --engine ENGINE` (the image, the model)")
        }
        Layer::Runtime => Some("what comes next: `bedplate up -f NAME`"),
        Layer::Up => None,
    }
}

/// What looks further than a layer at fault, for those who would rather mend everything in one round.
fn beside(layer: Layer) -> Option<&'static str> {
    (layer < Layer::Runtime).then_some(
        "the layers above were not looked at: `bedplate runtime prepare --engine ENGINE` shows what fails there as well",
    )
}

/// The outcome in one word, as printed.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Warn => "warn",
        Outcome::Fail => "FAIL",
        Outcome::Unknown => "unknown",
        Outcome::Skipped => "skipped",
        Outcome::NotApplicable => "n/a",
    }
}

/// The layer as its command.
pub fn command(layer: Layer) -> &'static str {
    match layer {
        Layer::Doctor => "doctor",
        Layer::Toolkit => "toolkit",
        Layer::Runtime => "runtime",
        Layer::Up => "up",
    }
}

/// What is said of skipped checks that fail as well.
const ALSO: &str = "these fail as well, and can be mended in the same round";

/// The layers, lowest first.
const LAYERS: [Layer; 4] = [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up];

/// The outcomes, in the order they are counted in.
const OUTCOMES: [Outcome; 6] =
    [Outcome::Pass, Outcome::Warn, Outcome::Fail, Outcome::Unknown, Outcome::Skipped, Outcome::NotApplicable];

/// What a layer is about.
fn duty(layer: Layer) -> &'static str {
    match layer {
        Layer::Doctor => "the host",
        Layer::Toolkit => "containers and their access to GPUs",
        Layer::Runtime => "the engine image",
        Layer::Up => "the deployment",
    }
}

/// Whether it shuts the gate of itself. What was skipped waits for something else.
fn is_cause(finding: &Finding) -> bool {
    finding.shuts_gate() && finding.outcome != Outcome::Skipped
}

/// What is to be done about it, where something is: not where it was accepted, nor where it was skipped, which is mended by
/// mending its cause.
fn next(finding: &Finding) -> Option<&str> {
    let speaks = matches!(finding.outcome, Outcome::Fail | Outcome::Unknown | Outcome::Warn);
    finding.next.as_deref().filter(|_| speaks && finding.accepted.is_none())
}

/// How many findings have each outcome, without those that none has.
fn counts<'f>(findings: impl IntoIterator<Item = &'f Finding> + Clone) -> Vec<(Outcome, usize)> {
    OUTCOMES
        .into_iter()
        .map(|outcome| (outcome, findings.clone().into_iter().filter(|f| f.outcome == outcome).count()))
        .filter(|(_, number)| *number > 0)
        .collect()
}

/// Whether the gate opens, in words; and the finding to start with, where one is to blame.
fn verdict(report: &Report) -> (String, Option<&Finding>) {
    match report.layer_to_blame() {
        Some(layer) => (
            format!("not ready, the layer to blame is {} (`{}`)", duty(layer), command(layer)),
            report.findings.iter().find(|finding| finding.layer == layer && is_cause(finding)),
        ),
        None if report.opens_gate() => ("ready".to_owned(), None),
        None => ("not ready, nothing could be looked at".to_owned(), None),
    }
}
