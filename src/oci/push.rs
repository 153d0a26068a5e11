//! From an image layout into a repository (OCI distribution specification 1.1, "Push").
//!
//! What is there is not sent again; what another repository of the registry has is taken over from there; a blob goes in
//! one request. The manifest comes last, by its digest and then by the tag, so that the tag never names half an image.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::{
    Client,
    client::{self, Blob},
    config::Endpoint,
    failure::{self, Access, Asked, Failure, Wanted},
    layout::Layout,
    manifest::{ACCEPT, LARGEST_MANIFEST},
    reference::Reference,
    registry::{Registries, header_digest},
    transport::{self, Payload, Request, Upload},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
    progress::{Progress, Unit},
};

/// How many blobs go at once; Docker sends five.
const AT_ONCE: usize = 4;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);
/// The media type of a manifest that names none (OCI image specification, manifest.md).
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image that is in a repository now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its manifest.
    pub digest: Digest,
    /// By its digest: `HOST/REPOSITORY@sha256:…`.
    pub reference: String,
    /// Blobs that were sent.
    pub sent: usize,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Blobs taken over from another repository.
    pub mounted: usize,
    /// Blobs that were there.
    pub there: usize,
}

/// How a blob came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Sent,
    Mounted,
    WasThere,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

impl Client {
    /// Asks whether `to` can be written to, as far as that can be told without writing: the registry is there, and takes
    /// the login. One HEAD, and what a login takes.
    ///
    /// # Errors
    /// It cannot.
    pub async fn knock(&self, to: &Reference) -> Result<()> {
        let target = Target::new(&self.registries, to, None)?;
        target.named().await.map(drop)
    }

    /// Pushes the only image of the layout in `dir`, under the tag of `to`. `others`: repositories that have the same
    /// image already; blobs are taken over from one on the same registry.
    ///
    /// # Errors
    /// The layout is broken; the registry cannot be reached, or does not take it.
    pub async fn push(
        &self,
        dir: &Path,
        to: &Reference,
        others: &[Reference],
        progress: &dyn Progress,
    ) -> Result<Pushed> {
        let other = others
            .iter()
            .find(|other| other.registry() == to.registry() && other.repository() != to.repository());
        let target = Target::new(&self.registries, to, other.map(Reference::repository))?;
        let layout = Layout { dir, tag: None };
        let digest = layout.named()?;
        let manifest = layout.whole(digest, LARGEST_MANIFEST)?;
        let blobs = client::blobs(&manifest, &format!("`oci:{}`", dir.display()))?;
        let uploads: BTreeMap<Digest, Upload> = blobs
            .into_iter()
            .map(|Blob { digest, size }| {
                (digest, Upload { path: layout.path(digest), size, sent: Arc::default() })
            })
            .collect();

        let task = format!("push {to}");
        let total = uploads.values().map(|upload| upload.size).sum();
        progress.started(&task, Some(total), Unit::Bytes);
        let mut jobs: Vec<BoxFuture<'_, Result<(Came, u64)>>> = Vec::with_capacity(uploads.len());
        for (digest, upload) in &uploads {
            jobs.push(target.blob(*digest, upload).boxed());
        }
        let mut all = std::pin::pin!(stream::iter(jobs).buffer_unordered(AT_ONCE).try_collect());
        let came: Vec<(Came, u64)> = loop {
            if let Ok(all) = tokio::time::timeout(TELL, &mut all).await {
                break all?;
            }
            let done = uploads.values().map(|upload| upload.sent.load(Ordering::Relaxed)).sum();
            progress.advanced(&task, done, None);
        };
        let count = |kind: Came| came.iter().filter(|(came, _)| *came == kind).count();
        let pushed = Pushed {
            digest,
            reference: to.with_digest(digest),
            sent: count(Came::Sent),
            bytes: came.iter().filter(|(came, _)| *came == Came::Sent).map(|(_, size)| size).sum(),
            mounted: count(Came::Mounted),
            there: count(Came::WasThere),
        };
        // Some registries refuse to have a tag written again, though it says the same.
        if target.named().await? != Some(digest) {
            let typed: Option<Typed> = serde_json::from_slice(&manifest).ok();
            let media_type = typed.and_then(|typed| typed.media_type).unwrap_or_else(|| MANIFEST.to_owned());
            let bytes = Bytes::from(manifest);
            target.manifest(&digest.to_string(), digest, &media_type, &bytes).await?;
            target.manifest(to.tag().unwrap_or("latest"), digest, &media_type, &bytes).await?;
        }
        progress.finished(
            &task,
            Some(&format!(
                "{} blobs sent, {} taken over from another repository, {} there already",
                pushed.sent, pushed.mounted, pushed.there
            )),
        );
        Ok(pushed)
    }
}

