//! Diagnosis: what a container's last lines stand for, told apart by evidence; and which failures have one cause.
//!
//! A row of the table is a [`Symptom`]: what it looks like, and its possible [`Cause`]s. Each cause looks at facts and
//! says whether it holds, is ruled out, or cannot be told. One is named only where evidence for it was seen; else
//! those that remain are named, with what would decide between them. [`chains`] does the same for a whole report: one
//! cause, and under it what follows from it.

mod access;
mod chain;
mod cuda;
mod model;
mod resources;

use serde::Serialize;

pub use self::chain::{Chain, Consequence, chains, lines};
use super::{
    accept::unknown,
    judge_only,
    registry::registry,
    report::{Finding, Layer, Outcome},
    subject::Subject,
    up::ContainerState,
};
use crate::{
    error::{Error, Result},
    host::facts::{Facts, wanted::WantedDeployment},
    lock::LockedImage,
};

/// What a line in a log, or an exit code, stands for: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Symptom {
    /// Stable id: `symptom.cuda-802`.
    pub id: &'static str,
    /// Parts of a line, in lower case, any of which shows it.
    pub texts: &'static [&'static str],
    /// The exit code that shows it.
    pub exit: Option<i64>,
    /// What it looks like, for people.
    pub looks: &'static str,
    /// Its causes. Of those that hold the first one counts.
    pub causes: &'static [Cause],
}

/// A cause of a symptom.
#[derive(Debug, Clone, Copy)]
pub struct Cause {
    /// Its name within the symptom.
    pub id: &'static str,
    /// In one line.
    pub means: &'static str,
    /// Whose responsibility.
    pub layer: Layer,
    /// What kind of repair.
    pub repair: Repair,
    /// The evidence that decides.
    pub decides: &'static str,
    /// The one thing to do.
    pub fix: &'static str,
    /// Whether it holds.
    sign: fn(&Case<'_>) -> Sign,
}

/// What kind of repair it takes, and so whose work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// Restart the host.
    Reboot,
    /// Install, or install again.
    Install,
    /// Have bedplate configure the host again.
    Provision,
    /// Reset a GPU.
    ResetGpu,
    /// Look at the hardware, and replace it.
    Hardware,
    /// Edit the profile, and lock.
    EditProfile,
    /// Edit the deployment.
    EditDeployment,
    /// Restart a service.
    RestartService,
    /// End another process.
    EndProcess,
    /// Give a token, or another one.
    GiveToken,
    /// Accept the licence of a model.
    AcceptLicence,
    /// Log in at a registry.
    LogIn,
    /// Make room on a disk.
    MakeRoom,
}

impl Repair {
    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reboot => "reboot the host",
            Self::Install => "install it, or install it again",
            Self::Provision => "run `bedplate provision`",
            Self::ResetGpu => "reset the GPU",
            Self::Hardware => "look at the hardware, and replace what is broken",
            Self::EditProfile => "edit the profile",
            Self::EditDeployment => "edit the deployment",
            Self::RestartService => "restart a service",
            Self::EndProcess => "end another process",
            Self::GiveToken => "give a token",
            Self::AcceptLicence => "accept a licence",
            Self::LogIn => "log in at the registry",
            Self::MakeRoom => "make room",
        }
    }
}

/// What evidence says of a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    /// It holds: what shows it, and what to do where that is more than the cause's own fix.
    Holds(String, Option<String>),
    /// It is ruled out, by this.
    No(String),
    /// It cannot be told, and why.
    Open(String),
}

impl Sign {
    fn holds(seen: impl Into<String>) -> Self {
        Self::Holds(seen.into(), None)
    }

    fn no(by: impl Into<String>) -> Self {
        Self::No(by.into())
    }

    fn open(why: impl Into<String>) -> Self {
        Self::Open(why.into())
    }

    /// With what to do in this case.
    fn fix(self, fix: impl Into<String>) -> Self {
        match self {
            Self::Holds(seen, _) => Self::Holds(seen, Some(fix.into())),
            other => other,
        }
    }
}

/// What was seen of a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// The service's name.
    pub service: &'a str,
    /// Its last lines.
    pub lines: &'a [String],
    /// What Docker says of a failed start.
    pub error: Option<&'a str>,
    /// With what it ended.
    pub exit: Option<i64>,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// It runs.
    pub running: bool,
}

impl<'a> Seen<'a> {
    /// Of a container.
    pub fn of(service: &'a str, state: &'a ContainerState) -> Self {
        Self {
            service,
            lines: &state.last_lines,
            error: state.error.as_deref(),
            exit: state.exit_code,
            oom_killed: state.oom_killed,
            running: state.running,
        }
    }

