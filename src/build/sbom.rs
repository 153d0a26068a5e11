//! What an image is made of, as a software bill of materials in SPDX 2.3 (JSON).
//!
//! SPDX and not CycloneDX: it is an ISO standard (5962), its documents name themselves by an address that can be
//! derived from what they describe where CycloneDX wants a random serial number, and the scanners that read Debian
//! packages read it. 2.3 and not 3.0, which few of them read yet.
//!
//! The document is a function of its [`Subject`]: created at the image's time, named by a digest, everything in the
//! lock's order. What the lock does not know is `NOASSERTION`, licences above all.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::purl::{encoded, purl};
use crate::{
    digest::Digest,
    error::{Error, Result},
    lock::{self, Lock, LockedImage, LockedPackage},
    reference::Reference,
};

/// The document's own identifier (SPDX 2.3, 6.3).
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
/// The image's identifier.
const IMAGE: &str = "SPDXRef-Image";
/// What nobody says anything of (SPDX 2.3, 7.7, 7.13, 7.15, 7.17).
const NOASSERTION: &str = "NOASSERTION";
/// Words in a maintainer's name that are none of a person's.
const ORGANISATIONS: [&str; 9] = [
    "Team",
    "Maintainers",
    "Group",
    "Developers",
    "Packagers",
    "Project",
    "Corporation",
    "Inc.",
    "Foundation",
];

/// What is described.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The lock it is made from.
    pub lock: &'a Lock,
    /// The image's name.
    pub image: &'a str,
    /// The distribution, in lower case: `debian`.
    pub distribution: &'a str,
    /// Its release: `trixie`.
    pub release: &'a str,
    /// The image's time, in seconds since 1970.
    pub time: i64,
    /// Version of the bedplate that makes it.
    pub tool: &'a str,
    /// `Maintainer` of each package as its control file has it (deb-control(5)), by the package's name; what is not
    /// there is not known.
    pub maintainers: &'a BTreeMap<String, String>,
}

/// The name of the SBOM beside the image `image`.
pub fn file_name(image: &str) -> String {
    format!("{image}.spdx.json")
}

/// The bytes of the SBOM: always the same for the same subject.
///
/// Packages are `SPDXRef-Deb-NAME-Arch-ARCHITECTURE`, container images `SPDXRef-Oci-KEY`, where what an identifier may
/// not hold (SPDX 2.3, 7.2) is `X` and two hexadecimal digits a byte. The image contains the packages; it depends on
/// the container images, which it need not contain.
///
/// # Errors
/// A package depends on one that the lock does not have, or the time has no date.
pub fn spdx(subject: &Subject<'_>) -> Result<Vec<u8>> {
    let Subject { lock, image, .. } = *subject;
    let created = jiff::Timestamp::from_second(subject.time)
        .map_err(|error| Error::failed("writing an SBOM: the image's time has no date").because(error))?;
    let mut packages = vec![Package {
        version_info: lock.digest().to_string(),
        primary_package_purpose: Some("OPERATING_SYSTEM"),
        ..Package::named(IMAGE.to_owned(), image)
    }];
    packages.extend(lock.host_packages().iter().map(|locked| package(subject, locked)));
    packages.extend(lock.images.iter().map(|(key, locked)| container(key, locked)));
    let mut document = Document {
        spdx_version: "SPDX-2.3",
        // SPDX 2.3, 6.2: the only licence such data may have.
        data_license: "CC0-1.0",
        spdxid: DOCUMENT,
        name: image,
        namespace: String::new(),
        creation_info: CreationInfo {
            created: created.to_string(),
            creators: [format!("Tool: bedplate-{}", subject.tool)],
        },
        packages,
        relationships: relationships(lock)?,
    };
    // SPDX 2.3, 6.5: below the place that is meant for those who have no address of their own, and another one for
    // whatever else is in the document, the lock's digest above all.
    let digest = Digest::of(text(&document)?);
    document.namespace = format!("https://spdx.org/spdxdocs/{}-{}", encoded(image), digest.hex());
    text(&document)
}

