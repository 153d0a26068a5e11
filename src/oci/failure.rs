//! What can go wrong on the way to a registry: each its own message and hint, and whether trying
//! again can help.

use std::{error::Error as StdError, io, time::Duration};

use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;

use super::{
    config::{Endpoint, authority},
    reference::Reference,
};
use crate::{digest::Digest, error::Error};

/// A failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Again,
    /// No server was reached: the host is not asked again when it is a mirror.
    pub(super) unreachable: bool,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    No,
    /// After a wait of our own choosing.
    Yes,
    /// After the wait the server asks for.
    After(Duration),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: Again::No, unreachable: false }
    }
}

impl Failure {
    fn again(error: Error) -> Self {
        Self { error, again: Again::Yes, unreachable: false }
    }
}

/// What was asked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    Tag(&'a str),
    Manifest(Digest),
    Blob(Digest),
    Token,
    /// A place for this blob.
    Upload(Digest),
    /// A place for a manifest, by digest or tag.
    UploadManifest(&'a str),
}

/// What is to be done in a repository: a token is asked for with that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access<'a> {
    Read,
    /// `from`: a repository of the same registry that blobs are taken over from.
    Write {
        from: Option<&'a str>,
    },
}

/// A request in words: what messages are made of.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) reference: &'a Reference,
    pub(super) wanted: Wanted<'a>,
    pub(super) access: Access<'a>,
}

impl Asked<'_> {
    /// The scopes of a token for it (distribution, "Token Scope Documentation").
    pub(super) fn scopes(&self) -> Vec<String> {
        let repository = self.endpoint.repository(self.reference);
        match self.access {
            Access::Read => vec![format!("repository:{repository}:pull")],
            Access::Write { from } => {
                let own = format!("repository:{repository}:pull,push");
                let other = from.map(|from| format!("repository:{from}:pull"));
                std::iter::once(own).chain(other).collect()
            }
        }
    }

    /// The repository as messages name it: with the host that was really asked.
    pub(super) fn repository(&self) -> String {
        format!("{}/{}", self.endpoint.host, self.endpoint.repository(self.reference))
    }

    /// What was asked for, as messages name it.
    pub(super) fn what(&self) -> String {
        match self.wanted {
            Wanted::Tag(tag) => format!("`{}:{tag}`", self.repository()),
            Wanted::Manifest(digest) => format!("`{}@{digest}`", self.repository()),
            Wanted::Blob(digest) => format!("blob `{digest}` of `{}`", self.repository()),
            Wanted::Token => format!("a token for `{}`", self.repository()),
            Wanted::Upload(digest) => format!("a place for blob `{digest}` in `{}`", self.repository()),
            Wanted::UploadManifest(name) => format!("a place for `{name}` in `{}`", self.repository()),
        }
    }

    pub(super) fn login(&self) -> String {
        login(&self.endpoint.host)
    }
}

/// The command that stores credentials for a registry.
pub(super) fn login(host: &str) -> String {
    if host == "docker.io" { "docker login".to_owned() } else { format!("docker login {host}") }
}

/// What kind of connection failure a cause chain holds.
enum Cause {
    UnknownCa,
    BadCertificate(String),
    NotTls,
    Tls(String),
    Refused,
    Timeout,
    Other(String),
}

/// Finds the telling error in a chain. An `io::Error` hides the error it wraps from `source()`.
fn cause(error: &(dyn StdError + 'static)) -> Cause {
    let mut next = Some(error);
    let mut last = error.to_string();
    while let Some(error) = next {
        last = error.to_string();
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return tls_cause(tls);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return Cause::Refused,
                io::ErrorKind::TimedOut => return Cause::Timeout,
                _ => {}
            }
            if let Some(inner) = io.get_ref() {
                next = Some(inner);
                continue;
            }
        }
        next = error.source();
    }
    Cause::Other(last)
}

fn tls_cause(error: &rustls::Error) -> Cause {
    use rustls::CertificateError as Certificate;
    match error {
        // A bad signature: an authority of the same name is known, with another key.
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            Cause::UnknownCa
        }
        rustls::Error::InvalidCertificate(why) => Cause::BadCertificate(why.to_string()),
        // What a server that does not speak TLS sends looks like a broken record.
        rustls::Error::InvalidMessage(_) => Cause::NotTls,
        other => Cause::Tls(other.to_string()),
    }
}

