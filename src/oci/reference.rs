//! Image references: parsed and normalised as Docker does (distribution/reference, `normalize.go`).
//!
//! The grammar is written out here instead of taken from `oci-spec`: that one compiles a regular
//! expression on first use, which takes longer than a whole `lock` with nothing to do may take,
//! and it lets letters through that no registry accepts in a tag. A test holds the two together.

use std::{fmt, path::PathBuf, str::FromStr};

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
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(200).flat_map(char::escape_debug).collect();
    if text.chars().nth(200).is_some() {
        shown.push('…');
    }
    shown
}

pub(super) fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= LONGEST_TAG
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `domain [":" port]` of the grammar, also an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
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

/// Where an image comes from: a registry, or an image layout on disk (`oci:DIR[:TAG]`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// A registry.
    Registry(Reference),
    /// An OCI image layout (OCI image specification, image-layout.md).
    Layout {
        /// The layout's directory, as written.
        dir: PathBuf,
        /// The name of the image within (`org.opencontainers.image.ref.name`).
        tag: Option<String>,
    },
}

impl Source {
    /// The registry reference, where it is one.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Registry(reference) => Some(reference),
            Self::Layout { .. } => None,
        }
    }

    /// Whether it means something else tomorrow by design. Never so for a layout.
    pub fn is_floating(&self) -> bool {
        self.reference().is_some_and(Reference::is_floating)
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("oci:") else { return text.parse().map(Self::Registry) };
        // As skopeo splits it: at the first colon, so that a directory cannot hold one.
        let (dir, tag) = match rest.split_once(':') {
            Some((dir, tag)) => (dir, Some(tag.to_owned())),
            None => (rest, None),
        };
        if dir.is_empty() || dir.contains('\0') || tag.as_deref().is_some_and(str::is_empty) {
            return Err(Error::usage(format!("`{}` is not an image layout", shown(text)))
                .hint("write `oci:DIR` or `oci:DIR:TAG`"));
        }
        Ok(Self::Layout { dir: dir.into(), tag })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout { dir, tag } => {
                write!(f, "oci:{}", dir.display())?;
                tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    const HEX: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    #[test]
    fn normal_forms() {
        let pinned = format!("ubuntu@{HEX}");
        let both = format!("host:5000/a/b:1@{HEX}");
        for (text, want) in [
            ("ubuntu", "docker.io/library/ubuntu:latest".to_owned()),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04".to_owned()),
            ("vllm/vllm-openai:v0.11.0", "docker.io/vllm/vllm-openai:v0.11.0".to_owned()),
            ("index.docker.io/ubuntu:1", "docker.io/library/ubuntu:1".to_owned()),
            ("localhost/x:1", "localhost/x:1".to_owned()),
            ("test:5000", "docker.io/library/test:5000".to_owned()),
            ("127.0.0.1:5000/a__b/c.d--e:T", "127.0.0.1:5000/a__b/c.d--e:T".to_owned()),
            ("[::1]:5000/x:1", "[::1]:5000/x:1".to_owned()),
            (&pinned, format!("docker.io/library/{pinned}")),
            (&both, both.clone()),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), want);
            assert_eq!(want.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_a_usage_error() {
        let long = format!("a/{}", "b".repeat(256));
        let short = "x@sha256:ff";
        let bad = [
            "",
            " ",
            "Ubuntu",
            "a//b",
            "a/",
            "/a",
            "a:",
            "a:b:c",
            "a@",
            short,
            "a..b",
            "a___b",
            "-a",
            "a-",
            "h.io/x:é",
            "https://docker.io/x",
            "h.io:99999/x",
            "-h.io/x",
            "[::g]/x",
            "a\nb",
            "../x",
            "x:../y",
            "x:-y",
            &long,
        ];
        for text in bad {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(!error.hints().is_empty());
        }
    }

    #[test]
    fn floating_and_pinned() {
        let parse = |text: &str| text.parse::<Reference>().unwrap();
        assert!(parse("ubuntu").is_floating());
        assert!(parse("h.io/ubuntu:latest").is_floating());
        assert!(!parse("ubuntu:24.04").is_floating());
        assert!(!parse(&format!("ubuntu:latest@{HEX}")).is_floating());
        let digest = Digest::of("x");
        assert_eq!(parse("ubuntu:1").with_digest(digest), format!("docker.io/library/ubuntu@{digest}"));
    }

    #[test]
    fn layouts() {
        let layout =
            |dir: &str, tag: Option<&str>| Source::Layout { dir: dir.into(), tag: tag.map(str::to_owned) };
        for (text, want) in [
            ("oci:dir", layout("dir", None)),
            ("oci:/a/b:v1", layout("/a/b", Some("v1"))),
            ("oci:../a:x:y", layout("../a", Some("x:y"))),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source, want);
            assert_eq!(source.to_string(), text);
        }
        for bad in ["oci:", "oci::v1", "oci:dir:"] {
            assert_eq!(bad.parse::<Source>().unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn never_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<Source>();
        }

        #[test]
        fn what_parses_is_stable(text in "[a-zA-Z0-9._:/@\\[\\]-]{1,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        // Left out: ports, which may be any number there, and capitals, which it lets into repositories.
        #[test]
        fn agrees_with_oci_spec(text in "([a-b0.-]{1,4}/)?[a-b._/-]{1,8}(:[a-bA0._-]{1,4})?") {
            let theirs = text.parse::<oci_spec::distribution::Reference>();
            // It takes `a_b.c` for a host name.
            let theirs = theirs.ok().filter(|r| is_host(r.registry())).map(|r| r.whole());
            let ours = text.parse::<Reference>().map(|r| r.to_string());
            prop_assert_eq!(ours.ok(), theirs, "{}", text);
        }
    }
}
