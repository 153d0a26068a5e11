//! From a source and a platform to a pinned image.

use std::io::Write;

use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio_util::io::ReaderStream;

use super::{
    config::ClientConfig,
    credentials::Credentials,
    facts::ImageFacts,
    failure::{self, Access, Asked, Wanted},
    layout::Layout,
    manifest::{self, Choice, Document, Image, Refused},
    platform::Platform,
    reference::Source,
    registry::{Answer, Job, Registries},
    transport,
};
use crate::{
    digest::Digest,
    error::{Doing as _, Error, Result},
};

/// An image, pinned: everything by digest, everything verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Normalised reference it was resolved from: `docker.io/library/debian:13`, or `oci:DIR:TAG`.
    pub reference: String,
    /// The platform asked for.
    pub platform: Platform,
    /// Digest of the index the source names, where it names one.
    pub index: Option<Digest>,
    /// Digest of the platform's manifest: what a host pulls.
    pub manifest: Digest,
    /// Digest of the image configuration.
    pub config: Digest,
    /// What a host must fetch, in bytes: configuration and compressed layers, each content once.
    pub download: u64,
    /// Layer digests, lowest first, as the manifest lists them.
    pub layers: Vec<Digest>,
    /// What the configuration says.
    pub facts: ImageFacts,
}

impl Resolved {
    /// What the source's name names now: the index, or the manifest where there is none. Compared with
    /// [`Client::head`] it tells whether a tag has moved.
    pub fn named(&self) -> Digest {
        self.index.unwrap_or(self.manifest)
    }
}

/// A blob whose bytes are still to be read.
pub struct OpenBlob {
    /// The byte its body begins with.
    pub from: u64,
    /// The body.
    pub body: BoxStream<'static, Result<Bytes>>,
}

/// Content that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
}

/// What an image manifest names: its configuration, then its layers, lowest first. `what` names it in messages.
///
/// # Errors
/// It is no image's manifest.
pub fn blobs(manifest: &[u8], what: &str) -> Result<Vec<Blob>> {
    match parse(manifest, what)? {
        Document::Image(image) => Ok(image.blobs),
        Document::Index(_) => Err(Error::failed(format!("{what} is an index, not an image"))),
    }
}

/// Resolves and fetches images. Cheap to share by reference; connections, logins and tokens are
/// kept for as long as it lives.
pub struct Client {
    pub(super) registries: Registries,
}

impl Client {
    /// A client. Nothing is read or connected yet.
    pub fn new(config: ClientConfig) -> Self {
        Self { registries: Registries::new(config) }
    }

    /// What the source names now: the digest of its index or manifest. One HEAD.
    pub async fn head(&self, source: &Source) -> Result<Digest> {
        match source {
            Source::Layout { dir, tag } => Layout { dir, tag: tag.as_deref() }.named(),
            Source::Registry(reference) => {
                match self.registries.manifest(reference, reference.digest(), true).await? {
                    Answer::Head(Some(digest)) => Ok(digest),
                    // The header is optional (OCI distribution specification, "Checking if content exists").
                    _ => self.named(source).await.map(|(_, digest)| digest),
                }
            }
        }
    }

    /// Resolves a source for a platform. Three requests for an index (index, manifest, configuration), two
    /// without; none of them twice.
    pub async fn resolve(&self, source: &Source, platform: &Platform) -> Result<Resolved> {
        let what = format!("`{source}`");
        let (body, named) = self.named(source).await?;
        let (index, manifest, image) = match parse(&body, &what)? {
            Document::Image(image) => (None, named, image),
            Document::Index(index) => {
                let (manifest, image) = match manifest::choose(&index, platform, &what)? {
                    Choice::Manifest(digest) => self.image(source, digest, &what).await?,
                    Choice::Index(digest) => self.nested(source, digest, platform, &what).await?,
                };
                (Some(named), manifest, image)
            }
        };
        if image.config_size > manifest::LARGEST_CONFIG {
            return Err(Error::failed(format!(
                "the configuration of {what} is too large: {} bytes, {} are allowed",
                image.config_size,
                manifest::LARGEST_CONFIG
            ))
            .hint("no image has such a configuration; look at how it was built"));
        }
        let config = self.config(source, &image).await?;
        if config.len() as u64 != image.config_size {
            return Err(Error::failed(format!(
                "the configuration of {what} has {} bytes, its manifest says {}",
                config.len(),
                image.config_size
            ))
            .hint("the manifest is wrong: build and push the image again"));
        }
        let facts = ImageFacts::parse(&config)
            .map_err(|why| failure::malformed(&format!("the configuration of {what}"), &why))?;
        manifest::check_platform(&facts.platform(), platform, &what)?;
        Ok(Resolved {
            reference: source.to_string(),
            platform: platform.clone(),
            index,
            manifest,
            config: image.config,
            download: image.download,
            layers: image.layers,
            facts,
        })
    }

