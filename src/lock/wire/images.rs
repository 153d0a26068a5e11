//! Images in the lock file.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, de::DeTable};

use super::{
    super::{ImageFacts, LockedImage, Verdict, VerdictOutcome, reference},
    REQUIRE_CUDA, Wrong, table, unknown_in,
};
use crate::digest::Digest;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct WireImage {
    reference: Spanned<String>,
    platform: Spanned<String>,
    index: Option<Digest>,
    manifest: Digest,
    config: Digest,
    download: u64,
    layers: Vec<Digest>,
    facts: WireFacts,
    verdict: WireVerdict,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WireFacts {
    cuda: Option<String>,
    require: Option<WireRequire>,
    #[serde(default)]
    disable_require: bool,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
    user: Option<String>,
}

/// `NVIDIA_REQUIRE_CUDA` alone is a string; anything else is a table of variables.
#[derive(Deserialize)]
#[serde(untagged)]
enum WireRequire {
    Cuda(String),
    Variables(BTreeMap<String, String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WireVerdict {
    outcome: VerdictOutcome,
    because: String,
}

impl TryFrom<WireImage> for LockedImage {
    type Error = Wrong;

    fn try_from(wire: WireImage) -> Result<Self, Wrong> {
        let span = wire.reference.span();
        let reference = wire.reference.into_inner();
        match reference::normalise(&reference) {
            Ok(normal) if normal == reference => {}
            Ok(normal) => {
                return Err(Wrong { span, label: format!("the lock writes this reference as `{normal}`") });
            }
            Err(error) => return Err(Wrong { span, label: error.message().to_owned() }),
        }
        let span = wire.platform.span();
        let platform = wire.platform.into_inner();
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !matches!(platform.split('/').collect::<Vec<_>>()[..], [os, arch] if plain(os) && plain(arch)) {
            return Err(Wrong {
                span,
                label: "a platform is `os/architecture`, such as `linux/amd64`".into(),
            });
        }
        Ok(Self {
            reference,
            platform,
            index: wire.index,
            manifest: wire.manifest,
            config: wire.config,
            download: wire.download,
            layers: wire.layers,
            facts: wire.facts.into(),
            verdict: Verdict { outcome: wire.verdict.outcome, because: wire.verdict.because },
        })
    }
}

impl From<WireFacts> for ImageFacts {
    fn from(wire: WireFacts) -> Self {
        Self {
            cuda: wire.cuda,
            require: match wire.require {
                None => BTreeMap::new(),
                Some(WireRequire::Cuda(value)) => BTreeMap::from([(REQUIRE_CUDA.to_owned(), value)]),
                Some(WireRequire::Variables(variables)) => variables,
            },
            disable_require: wire.disable_require,
            entrypoint: wire.entrypoint,
            command: wire.command,
            user: wire.user,
        }
    }
}

const IMAGE: &[&str] =
    &["reference", "platform", "index", "manifest", "config", "download", "layers", "facts", "verdict"];
const FACTS: &[&str] = &["cuda", "require", "disable-require", "entrypoint", "command", "user"];
const VERDICT: &[&str] = &["outcome", "because"];

/// The first key of an image that no lock has.
pub(super) fn unknown(images: &DeTable<'_>) -> Option<Wrong> {
    images.iter().find_map(|(_, image)| {
        let image = image.get_ref().as_table()?;
        unknown_in(image, IMAGE)
            .or_else(|| unknown_in(table(image, "facts")?, FACTS))
            .or_else(|| unknown_in(table(image, "verdict")?, VERDICT))
    })
}
