//! Release files: what a suite is, when, and the digests of its indices (Debian's repository format).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{control, index::sha256};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// How far a release file's date may lie in the future, in seconds (apt's `Acquire::Max-FutureTime`).
const SLACK: i64 = 10;

/// A release file, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) suite: Option<String>,
    pub(crate) codename: Option<String>,
    pub(crate) date: Timestamp,
    pub(crate) valid_until: Option<Timestamp>,
    /// How much its packages are preferred (apt_preferences(5)): 500, 100 or 1.
    pub(crate) priority: u16,
    /// Indices may be asked for by their digest.
    pub(crate) by_hash: bool,
    pub(crate) components: Vec<String>,
    pub(crate) architectures: Vec<String>,
    /// Packages for all architectures are in an index of their own.
    pub(crate) separate_all: bool,
    /// Where snapshots are, with `@SNAPSHOTID@` in it.
    pub(crate) snapshots: Option<String>,
    /// `Packages` and its compressed forms, by path.
    pub(crate) indices: BTreeMap<String, Listed>,
    /// Paths of indices that only MD5 or SHA-1 is given for.
    pub(crate) weak: BTreeSet<String>,
}

/// A file as a release file lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What a release file is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// The suite that was asked for; `None` for a flat repository.
    pub(crate) suite: Option<&'a str>,
    /// The clock.
    pub(crate) now: Timestamp,
    /// The time it is to be valid at: the snapshot's, else the clock's.
    pub(crate) at: Timestamp,
    /// It may not be older than this.
    pub(crate) not_before: Option<Timestamp>,
}

impl Release {
    /// Reads a release file. `place` names it in messages.
    ///
    /// # Errors
    /// It is no control data, its date is missing or broken, or it has no SHA-256.
    pub(crate) fn parse(text: &str, place: &str) -> Result<Self> {
        let broken = |why: String| {
            Error::failed(format!("{place} is broken: {why}"))
                .hint("tell the archive's owner, or use another mirror")
        };
        let stanzas = control::stanzas(text.as_bytes())
            .map_err(|bad| broken(format!("line {} is no control data: {}", bad.line, bad.why)))?;
        let [stanza] = stanzas.as_slice() else {
            return Err(broken(format!("it has {} stanzas, not one", stanzas.len())));
        };
        let date = |field: &str| -> Result<Option<Timestamp>> {
            let Some(text) = stanza.get(field) else { return Ok(None) };
            let date = parse_date(text);
            date.map(Some)
                .ok_or_else(|| broken(format!("its `{field}` is no date: `{}`", text.escape_debug())))
        };
        let mut indices = BTreeMap::new();
        for (path, digits, size) in listed(stanza.get("SHA256").unwrap_or_default()) {
            let digest = sha256(digits.as_bytes()).map(Digest::from_bytes);
            let (Some(digest), Ok(size)) = (digest, size.parse::<u64>()) else {
                return Err(broken(format!("its `SHA256` has a bad line for `{}`", path.escape_debug())));
            };
            let listed = Listed { digest, size };
            if indices.insert(path.to_owned(), listed).is_some_and(|before| before != listed) {
                return Err(broken(format!("its `SHA256` has `{}` twice", path.escape_debug())));
            }
        }
        let mut weak = BTreeSet::new();
        for field in ["MD5Sum", "SHA1"] {
            for (path, _, _) in listed(stanza.get(field).unwrap_or_default()) {
                if !indices.contains_key(path) {
                    weak.insert(path.to_owned());
                }
            }
        }
        let priority = match (stanza.yes("NotAutomatic"), stanza.yes("ButAutomaticUpgrades")) {
            (false, _) => 500,
            (true, true) => 100,
            (true, false) => 1,
        };
        let architectures = stanza.words("Architectures");
        let separate_all = architectures.iter().any(|name| name == "all")
            && !stanza.words("No-Support-for-Architecture-all").iter().any(|what| what == "Packages");
        Ok(Self {
            suite: stanza.get("Suite").map(str::to_owned),
            codename: stanza.get("Codename").map(str::to_owned),
            date: date("Date")?.ok_or_else(|| broken("it has no `Date`".to_owned()))?,
            valid_until: date("Valid-Until")?,
            priority,
            by_hash: stanza.yes("Acquire-By-Hash"),
            components: stanza.words("Components"),
            architectures,
            separate_all,
            snapshots: stanza
                .get("Snapshots")
                .filter(|text| text.contains("@SNAPSHOTID@"))
                .map(str::to_owned),
            indices,
            weak,
        })
    }