    /// Resolves many, so many at once as [`ClientConfig::concurrency`] says. `done` hears of each as it ends,
    /// with its place in `wanted`; the results are in the order of `wanted`. One failure does not
    /// stop the others.
    pub async fn resolve_many(
        &self,
        wanted: &[(Source, Platform)],
        done: impl Fn(usize, &Result<Resolved>),
    ) -> Vec<Result<Resolved>> {
        // Boxed one by one: an iterator of borrowing futures would not be `Send`.
        let mut jobs: Vec<BoxFuture<'_, _>> = Vec::with_capacity(wanted.len());
        for (source, platform) in wanted {
            jobs.push(self.resolve(source, platform).boxed());
        }
        self.many(jobs, done).await
    }

    /// [`Client::head`] of many, as [`Client::resolve_many`] does it.
    pub async fn head_many(
        &self,
        sources: &[Source],
        done: impl Fn(usize, &Result<Digest>),
    ) -> Vec<Result<Digest>> {
        let mut jobs: Vec<BoxFuture<'_, _>> = Vec::with_capacity(sources.len());
        for source in sources {
            jobs.push(self.head(source).boxed());
        }
        self.many(jobs, done).await
    }

    async fn many<T: Send>(
        &self,
        jobs: Vec<BoxFuture<'_, Result<T>>>,
        done: impl Fn(usize, &Result<T>),
    ) -> Vec<Result<T>> {
        let mut numbered = Vec::with_capacity(jobs.len());
        for (n, job) in jobs.into_iter().enumerate() {
            numbered.push(job.map(move |result| (n, result)));
        }
        let mut running = stream::iter(numbered).buffer_unordered(self.registries.config.concurrency.max(1));
        let mut results = Vec::new();
        while let Some((n, result)) = running.next().await {
            done(n, &result);
            results.push((n, result));
        }
        results.sort_by_key(|(n, _)| *n);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Writes a blob of exactly `size` bytes into `sink` as it comes, verified. On an error, a mismatch
    /// included, what was written is the caller's to throw away.
    pub async fn fetch_blob(
        &self,
        source: &Source,
        digest: Digest,
        size: u64,
        sink: &mut (dyn Write + Send),
    ) -> Result<()> {
        let reference = match source {
            Source::Layout { dir, tag } => {
                return Layout { dir, tag: tag.as_deref() }.copy(digest, size, sink);
            }
            Source::Registry(reference) => reference,
        };
        let wanted = Wanted::Blob(digest);
        let Answer::Open(opened) = self.registries.ask(reference, wanted, Job::Open(0)).await? else {
            return Err(Error::failed(format!("no body came for blob `{digest}`")));
        };
        let (response, endpoint) = *opened;
        let asked = Asked { endpoint: &endpoint, reference, wanted, access: Access::Read };
        let (got, length) = transport::stream(&self.registries.config, asked, response, size, sink)
            .await
            .map_err(|failure| failure.error)?;
        if got == digest {
            return Ok(());
        }
        if length < size {
            return Err(failure::truncated(asked, length, Some(size)).error);
        }
        Err(failure::mismatch(asked, digest, got).error)
    }

    /// Opens a blob from byte `from` on; from its start where the registry cannot do that. Nothing is verified yet:
    /// the digest is the caller's to hold it against.
    pub async fn open_blob(&self, source: &Source, digest: Digest, from: u64) -> Result<OpenBlob> {
        let reference = match source {
            Source::Layout { dir, tag } => {
                let file = Layout { dir, tag: tag.as_deref() }.open(digest, from)?;
                let body = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 128 << 10)
                    .map(|piece| piece.doing(|| "reading an image layout failed"));
                return Ok(OpenBlob { from, body: body.boxed() });
            }
            Source::Registry(reference) => reference,
        };
        let wanted = Wanted::Blob(digest);
        let Answer::Open(opened) = self.registries.ask(reference, wanted, Job::Open(from)).await? else {
            return Err(Error::failed(format!("no body came for blob `{digest}`")));
        };
        let (response, endpoint) = *opened;
        let what = Asked { endpoint: &endpoint, reference, wanted, access: Access::Read }.what();
        let (from, body) = transport::pieces(&self.registries.config, what, response);
        Ok(OpenBlob { from, body })
    }

