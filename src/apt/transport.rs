//! One file from a mirror: TLS and its authorities, time limits, redirects, retries, resumption, bounded bodies.
//! `http:`, `https:` and `file:`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use reqwest::{
    Client, NoProxy, Proxy, Response, StatusCode,
    header::{
        CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
        LAST_MODIFIED, LOCATION, RANGE,
    },
    redirect::Policy,
};
use url::Url;

use super::{
    failure::{self, Again, Failure, Why},
    sources::Proxies,
};
use crate::{
    error::{Doing, Error, Result},
    system::files,
};

/// How many redirects are followed: as many as apt does.
const MOST_REDIRECTS: usize = 10;
/// The largest certificate file read, in bytes.
const LARGEST_CA: u64 = 4 << 20;
/// Bytes of a local file read at once.
const PIECE: usize = 256 << 10;

/// How mirrors are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// PEM files of authorities trusted besides the system's, by host (with port) of the address.
    pub authorities: BTreeMap<String, PathBuf>,
    /// Proxies for all hosts but this machine and those of `no_proxy`; where none is given, the environment's.
    pub proxies: Proxies,
    /// How often a request is made again after 429, 5xx or a lost connection.
    pub retries: u32,
    /// Wait before the first retry; doubles each time.
    pub backoff: Duration,
    /// Longest wait before any one retry. A `Retry-After` beyond it is an error at once.
    pub longest_wait: Duration,
    /// No retry begins later than this after the first try.
    pub give_up_after: Duration,
    /// Time limit for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Time limit from request to response headers.
    pub response_timeout: Duration,
    /// Time limit between two pieces of a body.
    pub stall_timeout: Duration,
    /// A body that was waited for this long must have come at the rate of `slowest` meanwhile, and so on.
    pub slow_after: Duration,
    /// Bytes a second. Several files come at once, and share the line.
    pub slowest: u64,
    /// Who asks is told that a server is silent after this long, and then again at every `notice_every`.
    pub notice_after: Duration,
    /// See `notice_after`.
    pub notice_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            authorities: BTreeMap::new(),
            proxies: Proxies::default(),
            retries: 3,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_mins(1),
            give_up_after: Duration::from_mins(2),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            slow_after: Duration::from_mins(1),
            slowest: 8 << 10,
            notice_after: Duration::from_secs(5),
            notice_every: Duration::from_secs(1),
        }
    }
}

/// What names a version of a file at its server (RFC 9110, 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Validators {
    /// `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

/// Is told how long a server has been silent; `None`: it is no longer.
pub type Waits<'a> = &'a (dyn Fn(Option<Duration>) + Send + Sync);

/// What to ask for besides the address.
#[derive(Clone, Copy, Default)]
pub struct Ask<'a> {
    /// What it is, for messages: ``the release file of `trixie` ``.
    pub what: &'a str,
    /// The byte to go on from.
    pub from: u64,
    /// Go on only if it is still this version (`ETag` or `Last-Modified`); else from its start.
    pub same: Option<&'a str>,
    /// Nothing is sent where it is still this version.
    pub unless: Option<&'a Validators>,
    /// Of a file that is read whole: who is told while nothing comes.
    pub waits: Option<Waits<'a>>,
}

/// An answer.
pub enum Answer {
    /// It is still the version that was named.
    NotModified,
    /// Its content.
    Body(Body),
}

/// An answer whose body is still to be read.
pub struct Body {
    /// The byte it begins with: 0 where the server did not go on from where it was asked to.
    pub from: u64,
    /// Size of the whole file, where the server says it.
    pub total: Option<u64>,
    /// What names this version.
    pub validators: Validators,
    /// The pieces.
    pub pieces: BoxStream<'static, Result<Bytes, Failure>>,
}

impl Validators {
    /// The one for `If-Range`: a strong `ETag`, else `Last-Modified`.
    pub fn strongest(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/")).or(self.modified.as_deref())
    }

    /// True if neither is known.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }

    fn of(headers: &HeaderMap) -> Self {
        let text =
            |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
        Self { etag: text(ETAG), modified: text(LAST_MODIFIED) }
    }
}

