//! Facts as plain data. Every source is [`Known`]: what was read, or why nothing could be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{
    clock::Clock,
    device_links::DeviceLinks,
    engine_details::EngineDetails,
    leaks::Leaks,
    limits::Limits,
    published::PublishedContainer,
    shape::Shape,
    upgrades::{Upgrades, VendorToolkit},
    volume::Volume,
};
use crate::{
    digest::Digest,
    host::smoke::{Reload, Smoke, engine::EngineSmoke},
};

/// What one source said, or why it could not be read. Unknown is never "fine".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known<T> {
    /// It was read.
    Ok(T),
    /// It could not be read.
    Unknown {
        /// Why, in one line.
        why: String,
    },
}

impl<T> Known<T> {
    /// It could not be read, because of `why`.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }

    /// What was read, or why nothing could be.
    pub fn as_result(&self) -> Result<&T, &str> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::Unknown { why } => Err(why),
        }
    }

    /// What was read, if anything.
    pub fn ok(&self) -> Option<&T> {
        self.as_result().ok()
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self::unknown("nothing was looked at")
    }
}

/// The entry of a table of facts, where a missing key means that nobody looked.
pub fn looked_up<'a, T>(table: &'a BTreeMap<String, Known<T>>, key: &str) -> Result<&'a T, &'a str> {
    table.get(key).map_or(Err("nothing was looked at"), Known::as_result)
}

/// As [`looked_up`], of the GPU with this index.
pub fn looked_at<T>(table: &BTreeMap<u32, Known<T>>, index: u32) -> Result<&T, &str> {
    table.get(&index).map_or(Err("nothing was looked at"), Known::as_result)
}

/// What was observed on a host, as plain data. Gathered first, reasoned about afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// os-release(5).
    pub os: Known<Os>,
    /// uname(2).
    pub kernel: Known<Kernel>,
    /// Identity of this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: Known<String>,
    /// `/proc/meminfo`.
    pub memory: Known<Memory>,
    /// `/dev/shm`.
    pub shm: Known<Space>,
    /// Free space, by the path asked for.
    pub space: BTreeMap<String, Known<Space>>,
    /// Name resolution, by host name.
    pub names: BTreeMap<String, Known<Resolution>>,
    /// TCP and UDP sockets that take connections.
    pub listeners: Known<Vec<Listener>>,
    /// NVIDIA display and 3D controllers on PCI.
    pub pci: Known<Vec<PciDevice>>,
    /// The NVIDIA kernel module.
    pub module: Known<Module>,
    /// Version of the driver's user-space library, from its file name.
    pub user_space: Known<Option<String>>,
    /// What NVML says.
    pub nvml: Known<Nvml>,
    /// How each GPU is that NVML reaches, by its index.
    pub health: BTreeMap<u32, Known<super::Health>>,
    /// Device nodes of the driver.
    pub nodes: Known<super::DeviceNodes>,
    /// NVSwitches, and Fabric Manager.
    pub fabric: Known<super::FabricManager>,
    /// What the kernel's log says of GPUs.
    pub kernel_log: Known<super::KernelLog>,
    /// When this was looked at.
    pub at: Known<jiff::Timestamp>,
    /// Modes, owners and links of directories and files that must be shut, by path.
    pub paths: BTreeMap<String, Known<PathState>>,
    /// Modes, owners and links of the directories above those, by path.
    pub parents: BTreeMap<String, Known<PathState>>,
    /// Whether each secret resolves to something, by name. Never a value.
    pub secrets: BTreeMap<String, Known<SecretState>>,
    /// Docker's client configuration, which may hold registry credentials.
    pub docker_config: Known<Option<DockerConfig>>,
    /// The Docker daemon's configuration (`/etc/docker/daemon.json`).
    pub daemon_json: Known<Option<DaemonJson>>,
    /// The Docker daemon.
    pub docker: Known<Docker>,
    /// Images on the host by the lock's name; `None`: Docker does not have it.
    pub images: BTreeMap<String, Known<Option<Image>>>,
    /// Containers that bedplate made.
    pub containers: Known<Vec<Container>>,
    /// Every container that runs, and what it publishes.
    pub published: Known<Vec<PublishedContainer>>,
    /// Container Device Interface specifications.
    pub cdi: Known<Vec<CdiSpec>>,
    /// Model caches, by path.
    pub caches: BTreeMap<String, Known<Cache>>,
    /// Models, by deployment.
    pub models: BTreeMap<String, Model>,
    /// The clock, and who keeps it.
    pub clock: Known<Clock>,
    /// Limits that containers inherit; `None`: no container engine runs.
    pub limits: Known<Option<Limits>>,
    /// File systems under the places that matter, by the path asked for.
    pub volumes: BTreeMap<String, Known<Volume>>,
    /// Whether locked packages may change by themselves.
    pub upgrades: Known<Upgrades>,
    /// The vendor's container toolkit.
    pub toolkit: Known<VendorToolkit>,
    /// Links of the driver's device nodes in `/dev/char`.
    pub device_links: Known<DeviceLinks>,
    /// Tokens in files that people write by hand.
    pub leaks: Known<Leaks>,
    /// What further the Docker daemon says of itself.
    pub engine: Known<EngineDetails>,
    /// Values of `daemon.json` as JSON text, by pointer: of the keys that are wanted.
    pub daemon_keys: Known<BTreeMap<String, String>>,
    /// What a container saw of the GPUs. Only looked at where it is asked for.
    pub smoke: Known<Smoke>,
    /// What a running container saw before and after systemd read its units anew. Only where it is asked for.
    pub smoke_reload: Known<Reload>,
    /// What each deployment's engine came to in its own image, by deployment. Only where it is asked for.
    pub engines: BTreeMap<String, Known<EngineSmoke>>,
}

