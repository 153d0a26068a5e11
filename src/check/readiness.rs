//! Readiness: that the layers below passed, bound to what they were looked at on.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::report::Report;
use crate::{
    digest::Digest,
    error::{Doing, Error, Result},
    host::facts::{Docker, Facts},
    system::files::{Owner, Root},
};

/// Version of the file. Another one is no readiness.
const VERSION: u32 = 1;
/// A report with all its evidence is some tens of kB.
const LIMIT: u64 = 4 << 20;
/// Where generations are kept.
const GENERATIONS: &str = "/var/lib/bedplate/generations";

/// What a readiness is bound to. Where one of these changed, it is stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Number of the generation.
    pub generation: u64,
    /// Digest of the lock.
    pub lock: Digest,
    /// The boot. Absent where it could not be read: then no readiness holds.
    pub boot_id: Option<String>,
    /// Version of the loaded driver; absent where none is loaded.
    pub driver: Option<String>,
    /// This start of the Docker daemon; absent where it could not be seen: then no readiness holds.
    pub docker: Option<String>,
    /// Digest of the CDI specifications together; absent where there is none.
    pub cdi: Option<Digest>,
    /// Digest of the deployment; absent in the host's own readiness.
    pub deployment: Option<Digest>,
}

impl Binding {
    /// The binding of what these facts were observed on.
    pub fn of(generation: u64, lock: Digest, deployment: Option<Digest>, facts: &Facts) -> Self {
        let docker = match facts.docker.ok() {
            Some(Docker::Answers(engine)) => engine.started.clone(),
            _ => None,
        };
        let specs = facts.cdi.ok().filter(|specs| !specs.is_empty());
        Self {
            generation,
            lock,
            boot_id: facts.boot_id.ok().cloned(),
            driver: facts.module.ok().and_then(|module| module.loaded.clone()),
            docker,
            cdi: specs.map(|specs| {
                let mut lines: Vec<String> =
                    specs.iter().map(|s| format!("{} {}\n", s.path, s.digest)).collect();
                lines.sort();
                Digest::of(lines.concat())
            }),
            deployment,
        }
    }
}

/// A report's result, bound to what it was made on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    version: u32,
    /// What it is bound to.
    pub binding: Binding,
    /// When it was made.
    pub made: Timestamp,
    /// The report it was made from.
    pub report: Report,
}

impl Readiness {
    /// A readiness of this report.
    pub fn new(binding: Binding, report: Report, made: Timestamp) -> Self {
        Self { version: VERSION, binding, made, report }
    }
}

/// Whether a readiness still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// It does.
    Fresh,
    /// It does not.
    Stale(Reason),
}

/// Why a readiness does not hold any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The gate was shut when it was made.
    NotReady,
    /// Another generation is current: then, now.
    Generation(u64, u64),
    /// The lock is another one.
    Lock,
    /// The host was restarted.
    Boot,
    /// Another driver is loaded: then, now.
    Driver(Option<String>, Option<String>),
    /// The Docker daemon was restarted.
    Docker,
    /// The CDI specification is another one.
    Cdi,
    /// The deployment is another one.
    Deployment,
    /// It is older than it may be: hours it may be.
    Age(u64),
    /// It was made later than now: the clock was set back.
    Future,
    /// What it is bound to cannot be seen.
    Unseen(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Self::NotReady => f.write_str("the checks did not pass when it was made"),
            Self::Generation(then, now) => write!(f, "the generation changed: {then}, now {now}"),
            Self::Lock => f.write_str("the lock changed"),
            Self::Boot => f.write_str("the boot id changed: the host was restarted"),
            Self::Driver(then, now) => {
                write!(f, "the loaded driver changed: {}, now {}", or_none(then), or_none(now))
            }
            Self::Docker => f.write_str("the Docker daemon was restarted"),
            Self::Cdi => f.write_str("the CDI specification changed"),
            Self::Deployment => f.write_str("the deployment changed"),
            Self::Age(hours) => write!(f, "it is older than {hours} h (`[checks] readiness-hours`)"),
            Self::Future => f.write_str("it was made later than now: the clock was set back"),
            Self::Unseen(what) => write!(f, "{what} cannot be seen, so nothing can be bound to it"),
        }
    }
}