/// No answer came: the connection failed, or broke before the response headers.
pub(super) fn no_answer(asked: Asked<'_>, url: &url::Url, error: reqwest::Error) -> Failure {
    let host = authority(url);
    // An address a server sent us to may carry a signature in its query.
    let error = error.without_url();
    let unreachable = error.is_connect();
    if error.is_dns() {
        let error = Error::failed(format!("the name of registry `{host}` cannot be resolved"))
            .because(error)
            .hint(format!("check the spelling of `{host}` and this machine's DNS"));
        return Failure { error, again: Again::Yes, unreachable: true };
    }
    let what = asked.what();
    let tried_tls = url.scheme() == "https";
    let (message, hint, again) = match cause(&error) {
        Cause::UnknownCa => (
            format!("the certificate of `{host}` is signed by an authority this machine does not know"),
            format!("give the authority's certificate as `ca` for registry `{host}`"),
            Again::No,
        ),
        Cause::BadCertificate(why) => (
            format!("the certificate of `{host}` is not valid: {why}"),
            format!("renew the certificate of `{host}`, and check this machine's clock"),
            Again::No,
        ),
        Cause::NotTls => (
            format!("`{host}` does not speak TLS on this port"),
            format!("set `plain-http` for registry `{host}` if it is meant to be without TLS"),
            Again::No,
        ),
        Cause::Tls(why) => (
            format!("no secure connection to `{host}`: {why}"),
            format!("check what listens at `{host}`"),
            Again::No,
        ),
        Cause::Refused => (
            format!("`{host}` refused the connection"),
            format!("check that the registry runs and that the port in `{host}` is right"),
            Again::Yes,
        ),
        Cause::Timeout => return timed_out(&host, &what, "connect"),
        Cause::Other(why) if unreachable => (
            format!("no connection to `{host}`: {why}"),
            format!("check the network between this machine and `{host}`"),
            Again::Yes,
        ),
        Cause::Other(why) if error.is_timeout() => return timed_out(&host, &what, &why),
        Cause::Other(why) => (
            format!("`{host}` broke the connection while asked for {what}: {why}"),
            if tried_tls {
                format!("check what listens at `{host}`")
            } else {
                format!("check that a registry listens at `{host}` and that it is meant to be without TLS")
            },
            Again::Yes,
        ),
    };
    Failure { error: Error::failed(message).because(error).hint(hint), again, unreachable }
}

/// The server took longer than allowed, at `stage`.
pub(super) fn timed_out(host: &str, what: &str, stage: &str) -> Failure {
    let message = match stage {
        "answer" => format!("`{host}` did not answer in time when asked for {what}"),
        "body" => format!("`{host}` stopped sending in the middle of {what}"),
        _ => format!("connecting to `{host}` timed out"),
    };
    let error = Error::failed(message).hint(format!("check the load of `{host}` and the network to it"));
    Failure { error, again: Again::Yes, unreachable: stage == "connect" }
}

/// The body ended early.
pub(super) fn truncated(asked: Asked<'_>, got: u64, want: Option<u64>) -> Failure {
    let of = want.map_or_else(String::new, |want| format!(" of {want}"));
    let error = Error::failed(format!(
        "the answer of `{}` was cut short: {got}{of} bytes came of {}",
        asked.endpoint.host,
        asked.what()
    ))
    .hint("try again; if it stays so, look at the registry or a proxy in between");
    Failure::again(error)
}

/// More bytes than such a document may have.
pub(super) fn too_large(asked: Asked<'_>, limit: u64) -> Failure {
    Error::failed(format!(
        "{} from `{}` is too large: more than {limit} bytes",
        asked.what(),
        asked.endpoint.host
    ))
    .hint("no image has such a document; look at what the registry serves")
    .into()
}

/// Content is not what its digest says.
pub(super) fn mismatch(asked: Asked<'_>, want: Digest, got: Digest) -> Failure {
    Error::failed(format!(
        "`{}` sent other content than asked for in `{}`: wanted {want}, got {got}",
        asked.endpoint.host,
        asked.endpoint.repository(asked.reference)
    ))
    .hint("the registry or something in between is broken or lies: do not use this image")
    .into()
}