/// What differs between connections, so that one `reqwest` client cannot serve all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    /// Reading the platform's authorities takes time and fails on a machine without any.
    tls: bool,
    /// No proxy to the machine itself.
    loopback: bool,
    /// The host whose own authority is trusted, and only for that host.
    authority_of: Option<String>,
}

/// Connections to mirrors.
pub struct Transport {
    settings: Settings,
    clients: Mutex<BTreeMap<Sort, Client>>,
}

impl Transport {
    /// A transport that has no connection yet.
    pub fn new(settings: Settings) -> Self {
        // Fails when something else in the process set a provider first, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { settings, clients: Mutex::default() }
    }

    /// Asks for a file; tries again where that can help. The body is the caller's to read, and to ask for again
    /// where it breaks off.
    ///
    /// # Errors
    /// [`Failure`]: the file is not there, the server cannot be reached, or anything else; each with its message.
    pub async fn open(&self, url: &Url, ask: Ask<'_>) -> Result<Answer, Failure> {
        self.trying(|| self.once(url, ask)).await
    }

    /// A whole file of at most `limit` bytes. A body that breaks off is asked for again.
    ///
    /// # Errors
    /// As [`Transport::open`]; also a larger file.
    pub async fn whole(
        &self,
        url: &Url,
        ask: Ask<'_>,
        limit: u64,
    ) -> Result<Option<(Vec<u8>, Validators)>, Failure> {
        let heard = Mutex::new(Instant::now());
        let work = self.trying(|| async {
            let Answer::Body(body) = self.once(url, ask).await? else { return Ok(None) };
            let validators = body.validators.clone();
            let content = read_whole(url, ask.what, body, limit, &heard).await?;
            Ok(Some((content, validators)))
        });
        match ask.waits {
            Some(waits) => self.telling(&heard, waits, work).await,
            None => work.await,
        }
    }

    /// Does the work, and tells of every silence since the last byte was `heard`.
    async fn telling<T>(&self, heard: &Mutex<Instant>, waits: Waits<'_>, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut told = false;
        loop {
            let done = tokio::time::timeout(self.settings.notice_every, &mut work).await.ok();
            let silent = heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            let waited = done.is_none() && silent >= self.settings.notice_after;
            if waited {
                waits(Some(silent));
            } else if told {
                waits(None);
            }
            told = waited;
            if let Some(done) = done {
                return done;
            }
        }
    }

    async fn trying<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        mut work: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let mut wait = self.settings.backoff;
        let mut tries = 0;
        loop {
            let failure = match work().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            // Another mirror, or a person, helps sooner than a host that is not there or hardly.
            let most = match failure.why {
                Why::Unreachable | Why::Slow => self.settings.retries.min(1),
                _ => self.settings.retries,
            };
            let pause = match failure.again {
                Again::No => return Err(failure),
                Again::Yes => wait,
                Again::After(asked) => asked.max(wait),
            };
            let late = begun.elapsed().saturating_add(pause) > self.settings.give_up_after;
            if tries >= most || pause > self.settings.longest_wait || late {
                return Err(failure);
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            wait = wait.saturating_mul(2);
        }
    }

    async fn once(&self, url: &Url, ask: Ask<'_>) -> Result<Answer, Failure> {
        match url.scheme() {
            "file" => local(url, ask).map(Answer::Body),
            "http" | "https" => self.remote(url, ask).await,
            other => {
                Err(Error::usage(format!("addresses of the kind `{other}:` are not supported: `{url}`"))
                    .hint("give an address that begins with `https://`, `http://` or `file:///`")
                    .into())
            }
        }
    }

