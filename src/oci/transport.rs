//! One HTTP exchange: TLS and its authorities, time limits, redirects, bounded bodies.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE},
    redirect::Policy,
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    config::{Ca, ClientConfig, authority, is_loopback},
    failure::{self, Asked, Failure},
    read,
};
use crate::{
    digest::{Digest, Hasher},
    error::{Doing, Error, Result},
};

/// How many redirects are followed; browsers and curl allow more, registries need one.
const MOST_REDIRECTS: usize = 10;
/// The largest certificate file read, in bytes.
const LARGEST_CA: u64 = 4 << 20;

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
    pub(super) form: Option<Zeroizing<String>>,
    /// The first byte that is wanted.
    pub(super) from: u64,
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
            if let Some(form) = &request.form {
                builder = builder
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.as_bytes().to_vec());
            }
            let limit = config.connect_timeout.saturating_add(config.response_timeout);
            let response = tokio::time::timeout(limit, builder.send())
                .await
                .map_err(|_| failure::timed_out(&authority(&request.url), &asked.what(), "answer"))?
                .map_err(|error| failure::no_answer(asked, &request.url, error))?;
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirect || request.form.is_some() {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|l| l.to_str().ok())
                .and_then(|l| request.url.join(l).ok());
            let host = authority(&request.url);
            let Some(target) = target else {
                return Err(Error::failed(format!(
                    "`{host}` redirects to nowhere when asked for {}",
                    asked.what()
                ))
                .hint(format!("check that `{host}` is a registry"))
                .into());
            };
            let plain_is_fine = request.url.scheme() == "http" && config.may_be_plain(&target);
            if target.scheme() != "https" && !(target.scheme() == "http" && plain_is_fine) {
                return Err(Error::failed(format!(
                    "`{host}` redirects to `{}` without TLS when asked for {}",
                    authority(&target),
                    asked.what()
                ))
                .hint("ask the registry's owner to serve content over TLS")
                .into());
            }
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
