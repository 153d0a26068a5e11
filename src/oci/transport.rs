//! One HTTP exchange: TLS and its authorities, time limits, redirects, bounded bodies.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE,
    },
    redirect::Policy,
};
use tokio_util::io::ReaderStream;
use url::Url;
use zeroize::Zeroizing;

use super::{
    config::{Ca, ClientConfig, authority, is_loopback},
    failure::{self, Asked, Failure},
    read,
};
use crate::{
    digest::{Digest, Hasher},
    error::{Doing, Error, Kind, Result},
    system::files,
};

/// How many redirects are followed; browsers and curl allow more, registries need one.
const MOST_REDIRECTS: usize = 10;
/// The largest certificate file read, in bytes.
const LARGEST_CA: u64 = 4 << 20;
/// Bytes a second that a slow registry checks of what it was sent, before it says that it has it.
const COMMIT_RATE: u64 = 16 << 20;

/// What differs between connections, so that one `reqwest` client cannot serve all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    /// Reading the platform's authorities takes time and fails on a machine without any.
    tls: bool,
    /// No proxy to the machine itself.
    loopback: bool,
    /// The registry whose own authority is trusted, and only for that registry.
    ca_of: Option<String>,
}

pub(super) struct Transport {
    clients: Mutex<BTreeMap<Sort, Client>>,
}

/// A request to make.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: &'static str,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) payload: Payload,
    /// The first byte that is wanted.
    pub(super) from: u64,
}

/// What a request carries.
#[derive(Clone)]
pub(super) enum Payload {
    Nothing,
    Form(Zeroizing<String>),
    Document { media_type: String, bytes: Bytes },
    File(Upload),
}

/// A file on its way, read as it goes.
#[derive(Clone)]
pub(super) struct Upload {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Bytes handed over so far.
    pub(super) sent: Arc<AtomicU64>,
}

impl Upload {
    /// The file from its start.
    fn body(&self) -> Result<reqwest::Body> {
        let (file, size) = files::open_input(&self.path).map_err(|error| error.with_kind(Kind::Failed))?;
        if size != self.size {
            let path = self.path.display();
            return Err(Error::failed(format!("`{path}` has {size} bytes, its manifest says {}", self.size))
                .hint("the layout is broken: build the image again"));
        }
        self.sent.store(0, Ordering::Relaxed);
        let sent = self.sent.clone();
        let pieces =
            ReaderStream::with_capacity(tokio::fs::File::from_std(file), 128 << 10).inspect(move |piece| {
                if let Ok(piece) = piece {
                    sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            });
        Ok(reqwest::Body::wrap_stream(pieces))
    }
}

impl Transport {
    pub(super) fn new() -> Self {
        // Fails when something else in the process set a provider first, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { clients: Mutex::default() }
    }

