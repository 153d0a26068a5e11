//! What a service becomes: a container, as plain data. Pure.

use std::collections::BTreeMap;

use super::{Paths, launch, secrets};
use crate::{
    digest::Digest,
    docker::{Gpus, HealthProbe, Mount, MountKind, NewContainer, Port},
    error::{Error, Result},
    lock::LockedImage,
    profile::{
        GpuAccess,
        deployment::GpuIds,
        services::{Role, Service},
    },
};

/// Label: name of the deployment.
pub const DEPLOYMENT: &str = "bedplate.deployment";
/// Label: name of the service.
pub const SERVICE: &str = "bedplate.service";
/// Label: part of the deployment (`engine`, `exporter`, `agent`, `collector`, `extra`).
pub const ROLE: &str = "bedplate.role";
/// Label: number of the generation it was made under.
pub const GENERATION: &str = "bedplate.generation";
/// Label: digest of all it is made of.
pub const SPEC: &str = "bedplate.spec";
/// Label: the lock's name for its image.
pub const IMAGE: &str = "bedplate.image";

/// A container that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name of its service.
    pub service: String,
    /// Part of the deployment.
    pub role: Role,
    /// Services that must run first.
    pub depends_on: Vec<String>,
    /// The container, with its labels.
    pub container: NewContainer,
    /// Digest of all it is made of, but for the generation's number and the name its image was found by: a new
    /// generation with the same content makes no new container.
    pub digest: Digest,
}

/// What a spec is made from beside the service.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Name of the deployment.
    pub deployment: &'a str,
    /// Number of the generation.
    pub generation: u64,
    /// How containers reach GPUs.
    pub gpu_access: GpuAccess,
    /// Where things lie on the host.
    pub paths: &'a Paths,
}

/// A locked image, and the name the engine knows it by.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// The lock's name for it.
    pub key: &'a str,
    /// What was locked.
    pub locked: &'a LockedImage,
    /// `repository@digest` or an id: a name that cannot move.
    pub name: &'a str,
}

/// The network of a deployment.
pub fn network(deployment: &str) -> String {
    format!("bedplate-{deployment}")
}

/// Labels of what belongs to a deployment as a whole.
pub fn deployment_labels(deployment: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(DEPLOYMENT.to_owned(), deployment.to_owned())])
}

/// Which part of a deployment a service is, as in the label.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Engine => "engine",
        Role::Exporter => "exporter",
        Role::Agent => "agent",
        Role::Collector => "collector",
        Role::Extra => "extra",
    }
}

/// The container a service becomes.
///
/// # Errors
/// Nothing says what to run; GPUs are asked for on a host whose profile gives containers none.
pub fn spec(service: &Service, image: Image<'_>, around: Surroundings<'_>) -> Result<Spec> {
    let (entrypoint, command) = program(service, image)?;
    let mut labels = service.labels.clone();
    labels.extend(deployment_labels(around.deployment));
    labels.insert(SERVICE.to_owned(), service.name.clone());
    labels.insert(ROLE.to_owned(), role_name(service.role).to_owned());
    labels.insert(IMAGE.to_owned(), image.key.to_owned());
    let network = network(around.deployment);
    let mut container = NewContainer {
        name: service.container_name.clone(),
        // The image by content: in the digest this stands for it, whatever name it is found by.
        image: image.locked.config.to_string(),
        entrypoint,
        command,
        environment: service.environment.clone(),
        labels,
        user: service.user.clone(),
        working_dir: service.working_dir.clone(),
        mounts: mounts(service, around),
        ports: service
            .ports
            .iter()
            .map(|port| Port {
                address: port.address,
                host_port: port.host_port,
                container_port: port.container_port,
                protocol: port.protocol.to_owned(),
            })
            .collect(),
        network,
        aliases: vec![service.name.clone()],
        hostname: host_name(&service.name),
        gpus: gpus(service, around.gpu_access)?,
        cap_add: service.cap_add.clone(),
        cap_drop: service.cap_drop.clone(),
        shm_size: service.shm_size,
        health: service.healthcheck.as_ref().map(|probe| HealthProbe {
            test: probe.test.clone(),
            interval: probe.interval,
            timeout: probe.timeout,
            retries: probe.retries,
            start_period: probe.start_period,
        }),
        read_only: service.read_only,
        tmpfs: service
            .tmpfs
            .iter()
            .map(|text| {
                let (path, options) = text.split_once(':').unwrap_or((text, ""));
                (path.to_owned(), options.to_owned())
            })
            .collect(),
        restart_on_failure: service.restart_on_failure,
    };
    let digest = digest(&container, image)?;
    container.labels.insert(GENERATION.to_owned(), around.generation.to_string());
    container.labels.insert(SPEC.to_owned(), digest.to_string());
    image.name.clone_into(&mut container.image);
    let depends_on = service.depends_on.iter().cloned().collect();
    Ok(Spec { service: service.name.clone(), role: service.role, depends_on, container, digest })
}

