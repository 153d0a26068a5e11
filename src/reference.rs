//! Image references: parsed and normalised as Docker does (distribution/reference, `normalize.go`).
//!
//! The grammar is written out here instead of taken from `oci-spec`: that one compiles a regular
//! expression on first use, which takes longer than a whole `lock` with nothing to do may take,
//! and it lets letters through that no registry accepts in a tag. A test holds the two together.

use std::{fmt, str::FromStr};

use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// Docker Hub's name in references.
const DOCKER_HUB: &str = "docker.io";
/// Longest repository name (distribution/reference, `NameTotalLengthMax`).
const LONGEST_NAME: usize = 255;
/// Longest tag (OCI distribution specification, "Pulling manifests").
const LONGEST_TAG: usize = 128;

/// A normalised image reference: `docker.io/library/ubuntu:24.04`, `host:5000/name@sha256:…`.
///
/// There is always a tag or a digest: `latest` where neither was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host of the registry, with the port where one was given: `docker.io`, `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository within the registry: `library/ubuntu`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag: `latest` where neither tag nor digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where the reference names one. It then decides and the tag is only a comment.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether it means something else tomorrow by design: no digest, and the tag `latest` or none.
    pub fn is_floating(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref().is_none_or(|tag| tag == "latest")
    }

    /// Registry and repository, without tag and digest: `docker.io/library/ubuntu`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository at this digest: `docker.io/library/ubuntu@sha256:…`. What a host pulls.
    pub fn with_digest(&self, digest: Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// Errors are [`crate::error::Kind::Usage`] and name what is wrong.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("`{}` is not an image reference: {why}", shown(text)))
                .hint("write `REGISTRY/REPOSITORY:TAG`, such as `docker.io/library/debian:13`")
        };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.contains("://") {
            return Err(wrong("it starts with a scheme"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| {
                    wrong("the digest after `@` is not `sha256:` and 64 lower-case hexadecimal digits")
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to a port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong("the tag may hold only letters, digits, `_`, `.` and `-`, 128 at most"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':', '[']) || host == "localhost" => (host, rest),
            _ => (DOCKER_HUB, name),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        if !is_host(registry) {
            return Err(wrong("the registry is not a host name"));
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong("the repository must be lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(wrong("the repository may hold only a-z, 0-9, and between them `.`, `_`, `-`, `/`"));
        }
        let repository = if registry == DOCKER_HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if repository.len() > LONGEST_NAME {
            return Err(wrong("the repository is longer than 255 characters"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Untrusted text for a message: escaped, and not longer than fits a line.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(200).flat_map(char::escape_debug).collect();
    if text.chars().nth(200).is_some() {
        shown.push('…');
    }
    shown
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= LONGEST_TAG
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `domain [":" port]` of the grammar, also an IPv6 address in brackets.
pub(crate) fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    port.is_none_or(is_port)
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// `path-component` of the grammar: alphanumeric runs with one `.`, one or two `_`, or any number of
/// `-` between them.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes
        .split(alphanumeric)
        .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-'))
}
