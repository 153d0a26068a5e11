//! Asking registries: who is asked, logging in, trying again.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{
    Method, Response, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::sync::OnceCell;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    challenge::{self, Scheme},
    config::{ClientConfig, Endpoint},
    credentials::{self, Credentials, Helpers},
    failure::{self, Access, Again, Asked, Failure, Wanted},
    manifest::{ACCEPT, LARGEST_MANIFEST},
    reference::Reference,
    transport::{self, Payload, Request, Transport},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// The largest answer of a token server read, in bytes.
const LARGEST_TOKEN: u64 = 1 << 20;
/// How long a token without `expires_in` holds (distribution, "Token Authentication Specification").
const TOKEN_LIFE: u64 = 60;

/// All registries of a run, and what was learnt of each.
pub(super) struct Registries {
    pub(super) config: ClientConfig,
    transport: Transport,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What was learnt of one host.
#[derive(Default)]
struct Host {
    scheme: Mutex<Option<Scheme>>,
    credentials: OnceCell<Result<Option<Credentials>, Reported>>,
    /// By scopes. The lock is held while a token is fetched, so that it is fetched once.
    tokens: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Token>>>>>,
    /// A mirror that could not be reached is not asked again.
    down: AtomicBool,
}

struct Token {
    header: HeaderValue,
    until: Instant,
}

/// An error that is kept and given to everyone who asks.
#[derive(Clone)]
struct Reported {
    message: String,
    hints: Vec<String>,
}

/// What to do at an endpoint.
#[derive(Clone, Copy)]
pub(super) enum Job {
    /// Only the digest: one HEAD.
    Head,
    /// The whole document, never more bytes than this.
    Whole(u64),
    /// An answer whose body is still to be read, from this byte on where the host can do that.
    Open(u64),
}

/// What came of it.
pub(super) enum Answer {
    Head(Option<Digest>),
    Whole(Vec<u8>, Digest),
    Open(Box<(Response, Endpoint)>),
}

impl Registries {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self { config, transport: Transport::new(), hosts: Mutex::default() }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.entry(name.to_owned()).or_default().clone()
    }

    /// Credentials for a host, looked up once in a run.
    pub(super) async fn credentials(&self, host: &str) -> Result<Option<Credentials>> {
        let state = self.host(host);
        let found = state.credentials.get_or_init(|| async {
            let Some(dir) = &self.config.docker_config else { return Ok(None) };
            let limit = self.config.helper_timeout;
            let helpers = Helpers { path: self.config.helper_path.as_deref(), limit };
            credentials::look_up(dir, host, helpers).await.map_err(|error| {
                let mut message = error.message().to_owned();
                for cause in error.causes() {
                    message = format!("{message}: {cause}");
                }
                Reported { message, hints: error.hints().into_iter().map(str::to_owned).collect() }
            })
        });
        found
            .await
            .clone()
            .map_err(|reported| reported.hints.into_iter().fold(Error::failed(reported.message), Error::hint))
    }

    /// What a tag or digest names: `HEAD` without reading it, else the whole manifest.
    pub(super) async fn manifest(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
        head: bool,
    ) -> Result<Answer> {
        let wanted = match (digest, reference.tag()) {
            (Some(digest), _) => Wanted::Manifest(digest),
            (None, tag) => Wanted::Tag(tag.unwrap_or("latest")),
        };
        let job = if head { Job::Head } else { Job::Whole(LARGEST_MANIFEST) };
        self.ask(reference, wanted, job).await
    }

