//! What an operator writes: host profiles, image definitions, deployments, and the services a deployment stands for.
//! Pure: text in, checked values or errors with their place out.

mod assemble;
mod compose_form;
mod decode;
pub mod deployment;
mod deployment_file;
mod forms;
mod gpu_form;
mod host_files;
mod host_profile;
mod host_rules;
pub mod image_definition;
mod render;
pub mod rewrite;
pub(crate) mod secrets_like;
pub mod services;
mod sidecars;
pub mod template;
#[cfg(test)]
mod tests;
mod tree;
mod tree_toml;
mod tree_yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use decode::Warning;
pub(crate) use decode::nearest;
pub use deployment::Deployment;
pub use image_definition::ImageDefinition;

use crate::error::Result;

/// Reads a host profile. `path` is only for messages. All errors are given at once, each with its place
/// ([`crate::error::Error::related`]).
pub fn parse(path: &str, text: &str) -> Result<Profile> {
    host_profile::parse(path, text)
}

/// A host profile: the host an operator wants (`profiles/NAME.toml`, `schema = 1`).
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Profile {
    /// One line for people.
    pub description: Option<String>,
    /// Distribution and packages.
    pub host: Host,
    /// Kernel package, parameters and modules.
    pub kernel: Kernel,
    /// The GPUs image facts are judged against when locking without one.
    pub gpu: Option<Gpu>,
    /// The NVIDIA driver.
    pub driver: Driver,
    /// The container engine.
    pub container: Container,
    /// Every image any deployment or check may start, by the profile's name for it.
    pub images: BTreeMap<String, ImageWanted>,
    /// Directories that hold state.
    pub mounts: Vec<Mount>,
    /// Configuration files a generation owns.
    pub files: Vec<ManagedFile>,
    /// Accounts.
    pub users: Vec<User>,
    /// Thresholds and recorded exceptions.
    pub checks: Checks,
    /// Where secrets come from, by name.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Deployment files, as paths relative to the profile.
    pub deployments: Vec<String>,
}

impl Profile {
    /// Whether this host has GPUs at all: a driver or GPU access of containers is asked for.
    pub fn wants_gpus(&self) -> bool {
        self.driver.flavor != DriverFlavor::None || self.container.gpu_access != GpuAccess::None
    }

    /// Every file this profile reads, as written: paths relative to the profile. Deployments, sources of
    /// files, keyrings, patches and the certificate of the modules. Secrets are not among them.
    pub fn input_paths(&self) -> BTreeSet<&str> {
        let sources = self.files.iter().filter_map(|file| match &file.content {
            FileContent::Source(path) => Some(path),
            FileContent::Inline(_) => None,
        });
        let keyrings = self.host.repositories.iter().map(|repository| &repository.keyring);
        self.deployments
            .iter()
            .chain(sources)
            .chain(keyrings)
            .chain(&self.driver.patches)
            .chain(self.driver.signing.as_ref().map(|signing| &signing.certificate))
            .map(String::as_str)
            .collect()
    }
}

/// `[host]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Host {
    /// The distribution.
    pub distribution: Distribution,
    /// Its release's code name, such as `trixie`.
    pub release: String,
    /// Debian's name of the architecture: `amd64`.
    pub architecture: String,
    /// Packages asked for by name.
    pub packages: Vec<String>,
    /// Whether packages that are not locked are removed.
    pub strict: bool,
    /// Repositories besides the distribution's own.
    pub repositories: Vec<Repository>,
    /// Whether the host's packages are locked and installed. False: they are someone else's; those that are
    /// named are only looked for. True unless said.
    pub pin_packages: bool,
    /// Whether recommended packages are installed as well. False unless said.
    pub recommends: bool,
    /// Whether the distribution's backports are candidates for packages whose version asks for them.
    pub backports: bool,
    /// The archive's state at this time, such as `20261121T091500Z`, from archives that keep snapshots.
    pub snapshot: Option<String>,
}

/// A Linux distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Distribution {
    /// The `ID` of os-release(5).
    pub fn id(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
        }
    }
}

/// `[[host.repository]]`: an archive besides the distribution's own.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Repository {
    /// Its name in the lock.
    pub name: String,
    /// Its base address.
    pub uri: String,
    /// Suites, or paths ending in `/` of a flat repository.
    pub suites: Vec<String>,
    /// Components; empty for a flat repository.
    pub components: Vec<String>,
    /// The key file it is verified with, relative to the profile.
    pub keyring: String,
}

/// `[kernel]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Kernel {
    /// The kernel package.
    pub package: Option<String>,
    /// Kernel command line parameters.
    pub parameters: Vec<String>,
    /// Modules that are never loaded by themselves (modprobe.d(5) `blacklist`).
    pub blacklist: Vec<String>,
    /// Module options, by module (modprobe.d(5) `options`).
    pub options: BTreeMap<String, String>,
}

/// `[gpu]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Gpu {
    /// Model as NVIDIA names it, such as `H100`.
    pub model: Option<String>,
    /// CUDA compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// Brand, as `NVIDIA_REQUIRE_*` uses it (`tesla`, `geforce`, …).
    pub brand: Option<String>,
    /// How many the host has.
    pub count: Option<u32>,
}

