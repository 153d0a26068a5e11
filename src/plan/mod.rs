//! From (profile, lock, observed host) to ordered steps. Pure: nothing is read, nothing is changed.
//!
//! A plan is a function of what is on the host and of what bedplate may have left there, never of how
//! far a run got: that is why an interrupted run needs no repair of its own.

mod bare;
mod boot_entry;
mod daemon;
pub mod dpkg;
#[cfg(test)]
mod image_tests;
mod packages;
#[cfg(test)]
mod packages_tests;
mod parts;
mod paths;
mod record;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod text;
mod toolkit;
mod wanted;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::{
    bare::bare,
    boot_entry::{BootMenu, GRUB_DEFAULT},
    daemon::{KeyChange, PATH as DAEMON, daemon_key_is, daemon_keys},
    record::{
        Before, Due, OwnedKey, OwnedKind, OwnedPackage, OwnedPath, OwnedSecret, Record,
        VERSION as RECORD_VERSION,
    },
    state::{
        Account, Accounts, BinaryState, DockerState, Given, Group, HostState, ImageState, Known, PathState,
        Running, SecretState, Target,
    },
    step::{PackageChange, Step, Was, Way, image_tag},
    text::diff as line_diff,
    toolkit::toolkit,
    wanted::{BINARY, MODPROBE, UNIT, UNIT_ENABLED},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
    lock::{Lock, bundle::Pinned},
    profile::{Deployment, Profile},
};

/// Folder of a generation that holds saved contents, each under its digest.
pub const SAVED: &str = "before";

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Make the host what the inputs say.
    Provision,
    /// Go to a generation that is there, from its own bundle, without any network.
    Switch(u64),
}

/// The pinned profile, as far as a plan needs it.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// Its lock.
    pub lock: &'a Lock,
    /// Contents of `[[file]] source`, by path as the profile writes it.
    pub sources: &'a BTreeMap<String, Vec<u8>>,
    /// Its deployments, by path as the profile writes it.
    pub deployments: &'a BTreeMap<String, Deployment>,
    /// Digest of the bundle they came in.
    pub bundle: Digest,
    /// Packages whose step back is meant, although it may endanger the host.
    pub allow: &'a [String],
}

impl<'a> Inputs<'a> {
    /// The same, with steps back of these packages allowed.
    #[must_use]
    pub fn allowing(self, allow: &'a [String]) -> Self {
        Self { allow, ..self }
    }

    /// Whether packages are locked, so that the host's are brought to them. False: those that the profile names are
    /// only looked for.
    pub fn pins_packages(&self) -> bool {
        packages::pinned(self)
    }

    /// Whether a deployment cannot do without this secret.
    pub fn needs_secret(&self, name: &str) -> bool {
        self.deployments.values().any(|deployment| deployment.secrets().get(name) == Some(&true))
    }

    /// The inputs of a bundle: `bundle` is its digest.
    pub fn of(pinned: &'a Pinned, bundle: Digest) -> Self {
        Self {
            profile: &pinned.profile,
            lock: &pinned.lock,
            deployments: &pinned.deployments,
            sources: &pinned.sources,
            bundle,
            allow: &[],
        }
    }
}

/// Ordered steps, and all that must be said about them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The generation it makes, repairs or goes to.
    pub generation: u64,
    /// Which of these.
    pub change: Change,
    /// What an interrupted run left to finish, for people.
    pub finishes: Option<String>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What waits for the first boot of a tree.
    pub deferred: Vec<Deferred>,
    /// Worth saying; the work goes on.
    pub warnings: Vec<String>,
    /// What the host lacks and this version does not bring: the plan cannot be applied.
    pub missing: Vec<Missing>,
    /// Why a reboot is needed afterwards.
    pub reboot: Option<String>,
    /// Packages on the host that are not locked and are left alone; empty where no packages are locked.
    pub unlocked: Vec<String>,
    /// What the generation owns while the steps run.
    #[serde(skip)]
    pub record: Record,
}

