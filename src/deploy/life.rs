//! The rest of a deployment's life: status, list, logs, stop, restart, rm.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{
    Context, secrets, spec,
    state::{self, State, WantedState},
    up::{GRACE, is_passing},
    wait,
};
use crate::{
    docker::{ContainerOnHost, Health, LogsWanted},
    error::{Error, Result},
    profile::services::Role,
    system::files::HostLock,
};

/// State of a service whose work is over.
const DONE: &str = "done";

/// A deployment as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Whether it should run; absent where only containers are left of it.
    pub wanted: Option<WantedState>,
    /// The generation it was last brought up under.
    pub generation: Option<u64>,
    /// When it was last brought up, RFC 3339.
    pub since: Option<String>,
    /// Whether `/health` answers 200 now; absent where its port is not published or nobody asked.
    pub healthy: Option<bool>,
    /// Its containers, in the order they start.
    pub services: Vec<ServiceStatus>,
    /// What differs from what `up` made, one line each.
    pub drift: Vec<String>,
}

impl Status {
    /// Whether it should run and does not.
    pub fn is_down(&self) -> bool {
        self.wanted == Some(WantedState::Running)
            && (self.healthy == Some(false)
                || self.services.iter().any(|service| service.state != "running" && service.state != DONE))
    }
}

/// A container as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// The service.
    pub service: String,
    /// The container's name.
    pub container: String,
    /// Docker's word for its state, `missing`, or `done`: a further service whose work is over, and went well.
    pub state: String,
    /// Exit status of its last run, unless it runs.
    pub exit_code: Option<i64>,
    /// How often Docker started it again.
    pub restarts: u64,
    /// When it was last started, RFC 3339.
    pub since: Option<String>,
    /// Its health check's verdict, where it has one.
    pub health: Option<&'static str>,
    /// The image it was made from.
    pub image: String,
    /// Ports, as `ADDRESS:PORT->PORT/PROTOCOL`.
    pub ports: Vec<String>,
}

/// One line of a deployment's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLine {
    /// The service that said it.
    pub service: String,
    /// Whether it came on standard error.
    pub stderr: bool,
    /// The line.
    pub text: String,
}

/// Names of every deployment there is: of those whose state is kept, and of those whose containers are there.
pub async fn names(context: Context<'_>) -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> = state::all(context.root, context.paths)?.into_keys().collect();
    for listed in context.docker.list_by_label(spec::DEPLOYMENT).await? {
        names.extend(listed.labels.get(spec::DEPLOYMENT).cloned());
    }
    Ok(names)
}

/// Every deployment as it is now, by name.
pub async fn list(context: Context<'_>) -> Result<Vec<Status>> {
    let mut found = Vec::new();
    for name in names(context).await? {
        found.push(status(context, &name).await?);
    }
    Ok(found)
}

/// A deployment as it is now.
///
/// # Errors
/// There is none of that name (exit code 2).
pub async fn status(context: Context<'_>, name: &str) -> Result<Status> {
    let (state, containers) = found(context, name).await?;
    let mut services = Vec::new();
    let mut drift = Vec::new();
    let state = state.unwrap_or_else(|error| {
        drift.push(format!("what is kept of it cannot be read: {}", error.message()));
        None
    });
    let wanted = state.as_ref().map(|state| state.wanted);
    let mut seen = BTreeSet::new();
    for made in state.iter().flat_map(|state| &state.services) {
        seen.insert(made.container.clone());
        let Some(found) = containers.get(&made.container) else {
            drift.push(format!("container `{}` is gone", made.container));
            services.push(missing(&made.service, &made.container));
            continue;
        };
        if found.id != made.id {
            drift.push(format!("container `{}` was replaced by hand", made.container));
        } else if found.labels.get(spec::SPEC) != Some(&made.spec) {
            drift.push(format!("container `{}` is not what `up` recorded", made.container));
        }
        services.push(service_status(&made.service, found, wanted));
    }
    for (container, found) in containers.iter().filter(|(container, _)| !seen.contains(*container)) {
        if is_passing(container) {
            drift.push(format!("container `{container}` is left of an `up` that was cut off"));
            continue;
        }
        drift.push(format!("container `{container}` is not what `up` recorded"));
        let service = found.labels.get(spec::SERVICE).unwrap_or(container);
        services.push(service_status(service, found, wanted));
    }
    let running = services.iter().any(|service| service.state == "running");
    let healthy = match state.as_ref().and_then(|state| state.address.as_deref()) {
        Some(address) if running => {
            let client = wait::client()?;
            Some(matches!(wait::get(&client, &format!("{address}/health"), None).await, Ok((200, _))))
        }
        _ => None,
    };
    Ok(Status {
        name: name.to_owned(),
        wanted,
        generation: state.as_ref().map(|state| state.generation),
        since: state.map(|state| state.since),
        healthy,
        services,
        drift,
    })
}

