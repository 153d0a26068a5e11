//! How registries are reached: plain data the caller makes, and the endpoints that follow from it.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use url::Url;

use super::reference::Reference;
use crate::error::{Error, Result};

/// Where Docker Hub's API is: `docker.io` itself serves web pages.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A certificate authority to trust beside the platform's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ca {
    /// A PEM file.
    File(PathBuf),
    /// PEM text.
    Pem(Vec<u8>),
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Tried in order before the registry itself: `https://HOST[:PORT][/PREFIX]`, `http://…` where plain
    /// HTTP is meant, or a bare host. What they answer is verified, and any failure falls through.
    pub mirrors: Vec<String>,
    /// Trusted for this host beside the platform's own authorities.
    pub ca: Option<Ca>,
    /// `Some(true)`: plain HTTP. `Some(false)`: HTTPS even on loopback. `None`: HTTPS, except on
    /// loopback without a `ca`.
    pub plain_http: Option<bool>,
}

/// How registries are reached. The library reads no environment for it, except that `reqwest` takes
/// the system's proxy settings (never for loopback) and `SSL_CERT_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// By host with port, as references and mirrors write it: `docker.io`, `127.0.0.1:5000`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// The directory of Docker's `config.json` (`DOCKER_CONFIG`, else `~/.docker`). `None`: no credentials.
    pub docker_config: Option<PathBuf>,
    /// How many images are worked on at once.
    pub concurrency: usize,
    /// How many times a request is made again after 429, 5xx or a lost connection.
    pub retries: u32,
    /// Wait before the first retry; doubles each time, with jitter.
    pub backoff: Duration,
    /// Longest wait before any one retry. A `Retry-After` beyond it is an error at once.
    pub longest_wait: Duration,
    /// No retry starts later than this after the first failure.
    pub give_up_after: Duration,
    /// Time limit for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Time limit from request to response headers.
    pub response_timeout: Duration,
    /// Time limit between two pieces of a body.
    pub stall_timeout: Duration,
    /// Where credential helpers are looked for, in `PATH`'s form. `None`: the process's own `PATH`.
    pub helper_path: Option<String>,
    /// Time limit for a credential helper.
    pub helper_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            docker_config: None,
            concurrency: 64,
            retries: 4,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_mins(1),
            give_up_after: Duration::from_mins(2),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            helper_path: None,
            helper_timeout: Duration::from_secs(30),
        }
    }
}

/// One host that may have the image: a mirror, or the registry itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Key of configuration, credentials and tokens: host with port as written.
    pub(super) host: String,
    /// `https://host:port/v2/`, with the mirror's prefix after it.
    pub(super) base: Url,
    /// Prefix of repositories on a mirror (`proxy/`), else empty.
    pub(super) prefix: String,
    pub(super) mirror: bool,
}

impl Endpoint {
    /// The repository's name here, which is what token scopes name.
    pub(super) fn repository(&self, reference: &Reference) -> String {
        format!("{}{}", self.prefix, reference.repository())
    }

    /// `…/v2/REPOSITORY/KIND/NAME`.
    pub(super) fn url(&self, reference: &Reference, kind: &str, name: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{name}", self.repository(reference)));
        url
    }
}

impl ClientConfig {
    /// Mirrors in order, then the registry itself.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let registry = reference.registry();
        let mut endpoints = Vec::new();
        for mirror in self.registries.get(registry).map_or(&[][..], |r| &r.mirrors) {
            endpoints.push(self.mirror(mirror).ok_or_else(|| {
                Error::usage(format!("mirror `{}` of `{registry}` is not an address", mirror.escape_debug()))
                    .hint("write `https://HOST[:PORT][/PREFIX]`")
            })?);
        }
        let api = if registry == "docker.io" { DOCKER_HUB_API } else { registry };
        let scheme = if self.plain_http(registry) { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{api}/v2/"))
            .map_err(|_| Error::usage(format!("registry `{registry}` is not a host")))?;
        endpoints.push(Endpoint { host: registry.to_owned(), base, prefix: String::new(), mirror: false });
        Ok(endpoints)
    }

