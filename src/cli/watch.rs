//! `doctor --watch`: the checks again and again, and only what changed.
//!
//! Every second the state of the files that facts come from is looked at, which costs next to nothing. Where it changed,
//! and at an interval besides, all facts are gathered anew: most of what the kernel and the daemons say has no file that
//! tells of a change.

use std::{fmt::Write as _, time::Duration};

use super::{Context, report};
use crate::{
    check::{
        self, Subject,
        report::{Finding, Layer, Outcome, Report},
    },
    error::{Error, Kind, Result},
    host::facts::{self, Known, Sources},
    system::clock,
    ui::{Format, exit},
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until a signal comes, which is its end: 130 or 143.
pub fn run(context: &Context, subject: &Subject<'_>, sources: &Sources, interval: u64) -> Result<u8> {
    if context.ui.format == Format::Junit {
        return Err(
            Error::usage("`--watch` has no end that JUnit could be written at").hint("use `--format json`")
        );
    }
    let ended = context.run(watch(context, subject, sources, Duration::from_secs(interval)));
    match ended {
        Err(error) => match error.kind() {
            Kind::Interrupted(number) => Ok(u8::try_from(128 + number).unwrap_or(exit::FAILED)),
            _ => Err(error),
        },
        Ok(never) => match never {},
    }
}

async fn watch(
    context: &Context,
    subject: &Subject<'_>,
    sources: &Sources,
    interval: Duration,
) -> Result<std::convert::Infallible> {
    let mut before: Option<Report> = None;
    loop {
        let stamp = facts::stamp(&subject.wanted, sources).await;
        let facts = Box::pin(facts::gather(&subject.wanted, sources)).await;
        let now = check::judge(&[Layer::Doctor], subject, &facts);
        show(context, before.as_ref(), &now)?;
        before = Some(now);
        wait(subject, sources, interval, &stamp).await;
    }
}

/// Waits for a change, at most for the interval. Where the files cannot be looked at, the interval alone counts.
async fn wait(
    subject: &Subject<'_>,
    sources: &Sources,
    interval: Duration,
    stamp: &Known<crate::digest::Digest>,
) {
    let changed = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = facts::stamp(&subject.wanted, sources).await;
            if now.ok().is_some() && now != *stamp {
                return;
            }
        }
    };
    // The interval's end is no error: it is the other reason to look again.
    let _ = tokio::time::timeout(interval, changed).await;
}

/// Shows the first report whole, of each later one what changed. JSON: one line each.
fn show(context: &Context, before: Option<&Report>, now: &Report) -> Result<()> {
    let at = clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(before) = before else {
        return match context.ui.format {
            Format::Json => {
                let line = serde_json::json!({ "schema": 1, "at": at, "report": report::json(now) });
                context.ui.data(&format!("{line}\n"))
            }
            _ => report::print(context, now).map(drop),
        };
    };
    let changed = changed(before, now);
    if changed.is_empty() {
        return Ok(());
    }
    if context.ui.format == Format::Json {
        let findings: Vec<&Finding> = changed.iter().map(|(_, finding)| *finding).collect();
        let line =
            serde_json::json!({ "schema": 1, "at": at, "ready": now.opens_gate(), "changed": findings });
        return context.ui.data(&format!("{line}\n"));
    }
    let mut out = String::new();
    for (was, finding) in changed {
        let _ = writeln!(
            out,
            "{at}  {} -> {}  {}  {}",
            was.map_or("new", report::word),
            report::word(finding.outcome),
            finding.id,
            finding.because
        );
        if let (Some(next), true) = (&finding.next, finding.accepted.is_none()) {
            let _ = writeln!(out, "                      next: {next}");
        }
    }
    if before.opens_gate() != now.opens_gate() {
        let _ =
            writeln!(out, "{at}  {}: {}", now.subject, if now.opens_gate() { "ready" } else { "not ready" });
    }
    context.ui.data(&out)
}

/// Findings with another outcome than before; of those that want something done, also with another reason or next step.
/// Evidence counts for nothing: free space moves all the time.
fn changed<'r>(before: &Report, now: &'r Report) -> Vec<(Option<Outcome>, &'r Finding)> {
    let mut found = Vec::new();
    for finding in &now.findings {
        let was = before.findings.iter().find(|was| was.id == finding.id);
        let wants = matches!(finding.outcome, Outcome::Fail | Outcome::Warn | Outcome::Unknown);
        let same = was.is_some_and(|was| {
            was.outcome == finding.outcome
                && was.accepted == finding.accepted
                && (!wants || was.because == finding.because && was.next == finding.next)
        });
        if !same {
            found.push((was.map(|was| was.outcome), finding));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Weight;

    fn report(outcome: Outcome, because: &str, evidence: &str) -> Report {
        let finding = Finding {
            id: "host.disk".to_owned(),
            layer: Layer::Doctor,
            weight: Weight::Required,
            outcome,
            because: because.to_owned(),
            evidence: vec![evidence.to_owned()],
            next: None,
            accepted: None,
        };
        Report { subject: "host".to_owned(), findings: vec![finding] }
    }

    #[test]
    fn only_what_a_person_would_act_on_counts_as_a_change() {
        let full = report(Outcome::Fail, "1 GiB free", "a");
        let fuller = report(Outcome::Fail, "0 GiB free", "a");
        let fine = report(Outcome::Pass, "room", "9 GiB");
        assert!(changed(&full, &full).is_empty());
        assert_eq!(changed(&full, &fuller).len(), 1);
        assert_eq!(changed(&full, &fine)[0].0, Some(Outcome::Fail));
        assert!(changed(&fine, &report(Outcome::Pass, "more room", "10 GiB")).is_empty());
        assert_eq!(changed(&Report::default(), &fine)[0].0, None);
    }
}