fn missing(service: &str, container: &str) -> ServiceStatus {
    ServiceStatus {
        service: service.to_owned(),
        container: container.to_owned(),
        state: "missing".to_owned(),
        exit_code: None,
        restarts: 0,
        since: None,
        health: None,
        image: String::new(),
        ports: Vec::new(),
    }
}

fn service_status(service: &str, found: &ContainerOnHost, wanted: Option<WantedState>) -> ServiceStatus {
    let role = found.labels.get(spec::ROLE).map(String::as_str);
    // After `stop` the same end means no more than that it was asked to end.
    let done = wanted == Some(WantedState::Running)
        && role == Some(spec::role_name(Role::Extra))
        && found.state.ended_well();
    ServiceStatus {
        service: service.to_owned(),
        container: found.name.clone(),
        state: if done { DONE.to_owned() } else { found.state.status.clone() },
        exit_code: (!found.state.running).then_some(found.state.exit_code),
        restarts: found.state.restarts,
        since: Some(found.state.started_at.clone()).filter(|at| !at.is_empty() && !at.starts_with("0001")),
        health: found.health.map(|health| match health {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }),
        image: found.labels.get(spec::IMAGE).unwrap_or(&found.image).clone(),
        ports: found
            .ports
            .iter()
            .map(|port| {
                let host = std::net::SocketAddr::new(port.address, port.host_port);
                format!("{host}->{}/{}", port.container_port, port.protocol)
            })
            .collect(),
    }
}

