//! Images: whether one is there by digest, pulling, loading, tagging.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bollard::{
    auth::DockerCredentials,
    models::CreateImageInfo,
    query_parameters::{
        CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptionsBuilder,
        RemoveImageOptionsBuilder, TagImageOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Docker,
    failure::{Asked, failed, is_absent},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// How long a pull may say nothing. Docker itself gives up on a dead connection earlier; verifying one very large
/// layer is silent for minutes.
const SILENCE: Duration = Duration::from_secs(600);

/// Credentials for a registry, handed to the daemon for one pull. Never written anywhere.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: SecretString,
    /// OAuth identity token in place of the password, as credential helpers give it.
    pub identity_token: Option<SecretString>,
}

/// An image the daemon has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOnHost {
    /// Its id: the digest of its configuration, or, in containerd's store, of its manifest or index.
    pub id: String,
    /// `repository@digest`, as pulled.
    pub repo_digests: Vec<String>,
    /// `repository:tag`.
    pub repo_tags: Vec<String>,
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture, such as `amd64`.
    pub architecture: String,
    /// Unpacked size in bytes, as the daemon counts it.
    pub size: u64,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Command.
    pub command: Vec<String>,
    /// User, where one is set.
    pub user: Option<String>,
    /// Environment, as `NAME=value`.
    pub environment: Vec<String>,
}

impl ImageOnHost {
    /// Whether this is the image with that configuration, manifest or index. The id alone decides: it is a
    /// digest of content in either store, while names and `RepoDigests` are records.
    pub fn is(&self, manifest: &Digest, config: &Digest, index: Option<&Digest>) -> bool {
        [Some(manifest), Some(config), index]
            .into_iter()
            .flatten()
            .any(|digest| digest.to_string() == self.id)
    }
}

impl Docker {
    /// The image of that name, digest reference or id, when the daemon has it.
    pub async fn image(&self, name: &str) -> Result<Option<ImageOnHost>> {
        let found = match self.client.inspect_image(name).await {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(Asked::Image(name), error)),
        };
        let config = found.config.unwrap_or_default();
        Ok(Some(ImageOnHost {
            id: found.id.unwrap_or_default(),
            repo_digests: found.repo_digests.unwrap_or_default(),
            repo_tags: found.repo_tags.unwrap_or_default(),
            os: found.os.unwrap_or_default(),
            architecture: found.architecture.unwrap_or_default(),
            size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            user: config.user.filter(|user| !user.is_empty()),
            environment: config.env.unwrap_or_default(),
        }))
    }

    /// The image with these digests, whichever store the daemon uses and however it came there; with the name it
    /// was found by, which cannot move: `reference` (`repository@digest`) or its id.
    pub async fn image_by_digest(
        &self,
        reference: &str,
        manifest: &Digest,
        config: &Digest,
        index: Option<&Digest>,
    ) -> Result<Option<(String, ImageOnHost)>> {
        let names = [reference.to_owned(), config.to_string(), manifest.to_string()];
        for name in names.into_iter().filter(|name| name.contains("sha256:")) {
            if let Some(image) = self.image(&name).await?
                && image.is(manifest, config, index)
            {
                return Ok(Some((name, image)));
            }
        }
        Ok(None)
    }

    /// Pulls `reference` (`repository@sha256:…`); the daemon verifies every digest. `progress` gets bytes fetched
    /// and bytes to fetch as far as known: the total grows while layers are found, and layers already there count
    /// for nothing.
    ///
    /// # Errors
    /// Wrong credentials, unknown image, rate limit, full disk, other bytes than the digest says, registry out of
    /// reach, ten minutes of silence: each its own message.
    pub async fn pull(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<()> {
        if !reference.contains("@sha256:") {
            return Err(Error::failed(format!("pulling `{reference}`: not by digest, so it could move")));
        }
        let options = CreateImageOptionsBuilder::default().from_image(reference).build();
        let registry = reference.split('/').next().unwrap_or_default().to_owned();
        let credentials = credentials.map(|given| DockerCredentials {
            username: Some(given.username.clone()).filter(|name| !name.is_empty()),
            password: given.identity_token.is_none().then(|| given.password.expose_secret().to_owned()),
            identitytoken: given.identity_token.as_ref().map(|token| token.expose_secret().to_owned()),
            serveraddress: Some(registry),
            ..DockerCredentials::default()
        });
        let mut events = std::pin::pin!(self.client.create_image(Some(options), None, credentials));
        let mut layers = Layers::default();
        loop {
            match tokio::time::timeout(SILENCE, events.next()).await {
                Err(_) => {
                    return Err(Error::failed(format!(
                        "pulling `{reference}`: no progress for {} minutes",
                        SILENCE.as_secs() / 60
                    ))
                    .hint("look at `journalctl -u docker` and at the way to the registry"));
                }
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(failed(Asked::Pull(reference), error)),
                Ok(Some(Ok(event))) => {
                    if layers.take(&event) {
                        let (done, total) = layers.sum();
                        progress(done, total);
                    }
                }
            }
        }
    }

    /// Loads images from a tar archive as `docker save` writes them (see [`super::archive_from_layout`]).
    pub async fn load(&self, tar: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Result<()> {
        // An error of ours in the stream reaches bollard as an I/O error and comes back in other words: keep it.
        let (sender, kept) = std::sync::mpsc::channel();
        let tar = tar.map_err(move |error| {
            let text = std::io::Error::other(error.to_string());
            let _ = sender.send(error);
            text
        });
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let answers: std::result::Result<Vec<_>, _> =
            self.client.import_image_stream(options, tar, None).try_collect().await;
        match answers {
            Ok(_) => Ok(()),
            Err(error) => Err(kept.try_recv().unwrap_or_else(|_| failed(Asked::Load, error))),
        }
    }

    /// Gives the image `source` the further name `name` (`repository:tag`).
    pub async fn tag(&self, source: &str, name: &str) -> Result<()> {
        let (repository, tag) = split(name);
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        self.client.tag_image(source, Some(options)).await.map_err(|error| failed(Asked::Tag(source), error))
    }

    /// Takes the name `name` from its image, and removes the image where it was the last one and no container
    /// uses it. A name that is not there is no error.
    pub async fn untag(&self, name: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::default().build();
        match self.client.remove_image(name, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed(Asked::Tag(name), error)),
        }
    }

    /// Names that begin with `prefix`, each with its image's id.
    pub async fn images_tagged(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let options =
            ListImagesOptionsBuilder::default().filters(&HashMap::<String, Vec<String>>::new()).build();
        let listed = self
            .client
            .list_images(Some(options))
            .await
            .map_err(|error| failed(Asked::Image(prefix), error))?;
        let mut tagged = BTreeMap::new();
        for image in listed {
            for tag in image.repo_tags.into_iter().filter(|tag| tag.starts_with(prefix)) {
                tagged.insert(tag, image.id.clone());
            }
        }
        Ok(tagged)
    }
}

