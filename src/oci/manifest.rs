//! Indices and manifests: what kind a document is, and which entry of an index is the platform's.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use super::{client::Blob, platform::Platform};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// The largest manifest read, in bytes (OCI distribution specification, "Pushing Manifests", names 4 MiB as
/// what registries should take).
pub(super) const LARGEST_MANIFEST: u64 = 4 << 20;
/// The largest image configuration read, in bytes.
pub(super) const LARGEST_CONFIG: u64 = 8 << 20;

/// All that is understood. Registries choose by it: without Docker's types some convert, or answer 404.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What a digest or tag names.
#[derive(Debug)]
pub(super) enum Document {
    Index(Box<ImageIndex>),
    Image(Image),
}

/// What is needed of an image manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) config: Digest,
    pub(super) config_size: u64,
    /// Lowest first.
    pub(super) layers: Vec<Digest>,
    /// Configuration and layers in bytes, each content once.
    pub(super) download: u64,
    /// Configuration and layers with their sizes, as listed.
    pub(super) blobs: Vec<Blob>,
}

/// Why a document could not be taken.
#[derive(Debug)]
pub(super) enum Refused {
    Malformed(serde_json::Error),
    Error(Error),
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    schema_version: u64,
    media_type: Option<String>,
    #[serde(default, deserialize_with = "present")]
    manifests: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(value: D) -> std::result::Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(value).map(|_| true)
}

/// Reads a manifest document. `what` names it in messages.
pub(super) fn parse(body: &[u8], what: &str) -> Result<Document, Refused> {
    let head: Head = serde_json::from_slice(body)?;
    if head.schema_version != 2 {
        return Err(Error::failed(format!(
            "{what} is an image of the outdated schema {}",
            head.schema_version
        ))
        .hint("push it again with a current tool: `skopeo copy --format v2s2 …`")
        .into());
    }
    // The media type decides where it is given; some indices of old carry none.
    let is_index = head.media_type.as_deref().map_or(head.manifests, |t| INDEX_TYPES.contains(&t));
    if is_index {
        return Ok(Document::Index(Box::new(serde_json::from_slice(body)?)));
    }
    let manifest: ImageManifest = serde_json::from_slice(body)?;
    let config_type = manifest.config().media_type().to_string();
    if !CONFIG_TYPES.contains(&config_type.as_str()) {
        return Err(Error::failed(format!(
            "{what} is no container image: its configuration is `{}`",
            super::failure::excerpt(&config_type)
        ))
        .hint("name an image; charts, signatures and other artifacts cannot be run")
        .into());
    }
    let mut seen = BTreeSet::new();
    let mut download = 0_u64;
    let mut layers = Vec::with_capacity(manifest.layers().len());
    let mut blobs = Vec::with_capacity(manifest.layers().len() + 1);
    for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
        let digest = digest_of(descriptor)?;
        blobs.push(Blob { digest, size: descriptor.size() });
        layers.push(digest);
        if seen.insert(digest) {
            download = download
                .checked_add(descriptor.size())
                .ok_or_else(|| Error::failed(format!("{what} states impossible sizes")))?;
        }
    }
    let config = layers.remove(0);
    Ok(Document::Image(Image { config, config_size: manifest.config().size(), layers, download, blobs }))
}

/// A descriptor's digest. Only SHA-256 is taken.
pub(super) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_| {
        Error::failed(format!("content is named by `{}`", super::failure::excerpt(&text)))
            .hint("only sha256 digests are supported: push the image again with them")
    })
}

/// What an index offers a platform.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The platform's manifest.
    Manifest(Digest),
    /// A nested index that may hold it.
    Index(Digest),
}

