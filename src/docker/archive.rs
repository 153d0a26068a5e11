//! From an OCI image layout to the archive `docker load` takes. 20.10 knows only Docker's own form, newer daemons
//! with containerd's store want the layout: the archive is both at once, as `docker save` has written it since 25.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
};

use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    digest::{Digest, Hasher},
    error::{Doing, Error, Result},
    system::pipe::Pipe,
};

/// An image of a layout: its manifest as it lies there, and the name it gets.
#[derive(Debug, Clone)]
pub struct LayoutImage {
    /// The platform's manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// Name and tag the loaded image gets, such as `bedplate/vllm:g3`.
    pub tag: String,
}

/// A blob a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Blob {
    digest: Digest,
    size: u64,
}

/// The archive for [`super::Docker::load`], as a stream. `open` opens a blob of the layout by digest; each is
/// verified while it streams by, and a mismatch ends the stream with an error, so nothing of it is kept.
pub fn archive_from_layout<F>(
    image: &LayoutImage,
    open: F,
) -> Result<impl Stream<Item = Result<Bytes>> + use<F>>
where
    F: FnMut(&Digest) -> Result<Box<dyn Read + Send>> + Send + 'static,
{
    let (config, layers) = blobs(&image.manifest)?;
    let image = image.clone();
    let (sender, receiver) = mpsc::channel::<Result<Bytes>>(8);
    tokio::task::spawn_blocking(move || {
        let pipe = Pipe::new(sender.clone());
        if let Err(error) = write(pipe, &image, config, &layers, open) {
            // Nobody listens any more when the load itself failed.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    }))
}

fn blobs(manifest: &[u8]) -> Result<(Blob, Vec<Blob>)> {
    let parsed: Value = serde_json::from_slice(manifest).doing(|| "reading an image manifest")?;
    let blob = |value: &Value| -> Result<Blob> {
        let wrong = || Error::failed("reading an image manifest: a descriptor lacks its digest or size");
        Ok(Blob {
            digest: value["digest"].as_str().ok_or_else(wrong)?.parse()?,
            size: value["size"].as_u64().ok_or_else(wrong)?,
        })
    };
    let layers = parsed["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok((blob(&parsed["config"])?, layers.iter().map(blob).collect::<Result<_>>()?))
}

fn write(
    pipe: Pipe,
    image: &LayoutImage,
    config: Blob,
    layers: &[Blob],
    mut open: impl FnMut(&Digest) -> Result<Box<dyn Read + Send>>,
) -> Result<()> {
    let mut tar = tar::Builder::new(pipe);
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let manifest = Digest::of(&image.manifest);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, &path(&manifest), &image.manifest)?;
    let mut written = BTreeSet::new();
    for blob in std::iter::once(&config).chain(layers) {
        if !written.insert(blob.digest) {
            continue;
        }
        let mut content = Verified { inner: open(&blob.digest)?, hasher: Hasher::new(), left: blob.size };
        tar.append_data(&mut header(blob.size), path(&blob.digest), &mut content)
            .doing(|| format!("reading blob `{}`", blob.digest))?;
        content.finish(blob)?;
    }
    let media_type = serde_json::from_slice::<Value>(&image.manifest)
        .ok()
        .and_then(|parsed| parsed["mediaType"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
    let (_, tag) = image.tag.rsplit_once(':').unwrap_or((&image.tag, "latest"));
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": media_type,
            "digest": manifest.to_string(),
            "size": image.manifest.len(),
            "annotations": {
                "io.containerd.image.name": format!("docker.io/{}", image.tag),
                "org.opencontainers.image.ref.name": tag,
            },
        }],
    });
    append(&mut tar, "index.json", index.to_string().as_bytes())?;
    let docker = json!([{
        "Config": path(&config.digest),
        "RepoTags": [image.tag],
        "Layers": layers.iter().map(|blob| path(&blob.digest)).collect::<Vec<_>>(),
    }]);
    append(&mut tar, "manifest.json", docker.to_string().as_bytes())?;
    let mut pipe = tar.into_inner().doing(|| "ending the image archive")?;
    pipe.flush().doing(|| "ending the image archive")
}

fn append(tar: &mut tar::Builder<Pipe>, path: &str, content: &[u8]) -> Result<()> {
    tar.append_data(&mut header(content.len() as u64), path, content).doing(|| "writing an image archive")
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A reader that ends at the descriptor's size and remembers what went by.
struct Verified {
    inner: Box<dyn Read + Send>,
    hasher: Hasher,
    left: u64,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            // Otherwise the archive would go on with the next header inside this file.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "shorter than the manifest says"));
        }
        self.hasher.update(&buffer[..read]);
        self.left -= read as u64;
        Ok(read)
    }
}