    /// Asks the mirrors in order, then the registry. Only the registry's failure counts; the mirrors' are
    /// attached to it.
    pub(super) async fn ask(&self, reference: &Reference, wanted: Wanted<'_>, job: Job) -> Result<Answer> {
        let mut missed = Vec::new();
        for endpoint in self.config.endpoints(reference)? {
            let asked = Asked { endpoint: &endpoint, reference, wanted, access: Access::Read };
            if !endpoint.mirror {
                let answer = self.persist(&endpoint.host, || self.once(asked, job)).await;
                return answer.map_err(|error| error.and(missed));
            }
            let host = self.host(&endpoint.host);
            if host.down.load(Ordering::Relaxed) {
                continue;
            }
            match self.once(asked, job).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    tracing::warn!(mirror = endpoint.host, "mirror passed over: {}", failure.error);
                    if failure.unreachable {
                        host.down.store(true, Ordering::Relaxed);
                    }
                    missed.push(failure.error);
                }
            }
        }
        Err(Error::failed(format!("there is nowhere to ask for `{reference}`")))
    }

    /// Tries until it works, cannot work, or took too long.
    pub(super) async fn persist<T, F>(&self, host: &str, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = 0;
        let mut failed = None;
        loop {
            let failure = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            // What failed may have taken long by itself: a large blob.
            let started = *failed.get_or_insert_with(Instant::now);
            let wait = match failure.again {
                Again::No => return Err(failure.error),
                Again::Yes => backoff(&self.config, tries),
                // Never before it is asked for, and not all at the same instant.
                Again::After(wait) => wait + backoff(&self.config, 0) / 4,
            };
            tries += 1;
            let too_late = started.elapsed() + wait > self.config.give_up_after;
            if tries > self.config.retries || wait > self.config.longest_wait || too_late {
                return Err(failure.error);
            }
            tracing::debug!(host, ?wait, "trying again: {}", failure.error);
            tokio::time::sleep(wait).await;
        }
    }

    /// One try at one endpoint.
    async fn once(&self, asked: Asked<'_>, job: Job) -> Result<Answer, Failure> {
        let (kind, name, accept) = match asked.wanted {
            Wanted::Tag(tag) => ("manifests", tag.to_owned(), ACCEPT),
            Wanted::Manifest(digest) => ("manifests", digest.to_string(), ACCEPT),
            Wanted::Blob(digest) => ("blobs", digest.to_string(), "*/*"),
            Wanted::Token | Wanted::Upload(_) | Wanted::UploadManifest(_) => {
                return Err(Error::failed("that is nothing to fetch").into());
            }
        };
        let method = if matches!(job, Job::Head) { Method::HEAD } else { Method::GET };
        let url = asked.endpoint.url(asked.reference, kind, &name);
        let from = if let Job::Open(from) = job { from } else { 0 };
        let request = Request { method, url, accept, authorization: None, payload: Payload::Nothing, from };
        let response = self.authorised(asked, request).await?;
        let named = header_digest(response.headers());
        match job {
            Job::Head => {
                if let (Wanted::Manifest(want), Some(got)) = (asked.wanted, named)
                    && want != got
                {
                    return Err(failure::mismatch(asked, want, got));
                }
                Ok(Answer::Head(named))
            }
            Job::Open(_) => Ok(Answer::Open(Box::new((response, asked.endpoint.clone())))),
            Job::Whole(limit) => {
                let (body, got) = transport::whole(&self.config, asked, response, limit).await?;
                let want = match asked.wanted {
                    Wanted::Manifest(digest) | Wanted::Blob(digest) => Some(digest),
                    _ => named,
                };
                if let Some(want) = want
                    && want != got
                {
                    return Err(failure::mismatch(asked, want, got));
                }
                // No digest vouches for what a tag names, so that a mirror's login page must be found out here.
                if matches!(asked.wanted, Wanted::Tag(_)) {
                    serde_json::from_slice::<serde::de::IgnoredAny>(&body)
                        .map_err(|why| failure::malformed(&asked.what(), &why))?;
                }
                Ok(Answer::Whole(body, got))
            }
        }
    }

    /// Makes a request, logging in where the host asks for it. Any answer but a success is a failure.
    pub(super) async fn authorised(&self, asked: Asked<'_>, request: Request) -> Result<Response, Failure> {
        let response = self.answered(asked, request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = transport::short(response).await;
        Err(failure::status(asked, status, &headers, &body))
    }

    /// Makes a request, logging in where the host asks for it. That it does not let us in is a failure; any other answer
    /// is given. Elsewhere than at the host itself, nobody logs in.
    pub(super) async fn answered(&self, asked: Asked<'_>, mut request: Request) -> Result<Response, Failure> {
        if request.url.origin() != asked.endpoint.base.origin() {
            return self.transport.send(&self.config, asked, request).await;
        }
        let host = self.host(&asked.endpoint.host);
        let first = self.authorization(&host, asked, None, false).await?;
        request.authorization.clone_from(&first);
        let mut response = self.transport.send(&self.config, asked, request.clone()).await?;
        let own = |response: &Response| response.url().origin() == request.url.origin();
        if response.status() == StatusCode::UNAUTHORIZED && own(&response) {
            let Some(scheme) = challenge::scheme(response.headers()) else {
                return Err(Error::failed(format!(
                    "`{}` wants a login of a kind that is not supported",
                    asked.endpoint.host
                ))
                .hint("basic authentication and bearer tokens are")
                .into());
            };
            transport::discard(response).await;
            if scheme == Scheme::Basic && first.is_some() {
                return Err(failure::wrong_credentials(asked));
            }
            *host.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme.clone());
            request.authorization = self.authorization(&host, asked, first.as_ref(), true).await?;
            response = self.transport.send(&self.config, asked, request.clone()).await?;
            if response.status() == StatusCode::UNAUTHORIZED && own(&response) {
                let known = self.credentials(&asked.endpoint.host).await?.is_some();
                transport::discard(response).await;
                return Err(match scheme {
                    _ if !known => failure::login_wanted(asked),
                    Scheme::Basic => failure::wrong_credentials(asked),
                    // The token server took the credentials; the token does not reach this repository.
                    Scheme::Bearer { .. } => failure::forbidden(asked, true),
                });
            }
        }
        if response.status() == StatusCode::FORBIDDEN && own(&response) {
            transport::discard(response).await;
            let known = self.credentials(&asked.endpoint.host).await?.is_some();
            return Err(failure::forbidden(asked, known));
        }
        Ok(response)
    }

    /// The `Authorization` for a request, as far as it is known. `used` is one the host just refused;
    /// `challenged` says that it wants one.
    async fn authorization(
        &self,
        host: &Host,
        asked: Asked<'_>,
        used: Option<&HeaderValue>,
        challenged: bool,
    ) -> Result<Option<HeaderValue>, Failure> {
        let scheme = host.scheme.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match scheme {
            None => Ok(None),
            Some(Scheme::Basic) => match self.credentials(&asked.endpoint.host).await? {
                Some(credentials) => match credentials.basic() {
                    Some(basic) => Ok(Some(secret_header(asked, &basic)?)),
                    None => Err(failure::wrong_credentials(asked)),
                },
                None if challenged => Err(failure::login_wanted(asked)),
                None => Ok(None),
            },
            Some(Scheme::Bearer { realm, service }) => {
                let slot = {
                    let mut tokens = host.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.entry(asked.scopes().join(" ")).or_default().clone()
                };
                let mut slot = slot.lock().await;
                if let Some(token) = slot.as_ref()
                    && token.until > Instant::now()
                    && used != Some(&token.header)
                {
                    return Ok(Some(token.header.clone()));
                }
                let token = self.fetch_token(asked, &realm, service.as_deref()).await?;
                let header = token.header.clone();
                *slot = Some(token);
                Ok(Some(header))
            }
        }
    }

    /// Asks the token server (distribution, "Token Authentication" and "OAuth2 Token Authentication").
    async fn fetch_token(
        &self,
        asked: Asked<'_>,
        realm: &str,
        service: Option<&str>,
    ) -> Result<Token, Failure> {
        let asked = Asked { wanted: Wanted::Token, ..asked };
        let host = &asked.endpoint.host;
        let bad_realm = || {
            Error::failed(format!("`{host}` names a token server that cannot be trusted with a login"))
                .hint("a token server must be reached over TLS")
        };
        let mut url = Url::parse(realm).map_err(|_| bad_realm())?;
        let base = &asked.endpoint.base;
        let same_host = base.scheme() == "http" && base.host() == url.host();
        let plain = url.scheme() == "http" && (same_host || self.config.may_be_plain(&url));
        if url.scheme() != "https" && !plain {
            return Err(bad_realm().into());
        }
        let credentials = self.credentials(host).await?;
        let scopes = asked.scopes();
        let mut request = Request {
            method: Method::GET,
            url: url.clone(),
            accept: "application/json",
            authorization: None,
            payload: Payload::Nothing,
            from: 0,
        };
        if let Some(Credentials::IdentityToken(token)) = &credentials {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .append_pair("service", service.unwrap_or_default())
                .append_pair("client_id", "bedplate")
                .append_pair("scope", &scopes.join(" "))
                .append_pair("refresh_token", token.expose_secret());
            request.method = Method::POST;
            request.payload = Payload::Form(Zeroizing::new(form.finish()));
        } else {
            if let Some(service) = service {
                url.query_pairs_mut().append_pair("service", service);
            }
            for scope in &scopes {
                url.query_pairs_mut().append_pair("scope", scope);
            }
            request.url = url;
            if let Some(basic) = credentials.as_ref().and_then(Credentials::basic) {
                request.authorization = Some(secret_header(asked, &basic)?);
            }
        }
        let response = self.transport.send(&self.config, asked, request).await?;
        let status = response.status();
        if matches!(status.as_u16(), 400 | 401 | 403) {
            transport::discard(response).await;
            return Err(match credentials {
                Some(_) => failure::wrong_credentials(asked),
                None => failure::login_wanted(asked),
            });
        }
        if !status.is_success() {
            let headers = response.headers().clone();
            let body = transport::short(response).await;
            return Err(failure::status(asked, status, &headers, &body));
        }
        let (body, _) = transport::whole(&self.config, asked, response, LARGEST_TOKEN).await?;
        let body = Zeroizing::new(body);
        // The cause is left out: it may quote the token.
        let answer: Option<TokenAnswer> = serde_json::from_slice(&body).ok();
        let life = answer.as_ref().and_then(|a| a.expires_in).unwrap_or(TOKEN_LIFE).min(24 * 3600);
        let token = answer.and_then(|a| a.token.or(a.access_token)).filter(|token| !token.is_empty());
        let Some(token) = token else {
            return Err(Error::failed(format!("the token server of `{host}` sent no token"))
                .hint(format!("ask the owner of `{host}`"))
                .into());
        };
        let token = Zeroizing::new(token);
        let bearer = Zeroizing::new(format!("Bearer {}", *token));
        // A tenth of its life is left for the request it is used in.
        let until = Instant::now() + Duration::from_secs(life) * 9 / 10;
        Ok(Token { header: secret_header(asked, &bearer)?, until })
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn secret_header(asked: Asked<'_>, text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::failed(format!(
            "the credentials for `{}` hold characters that HTTP cannot carry",
            asked.endpoint.host
        ))
        .hint(format!("run `{}` again", asked.login()))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

pub(super) fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Exponential, with jitter between half and the whole, so that many clients do not come back at once.
fn backoff(config: &ClientConfig, tries: u32) -> Duration {
    let whole = config.backoff.saturating_mul(1 << tries.min(16)).min(config.longest_wait);
    let random = RandomState::new().hash_one(tries) % 1000;
    whole / 2 + (whole / 2).mul_f64(random as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_is_capped() {
        let config = ClientConfig::default();
        for (tries, most) in [(0, 500), (1, 1000), (3, 4000), (20, 60_000)] {
            let wait = backoff(&config, tries);
            let most = Duration::from_millis(most);
            assert!(wait >= most / 2 && wait <= most, "{tries}: {wait:?}");
        }
    }
}
