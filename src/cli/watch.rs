//! `doctor --watch`: the checks again and again, and only what changed.
//!
//! Every second the state of the files that facts come from is looked at, which costs next to nothing, and that of the
//! profile, lock and deployments. Where it changed, and at an interval besides, all is read and gathered anew: most of what
//! the kernel and the daemons say has no file that tells of a change. Between two times there is some rest, so that a host
//! where something changes all the time has other things to do.

use std::{collections::BTreeSet, convert::Infallible, fmt::Write as _, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Context, args, doctor, inputs, report,
    subject::{self, Held},
};
use crate::{
    check::{
        self,
        report::{Finding, Layer, Outcome, Report},
    },
    digest::Digest,
    error::{Error, Kind, Result},
    host::facts::{self, Known, Sources, Wanted},
    profile::Deployment,
    system::clock,
    ui::{Format, errors, exit},
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The least time from the end of one gathering to the begin of the next.
const REST: Duration = Duration::from_secs(5);
/// The rest is at least so many times what the gathering took.
const REST_SHARE: u32 = 10;

/// Runs until a signal comes, which is its end: 130 or 143.
pub fn run(context: &Context, args: &args::Doctor, sources: &Sources) -> Result<u8> {
    if let Some(format) = context.ui.format.of_checks_alone() {
        return Err(Error::usage(format!(
            "`--watch` has no end that `--format {format}` could be written at"
        ))
        .hint("use `--format json`"));
    }
    let watch = Watch {
        context,
        args,
        sources,
        interval: Duration::from_secs(args.interval),
        files: BTreeSet::new(),
        named: None,
        before: None,
        trouble: None,
    };
    match context.run(watch.run()) {
        Err(error) => match error.kind() {
            Kind::Interrupted(number) => Ok(u8::try_from(128 + number).unwrap_or(exit::FAILED)),
            _ => Err(error),
        },
        Ok(never) => match never {},
    }
}

/// What is watched, and what is kept from one look to the next.
struct Watch<'c> {
    context: &'c Context,
    args: &'c args::Doctor,
    sources: &'c Sources,
    interval: Duration,
    /// The files that say what to judge by, when that could last be read.
    files: BTreeSet<PathBuf>,
    /// The deployment that was named, and the state of the files when it was read, where that is known.
    named: Option<(Option<Digest>, Deployment)>,
    /// The report that was shown.
    before: Option<Report>,
    /// The error that was shown, until it is gone.
    trouble: Option<String>,
}

/// What one look gave.
struct Seen {
    report: Report,
    wanted: Wanted,
    /// The state of what the facts come from, from before they were gathered.
    stamp: Known<Digest>,
    /// How long the next gathering must wait.
    rest: Duration,
}

impl Watch<'_> {
    async fn run(mut self) -> Result<Infallible> {
        let mut rested = Instant::now();
        loop {
            // Where this fails, so does the look, which says so; the files are those of before.
            if let Ok(files) = doctor::inputs_of(self.context, self.args, &self.sources.root) {
                self.files = files;
            }
            // Before they are read, so that no edit falls in between.
            let inputs = self.sources.stamp_of_inputs(&self.files).await;
            // All that is judged is part of the look, which is too large to be held by value.
            let host = match Box::pin(self.look(&inputs)).await {
                Ok(seen) => {
                    rested = Instant::now() + seen.rest;
                    if self.trouble.take().is_some() {
                        self.context.ui.say("what to judge by can be read again");
                    }
                    show(self.context, self.before.as_ref(), &seen.report)?;
                    self.before = Some(seen.report);
                    Some((seen.wanted, seen.stamp))
                }
                Err(error) if self.before.is_none() => return Err(error),
                Err(error) => {
                    self.tell(&error);
                    None
                }
            };
            self.wait(rested, &inputs, host.as_ref()).await;
        }
    }

    /// Reads what to judge by, and judges. `inputs`: the state of its files.
    async fn look(&mut self, inputs: &Known<Digest>) -> Result<Seen> {
        let held = Held::find(self.context, &self.sources.root, self.args.profile.as_deref())?;
        self.read_named(inputs.ok().copied())?;
        let named = self.named.as_ref().map(|(_, deployment)| deployment);
        let subject = doctor::of_host(self.context, &held, named)?;
        let stamp = facts::stamp(&subject.wanted, self.sources).await;
        let started = Instant::now();
        let facts = subject::gather(self.context, &subject.wanted, self.sources).await;
        let rest = rest(started.elapsed(), self.interval);
        let report = check::judge(&[Layer::Doctor], &subject, &facts);
        Ok(Seen { report, wanted: subject.wanted, stamp, rest })
    }

    /// Reads the deployment that was named, where the state of the files is another one, or not known: what it warns of is
    /// said each time.
    fn read_named(&mut self, state: Option<Digest>) -> Result<()> {
        let Some(file) = &self.args.file else { return Ok(()) };
        let same = self.named.as_ref().is_some_and(|(then, _)| then.is_some() && *then == state);
        if !same {
            // One that cannot be read is not judged by what it was.
            self.named = None;
            let (_, deployment) = inputs::deployment(self.context, file)?;
            self.named = Some((state, deployment));
        }
        Ok(())
    }

    /// Shows why there was nothing to judge by, once.
    fn tell(&mut self, error: &Error) {
        let text = errors::render(error);
        if self.trouble.as_ref() != Some(&text) {
            self.context.ui.error(error);
            self.context.ui.say("nothing was judged; watching goes on");
            self.trouble = Some(text);
        }
    }

    /// Waits for a change that comes, or came, until there was rest; at most for the interval. Where the files cannot be
    /// looked at, the interval alone counts.
    async fn wait(&self, rested: Instant, inputs: &Known<Digest>, host: Option<&(Wanted, Known<Digest>)>) {
        let differs = |now: &Known<Digest>, then: &Known<Digest>| now.ok().is_some() && now != then;
        let changed = async {
            sleep_until(rested).await;
            loop {
                if differs(&self.sources.stamp_of_inputs(&self.files).await, inputs) {
                    return;
                }
                if let Some((wanted, then)) = host
                    && differs(&facts::stamp(wanted, self.sources).await, then)
                {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        // The interval's end is no error: it is the other reason to look again.
        let _ = timeout(self.interval, changed).await;
    }
}

/// How long to rest after a gathering that took so long.
fn rest(took: Duration, interval: Duration) -> Duration {
    took.saturating_mul(REST_SHARE).max(REST).min(interval)
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
            ahead: None,
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

    #[test]
    fn there_is_rest_between_two_gatherings() {
        for (took, interval, rests) in [(0, 30, 5), (1, 30, 10), (7, 30, 30), (0, 1, 1)] {
            let found = rest(Duration::from_secs(took), Duration::from_secs(interval));
            assert_eq!(found, Duration::from_secs(rests));
        }
    }
}