    fn client(&self, config: &ClientConfig, url: &Url) -> Result<Client> {
        let host = authority(url);
        let tls = url.scheme() == "https";
        let ca = config.registries.get(&host).and_then(|r| r.ca.as_ref()).filter(|_| tls);
        let sort = Sort { tls, loopback: is_loopback(url), ca_of: ca.map(|_| host.clone()) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&sort) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("bedplate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .referer(false)
            // Followed here, so that credentials and TLS are never lost sight of.
            .redirect(Policy::none());
        if sort.loopback {
            builder = builder.no_proxy();
        }
        if !tls {
            builder = builder.tls_certs_only([]);
        }
        if let Some(ca) = ca {
            builder = builder.tls_certs_merge(certificates(ca, &host)?);
        }
        let client = builder.build().doing(|| format!("preparing connections to `{host}`")).map_err(|e| {
            e.hint("check that this machine has certificate authorities: `apt install ca-certificates`")
        })?;
        clients.insert(sort, client.clone());
        Ok(client)
    }

    /// Makes a request and follows redirects. Credentials go to the first host, port and scheme only;
    /// from TLS there is no way to plain HTTP.
    pub(super) async fn send(
        &self,
        config: &ClientConfig,
        asked: Asked<'_>,
        mut request: Request,
    ) -> Result<Response, Failure> {
        for _ in 0..=MOST_REDIRECTS {
            let client = self.client(config, &request.url)?;
            let mut builder =
                client.request(request.method.clone(), request.url.clone()).header(ACCEPT, request.accept);
            if let Some(authorization) = &request.authorization {
                builder = builder.header(AUTHORIZATION, authorization);
            }
            if request.from > 0 {
                builder = builder.header(RANGE, format!("bytes={}-", request.from));
            }
            builder = match &request.payload {
                Payload::Nothing => builder,
                Payload::Form(form) => builder
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.as_bytes().to_vec()),
                Payload::Document { media_type, bytes } => {
                    builder.header(CONTENT_TYPE, media_type).body(bytes.clone())
                }
                Payload::File(upload) => builder
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, upload.size)
                    .body(upload.body()?),
            };
            let limit = config.connect_timeout.saturating_add(config.response_timeout);
            let response = answered(builder.send(), &request.payload, limit)
                .await
                .ok_or_else(|| failure::timed_out(&authority(&request.url), &asked.what(), "answer"))?
                .map_err(|error| failure::no_answer(asked, &request.url, error))?;
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirect || !matches!(request.payload, Payload::Nothing) {
                return Ok(response);
            }
            let target = location(config, asked, &request.url, &response)?;
            if target.origin() != request.url.origin() {
                request.authorization = None;
            }
            discard(response).await;
            request.url = target;
        }
        Err(Error::failed(format!(
            "`{}` redirects in circles when asked for {}",
            asked.endpoint.host,
            asked.what()
        ))
        .hint("look at the registry's configuration")
        .into())
    }
}

/// Where an answer sends us on to; never from TLS to plain HTTP.
pub(super) fn location(
    config: &ClientConfig,
    asked: Asked<'_>,
    from: &Url,
    response: &Response,
) -> Result<Url, Failure> {
    let target =
        response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).and_then(|l| from.join(l).ok());
    let host = authority(from);
    let Some(target) = target else {
        return Err(Error::failed(format!("`{host}` redirects to nowhere when asked for {}", asked.what()))
            .hint(format!("check that `{host}` is a registry"))
            .into());
    };
    let plain_is_fine = from.scheme() == "http" && config.may_be_plain(&target);
    if target.scheme() != "https" && !(target.scheme() == "http" && plain_is_fine) {
        return Err(Error::failed(format!(
            "`{host}` redirects to `{}` without TLS when asked for {}",
            authority(&target),
            asked.what()
        ))
        .hint("ask the registry's owner to serve content over TLS")
        .into());
    }
    Ok(target)
}

/// An answer, where one comes in time: within `limit` of the request, or of the last piece of a file that went. `None`:
/// none did.
async fn answered(
    sending: impl Future<Output = reqwest::Result<Response>>,
    payload: &Payload,
    limit: Duration,
) -> Option<reqwest::Result<Response>> {
    let mut sending = std::pin::pin!(sending);
    let Payload::File(upload) = payload else {
        return tokio::time::timeout(limit, sending).await.ok();
    };
    // A registry reads the whole blob once more before it answers.
    let commit = Duration::from_secs(upload.size / COMMIT_RATE);
    let (mut last, mut idle) = (0, Duration::ZERO);
    loop {
        if let Ok(answer) = tokio::time::timeout(limit, &mut sending).await {
            return Some(answer);
        }
        let sent = upload.sent.load(Ordering::Relaxed);
        idle = if sent == last { idle.saturating_add(limit) } else { Duration::ZERO };
        let allowed = if sent == upload.size { limit.saturating_add(commit) } else { limit };
        if sent == last && idle >= allowed {
            return None;
        }
        last = sent;
    }
}

fn certificates(ca: &Ca, host: &str) -> Result<Vec<reqwest::Certificate>> {
    let (pem, name) = match ca {
        Ca::Pem(pem) => (pem.clone(), "given text".to_owned()),
        Ca::File(path) => {
            let pem = read::to_limit(path, LARGEST_CA)?.ok_or_else(|| {
                Error::usage(format!("there is no certificate file `{}` for `{host}`", path.display()))
                    .hint(format!("correct `ca` of registry `{host}`"))
            })?;
            (pem, path.display().to_string())
        }
    };
    let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() {
        return Err(Error::usage(format!("`{name}` holds no certificate, for `{host}`"))
            .hint("give a PEM file, which has `-----BEGIN CERTIFICATE-----` in it"));
    }
    Ok(found)
}

