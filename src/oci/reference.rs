//! Where an image comes from: a registry, or an image layout on disk.

use std::{fmt, path::PathBuf, str::FromStr};

pub use crate::reference::Reference;
use crate::{
    error::{Error, Result},
    reference::shown,
};

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
    use crate::{digest::Digest, error::Kind, reference::is_host};

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
