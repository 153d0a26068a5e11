//! The containers a deployment stands for, with every default filled in.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Published, assemble,
    deployment::{Deployment, GpuIds, Healthcheck},
    render,
};

/// The containers a deployment stands for, in dependency order: each after all it depends on, the engine
/// first where nothing says otherwise.
pub fn services(deployment: &Deployment) -> Vec<Service> {
    assemble::services(deployment)
}

/// The services in Compose's form, for people and for `render`. Secrets are shown as `secret:NAME`.
pub fn render(deployment: &Deployment) -> String {
    render::render(&deployment.name, &services(deployment))
}

/// One container of a deployment, with every default filled in. What `render` shows and `up` makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Service name: its host name on the deployment's network. The engine's is the deployment's name.
    pub name: String,
    /// Which part of the deployment.
    pub role: Role,
    /// Container name on the host.
    pub container_name: String,
    /// Image reference as written, or the profile's image name where the deployment gives none.
    pub image: ImageChoice,
    /// Entrypoint override.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments appended to the entrypoint. `None`: the image's own command.
    pub command: Option<Vec<String>>,
    /// Plain environment.
    pub environment: BTreeMap<String, String>,
    /// Secret environment: variable to secret. Handed in as files, never as container configuration.
    pub secrets: BTreeMap<String, SecretUse>,
    /// Files inside the container that hold a secret, by absolute path: for programs that read a secret
    /// from a file only. Made on tmpfs, like the secret itself.
    pub secret_files: BTreeMap<String, SecretFile>,
    /// Mounts of host directories.
    pub volumes: Vec<Volume>,
    /// Published ports.
    pub ports: BTreeSet<Published>,
    /// GPUs.
    pub gpus: Option<GpuIds>,
    /// Added capabilities.
    pub cap_add: Vec<String>,
    /// Dropped capabilities.
    pub cap_drop: Vec<String>,
    /// Size of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
    /// Services that must run first.
    pub depends_on: BTreeSet<String>,
    /// Labels the deployment gives.
    pub labels: BTreeMap<String, String>,
    /// Health check.
    pub healthcheck: Option<Healthcheck>,
    /// User override.
    pub user: Option<String>,
    /// Working directory override.
    pub working_dir: Option<String>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// tmpfs mounts, by path in the container.
    pub tmpfs: Vec<String>,
    /// Whether it is restarted when it fails. Nothing is restarted at boot: the boot unit does that.
    pub restart_on_failure: bool,
}

/// Which part of a deployment a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The inference engine.
    Engine,
    /// The metrics exporter.
    Exporter,
    /// The node agent.
    Agent,
    /// The metrics collector.
    Collector,
    /// One of `extra_services`.
    Extra,
}

/// Which image a service is started from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageChoice {
    /// The image that the profile's `[images]` has under this name.
    Named(String),
    /// A reference as the deployment writes it.
    Reference(String),
}

/// How a service uses a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// Name of the secret in the profile's `[secrets]`.
    pub secret: String,
    /// Whether the deployment cannot do without: an absent optional secret is left out.
    pub required: bool,
}

/// A file in a container that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The secret.
    pub secret: SecretUse,
    /// The YAML key the secret is the value of.
    pub key: String,
}

impl SecretFile {
    /// What the file holds for a value: one YAML line. The result is as secret as the value.
    pub fn content(&self, value: &str) -> String {
        // A JSON string is a YAML string (YAML 1.2, section 1.3).
        format!("{}: {}\n", self.key, serde_json::Value::from(value))
    }
}

/// A host directory or file in a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// Absolute host path, or the name of a Docker volume.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}