/// What a plan does to the generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A new one.
    New,
    /// The current one is made to hold again.
    Repair,
    /// Another one becomes current.
    Switch,
}

/// Something that waits for the first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deferred {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Something the host lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What, and why it is wanted.
    pub what: String,
    /// The exact command or edit that helps.
    pub hint: String,
}

impl Plan {
    /// A plan with nothing in it yet.
    pub fn without_steps(generation: u64, change: Change) -> Self {
        Self {
            generation,
            change,
            finishes: None,
            steps: Vec::new(),
            deferred: Vec::new(),
            warnings: Vec::new(),
            missing: Vec::new(),
            reboot: None,
            unlocked: Vec::new(),
            record: Record::default(),
        }
    }

    /// Whether there is nothing to do: no step, no new generation, nothing left by an interrupted run.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
            && self.change == Change::Repair
            && self.finishes.is_none()
            && self.missing.is_empty()
    }

    /// An error that names everything the host lacks, if it lacks anything.
    pub fn refuse(&self) -> Result<()> {
        Error::join(
            self.missing.iter().map(|missing| Error::failed(missing.what.clone()).hint(missing.hint.clone())),
        )
        .map_or(Ok(()), Err)
    }

    /// Whether packages come, change, go or are finished: apt is asked what it would do before anything changes.
    pub fn touches_packages(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::InstallPackages { .. } | Step::RepairPackages { .. }))
    }

    /// The plan as a diff, a line each: steps with their details, what waits, what is missing.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for step in &self.steps {
            lines.push(step.to_string());
            lines.extend(step.detail().iter().map(|line| format!("    {line}")));
        }
        lines.extend(self.deferred.iter().map(|deferred| format!("… {}: {}", deferred.what, deferred.why)));
        lines.extend(self.missing.iter().map(|missing| format!("✗ {}", missing.what)));
        lines
    }
}

/// Every path the planner must see, sorted, so that each comes after the directories it is in; true where
/// it must see the content of a file.
pub fn paths(inputs: &Inputs, accounts: &Accounts, known: &[&Known]) -> Result<BTreeMap<String, bool>> {
    wanted::looked_at(inputs, accounts, known.iter().map(|known| &known.record))
}

/// Whether the inputs ask anything of the Docker daemon.
pub fn wants_docker(inputs: &Inputs) -> bool {
    !inputs.lock.images.is_empty() || parts::wants_daemon(inputs)
}

