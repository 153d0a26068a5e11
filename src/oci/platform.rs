//! Platforms as images name them.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// What an image runs on, in Go's words: `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Platform {
    /// `GOOS`: `linux`.
    pub os: String,
    /// `GOARCH`: `amd64`, `arm64`.
    pub architecture: String,
    /// Variant of the architecture: `v7`. `None` takes any, the plain one first.
    pub variant: Option<String>,
}

impl Platform {
    /// `linux/ARCHITECTURE`, by the architecture's name in Go and in Debian, which are the same for
    /// `amd64` and `arm64`.
    pub fn linux(architecture: impl Into<String>) -> Self {
        Self { os: "linux".to_owned(), architecture: architecture.into(), variant: None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let word =
            |w: &&str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().all(word) {
            if let [os, architecture] = parts[..] {
                return Ok(Self { os: os.into(), architecture: architecture.into(), variant: None });
            }
            if let [os, architecture, variant] = parts[..] {
                let variant = Some(variant.to_owned());
                return Ok(Self { os: os.into(), architecture: architecture.into(), variant });
            }
        }
        Err(Error::usage(format!("`{}` is not a platform", text.escape_debug()))
            .hint("write `OS/ARCHITECTURE`, such as `linux/amd64`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert_eq!(Platform::linux("amd64"), "linux/amd64".parse().unwrap());
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
