//! Containers: making, starting, stopping, looking.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use bollard::{
    models::{
        ContainerCreateBody, ContainerInspectResponse, DeviceRequest, EndpointSettings, HealthConfig,
        HostConfig, Mount as BollardMount, MountType, NetworkingConfig, PortBinding, PortSummary,
        RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use serde::Serialize;

use super::{
    Docker,
    failure::{Asked, failed, is_absent, is_unchanged},
};
use crate::error::Result;

/// A container to be made, as plain data. Serialised it is canonical: maps are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NewContainer {
    /// Name on the host.
    pub name: String,
    /// Image: `repository@digest` or an id, never a tag that can move.
    pub image: String,
    /// Entrypoint; never empty, so that the image's own is always said.
    pub entrypoint: Vec<String>,
    /// Command.
    pub command: Vec<String>,
    /// Environment, without secrets.
    pub environment: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// User, as `docker run --user` takes it.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Mounts of the host's directories and files, and of Docker volumes.
    pub mounts: Vec<Mount>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// The one network it joins.
    pub network: String,
    /// Its names on that network, beside the container's.
    pub aliases: Vec<String>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// GPUs.
    pub gpus: Option<Gpus>,
    /// Added capabilities.
    pub cap_add: Vec<String>,
    /// Dropped capabilities.
    pub cap_drop: Vec<String>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Health check; the image's own where absent.
    pub health: Option<HealthProbe>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// tmpfs mounts: path in the container to options.
    pub tmpfs: BTreeMap<String, String>,
    /// Restart when it fails (never at the daemon's start).
    pub restart_on_failure: bool,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Host path, or name of a Docker volume.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// What `source` is.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A path of the host; one that is missing is an error, it is not made.
    Bind,
    /// A volume of Docker's.
    Volume,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Port {
    /// Address on the host.
    pub address: IpAddr,
    /// Port on the host.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// How GPUs are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gpus {
    /// CDI devices by qualified name, such as `nvidia.com/gpu=0`.
    Cdi(Vec<String>),
    /// All GPUs, through the `nvidia` device driver.
    NvidiaAll,
    /// These indices or UUIDs, through the `nvidia` device driver.
    Nvidia(Vec<String>),
}

/// A health check. Durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthProbe {
    /// `["CMD", …]`, `["CMD-SHELL", …]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Time between probes.
    pub interval: Option<i64>,
    /// Time limit of a probe.
    pub timeout: Option<i64>,
    /// Failures in a row until unhealthy.
    pub retries: Option<i64>,
    /// Grace at the start.
    pub start_period: Option<i64>,
}

/// A container the daemon has.
#[derive(Debug, Clone)]
pub struct ContainerOnHost {
    /// Its id.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// The image it was made from, as asked for.
    pub image: String,
    /// That image's id.
    pub image_id: String,
    /// Where it stands.
    pub state: State,
    /// Its health check's verdict, where it has one.
    pub health: Option<Health>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports published now (empty unless it runs).
    pub ports: Vec<Port>,
    /// Addresses, by network.
    pub addresses: BTreeMap<String, IpAddr>,
    /// User it runs as.
    pub user: Option<String>,
    /// All that `docker inspect` shows, as JSON: where a secret must not be.
    pub shown: String,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Docker's word: `created`, `running`, `restarting`, `exited`, `dead`, …
    pub status: String,
    /// Whether it runs.
    pub running: bool,
    /// Whether Docker waits to start it again.
    pub restarting: bool,
    /// Exit status of its last run.
    pub exit_code: i64,
    /// Whether the kernel killed it for memory.
    pub oom_killed: bool,
    /// Why it could not be started.
    pub error: String,
    /// When it was last started, RFC 3339.
    pub started_at: String,
    /// When it last ended, RFC 3339.
    pub finished_at: String,
    /// How often Docker started it again.
    pub restarts: u64,
    /// Its first process, in the host's numbering.
    pub pid: Option<u32>,
}

impl State {
    /// Whether it ran and its work ended well: status 0, and not to be started again.
    pub fn ended_well(&self) -> bool {
        self.has_started()
            && !self.running
            && !self.restarting
            && self.exit_code == 0
            && self.error.is_empty()
    }

    /// Whether it was ever started. Docker's zero time is the year 1.
    pub fn has_started(&self) -> bool {
        !self.started_at.is_empty() && !self.started_at.starts_with("0001")
    }
}

/// A health check's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Within its grace.
    Starting,
    /// It passed.
    Healthy,
    /// It failed as often as it may.
    Unhealthy,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A container that runs, as far as others can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachable {
    /// Its name.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it shares the host's network.
    pub host_network: bool,
    /// Published ports.
    pub ports: BTreeSet<Port>,
}

impl Docker {
    /// Makes a container and returns its id. It does not start it.
    pub async fn create(&self, wanted: &NewContainer) -> Result<String> {
        let options = CreateContainerOptionsBuilder::default().name(&wanted.name).build();
        let made = self
            .client
            .create_container(Some(options), body(wanted))
            .await
            .map_err(|error| failed(Asked::Create(&wanted.name), error))?;
        Ok(made.id)
    }

