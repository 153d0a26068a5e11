//! Bringing a deployment up: what is wanted against what is there, then only the difference.
//!
//! All that can fail without harm comes first: images are looked for, secrets placed, new containers made under
//! another name. Only then is a running container stopped for its successor, and it is removed once that has started:
//! where it cannot start, the old one is put back and serves on.

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;

use super::{
    Context, launch, observe, secrets,
    spec::{self, Spec, Surroundings},
    state::{self, Made, State, WantedState},
    wait,
};
use crate::{
    check::up::{ContainerState, Observed},
    docker::ContainerOnHost,
    error::{Doing, Error, Result},
    host::facts::Known,
    lock::{self, Lock},
    profile::{
        Deployment, Profile,
        services::{self, Role},
    },
    progress::Unit,
    system::{clock, files::HostLock},
};

/// How long `up` waits unless told, as the deployment format says.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(900);
/// How long a container may take to end before it is killed, in seconds: engines give memory back slowly.
pub(super) const GRACE: u32 = 30;
/// Ends the name of a container that is to take another's place.
const SUCCESSOR: &str = ".bedplate-new";
/// Ends the name of a container that gave place, until its successor has started.
const PREDECESSOR: &str = ".bedplate-old";

/// Whether a container's name is one that only an `up` on its way gives.
pub(super) fn is_passing(container: &str) -> bool {
    container.ends_with(SUCCESSOR) || container.ends_with(PREDECESSOR)
}

/// What is to be brought up.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its file, kept on the host for the boot unit.
    pub text: &'a str,
    /// The host's profile.
    pub profile: &'a Profile,
    /// Its lock: where images come from.
    pub lock: &'a Lock,
    /// Number of the current generation.
    pub generation: u64,
    /// Secrets by name.
    pub secrets: &'a BTreeMap<String, SecretString>,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Wait until it serves.
    pub wait: bool,
    /// For how long.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { wait: true, timeout: DEFAULT_TIMEOUT }
    }
}

/// What was done about one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it runs, and is made of what is wanted.
    Kept,
    /// It was made and started.
    Created,
    /// One made of something else gave place to it.
    Replaced,
    /// It was there and was started.
    Started,
    /// A secret of it changed, so it was started again.
    Restarted,
    /// Nothing wants it any more.
    Removed,
}

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// The model is served, and the agent, where there is one, is ready.
    Serving,
    /// Nobody waited.
    NotWaited,
    /// Docker could not start a container.
    NotStarted {
        /// The service.
        service: String,
        /// Why.
        error: Error,
    },
    /// A container exited while it was waited for.
    Exited {
        /// The service.
        service: String,
    },
    /// Not ready in time.
    TimedOut,
}

/// What `up` did and saw.
#[derive(Debug)]
pub struct Done {
    /// What was done, by service, in order.
    pub changes: Vec<(String, Change)>,
    /// What was seen, for the checks of layer 4.
    pub observed: Observed,
    /// How it ended.
    pub ended: Ended,
}

impl Done {
    /// Whether nothing was changed.
    pub fn unchanged(&self) -> bool {
        self.changes.iter().all(|(_, change)| *change == Change::Kept)
    }
}

/// One container on its way.
struct Step {
    spec: Spec,
    /// The container there was.
    old: Option<ContainerOnHost>,
    /// The id of its successor, or of the first.
    new: Option<String>,
    /// A secret changed since it started.
    stale_secrets: bool,
    /// Its secrets, as files.
    files: BTreeMap<String, SecretString>,
}

impl Step {
    /// Whether nothing is to be done: it runs as wanted.
    fn runs_as_wanted(&self) -> bool {
        self.new.is_none() && !self.stale_secrets && self.old.as_ref().is_some_and(|old| old.state.running)
    }

    /// The container that counts before this step is gone.
    fn before(&self) -> Made {
        let made = |id: &str, spec: String| Made {
            service: self.spec.service.clone(),
            container: self.spec.container.name.clone(),
            id: id.to_owned(),
            spec,
        };
        match (&self.old, &self.new) {
            (Some(old), _) => made(&old.id, old.labels.get(spec::SPEC).cloned().unwrap_or_default()),
            (None, new) => {
                made(new.as_deref().unwrap_or(&self.spec.container.name), self.spec.digest.to_string())
            }
        }
    }
}