    fn all(&self) -> impl Iterator<Item = &'a str> {
        self.lines.iter().map(String::as_str).chain(self.error)
    }
}

/// What a cause looks at.
struct Case<'a> {
    subject: &'a Subject<'a>,
    facts: &'a Facts,
    seen: Seen<'a>,
    /// The line that shows the symptom, in lower case; empty where the exit code does.
    line: String,
}

impl Case<'_> {
    /// A check's finding on these facts.
    fn check(&self, id: &str) -> Option<Finding> {
        judge_only(&[id], self.subject, self.facts).findings.pop()
    }

    /// Holds where a check fails, is ruled out where it passes.
    fn by_check(&self, id: &str) -> Sign {
        match self.check(id) {
            Some(Finding { outcome: Outcome::Fail | Outcome::Warn, because, next, .. }) => {
                Sign::Holds(format!("`{id}`: {because}"), next)
            }
            Some(Finding { outcome: Outcome::Pass | Outcome::NotApplicable, because, .. }) => {
                Sign::No(format!("`{id}`: {because}"))
            }
            Some(Finding { because, .. }) => Sign::Open(format!("`{id}`: {because}")),
            None => Sign::Open(format!("`{id}` was not looked at")),
        }
    }

    /// Version of the loaded kernel module.
    fn loaded(&self) -> std::result::Result<&str, String> {
        let module = self.facts.module.as_result().map_err(|why| format!("the loaded driver: {why}"))?;
        module.loaded.as_deref().ok_or_else(|| "no driver is loaded".to_owned())
    }

    /// Whether a line of the log has one of these words.
    fn says(&self, words: &[&str]) -> bool {
        self.seen.all().any(|line| {
            let line = line.to_lowercase();
            words.iter().any(|word| line.contains(word))
        })
    }

    /// The deployments, as far as the host is concerned.
    fn deployments(&self) -> &[WantedDeployment] {
        &self.subject.wanted.deployments
    }

    /// The locked image of the service, or where it is none of them, of every service on GPUs.
    fn images(&self) -> Vec<(&str, &LockedImage)> {
        let Some(locked) = &self.subject.lock else { return Vec::new() };
        let services = || self.deployments().iter().flat_map(|deployment| &deployment.services);
        let own = services().any(|service| service.name == self.seen.service);
        let mut found: Vec<(&str, &LockedImage)> = services()
            .filter(|service| if own { service.name == self.seen.service } else { service.gpus })
            .filter_map(|service| {
                let (name, image) = locked.lock.images.get_key_value(service.locked.as_deref()?)?;
                Some((name.as_str(), image))
            })
            .collect();
        found.dedup_by_key(|(name, _)| *name);
        found
    }
}

/// A symptom that was seen, and what evidence says of its causes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The symptom's id.
    pub symptom: &'static str,
    /// What it looks like.
    pub looks: &'static str,
    /// Its causes.
    pub causes: Vec<Judged>,
}

/// A cause, and what evidence says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its name within the symptom.
    pub id: &'static str,
    /// In one line.
    pub means: &'static str,
    /// Whether it holds.
    pub is: Is,
    /// What shows that it holds, what rules it out, or why it cannot be told.
    pub because: String,
    /// Whose responsibility.
    pub layer: Layer,
    /// What kind of repair.
    pub repair: Repair,
    /// The evidence that decides.
    pub decides: &'static str,
    /// The one thing to do.
    pub fix: String,
}

/// Whether a cause holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Is {
    /// Evidence for it was seen.
    Holds,
    /// Evidence against it was seen.
    RuledOut,
    /// It cannot be told.
    Open,
}

impl Diagnosis {
    /// The cause that holds.
    pub fn cause(&self) -> Option<&Judged> {
        self.causes.iter().find(|cause| cause.is == Is::Holds)
    }

    /// Causes that remain where none is known to hold.
    pub fn remaining(&self) -> Vec<&Judged> {
        if self.cause().is_some() {
            return Vec::new();
        }
        self.causes.iter().filter(|cause| cause.is == Is::Open).collect()
    }

    /// The layer to blame: of the cause that holds, or of all that remain where they agree.
    pub fn layer(&self) -> Option<Layer> {
        if let Some(cause) = self.cause() {
            return Some(cause.layer);
        }
        let remaining = self.remaining();
        let (first, rest) = remaining.split_first()?;
        rest.iter().all(|cause| cause.layer == first.layer).then_some(first.layer)
    }