fn text(document: &Document<'_>) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|error| Error::failed("writing an SBOM").because(error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn package(subject: &Subject<'_>, locked: &LockedPackage) -> Package {
    // The vendor is the distribution, and for another archive that one: a package of the same name from elsewhere must
    // not be taken for the distribution's.
    let own = locked.repository == subject.distribution
        || locked.repository.strip_prefix(subject.distribution).is_some_and(|rest| rest.starts_with('-'));
    let vendor = if own { subject.distribution } else { &locked.repository };
    let qualifiers = [("arch", locked.architecture.as_str()), ("distro", subject.release)];
    let purl =
        purl("deb", Some(&vendor.to_lowercase()), &locked.name.to_lowercase(), &locked.version, &qualifiers);
    let maintainer = subject.maintainers.get(&locked.name).and_then(|text| agent(text));
    Package {
        version_info: locked.version.clone(),
        file_name: locked.path.rsplit('/').next().map(str::to_owned),
        supplier: maintainer.unwrap_or_else(|| NOASSERTION.to_owned()),
        source_info: Some(format!("`{}` of the archive {}", locked.path, locked.repository)),
        checksums: vec![Checksum::of(&locked.sha256)],
        external_refs: vec![ExternalRef::purl(purl)],
        ..Package::named(package_id(locked), &locked.name)
    }
}

fn container(key: &str, locked: &LockedImage) -> Package {
    let (name, repository, tag) =
        match (lock::layout(&locked.reference), locked.reference.parse::<Reference>()) {
            (None, Ok(reference)) => {
                (reference.name(), Some(reference.name()), reference.tag().map(str::to_owned))
            }
            // A layout lies on somebody's disk: where is no part of its name.
            (layout, _) => {
                let (directory, tag) = layout.unwrap_or_default();
                let last = directory.rsplit('/').find(|part| !matches!(*part, "" | "." | ".."));
                (last.unwrap_or(key).to_owned(), None, tag.map(str::to_owned))
            }
        };
    let last = name.rsplit('/').next().unwrap_or(&name).to_lowercase();
    let qualifiers = [
        ("arch", locked.platform.split('/').nth(1).unwrap_or_default()),
        ("repository_url", repository.as_deref().unwrap_or_default()),
        ("tag", tag.as_deref().unwrap_or_default()),
    ];
    let purl = purl("oci", None, &last, &locked.manifest.to_string(), &qualifiers);
    Package {
        version_info: tag.unwrap_or_else(|| locked.manifest.to_string()),
        primary_package_purpose: Some("CONTAINER"),
        checksums: vec![Checksum::of(&locked.manifest)],
        external_refs: vec![ExternalRef::purl(purl)],
        ..Package::named(container_id(key), &name)
    }
}

fn relationships(lock: &Lock) -> Result<Vec<Relationship>> {
    let mut all = vec![Relationship::new(DOCUMENT, "DESCRIBES", IMAGE)];
    let packages = lock.host_packages();
    let mut by_name: BTreeMap<&str, Vec<&LockedPackage>> = BTreeMap::new();
    for package in packages.iter() {
        by_name.entry(&package.name).or_default().push(package);
        all.push(Relationship::new(IMAGE, "CONTAINS", package_id(package)));
    }
    all.extend(lock.images.keys().map(|key| Relationship::new(IMAGE, "DEPENDS_ON", container_id(key))));
    // What is written as `NAME:ARCHITECTURE` is of another architecture than the host's.
    let foreign: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| &package.depends)
        .filter_map(|needed| Some(needed.split_once(':')?.1))
        .collect();
    for package in packages.iter() {
        for needed in &package.depends {
            let (name, architecture) = match needed.split_once(':') {
                Some((name, architecture)) => (name, Some(architecture)),
                None => (needed.as_str(), None),
            };
            let named = by_name.get(name).map(Vec::as_slice).unwrap_or_default();
            let fits = |to: &&&LockedPackage| match architecture {
                Some(architecture) => to.architecture == architecture,
                None => named.len() == 1 || !foreign.contains(to.architecture.as_str()),
            };
            let before = all.len();
            for to in named.iter().filter(fits) {
                all.push(Relationship::new(package_id(package), "DEPENDS_ON", package_id(to)));
            }
            if all.len() == before {
                return Err(Error::failed(format!(
                    "writing an SBOM: package {} depends on `{}`, which the lock does not have",
                    package.name,
                    needed.escape_debug()
                ))
                .hint("lock the profile again: `bedplate lock`"));
            }
        }
    }
    Ok(all)
}