/// Chooses the platform's entry. `what` names the index in messages.
pub(super) fn choose(index: &ImageIndex, wanted: &Platform, what: &str) -> Result<Choice> {
    let is_index = |d: &&Descriptor| INDEX_TYPES.contains(&d.media_type().to_string().as_str());
    // Attestations stand in the index as manifests for `unknown/unknown`.
    let offered: Vec<(&Descriptor, Platform)> = index
        .manifests()
        .iter()
        .filter_map(|d| Some((d, platform_of(d)?)))
        .filter(|(_, p)| p.os != "unknown")
        .collect();
    let fits = |p: &Platform| p.os == wanted.os && p.architecture == wanted.architecture;
    let exact = |p: &Platform| fits(p) && p.variant == wanted.variant;
    let chosen = offered
        .iter()
        .find(|(_, p)| exact(p))
        .or_else(|| offered.iter().find(|(_, p)| fits(p) && wanted.variant.is_none()))
        .map(|(d, _)| *d);
    // An entry without a platform is taken when it is the only one there could be; the
    // configuration is held against the platform anyway.
    let chosen = chosen.or_else(|| match index.manifests().as_slice() {
        [only] if only.platform().is_none() => Some(only),
        entries => entries.iter().find(|d| is_index(d) && d.platform().is_none()),
    });
    match chosen {
        Some(d) if is_index(&d) => Ok(Choice::Index(digest_of(d)?)),
        Some(d) => Ok(Choice::Manifest(digest_of(d)?)),
        None => {
            let has: BTreeSet<String> = offered.iter().map(|(_, p)| p.to_string()).collect();
            let has: Vec<String> = has.iter().take(20).map(|p| super::failure::excerpt(p)).collect();
            let has = if has.is_empty() { "nothing that runs".to_owned() } else { has.join(", ") };
            Err(Error::failed(format!("{what} has no image for {wanted}: it has {has}"))
                .hint(format!("name a tag that is built for {wanted}")))
        }
    }
}

fn platform_of(descriptor: &Descriptor) -> Option<Platform> {
    descriptor.platform().as_ref().map(|p| Platform {
        os: p.os().to_string(),
        architecture: p.architecture().to_string(),
        variant: p.variant().clone(),
    })
}

