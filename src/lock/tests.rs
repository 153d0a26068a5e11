#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    error::Kind,
    profile::{self, Deployment, Profile, services::ImageChoice},
};

/// A small valid profile with GPUs.
pub(super) fn profile() -> Profile {
    profile::parse("host.toml", PROFILE).unwrap()
}

pub(super) const PROFILE: &str = r#"schema = 1

[host]
distribution = "debian"
release = "trixie"
architecture = "amd64"
pin-packages = false

[gpu]
model = "H100"
count = 8

[driver]
flavor = "open"
version = "550.163.01"

[container]
engine = "docker"
gpu-access = "cdi"

[images]
vllm = "vllm/vllm-openai:v0.11.0"
agent = "registry.example/miner-agent:0.3.1"
"#;

pub(super) fn image(reference: &str, seed: &str) -> LockedImage {
    LockedImage {
        reference: reference.to_owned(),
        platform: "linux/amd64".to_owned(),
        index: Some(Digest::of(format!("{seed} index"))),
        manifest: Digest::of(format!("{seed} manifest")),
        config: Digest::of(format!("{seed} config")),
        download: 9_876_543_210,
        layers: vec![Digest::of(format!("{seed} 1")), Digest::of(format!("{seed} 2"))],
        facts: ImageFacts {
            cuda: Some("12.8.1".to_owned()),
            require: BTreeMap::from([(
                "NVIDIA_REQUIRE_CUDA".to_owned(),
                "cuda>=12.8 brand=tesla,driver>=550,driver<551".to_owned(),
            )]),
            disable_require: false,
            entrypoint: vec!["vllm".to_owned(), "serve".to_owned()],
            command: Vec::new(),
            user: Some("root".to_owned()),
        },
        verdict: Verdict {
            outcome: VerdictOutcome::Minor,
            because: "CUDA 12.8 wants driver 570.26 for its full feature level; \
                550.163.01 is at or above the 12.x floor 525.60.13"
                .to_owned(),
        },
    }
}

pub(super) fn example() -> Lock {
    let mut agent = image("registry.example/miner-agent:0.3.1", "agent");
    agent.index = None;
    agent.layers = Vec::new();
    agent.facts = ImageFacts {
        require: BTreeMap::from([
            ("NVIDIA_REQUIRE_CUDA".to_owned(), String::new()),
            ("NVIDIA_REQUIRE_DRIVER".to_owned(), "driver>=535".to_owned()),
        ]),
        disable_require: true,
        command: vec!["a \"quoted\"\nline".to_owned()],
        ..ImageFacts::default()
    };
    agent.verdict = Verdict { outcome: VerdictOutcome::NotApplicable, because: "no GPU".to_owned() };
    Lock {
        inputs: BTreeMap::from([
            ("h100-vllm.toml".to_owned(), Digest::of("profile")),
            ("../deployments/qwen72b.yaml".to_owned(), Digest::of("deployment")),
            ("cuda-drivers".to_owned(), Digest::of("table")),
        ]),
        images: BTreeMap::from([
            ("vllm".to_owned(), image("docker.io/vllm/vllm-openai:v0.11.0", "vllm")),
            ("registry.example/miner-agent:0.3.1".to_owned(), agent),
        ]),
        ..super::package_tests::example()
    }
}

const GOLDEN: &str = include_str!("../../tests/samples/lock/golden.lock");

#[test]
fn the_golden_file_is_what_is_written() {
    let lock = example();
    if std::env::var_os("BEDPLATE_BLESS").is_some() {
        std::fs::write("tests/samples/lock/golden.lock", write(&lock)).unwrap();
        return;
    }
    assert_eq!(write(&lock), GOLDEN, "set BEDPLATE_BLESS=1 to write it anew");
    assert_eq!(parse("golden.lock", GOLDEN).unwrap(), lock);
    // Comments and line ends change nothing.
    let other = GOLDEN.replace('\n', "\r\n").replace("version = 1", "version = 1 # ours");
    assert_eq!(parse("golden.lock", &other).unwrap().digest(), lock.digest());
}