/// How a step went.
enum Settled {
    /// The container of this id runs.
    Runs { id: String, change: Change },
    /// It could not be started. `instead`: what Docker said, where the container before it was put back.
    NotStarted { error: Error, instead: Option<String> },
}

/// Brings a deployment up and waits until it serves. The gate is the caller's: this starts what it is given. Takes
/// the host's lock until all is started, not while it waits.
///
/// # Errors
/// An image that is not there, a secret without a value, a container name in use, another run that holds the host,
/// Docker's refusal to make a container. Then nothing that ran was touched. What goes wrong once containers start is
/// no error but in [`Done`].
pub async fn up(context: Context<'_>, wanted: Wanted<'_>, options: Options) -> Result<Done> {
    let name = wanted.deployment.name.as_str();
    let lock = HostLock::acquire(context.root, &context.paths.lock, &format!("up `{name}`"))?;
    let specs = specs(context, wanted).await?;
    launch::materialise(context.root, context.paths)?;
    let labels = spec::deployment_labels(name);
    context.docker.ensure_network(&spec::network(name), &labels).await?;
    let mut steps = Vec::new();
    let target = wait::Target::new(wanted);
    let mut state = State {
        version: 1,
        wanted: WantedState::Running,
        generation: wanted.generation,
        services: Vec::new(),
        address: target.published(),
        since: format!("{:.0}", clock::now()),
    };
    let mut prepared = prepare(context, wanted, specs, &mut steps).await;
    if prepared.is_ok() {
        // Kept before the first start: cut off after it, the boot unit still knows what should run.
        state.services = steps.iter().map(Step::before).collect();
        prepared = state::save(context.root, context.paths, name, &state, Some(wanted.text));
    }
    if let Err(error) = prepared {
        for id in steps.iter().filter_map(|step| step.new.as_ref()) {
            // The first error is what counts.
            let _ = context.docker.remove_unstarted(id).await;
        }
        return Err(error);
    }
    let mut done = Done {
        changes: Vec::new(),
        observed: Observed { deployment: name.to_owned(), ..Observed::default() },
        ended: Ended::NotWaited,
    };
    let settled = settle_all(context, name, &steps, &mut state, &mut done).await;
    state::save(context.root, context.paths, name, &state, None)?;
    let instead = settled?;
    done.changes.extend(remove_unwanted(context, name, &steps).await?);
    drop(lock);
    context.progress.finished("start containers", None);
    // What Docker counts goes on from before for a container that was kept; a start by hand sets it to zero.
    let kept = |step: &&Step| done.changes.contains(&(step.spec.service.clone(), Change::Kept));
    let restarts = steps
        .iter()
        .filter(kept)
        .filter_map(|step| Some((step.spec.service.clone(), step.old.as_ref()?.state.restarts)))
        .collect();
    let specs: Vec<Spec> = steps.into_iter().map(|step| step.spec).collect();
    if options.wait && matches!(done.ended, Ended::NotWaited) {
        let observed = &mut done.observed;
        done.ended =
            wait::until_serving(context, &target, &specs, &restarts, options.timeout, observed).await?;
    }
    done.observed.services = observe::services(context, &specs, wanted.secrets).await;
    if let Ended::Exited { service } = &done.ended {
        for seen in done.observed.services.iter_mut().filter(|seen| seen.name == *service) {
            if let Known::Ok(state) = &mut seen.state {
                // Its end ended the wait: that Docker has started it again since makes it no running service.
                state.running = false;
            }
        }
    }
    if let (Ended::NotStarted { service, .. }, Some(said)) = (&done.ended, instead)
        && let Some(seen) = done.observed.services.iter_mut().find(|seen| seen.name == *service)
    {
        // What is wanted is not what runs there.
        seen.state = Known::Ok(ContainerState {
            error: Some(observe::redact(&said, wanted.secrets)),
            last_lines: vec!["the container before it was put back".to_owned()],
            ..ContainerState::default()
        });
    }
    Ok(done)
}