/// Reads the rest of a short answer so that its connection can be used again.
pub(super) async fn discard(response: Response) {
    let _ = short(response).await;
}

/// At most the first 64 KiB of an answer, for what it may say about an error.
pub(super) async fn short(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    let read = async {
        while let Some(Ok(chunk)) = stream.next().await {
            body.extend_from_slice(&chunk);
            if body.len() > 64 << 10 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), read).await;
    body
}

/// Writes a body into `sink` as it comes, never more than `limit` bytes. Returns its digest and length.
pub(super) async fn stream(
    config: &ClientConfig,
    asked: Asked<'_>,
    response: Response,
    limit: u64,
    sink: &mut (dyn Write + Send),
) -> Result<(Digest, u64), Failure> {
    let announced = response.content_length();
    if announced.is_some_and(|length| length > limit) {
        return Err(failure::too_large(asked, limit));
    }
    let host = authority(response.url());
    let mut hasher = Hasher::new();
    let mut got = 0_u64;
    let mut chunks = response.bytes_stream();
    loop {
        let next = tokio::time::timeout(config.stall_timeout, chunks.next());
        let chunk = match next.await {
            Err(_) => return Err(failure::timed_out(&host, &asked.what(), "body")),
            Ok(None) => break,
            Ok(Some(Err(error))) if error.is_timeout() => {
                return Err(failure::timed_out(&host, &asked.what(), "body"));
            }
            Ok(Some(Err(_))) => return Err(failure::truncated(asked, got, announced)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        got += chunk.len() as u64;
        if got > limit {
            return Err(failure::too_large(asked, limit));
        }
        hasher.update(&chunk);
        sink.write_all(&chunk).doing(|| format!("writing {}", asked.what()))?;
    }
    Ok((hasher.finish(), got))
}

/// A body as it comes, each piece within the time limit; and the byte it begins with.
pub(super) fn pieces(
    config: &ClientConfig,
    what: String,
    response: Response,
) -> (u64, BoxStream<'static, Result<Bytes>>) {
    let from = if response.status() == StatusCode::PARTIAL_CONTENT { range_start(&response) } else { 0 };
    let (host, limit) = (authority(response.url()), config.stall_timeout);
    let chunks = response.bytes_stream().boxed();
    let pieces = futures_util::stream::unfold(Some(chunks), move |chunks| {
        let (host, what) = (host.clone(), what.clone());
        async move {
            let mut chunks = chunks?;
            match tokio::time::timeout(limit, chunks.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
                Ok(Some(Err(error))) => {
                    let broken = Err(error).doing(|| format!("`{host}` broke off while it sent {what}"));
                    Some((broken, None))
                }
                Err(_) => Some((Err(failure::timed_out(&host, &what, "body").error), None)),
            }
        }
    });
    (from, pieces.boxed())
}

/// The first byte of an answer with a part (RFC 9110, 14.4): `bytes 5-9/10`. A range nobody asked for counts as one
/// that does not fit.
fn range_start(response: &Response) -> u64 {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
    start.unwrap_or(u64::MAX)
}

/// A whole small body, never more than `limit` bytes and never slower than a few stalls.
pub(super) async fn whole(
    config: &ClientConfig,
    asked: Asked<'_>,
    response: Response,
    limit: u64,
) -> Result<(Vec<u8>, Digest), Failure> {
    let host = authority(response.url());
    let mut body = Vec::new();
    let read = stream(config, asked, response, limit, &mut body);
    // A server that drips never stalls: the whole must end too.
    let (digest, _) = tokio::time::timeout(config.stall_timeout.saturating_mul(2), read)
        .await
        .map_err(|_| failure::timed_out(&host, &asked.what(), "body"))??;
    Ok((body, digest))
}
