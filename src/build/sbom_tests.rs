use std::path::Path;

use serde_json::Value;

use super::*;
use crate::{
    lock::{ImageFacts, Verdict, VerdictOutcome},
    system::files::{Owner, Root},
};

const SAMPLES: &str = "tests/samples/sbom";
const GOLDEN: &str = include_str!("../../tests/samples/sbom/small.spdx.json");

fn locked(
    repository: &str,
    name: &str,
    version: &str,
    architecture: &str,
    depends: &[&str],
) -> LockedPackage {
    LockedPackage {
        repository: repository.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: architecture.to_owned(),
        sha256: Digest::of(format!("{name} {version} {architecture}")),
        size: 1000,
        path: format!("pool/{name}_{version}_{architecture}.deb"),
        depends: depends.iter().map(|name| (*name).to_owned()).collect(),
        wanted_by: Vec::new(),
    }
}

fn image(reference: &str) -> LockedImage {
    LockedImage {
        reference: reference.to_owned(),
        platform: "linux/amd64".to_owned(),
        index: None,
        manifest: Digest::of(reference),
        config: Digest::of("config"),
        download: 1,
        layers: Vec::new(),
        facts: ImageFacts::default(),
        verdict: Verdict { outcome: VerdictOutcome::Unknown, because: String::new() },
    }
}

fn small() -> Lock {
    Lock {
        images: BTreeMap::from([
            ("vllm".to_owned(), image("docker.io/vllm/vllm-openai:v0.11.0")),
            ("local/Agent:1".to_owned(), image("oci:../layouts/agent:1")),
        ]),
        packages: vec![
            locked("debian", "libc6", "2.41-12", "amd64", &[]),
            locked("debian", "libc6", "2.41-12", "i386", &[]),
            locked("debian-security", "libstdc++6", "14.2.0-19+b1", "amd64", &["libc6"]),
            locked(
                "nvidia",
                "nvidia-container-toolkit",
                "1:1.18.0~rc.1-1",
                "amd64",
                &["libc6", "libstdc++6"],
            ),
            locked("debian", "wine32", "10.0-1", "i386", &["libc6:i386"]),
        ],
        ..Lock::default()
    }
}

fn maintainers() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("libc6".to_owned(), "GNU Libc Maintainers <debian-glibc@lists.debian.org>".to_owned()),
        ("wine32".to_owned(), "Jane Döe <jane@example.org>".to_owned()),
    ])
}

fn made(lock: &Lock, image: &str) -> Result<String> {
    let bytes = spdx(&Subject {
        lock,
        image,
        distribution: "debian",
        release: "trixie",
        time: 1_763_716_500,
        tool: "0.1.0",
        maintainers: &maintainers(),
    })?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn the_golden_file_is_what_is_written() {
    let text = made(&small(), "small").unwrap();
    if std::env::var_os("BEDPLATE_BLESS").is_some() {
        let samples = Root::open(Path::new(SAMPLES)).unwrap();
        samples.write("/small.spdx.json", text.as_bytes(), 0o644, Owner::current()).unwrap();
        return;
    }
    assert_eq!(text, GOLDEN, "set BEDPLATE_BLESS=1 to write it anew");
}

#[test]
fn every_identifier_is_one_and_every_relationship_has_two_ends() {
    let document: Value = serde_json::from_str(&made(&small(), "small").unwrap()).unwrap();
    let mut known = BTreeSet::from([DOCUMENT]);
    for package in document["packages"].as_array().unwrap() {
        let id = package["SPDXID"].as_str().unwrap();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        assert!(id.strip_prefix("SPDXRef-").unwrap().chars().all(plain), "{id}");
        assert!(known.insert(id), "{id} is there twice");
    }
    let relationships = document["relationships"].as_array().unwrap();
    for relationship in relationships {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            assert!(known.contains(relationship[end].as_str().unwrap()), "{relationship}");
        }
    }
    let depends = |from: &str, to: &str| {
        relationships.iter().any(|relationship| {
            relationship["relationshipType"] == "DEPENDS_ON"
                && relationship["spdxElementId"] == format!("SPDXRef-{from}")
                && relationship["relatedSpdxElement"] == format!("SPDXRef-{to}")
        })
    };
    assert!(depends("Deb-libstdcX2BX2B6-Arch-amd64", "Deb-libc6-Arch-amd64"));
    assert!(!depends("Deb-libstdcX2BX2B6-Arch-amd64", "Deb-libc6-Arch-i386"));
    assert!(depends("Deb-wine32-Arch-i386", "Deb-libc6-Arch-i386"));
    assert!(depends("Image", "Oci-vllm") && depends("Image", "Oci-localX2FX41gentX3A1"));
    assert_eq!(relationships.len(), 1 + 5 + 2 + 4);
}

#[test]
fn packages_have_the_names_that_scanners_know() {
    let text = made(&small(), "small").unwrap();
    let vllm = Digest::of("docker.io/vllm/vllm-openai:v0.11.0");
    let agent = Digest::of("oci:../layouts/agent:1");
    for purl in [
        "pkg:deb/debian/libc6@2.41-12?arch=i386&distro=trixie".to_owned(),
        "pkg:deb/debian/libstdc%2B%2B6@14.2.0-19%2Bb1?arch=amd64&distro=trixie".to_owned(),
        "pkg:deb/nvidia/nvidia-container-toolkit@1:1.18.0~rc.1-1?arch=amd64&distro=trixie".to_owned(),
        format!(
            "pkg:oci/vllm-openai@{vllm}?arch=amd64&repository_url=docker.io%2Fvllm%2Fvllm-openai&tag=v0.11.0"
        ),
        format!("pkg:oci/agent@{agent}?arch=amd64&tag=1"),
    ] {
        assert!(text.contains(&format!("\"{purl}\"")), "{purl}\n{text}");
    }
    assert!(text.contains("\"Organization: GNU Libc Maintainers (debian-glibc@lists.debian.org)\""));
    assert!(text.contains("\"Person: Jane Döe (jane@example.org)\""));
    assert!(!text.contains("layouts"), "where a layout lies is nobody's business");
    assert_eq!(agent_of("X"), "Person: X");
    assert_eq!(super::agent(" <a@b>"), None);
}

fn agent_of(text: &str) -> String {
    super::agent(text).unwrap()
}

#[test]
fn another_lock_or_image_is_another_document() {
    let namespace = |lock: &Lock, image: &str| {
        let document: Value = serde_json::from_str(&made(lock, image).unwrap()).unwrap();
        document["documentNamespace"].as_str().unwrap().to_owned()
    };
    let (first, other) = (small(), Lock { images: BTreeMap::new(), ..small() });
    let all = [namespace(&first, "a"), namespace(&first, "b c"), namespace(&other, "a")];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3);
    assert!(all[1].starts_with("https://spdx.org/spdxdocs/b%20c-"), "{}", all[1]);
    assert_eq!(made(&first, "a").unwrap(), made(&first, "a").unwrap());
}

#[test]
fn a_dependency_that_is_not_locked_is_refused() {
    let mut lock = small();
    lock.packages.remove(2);
    let error = made(&lock, "small").unwrap_err();
    assert_eq!(
        error.message(),
        "writing an SBOM: package nvidia-container-toolkit depends on `libstdc++6`, which the lock does not have"
    );
}
