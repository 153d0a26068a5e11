//! What the Docker daemon says: of itself, of the locked images, of bedplate's own containers.

use std::collections::BTreeMap;

use super::{
    basics::{daemon_started, one_line},
    data::{Away, Container, Docker as Daemon, Engine, Image, Known},
    engine_details::EngineDetails,
    published::PublishedContainer,
    tree::Tree,
    wanted::{Wanted, WantedImage},
};
use crate::{
    docker::{Docker, ImageOnHost},
    error::{Error, Result},
};

/// The label every container of a deployment carries: the deployment's name.
pub const DEPLOYMENT_LABEL: &str = "bedplate.deployment";
/// Where dockerd writes its process id (dockerd(8), `--pidfile`).
const PID_FILE: &str = "/run/docker.pid";

/// Where Docker and its containerd keep what they have. Both are there once they ran, whatever `data-root` says of images
/// (dockerd(8), containerd-config.toml(5)).
const KEPT: [&str; 2] = ["/var/lib/docker", "/var/lib/containerd"];

/// The daemon's part of the facts.
#[derive(Debug, Default)]
pub(super) struct FromDocker {
    pub(super) daemon: Known<Daemon>,
    pub(super) images: BTreeMap<String, Known<Option<Image>>>,
    pub(super) containers: Known<Vec<Container>>,
    pub(super) published: Known<Vec<PublishedContainer>>,
    pub(super) details: Known<EngineDetails>,
}

/// An image where no daemon answers: where none ever ran there is none, else nobody knows.
fn image_of_none(tree: &Tree) -> Known<Option<Image>> {
    if KEPT.iter().all(|path| matches!(tree.stat(path), Ok(None))) {
        return Known::Ok(None);
    }
    Known::unknown("Docker does not answer")
}

/// Asks the daemon. That it does not answer is known, too.
pub(super) async fn ask(tree: &Tree, socket: &str, wanted: &Wanted) -> FromDocker {
    let away = |error: &Error| FromDocker {
        daemon: Known::Ok(Daemon::Away(Away {
            why: one_line(error),
            next: error.hints().first().map(|hint| (*hint).to_owned()),
        })),
        images: wanted.images.keys().map(|name| (name.clone(), image_of_none(tree))).collect(),
        containers: Known::unknown("Docker does not answer"),
        published: Known::unknown("Docker does not answer"),
        details: Known::unknown("Docker does not answer"),
    };
    let docker = match Docker::connect(socket).await {
        Ok(docker) => docker,
        Err(error) => return away(&error),
    };
    let images = futures_util::future::join_all(
        wanted.images.iter().map(async |(name, image)| (name.clone(), find(&docker, image).await)),
    );
    let (engine, images, containers, reachable) =
        tokio::join!(docker.engine(), images, containers(&docker), docker.reachable());
    let engine = match engine {
        Ok(engine) => engine,
        Err(error) => return away(&error),
    };
    FromDocker {
        details: Known::Ok(EngineDetails::from(&engine)),
        daemon: Known::Ok(Daemon::Answers(Engine {
            version: engine.version,
            root: engine.root_dir,
            storage: engine.storage_driver,
            runtimes: engine.runtimes.into_iter().collect(),
            cdi: engine.cdi_enabled,
            cdi_dirs: engine.cdi_spec_dirs,
            started: daemon_started(tree, PID_FILE, socket),
        })),
        images: images.into_iter().map(|(name, image)| (name, super::basics::known(image))).collect(),
        containers: super::basics::known(containers),
        published: super::basics::known(
            reachable.map(|all| all.into_iter().map(PublishedContainer::from).collect()),
        ),
    }
}

/// The locked image, else what Docker has under its name, which is then another one.
async fn find(docker: &Docker, image: &WantedImage) -> Result<Option<Image>> {
    let found =
        docker.image_by_digest(&image.pull, &image.manifest, &image.config, image.index.as_ref()).await?;
    let found = match found {
        Some((_, found)) => Some(found),
        None => docker.image(&image.reference).await?,
    };
    Ok(found.map(|found: ImageOnHost| Image {
        id: found.id,
        repo_digests: found.repo_digests,
        os: found.os,
        architecture: found.architecture,
        size: found.size,
        entrypoint: found.entrypoint,
    }))
}

async fn containers(docker: &Docker) -> Result<Vec<Container>> {
    let listed = docker.list_by_label(DEPLOYMENT_LABEL).await?;
    let inspected =
        futures_util::future::join_all(listed.iter().map(|container| docker.inspect(&container.id))).await;
    let mut containers = Vec::new();
    for (listed, inspected) in listed.iter().zip(inspected) {
        // Gone meanwhile: it has no port any more.
        let Some(container) = inspected? else { continue };
        containers.push(Container {
            name: listed.name.clone(),
            deployment: listed.labels.get(DEPLOYMENT_LABEL).cloned().unwrap_or_default(),
            running: container.state.running,
            ports: container.ports.iter().map(|port| port.host_port).collect(),
        });
    }
    Ok(containers)
}

#[cfg(test)]
mod tests {
    // Test code: files are made plainly.
    #![allow(clippy::disallowed_methods)]

    use std::sync::Arc;

    use super::*;
    use crate::system::files::Root;

    #[test]
    fn where_docker_never_ran_there_is_no_image() {
        let host = tempfile::tempdir().unwrap();
        let tree = Tree::new(Arc::new(Root::open(host.path()).unwrap()));
        assert_eq!(image_of_none(&tree), Known::Ok(None));
        std::fs::create_dir_all(host.path().join("var/lib/containerd")).unwrap();
        assert_eq!(image_of_none(&tree), Known::unknown("Docker does not answer"));
    }
}
