//! The report for people at a terminal: a line for each finding, below it what it was seen in and what to do. On a
//! terminal long lines are broken at its width and go on below their own column; elsewhere a line stays a line.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Color, Style};

use super::{ALSO, command, counts, duty, next, verdict, word};
use crate::{
    check::{
        diagnosis::{chains, lines},
        report::{Finding, Outcome, Report},
    },
    ui::text,
};

/// The least room beside the ids; with less, what was found stands below them.
const LEAST: usize = 36;

/// The report as a table; `width`: the terminal's, where there is one.
pub fn table(report: &Report, verbose: bool, width: Option<usize>) -> String {
    let ids = report.findings.iter().map(|finding| finding.id.len()).max().unwrap_or(0);
    let mut table = Table { out: String::new(), ids, width, verbose };
    let mut last = None;
    for alike in report.findings.chunk_by(|one, next| !verbose && said_once(one, next)) {
        let [finding, more @ ..] = alike else { continue };
        if last != Some(finding.layer) {
            if last.is_some() {
                table.out.push('\n');
            }
            last = Some(finding.layer);
            let bold = Style::new().bold();
            table.text(&format!("{bold}{}{bold:#}  ", command(finding.layer)), "  ", duty(finding.layer));
        }
        if more.is_empty() {
            table.row(&finding.id, finding);
        } else {
            table.row(&format!("{}* ({})", family(&finding.id), alike.len()), finding);
        }
    }
    table.out.push('\n');
    table.summary(report);
    table.out
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

/// A table while it is written.
struct Table {
    out: String,
    /// Columns of the longest id.
    ids: usize,
    width: Option<usize>,
    verbose: bool,
}

impl Table {
    fn row(&mut self, id: &str, finding: &Finding) {
        let style = style(finding.outcome);
        let word = word(finding.outcome);
        let beside = self.ids + 13;
        let narrow = self.width.is_some_and(|width| width < beside + LEAST);
        let indent = " ".repeat(if narrow { 4 } else { beside });
        if narrow {
            let _ = writeln!(self.out, "  {style}{word:<7}{style:#}  {id}");
            self.text(&indent, &indent, &finding.because);
        } else {
            let first = format!("  {style}{word:<7}{style:#}  {id:<ids$}  ", ids = self.ids);
            self.text(&first, &indent, &finding.because);
        }
        let hanging = format!("{indent}  ");
        if self.verbose || finding.outcome == Outcome::Fail {
            for line in &finding.evidence {
                self.text(&indent, &hanging, line);
            }
        }
        let cyan = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Cyan)));
        if let Some(ahead) = &finding.ahead {
            self.text(&format!("{indent}fails as well: "), &hanging, &ahead.because);
            for line in &ahead.evidence {
                self.text(&indent, &hanging, line);
            }
            if let Some(next) = &ahead.next {
                self.text(&format!("{indent}{cyan}then:{cyan:#} "), &hanging, next);
            }
        }
        if let Some(reason) = &finding.accepted {
            self.text(&format!("{indent}accepted: "), &hanging, reason);
        } else if let Some(next) = next(finding) {
            self.text(&format!("{indent}{cyan}next:{cyan:#} "), &hanging, next);
        }
    }

    /// Appends a text that begins behind `first`; each further line begins with `indent`.
    fn text(&mut self, first: &str, indent: &str, text: &str) {
        let text = text::visible(text);
        let mut first = first;
        // A text without a line is shown, too.
        for line in text.split('\n') {
            match self.width {
                Some(width) => {
                    for piece in text::wrapped(line, width, first, indent) {
                        let _ = writeln!(self.out, "{piece}");
                    }
                }
                None => {
                    let _ = writeln!(self.out, "{first}{line}");
                }
            }
            first = indent;
        }
    }

    fn summary(&mut self, report: &Report) {
        let counts: Vec<String> = counts(&report.findings)
            .into_iter()
            .map(|(outcome, number)| format!("{number} {}", word(outcome).to_lowercase()))
            .collect();
        let (verdict, first) = verdict(report);
        self.text("", "  ", &format!("{}: {verdict} ({})", report.subject, counts.join(", ")));
        if let Some(first) = first {
            for line in lines(&chains(report)) {
                self.text("", "  ", &line);
            }
            let ahead = report.ahead();
            if !ahead.is_empty() {
                let line = format!("{ALSO}: {}", ahead.join(", "));
                self.text("", "  ", &line);
            }
            let id = &first.id;
            self.text("", "  ", &format!("start with {id}: `bedplate explain {id}`"));
        }
    }
}
