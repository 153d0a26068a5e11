//! Images by digest into a store: manifest, configuration and layers, from registries and image layouts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use url::Url;

use super::blobs_of;
use crate::{
    digest::Digest,
    error::{Error, Result},
    lock::{self, LockedImage},
    oci::{Client, Source, blobs},
    progress::Progress,
    store::{
        Store,
        fetch::{self, Fetched, Manner, Opened, Refused, Remote, Wanted},
    },
};

/// How many manifests are asked for at once.
const MANIFESTS: usize = 4;

/// Whether a store has everything an image is made of. Nothing of it is read.
///
/// # Errors
/// The store cannot be read.
pub fn complete(store: &Store, image: &LockedImage) -> Result<bool> {
    for digest in blobs_of(image) {
        if store.size(&digest)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Has these images in the store, by lock key. `directory` is where paths of image layouts start from: the profile's.
///
/// # Errors
/// An image that cannot be had, or that is not what the lock says.
pub async fn fetch(
    store: &Store,
    images: &BTreeMap<String, LockedImage>,
    client: &Client,
    directory: &Path,
    progress: &dyn Progress,
) -> Result<Fetched> {
    let mut asked = Vec::new();
    for (key, image) in images {
        asked.push(one(store, key, image, client, directory).boxed());
    }
    let found: Vec<(Vec<Wanted>, Url, Source)> =
        stream::iter(asked).buffered(MANIFESTS).try_collect().await?;
    let mut wanted: BTreeMap<Digest, Wanted> = BTreeMap::new();
    let mut sources = BTreeMap::new();
    for (blobs, place, source) in found {
        for blob in blobs {
            // The same layer of several images may be had from each of their repositories.
            let known = wanted.entry(blob.digest).or_insert(blob);
            if !known.places.contains(&place) {
                known.places.push(place.clone());
            }
        }
        sources.insert(place, source);
    }
    let wanted: Vec<Wanted> = wanted.into_values().collect();
    let manner = Manner { task: "images", inspect: None };
    fetch::fetch(store, &wanted, &Images { client, sources }, manner, progress).await
}

/// What one image is made of, and where it is. Its manifest is in the store then.
async fn one(
    store: &Store,
    key: &str,
    image: &LockedImage,
    client: &Client,
    directory: &Path,
) -> Result<(Vec<Wanted>, Url, Source)> {
    let (source, place) = source_of(key, image, directory)?;
    let manifest = if store.contains(&image.manifest)? {
        store.get(&image.manifest)?
    } else {
        let manifest = client.fetch_manifest(&source, image.manifest).await?;
        store.put(&manifest)?;
        manifest
    };
    let named = blobs(&manifest, &format!("`{}`", image.reference))?;
    let layers = named.iter().skip(1).map(|blob| blob.digest);
    if named.first().map(|blob| blob.digest) != Some(image.config) || !layers.eq(image.layers.iter().copied())
    {
        return Err(Error::failed(format!("image `{key}`: the lock's layers are not those of its manifest"))
            .hint(format!("lock it again: `bedplate lock --update image:{key}`")));
    }
    let wanted = named.into_iter().enumerate().map(|(number, blob)| Wanted {
        digest: blob.digest,
        size: blob.size,
        what: match number {
            0 => format!("the configuration of image `{key}`"),
            _ => format!("layer {number} of image `{key}` ({})", blob.digest),
        },
        places: Vec::new(),
        hints: vec![format!("lock the image there is now: `bedplate lock --update image:{key}`")],
    });
    Ok((wanted.collect(), place, source))
}

/// Where an image comes from, and an address for messages.
fn source_of(key: &str, image: &LockedImage, directory: &Path) -> Result<(Source, Url)> {
    let odd = || Error::failed(format!("image `{key}`: `{}` is no place to fetch from", image.reference));
    if let Some(dir) = layout_of(image, directory) {
        let place = Url::from_directory_path(&dir).map_err(|()| odd())?;
        return Ok((Source::Layout { dir, tag: None }, place));
    }
    let source: Source = image.reference.parse()?;
    let reference = source.reference().ok_or_else(odd)?;
    let place = format!("https://{}/{}", reference.registry(), reference.repository());
    let place = Url::parse(&place).map_err(|error| odd().because(error))?;
    Ok((source, place))
}

/// The directory of an image that comes from a layout.
pub(super) fn layout_of(image: &LockedImage, directory: &Path) -> Option<PathBuf> {
    lock::layout(&image.reference).map(|(dir, _)| directory.join(dir))
}

/// Registries and layouts, as places to fetch from.
struct Images<'a> {
    client: &'a Client,
    sources: BTreeMap<Url, Source>,
}

impl Remote for Images<'_> {
    fn open<'a>(
        &'a self,
        wanted: &'a Wanted,
        place: &'a Url,
        from: u64,
        _validator: Option<&'a str>,
    ) -> BoxFuture<'a, std::result::Result<Opened, Refused>> {
        async move {
            let source = self.sources.get(place).ok_or(Refused::Absent)?;
            // Content by digest has one version: nothing else could be gone on with.
            let opened = self.client.open_blob(source, wanted.digest, from).await.map_err(Refused::Other)?;
            Ok(Opened { from: opened.from, total: None, validator: None, body: opened.body })
        }
        .boxed()
    }
}