/// Content could be fetched but not understood. `what` names it.
pub(super) fn malformed(what: &str, why: &serde_json::Error) -> Error {
    Error::failed(format!("{what} is not a manifest or configuration as registries serve them"))
        .because(Error::failed(excerpt(&why.to_string())))
        .hint("check that this address is a registry and not a web page or a login form")
}

/// 401 where there is nothing to log in with.
pub(super) fn login_wanted(asked: Asked<'_>) -> Failure {
    Error::failed(format!(
        "`{}` wants a login for `{}`, or there is no such repository, and there are no credentials for it",
        asked.endpoint.host,
        asked.endpoint.repository(asked.reference)
    ))
    .hint(format!("run `{}`", asked.login()))
    .into()
}

/// 401 in spite of credentials.
pub(super) fn wrong_credentials(asked: Asked<'_>) -> Failure {
    Error::failed(format!("`{}` refused the credentials", asked.endpoint.host))
        .hint(format!("run `{}` with the right ones", asked.login()))
        .into()
}

/// Good credentials without the right to do it.
pub(super) fn forbidden(asked: Asked<'_>, with_credentials: bool) -> Failure {
    let who = if with_credentials { "these credentials" } else { "anyone without a login" };
    let (doing, right) = match asked.access {
        Access::Read => ("read", "read"),
        Access::Write { .. } => ("write to", "write"),
    };
    Error::failed(format!("`{}` does not let {who} {doing} `{}`", asked.endpoint.host, asked.repository()))
        .hint(if with_credentials {
            format!("ask the registry's owner for {right} access, or log in as someone who has it")
        } else {
            format!("run `{}`", asked.login())
        })
        .into()
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize, Default)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A status that is no success (OCI distribution specification, "Error Codes"). `body` is what could
/// be read of the answer's body.
pub(super) fn status(asked: Asked<'_>, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let host = &asked.endpoint.host;
    let entry = serde_json::from_slice::<ErrorBody>(body)
        .ok()
        .and_then(|body| body.errors.into_iter().next())
        .unwrap_or_default();
    let said =
        if entry.message.is_empty() { String::new() } else { format!(": {}", excerpt(&entry.message)) };
    match status {
        // The session of the upload is over: another one can be begun.
        StatusCode::NOT_FOUND if entry.code == "BLOB_UPLOAD_UNKNOWN" => {
            Failure::again(Error::failed(format!("`{host}` lost the upload of {}{said}", asked.what())))
        }
        StatusCode::NOT_FOUND => missing(asked, &entry.code).into(),
        StatusCode::METHOD_NOT_ALLOWED if matches!(asked.access, Access::Write { .. }) => {
            Error::failed(format!("`{host}` takes no images{said}"))
                .hint("it is read-only, or a mirror of another registry: push to that one")
                .into()
        }
        StatusCode::PAYLOAD_TOO_LARGE => Error::failed(format!(
            "`{host}` refused as too large what was sent for {}{said}",
            asked.what()
        ))
        .hint("raise the limit of the registry, or of a proxy in front of it (nginx: `client_max_body_size`)")
        .into(),
        StatusCode::TOO_MANY_REQUESTS => {
            let wait = retry_after(headers);
            let until = wait.map_or_else(String::new, |wait| {
                let at = httpdate::fmt_http_date(std::time::SystemTime::now() + wait);
                format!(", for another {} s, until {at}", wait.as_secs())
            });
            let error = Error::failed(format!("`{host}` limits how often it may be asked{until}{said}"))
                .hint(format!("run `{}` for a higher limit, or set a mirror for `{host}`", asked.login()));
            Failure { error, again: wait.map_or(Again::Yes, Again::After), unreachable: false }
        }
        status if status.is_server_error() => {
            let error =
                Error::failed(format!("`{host}` answered {status} when asked for {}{said}", asked.what()))
                    .hint(format!("try again later, or ask the owner of `{host}`"));
            Failure {
                error,
                again: retry_after(headers).map_or(Again::Yes, Again::After),
                unreachable: false,
            }
        }
        // Go's server, which most registries are built on, says so in plain text.
        StatusCode::BAD_REQUEST if body.windows(12).any(|w| w == b"HTTPS server") => {
            Error::failed(format!("`{host}` wants TLS, and was spoken to without"))
                .hint(format!("give `ca` for registry `{host}`, or set `plain-http = false` for it"))
                .into()
        }
        _ => Error::failed(format!("`{host}` answered {status} when asked for {}{said}", asked.what()))
            .hint(format!("check that `{host}` is a registry"))
            .into(),
    }
}