/// The distribution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Os {
    /// `ID`.
    pub id: String,
    /// `VERSION_CODENAME`, where there is one.
    pub release: Option<String>,
    /// `PRETTY_NAME`, or the id.
    pub name: String,
}

impl Facts {
    /// Why Docker's configuration cannot be read as JSON, where it is there and cannot.
    pub fn broken_daemon_json(&self) -> Option<&str> {
        self.daemon_json.ok()?.as_ref()?.broken.as_deref()
    }

    /// Where Docker's images lie: with containerd's image store not below Docker's own directory (Docker, "containerd image
    /// store"; containerd-config.toml(5), `root`).
    pub fn image_root(&self) -> &str {
        if self.engine.ok().is_some_and(|engine| engine.containerd_store) {
            return "/var/lib/containerd";
        }
        match self.docker.ok() {
            Some(Docker::Answers(engine)) if !engine.root.is_empty() => &engine.root,
            _ => "/var/lib/docker",
        }
    }
}

/// The running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `Linux`.
    pub system: String,
    /// Its release, such as `6.12.57+deb13-cloud-amd64`.
    pub release: String,
    /// The machine: `x86_64`.
    pub machine: String,
}

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What could be given out now.
    pub available: u64,
}

/// Space of a file system, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The path itself, or its nearest ancestor that exists.
    pub at: String,
    /// Size.
    pub total: u64,
    /// What an ordinary user may still take.
    pub free: u64,
    /// Number of the file system: needs on the same one add up.
    pub device: u64,
}

/// What asking for a name gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// The resolver said no.
    Failed(String),
}

/// A socket that takes connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Local address; unspecified means every one.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// Who has it, where that was asked and may be seen: `nginx (pid 812)`.
    pub process: Option<String>,
}

/// A display or 3D controller by NVIDIA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciDevice {
    /// Its PCI address.
    pub address: String,
    /// Device id, such as `0x2330`.
    pub device: String,
    /// The kernel driver that has it.
    pub driver: Option<String>,
}

/// The NVIDIA kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Module {
    /// Version of the loaded one.
    pub loaded: Option<String>,
    /// The module file for the running kernel.
    pub file: Option<String>,
    /// Modules of this name exist for other kernels only: these.
    pub other_kernels: Vec<String>,
    /// Whether Secure Boot is on, where it could be read.
    pub secure_boot: Option<bool>,
}

/// What NVML says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nvml {
    /// It answers.
    Answers(Gpus),
    /// There is no library.
    NoLibrary(String),
    /// The library is there, the driver is not loaded (NVML code 9).
    DriverNotLoaded,
    /// Library and loaded driver differ (NVML code 18).
    VersionMismatch,
}

/// GPUs as NVML sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gpus {
    /// Version of the driver.
    pub driver: String,
    /// Newest CUDA version the driver supports, such as `12.4`.
    pub cuda: Option<String>,
    /// The devices.
    pub devices: Vec<Device>,
    /// Devices NVML counts but cannot reach: index and reason.
    pub lost: Vec<String>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// NVML's index.
    pub index: u32,
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// `GPU-…`.
    pub uuid: Option<String>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Whether MIG mode is on, where the card has it.
    pub mig: Option<bool>,
    /// CUDA compute capability.
    pub compute_capability: Option<(u32, u32)>,
    /// Brand as `NVIDIA_REQUIRE_*` writes it, where NVML says one of those.
    pub brand: Option<String>,
}

