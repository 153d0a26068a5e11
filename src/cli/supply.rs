//! Where a run's packages come from: the store first, then the archives' mirrors.

use std::collections::BTreeMap;

use url::Url;

use super::Context;
use crate::{
    apt::transport::{Settings, Transport},
    error::Result,
    host::packages,
    profile::Profile,
};

/// Mirrors, and what they are asked with.
pub struct Supply {
    places: BTreeMap<String, Vec<Url>>,
    remote: Transport,
}

impl Supply {
    /// The mirrors of a profile's archives.
    ///
    /// # Errors
    /// An address is none.
    pub fn new(profile: &Profile) -> Result<Self> {
        let mut places = BTreeMap::new();
        for repository in &profile.host.repositories {
            let url = repository.uri.parse::<Url>().ok();
            places.insert(repository.name.clone(), url.into_iter().collect());
        }
        Ok(Self { places, remote: Transport::new(Settings::default()) })
    }

    /// The store alone: nothing is fetched.
    pub fn offline() -> Self {
        Self { places: BTreeMap::new(), remote: Transport::new(Settings::default()) }
    }

    /// As a run takes it.
    pub fn of<'a>(&'a self, context: &'a Context) -> packages::Supply<'a> {
        packages::Supply { store: &context.store, places: &self.places, remote: &self.remote }
    }
}