    async fn remote(&self, url: &Url, ask: Ask<'_>) -> Result<Answer, Failure> {
        let mut at = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(&at, ask).await?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let target = response
                    .headers()
                    .get(LOCATION)
                    .and_then(|location| location.to_str().ok())
                    .and_then(|location| at.join(location).ok())
                    .ok_or_else(|| failure::redirect(&at, ask.what, "to nowhere"))?;
                match (at.scheme(), target.scheme()) {
                    (_, "https") | ("http", "http") => at = target,
                    ("https", "http") => {
                        return Err(failure::redirect(&at, ask.what, "from https to plain http"));
                    }
                    _ => return Err(failure::redirect(&at, ask.what, "to what is no web address")),
                }
                continue;
            }
            return self.answer(&at, ask, response);
        }
        Err(failure::redirect(url, ask.what, "in circles"))
    }

    async fn send(&self, url: &Url, ask: Ask<'_>) -> Result<Response, Failure> {
        let mut request = self.client(url)?.get(url.clone());
        if let Some(known) = ask.unless {
            if let Some(etag) = &known.etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(modified) = &known.modified {
                request = request.header(IF_MODIFIED_SINCE, modified);
            }
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
            if let Some(same) = ask.same {
                request = request.header(IF_RANGE, same);
            }
        }
        let limit = self.settings.connect_timeout.saturating_add(self.settings.response_timeout);
        tokio::time::timeout(limit, request.send())
            .await
            .map_err(|_| failure::timed_out(url, ask.what, "answer", limit))?
            .map_err(|error| failure::no_answer(url, ask.what, error))
    }

    fn answer(&self, url: &Url, ask: Ask<'_>, response: Response) -> Result<Answer, Failure> {
        let status = response.status();
        let headers = response.headers();
        if status == StatusCode::NOT_MODIFIED && ask.unless.is_some() {
            return Ok(Answer::NotModified);
        }
        let (from, total) = match status {
            StatusCode::OK => (0, response.content_length()),
            StatusCode::PARTIAL_CONTENT if ask.from > 0 => match range(headers) {
                Some((from, total)) if from == ask.from => (from, total),
                _ => return Err(failure::redirect(url, ask.what, "from a byte that was not asked for")),
            },
            // There is nothing from there on: what was there is whole, or of another version. The caller begins anew.
            StatusCode::RANGE_NOT_SATISFIABLE if ask.from > 0 => {
                return Err(Failure {
                    error: failure::status(url, ask.what, status, headers).error,
                    again: Again::No,
                    why: Why::Range,
                });
            }
            _ => return Err(failure::status(url, ask.what, status, headers)),
        };
        let validators = Validators::of(headers);
        let expected = response.content_length();
        let (stall, what, url) = (self.settings.stall_timeout, ask.what.to_owned(), url.clone());
        let pace = Pace {
            slow_after: self.settings.slow_after,
            slowest: self.settings.slowest,
            waited: Duration::ZERO,
            bytes: 0,
        };
        let chunks = Box::pin(response.bytes_stream());
        let pieces = stream::unfold(Some((chunks, 0_u64, pace)), move |state| {
            let (what, url) = (what.clone(), url.clone());
            async move {
                let (mut chunks, got, mut pace) = state?;
                let begun = Instant::now();
                match tokio::time::timeout(stall, chunks.next()).await {
                    Err(_) => Some((Err(failure::timed_out(&url, &what, "body", stall)), None)),
                    Ok(None) if expected.is_some_and(|expected| got < expected) => {
                        Some((Err(failure::cut(&url, &what, got, expected)), None))
                    }
                    Ok(None) => None,
                    Ok(Some(Err(_))) => Some((Err(failure::cut(&url, &what, got, expected)), None)),
                    Ok(Some(Ok(chunk))) => {
                        let size = chunk.len() as u64;
                        if pace.is_slow(begun.elapsed(), size) {
                            return Some((
                                Err(failure::too_slow(&url, &what, pace.bytes, pace.waited)),
                                None,
                            ));
                        }
                        Some((Ok(chunk), Some((chunks, got + size, pace))))
                    }
                }
            }
        });
        Ok(Answer::Body(Body { from, total, validators, pieces: pieces.boxed() }))
    }

    fn client(&self, url: &Url) -> Result<Client> {
        let host = failure::authority(url);
        let tls = url.scheme() == "https";
        let authority = self.settings.authorities.get(&host).filter(|_| tls);
        let sort = Sort { tls, loopback: is_loopback(url), authority_of: authority.map(|_| host.clone()) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&sort) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("bedplate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.settings.connect_timeout)
            .tcp_nodelay(true)
            .referer(false)
            // Followed here, so that TLS is never lost on the way.
            .redirect(Policy::none());
        if sort.loopback {
            builder = builder.no_proxy();
        } else {
            let Proxies { http, https } = &self.settings.proxies;
            let proxies = [
                http.as_ref().map(|url| Proxy::http(url.clone())),
                https.as_ref().map(|url| Proxy::https(url.clone())),
            ];
            for proxy in proxies.into_iter().flatten() {
                let proxy = proxy.doing(|| format!("preparing connections to `{host}`"))?;
                builder = builder.proxy(proxy.no_proxy(NoProxy::from_env()));
            }
        }
        if !tls {
            builder = builder.tls_certs_only([]);
        }
        if let Some(path) = authority {
            let pem = files::read_input(path, LARGEST_CA)?;
            let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if found.is_empty() {
                return Err(Error::usage(format!("`{}` holds no certificate, for `{host}`", path.display()))
                    .hint("give a PEM file, which has `-----BEGIN CERTIFICATE-----` in it"));
            }
            builder = builder.tls_certs_merge(found);
        }
        let client =
            builder.build().doing(|| format!("preparing connections to `{host}`")).map_err(|error| {
                error.hint(
                    "check that this machine has certificate authorities: `apt install ca-certificates`",
                )
            })?;
        clients.insert(sort, client.clone());
        Ok(client)
    }
}

