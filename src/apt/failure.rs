//! What can go wrong on the way to a mirror: each its own message and hint, and whether trying again can help.

use std::{error::Error as StdError, io, time::Duration};

use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use url::Url;

use crate::error::Error;

/// A failed try.
#[derive(Debug)]
pub struct Failure {
    /// What is said.
    pub error: Error,
    /// Whether trying again can help.
    pub again: Again,
    /// What sort of failure it is.
    pub why: Why,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It cannot.
    No,
    /// After a wait of our own choosing.
    Yes,
    /// After the wait the server asks for.
    After(Duration),
}

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The server answers, and does not have it.
    Absent,
    /// The server cannot be reached or does not answer.
    Unreachable,
    /// The server answers, and then sends nothing more, or next to nothing.
    Slow,
    /// There is nothing from the byte on that was asked for.
    Range,
    /// Anything else.
    Other,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: Again::No, why: Why::Other }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

fn again(error: Error) -> Failure {
    Failure { error, again: Again::Yes, why: Why::Other }
}

/// Host with port, without the scheme's default port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An address without what may be a secret: no user, password or query.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
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
    use rustls::CertificateError as Certificate;
    let mut next = Some(error);
    let mut last = error.to_string();
    while let Some(error) = next {
        last = error.to_string();
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return match tls {
                // A bad signature: an authority of the same name is known, with another key.
                rustls::Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
                    Cause::UnknownCa
                }
                rustls::Error::InvalidCertificate(why) => Cause::BadCertificate(why.to_string()),
                // What a server that does not speak TLS sends looks like a broken record.
                rustls::Error::InvalidMessage(_) => Cause::NotTls,
                other => Cause::Tls(other.to_string()),
            };
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

/// No answer came: the connection failed, or broke before the response headers.
pub(super) fn no_answer(url: &Url, what: &str, error: reqwest::Error) -> Failure {
    let host = authority(url);
    // An address a server sent us to may carry a signature in its query.
    let error = error.without_url();
    let unreachable = error.is_connect();
    if error.is_dns() {
        let error = Error::failed(format!("the name of the mirror `{host}` cannot be resolved"))
            .because(error)
            .hint(format!("check the spelling of `{host}` and this machine's DNS"));
        return Failure { error, again: Again::Yes, why: Why::Unreachable };
    }
    let (message, hint, again) = match cause(&error) {
        Cause::UnknownCa => (
            format!("the certificate of `{host}` is signed by an authority this machine does not know"),
            "give its PEM file as `ca` of `[archive.NAME]` in the configuration file".to_owned(),
            Again::No,
        ),
        Cause::BadCertificate(why) => (
            format!("the certificate of `{host}` is not good: {why}"),
            format!("check the name in the mirror's address, and this machine's clock; see `{host}`'s certificate"),
            Again::No,
        ),
        Cause::NotTls => (
            format!("`{host}` does not speak TLS on this port"),
            "write `http://` in the mirror's address if it is meant to be without TLS: what it serves is signed"
                .to_owned(),
            Again::No,
        ),
        Cause::Tls(why) => {
            (format!("no secure connection to `{host}`: {why}"), format!("check what listens at `{host}`"), Again::No)
        }
        Cause::Refused => (
            format!("`{host}` refused the connection"),
            format!("check that the mirror runs and that the port in `{host}` is right"),
            Again::Yes,
        ),
        Cause::Timeout => return timed_out(url, what, "connect", Duration::ZERO),
        Cause::Other(why) if unreachable => (
            format!("no connection to `{host}`: {why}"),
            format!("check the network between this machine and `{host}`"),
            Again::Yes,
        ),
        Cause::Other(why) if error.is_timeout() => return timed_out(url, what, &why, Duration::ZERO),
        Cause::Other(why) => (
            format!("`{host}` broke the connection while asked for {what}: {why}"),
            format!("check what listens at `{host}`"),
            Again::Yes,
        ),
    };
    let why = if unreachable { Why::Unreachable } else { Why::Other };
    Failure { error: Error::failed(message).because(error).hint(hint), again, why }
}

