//! What must still be fetched, from what is wanted and what is there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    data::{Facts, Image},
    wanted::{ModelAt, Wanted, WantedDeployment, WantedImage},
};

impl WantedImage {
    /// Whether an image Docker has is this one. Its id is the configuration's digest, or with the
    /// containerd store the manifest's or index's (Docker, "containerd image store").
    pub fn is(&self, image: &Image) -> bool {
        [Some(&self.config), Some(&self.manifest), self.index.as_ref()]
            .into_iter()
            .flatten()
            .any(|digest| digest.to_string() == image.id)
    }
}

/// Images that are known not to be on the host, by the lock's name. Where Docker could not be asked,
/// all that is not known to be there counts.
pub fn images<'a>(wanted: &'a Wanted, facts: &Facts) -> BTreeMap<&'a str, &'a WantedImage> {
    let there = |name: &str, image: &WantedImage| {
        let found = facts.images.get(name).and_then(|found| found.ok());
        found.and_then(Option::as_ref).is_some_and(|found| image.is(found))
    };
    wanted
        .images
        .iter()
        .filter(|(name, image)| !there(name, image))
        .map(|(name, image)| (name.as_str(), image))
        .collect()
}

/// Whether Docker could be asked for this image.
pub fn asked(name: &str, facts: &Facts) -> bool {
    facts.images.get(name).is_some_and(|found| found.ok().is_some())
}

/// Registries that must be asked for these images: host name to the images that come from there.
pub fn registries(images: &BTreeMap<&str, &WantedImage>) -> BTreeMap<String, BTreeSet<String>> {
    let mut registries: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, image) in images {
        if let Some(registry) = &image.registry {
            registries.entry(registry.clone()).or_default().insert((*name).to_owned());
        }
    }
    registries
}

/// Deployments whose model must still be fetched from the hub.
pub fn models<'a>(wanted: &'a Wanted, facts: &Facts) -> Vec<&'a WantedDeployment> {
    let here = |name: &str| {
        let local = facts.models.get(name).and_then(|model| model.local.ok());
        local.and_then(Option::as_ref).is_some_and(|local| local.complete)
    };
    let fetched =
        |deployment: &&WantedDeployment| deployment.model_at == ModelAt::Hub && !here(&deployment.name);
    wanted.deployments.iter().filter(fetched).collect()
}