/// Makes the plan.
///
/// # Errors
/// What must be mended by hand before anything changes: a link in a managed path, something else where a
/// file or directory shall be, an owner that does not exist, a broken `daemon.json`. All at once.
pub fn make(inputs: &Inputs, state: &HostState, goal: Goal) -> Result<Plan> {
    packages::refuse_set(inputs)?;
    let interrupted: Vec<&Record> = state.interrupted.iter().map(|known| &known.record).collect();
    let current = state.current.as_ref();
    let prior = Record::merged(current.map(|known| &known.record), interrupted);
    let (generation, change) = number(inputs, state, goal);
    let mut plan = Plan {
        finishes: finishes(state),
        record: Record { accounts: prior.accounts.clone(), due: prior.due.clone(), ..Record::default() },
        ..Plan::without_steps(generation, change)
    };
    let wanted = wanted::wanted(inputs, &state.accounts)?;
    let mut errors = Vec::new();
    let packages = packages::plan(inputs, state, goal, &prior, &mut plan).unwrap_or_else(|error| {
        errors.push(error);
        packages::Phase::default()
    });
    let accounts = parts::accounts(inputs, state, packages.engine, &mut plan);
    let coming = accounts
        .iter()
        .filter_map(|step| match step {
            Step::AddUser { name } | Step::AddGroup { name } => Some(name.clone()),
            Step::JoinGroup { group, .. } => Some(group.clone()),
            _ => None,
        })
        .collect();
    let docker = parts::docker(inputs, state, packages.engine, &prior, &mut plan).unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let removes_daemon = docker.iter().any(|step| matches!(step, Step::MergeDaemon { text: None, .. }));
    let gone = removes_daemon.then(|| DAEMON.to_owned()).into_iter().collect();
    let mut planner = paths::Planner::new(state, &wanted, &prior, &coming, &mut plan.record);
    if parts::wants_daemon(inputs) {
        planner.folder_of(DAEMON);
    }
    let paths = planner.run(gone);
    errors.extend(paths.errors);
    errors.extend(binary(state));
    plan.warnings.extend(paths.warnings);
    plan.deferred.extend(paths.deferred.into_iter().map(|(what, why)| Deferred { what, why }));
    parts::packages(inputs, state, &mut plan);

    plan.steps.extend(packages.steps);
    plan.steps.extend(paths.kernel);
    plan.steps.extend(docker);
    plan.steps.extend(accounts);
    plan.steps.extend(paths.files);
    let secrets = parts::secrets(inputs, state, &prior, &mut plan);
    plan.steps.extend(secrets);
    let images = parts::images(inputs, state, goal, &prior, &mut plan);
    plan.steps.extend(images);
    if state.binary != BinaryState::Same {
        let replaces = state.binary == BinaryState::Differs;
        plan.steps.push(Step::InstallBinary { path: BINARY.to_owned(), replaces });
    }
    plan.steps.extend(paths.boot);
    plan.steps.extend(paths.removals);
    errors.extend(boot_entry::follow_up(inputs, state, &mut plan).err());
    parts::follow_up(state, &mut plan);
    parts::reboot(inputs, state, &mut plan);
    match Error::join(errors) {
        Some(error) => Err(error),
        None => Ok(plan),
    }
}

/// What stands in the way of the program in its place.
fn binary(state: &HostState) -> Option<Error> {
    if let Some(PathState::Directory { .. } | PathState::Other) = state.paths.get(BINARY) {
        return Some(
            Error::failed(format!("`{BINARY}` is there, and is no file"))
                .hint(format!("move it away: `mv {BINARY} {BINARY}.old`")),
        );
    }
    step::ancestors(BINARY).into_iter().chain([BINARY]).find_map(|path| match state.paths.get(path) {
        Some(PathState::Link { target }) => Some(
            Error::failed(format!("`{BINARY}` goes through the link `{path}` → `{target}`"))
                .hint(format!("replace the link by what it points to: `readlink -f {path}`")),
        ),
        _ => None,
    })
}

/// Which generation the plan makes: the same inputs repair the current one in place; an interrupted one
/// with these inputs is gone on with under its number.
fn number(inputs: &Inputs, state: &HostState, goal: Goal) -> (u64, Change) {
    if let Goal::Switch(to) = goal {
        let already = state.current.as_ref().is_some_and(|known| known.number == to);
        return (to, if already { Change::Repair } else { Change::Switch });
    }
    if let Some(current) = state.current.as_ref().filter(|known| known.bundle == inputs.bundle) {
        return (current.number, Change::Repair);
    }
    let pending = state
        .interrupted
        .iter()
        .rfind(|known| known.bundle == inputs.bundle && known.number >= state.floor());
    (pending.map_or(state.next, |known| known.number), Change::New)
}

fn finishes(state: &HostState) -> Option<String> {
    if let Some(journal) = &state.journal {
        return Some(journal.clone());
    }
    if let Some(known) = state.interrupted.last() {
        return Some(format!("generation {} was being prepared", known.number));
    }
    let waiting = state.current.as_ref().filter(|known| !known.record.deferred.is_empty());
    waiting.filter(|_| state.target == Target::Host).map(|known| {
        format!("generation {} was prepared as a tree, and some of it waits for this host", known.number)
    })
}

impl HostState {
    /// The first number that is newer than the current generation.
    fn floor(&self) -> u64 {
        self.current.as_ref().map_or(0, |known| known.number + 1)
    }
}