/// `[driver]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Driver {
    /// Which kernel modules.
    pub flavor: DriverFlavor,
    /// Exact version (`550.163.01`) or branch (`550`).
    pub version: Option<String>,
    /// Patches to the module sources, relative to the profile.
    pub patches: Vec<String>,
    /// What the modules are signed with.
    pub signing: Option<Signing>,
}

/// `[driver] signing`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Signing {
    /// Absolute path of the private key (PEM), on the machine that builds modules. Not part of what the profile says:
    /// which key it is, the certificate tells.
    #[serde(skip)]
    pub key: String,
    /// Its X.509 certificate (PEM), relative to the profile.
    pub certificate: String,
}

/// Which of NVIDIA's kernel modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum DriverFlavor {
    /// The open kernel modules.
    Open,
    /// The proprietary kernel modules.
    Proprietary,
    /// No driver: a host without GPUs.
    None,
}

/// `[container]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Container {
    /// The container engine.
    pub engine: ContainerEngine,
    /// How containers reach GPUs.
    pub gpu_access: GpuAccess,
    /// Keys of Docker's `daemon.json` this profile owns (`[container.daemon]`), merged key by key.
    pub daemon: serde_json::Map<String, serde_json::Value>,
}

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum ContainerEngine {
    /// Docker.
    Docker,
    /// None: a host that starts no containers, such as one that another profile brings an engine to.
    None,
}

/// How containers reach GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum GpuAccess {
    /// Container Device Interface specifications.
    Cdi,
    /// The `nvidia` runtime of the container toolkit.
    NvidiaRuntime,
    /// Not at all.
    None,
}

/// A value of `[images]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImageWanted {
    /// As written: a registry reference or `oci:DIR[:TAG]`.
    pub reference: String,
    /// A floating tag was asked for knowingly.
    pub floating: bool,
}

/// `[[mount]]`: a directory that holds state. Its contents are never written, moved or deleted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mount {
    /// Absolute, normalised path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// `user:group`.
    pub owner: String,
    /// Private files within, by path relative to the mount: the mode each must have when present.
    pub files: BTreeMap<String, u32>,
}

/// `[[file]]`: configuration that a generation owns.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ManagedFile {
    /// Absolute, normalised path.
    pub path: String,
    /// What it holds.
    pub content: FileContent,
    /// Permission bits; 0644 unless said.
    pub mode: u32,
    /// `user:group`; `root:root` unless said.
    pub owner: String,
}

/// What a managed file holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum FileContent {
    /// The text itself. A final newline is added where there is none.
    Inline(String),
    /// A file relative to the profile.
    Source(String),
}

/// `[[user]]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// Account name.
    pub name: String,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// Lines of `authorized_keys`.
    pub authorized_keys: Vec<String>,
}

/// `[checks]`: thresholds, and recorded exceptions.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Checks {
    /// Free space wanted beside what images and weights need, in GiB. 0 unless said.
    pub disk_free_gib: u64,
    /// RAM wanted beside what deployments need, in GiB. 0 unless said.
    pub memory_free_gib: u64,
    /// How long a readiness holds, in hours. 24 unless said.
    pub readiness_hours: u64,
    /// How long an Xid in the kernel's log counts, in hours (`gpu.xid`). Absent: 24, and a lock that was made before
    /// there was this key stays fresh.
    pub xid_hours: Option<u64>,
    /// Extra host names that must resolve (`host.dns`).
    pub resolve: Vec<String>,
    /// How far off the clock may be, in seconds. 5 unless said.
    pub clock_seconds: Option<u64>,
    /// How many inodes must be free, in percent. 5 unless said.
    pub inodes_free_percent: Option<u64>,
    /// Size that `/dev/shm` of the host must have, in GiB, where a container shares it.
    pub shm_gib: Option<u64>,
    /// How many files an engine must be able to open. 65536 unless said.
    pub open_files: Option<u64>,
    /// How much memory an engine must be able to lock, in MiB. 0 unless said.
    pub memlock_mib: Option<u64>,
    /// Directories and files that are searched for tokens (`secret.leaks`).
    pub leak_paths: Option<Vec<String>>,
    /// Exceptions: check id to the reason, which stays in every report.
    pub accept: BTreeMap<String, String>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            disk_free_gib: 0,
            memory_free_gib: 0,
            readiness_hours: 24,
            xid_hours: None,
            resolve: Vec::new(),
            clock_seconds: None,
            inodes_free_percent: None,
            shm_gib: None,
            open_files: None,
            memlock_mib: None,
            leak_paths: None,
            accept: BTreeMap::new(),
        }
    }
}

/// Where a secret's value comes from. Never the value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum SecretSource {
    /// An environment variable of the operator.
    Env(String),
    /// A file (0600 or narrower) on the operator's machine, else on the host.
    File(String),
    /// A systemd credential stored on the host by `bedplate secret set`.
    Credential(String),
    /// An age-encrypted file beside the profile.
    Age(String),
    /// A command of the operator's whose standard output is the value. Never run through a shell.
    Command(Vec<String>),
}

/// The address a service is published on, with the port: never more than what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Published {
    /// Host address.
    pub address: IpAddr,
    /// Host port.
    pub host_port: u16,
    /// Port inside the container.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
}