/// A repository that is pushed to: the registry's own, never a mirror's.
struct Target<'a> {
    registries: &'a Registries,
    endpoint: Endpoint,
    reference: &'a Reference,
    /// Another repository that blobs may be in.
    other: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn new(registries: &'a Registries, reference: &'a Reference, other: Option<&'a str>) -> Result<Self> {
        let endpoints = registries.config.endpoints(reference)?;
        let endpoint = endpoints.into_iter().find(|endpoint| !endpoint.mirror);
        let endpoint =
            endpoint.ok_or_else(|| Error::failed(format!("there is nowhere to push `{reference}` to")))?;
        Ok(Self { registries, endpoint, reference, other })
    }

    fn asked<'s>(&'s self, wanted: Wanted<'s>) -> Asked<'s> {
        let access = Access::Write { from: None };
        Asked { endpoint: &self.endpoint, reference: self.reference, wanted, access }
    }

    fn request(&self, method: Method, kind: &str, name: &str) -> Request {
        Request {
            method,
            url: self.endpoint.url(self.reference, kind, name),
            accept: if kind == "manifests" { ACCEPT } else { "*/*" },
            authorization: None,
            payload: Payload::Nothing,
            from: 0,
        }
    }

    /// Whether what a HEAD asks for is there; the answer is, where it is.
    async fn there(&self, asked: Asked<'_>, kind: &str, name: &str) -> Result<Option<Response>, Failure> {
        let response = self.registries.answered(asked, self.request(Method::HEAD, kind, name)).await?;
        match response.status() {
            status if status.is_success() => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            // Only a body says why.
            StatusCode::BAD_REQUEST => {
                self.registries.authorised(asked, self.request(Method::GET, kind, name)).await.map(Some)
            }
            status => Err(failure::status(asked, status, response.headers(), b"")),
        }
    }

    /// What the tag names now. Also `None` where the registry does not say which digest that is.
    async fn named(&self) -> Result<Option<Digest>> {
        let tag = self.reference.tag().unwrap_or("latest");
        let asked = self.asked(Wanted::Tag(tag));
        let found =
            self.registries.persist(&self.endpoint.host, || self.there(asked, "manifests", tag)).await?;
        Ok(found.and_then(|response| header_digest(response.headers())))
    }

    /// Has a blob in the repository. Also says how large it is.
    async fn blob(&self, digest: Digest, upload: &Upload) -> Result<(Came, u64)> {
        let name = digest.to_string();
        let asked = self.asked(Wanted::Blob(digest));
        let host = &self.endpoint.host;
        let found = self.registries.persist(host, || self.there(asked, "blobs", &name)).await?;
        let came = if found.is_some() {
            Came::WasThere
        } else if self.mounted(digest).await {
            Came::Mounted
        } else {
            self.registries.persist(host, || self.send(digest, upload)).await?;
            Came::Sent
        };
        upload.sent.store(upload.size, Ordering::Relaxed);
        Ok((came, upload.size))
    }

    /// Tries to take a blob over from the other repository. Where that does not work, it is sent: whoever cannot read
    /// the other one, or whose registry does not know how, is not told.
    async fn mounted(&self, digest: Digest) -> bool {
        let Some(from) = self.other else { return false };
        let asked =
            Asked { access: Access::Write { from: Some(from) }, ..self.asked(Wanted::Upload(digest)) };
        let mut request = self.request(Method::POST, "blobs", "uploads/");
        request.url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        match self.registries.authorised(asked, request).await {
            // 202: a session for an upload was begun instead, which ends by itself.
            Ok(response) => response.status() == StatusCode::CREATED,
            Err(failure) => {
                tracing::debug!(%digest, from, "not taken over: {}", failure.error);
                false
            }
        }
    }

    /// One try to send a blob: a session, and the whole of it in one request.
    async fn send(&self, digest: Digest, upload: &Upload) -> Result<(), Failure> {
        let asked = self.asked(Wanted::Upload(digest));
        let begun =
            self.registries.authorised(asked, self.request(Method::POST, "blobs", "uploads/")).await?;
        let mut url = transport::location(&self.registries.config, asked, begun.url(), &begun)?;
        transport::discard(begun).await;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut request = self.request(Method::PUT, "blobs", "uploads/");
        request.url = url;
        request.payload = Payload::File(upload.clone());
        let response = self.registries.authorised(asked, request).await?;
        kept(asked, digest, response).await
    }

    /// Writes the manifest under this name: its digest, or a tag.
    async fn manifest(&self, name: &str, digest: Digest, media_type: &str, bytes: &Bytes) -> Result<()> {
        let asked = self.asked(Wanted::UploadManifest(name));
        let attempt = || async {
            let mut request = self.request(Method::PUT, "manifests", name);
            request.payload = Payload::Document { media_type: media_type.to_owned(), bytes: bytes.clone() };
            let response = self.registries.authorised(asked, request).await?;
            kept(asked, digest, response).await
        };
        self.registries.persist(&self.endpoint.host, attempt).await
    }
}

/// An error where the registry says that it kept something else.
async fn kept(asked: Asked<'_>, digest: Digest, response: Response) -> Result<(), Failure> {
    let other = header_digest(response.headers()).filter(|got| *got != digest);
    transport::discard(response).await;
    match other {
        Some(got) => Err(Error::failed(format!(
            "`{}` says that it keeps {got}, and was sent {digest}",
            asked.endpoint.host
        ))
        .hint("the registry or something in between changes what it is sent: do not use it for images")
        .into()),
        None => Ok(()),
    }
}