/// Repository and tag. A colon before the last slash belongs to the registry's port.
fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

/// Where each layer of a pull stands.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, (u64, u64)>);

impl Layers {
    /// Takes one event; whether it moved anything.
    fn take(&mut self, event: &CreateImageInfo) -> bool {
        let (Some(id), Some(status)) = (event.id.as_ref(), event.status.as_deref()) else { return false };
        let bytes = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
        let detail = event.progress_detail.as_ref();
        match status {
            "Downloading" => {
                let layer = self.0.entry(id.clone()).or_default();
                layer.1 = bytes(detail.and_then(|d| d.total)).unwrap_or(layer.1);
                layer.0 = bytes(detail.and_then(|d| d.current)).unwrap_or(layer.0);
                layer.1 = layer.1.max(layer.0);
                true
            }
            // "Extracting" counts compressed bytes of the same layer; the download is over by then.
            "Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete" => {
                match self.0.get_mut(id) {
                    Some(layer) => {
                        let moved = layer.0 != layer.1;
                        layer.0 = layer.1;
                        moved
                    }
                    None => false,
                }
            }
            _ => false,
        }
    }

    fn sum(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |(done, total), layer| (done + layer.0, total + layer.1))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn layers_add_up() {
        let event = |id: &str, status: &str, at: Option<(i64, i64)>| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: at
                .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        assert!(!layers.take(&event("latest", "Pulling from x", None)));
        assert!(!layers.take(&event("a", "Already exists", None)));
        assert!(layers.take(&event("b", "Downloading", Some((10, 100)))));
        assert!(layers.take(&event("c", "Downloading", Some((5, 50)))));
        assert_eq!(layers.sum(), (15, 150));
        assert!(layers.take(&event("b", "Download complete", None)));
        assert!(!layers.take(&event("b", "Pull complete", None)));
        assert_eq!(layers.sum(), (105, 150));
    }

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(split("bedplate/vllm:g3"), ("bedplate/vllm", "g3"));
        assert_eq!(split("localhost:5000/x"), ("localhost:5000/x", "latest"));
        assert_eq!(split("localhost:5000/x:1"), ("localhost:5000/x", "1"));
    }

    #[test]
    fn the_id_decides() {
        let (config, manifest, other) = (Digest::of("c"), Digest::of("m"), Digest::of("o"));
        let image = |id: &Digest| ImageOnHost {
            id: id.to_string(),
            repo_digests: vec![format!("x@{manifest}")],
            repo_tags: Vec::new(),
            os: "linux".into(),
            architecture: "amd64".into(),
            size: 0,
            entrypoint: Vec::new(),
            command: Vec::new(),
            user: None,
            environment: Vec::new(),
        };
        assert!(image(&config).is(&manifest, &config, None));
        assert!(image(&manifest).is(&manifest, &config, None));
        assert!(!image(&other).is(&manifest, &config, None));
    }
}