    /// The manifest of this digest, verified.
    ///
    /// # Errors
    /// It cannot be had, or is no image's.
    pub async fn fetch_manifest(&self, source: &Source, digest: Digest) -> Result<Vec<u8>> {
        let body = self.manifest(source, digest).await?;
        blobs(&body, &format!("`{source}`"))?;
        Ok(body)
    }

    /// The credentials Docker's configuration has for a registry (host with port, as references write
    /// it). Looked up once; also for handing to a Docker daemon that pulls.
    pub async fn credentials(&self, registry: &str) -> Result<Option<Credentials>> {
        self.registries.credentials(registry).await
    }

    /// The document the source itself names, and its digest.
    async fn named(&self, source: &Source) -> Result<(Vec<u8>, Digest)> {
        match source {
            Source::Layout { dir, tag } => {
                let layout = Layout { dir, tag: tag.as_deref() };
                let digest = layout.named()?;
                Ok((layout.whole(digest, manifest::LARGEST_MANIFEST)?, digest))
            }
            Source::Registry(reference) => {
                whole(self.registries.manifest(reference, reference.digest(), false).await?)
            }
        }
    }

    async fn manifest(&self, source: &Source, digest: Digest) -> Result<Vec<u8>> {
        match source {
            Source::Layout { dir, tag } => {
                Layout { dir, tag: tag.as_deref() }.whole(digest, manifest::LARGEST_MANIFEST)
            }
            Source::Registry(reference) => {
                whole(self.registries.manifest(reference, Some(digest), false).await?).map(|(body, _)| body)
            }
        }
    }

    async fn config(&self, source: &Source, image: &Image) -> Result<Vec<u8>> {
        match source {
            Source::Layout { dir, tag } => {
                Layout { dir, tag: tag.as_deref() }.whole(image.config, manifest::LARGEST_CONFIG)
            }
            Source::Registry(reference) => {
                let job = Job::Whole(image.config_size);
                let answer = self.registries.ask(reference, Wanted::Blob(image.config), job).await?;
                whole(answer).map(|(body, _)| body)
            }
        }
    }

    async fn image(&self, source: &Source, digest: Digest, what: &str) -> Result<(Digest, Image)> {
        match parse(&self.manifest(source, digest).await?, what)? {
            Document::Image(image) => Ok((digest, image)),
            Document::Index(_) => Err(Error::failed(format!(
                "{what} names an index where its own index says there is a manifest: {digest}"
            ))
            .hint("the index is wrong: build and push the image again")),
        }
    }

    async fn nested(
        &self,
        source: &Source,
        digest: Digest,
        platform: &Platform,
        what: &str,
    ) -> Result<(Digest, Image)> {
        if let Document::Index(index) = parse(&self.manifest(source, digest).await?, what)?
            && let Choice::Manifest(digest) = manifest::choose(&index, platform, what)?
        {
            return self.image(source, digest, what).await;
        }
        Err(Error::failed(format!("{what} nests its indices deeper than one level"))
            .hint("build and push the image with one index"))
    }
}

fn whole(answer: Answer) -> Result<(Vec<u8>, Digest)> {
    match answer {
        Answer::Whole(body, digest) => Ok((body, digest)),
        Answer::Head(_) | Answer::Open(_) => Err(Error::failed("no body came")),
    }
}

fn parse(body: &[u8], what: &str) -> Result<Document> {
    manifest::parse(body, what).map_err(|refused| match refused {
        Refused::Malformed(why) => failure::malformed(what, &why),
        Refused::Error(error) => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sendable<T: Send>(_: &T) {}

    #[test]
    fn its_work_can_be_spawned() {
        let client = Client::new(ClientConfig::default());
        let source: Source = "debian:13".parse().unwrap();
        let platform = Platform::linux("amd64");
        let mut sink = Vec::new();
        let wanted = [(source.clone(), platform.clone())];
        sendable(&client.resolve(&source, &platform));
        sendable(&client.head(&source));
        sendable(&client.resolve_many(&wanted, |_, _| {}));
        sendable(&client.fetch_blob(&source, Digest::of("x"), 1, &mut sink));
        sendable(&client.credentials("docker.io"));
    }
}