    /// Starts a container; one that runs is no error.
    pub async fn start(&self, container: &str) -> Result<()> {
        match self.client.start_container(container, None).await {
            Err(error) if !is_unchanged(&error) => Err(failed(Asked::Start(container), error)),
            _ => Ok(()),
        }
    }

    /// Asks a container to end and kills it after `grace` seconds; one that does not run is no error.
    pub async fn stop(&self, container: &str, grace: u32) -> Result<()> {
        let seconds = i32::try_from(grace).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        // The answer comes when it has ended, so the time limit is the grace's and then some.
        let patient =
            self.client.clone().with_timeout(super::ANSWER + std::time::Duration::from_secs(grace.into()));
        match patient.stop_container(container, Some(options)).await {
            Err(error) if !is_unchanged(&error) && !is_absent(&error) => {
                Err(failed(Asked::Stop(container), error))
            }
            _ => Ok(()),
        }
    }

    /// Sends a container a signal, such as `SIGKILL`.
    pub async fn kill(&self, container: &str, signal: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        self.client
            .kill_container(container, Some(options))
            .await
            .map_err(|error| failed(Asked::Stop(container), error))
    }

    /// Removes a container, running or not; one that is not there is no error. Its anonymous volumes stay: what it
    /// wrote there is not ours to throw away.
    pub async fn remove(&self, container: &str) -> Result<()> {
        self.remove_with(container, false).await
    }

    /// Removes a container that never ran, with the anonymous volumes made for it, which are empty.
    pub async fn remove_unstarted(&self, container: &str) -> Result<()> {
        self.remove_with(container, true).await
    }

    async fn remove_with(&self, container: &str, volumes: bool) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes).build();
        match self.client.remove_container(container, Some(options)).await {
            Err(error) if !is_absent(&error) => Err(failed(Asked::Remove(container), error)),
            _ => Ok(()),
        }
    }

    /// Gives a container another name.
    pub async fn rename(&self, container: &str, name: &str) -> Result<()> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        self.client
            .rename_container(container, options)
            .await
            .map_err(|error| failed(Asked::Create(name), error))
    }

    /// A container by name or id, when it is there.
    pub async fn inspect(&self, container: &str) -> Result<Option<ContainerOnHost>> {
        match self.client.inspect_container(container, None).await {
            Ok(found) => Ok(Some(on_host(found))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed(Asked::Inspect(container), error)),
        }
    }

    /// Every container that runs, whoever made it, with its published ports. Sorted by name.
    ///
    /// # Errors
    /// Docker does not answer.
    pub async fn reachable(&self) -> Result<Vec<Reachable>> {
        let options = ListContainersOptionsBuilder::default().build();
        let found =
            self.client.list_containers(Some(options)).await.map_err(|error| failed(Asked::List, error))?;
        let mut reachable: Vec<Reachable> = found
            .into_iter()
            .map(|container| Reachable {
                name: first_name(container.names),
                image: container.image.unwrap_or_default(),
                labels: container.labels.unwrap_or_default().into_iter().collect(),
                host_network: container
                    .host_config
                    .and_then(|config| config.network_mode)
                    .is_some_and(|mode| mode == "host"),
                ports: container.ports.into_iter().flatten().filter_map(published).collect(),
            })
            .collect();
        reachable.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(reachable)
    }

    /// Containers, running or not, that have this label: `NAME` or `NAME=VALUE`. Sorted by name.
    pub async fn list_by_label(&self, label: &str) -> Result<Vec<Listed>> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found =
            self.client.list_containers(Some(options)).await.map_err(|error| failed(Asked::List, error))?;
        let mut listed: Vec<Listed> = found
            .into_iter()
            .map(|container| Listed {
                id: container.id.unwrap_or_default(),
                name: first_name(container.names),
                labels: container.labels.unwrap_or_default().into_iter().collect(),
            })
            .collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }
}

fn first_name(names: Option<Vec<String>>) -> String {
    let first = names.and_then(|names| names.into_iter().next()).unwrap_or_default();
    first.trim_start_matches('/').to_owned()
}