/// How fast a body comes. Only the time that it is waited for counts: who reads it may be slow too.
struct Pace {
    slow_after: Duration,
    slowest: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts a piece; whether too few bytes came in the time that is looked at, after which another begins.
    fn is_slow(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.slow_after {
            return false;
        }
        let least = u128::from(self.slowest) * self.waited.as_millis() / 1000;
        if u128::from(self.bytes) < least {
            return true;
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        false
    }
}

async fn read_whole(
    url: &Url,
    what: &str,
    mut body: Body,
    limit: u64,
    heard: &Mutex<Instant>,
) -> Result<Vec<u8>, Failure> {
    if body.total.is_some_and(|total| total > limit) {
        return Err(failure::too_large(url, what, limit));
    }
    let mut content = Vec::new();
    while let Some(piece) = body.pieces.next().await {
        let piece = piece?;
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if (content.len() + piece.len()) as u64 > limit {
            return Err(failure::too_large(url, what, limit));
        }
        content.extend_from_slice(&piece);
    }
    Ok(content)
}

/// A file of this machine.
fn local(url: &Url, ask: Ask<'_>) -> Result<Body, Failure> {
    use std::io::{Read, Seek, SeekFrom};
    let path = url.to_file_path().map_err(|()| {
        Error::usage(format!("`{url}` is no path of this machine")).hint("write `file:///PATH`")
    })?;
    if !files::exists(&path) {
        return Err(Failure {
            error: Error::failed(format!("`{}` does not exist: {}", path.display(), ask.what)),
            again: Again::No,
            why: Why::Absent,
        });
    }
    let (mut file, size) = files::open_input(&path)?;
    let from = if ask.from <= size { ask.from } else { 0 };
    file.seek(SeekFrom::Start(from)).doing(|| format!("reading `{}`", path.display()))?;
    let pieces = stream::unfold(Some(file), move |file| {
        let path = path.clone();
        async move {
            let mut file = file?;
            let mut piece = vec![0; PIECE];
            match file.read(&mut piece) {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some((Ok(Bytes::from(piece)), Some(file)))
                }
                Err(error) => {
                    let error = Err::<(), _>(error).doing(|| format!("reading `{}`", path.display()));
                    Some((Err(error.unwrap_err().into()), None))
                }
            }
        }
    });
    Ok(Body { from, total: Some(size), validators: Validators::default(), pieces: pieces.boxed() })
}

/// `Content-Range: bytes FROM-TO/TOTAL` (RFC 9110, 14.4).
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (span, total) = text.split_once('/')?;
    let (from, _) = span.split_once('-')?;
    Some((from.trim().parse().ok()?, total.trim().parse().ok()))
}

/// 127.0.0.0/8, `::1` or `localhost`.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The address of `path` below `base`, whether or not the base ends in `/`; every part quoted.
pub fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().extend(path.split('/'));
    }
    url
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