impl Verified {
    fn finish(mut self, blob: &Blob) -> Result<()> {
        let mut rest = [0; 1];
        if self.inner.read(&mut rest).doing(|| format!("reading blob `{}`", blob.digest))? != 0 {
            return Err(Error::failed(format!("blob `{}` is longer than its manifest says", blob.digest)));
        }
        let found = self.hasher.finish();
        if found == blob.digest {
            return Ok(());
        }
        Err(Error::failed(format!("a blob of the image layout should be `{}` and is `{found}`", blob.digest))
            .hint("the layout is damaged: copy the image into it again"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::TryStreamExt;

    use super::*;

    fn sample() -> (LayoutImage, BTreeMap<Digest, Vec<u8>>) {
        let (config, layer) = (b"{}".to_vec(), vec![7; 300_000]);
        let descriptor = |blob: &[u8]| json!({"digest": Digest::of(blob).to_string(), "size": blob.len()});
        let manifest = json!({"schemaVersion": 2, "config": descriptor(&config),
            "layers": [descriptor(&layer), descriptor(&layer)]});
        let blobs = [config, layer].into_iter().map(|blob| (Digest::of(&blob), blob)).collect();
        (LayoutImage { manifest: manifest.to_string().into_bytes(), tag: "bedplate/x:g1".into() }, blobs)
    }

    async fn collect(image: &LayoutImage, blobs: BTreeMap<Digest, Vec<u8>>) -> Result<Vec<u8>> {
        let open = move |digest: &Digest| {
            let blob = blobs.get(digest).cloned().ok_or_else(|| Error::failed("no such blob"))?;
            Ok(Box::new(io::Cursor::new(blob)) as Box<dyn Read + Send>)
        };
        let chunks: Vec<Bytes> = archive_from_layout(image, open)?.try_collect().await?;
        Ok(chunks.concat())
    }

    #[tokio::test]
    async fn the_archive_is_both_forms_and_holds_a_blob_once() {
        let (image, blobs) = sample();
        let bytes = collect(&image, blobs.clone()).await.unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            assert!(files.insert(path, content).is_none(), "an entry is there twice");
        }
        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(docker[0]["Layers"].as_array().unwrap().len(), 2);
        assert_eq!(docker[0]["RepoTags"][0], "bedplate/x:g1");
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["digest"], Digest::of(&image.manifest).to_string());
        for (digest, blob) in blobs {
            assert_eq!(files[&format!("blobs/sha256/{}", digest.hex())], blob);
        }
    }

    #[tokio::test]
    async fn a_changed_short_or_long_blob_ends_the_stream() {
        for (change, wanted) in [(0_isize, "should be"), (-1, "reading blob"), (1, "longer")] {
            let (image, mut blobs) = sample();
            let layer = blobs.values_mut().find(|blob| blob.len() > 2).unwrap();
            match change {
                0 => layer[5] = 8,
                1 => layer.push(7),
                _ => drop(layer.pop()),
            }
            let error = collect(&image, blobs).await.unwrap_err();
            assert!(error.message().contains(wanted), "{error:?}");
        }
    }
}