/// A port of a list, where it is published on the host.
fn published(port: PortSummary) -> Option<Port> {
    Some(Port {
        // Without an address it is on all of them.
        address: port.ip.and_then(|ip| ip.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        host_port: port.public_port?,
        container_port: port.private_port,
        protocol: port.typ.map_or_else(|| "tcp".to_owned(), |kind| kind.to_string()),
    })
}

fn body(wanted: &NewContainer) -> ContainerCreateBody {
    let key = |port: &Port| format!("{}/{}", port.container_port, port.protocol);
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &wanted.ports {
        bindings.entry(key(port)).or_default().get_or_insert_default().push(PortBinding {
            host_ip: Some(port.address.to_string()),
            host_port: Some(port.host_port.to_string()),
        });
    }
    let exposed: std::collections::BTreeSet<String> = wanted.ports.iter().map(key).collect();
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let endpoint = EndpointSettings { aliases: some(&wanted.aliases), ..EndpointSettings::default() };
    let policy =
        if wanted.restart_on_failure { RestartPolicyNameEnum::ON_FAILURE } else { RestartPolicyNameEnum::NO };
    ContainerCreateBody {
        hostname: wanted.hostname.clone(),
        user: wanted.user.clone(),
        exposed_ports: (!exposed.is_empty()).then(|| exposed.into_iter().collect()),
        env: Some(wanted.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        cmd: Some(wanted.command.clone()),
        entrypoint: Some(wanted.entrypoint.clone()),
        healthcheck: wanted.health.as_ref().map(|probe| HealthConfig {
            test: Some(probe.test.clone()),
            interval: probe.interval,
            timeout: probe.timeout,
            retries: probe.retries,
            start_period: probe.start_period,
            start_interval: None,
        }),
        image: Some(wanted.image.clone()),
        working_dir: wanted.working_dir.clone(),
        labels: Some(wanted.labels.clone().into_iter().collect()),
        host_config: Some(HostConfig {
            network_mode: Some(wanted.network.clone()),
            port_bindings: Some(bindings),
            restart_policy: Some(RestartPolicy { name: Some(policy), maximum_retry_count: None }),
            mounts: Some(wanted.mounts.iter().map(mount).collect()),
            device_requests: wanted.gpus.as_ref().map(|gpus| vec![device_request(gpus)]),
            cap_add: some(&wanted.cap_add),
            cap_drop: some(&wanted.cap_drop),
            shm_size: wanted.shm_size.and_then(|size| i64::try_from(size).ok()),
            readonly_rootfs: Some(wanted.read_only),
            tmpfs: (!wanted.tmpfs.is_empty()).then(|| wanted.tmpfs.clone().into_iter().collect()),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(wanted.network.clone(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

fn mount(wanted: &Mount) -> BollardMount {
    BollardMount {
        source: Some(wanted.source.clone()),
        target: Some(wanted.target.clone()),
        read_only: Some(wanted.read_only),
        typ: Some(match wanted.kind {
            MountKind::Bind => MountType::BIND,
            MountKind::Volume => MountType::VOLUME,
        }),
        ..BollardMount::default()
    }
}

fn device_request(gpus: &Gpus) -> DeviceRequest {
    let gpu = || Some(vec![vec!["gpu".to_owned()]]);
    match gpus {
        Gpus::Cdi(names) => DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(names.clone()),
            ..DeviceRequest::default()
        },
        Gpus::NvidiaAll => DeviceRequest {
            driver: Some("nvidia".to_owned()),
            count: Some(-1),
            capabilities: gpu(),
            ..DeviceRequest::default()
        },
        Gpus::Nvidia(ids) => DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(ids.clone()),
            capabilities: gpu(),
            ..DeviceRequest::default()
        },
    }
}

fn on_host(found: ContainerInspectResponse) -> ContainerOnHost {
    let shown = serde_json::to_string(&found).unwrap_or_default();
    let state = found.state.unwrap_or_default();
    let config = found.config.unwrap_or_default();
    let network = found.network_settings.unwrap_or_default();
    let mut ports: Vec<Port> = network
        .ports
        .unwrap_or_default()
        .into_iter()
        .flat_map(|(inside, bindings)| {
            bindings.unwrap_or_default().into_iter().map(move |b| (inside.clone(), b))
        })
        .filter_map(|(inside, binding)| port(&inside, &binding))
        .collect();
    ports.sort();
    let health = state.health.and_then(|health| health.status).map(|status| status.to_string());
    ContainerOnHost {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: found.image.unwrap_or_default(),
        state: State {
            status: state.status.map(|status| status.to_string()).unwrap_or_default(),
            running: state.running.unwrap_or(false),
            restarting: state.restarting.unwrap_or(false),
            exit_code: state.exit_code.unwrap_or(0),
            oom_killed: state.oom_killed.unwrap_or(false),
            error: state.error.unwrap_or_default(),
            started_at: state.started_at.unwrap_or_default(),
            finished_at: state.finished_at.unwrap_or_default(),
            restarts: found.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        },
        health: match health.as_deref() {
            Some("starting") => Some(Health::Starting),
            Some("healthy") => Some(Health::Healthy),
            Some("unhealthy") => Some(Health::Unhealthy),
            _ => None,
        },
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        ports,
        addresses: network
            .networks
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, endpoint)| Some((name, endpoint.ip_address?.parse().ok()?)))
            .collect(),
        user: config.user.filter(|user| !user.is_empty()),
        shown,
    }
}

fn port(inside: &str, binding: &PortBinding) -> Option<Port> {
    let (container_port, protocol) = inside.split_once('/').unwrap_or((inside, "tcp"));
    // An empty address is every address (Engine API, PortBinding).
    let address = match binding.host_ip.as_deref() {
        None | Some("") => IpAddr::from([0, 0, 0, 0]),
        Some(text) => text.parse().ok()?,
    };
    Some(Port {
        address,
        host_port: binding.host_port.as_deref()?.parse().ok()?,
        container_port: container_port.parse().ok()?,
        protocol: protocol.to_owned(),
    })
}
