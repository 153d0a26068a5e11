//! How a report of checks is printed: a table for people, JSON and JUnit with the same data.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Color, Style};
use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::Context;
use crate::{
    check::{
        diagnosis::{chains, lines},
        report::{Finding, Layer, Outcome, Report},
    },
    error::{Doing as _, Result},
    ui::{Format, exit},
};

/// Prints a report in the format asked for, and gives the exit code it stands for.
pub fn print(context: &Context, report: &Report) -> Result<u8> {
    match context.ui.format {
        Format::Text => context.ui.data(&table(report, context.ui.verbose > 0))?,
        Format::Json => context.ui.json(&json(report))?,
        Format::Junit => context.ui.data(&junit(report)?)?,
    }
    Ok(if report.opens_gate() { exit::DONE } else { exit::CHECK })
}

/// Prints one layer of a report, with whatever below it shuts the gate.
pub fn print_layer(context: &Context, report: &Report, layer: Layer) -> Result<u8> {
    let mut shown = report.clone();
    shown.findings.retain(|finding| {
        finding.layer == layer || finding.shuts_gate() && finding.outcome != Outcome::Skipped
    });
    print(context, &shown)?;
    Ok(if report.opens_gate() { exit::DONE } else { exit::CHECK })
}

/// The report as JSON: the findings, and what follows from them.
pub fn json(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "schema": 1,
        "subject": report.subject,
        "ready": report.opens_gate(),
        "blame": report.layer_to_blame(),
        "diagnosis": { "causes": chains(report) },
        "findings": report.findings,
    })
}

fn style(outcome: Outcome) -> Style {
    let color = match outcome {
        Outcome::Pass => AnsiColor::Green,
        Outcome::Warn => AnsiColor::Yellow,
        Outcome::Fail => AnsiColor::Red,
        Outcome::Unknown => AnsiColor::Magenta,
        Outcome::Skipped | Outcome::NotApplicable => AnsiColor::BrightBlack,
    };
    let style = Style::new().fg_color(Some(Color::Ansi(color)));
    if matches!(outcome, Outcome::Fail | Outcome::Unknown) { style.bold() } else { style }
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

fn table(report: &Report, verbose: bool) -> String {
    let mut out = String::new();
    let width = report.findings.iter().map(|finding| finding.id.len()).max().unwrap_or(0);
    let mut last = None;
    for alike in report.findings.chunk_by(|one, next| !verbose && said_once(one, next)) {
        let [finding, more @ ..] = alike else { continue };
        if last != Some(finding.layer) {
            if last.is_some() {
                out.push('\n');
            }
            last = Some(finding.layer);
            let bold = Style::new().bold();
            let _ = writeln!(out, "{bold}{}{bold:#}  {}", command(finding.layer), duty(finding.layer));
        }
        if more.is_empty() {
            row(&mut out, &finding.id, finding, width, verbose);
        } else {
            row(&mut out, &format!("{}* ({})", family(&finding.id), alike.len()), finding, width, verbose);
        }
    }
    out.push('\n');
    out.push_str(&summary(report));
    out
}

fn duty(layer: Layer) -> &'static str {
    match layer {
        Layer::Doctor => "the host",
        Layer::Toolkit => "containers and their access to GPUs",
        Layer::Runtime => "the engine image",
        Layer::Up => "the deployment",
    }
}

/// Whether one line is enough for both: neighbours of one family that do not apply, for the same reason.
fn said_once(one: &Finding, next: &Finding) -> bool {
    one.outcome == Outcome::NotApplicable
        && next.outcome == Outcome::NotApplicable
        && one.layer == next.layer
        && family(&one.id) == family(&next.id)
        && one.because == next.because
}

/// The part of an id that checks of one subject share, with its dot.
fn family(id: &str) -> &str {
    id.split_inclusive('.').next().unwrap_or(id)
}

fn row(out: &mut String, id: &str, finding: &Finding, width: usize, verbose: bool) {
    let style = style(finding.outcome);
    let word = word(finding.outcome);
    let _ = writeln!(out, "  {style}{word:<7}{style:#}  {id:<width$}  {}", finding.because);
    let indent = " ".repeat(width + 13);
    if verbose || finding.outcome == Outcome::Fail {
        for line in &finding.evidence {
            let _ = writeln!(out, "{indent}{line}");
        }
    }
    if let Some(reason) = &finding.accepted {
        let _ = writeln!(out, "{indent}accepted: {reason}");
    } else if let (Some(next), true) = (&finding.next, speaks(finding.outcome)) {
        let cyan = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Cyan)));
        let _ = writeln!(out, "{indent}{cyan}next:{cyan:#} {next}");
    }
}

/// Whether something is to be done about it. What was skipped is mended by mending its cause.
fn speaks(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Fail | Outcome::Unknown | Outcome::Warn)
}

fn summary(report: &Report) -> String {
    let number = |wanted| report.findings.iter().filter(|finding| finding.outcome == wanted).count();
    let mut parts = Vec::new();
    for outcome in [
        Outcome::Pass,
        Outcome::Warn,
        Outcome::Fail,
        Outcome::Unknown,
        Outcome::Skipped,
        Outcome::NotApplicable,
    ] {
        let found = number(outcome);
        if found > 0 {
            parts.push(format!("{found} {}", word(outcome).to_lowercase()));
        }
    }
    let counts = parts.join(", ");
    let subject = &report.subject;
    match report.layer_to_blame() {
        Some(layer) => {
            let first = report.findings.iter().find(|finding| {
                finding.layer == layer && finding.shuts_gate() && finding.outcome != Outcome::Skipped
            });
            let id = first.map_or("", |finding| finding.id.as_str());
            let mut follows = lines(&chains(report)).join("\n");
            if !follows.is_empty() {
                follows.push('\n');
            }
            format!(
                "{subject}: not ready, the layer to blame is `{}` ({counts})\n{follows}start with {id}: `bedplate explain {id}`\n",
                command(layer)
            )
        }
        None if report.opens_gate() => format!("{subject}: ready ({counts})\n"),
        None => format!("{subject}: not ready, nothing could be looked at ({counts})\n"),
    }
}