/// A path that must be shut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// Nothing is there.
    Absent,
    /// It, or a directory on the way, is a symbolic link: this one.
    Link(String),
    /// It is there.
    Present {
        /// Permission bits.
        mode: u32,
        /// `user:group`, as names where the host knows them.
        owner: String,
        /// User and group as numbers.
        ids: (u32, u32),
        /// Whether it is a directory.
        directory: bool,
    },
}

/// Whether a secret resolves to something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretState {
    /// It does; where from.
    Present(String),
    /// It does not; why.
    Absent(String),
}

/// Docker's client configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerConfig {
    /// Where it is.
    pub path: String,
    /// Its mode, owner and links.
    pub state: PathState,
    /// The user who looked, and may own it.
    pub user: u32,
    /// Registries whose password it holds in clear.
    pub plain: BTreeSet<String>,
}

/// What matters of the daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DaemonJson {
    /// `hosts`: where its API listens.
    pub hosts: Vec<String>,
    /// `features.cdi`.
    pub cdi: Option<bool>,
    /// Why it cannot be understood, where it is not JSON: then the rest is not known, and Docker does not start with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// The Docker daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Docker {
    /// It answers.
    Answers(Engine),
    /// It does not, and why: not installed, no permission, not running.
    Away(Away),
}

/// Why the Docker daemon does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// In one line.
    pub why: String,
    /// What helps.
    pub next: Option<String>,
}

/// A Docker daemon that answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Engine {
    /// Its version.
    pub version: String,
    /// Its data root.
    pub root: String,
    /// Storage driver.
    pub storage: String,
    /// Registered runtimes.
    pub runtimes: BTreeSet<String>,
    /// Whether it takes CDI device requests, where it says.
    pub cdi: Option<bool>,
    /// Directories it reads CDI specifications from.
    pub cdi_dirs: Vec<String>,
    /// What identifies this start of the daemon, where it can be seen.
    pub started: Option<String>,
}

/// An image on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Image {
    /// Image id: the configuration's digest, or with the containerd store the manifest's or index's.
    pub id: String,
    /// `repository@sha256:…` it is known under.
    pub repo_digests: Vec<String>,
    /// Operating system.
    pub os: String,
    /// Architecture, in OCI's words: `amd64`.
    pub architecture: String,
    /// Unpacked size, in bytes.
    pub size: u64,
    /// The entrypoint.
    pub entrypoint: Vec<String>,
}

/// A container that bedplate made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The deployment it belongs to.
    pub deployment: String,
    /// Whether it runs.
    pub running: bool,
    /// Host ports it has.
    pub ports: BTreeSet<u16>,
}

/// A Container Device Interface specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdiSpec {
    /// Where it is.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// `vendor/class`, such as `nvidia.com/gpu`; `None` where it does not parse.
    pub kind: Option<String>,
    /// Device names.
    pub devices: BTreeSet<String>,
    /// Driver versions that the names of its libraries carry.
    pub versions: BTreeSet<String>,
    /// Host paths it names that are not there.
    pub missing: BTreeSet<String>,
    /// What is wrong with the file itself.
    pub broken: Option<String>,
}

/// A model cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Whether the directory is there.
    pub exists: bool,
    /// Whether root can write: not on a read-only file system, not a file, not behind a link.
    pub writable: bool,
    /// Why it is not.
    pub why: Option<String>,
}

/// A deployment's model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// What of it is on the host already; `None`: nothing that can be used.
    pub local: Known<Option<LocalModel>>,
    /// What the hub says; only asked where the model must still be fetched, or a token is asked for.
    pub hub: Known<Hub>,
    /// What its `config.json` says of its layers: the one on the host, else the hub's.
    pub shape: Known<Shape>,
    /// Bytes of weights that an engine loads: what the index of the shards says, else the size of the files.
    pub weights: Known<u64>,
}

/// A model on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalModel {
    /// Where: the snapshot, or the directory.
    pub path: String,
    /// Whether every file of it is there.
    pub complete: bool,
    /// Size of the weights, in bytes.
    pub weights: u64,
    /// The largest file of the weights, in bytes.
    pub largest: u64,
}

/// What the model hub says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hub {
    /// The model may be fetched.
    Allowed {
        /// Whether its files need an accepted licence.
        gated: bool,
        /// Size of the files, in bytes, where the hub says.
        bytes: Option<u64>,
        /// Whether a token was sent, and so accepted.
        token: bool,
    },
    /// The token was refused (401 with a token).
    TokenRejected,
    /// The hub shows no such model to whoever sends no token: it is private, or does not exist (401 without).
    TokenNeeded,
    /// The model exists, its files need an accepted licence, and no token was sent.
    Gated,
    /// The token is good but has no access: the licence was not accepted (403).
    Forbidden,
    /// The hub has no such model, or hides it (404).
    NotFound,
}
