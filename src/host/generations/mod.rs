//! Generations: applied plans, numbered, kept, switchable.
//!
//! `N/` holds `about.json` (number, bundle, profile), `state`, `record.json` (what it owns), `bundle/` (its
//! inputs as plain files), `before/` (saved contents, by digest), `host-profile.json` and `report.json`.

mod gc;
mod journal;
mod write;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub(crate) use self::write::{
    Ready, commit, forget_readiness, left_over, never_whole, note_credential, prepare, read_saved, sweep,
    tidy,
};
pub use self::{
    gc::{Collected, gc},
    journal::Journal,
};
use super::layout::{CURRENT, GENERATIONS, HOST_PROFILE, REPORT, generation};
use crate::{
    digest::Digest,
    error::{Doing as _, Error, Result},
    lock::{self, bundle::Bundle},
    plan::{Known, RECORD_VERSION, Record},
    system::files::{Owner, Root},
};

/// Largest file of a generation that is read, in bytes.
const LIMIT: u64 = 64 << 20;

/// How far a generation got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is being made, or its making was interrupted.
    Pending,
    /// It was made whole.
    Committed,
    /// It was made whole earlier, and a run is going back to it, or was interrupted at that.
    Switching,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Committed => "committed",
            Self::Switching => "switching",
        })
    }
}

/// What a generation is, apart from what it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct About {
    /// Its number.
    pub number: u64,
    /// Digest of its bundle.
    pub bundle: Digest,
    /// Name of its profile.
    pub profile: String,
    /// Digest of its lock.
    pub lock: Digest,
    /// When it was begun.
    pub created: jiff::Timestamp,
    /// Version of the bedplate that made it.
    pub made_by: String,
}

/// A generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// What it is.
    pub about: About,
    /// How far it got.
    pub state: State,
    /// What it owns.
    pub record: Record,
}

impl Generation {
    pub(crate) fn known(&self) -> Known {
        Known { number: self.about.number, bundle: self.about.bundle, record: self.record.clone() }
    }
}

/// One line of `generations list`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// What it is; `None` where it cannot be read.
    pub about: Option<About>,
    /// Its number.
    pub number: u64,
    /// How far it got; `None` where it cannot be read.
    pub state: Option<State>,
    /// Whether it is the current one.
    pub current: bool,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// The generations of a host or tree.
#[derive(Debug, Clone, Copy)]
pub struct Generations<'a> {
    root: &'a Root,
}

impl<'a> Generations<'a> {
    /// Those beneath `root`. Reads nothing yet.
    pub fn new(root: &'a Root) -> Self {
        Self { root }
    }

