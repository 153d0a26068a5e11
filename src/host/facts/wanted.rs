//! What must be looked at: what a profile, its lock and its deployments need of a host, as plain data.

use std::collections::{BTreeMap, BTreeSet};

use super::wanted_host::WantedOfHost;
use crate::{
    digest::Digest,
    profile::{GpuAccess, Profile, Published, SecretSource, services::Role},
};

/// Where the engine's cache is inside its container (deployment format, "What the engine is started with").
const CACHE_INSIDE: &str = "/root/.cache/huggingface";

/// What must be looked at on a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Whether the host has GPUs at all.
    pub gpus: bool,
    /// Whether containers reach them by CDI.
    pub cdi: bool,
    /// The deployments.
    pub deployments: Vec<WantedDeployment>,
    /// Every image of the lock that must be on the host, by the lock's name for it.
    pub images: BTreeMap<String, WantedImage>,
    /// Directories of state and the private files within, by path: those whose modes matter.
    pub private: BTreeSet<String>,
    /// Secrets of the profile: name to the host file that is looked at when nothing was handed over yet.
    pub secrets: BTreeMap<String, Option<String>>,
    /// Host names the profile asks for.
    pub names: BTreeSet<String>,
    /// Address of the model hub.
    pub hub: String,
    /// Whether the hub's token must be good even where nothing is to be fetched.
    pub hf_token: bool,
    /// What is looked at of the host itself.
    pub host: WantedOfHost,
    /// Whether a container is started to see the GPUs.
    pub smoke: bool,
    /// Whether each deployment's engine is loaded in its own image.
    pub engines: bool,
    /// Whether the GPUs are looked at again after a daemon-reload and a restart of Docker.
    pub thorough: bool,
}

/// An image that must be on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    /// The reference it was locked from.
    pub reference: String,
    /// `registry/repository@sha256:…`.
    pub pull: String,
    /// It comes from an image layout on disk, which no host can pull from.
    pub layout: bool,
    /// The registry's host, without its port; `None` where the image comes from a directory.
    pub registry: Option<String>,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Digest of the index, where the tag named one.
    pub index: Option<Digest>,
    /// Digest of the configuration.
    pub config: Digest,
    /// Bytes to fetch.
    pub download: u64,
}

/// A deployment, as far as the host is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDeployment {
    /// Its name.
    pub name: String,
    /// The model as written.
    pub model: String,
    /// Where the model is.
    pub model_at: ModelAt,
    /// Host directory of the model cache.
    pub cache: String,
    /// Name of the secret that holds the hub's token.
    pub hf_token: String,
    /// Secrets by name, and whether the deployment cannot do without.
    pub secrets: BTreeMap<String, bool>,
    /// The GPUs it names, by index or UUID; none where it takes all.
    pub gpu_ids: Vec<String>,
    /// Its containers.
    pub services: Vec<WantedService>,
}

/// A container of a deployment, as far as the host is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedService {
    /// Its name.
    pub name: String,
    /// Which part of the deployment.
    pub role: Role,
    /// The image as the deployment or profile writes it.
    pub image: String,
    /// The lock's name for that image; `None`: the lock does not have it.
    pub locked: Option<String>,
    /// The entrypoint the deployment gives instead of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Whether it gets GPUs.
    pub gpus: bool,
    /// Ports on the host.
    pub ports: BTreeSet<Published>,
}

/// Where a deployment's model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelAt {
    /// On the hub, by its id; kept in the cache.
    Hub,
    /// In this directory of the host, which the cache's mount brings into the container.
    Host(String),
    /// At a path of the container that no host directory is known to be behind.
    Container,
}

impl ModelAt {
    /// Reads where a model is from its name. An id has the form `[organisation/]name`; what begins
    /// with `/` or `.` is a path.
    pub fn of(model: &str, cache: &str) -> Self {
        if !model.starts_with(['/', '.']) {
            return Self::Hub;
        }
        match model.strip_prefix(CACHE_INSIDE) {
            Some(rest) if rest.starts_with('/') && !rest.contains("..") => {
                Self::Host(format!("{}{}", cache.trim_end_matches('/'), rest))
            }
            _ => Self::Container,
        }
    }
}

impl Wanted {
    /// What the profile alone asks for.
    pub fn of_profile(profile: &Profile) -> Self {
        let mut private = BTreeSet::new();
        for mount in &profile.mounts {
            private.insert(mount.path.clone());
            private.extend(mount.files.keys().map(|file| format!("{}/{file}", mount.path)));
        }
        let secrets = profile.secrets.iter().map(|(name, source)| {
            let file = match source {
                SecretSource::File(path) if path.starts_with('/') => Some(path.clone()),
                _ => None,
            };
            (name.clone(), file)
        });
        Self {
            gpus: profile.wants_gpus(),
            cdi: profile.container.gpu_access == GpuAccess::Cdi,
            private,
            secrets: secrets.collect(),
            names: profile.checks.resolve.iter().cloned().collect(),
            hub: super::hub::ENDPOINT.to_owned(),
            host: WantedOfHost::of_profile(profile),
            ..Self::default()
        }
    }

    /// Host name of the model hub; `None` where its address is none.
    pub fn hub_host(&self) -> Option<String> {
        super::hub::host(&self.hub)
    }

    /// Every host port of the deployments.
    pub fn ports(&self) -> impl Iterator<Item = (&WantedDeployment, &WantedService, &Published)> {
        self.deployments.iter().flat_map(|deployment| {
            deployment
                .services
                .iter()
                .flat_map(move |service| service.ports.iter().map(move |port| (deployment, service, port)))
        })
    }
}

/// The registry's host in a normalised reference, without its port. Docker Hub is asked at another
/// name than its references carry (distribution `reference/normalize.go`; `registry-1.docker.io`).
pub fn registry_host(reference: &str) -> Option<String> {
    if reference.starts_with("oci:") {
        return None;
    }
    let registry = reference.split_once('/')?.0;
    let host = match registry.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => registry.split_once(':').map_or(registry, |(host, _)| host),
    };
    Some(if host == "docker.io" { "registry-1.docker.io".to_owned() } else { host.to_owned() })
}