#[test]
fn what_is_broken_says_where() {
    let digest = format!("{:?}", Digest::of("agent manifest").to_string());
    for (from, to, label) in [
        ("version = 1\n", "", "`version` is missing"),
        ("version = 1", "version = 0", "no lock has this version"),
        ("version = 1", "version = \"1\"", "whole number"),
        ("version = 1", "version = 1\nextra = 2", "unknown key `extra`"),
        ("[inputs]", "[input]", "unknown key `input`"),
        ("platform = \"linux/amd64\"", "platform = \"linux\"", "os/architecture"),
        ("download = 9876543210", "download = -1", ""),
        ("download = 9876543210", "size = 1", "unknown key `size`"),
        ("docker.io/vllm/vllm-openai:v0.11.0", "vllm/vllm-openai:v0.11.0", "docker.io/vllm"),
        ("docker.io/vllm/vllm-openai:v0.11.0", "Not A Reference", "not an image reference"),
        ("outcome = \"minor\"", "outcome = \"fine\"", "unknown variant"),
        ("user = \"root\"", "users = \"root\"", "unknown key `users`"),
        (digest.as_str(), "\"sha256:1234\"", "not a sha256 digest"),
        (digest.as_str(), "\"md5:1234\"", "not a sha256 digest"),
    ] {
        assert!(GOLDEN.contains(from), "{from}");
        let text = GOLDEN.replacen(from, to, 1);
        let error = parse("x.lock", &text).expect_err(to);
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().starts_with("`x.lock` is broken: "), "{error}");
        assert!(error.message().contains(label), "{to}: {error}");
        assert!(error.hints().iter().any(|hint| hint.contains("bedplate lock")), "{error}");
        let snippet = error.snippet().unwrap_or_else(|| panic!("{to}: has a place"));
        assert!(text.get(snippet.span.clone()).is_some(), "{to}: the place is in the text");
    }
    let merged = GOLDEN.replacen("[inputs]", "<<<<<<< HEAD\n[inputs]", 1);
    let error = parse("x.lock", &merged).unwrap_err();
    assert_eq!(error.message(), "`x.lock` holds an unresolved merge conflict");
    assert_eq!(error.snippet().map(|place| &merged[place.span.clone()]), Some("<<<<<<< HEAD"));
    assert!(parse("x.lock", "").unwrap_err().message().contains("`version` is missing"));
    for deep in ["[", "{a=", "a."] {
        let deep = format!("version = 1\na = {}", deep.repeat(1_000_000));
        assert!(parse("x.lock", &deep).is_err(), "nesting has a bound");
    }
    let large = "#".repeat(MAX_SIZE + 1);
    assert!(parse("x.lock", &large).unwrap_err().message().contains("at most"));
}

#[test]
fn a_newer_lock_is_not_a_broken_one() {
    let newer = GOLDEN.replacen("version = 1", "version = 2\nsomething = { else = true }", 1);
    let error = parse("x.lock", &newer).unwrap_err();
    assert_eq!(error.message(), "`x.lock` was made by a newer bedplate (lock version 2, this one reads 1)");
    // The same version and a higher revision: what is unknown is passed over.
    let additive = GOLDEN
        .replacen("revision = 0", "revision = 2\nsigned = true", 1)
        .replacen("user = \"root\"", "user = \"root\"\nshell = \"/bin/sh\"", 1)
        .replacen("outcome = \"minor\"", "outcome = \"minor\"\nsince = 1", 1);
    assert_eq!(parse("x.lock", &additive).unwrap(), example());
}

fn digests() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~\\n\\t\"'\\\\]{0,20}", "[a-z0-9-]{0,8}"]
}

