//! A deployment: one model served by one engine, with its sidecars (`NAME.yaml`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Published, Warning, deployment_file,
    services::{self, ImageChoice, Volume},
};
use crate::error::Result;

/// A deployment file that was read, and what is worth a word about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The deployment.
    pub deployment: Deployment,
    /// Warnings: those without a place first, the others in the order of the file.
    pub warnings: Vec<Warning>,
}

/// Reads a deployment file. `path` is only for messages. All errors are given at once, each with its
/// place ([`crate::error::Error::related`]).
pub fn parse(path: &str, text: &str) -> Result<Parsed> {
    deployment_file::parse(path, text)
}

/// A deployment file, validated. Field by field as in the guide's table.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Deployment and container name.
    pub name: String,
    /// The inference engine.
    pub engine: Engine,
    /// Hugging Face id, or a path the engine understands.
    pub model: String,
    /// Image; the profile's image of the engine's name where absent.
    pub image: Option<String>,
    /// Bind address inside the container.
    pub host: String,
    /// API port, inside and published.
    pub port: u16,
    /// Address the port is published on.
    pub publish: IpAddr,
    /// GPUs to shard over.
    pub tensor_parallel: u32,
    /// Which GPUs.
    pub gpu_ids: GpuIds,
    /// Whether the engine runs the model repository's code.
    pub trust_remote_code: bool,
    /// Data type the engine loads weights as.
    pub dtype: Option<String>,
    /// Longest context, in tokens.
    pub max_model_len: Option<u64>,
    /// Name of the secret that holds the API key.
    pub api_key: Option<String>,
    /// Name of the secret that holds the Hugging Face token.
    pub hf_token: String,
    /// Host directory of the model cache.
    pub hf_cache: String,
    /// Size of the container's `/dev/shm`, in bytes.
    pub shm_size: u64,
    /// Arguments appended to the engine's.
    pub extra_args: Vec<String>,
    /// Plain environment of the engine.
    pub env: BTreeMap<String, String>,
    /// Environment variables of the engine whose value is a secret: variable to secret name.
    pub env_secrets: BTreeMap<String, String>,
    /// The metrics exporter, when enabled.
    pub dcgm_exporter: Option<Sidecar>,
    /// The node agent, when enabled.
    pub miner_client: Option<Sidecar>,
    /// The metrics collector, when enabled.
    pub metrics_collector: Option<Sidecar>,
    /// Further services in Compose's own form, by name.
    pub extra_services: BTreeMap<String, ComposeService>,
}

impl Deployment {
    /// The secrets its services use, by name: whether one of them cannot do without.
    pub fn secrets(&self) -> BTreeMap<String, bool> {
        let mut secrets = BTreeMap::new();
        for service in services::services(self) {
            let files = service.secret_files.values().map(|file| &file.secret);
            for secret in service.secrets.values().chain(files) {
                *secrets.entry(secret.secret.clone()).or_insert(false) |= secret.required;
            }
        }
        secrets
    }

    /// The images its services are started from.
    pub fn images(&self) -> BTreeSet<ImageChoice> {
        services::services(self).into_iter().map(|service| service.image).collect()
    }
}

/// An inference engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
}

impl Engine {
    /// The name in deployment files and of the profile's image.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
        }
    }
}

/// Which GPUs a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuIds {
    /// All of them.
    All,
    /// These: indices or UUIDs (also MIG).
    List(Vec<String>),
}

/// Exporter, agent or collector: what their tables have in common. `None` means "as by default".
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sidecar {
    /// Image reference as written.
    pub image: Option<String>,
    /// Service name.
    pub service_name: Option<String>,
    /// Container name.
    pub container_name: Option<String>,
    /// Bind address inside the container.
    pub listen_host: Option<String>,
    /// Port inside the container.
    pub listen_port: Option<u16>,
    /// Address and port on the host: `PORT` or `ADDRESS:PORT`.
    pub host_port: Option<HostPort>,
    /// The agent's public address.
    pub public_ip: Option<String>,
    /// Environment. A value `secret:NAME` or `${NAME}` is in `secrets` instead.
    pub environment: BTreeMap<String, String>,
    /// Environment variables whose value is a secret: variable to secret name.
    pub secrets: BTreeMap<String, String>,
    /// Command.
    pub command: Option<Vec<String>>,
    /// Entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Mounts of host directories.
    pub volumes: Vec<Volume>,
    /// Published ports.
    pub ports: Option<BTreeSet<Published>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// GPUs it is given. A count is the first so many.
    pub gpus: Option<GpuIds>,
    /// Services it waits for.
    pub depends_on: Vec<String>,
    /// Added capabilities.
    pub cap_add: Option<Vec<String>>,
    /// Restart policy as written.
    pub restart: Option<String>,
    /// Health check.
    pub healthcheck: Option<Healthcheck>,
    /// Path of the exporter's metrics as the agent reads them.
    pub dcgm_metrics_path: Option<String>,
    /// Upstream the agent or collector talks to instead of the engine.
    pub upstream_http_url: Option<String>,
}

/// A published host port, with the address where one was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Host address; loopback where none was given.
    pub address: Option<IpAddr>,
    /// Port on the host.
    pub port: u16,
}

/// A health check, as Compose has it. Durations in nanoseconds, as Docker's API wants them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
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

/// A service of `extra_services`, in Compose's form. Keys we do not carry out are refused by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ComposeService {
    /// The fields a sidecar has too.
    pub common: Sidecar,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User, as `docker run --user` takes it.
    pub user: Option<String>,
    /// Dropped capabilities.
    pub cap_drop: Vec<String>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// tmpfs mounts.
    pub tmpfs: Vec<String>,
    /// Size of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
}
