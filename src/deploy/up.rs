//! Bringing a deployment up: what is wanted against what is there, then only the difference.
//!
//! All that can fail without harm comes first: images are looked for, secrets placed, new containers made under
//! another name. Only then is a running container stopped for its successor.

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;

use super::{
    Context, launch, observe, secrets,
    spec::{self, Spec, Surroundings},
    state::{self, Made, State, WantedState},
    wait,
};
use crate::{
    check::up::Observed,
    docker::ContainerOnHost,
    error::{Doing, Error, Result},
    lock::{self, Lock},
    profile::{Deployment, Profile, services},
    progress::Unit,
    system::{clock, files::HostLock},
};

/// How long `up` waits unless told, as the deployment format says.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(900);
/// How long a container may take to end before it is killed, in seconds: engines give memory back slowly.
pub(super) const GRACE: u32 = 30;
/// Ends the name of a container that is to take another's place.
const SUCCESSOR: &str = ".bedplate-new";

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
    if let Err(error) = prepare(context, wanted, specs, &mut steps).await {
        for id in steps.iter().filter_map(|step| step.new.as_ref()) {
            // The first error is what counts.
            let _ = context.docker.remove(id).await;
        }
        return Err(error);
    }
    let mut changes = Vec::new();
    let mut ended = Ended::NotWaited;
    let mut made = Vec::new();
    context.progress.started("start containers", Some(steps.len() as u64), Unit::Items);
    for (number, step) in steps.iter().enumerate() {
        let id = settle(context, step).await?;
        made.push(Made {
            service: step.spec.service.clone(),
            container: step.spec.container.name.clone(),
            id: id.clone(),
            spec: step.spec.digest.to_string(),
        });
        match start(context, step, &id).await {
            Ok(change) => changes.push((step.spec.service.clone(), change)),
            Err(error) => {
                ended = Ended::NotStarted { service: step.spec.service.clone(), error };
                break;
            }
        }
        context.progress.advanced("start containers", number as u64 + 1, None);
    }
    changes.extend(remove_unwanted(context, name, &steps).await?);
    let target = wait::Target::new(wanted);
    let state = State {
        version: 1,
        wanted: WantedState::Running,
        generation: wanted.generation,
        services: made,
        address: target.published(),
        since: format!("{:.0}", clock::now()),
    };
    state::save(context.root, context.paths, name, &state, Some(wanted.text))?;
    drop(lock);
    context.progress.finished("start containers", None);
    let specs: Vec<Spec> = steps.into_iter().map(|step| step.spec).collect();
    let mut observed = Observed { deployment: name.to_owned(), ..Observed::default() };
    if options.wait && matches!(ended, Ended::NotWaited) {
        ended = wait::until_serving(context, &target, &specs, options.timeout, &mut observed).await?;
    }
    observed.services = observe::services(context, &specs, wanted.secrets).await;
    Ok(Done { changes, observed, ended })
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
        let mut step = Step { spec, old, new: None, stale_secrets: false };
        if !same {
            let successor = format!("{name}{SUCCESSOR}");
            context.docker.remove(&successor).await?;
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

/// Puts the successor in its place, where there is one. Returns the id of the container that counts.
async fn settle(context: Context<'_>, step: &Step) -> Result<String> {
    let name = &step.spec.container.name;
    let Some(new) = &step.new else {
        return Ok(step.old.as_ref().map_or_else(|| name.clone(), |old| old.id.clone()));
    };
    if let Some(old) = &step.old {
        context.docker.stop(&old.id, GRACE).await?;
        context.docker.remove(&old.id).await?;
    }
    context
        .docker
        .rename(new, name)
        .await
        .doing(|| format!("putting the new container `{name}` in place"))?;
    Ok(new.clone())
}

async fn start(context: Context<'_>, step: &Step, id: &str) -> Result<Change> {
    let change = match (&step.new, &step.old) {
        (Some(_), Some(_)) => Change::Replaced,
        (Some(_), None) => Change::Created,
        (None, Some(old)) if old.state.running && step.stale_secrets => {
            context.docker.stop(id, GRACE).await?;
            Change::Restarted
        }
        (None, Some(old)) if old.state.running => return Ok(Change::Kept),
        (None, _) => Change::Started,
    };
    context.docker.start(id).await.doing(|| format!("starting service `{}`", step.spec.service))?;
    Ok(change)
}

/// Removes containers of this deployment that no service stands behind any more.
async fn remove_unwanted(
    context: Context<'_>,
    deployment: &str,
    steps: &[Step],
) -> Result<Vec<(String, Change)>> {
    let mut changes = Vec::new();
    for listed in context.docker.list_by_label(&format!("{}={deployment}", spec::DEPLOYMENT)).await? {
        if steps.iter().any(|step| step.spec.container.name == listed.name) {
            continue;
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
