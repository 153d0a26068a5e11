//! A diff as lines for a terminal.

use std::fmt::Write as _;

use super::{Change, Diff, PackageChange, RepositoryChange, VerdictsChange};

/// How many names a line holds where not all are asked for.
const SOME: usize = 12;

pub(super) fn text(diff: &Diff, all: bool) -> String {
    let mut out = String::new();
    for part in &diff.set {
        let sign = super::kind(part.from.is_some(), part.to.is_some()).sign();
        let _ = writeln!(out, "{sign} {}: {}", part.what, arrow(part.from.as_deref(), part.to.as_deref()));
        if part.what == "driver" {
            let moved = verdicts(&diff.verdicts);
            if !moved.is_empty() {
                out.truncate(out.len() - 1);
                let _ = writeln!(out, " ({moved})");
            }
        }
        if let Some(because) = &part.because {
            let _ = writeln!(out, "    {because}");
        }
    }
    for repository in &diff.repositories {
        repository_lines(&mut out, repository);
    }
    for image in &diff.images {
        let _ = writeln!(out, "{} image {}: {}", image.change.sign(), image.name, image.line());
        if let Some(because) = image.because() {
            let _ = writeln!(out, "    {because}");
        }
    }
    packages(&mut out, diff, all);
    for input in &diff.inputs {
        let _ = writeln!(out, "{} input {}", input.change.sign(), input.name);
    }
    out
}

/// `from → to`, or the one there is.
fn arrow(from: Option<&str>, to: Option<&str>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{from} → {to}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => String::new(),
    }
}

/// `three images go from refuse to native, one image goes from native to minor`.
pub(super) fn verdicts(moved: &[VerdictsChange]) -> String {
    let parts: Vec<String> = moved
        .iter()
        .map(|moved| match moved.images.len() {
            1 => format!("one image goes from {} to {}", moved.from, moved.to),
            count => format!("{} images go from {} to {}", number(count), moved.from, moved.to),
        })
        .collect();
    parts.join(", ")
}

/// Small numbers as words.
fn number(count: usize) -> String {
    const WORDS: [&str; 11] =
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    count
        .checked_sub(2)
        .and_then(|at| WORDS.get(at))
        .map_or_else(|| count.to_string(), |word| (*word).to_owned())
}

fn repository_lines(out: &mut String, repository: &RepositoryChange) {
    let name = &repository.name;
    if repository.change == Change::Removed {
        let _ = writeln!(out, "- repository {name}");
        return;
    }
    let sign = repository.change.sign();
    if repository.snapshot.0 != repository.snapshot.1 {
        let word = |snapshot: &Option<String>| snapshot.clone().unwrap_or_else(|| "none".to_owned());
        let (from, to) = (word(&repository.snapshot.0), word(&repository.snapshot.1));
        let _ = writeln!(out, "{sign} repository {name}: snapshot {from} → {to}");
    }
    if repository.change == Change::Added && repository.suites.is_empty() {
        let _ = writeln!(out, "+ repository {name}");
    }
    for suite in &repository.suites {
        let date = arrow(suite.date.0.as_deref(), suite.date.1.as_deref());
        let _ = writeln!(out, "{} repository {name}: {} of {date}", suite.change.sign(), suite.name);
        for key in &suite.new_keys {
            if suite.change == Change::Changed {
                let _ = writeln!(out, "! repository {name}: {} is SIGNED BY ANOTHER KEY: {key}", suite.name);
            } else {
                let _ = writeln!(out, "    signed by {key}");
            }
        }
        for key in suite.gone_keys.iter().filter(|_| suite.change == Change::Changed) {
            let _ = writeln!(out, "    no longer signed by {key}");
        }
    }
}

fn packages(out: &mut String, diff: &Diff, all: bool) {
    let (security, others): (Vec<_>, Vec<_>) = diff.packages.iter().partition(|change| change.is_security());
    if !security.is_empty() {
        let _ = writeln!(out, "~ security fixes in {}", count(security.len()));
        for change in &security {
            let _ = writeln!(out, "    {}", line(change));
        }
    }
    for (kind, word) in [(Change::Added, "more"), (Change::Removed, "fewer")] {
        let changes: Vec<&PackageChange> =
            others.iter().copied().filter(|change| change.change() == kind).collect();
        if changes.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{} {} {word}: {}", kind.sign(), count(changes.len()), names(&changes, all));
    }
    let rest: Vec<&PackageChange> =
        others.iter().copied().filter(|change| change.change() == Change::Changed).collect();
    if !rest.is_empty() {
        let other = if security.is_empty() { "" } else { "other " };
        let hint = if all { "" } else { " (`--verbose` lists them)" };
        let _ = writeln!(out, "~ {other}versions of {}{hint}", count(rest.len()));
        for change in rest.iter().filter(|_| all) {
            let _ = writeln!(out, "    {}", line(change));
        }
    }
}

fn names(changes: &[&PackageChange], all: bool) -> String {
    let some = if all { changes.len() } else { SOME };
    let names: Vec<&str> = changes.iter().take(some).map(|change| change.name()).collect();
    let more = changes.len() - names.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more (`--verbose` lists them)") };
    names.join(", ") + &more
}

/// `1 package`, `2 packages`.
pub(super) fn count(number: usize) -> String {
    if number == 1 { "1 package".to_owned() } else { format!("{number} packages") }
}

/// A package whose version differs, as one line.
fn line(change: &PackageChange) -> String {
    let version =
        |side: &Option<crate::lock::LockedPackage>| side.as_ref().map(|package| package.version.clone());
    let versions = arrow(version(&change.from).as_deref(), version(&change.to).as_deref());
    if change.is_same_version() {
        format!(
            "{} {}: the same version with OTHER CONTENT",
            change.name(),
            version(&change.to).unwrap_or_default()
        )
    } else {
        format!("{} {versions}", change.name())
    }
}