fn facts() -> impl Strategy<Value = ImageFacts> {
    (
        proptest::option::of(texts()),
        prop_oneof![
            proptest::collection::btree_map(texts(), texts(), 0..3),
            texts().prop_map(|value| BTreeMap::from([("NVIDIA_REQUIRE_CUDA".to_owned(), value)])),
        ],
        any::<bool>(),
        proptest::collection::vec(texts(), 0..3),
        proptest::collection::vec(texts(), 0..3),
        proptest::option::of(texts()),
    )
        .prop_map(|(cuda, require, disable_require, entrypoint, command, user)| ImageFacts {
            cuda,
            require,
            disable_require,
            entrypoint,
            command,
            user,
        })
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    use VerdictOutcome::*;
    let outcome = prop_oneof![
        Just(Native),
        Just(Minor),
        Just(Forward),
        Just(Refuse),
        Just(Unknown),
        Just(NotApplicable)
    ];
    (outcome, texts()).prop_map(|(outcome, because)| Verdict { outcome, because })
}

fn images() -> impl Strategy<Value = LockedImage> {
    (
        "[a-z]{1,5}\\.example/[a-z]{1,5}:[a-z0-9]{1,5}|oci:[a-z/.]{1,9}(:[a-z]{1,3})?",
        prop_oneof![Just("linux/amd64"), Just("linux/arm64")],
        proptest::option::of(digests()),
        digests(),
        digests(),
        0..=(i64::MAX as u64),
        proptest::collection::vec(digests(), 0..3),
        facts(),
        verdicts(),
    )
        .prop_map(|(reference, platform, index, manifest, config, download, layers, facts, verdict)| {
            LockedImage {
                reference,
                platform: platform.to_owned(),
                index,
                manifest,
                config,
                download,
                layers,
                facts,
                verdict,
            }
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        inputs in proptest::collection::btree_map(texts(), digests(), 0..4),
        images in proptest::collection::btree_map(texts(), images(), 0..4),
    ) {
        let lock = Lock { inputs, images, ..Lock::default() };
        let text = write(&lock);
        let read = parse("x.lock", &text);
        prop_assert!(read.is_ok(), "{:?}\n{}", read, text);
        let read = read.unwrap();
        prop_assert_eq!(write(&read), text);
        prop_assert_eq!(read, lock);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>(), cut in 0..GOLDEN.len(), put in "[ -~]{0,3}") {
        let _ = parse("x.lock", &text);
        if GOLDEN.is_char_boundary(cut) {
            let _ = parse("x.lock", &GOLDEN[..cut]);
            let _ = parse("x.lock", &format!("{}{put}{}", &GOLDEN[..cut], &GOLDEN[cut..]));
        }
    }
}

#[test]
fn a_comment_or_another_order_is_not_another_profile() {
    let digest = profile_digest(&profile());
    let reordered = PROFILE
        .replace("vllm = \"vllm/vllm-openai:v0.11.0\"\n", "")
        .replace("[images]\n", "# changed\n[images]\n")
        + "vllm   =   'vllm/vllm-openai:v0.11.0' # the same\n";
    assert_eq!(profile_digest(&profile::parse("host.toml", &reordered).unwrap()), digest);
    for (from, to) in [
        ("count = 8", "count = 4"),
        ("v0.11.0", "v0.11.1"),
        ("550.163.01", "550"),
        ("[images]", "[container.daemon]\nlive-restore = false\n\n[images]"),
    ] {
        let other = profile::parse("host.toml", &PROFILE.replacen(from, to, 1)).unwrap();
        assert_ne!(profile_digest(&other), digest, "{to}");
    }
}

#[test]
fn a_comment_or_another_order_is_not_another_image() {
    let text = "schema = 1\nprofile = \"host\"\nformats = [\"tar\", \"disk\"]\n[disk]\nsize-mib = 8192\n";
    let digest = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        image_definition_digest(
            &profile::image_definition::parse("x.toml", &text.replacen(from, to, 1)).unwrap(),
        )
    };
    let same = digest("schema", "schema");
    for (from, to) in [
        ("[disk]", "# changed\n[disk]"),
        ("[\"tar\", \"disk\"]", "[ 'disk', 'tar' ]"),
        ("\"host\"", "\"../profiles/host.toml\""),
        ("[disk]", "network = \"dhcp\"\n[disk]\nesp-mib = 512\nroot = \"ext4\"\nkernel-parameters = []"),
    ] {
        assert_eq!(digest(from, to), same, "{to}");
    }
    for (from, to) in [
        ("\"host\"", "\"other\""),
        ("\"tar\", ", ""),
        ("8192", "8193"),
        ("[disk]", "first-boot = [\"machine-id\"]\n[disk]"),
        ("[disk]", "network = \"profile\"\n[disk]"),
        ("[disk]", "hostname = { policy = \"machine-id\" }\n[disk]"),
        ("[disk]", "include = [\"packages\"]\n[disk]"),
        ("[disk]", "[disk]\nroot = \"erofs\""),
    ] {
        assert_ne!(digest(from, to), same, "{to}");
    }
}