fn digest(container: &NewContainer, image: Image<'_>) -> Result<Digest> {
    let content = serde_json::to_vec(&(container, image.locked.manifest.to_string(), launch::digest()))
        .map_err(|error| Error::failed(format!("describing container `{}`: {error}", container.name)))?;
    Ok(Digest::of(content))
}

/// Entrypoint and command: the launcher before what Docker would run by itself.
fn program(service: &Service, image: Image<'_>) -> Result<(Vec<String>, Vec<String>)> {
    let facts = &image.locked.facts;
    let own = service.entrypoint.as_ref().unwrap_or(&facts.entrypoint);
    // An entrypoint of the deployment's clears the image's command (Compose specification, `entrypoint`).
    let command = match (&service.command, &service.entrypoint) {
        (Some(command), _) => command.clone(),
        (None, Some(_)) => Vec::new(),
        (None, None) => facts.command.clone(),
    };
    if own.is_empty() && command.is_empty() {
        return Err(Error::usage(format!(
            "service `{}`: the image `{}` has neither entrypoint nor command",
            service.name, image.locked.reference
        ))
        .hint("say what to run with `command: [...]` or `entrypoint: [...]`"));
    }
    let mut entrypoint = vec![launch::IN_CONTAINER.to_owned(), "--".to_owned()];
    entrypoint.extend(own.iter().cloned());
    Ok((entrypoint, command))
}

fn mounts(service: &Service, around: Surroundings<'_>) -> Vec<Mount> {
    let bind = |source: &str, target: &str| Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: true,
        kind: MountKind::Bind,
    };
    let mut mounts = vec![bind(&around.paths.launch, launch::IN_CONTAINER)];
    let directory = secrets::directory(around.paths, around.deployment, &service.name);
    if !service.secrets.is_empty() {
        mounts.push(bind(&directory, secrets::IN_CONTAINER));
    }
    for (number, target) in service.secret_files.keys().enumerate() {
        mounts.push(bind(&format!("{directory}/{}", secrets::file_name(number)), target));
    }
    mounts.extend(service.volumes.iter().map(|volume| Mount {
        source: volume.source.clone(),
        target: volume.target.clone(),
        read_only: volume.read_only,
        kind: if volume.source.starts_with('/') { MountKind::Bind } else { MountKind::Volume },
    }));
    mounts
}

/// How all GPUs are asked for. A host without GPUs: the same road, without them.
pub fn all_gpus(access: GpuAccess) -> Option<Gpus> {
    match access {
        GpuAccess::None => None,
        GpuAccess::Cdi => Some(Gpus::Cdi(vec!["nvidia.com/gpu=all".to_owned()])),
        GpuAccess::NvidiaRuntime => Some(Gpus::NvidiaAll),
    }
}

/// How a service's GPUs are asked for; none where it has none.
///
/// # Errors
/// It names GPUs on a host whose profile gives containers none.
pub fn gpus(service: &Service, access: GpuAccess) -> Result<Option<Gpus>> {
    let Some(wanted) = &service.gpus else { return Ok(None) };
    Ok(match (access, wanted) {
        (access, GpuIds::All) => all_gpus(access),
        (GpuAccess::None, GpuIds::List(ids)) => {
            return Err(Error::usage(format!(
                "service `{}` asks for GPUs {}, and the profile gives containers none",
                service.name,
                ids.join(", ")
            ))
            .hint("set `[container] gpu-access` to \"cdi\" in the profile"));
        }
        (GpuAccess::Cdi, GpuIds::List(ids)) => {
            Some(Gpus::Cdi(ids.iter().map(|id| format!("nvidia.com/gpu={id}")).collect()))
        }
        (GpuAccess::NvidiaRuntime, GpuIds::List(ids)) => Some(Gpus::Nvidia(ids.clone())),
    })
}

/// A host name inside: at most 63 letters, digits and hyphens (RFC 1123, section 2.1); none where the service's name
/// is no such word.
fn host_name(service: &str) -> Option<String> {
    let fits = service.len() <= 63
        && service.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !service.starts_with('-')
        && !service.ends_with('-');
    fits.then(|| service.to_owned())
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