    /// Numbers of all there are, oldest first.
    pub fn numbers(self) -> Result<Vec<u64>> {
        let entries = self.root.list(GENERATIONS)?;
        let mut numbers: Vec<u64> =
            entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The number of the current one.
    pub fn current_number(self) -> Result<Option<u64>> {
        let Some(target) = self.root.read_link(CURRENT)? else { return Ok(None) };
        let number = target.strip_prefix("generations/").and_then(|number| number.parse().ok());
        number.map(Some).ok_or_else(|| {
            Error::failed(format!(
                "`{CURRENT}` points to `{}`, which is no generation",
                target.escape_debug()
            ))
            .hint(format!("point it to one of `ls {GENERATIONS}`: `ln -sfn generations/N {CURRENT}`"))
        })
    }

    /// The current one. `None` on a host that was never provisioned.
    pub fn current(self) -> Result<Option<Generation>> {
        self.current_number()?.map(|number| self.load(number)).transpose()
    }

    /// Generation `number`.
    ///
    /// # Errors
    /// It is not there, was made by a newer bedplate, or cannot be read.
    pub fn load(self, number: u64) -> Result<Generation> {
        let folder = generation(number);
        if self.root.stat(&folder)?.is_none() {
            return Err(Error::failed(format!("there is no generation {number}"))
                .hint("see which there are: `bedplate generations list`"));
        }
        let about: About = self.read_json(number, "about.json")?;
        let record: Record = self.read_json(number, "record.json")?;
        if record.version > RECORD_VERSION {
            return Err(Error::failed(format!("generation {number} was made by a newer bedplate"))
                .hint("use that version, or provision anew"));
        }
        Ok(Generation { about, state: self.state(number)?, record })
    }

    /// How far generation `number` got.
    pub fn state(self, number: u64) -> Result<State> {
        let text = self.root.read_text(&format!("{}/state", generation(number)), 64)?.unwrap_or_default();
        match text.trim_end() {
            "pending" => Ok(State::Pending),
            "committed" => Ok(State::Committed),
            "switching" => Ok(State::Switching),
            _ => Err(unreadable(number, "its `state` says nothing known")),
        }
    }

    /// Those that a run was working on when it was interrupted, oldest first, the current one not among them.
    pub fn interrupted(self, current: Option<u64>) -> Result<Vec<Generation>> {
        let mut found = Vec::new();
        for number in self.numbers()? {
            if Some(number) != current && self.state(number)? != State::Committed {
                found.push(self.load(number)?);
            }
        }
        Ok(found)
    }

    /// All, oldest first. One that cannot be read is listed as such.
    pub fn list(self) -> Result<Vec<Listed>> {
        let current = self.current_number()?;
        let one = |number| {
            let loaded: Result<(About, State)> =
                self.read_json(number, "about.json").and_then(|about| Ok((about, self.state(number)?)));
            let current = current == Some(number);
            match loaded {
                Ok((about, state)) => {
                    Listed { about: Some(about), number, state: Some(state), current, unreadable: None }
                }
                Err(error) => Listed {
                    about: None,
                    number,
                    state: None,
                    current,
                    unreadable: Some(error.message().to_owned()),
                },
            }
        };
        Ok(self.numbers()?.into_iter().map(one).collect())
    }

    /// The bundle of generation `number`: its profile, lock, deployments and files.
    pub fn bundle(self, number: u64) -> Result<Bundle> {
        let about: About = self.read_json(number, "about.json")?;
        let bundle = Bundle::from_files(self.bundle_files(number)?)
            .doing(|| format!("reading the bundle of generation {number}"))?;
        if bundle.digest() != about.bundle {
            return Err(unreadable(number, "its bundle was changed"));
        }
        Ok(bundle)
    }

    fn bundle_files(self, number: u64) -> Result<BTreeMap<String, Vec<u8>>> {
        let folder = format!("{}/bundle", generation(number));
        let mut files = BTreeMap::new();
        self.collect(&folder, "", &mut files)?;
        if files.is_empty() {
            return Err(unreadable(number, "its bundle is missing"));
        }
        Ok(files)
    }

    fn collect(self, folder: &str, at: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
        for entry in self.root.list(folder)? {
            let path = format!("{folder}/{}", entry.name);
            let name = if at.is_empty() { entry.name.clone() } else { format!("{at}/{}", entry.name) };
            if entry.is_dir {
                self.collect(&path, &name, files)?;
            } else if let Some(content) = self.root.read(&path, LIMIT)? {
                files.insert(name, content);
            }
        }
        Ok(())
    }

    /// Keeps the report of the checks made after generation `number` was applied.
    pub fn keep_report(&self, number: u64, report: &serde_json::Value) -> Result<()> {
        let path = format!("{}/{REPORT}", generation(number));
        let mut text = serde_json::to_vec_pretty(report).doing(|| format!("writing `{path}` failed"))?;
        text.push(b'\n');
        self.root.write(&path, &text, 0o600, Owner::current())
    }

    /// Whether the checks passed after generation `number` was applied. `None`: they were not made.
    pub fn is_ready(&self, number: u64) -> Option<bool> {
        let report: serde_json::Value = self.read_json(number, REPORT).ok()?;
        report.get("ready")?.as_bool()
    }

    /// The realised profile of generation `number`, as JSON.
    pub fn host_profile(self, number: u64) -> Result<serde_json::Value> {
        self.read_json(number, HOST_PROFILE)
    }

    fn read_json<T: serde::de::DeserializeOwned>(self, number: u64, name: &str) -> Result<T> {
        let path = format!("{}/{name}", generation(number));
        let content = self
            .root
            .read(&path, LIMIT)?
            .ok_or_else(|| unreadable(number, &format!("`{name}` is missing")))?;
        serde_json::from_slice(&content)
            .map_err(|error| unreadable(number, &format!("`{name}` is broken")).because(error))
    }

    /// What differs between two generations, a line each: files, directories, Docker's keys, secrets, and
    /// images as the lock tells them apart.
    pub fn diff(self, a: u64, b: u64) -> Result<Vec<String>> {
        let (old, new) = (self.load(a)?, self.load(b)?);
        let mut lines = Vec::new();
        if old.about.profile != new.about.profile {
            lines.push(format!("~ profile {} → {}", old.about.profile, new.about.profile));
        }
        let (one, two) = (realised(self, a)?, realised(self, b)?);
        let keys: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
        for key in keys {
            match (one.get(key), two.get(key)) {
                (Some(was), Some(is)) if was == is => {}
                (Some(was), Some(is)) => lines.push(format!("~ {key}: {was} → {is}")),
                (Some(was), None) => lines.push(format!("- {key}: {was}")),
                (None, Some(is)) => lines.push(format!("+ {key}: {is}")),
                (None, None) => {}
            }
        }
        let (one, two) = (self.bundle(a)?.open()?.lock, self.bundle(b)?.open()?.lock);
        if one.images != two.images {
            lines.extend(lock::diff(&one, &two).text(true).lines().map(str::to_owned));
        }
        Ok(lines)
    }
}

/// `section path: value` of the realised profile, images apart: the lock's own diff tells more of them.
fn realised(generations: Generations, number: u64) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    if let serde_json::Value::Object(sections) = generations.host_profile(number)? {
        for (section, value) in
            sections.into_iter().filter(|(name, _)| name != "images" && name != "generation")
        {
            match value {
                serde_json::Value::Object(entries) => {
                    for (name, value) in entries {
                        out.insert(format!("{section} {name}"), shown(&value));
                    }
                }
                other => drop(out.insert(section, shown(&other))),
            }
        }
    }
    Ok(out)
}

fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name} {}", shown(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

fn unreadable(number: u64, why: &str) -> Error {
    Error::failed(format!("generation {number} cannot be read: {why}")).hint(format!(
        "if it is not the current one, take it away: `mv {} /root/bedplate-generation-{number}`; then provision again",
        generation(number)
    ))
}

/// For reading and writing what is JSON.
pub(crate) fn to_json<T: Serialize>(value: &T, what: &str) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).doing(|| format!("writing {what}"))?;
    text.push(b'\n');
    Ok(text)
}