/// Takes every step, in order, until one cannot be taken. Returns what Docker said of a container that could not be
/// started, where the one before it was put back.
async fn settle_all(
    context: Context<'_>,
    deployment: &str,
    steps: &[Step],
    state: &mut State,
    done: &mut Done,
) -> Result<Option<String>> {
    // A one-shot that ended well is over only as long as what it was started with still runs: after a stop or a
    // boot, a service that ends with 0 when asked to looks the same.
    let runs = steps.iter().any(|step| step.spec.role != Role::Extra && step.runs_as_wanted());
    context.progress.started("start containers", Some(steps.len() as u64), Unit::Items);
    for (number, step) in steps.iter().enumerate() {
        let service = step.spec.service.clone();
        match settle(context, deployment, step, runs).await? {
            Settled::Runs { id, change } => {
                state.services[number] = Made { id, spec: step.spec.digest.to_string(), ..step.before() };
                done.changes.push((service, change));
            }
            Settled::NotStarted { error, instead } => {
                done.ended = Ended::NotStarted { service, error };
                return Ok(instead);
            }
        }
        context.progress.advanced("start containers", number as u64 + 1, None);
    }
    Ok(None)
}

/// What every service becomes, with the image it is made from.
async fn specs(context: Context<'_>, wanted: Wanted<'_>) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    for service in services::services(wanted.deployment) {
        let (key, locked) = lock::find(wanted.lock, wanted.profile, &service.image).ok_or_else(|| {
            Error::stale(format!("service `{}`: the lock has no image for it", service.name))
                .hint("run `bedplate lock`, then `bedplate provision`")
        })?;
        let reference = locked.pull_reference();
        let found = context
            .docker
            .image_by_digest(&reference, &locked.manifest, &locked.config, locked.index.as_ref())
            .await?;
        let Some((image, _)) = found else {
            return Err(Error::failed(format!("the image `{key}` ({reference}) is not on this host"))
                .hint("fetch it with `bedplate provision`"));
        };
        let image = spec::Image { key, locked, name: &image };
        let around = Surroundings {
            deployment: &wanted.deployment.name,
            generation: wanted.generation,
            gpu_access: wanted.profile.container.gpu_access,
            paths: context.paths,
        };
        specs.push(spec::spec(&service, image, around)?);
    }
    Ok(specs)
}

/// Places secrets and makes the containers that are missing or differ, under a name of their own.
async fn prepare(
    context: Context<'_>,
    wanted: Wanted<'_>,
    specs: Vec<Spec>,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let deployment = wanted.deployment.name.as_str();
    let services = services::services(wanted.deployment);
    for (spec, service) in specs.into_iter().zip(&services) {
        for volume in service.volumes.iter().filter(|volume| volume.source.starts_with('/')) {
            must_exist(context, service, &volume.source)?;
        }
        let name = spec.container.name.clone();
        finish_interrupted(context, deployment, &name).await?;
        let old = context.docker.inspect(&name).await?;
        if let Some(old) = &old
            && old.labels.get(spec::DEPLOYMENT).map(String::as_str) != Some(deployment)
        {
            return Err(Error::failed(format!(
                "a container `{name}` is there that is not this deployment's"
            ))
            .hint(format!("look at it with `docker inspect {name}`; remove it, or set `container_name`")));
        }
        let same =
            old.as_ref().is_some_and(|old| old.labels.get(spec::SPEC) == Some(&spec.digest.to_string()));
        let files = secrets::files(service, wanted.secrets)?;
        let place =
            |owner| secrets::place(context.root, context.paths, deployment, &service.name, &files, owner);
        // Docker wants the sources of mounts when a container is made; whose they are is known only then.
        let mut changed = if files.is_empty() && service.secrets.is_empty() { false } else { place(None)? };
        let mut step = Step { spec, old, new: None, stale_secrets: false, files: files.clone() };
        if !same {
            let successor = format!("{name}{SUCCESSOR}");
            context.docker.remove_unstarted(&successor).await?;
            let mut container = step.spec.container.clone();
            container.name.clone_from(&successor);
            step.new = Some(context.docker.create(&container).await?);
        }
        let made = step.new.clone().unwrap_or_else(|| name.clone());
        steps.push(step);
        if !files.is_empty() || !service.secrets.is_empty() {
            let user = context.docker.inspect(&made).await?.and_then(|container| container.user);
            let owner = secrets::owner(context.docker, &made, user.as_deref()).await?;
            changed |= place(Some(owner))?;
            let newer = newer_than_start(context, deployment, &service.name, steps.last())?;
            if let Some(step) = steps.last_mut() {
                step.stale_secrets = changed || newer;
            }
        }
    }
    Ok(())
}

