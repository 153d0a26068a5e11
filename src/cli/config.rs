//! Settings of a machine: where to fetch from. What to fetch is the lock's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::{
    error::{Error, Result, Snippet},
    system::files,
};

/// `/etc/bedplate/config.toml` and the user's `bedplate/config.toml`, the user's first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Registries, by host (and port).
    pub registry: BTreeMap<String, Registry>,
    /// Archives of packages, by name: `debian`, `debian-security`, `ubuntu`, `ubuntu-security`, or a repository of a
    /// profile.
    pub archive: BTreeMap<String, Archive>,
    /// The directory of apt's configuration, which says where the distribution's archives are.
    pub apt_directory: Option<PathBuf>,
    /// The container engine's socket.
    pub docker_socket: Option<String>,
    /// Address of the model hub.
    pub hub: Option<String>,
    /// Path of NVIDIA's management library, where it is not on the loader's path.
    pub nvml: Option<PathBuf>,
    /// How long a registry or a mirror may stay silent, in seconds: connecting, answering, and within an answer.
    pub timeout_seconds: Option<u64>,
    /// How often a registry or a mirror is asked again after 429, 5xx or a lost connection.
    pub retries: Option<u32>,
    /// The files that were read, by path, for the places of what is told later.
    #[serde(skip)]
    pub files: Vec<(String, Arc<str>)>,
}

/// `[registry."HOST"]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Registry {
    /// Mirrors, tried in order before the registry itself.
    pub mirrors: Vec<String>,
    /// A PEM file of certificate authorities trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Whether the registry is spoken to without TLS.
    pub plain_http: bool,
}

/// `[archive.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Archive {
    /// Base addresses of mirrors, tried in order.
    pub mirrors: Vec<String>,
    /// A PEM file of certificate authorities trusted besides the system's, for the addresses here.
    pub ca: Option<PathBuf>,
    /// The base address of snapshots, with `@SNAPSHOTID@` where the time belongs.
    pub snapshot: Option<String>,
    /// The keyring of the distribution's archive, where it is not the one of its own package.
    pub keyring: Option<PathBuf>,
}

/// Size limit of a configuration file, in bytes.
const LIMIT: u64 = 1 << 20;

impl Config {
    /// Reads the configuration files that exist: `explicit` alone where given, else the machine's
    /// and then the user's over it, table by table.
    pub fn load(explicit: Option<&Path>, user: Option<&Path>) -> Result<Self> {
        if let Some(path) = explicit {
            return Self::read(path);
        }
        let mut config = Self::default();
        let machine = Path::new("/etc/bedplate/config.toml");
        for path in [Some(machine), user].into_iter().flatten() {
            if path.exists() {
                config.merge(Self::read(path)?);
            }
        }
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path, LIMIT)?;
        let wrong = |span, label: String| {
            let place = Snippet { path: path.display().to_string(), text: text.as_str().into(), span, label };
            Error::usage(format!("`{}` is not a configuration", path.display()))
                .at(place)
                .hint("mend that line, or delete it to go without")
        };
        let mut read: Self = toml::from_str(&text)
            .map_err(|error| wrong(error.span().unwrap_or(0..0), error.message().to_owned()))?;
        if !(1..=3600).contains(&read.timeout_seconds.unwrap_or(1)) {
            let start = text.find("timeout-seconds").unwrap_or(0);
            let end = start + text[start..].lines().next().unwrap_or_default().len();
            return Err(wrong(start..end, "from 1 to 3600".to_owned()));
        }
        read.files.push((path.display().to_string(), text.into()));
        Ok(read)
    }

    /// Where a table is, by its header.
    pub fn place(&self, header: &str) -> Option<Snippet> {
        self.files.iter().rev().find_map(|(path, text)| Snippet::find(path, text, header))
    }

    fn merge(&mut self, over: Self) {
        self.files.extend(over.files);
        self.registry.extend(over.registry);
        self.archive.extend(over.archive);
        self.apt_directory = over.apt_directory.or(self.apt_directory.take());
        self.docker_socket = over.docker_socket.or(self.docker_socket.take());
        self.hub = over.hub.or(self.hub.take());
        self.nvml = over.nvml.or(self.nvml.take());
        self.timeout_seconds = over.timeout_seconds.or(self.timeout_seconds);
        self.retries = over.retries.or(self.retries);
    }
}