    /// In one line: the cause, or those that remain, and the layer to blame.
    pub fn says(&self) -> String {
        let said = match (self.cause(), self.remaining().as_slice()) {
            (Some(cause), _) => format!("{}: {}", cause.means, cause.because),
            (None, []) => format!("{}, and none of its known causes holds", self.looks),
            (None, remaining) => {
                let means: Vec<&str> = remaining.iter().map(|cause| cause.means).collect();
                format!("{}, which is not decided: {}", self.looks, means.join("; or "))
            }
        };
        match self.layer() {
            Some(layer) => format!("{said}; to blame: {}", layer_name(layer)),
            None => said,
        }
    }

    /// The one thing to do: the fix, or what would decide. `None` where every known cause is ruled out.
    pub fn next(&self) -> Option<String> {
        match (self.cause(), self.remaining().as_slice()) {
            (Some(cause), _) => Some(cause.fix.clone()),
            (None, []) => None,
            (None, remaining) => {
                let decides: Vec<String> =
                    remaining.iter().map(|cause| format!("{} ({})", cause.decides, cause.because)).collect();
                Some(format!("what decides: {}", decides.join("; ")))
            }
        }
    }

    /// The evidence, a line a cause.
    pub fn evidence(&self) -> Vec<String> {
        let mut lines = vec![format!("{}: `bedplate explain {}`", self.looks, self.symptom)];
        for cause in &self.causes {
            let word = match cause.is {
                Is::Holds => "holds",
                Is::RuledOut => "ruled out",
                Is::Open => "open",
            };
            lines.push(format!("{word}: {} ({})", cause.means, cause.because));
        }
        if let Some(cause) = self.cause() {
            lines.push(format!("repair: {}", cause.repair.words()));
        }
        lines
    }
}

/// Every symptom, the most telling first.
pub fn symptoms() -> impl Iterator<Item = &'static Symptom> {
    [cuda::ROWS, access::ROWS, model::ROWS, resources::ROWS].into_iter().flatten()
}

/// The symptom that is seen, before any fact is looked at.
pub fn symptom(seen: &Seen<'_>) -> Option<&'static Symptom> {
    shown(seen).map(|(symptom, _)| symptom)
}

/// The symptom that is seen in a container, and what evidence says of its causes.
pub fn diagnose(subject: &Subject<'_>, facts: &Facts, seen: Seen<'_>) -> Option<Diagnosis> {
    let (symptom, line) = shown(&seen)?;
    let case = Case { subject, facts, seen, line };
    Some(Diagnosis {
        symptom: symptom.id,
        looks: symptom.looks,
        causes: symptom.causes.iter().map(|cause| judged(cause, &case)).collect(),
    })
}

/// The symptom that is seen, and the line that shows it, in lower case: empty where the exit code does.
fn shown(seen: &Seen<'_>) -> Option<(&'static Symptom, String)> {
    let by_exit = || symptoms().find(|symptom| symptom.exit.is_some() && symptom.exit == seen.exit);
    let by_line = || {
        symptoms().find_map(|symptom| {
            let shows = |line: &String| symptom.texts.iter().any(|text| line.contains(text));
            Some((symptom, seen.all().map(str::to_lowercase).find(shows)?))
        })
    };
    // The kernel's word for it says more than what a program wrote before it was killed.
    let killed = if seen.oom_killed { by_exit() } else { None };
    match killed {
        Some(symptom) => Some((symptom, String::new())),
        None => by_line().or_else(|| Some((by_exit()?, String::new()))),
    }
}

fn judged(cause: &Cause, case: &Case<'_>) -> Judged {
    let (is, because, fix) = match (cause.sign)(case) {
        Sign::Holds(seen, fix) => (Is::Holds, seen, fix),
        Sign::No(by) => (Is::RuledOut, by, None),
        Sign::Open(why) => (Is::Open, why, None),
    };
    Judged {
        id: cause.id,
        means: cause.means,
        is,
        because,
        layer: cause.layer,
        repair: cause.repair,
        decides: cause.decides,
        fix: fix.unwrap_or_else(|| cause.fix.to_owned()),
    }
}

/// The symptom of this id; `None` where the word is no symptom's at all.
///
/// # Errors
/// A usage error for a symptom that is none, naming the nearest.
pub fn named(id: &str) -> Option<Result<&'static Symptom>> {
    if !id.starts_with("symptom.") {
        return None;
    }
    let found = symptoms().find(|symptom| symptom.id == id);
    Some(found.ok_or_else(|| wrong(id)))
}

fn wrong(id: &str) -> Error {
    let ids = symptoms().map(|symptom| symptom.id).chain(registry().iter().map(|check| check.id));
    unknown(id, "there is no symptom", ids)
}

/// A layer as people call it.
pub fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::Doctor => "the host (`doctor`)",
        Layer::Toolkit => "GPU access (`toolkit`)",
        Layer::Runtime => "the engine image (`runtime`)",
        Layer::Up => "the deployment (`up`)",
    }
}