    /// Holds it against what was asked for and the clock.
    ///
    /// # Errors
    /// It is of another suite, from the future, expired, or older than one that was seen before.
    pub(crate) fn check(&self, expected: Expected<'_>, place: &str) -> Result<()> {
        let Expected { suite, now, at, not_before } = expected;
        if let Some(asked) = suite {
            let names = [self.suite.as_deref(), self.codename.as_deref()];
            // `bullseye/updates` and the like: the part before the slash.
            let is =
                |name: &str| name == asked || asked.split_once('/').is_some_and(|(head, _)| head == name);
            if names.iter().any(Option::is_some) && !names.into_iter().flatten().any(is) {
                let says = names
                    .into_iter()
                    .flatten()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(Error::failed(format!("{place} is of another suite: it says {says}, not `{asked}`"))
                    .hint("the mirror serves another release under that name: use another mirror, or name that suite"));
            }
        }
        if self.date.as_second() > now.as_second() + SLACK {
            return Err(Error::failed(format!(
                "{place} is from the future: it was made at {}, and this machine's clock says {now:.0}",
                self.date
            ))
            .hint("set the clock: `timedatectl set-ntp true`, then `timedatectl`"));
        }
        if let Some(until) = self.valid_until.filter(|until| *until < at) {
            return Err(Error::failed(format!(
                "{place} expired: it was valid until {until}, and {} is {at:.0}",
                if at == now { "now it" } else { "the snapshot's time" }
            ))
            .hint("the mirror is no longer kept up: use another, `--mirror URL`; or see whether the clock is right: `date`"));
        }
        if let Some(before) = not_before.filter(|before| self.date < *before) {
            return Err(Error::failed(format!(
                "the mirror is behind: {place} is of {}, and one of {before} was verified before",
                self.date
            ))
            .hint("use another mirror, `--mirror URL`, or wait until this one has caught up"));
        }
        Ok(())
    }

    /// Whether there is that component: by its last part, as in `updates/main`.
    pub(crate) fn has_component(&self, component: &str) -> bool {
        let last = |name: &str| name.rsplit('/').next().map(str::to_owned);
        self.components.is_empty()
            || self.components.iter().any(|name| name == component || last(name) == last(component))
    }

    /// Whether there is that architecture; a release file that names none has any.
    pub(crate) fn has_architecture(&self, architecture: &str) -> bool {
        self.architectures.is_empty() || self.architectures.iter().any(|name| name == architecture)
    }
}

/// The lines of a list of files that are indices of packages: path, digest, size.
fn listed(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().filter_map(|line| {
        // Most lines are other files: looked at from their end first.
        if !line.contains("Packages") {
            return None;
        }
        let mut words = line.split_whitespace();
        let (digest, size, path) = (words.next()?, words.next()?, words.next()?);
        let path = path.trim_start_matches("./");
        let name = path.rsplit('/').next()?;
        let wanted =
            name == "Packages" || name.strip_prefix("Packages.").is_some_and(|form| !form.contains('.'));
        let safe = !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        (wanted && safe).then_some((path, digest, size))
    })
}

/// Dates as release files write them: RFC 5322 with `UTC`, which is not of that RFC, for its zone.
fn parse_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let head = ["UTC", "GMT", "Z"].iter().find_map(|zone| text.strip_suffix(zone));
    let text = head.map_or_else(|| text.to_owned(), |head| format!("{} +0000", head.trim_end()));
    jiff::fmt::rfc2822::parse(&text).ok().map(|date| date.timestamp())
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
