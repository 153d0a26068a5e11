//! What a host lacks of what a lock names.

use std::{collections::BTreeSet, path::Path};

use super::blobs_of;
use crate::{digest::Digest, docker::Docker, error::Result, lock::Lock, store::Store, system::files};

/// Digests that the store does not have, of the lock's packages, and of those of its images that are not in Docker.
/// `docker`: where it listens; without one, and where it does not answer, no image is in it.
///
/// # Errors
/// The store cannot be read.
pub async fn lacking(lock: &Lock, store: &Path, docker: Option<&str>) -> Result<BTreeSet<Digest>> {
    // Looking makes nothing.
    let store = if files::is_dir(store) { Some(Store::open(store)?) } else { None };
    let mut lacks = BTreeSet::new();
    for package in lock.host_packages().iter() {
        // Read whole: a damaged one is moved aside here, and comes anew.
        let there =
            store.as_ref().is_some_and(|store| store.has(&package.sha256, package.size).unwrap_or(false));
        if !there {
            lacks.insert(package.sha256);
        }
    }
    let docker = match docker {
        Some(socket) if !lock.images.is_empty() => Docker::connect(socket).await.ok(),
        _ => None,
    };
    for image in lock.images.values() {
        if let Some(docker) = &docker {
            let reference = image.pull_reference();
            let (manifest, config, index) = (&image.manifest, &image.config, image.index.as_ref());
            if let Ok(Some(_)) = docker.image_by_digest(&reference, manifest, config, index).await {
                continue;
            }
        }
        for digest in blobs_of(image) {
            let there = match &store {
                // Read when it is loaded, which moves a damaged one aside: images are large.
                Some(store) => store.size(&digest)?.is_some(),
                None => false,
            };
            if !there {
                lacks.insert(digest);
            }
        }
    }
    Ok(lacks)
}
