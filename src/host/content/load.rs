//! Images from the store, or from an image layout, into Docker.

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;

use super::{blobs_of, images::layout_of};
use crate::{
    digest::Digest,
    docker::{Docker, LayoutImage, archive_from_layout},
    error::{Error, Result},
    lock::{Lock, LockedImage},
    oci,
    store::Store,
    system::files,
};

/// Largest manifest of an image, in bytes, as `oci` takes them.
const MANIFEST: u64 = 4 << 20;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);

/// Where content is looked for on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// The content store.
    pub store: Option<PathBuf>,
    /// Where paths of image layouts start from, where the profile's own directory is at hand.
    pub layouts: Option<PathBuf>,
    /// What will be in the store by then: for a plan that is only looked at.
    pub coming: BTreeSet<Digest>,
}

/// [`Places`], opened. Nothing is made.
struct Open {
    store: Option<Arc<Store>>,
    layout: Option<PathBuf>,
}

impl Open {
    fn new(places: &Places, image: &LockedImage) -> Result<Self> {
        // A store that is not there has nothing, and looking must not make it.
        let store = match places.store.as_deref().filter(|store| files::is_dir(store)) {
            Some(store) => Some(Arc::new(Store::open(store)?)),
            None => None,
        };
        let layout = places.layouts.as_deref().and_then(|directory| layout_of(image, directory));
        Ok(Self { store, layout })
    }

    /// Opens content, not verified.
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>> {
        if let Some(store) = &self.store
            && let Some((file, _)) = store.open_entry(digest)?
        {
            return Ok(Some(Box::new(file)));
        }
        match &self.layout {
            Some(layout) => Ok(oci::open_in_layout(layout, *digest)?.map(|file| Box::new(file) as _)),
            None => Ok(None),
        }
    }
}

/// Whether everything an image is made of is in one of these places, so that it is loaded and not pulled. Nothing of
/// it is read.
///
/// # Errors
/// A place cannot be read.
pub fn at_hand(places: &Places, image: &LockedImage) -> Result<bool> {
    let open = Open::new(places, image)?;
    for digest in blobs_of(image) {
        if !places.coming.contains(&digest) && open.open(&digest)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Loads an image into Docker under the name `tag`, everything verified while it goes by. `progress` gets bytes handed
/// over.
///
/// # Errors
/// Content is damaged or gone: what is damaged in the store is moved aside, so that the next run has it anew. Docker
/// does not take it.
pub async fn load(
    docker: &Docker,
    image: &LockedImage,
    tag: &str,
    places: &Places,
    mut progress: impl FnMut(u64) + Send,
) -> Result<()> {
    let open = Open::new(places, image)?;
    let store = open.store.clone();
    let gone = |digest: &Digest| {
        Error::failed(format!("`{digest}` of image `{}` is no longer at hand", image.reference))
            .hint("run the same command again")
    };
    let mut manifest = Vec::new();
    let reader = open.open(&image.manifest)?.ok_or_else(|| gone(&image.manifest))?;
    reader
        .take(MANIFEST)
        .read_to_end(&mut manifest)
        .map_err(|error| Error::failed("reading an image's manifest failed").because(error))?;
    let result = if Digest::of(&manifest) == image.manifest {
        let reference = image.reference.clone();
        let opened = move |digest: &Digest| {
            open.open(digest)?.ok_or_else(|| {
                Error::failed(format!("`{digest}` of image `{reference}` is no longer at hand"))
                    .hint("run the same command again")
            })
        };
        let archive = archive_from_layout(&LayoutImage { manifest, tag: tag.to_owned() }, opened)?;
        let passed = Arc::new(AtomicU64::new(0));
        let counter = passed.clone();
        let archive = archive.inspect(move |piece| {
            if let Ok(piece) = piece {
                counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        });
        let mut loading = std::pin::pin!(docker.load(archive));
        loop {
            match tokio::time::timeout(TELL, &mut loading).await {
                Ok(loaded) => break loaded,
                Err(_) => progress(passed.load(Ordering::Relaxed)),
            }
        }
    } else {
        Err(Error::failed(format!("the manifest of image `{}` is damaged", image.reference)))
    };
    let Err(error) = result else { return Ok(()) };
    // Whose fault was it?
    if let Some(store) = store {
        for digest in blobs_of(image) {
            if let Some(size) = store.size(&digest)?
                && !store.has(&digest, size)?
            {
                return Err(Error::failed(format!(
                    "`{digest}` of image `{}` is damaged in the store, and was moved aside",
                    image.reference
                ))
                .because(error)
                .hint("bring it again: the same command fetches it, or takes it from the bundle; and check the disk"));
            }
        }
    }
    Err(error)
}

/// Removes from the store what the images of this lock are made of: they are in Docker now, which keeps its own copy.
/// Packages stay. Says how many bytes that made free.
///
/// # Errors
/// The store cannot be written.
pub fn drop_images(store: &Path, lock: &Lock) -> Result<u64> {
    if !files::is_dir(store) {
        return Ok(0);
    }
    let packages: BTreeSet<Digest> = lock.host_packages().iter().map(|package| package.sha256).collect();
    let blobs: BTreeSet<Digest> =
        lock.images.values().flat_map(blobs_of).filter(|digest| !packages.contains(digest)).collect();
    if blobs.is_empty() {
        return Ok(0);
    }
    let store = Store::open(store)?;
    let mut freed = 0;
    for digest in blobs {
        if let Some(size) = store.size(&digest)? {
            store.remove(&digest)?;
            freed += size;
        }
    }
    Ok(freed)
}