fn missing(asked: Asked<'_>, code: &str) -> Error {
    let host = &asked.endpoint.host;
    let repository = asked.endpoint.repository(asked.reference);
    let list = format!("list what there is with `skopeo list-tags docker://{}`", asked.repository());
    match (asked.wanted, code) {
        (Wanted::Upload(_) | Wanted::UploadManifest(_), _) => Error::failed(format!(
            "`{host}` has no repository `{repository}` that could be pushed to"
        ))
        .hint("check the spelling; some registries want the repository or its project to be made first"),
        (_, "NAME_UNKNOWN") => Error::failed(format!("`{host}` has no repository `{repository}`"))
            .hint("check the spelling of the repository"),
        (Wanted::Tag(tag), "MANIFEST_UNKNOWN") => {
            Error::failed(format!("`{host}/{repository}` has no tag `{tag}`")).hint(list)
        }
        (Wanted::Tag(tag), _) => {
            Error::failed(format!("`{host}` has no repository `{repository}`, or it has no tag `{tag}`"))
                .hint(list)
        }
        (Wanted::Manifest(digest) | Wanted::Blob(digest), _) => {
            Error::failed(format!("`{host}/{repository}` has no content with digest {digest}"))
                .hint("it was deleted, or never there: name a tag or another digest")
        }
        (Wanted::Token, _) => Error::failed(format!("`{host}` names a token server that does not exist"))
            .hint(format!("check that `{host}` is a registry")),
    }
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(30 * 24 * 3600)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

/// What a server said, safe to print: one line, no control characters, not too long.
pub(super) fn excerpt(text: &str) -> String {
    let text: String = text.chars().take(160).collect();
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let with = |value: &str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(retry_after(&with("7")), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = retry_after(&with(&date)).unwrap().as_secs();
        assert!((97..=100).contains(&wait), "{wait}");
        assert_eq!(retry_after(&with("Sun, 06 Nov 1994 08:49:37 GMT")), Some(Duration::ZERO));
        assert_eq!(retry_after(&with("soon")), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
        assert!(retry_after(&with("99999999999999")).unwrap() < Duration::from_secs(1 << 30));
    }

    #[test]
    fn each_status_says_its_own() {
        let config = super::super::config::ClientConfig::default();
        let reference: Reference = "r.example/a/b:1".parse().unwrap();
        let endpoint = &config.endpoints(&reference).unwrap()[0];
        let tag = Wanted::Tag("1");
        let digest = Digest::of("x");
        let body = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"m\u001b[31m"}}]}}"#);
        for (wanted, code, text, says) in [
            (tag, 404, body("MANIFEST_UNKNOWN"), "`r.example/a/b` has no tag `1`"),
            (tag, 404, body("NAME_UNKNOWN"), "`r.example` has no repository `a/b`"),
            (tag, 404, String::new(), "or it has no tag `1`"),
            (Wanted::Manifest(digest), 404, body("MANIFEST_UNKNOWN"), "no content with digest sha256:"),
            (Wanted::Blob(digest), 404, "<html>".to_owned(), "no content with digest sha256:"),
            (tag, 429, body("TOOMANYREQUESTS"), "limits how often"),
            (tag, 503, body("UNAVAILABLE"), "answered 503 Service Unavailable"),
            (tag, 418, String::new(), "answered 418"),
            (tag, 400, "Client sent an HTTP request to an HTTPS server.".to_owned(), "wants TLS"),
        ] {
            let asked = Asked { endpoint, reference: &reference, wanted, access: Access::Read };
            let code = StatusCode::from_u16(code).unwrap();
            let failure = status(asked, code, &HeaderMap::new(), text.as_bytes());
            assert!(failure.error.message().contains(says), "{}", failure.error.message());
            assert!(!failure.error.message().contains('\u{1b}'));
            assert!(!failure.error.hints().is_empty());
            let transient = code == StatusCode::TOO_MANY_REQUESTS || code.is_server_error();
            assert_eq!(failure.again == Again::Yes, transient);
        }
    }
}