/// The logs of all services of a deployment: in the order they were said, or, followed, as they come.
pub async fn logs(
    context: Context<'_>,
    name: &str,
    follow: bool,
    tail: Option<usize>,
) -> Result<impl Stream<Item = Result<ServiceLine>> + use<>> {
    let (_, containers) = known(context, name).await?;
    let wanted = LogsWanted { follow, tail, since: None, timestamps: !follow };
    let streams = containers.into_values().map(|found| {
        let service = found.labels.get(spec::SERVICE).unwrap_or(&found.name).clone();
        context
            .docker
            .logs(&found.id, wanted)
            .map_ok(move |line| ServiceLine {
                service: service.clone(),
                stderr: line.stderr,
                text: line.text,
            })
            .boxed()
    });
    let merged = stream::select_all(streams);
    if follow {
        return Ok(merged.boxed());
    }
    let mut lines: Vec<ServiceLine> = merged.try_collect().await?;
    // Docker puts the time of day before each line, of fixed width but for trailing zeros: compare as times.
    let time = |line: &ServiceLine| {
        line.text.split_once(' ').map_or("", |(at, _)| at).parse::<jiff::Timestamp>().ok()
    };
    lines.sort_by_key(time);
    if let Some(tail) = tail {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    for line in &mut lines {
        if let Some((_, rest)) = line.text.split_once(' ') {
            line.text = rest.to_owned();
        }
    }
    Ok(stream::iter(lines.into_iter().map(Ok)).boxed())
}

/// Stops a deployment, last started first. It stays stopped over a reboot. Returns the services that ran.
pub async fn stop(context: Context<'_>, name: &str) -> Result<Vec<String>> {
    let _lock = HostLock::acquire(context.root, &context.paths.lock, &format!("stop `{name}`"))?;
    let (state, containers) = known(context, name).await?;
    // Written first: a power cut half way must not bring it back.
    want(context, name, state.as_ref(), WantedState::Stopped)?;
    stop_all(context, state.as_ref(), &containers).await
}

/// Stops a deployment's containers, last started first, for a start that follows: it is still wanted, so a boot in
/// between brings it back. Returns the services that ran.
pub async fn stop_containers(context: Context<'_>, name: &str) -> Result<Vec<String>> {
    let _lock = HostLock::acquire(context.root, &context.paths.lock, &format!("stop `{name}`"))?;
    let (state, containers) = known(context, name).await?;
    stop_all(context, state.as_ref(), &containers).await
}

/// Removes a deployment's containers, network and secrets; with `purge` also what is kept of it. Directories of the
/// host that it mounted are never touched.
pub async fn remove(context: Context<'_>, name: &str, purge: bool) -> Result<()> {
    let _lock = HostLock::acquire(context.root, &context.paths.lock, &format!("rm `{name}`"))?;
    let (state, containers) = found(context, name).await?;
    // What cannot be read is no reason to keep what is to be purged.
    let state = if purge { state.unwrap_or_default() } else { state? };
    want(context, name, state.as_ref(), WantedState::Stopped)?;
    stop_all(context, state.as_ref(), &containers).await?;
    for found in containers.values() {
        context.docker.remove(&found.id).await?;
    }
    context.docker.remove_network(&spec::network(name)).await?;
    secrets::remove(context.root, context.paths, name)?;
    if purge {
        state::forget(context.root, context.paths, name)?;
    } else if let Some(mut state) = state {
        state.wanted = WantedState::Stopped;
        state.services.clear();
        state::save(context.root, context.paths, name, &state, None)?;
    }
    Ok(())
}

/// What is kept of a deployment, and its containers by name.
async fn known(
    context: Context<'_>,
    name: &str,
) -> Result<(Option<State>, BTreeMap<String, ContainerOnHost>)> {
    let (state, containers) = found(context, name).await?;
    Ok((state?, containers))
}

/// The same, where what is kept may be unreadable.
async fn found(
    context: Context<'_>,
    name: &str,
) -> Result<(Result<Option<State>>, BTreeMap<String, ContainerOnHost>)> {
    let state = if is_name(name) { state::load(context.root, context.paths, name) } else { Ok(None) };
    let mut containers = BTreeMap::new();
    if is_name(name) {
        for listed in context.docker.list_by_label(&format!("{}={name}", spec::DEPLOYMENT)).await? {
            if let Some(found) = context.docker.inspect(&listed.id).await? {
                containers.insert(found.name.clone(), found);
            }
        }
    }
    if matches!(state, Ok(None)) && containers.is_empty() {
        let there = names(context).await?;
        let shown = name.escape_debug();
        let error = Error::usage(format!("there is no deployment `{shown}` on this host"));
        return Err(if there.is_empty() {
            error.hint("bring one up with `bedplate up -f DEPLOYMENT`")
        } else {
            error.hint(format!("there are: {}", there.into_iter().collect::<Vec<_>>().join(", ")))
        });
    }
    Ok((state, containers))
}

/// Whether this can be a deployment's name, and so part of a path.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// Names of containers in the order they start; those nobody recorded last.
fn order<'a>(state: Option<&'a State>, containers: &'a BTreeMap<String, ContainerOnHost>) -> Vec<&'a str> {
    let mut order: Vec<&str> = state
        .iter()
        .flat_map(|state| &state.services)
        .map(|made| made.container.as_str())
        .filter(|name| containers.contains_key(*name))
        .collect();
    let rest: Vec<&str> =
        containers.keys().map(String::as_str).filter(|name| !order.contains(name)).collect();
    order.extend(rest);
    order
}

async fn stop_all(
    context: Context<'_>,
    state: Option<&State>,
    containers: &BTreeMap<String, ContainerOnHost>,
) -> Result<Vec<String>> {
    let mut stopped = Vec::new();
    for name in order(state, containers).into_iter().rev() {
        let Some(found) = containers.get(name) else { continue };
        if found.state.running || found.state.restarting {
            context.docker.stop(&found.id, GRACE).await?;
            stopped.push(found.labels.get(spec::SERVICE).cloned().unwrap_or_else(|| name.to_owned()));
        }
    }
    Ok(stopped)
}

fn want(context: Context<'_>, name: &str, state: Option<&State>, wanted: WantedState) -> Result<()> {
    let Some(state) = state.filter(|state| state.wanted != wanted) else { return Ok(()) };
    let state = State { wanted, ..state.clone() };
    state::save(context.root, context.paths, name, &state, None)
}