fn package_id(package: &LockedPackage) -> String {
    // Names and architectures are in lower case, so that the word between them is none of theirs.
    format!("SPDXRef-Deb-{}-Arch-{}", id(&package.name), id(&package.architecture))
}

fn container_id(key: &str) -> String {
    format!("SPDXRef-Oci-{}", id(key))
}

/// A part of an identifier (SPDX 2.3, 7.2: letters, digits, `.` and `-`), another one for each text.
fn id(text: &str) -> String {
    let mut id = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte) {
            id.push(char::from(byte));
        } else {
            id.push_str(&format!("X{byte:02X}"));
        }
    }
    id
}

/// A maintainer (`Name <address>`) as SPDX writes agents (SPDX 2.3, 7.5). Control files do not say whether it is a
/// person; the name does.
fn agent(maintainer: &str) -> Option<String> {
    let (name, address) = match maintainer.trim().rsplit_once('<') {
        Some((name, address)) => (name.trim(), address.trim_end().trim_end_matches('>').trim()),
        None => (maintainer.trim(), ""),
    };
    let name = name.trim_matches('"');
    if name.is_empty() {
        return None;
    }
    let organisation = name.split_whitespace().any(|word| ORGANISATIONS.contains(&word));
    let kind = if organisation { "Organization" } else { "Person" };
    Some(if address.is_empty() { format!("{kind}: {name}") } else { format!("{kind}: {name} ({address})") })
}

/// A document (SPDX 2.3, 6), its keys as the JSON schema names them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    spdxid: &'static str,
    name: &'a str,
    #[serde(rename = "documentNamespace")]
    namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: [String; 1],
}

/// A package (SPDX 2.3, 7).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    spdxid: String,
    name: String,
    version_info: String,
    #[serde(rename = "packageFileName", skip_serializing_if = "Option::is_none")]
    file_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    supplier: String,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    license_concluded: &'static str,
    license_declared: &'static str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

impl Package {
    fn named(spdxid: String, name: &str) -> Self {
        Self {
            spdxid,
            name: name.to_owned(),
            version_info: String::new(),
            file_name: None,
            primary_package_purpose: None,
            supplier: NOASSERTION.to_owned(),
            // Where content comes from is configuration; what it is, is its digest.
            download_location: NOASSERTION,
            files_analyzed: false,
            source_info: None,
            checksums: Vec::new(),
            license_concluded: NOASSERTION,
            license_declared: NOASSERTION,
            copyright_text: NOASSERTION,
            external_refs: Vec::new(),
        }
    }
}

/// A checksum (SPDX 2.3, 7.10).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

impl Checksum {
    fn of(digest: &Digest) -> Self {
        Self { algorithm: "SHA256", checksum_value: digest.hex() }
    }
}

/// A reference to something outside (SPDX 2.3, 7.21 and annex F.3.5).
#[derive(Serialize)]
struct ExternalRef {
    #[serde(rename = "referenceCategory")]
    category: &'static str,
    #[serde(rename = "referenceType")]
    kind: &'static str,
    #[serde(rename = "referenceLocator")]
    locator: String,
}

impl ExternalRef {
    fn purl(purl: String) -> Self {
        Self { category: "PACKAGE-MANAGER", kind: "purl", locator: purl }
    }
}

/// A relationship (SPDX 2.3, 11).
#[derive(Serialize)]
struct Relationship {
    #[serde(rename = "spdxElementId")]
    from: String,
    #[serde(rename = "relationshipType")]
    kind: &'static str,
    #[serde(rename = "relatedSpdxElement")]
    to: String,
}

impl Relationship {
    fn new(from: impl Into<String>, kind: &'static str, to: impl Into<String>) -> Self {
        Self { from: from.into(), kind, to: to.into() }
    }
}

#[cfg(test)]
#[path = "sbom_tests.rs"]
mod tests;