#[test]
fn staleness_names_the_input() {
    let profile = profile();
    let none: BTreeMap<String, Deployment> = BTreeMap::new();
    let sources = BTreeMap::from([("keys/a.asc".to_owned(), b"key".to_vec())]);
    let now = inputs("host.toml", &profile, &none, &sources);
    let wanted = wanted(&profile, &[]).unwrap();
    let lock = Lock {
        inputs: now.clone(),
        images: wanted.iter().map(|(name, w)| (name.clone(), image(&w.reference, name))).collect(),
        ..Lock::default()
    };
    assert!(freshness(&lock, &now, &wanted).is_fresh());

    let reasons = |lock: &Lock| freshness(lock, &now, &wanted).reasons().to_vec();
    let mut changed = lock.clone();
    changed.inputs.insert("host.toml".into(), Digest::of("old"));
    changed.inputs.remove("keys/a.asc");
    changed.inputs.insert("gone.yaml".into(), Digest::of("gone"));
    assert_eq!(
        reasons(&changed),
        [
            StaleReason::InputChanged("host.toml".into()),
            StaleReason::InputAdded("keys/a.asc".into()),
            StaleReason::InputRemoved("gone.yaml".into()),
        ]
    );
    let mut changed = lock.clone();
    let vllm = changed.images.remove("vllm").unwrap();
    changed.images.insert("extra".into(), vllm);
    changed.images.get_mut("agent").unwrap().reference = "registry.example/miner-agent:0.3.0".into();
    let told: Vec<String> = reasons(&changed).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "image `agent` is locked as `registry.example/miner-agent:0.3.0`, and wanted as `registry.example/miner-agent:0.3.1`",
            "image `vllm` (`docker.io/vllm/vllm-openai:v0.11.0`) is not locked",
            "image `extra` is locked and no longer wanted",
        ]
    );
}

#[test]
fn floating_tags_must_be_meant() {
    let floating = PROFILE.replace(":v0.11.0", "");
    // The reader of profiles may already refuse it; the lock does in any case.
    if let Ok(profile) = profile::parse("host.toml", &floating) {
        assert!(wanted(&profile, &[]).unwrap_err().hints()[0].contains("floating = true"));
    }
    let mut profile = profile();
    let vllm = profile.images.get_mut("vllm").unwrap();
    vllm.reference = "vllm/vllm-openai".into();
    assert!(wanted(&profile, &[]).unwrap_err().message().contains("floating"));
    profile.images.get_mut("vllm").unwrap().floating = true;
    let wanted = wanted(&profile, &[]).unwrap();
    assert_eq!(wanted["vllm"].reference, "docker.io/vllm/vllm-openai:latest");
    assert!(wanted["vllm"].floating);
}