/// Holds the configuration's platform against the one asked for.
pub(super) fn check_platform(is: &Platform, wanted: &Platform, what: &str) -> Result<()> {
    let variant_fits = wanted.variant.is_none() || is.variant.is_none() || is.variant == wanted.variant;
    if is.os == wanted.os && is.architecture == wanted.architecture && variant_fits {
        return Ok(());
    }
    let is = if is.os.is_empty() && is.architecture.is_empty() {
        "no platform at all".to_owned()
    } else {
        super::failure::excerpt(&is.to_string())
    };
    Err(Error::failed(format!("{what} is built for {is}, not for {wanted}"))
        .hint(format!("name an image that is built for {wanted}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn entry(name: &str, platform: Option<&str>) -> Value {
        let mut entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(name).to_string(), "size": 10,
        });
        if let Some(platform) = platform {
            let parts: Vec<&str> = platform.split('/').collect();
            entry["platform"] = json!({"os": parts[0], "architecture": parts[1]});
            if let Some(variant) = parts.get(2) {
                entry["platform"]["variant"] = json!(variant);
            }
        }
        entry
    }

    fn index(entries: Vec<Value>) -> Box<ImageIndex> {
        let value = json!({"schemaVersion": 2, "manifests": entries});
        match parse(value.to_string().as_bytes(), "x").unwrap() {
            Document::Index(index) => index,
            Document::Image(_) => panic!("not an index"),
        }
    }

    fn chosen(entries: &[(&str, Option<&str>)], wanted: &str) -> Result<Choice> {
        let index = index(entries.iter().map(|(name, platform)| entry(name, *platform)).collect());
        choose(&index, &wanted.parse().unwrap(), "`x`")
    }

    #[test]
    fn the_platforms_entry() {
        let all = [
            ("att", Some("unknown/unknown")),
            ("v7", Some("linux/arm/v7")),
            ("v6", Some("linux/arm/v6")),
            ("v3", Some("linux/amd64/v3")),
            ("amd64", Some("linux/amd64")),
            ("win", Some("windows/amd64")),
        ];
        let manifest = |name: &str| Choice::Manifest(Digest::of(name));
        assert_eq!(chosen(&all, "linux/amd64").unwrap(), manifest("amd64"));
        assert_eq!(chosen(&all, "linux/arm/v6").unwrap(), manifest("v6"));
        assert_eq!(chosen(&all, "linux/arm").unwrap(), manifest("v7"));
        assert_eq!(chosen(&[("only", None)], "linux/amd64").unwrap(), manifest("only"));
        let error = chosen(&all, "linux/arm64").unwrap_err();
        assert_eq!(
            error.message(),
            "`x` has no image for linux/arm64: it has linux/amd64, linux/amd64/v3, linux/arm/v6, \
             linux/arm/v7, windows/amd64"
        );
        assert!(chosen(&[], "linux/amd64").unwrap_err().message().contains("nothing that runs"));
        assert!(chosen(&[("a", None), ("b", None)], "linux/amd64").is_err());
    }

    #[test]
    fn a_nested_index() {
        let mut nested = entry("nested", None);
        nested["mediaType"] = json!(INDEX_TYPES[1]);
        let index = index(vec![entry("win", Some("windows/amd64")), nested]);
        let choice = choose(&index, &Platform::linux("amd64"), "x").unwrap();
        assert_eq!(choice, Choice::Index(Digest::of("nested")));
    }

    fn manifest() -> Value {
        let layer = |name: &str, size: u64| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                   "digest": Digest::of(name).to_string(), "size": size})
        };
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": CONFIG_TYPES[0], "digest": Digest::of("c").to_string(), "size": 5},
            "layers": [layer("a", 100), layer("b", 20), layer("a", 100)],
        })
    }

    #[test]
    fn an_image_counts_each_content_once() {
        let Document::Image(image) = parse(manifest().to_string().as_bytes(), "x").unwrap() else {
            panic!("not an image")
        };
        assert_eq!(image.config, Digest::of("c"));
        assert_eq!(image.layers, [Digest::of("a"), Digest::of("b"), Digest::of("a")]);
        assert_eq!(image.download, 125);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let says = |value: &Value| match parse(value.to_string().as_bytes(), "`x`") {
            Err(Refused::Error(error)) => error.message().to_owned(),
            Err(Refused::Malformed(_)) => "malformed".to_owned(),
            Ok(_) => "fine".to_owned(),
        };
        assert_eq!(says(&json!({"schemaVersion": 1})), "`x` is an image of the outdated schema 1");
        assert_eq!(says(&json!({"schemaVersion": 2})), "malformed");
        assert_eq!(says(&json!([])), "malformed");
        let mut chart = manifest();
        chart["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
        assert!(says(&chart).contains("no container image"));
        let mut huge = manifest();
        huge["layers"][0]["size"] = json!(u64::MAX);
        assert!(says(&huge).contains("impossible sizes"));
        let mut other = manifest();
        other["config"]["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
        assert!(says(&other).contains("sha512"));
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let check = |is: &str, wanted: &str| {
            check_platform(&is.parse().unwrap(), &wanted.parse().unwrap(), "`x`").is_ok()
        };
        assert!(check("linux/amd64", "linux/amd64"));
        assert!(check("linux/arm/v7", "linux/arm"));
        assert!(!check("linux/arm/v7", "linux/arm/v6"));
        assert!(!check("linux/arm64", "linux/amd64"));
        assert!(!check("windows/amd64", "linux/amd64"));
    }

    proptest! {
        #[test]
        fn hostile_documents_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..600, with in any::<u8>(), digest in "\\PC{0,80}",
        ) {
            let _ = parse(&bytes, "x");
            let mut changed = manifest().to_string().into_bytes();
            let at = at % changed.len();
            changed[at] = with;
            let _ = parse(&changed, "x");
            let mut odd = manifest();
            odd["config"]["digest"] = json!(digest);
            let _ = parse(odd.to_string().as_bytes(), "x");
            let odd = json!({"schemaVersion": 2, "manifests": [{"digest": digest, "size": 1,
                "mediaType": digest, "platform": {"os": digest, "architecture": digest}}]});
            if let Ok(Document::Index(index)) = parse(odd.to_string().as_bytes(), "x") {
                let _ = choose(&index, &Platform::linux("amd64"), "x");
            }
        }
    }
}
