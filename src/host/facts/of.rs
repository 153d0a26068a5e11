//! From a profile, its lock and deployments to what must be looked at.

use super::wanted::{ModelAt, Wanted, WantedDeployment, WantedImage, WantedService, registry_host};
use crate::{
    lock::{self, Lock, LockedImage},
    profile::{
        Deployment, Profile,
        deployment::GpuIds,
        services::{ImageChoice, services},
    },
};

impl Wanted {
    /// What a profile, its lock and these deployments need of a host. Without a lock no image is looked for.
    pub fn of(profile: &Profile, lock: Option<&Lock>, deployments: &[&Deployment]) -> Self {
        let mut wanted = Self::of_profile(profile);
        if let Some(lock) = lock {
            wanted.host.with_packages(lock);
            wanted.images =
                lock.images.iter().map(|(name, image)| (name.clone(), WantedImage::of(image))).collect();
        }
        wanted.deployments = deployments.iter().map(|deployment| one(profile, lock, deployment)).collect();
        wanted
    }
}

impl WantedImage {
    fn of(image: &LockedImage) -> Self {
        Self {
            reference: image.reference.clone(),
            pull: image.pull_reference(),
            layout: image.is_layout(),
            registry: registry_host(&image.reference),
            manifest: image.manifest,
            index: image.index,
            config: image.config,
            download: image.download,
        }
    }
}

fn one(profile: &Profile, lock: Option<&Lock>, deployment: &Deployment) -> WantedDeployment {
    let services = services(deployment).into_iter().map(|service| WantedService {
        locked: lock.and_then(|lock| Some(lock::find(lock, profile, &service.image)?.0.to_owned())),
        image: match &service.image {
            ImageChoice::Named(name) => {
                profile.images.get(name).map_or_else(|| name.clone(), |image| image.reference.clone())
            }
            ImageChoice::Reference(reference) => reference.clone(),
        },
        name: service.name,
        role: service.role,
        entrypoint: service.entrypoint,
        gpus: service.gpus.is_some(),
        ports: service.ports,
    });
    WantedDeployment {
        name: deployment.name.clone(),
        model: deployment.model.clone(),
        model_at: ModelAt::of(&deployment.model, &deployment.hf_cache),
        cache: deployment.hf_cache.clone(),
        hf_token: deployment.hf_token.clone(),
        secrets: deployment.secrets(),
        gpu_ids: match &deployment.gpu_ids {
            GpuIds::All => Vec::new(),
            GpuIds::List(ids) => ids.clone(),
        },
        services: services.collect(),
    }
}
