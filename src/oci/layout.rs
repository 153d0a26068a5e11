//! Image layouts on disk (OCI image specification, image-layout.md).

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use oci_spec::image::{Descriptor, ImageIndex};
use serde::Deserialize;

use super::{failure, manifest, read};
use crate::{
    digest::{Digest, Hasher},
    error::{Doing, Error, Result},
};

/// An image layout, and which of its images.
pub(super) struct Layout<'a> {
    pub(super) dir: &'a Path,
    pub(super) tag: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout<'_> {
    /// The digest of the index or manifest that the tag names; of the only one, where there is no tag.
    pub(super) fn named(&self) -> Result<Digest> {
        let shown = self.dir.display();
        let no_layout = || {
            Error::failed(format!("`{shown}` is not an image layout"))
                .hint(format!("make one with `skopeo copy docker://IMAGE oci:{shown}:TAG`"))
        };
        let json =
            |path: &Path, why: &serde_json::Error| failure::malformed(&format!("`{}`", path.display()), why);
        let path = self.dir.join("oci-layout");
        let marker = read::to_limit(&path, 4 << 10)?.ok_or_else(no_layout)?;
        let marker: Marker = serde_json::from_slice(&marker).map_err(|why| json(&path, &why))?;
        if !marker.image_layout_version.starts_with("1.") {
            let version = failure::excerpt(&marker.image_layout_version);
            return Err(Error::failed(format!("`{shown}` is an image layout of unknown version {version}"))
                .hint("versions 1.x are supported"));
        }
        let path = self.dir.join("index.json");
        let index = read::to_limit(&path, manifest::LARGEST_MANIFEST)?.ok_or_else(no_layout)?;
        let index: ImageIndex = serde_json::from_slice(&index).map_err(|why| json(&path, &why))?;
        let has = || {
            let tags: Vec<String> =
                index.manifests().iter().filter_map(name_of).map(failure::excerpt).collect();
            if tags.is_empty() { "no tags".to_owned() } else { format!("tags {}", tags.join(", ")) }
        };
        let found: Vec<&Descriptor> = match self.tag {
            Some(tag) => index.manifests().iter().filter(|d| name_of(d) == Some(tag)).collect(),
            None => index.manifests().iter().collect(),
        };
        match (found.as_slice(), self.tag) {
            ([only], _) => manifest::digest_of(only),
            ([], Some(tag)) => {
                Err(Error::failed(format!("image layout `{shown}` has no tag `{tag}`: it has {}", has()))
                    .hint(format!("write `oci:{shown}:TAG` with one of its tags")))
            }
            ([], None) => Err(Error::failed(format!("image layout `{shown}` is empty"))
                .hint(format!("fill it with `skopeo copy docker://IMAGE oci:{shown}:TAG`"))),
            (_, Some(tag)) => {
                Err(Error::failed(format!("image layout `{shown}` has tag `{tag}` more than once"))
                    .hint("copy the image into a fresh directory"))
            }
            (_, None) => {
                Err(Error::failed(format!("image layout `{shown}` holds several images: it has {}", has()))
                    .hint(format!("write `oci:{shown}:TAG` with one of its tags")))
            }
        }
    }

    // Only a digest's hexadecimal digits become a path, so that it cannot lead outside.
    pub(super) fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join("blobs").join("sha256").join(digest.hex())
    }

    fn gone(&self, digest: Digest) -> Error {
        Error::failed(format!("image layout `{}` has no content with digest {digest}", self.dir.display()))
            .hint("the layout is incomplete: copy the image again")
    }

    fn changed(&self, want: Digest, got: Digest) -> Error {
        Error::failed(format!(
            "image layout `{}` holds other content than its name says: wanted {want}, got {got}",
            self.dir.display()
        ))
        .hint("the layout is broken: copy the image again")
    }

    /// A whole small document, verified.
    pub(super) fn whole(&self, digest: Digest, limit: u64) -> Result<Vec<u8>> {
        let body = read::to_limit(&self.path(digest), limit)?.ok_or_else(|| self.gone(digest))?;
        let got = Digest::of(&body);
        if got == digest { Ok(body) } else { Err(self.changed(digest, got)) }
    }

    /// Opens a blob at byte `from`.
    pub(super) fn open(&self, digest: Digest, from: u64) -> Result<File> {
        let path = self.path(digest);
        let mut file = read::open(&path)?.ok_or_else(|| self.gone(digest))?;
        file.seek(SeekFrom::Start(from)).doing(|| format!("reading `{}`", path.display()))?;
        Ok(file)
    }

    /// Copies a blob of any size into `sink`, verified; what was written before a mismatch was found is the
    /// caller's to throw away.
    pub(super) fn copy(&self, digest: Digest, size: u64, sink: &mut (dyn Write + Send)) -> Result<()> {
        let path = self.path(digest);
        let file = read::open(&path)?.ok_or_else(|| self.gone(digest))?;
        let mut file = file.take(size.saturating_add(1));
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = file.read(&mut buffer).doing(|| format!("reading `{}`", path.display()))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            sink.write_all(&buffer[..n]).doing(|| format!("writing blob `{digest}`"))?;
        }
        let got = hasher.finish();
        if got == digest { Ok(()) } else { Err(self.changed(digest, got)) }
    }
}

/// The content of this digest in the layout `dir`, as an open file at its start. Not verified. `None` where there is
/// none.
///
/// # Errors
/// It cannot be opened.
pub fn open_in_layout(dir: &Path, digest: Digest) -> Result<Option<File>> {
    read::open(&Layout { dir, tag: None }.path(digest))
}

fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations().as_ref()?;
    annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
}