fn junit(report: &Report) -> Result<String> {
    let mut junit = Junit::new("bedplate");
    for layer in [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up] {
        let findings: Vec<_> = report.findings.iter().filter(|finding| finding.layer == layer).collect();
        if findings.is_empty() {
            continue;
        }
        let mut suite = TestSuite::new(command(layer));
        for finding in findings {
            suite.add_test_case(case(finding));
        }
        junit.add_test_suite(suite);
    }
    junit.to_string().doing(|| "writing JUnit failed")
}

fn case(finding: &Finding) -> TestCase {
    let status = match finding.outcome {
        Outcome::Pass | Outcome::Warn => TestCaseStatus::success(),
        _ if finding.accepted.is_some() => TestCaseStatus::success(),
        Outcome::Fail => non_success(NonSuccessKind::Failure, finding),
        Outcome::Unknown => non_success(NonSuccessKind::Error, finding),
        Outcome::Skipped | Outcome::NotApplicable => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(finding.because.clone());
            status
        }
    };
    let mut case = TestCase::new(finding.id.clone(), status);
    case.set_classname(command(finding.layer));
    let mut lines = vec![format!("{}: {}", word(finding.outcome), finding.because)];
    lines.extend(finding.evidence.iter().cloned());
    lines.extend(finding.next.iter().map(|next| format!("next: {next}")));
    lines.extend(finding.accepted.iter().map(|reason| format!("accepted: {reason}")));
    case.set_system_out(lines.join("\n"));
    case
}

fn non_success(kind: NonSuccessKind, finding: &Finding) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(finding.because.clone());
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Weight;

    fn finding(id: &str, layer: Layer, outcome: Outcome) -> Finding {
        Finding {
            id: id.into(),
            layer,
            weight: Weight::Required,
            outcome,
            because: format!("because of {id}"),
            evidence: vec!["path: value".into()],
            next: Some("do this".into()),
            accepted: None,
        }
    }

    fn report() -> Report {
        Report {
            subject: "host".into(),
            findings: vec![
                finding("host.os", Layer::Doctor, Outcome::Pass),
                finding("gpu.pci", Layer::Doctor, Outcome::Fail),
                finding("docker.daemon", Layer::Toolkit, Outcome::Skipped),
            ],
        }
    }

    #[test]
    fn the_table_names_the_layer_and_one_next_step_a_failure() {
        let text = anstream::adapter::strip_str(&table(&report(), false)).to_string();
        assert!(text.contains("FAIL     gpu.pci        because of gpu.pci"), "{text}");
        assert_eq!(text.matches("next: do this").count(), 1, "{text}");
        assert!(text.contains("the layer to blame is `doctor`"), "{text}");
        assert!(text.contains("start with gpu.pci"), "{text}");
    }

    #[test]
    fn a_chain_is_one_cause_with_what_follows() {
        let text = anstream::adapter::strip_str(&table(&report(), false)).to_string();
        assert!(text.contains("\ngpu.pci failed, and so: docker.daemon\nstart with gpu.pci"), "{text}");
        let json = json(&report());
        let causes = json["diagnosis"]["causes"].as_array().unwrap();
        assert_eq!(causes.len(), 1);
        assert_eq!((&causes[0]["id"], &causes[0]["next"]), (&"gpu.pci".into(), &"do this".into()));
        assert_eq!(causes[0]["consequences"][0]["id"], "docker.daemon");
        // With nothing to mend nothing is said.
        let fine = Report { findings: report().findings[..1].to_vec(), ..report() };
        assert_eq!(super::json(&fine)["diagnosis"]["causes"], serde_json::json!([]));
        assert!(!table(&fine, false).contains("and so"), "{}", table(&fine, false));
    }

    #[test]
    fn what_does_not_apply_for_one_reason_is_one_line() {
        let mut report = report();
        for id in ["gpu.count", "gpu.ecc", "toolkit.wiring"] {
            let because = "the profile's host has no GPUs".into();
            report.findings.push(Finding { because, ..finding(id, Layer::Toolkit, Outcome::NotApplicable) });
        }
        report.findings.push(finding("toolkit.smoke", Layer::Toolkit, Outcome::NotApplicable));
        let text = anstream::adapter::strip_str(&table(&report, false)).to_string();
        assert!(text.contains("n/a      gpu.* (2)       the profile's host has no GPUs\n"), "{text}");
        assert!(
            text.contains("  toolkit.wiring  the") && text.contains("  toolkit.smoke   because"),
            "{text}"
        );
        assert!(text.contains("4 n/a"), "{text}");
        let whole = anstream::adapter::strip_str(&table(&report, true)).to_string();
        assert!(whole.contains("gpu.count") && whole.contains("gpu.ecc"), "{whole}");
    }

    #[test]
    fn junit_and_json_hold_the_same_findings() {
        let xml = junit(&report()).unwrap();
        let json = json(&report()).to_string();
        for id in ["host.os", "gpu.pci", "docker.daemon"] {
            assert!(xml.contains(id) && json.contains(id), "{id}");
        }
        assert!(xml.contains("failures=\"1\"") && json.contains("\"ready\":false"));
    }
}