#[test]
fn images_are_found_by_name_and_by_reference() {
    let profile = profile();
    let lock = Lock {
        inputs: BTreeMap::new(),
        images: BTreeMap::from([
            ("vllm".to_owned(), image("docker.io/vllm/vllm-openai:v0.11.0", "vllm")),
            ("agent".to_owned(), image("registry.example/miner-agent:0.3.0", "agent")),
        ]),
        ..Lock::default()
    };
    let found = |choice: ImageChoice| find(&lock, &profile, &choice).map(|(key, _)| key.to_owned());
    assert_eq!(found(ImageChoice::Named("vllm".into())).as_deref(), Some("vllm"));
    assert_eq!(found(ImageChoice::Reference("vllm/vllm-openai:v0.11.0".into())).as_deref(), Some("vllm"));
    assert_eq!(found(ImageChoice::Reference("vllm/vllm-openai:v0.12.0".into())), None);
    assert_eq!(found(ImageChoice::Named("agent".into())), None, "locked under another reference");
    assert_eq!(found(ImageChoice::Named("smoke".into())), None);
    assert_eq!(found(ImageChoice::Reference("not a reference".into())), None);
    let (_, vllm) = find(&lock, &profile, &ImageChoice::Named("vllm".into())).unwrap();
    assert_eq!(vllm.pull_reference(), format!("docker.io/vllm/vllm-openai@{}", Digest::of("vllm manifest")));
    assert!(!vllm.is_layout());
    assert!(image("oci:dir:tag", "x").pull_reference().starts_with("oci:dir@sha256:"));
}

#[test]
fn every_shipped_profile_and_deployment_is_read() {
    let mut seen = 0;
    for entry in std::fs::read_dir("profiles").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let profile = profile::parse(&name, &text).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let bundled: BTreeMap<String, Vec<u8>> = profile
            .input_paths()
            .into_iter()
            .map(|input| (input.to_owned(), std::fs::read(path.with_file_name(input)).unwrap()))
            .collect();
        let pinned = bundle::Bundle::assemble(&name, &text, &write(&Lock::default()), bundled)
            .unwrap()
            .open()
            .unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let deployments: Vec<&Deployment> = pinned.deployments.values().collect();
        let wanted = wanted(&profile, &deployments).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let named = !profile.images.is_empty() || !deployments.is_empty();
        assert_eq!(!wanted.is_empty(), named, "{name}");
        // Each image a deployment starts is found in a lock of what is wanted.
        let lock = Lock {
            inputs: BTreeMap::new(),
            images: wanted.iter().map(|(name, w)| (name.clone(), image(&w.reference, name))).collect(),
            ..Lock::default()
        };
        for choice in deployments.iter().flat_map(|deployment| deployment.images()) {
            assert!(find(&lock, &profile, &choice).is_some(), "{name}: {choice:?}");
        }
        seen += 1;
    }
    assert!(seen >= 2);
    for entry in std::fs::read_dir("deployments").unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        profile::deployment::parse("x.yaml", &text).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
    }
}

#[test]
fn a_changed_port_does_not_make_a_lock_stale_and_a_changed_image_does() {
    let text = "name: q\nengine: vllm\nmodel: a/b\n";
    let digest =
        |text: &str| deployment_digest(&profile::deployment::parse("q.yaml", text).unwrap().deployment);
    let plain = digest(text);
    assert_eq!(digest(&format!("{text}port: 9000\n")), plain);
    assert_ne!(digest(&format!("{text}image: r.example/vllm:1\n")), plain);
    assert_ne!(digest(&text.replace("engine: vllm", "engine: sglang")), plain);
    assert_eq!(
        digest(&format!("{text}image: ubuntu:24.04\n")),
        digest(&format!("{text}image: docker.io/library/ubuntu:24.04\n"))
    );
}

#[test]
fn a_deployment_brings_its_images() {
    let profile = profile();
    let parse = |text: &str| profile::deployment::parse("q.yaml", text).unwrap().deployment;
    let same = parse("name: q\nengine: vllm\nmodel: a/b\nimage: docker.io/vllm/vllm-openai:v0.11.0\n");
    assert_eq!(wanted(&profile, &[&same]).unwrap().len(), 2, "the profile has it already");
    let other = parse("name: q\nengine: vllm\nmodel: a/b\nimage: r.example/vllm\n");
    let images = wanted(&profile, &[&other]).unwrap();
    assert!(images["r.example/vllm:latest"].floating, "a deployment's floating tag is pinned by the lock");
    let unnamed = parse("name: q\nengine: sglang\nmodel: a/b\n");
    let error = wanted(&profile, &[&unnamed]).unwrap_err();
    assert!(error.message().contains("`sglang`"), "{error}");
}