fn must_exist(context: Context<'_>, service: &services::Service, path: &str) -> Result<()> {
    // Sockets and devices are mounted too, and a link on the way is Docker's to follow.
    if context.root.exists(path).unwrap_or(true) {
        return Ok(());
    }
    Err(Error::failed(format!("service `{}` mounts `{path}`, which is not there", service.name)).hint(format!(
        "add a `[[mount]]` with `path = \"{path}\"` to the profile and run `bedplate provision`, or make it"
    )))
}

/// Whether a secret was written after the container started: an earlier run may have been cut off between the two.
fn newer_than_start(
    context: Context<'_>,
    deployment: &str,
    service: &str,
    step: Option<&Step>,
) -> Result<bool> {
    let Some(old) = step.and_then(|step| step.old.as_ref()) else { return Ok(false) };
    let Ok(started) = old.state.started_at.parse::<jiff::Timestamp>() else { return Ok(false) };
    let directory = secrets::directory(context.paths, deployment, service);
    for entry in context.root.list(&directory)? {
        let stat = context.root.stat(&format!("{directory}/{}", entry.name))?;
        if stat.is_some_and(|stat| stat.modified > started) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ends what a run that was cut off began: a container that gave place goes where its successor was started, and comes
/// back where it was not.
async fn finish_interrupted(context: Context<'_>, deployment: &str, name: &str) -> Result<()> {
    let place = format!("{name}{PREDECESSOR}");
    let Some(old) = context.docker.inspect(&place).await? else { return Ok(()) };
    let ours =
        |found: &ContainerOnHost| found.labels.get(spec::DEPLOYMENT).is_some_and(|of| of == deployment);
    if !ours(&old) {
        return Err(Error::failed(format!("a container `{place}` is there that is not this deployment's"))
            .hint(format!("look at it with `docker inspect {place}`, and rename or remove it")));
    }
    match context.docker.inspect(name).await? {
        Some(new) if new.state.has_started() => {
            context.docker.stop(&old.id, GRACE).await?;
            return context.docker.remove(&old.id).await;
        }
        Some(new) if ours(&new) => context.docker.remove_unstarted(&new.id).await?,
        // Someone else's: `prepare` refuses it.
        Some(_) => return Ok(()),
        None => {}
    }
    context.docker.rename(&old.id, name).await.doing(|| format!("putting container `{name}` back"))
}

/// Puts the successor in its place, where there is one, and starts what does not run.
async fn settle(
    context: Context<'_>,
    deployment: &str,
    step: &Step,
    one_shots_stay: bool,
) -> Result<Settled> {
    let name = &step.spec.container.name;
    let Some(new) = &step.new else {
        let id = step.before().id;
        let change = match &step.old {
            Some(old) if old.state.running && step.stale_secrets => {
                context.docker.stop(&id, GRACE).await?;
                Change::Restarted
            }
            Some(old) if old.state.running => return Ok(Settled::Runs { id, change: Change::Kept }),
            Some(old)
                if one_shots_stay
                    && !step.stale_secrets
                    && step.spec.role == Role::Extra
                    && old.state.ended_well() =>
            {
                return Ok(Settled::Runs { id, change: Change::Kept });
            }
            _ => Change::Started,
        };
        return Ok(match start(context, step, &id).await {
            Ok(()) => Settled::Runs { id, change },
            Err(error) => Settled::NotStarted { error, instead: None },
        });
    };
    if let Some(old) = &step.old {
        context.docker.stop(&old.id, GRACE).await?;
        if let Err(error) = context.docker.rename(&old.id, &format!("{name}{PREDECESSOR}")).await {
            let _ = put_back(context, deployment, step, old).await;
            return Err(error).doing(|| format!("making room for the new container `{name}`"));
        }
    }
    let placed = context.docker.rename(new, name).await;
    let started = match placed.doing(|| format!("putting the new container `{name}` in place")) {
        Ok(()) => start(context, step, new).await,
        Err(error) => Err(error),
    };
    match (started, &step.old) {
        (Ok(()), Some(old)) => {
            // Where it cannot be removed now the next `up` does it; until then `status` names it.
            let _ = context.docker.remove(&old.id).await;
            Ok(Settled::Runs { id: new.clone(), change: Change::Replaced })
        }
        (Ok(()), None) => Ok(Settled::Runs { id: new.clone(), change: Change::Created }),
        (Err(error), None) => Ok(Settled::NotStarted { error, instead: None }),
        (Err(error), Some(old)) => {
            let found = context.docker.inspect(new).await.ok().flatten();
            let said = found.as_ref().map(|found| found.state.error.clone()).filter(|said| !said.is_empty());
            let ran = found.is_some_and(|found| found.state.has_started());
            let instead = Some(said.unwrap_or_else(|| error.message().to_owned()));
            let back = async {
                if ran {
                    context.docker.remove(new).await?;
                } else {
                    context.docker.remove_unstarted(new).await?;
                }
                context.docker.rename(&old.id, name).await?;
                put_back(context, deployment, step, old).await
            };
            let error = match back.await {
                Ok(()) => error,
                Err(second) => {
                    error.hint(format!("the container before it could not be put back: {}", second.message()))
                }
            };
            Ok(Settled::NotStarted { error, instead })
        }
    }
}

async fn start(context: Context<'_>, step: &Step, id: &str) -> Result<()> {
    context.docker.start(id).await.doing(|| format!("starting service `{}`", step.spec.service))
}

/// Starts a container again whose successor could not be, where it ran before.
async fn put_back(context: Context<'_>, deployment: &str, step: &Step, old: &ContainerOnHost) -> Result<()> {
    if !old.state.running {
        return Ok(());
    }
    if !step.files.is_empty() {
        // They are the new one's user's by now.
        let owner = secrets::owner(context.docker, &old.id, old.user.as_deref()).await?;
        let service = &step.spec.service;
        secrets::place(context.root, context.paths, deployment, service, &step.files, Some(owner))?;
    }
    context.docker.start(&old.id).await
}

/// Removes containers of this deployment that no service stands behind any more.
async fn remove_unwanted(
    context: Context<'_>,
    deployment: &str,
    steps: &[Step],
) -> Result<Vec<(String, Change)>> {
    let mut changes = Vec::new();
    for listed in context.docker.list_by_label(&format!("{}={deployment}", spec::DEPLOYMENT)).await? {
        let is_wanted = |name: &str| steps.iter().any(|step| step.spec.container.name == name);
        if is_wanted(&listed.name) {
            continue;
        }
        match (listed.name.strip_suffix(PREDECESSOR), listed.name.strip_suffix(SUCCESSOR)) {
            // All there is of the service, where it could not be put back.
            (Some(name), _) if is_wanted(name) => continue,
            // Made, and its turn did not come.
            (_, Some(name)) if is_wanted(name) => {
                context.docker.remove_unstarted(&listed.id).await?;
                continue;
            }
            _ => {}
        }
        context.docker.stop(&listed.id, GRACE).await?;
        context.docker.remove(&listed.id).await?;
        let service = listed.labels.get(spec::SERVICE).cloned().unwrap_or(listed.name);
        let directory = secrets::directory(context.paths, deployment, &service);
        if !steps.iter().any(|step| step.spec.service == service) {
            context.root.remove_tree(&directory)?;
        }
        changes.push((service, Change::Removed));
    }
    Ok(changes)
}
