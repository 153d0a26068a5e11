//! Where a run's packages come from: the store first, then the archives' mirrors.

use std::collections::BTreeMap;

use url::Url;

use super::{Context, archives};
use crate::{apt::transport::Transport, error::Result, host::packages, profile::Profile};

/// Mirrors, and what they are asked with.
pub struct Supply {
    places: BTreeMap<String, Vec<Url>>,
    remote: Transport,
}

impl Supply {
    /// The mirrors of a profile's archives.
    ///
    /// # Errors
    /// An address is none, or apt's configuration cannot be read.
    pub fn new(context: &Context, profile: &Profile) -> Result<Self> {
        let places = archives::places(context, profile, None)?;
        Ok(Self { places, remote: archives::transport(context) })
    }

    /// The store alone: nothing is fetched.
    pub fn offline(context: &Context) -> Self {
        Self { places: BTreeMap::new(), remote: archives::transport(context) }
    }

    /// As a run takes it.
    pub fn of<'a>(&'a self, context: &'a Context) -> packages::Supply<'a> {
        packages::Supply { store: &context.store, places: &self.places, remote: &self.remote }
    }
}
