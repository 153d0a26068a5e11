//! Resolving: from a profile and its deployments to a lock, asking registries and archives only for what is new,
//! changed, or asked for. The one part of the lock that does I/O, all of it through `oci` and `apt`.

mod driver;
mod images;
mod packages;
mod roots;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

pub use images::{Moved, moved};
pub use packages::{MovedPackage, moved_packages};
pub use roots::roots;

use super::{Lock, cuda, inputs};
use crate::{
    apt::{archive::Archive, transport::Transport},
    error::Result,
    oci::Client,
    profile::{Deployment, Profile},
    progress::Progress,
};

/// Which of the things that are locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// None.
    #[default]
    None,
    /// Every one.
    All,
    /// These, by name.
    Named(BTreeSet<String>),
}

impl Selection {
    /// Whether it has this one.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }

    /// Whether it is empty.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// What is asked for again although it is locked: what is not stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// Images, by their name in the lock.
    pub images: Selection,
    /// Packages, by name. With one go those of its source package, and with one part of the driver the others.
    pub packages: Selection,
}

impl Update {
    /// Everything.
    pub fn all() -> Self {
        Self { images: Selection::All, packages: Selection::All }
    }

    /// Whether nothing is asked for again.
    pub fn is_none(&self) -> bool {
        self.images.is_none() && self.packages.is_none()
    }
}

/// What a lock is made from.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The profile's file name, such as `h100-vllm.toml`.
    pub profile_file_name: &'a str,
    /// The directory the profile lies in: `oci:` sources are relative to it.
    pub directory: &'a Path,
    /// The profile.
    pub profile: &'a Profile,
    /// Its deployments, by path as the profile writes it.
    pub deployments: &'a BTreeMap<String, Deployment>,
    /// Every other file the profile reads, by path as the profile writes it.
    pub sources: &'a BTreeMap<String, Vec<u8>>,
    /// The lock there is.
    pub old: Option<&'a Lock>,
    /// What is asked for again.
    pub update: Update,
}

/// The archives of a profile, and how they are reached.
pub struct Archives {
    /// The archives.
    pub list: Vec<Archive>,
    /// How they are reached.
    pub transport: Transport,
    /// Where indices are kept between runs.
    pub cache: Option<PathBuf>,
    /// The time, which signatures and release files are held against.
    pub now: jiff::Timestamp,
}

/// Makes the lock. `client` and `archives` are only called where a registry or layout, or an archive must be asked: with
/// nothing new, changed or to update, no network is touched. Verdicts are made anew for every image.
///
/// # Errors
/// A profile that cannot be locked; every image that could not be resolved, each with its own message; archives that
/// cannot be read or trusted; packages that cannot be installed together; a set that does not fit together.
pub async fn lock(
    request: &Request<'_>,
    client: impl FnOnce() -> Result<Client>,
    archives: impl FnOnce() -> Result<Archives>,
    progress: &dyn Progress,
) -> Result<Lock> {
    images::check(request)?;
    packages::check(request)?;
    let images = images::locked_images(request, client, progress);
    let packages = packages::locked_packages(request, archives, progress);
    let (mut images, packages) = both(images, packages).await?;
    let driver = packages.set.as_ref().and_then(|set| set.driver.as_deref());
    for image in images.values_mut() {
        image.verdict = cuda::verdict(&image.facts, request.profile, driver);
    }
    let inputs = inputs(request.profile_file_name, request.profile, request.deployments, request.sources);
    let mut lock = Lock {
        inputs,
        images,
        repositories: packages.repositories,
        set: packages.set,
        packages: packages.packages,
        modules: None,
    };
    if let Some(modules) = request.old.and_then(|old| old.modules.clone()) {
        lock.adopt(request.profile, modules);
    }
    Ok(lock)
}

/// Both at once; the errors of both.
async fn both<A, B>(
    one: impl Future<Output = Result<A>>,
    other: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    match futures_util::join!(one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(one), Err(other)) => Err(one.and([other])),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests;