    fn mirror(&self, text: &str) -> Option<Endpoint> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            Some(_) => return None,
            None => (if self.plain_http(text.split('/').next()?) { "http" } else { "https" }, text),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        if host.is_empty()
            || host.contains(['@', '?', '#'])
            || !prefix.bytes().all(fits)
            || prefix.split('/').any(|p| p == "..")
        {
            return None;
        }
        let base = Url::parse(&format!("{scheme}://{host}/v2/")).ok()?;
        base.host_str()?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Some(Endpoint { host: host.to_owned(), base, prefix, mirror: true })
    }

    /// Whether `host` (with port) is spoken to without TLS.
    pub(super) fn plain_http(&self, host: &str) -> bool {
        let config = self.registries.get(host);
        config.and_then(|c| c.plain_http).unwrap_or_else(|| {
            config.is_none_or(|c| c.ca.is_none())
                && Url::parse(&format!("http://{host}/")).is_ok_and(|u| is_loopback(&u))
        })
    }

    /// Whether an address a server sent us to may be plain HTTP.
    pub(super) fn may_be_plain(&self, url: &Url) -> bool {
        is_loopback(url) || self.registries.get(&authority(url)).is_some_and(|c| c.plain_http == Some(true))
    }
}

/// Host with port as a reference writes it: without the scheme's default port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// 127.0.0.0/8, `::1` or `localhost`.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(config: &ClientConfig, reference: &str) -> Vec<String> {
        let reference = reference.parse().unwrap();
        config
            .endpoints(&reference)
            .unwrap()
            .iter()
            .map(|e| e.url(&reference, "manifests", "1").to_string())
            .collect()
    }

    #[test]
    fn https_but_on_loopback() {
        let config = ClientConfig::default();
        for (reference, url) in [
            ("debian:1", "https://registry-1.docker.io/v2/library/debian/manifests/1"),
            ("quay.io/a/b:1", "https://quay.io/v2/a/b/manifests/1"),
            ("10.0.0.1:5000/b:1", "https://10.0.0.1:5000/v2/b/manifests/1"),
            ("127.0.0.9:5000/b:1", "http://127.0.0.9:5000/v2/b/manifests/1"),
            ("localhost:5000/b:1", "http://localhost:5000/v2/b/manifests/1"),
            ("[::1]:5000/b:1", "http://[::1]:5000/v2/b/manifests/1"),
            ("localhost.example.org/b:1", "https://localhost.example.org/v2/b/manifests/1"),
        ] {
            assert_eq!(urls(&config, reference), [url]);
        }
    }

    #[test]
    fn configuration_decides() {
        let with = |host: &str, registry| ClientConfig {
            registries: BTreeMap::from([(host.to_owned(), registry)]),
            ..ClientConfig::default()
        };
        let plain = RegistryConfig { plain_http: Some(true), ..RegistryConfig::default() };
        assert_eq!(urls(&with("r.example", plain), "r.example/b:1"), ["http://r.example/v2/b/manifests/1"]);
        let ca = RegistryConfig { ca: Some(Ca::Pem(Vec::new())), ..RegistryConfig::default() };
        let on_loopback = with("127.0.0.1:5000", ca);
        assert_eq!(urls(&on_loopback, "127.0.0.1:5000/b:1"), ["https://127.0.0.1:5000/v2/b/manifests/1"]);
        let mirrors = RegistryConfig {
            mirrors: vec!["http://10.0.0.1:5000".into(), "h.example/hub/".into()],
            ..RegistryConfig::default()
        };
        assert_eq!(
            urls(&with("docker.io", mirrors), "debian:1"),
            [
                "http://10.0.0.1:5000/v2/library/debian/manifests/1",
                "https://h.example/v2/hub/library/debian/manifests/1",
                "https://registry-1.docker.io/v2/library/debian/manifests/1",
            ]
        );
        for bad in ["ftp://x", "https://u:p@x", "https://x/../y", "", "https://x/a?b"] {
            let mirrors = RegistryConfig { mirrors: vec![bad.into()], ..RegistryConfig::default() };
            let reference = "debian:1".parse().unwrap();
            assert!(with("docker.io", mirrors).endpoints(&reference).is_err(), "{bad}");
        }
    }
}