/// Whether a readiness holds for what is there now. `hours`: how old it may be.
pub fn freshness(readiness: &Readiness, now: &Binding, at: Timestamp, hours: u64) -> Fresh {
    let then = &readiness.binding;
    let reason = if !readiness.report.opens_gate() {
        Reason::NotReady
    } else if then.generation != now.generation {
        Reason::Generation(then.generation, now.generation)
    } else if then.lock != now.lock {
        Reason::Lock
    } else if now.boot_id.is_none() {
        Reason::Unseen("the boot id")
    } else if then.boot_id != now.boot_id {
        Reason::Boot
    } else if then.driver != now.driver {
        Reason::Driver(then.driver.clone(), now.driver.clone())
    } else if now.docker.is_none() {
        Reason::Unseen("the Docker daemon's start")
    } else if then.docker != now.docker {
        Reason::Docker
    } else if then.cdi != now.cdi {
        Reason::Cdi
    } else if then.deployment != now.deployment {
        Reason::Deployment
    } else if readiness.made > at {
        Reason::Future
    } else if at.duration_since(readiness.made)
        > SignedDuration::from_hours(i64::try_from(hours).unwrap_or(i64::MAX / 3600))
    {
        Reason::Age(hours)
    } else {
        return Fresh::Fresh;
    };
    Fresh::Stale(reason)
}

/// Where a readiness is kept: `deployment` absent for the host's own.
fn place(generation: u64, deployment: Option<&str>) -> Result<(String, String)> {
    let directory = format!("{GENERATIONS}/{generation}/readiness");
    let name = match deployment {
        None => "host.json".to_owned(),
        Some(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
            return Err(Error::usage(format!("`{}` is not a deployment's name", name.escape_debug())));
        }
        // Apart from `host.json`, whatever the deployment's name.
        Some(name) => format!("deployment-{name}.json"),
    };
    let path = format!("{directory}/{name}");
    Ok((directory, path))
}

/// Keeps a readiness beside its generation: 0600, whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn save(root: &Root, deployment: Option<&str>, readiness: &Readiness) -> Result<()> {
    let (directory, path) = place(readiness.binding.generation, deployment)?;
    let doing = || format!("keeping the readiness in `{path}`");
    let mut text = serde_json::to_vec_pretty(readiness).doing(doing)?;
    text.push(b'\n');
    root.make_dir(&directory, 0o700, Owner::current()).doing(doing)?;
    root.write(&path, &text, 0o600, Owner::current()).doing(doing)
}

/// The readiness of a generation; `None` where there is none, or one of another version.
///
/// # Errors
/// It is there and cannot be read.
pub fn load(root: &Root, generation: u64, deployment: Option<&str>) -> Result<Option<Readiness>> {
    let (_, path) = place(generation, deployment)?;
    let Some(text) = root.read(&path, LIMIT)? else { return Ok(None) };
    let value: serde_json::Value =
        serde_json::from_slice(&text).doing(|| format!("reading the readiness in `{path}`")).map_err(
            |error| error.hint(format!("remove it: `rm {path}`; `bedplate up` runs the checks again")),
        )?;
    if value.get("version").and_then(serde_json::Value::as_u64) != Some(u64::from(VERSION)) {
        return Ok(None);
    }
    let readiness: Readiness =
        serde_json::from_value(value).doing(|| format!("reading the readiness in `{path}`")).map_err(
            |error| error.hint(format!("remove it: `rm {path}`; `bedplate up` runs the checks again")),
        )?;
    Ok(Some(readiness))
}

/// Forgets a readiness: before layers run again, so that an interrupted run leaves none.
///
/// # Errors
/// It is there and cannot be removed.
pub fn forget(root: &Root, generation: u64, deployment: Option<&str>) -> Result<()> {
    let (_, path) = place(generation, deployment)?;
    root.remove_file(&path)?;
    Ok(())
}