/// The server took longer than allowed, at `stage`.
pub(super) fn timed_out(url: &Url, what: &str, stage: &str, limit: Duration) -> Failure {
    let (host, seconds) = (authority(url), limit.as_secs().max(1));
    let message = match stage {
        "answer" => {
            format!("`{host}` did not answer in time when asked for {what}: nothing came for {seconds} s")
        }
        "body" => format!("`{host}` stopped sending in the middle of {what}: nothing came for {seconds} s"),
        _ => format!("connecting to `{host}` timed out"),
    };
    let why = if stage == "body" { Why::Slow } else { Why::Unreachable };
    Failure { error: Error::failed(message).hint(elsewhere(&host)), again: Again::Yes, why }
}

/// Too few bytes came in the time that was waited for them.
pub(super) fn too_slow(url: &Url, what: &str, bytes: u64, waited: Duration) -> Failure {
    let host = authority(url);
    let error = Error::failed(format!(
        "`{host}` is too slow: {bytes} bytes came of {what} in {} s",
        waited.as_secs().max(1)
    ));
    Failure { error: error.hint(elsewhere(&host)), again: Again::Yes, why: Why::Slow }
}

/// What helps where a host is silent or slow.
fn elsewhere(host: &str) -> String {
    format!(
        "look at the load of `{host}` and the network to it, or use another mirror: `--mirror URL`, or `mirrors` of \
         `[archive.NAME]` in the configuration file, whose `timeout-seconds` says how long to wait"
    )
}

/// The body ended early.
pub(super) fn cut(url: &Url, what: &str, got: u64, of: Option<u64>) -> Failure {
    let of = of.map_or_else(String::new, |of| format!(" of {of}"));
    again(
        Error::failed(format!(
            "the answer of `{}` was cut short: {got}{of} bytes came of {what}",
            authority(url)
        ))
        .hint("try again; if it stays so, look at the mirror or a proxy in between"),
    )
}

/// More bytes than it may have.
pub(super) fn too_large(url: &Url, what: &str, limit: u64) -> Failure {
    Error::failed(format!("{what} from `{}` is too large: more than {limit} bytes", authority(url)))
        .hint("look at what the mirror serves, or use another")
        .into()
}

/// The server sends us somewhere we do not go.
pub(super) fn redirect(url: &Url, what: &str, where_to: &str) -> Failure {
    Error::failed(format!("`{}` redirects {where_to} when asked for {what}", authority(url)))
        .hint("ask the mirror's owner, or use another mirror: `--mirror URL`")
        .into()
}

/// A status that is no success.
pub(super) fn status(url: &Url, what: &str, status: StatusCode, headers: &HeaderMap) -> Failure {
    let (host, shown) = (authority(url), shown(url));
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Failure {
            error: Error::failed(format!("`{host}` does not have {what}: `{shown}` answers {status}"))
                .hint("check the mirror's address and the suite, or use another mirror: `--mirror URL`"),
            again: Again::No,
            why: Why::Absent,
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::failed(format!(
            "`{host}` does not let this machine read {what}: `{shown}` answers {status}"
        ))
        .hint("use a mirror that is open, or ask the mirror's owner for access")
        .into(),
        status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
            let wait = retry_after(headers);
            let later =
                wait.map_or_else(String::new, |wait| format!(", and asks to wait {} s", wait.as_secs()));
            Failure {
                error: Error::failed(format!("`{host}` answered {status} when asked for {what}{later}"))
                    .hint("try again later, or use another mirror: `--mirror URL`"),
                again: wait.map_or(Again::Yes, Again::After),
                why: Why::Other,
            }
        }
        _ => Error::failed(format!("`{host}` answered {status} when asked for {what}: `{shown}`"))
            .hint("check that the address is that of a mirror")
            .into(),
    }
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(30 * 24 * 3600)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}
