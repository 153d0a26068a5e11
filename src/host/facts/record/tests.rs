//! What must not be in a file is not, and what is read is refused where it must be.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::{LIMIT, Words, read, write};
use crate::{
    error::Kind,
    host::{
        facts::*,
        smoke::engine::{EngineSmoke, Ran},
    },
};

const TOKEN: &str = "hf_QzWx8EdCr5FvTgB2yHnUj7MiKoLpA9s4";
const MAC: &str = "9c:6b:00:1f:aa:7e";
const UUID: &str = "5f1c2d3e-aaaa-4bbb-8ccc-0123456789ab";
const SERIAL: &str = "1652922004711";
const HOST: &str = "gpu17";

fn wanted() -> Wanted {
    Wanted {
        names: ["hub.corp.example".to_owned()].into(),
        hub: "https://huggingface.co".to_owned(),
        ..Wanted::default()
    }
}

/// Facts with everything that must not be in a file.
fn facts() -> Facts {
    let mut facts = Facts {
        boot_id: Known::Ok(UUID.to_owned()),
        os: Known::Ok(Os { id: "debian".to_owned(), release: None, name: format!("Debian on {HOST}") }),
        ..Facts::default()
    };
    let address = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    facts.listeners = Known::Ok(vec![
        Listener { protocol: "tcp".to_owned(), address: address(10, 7, 3, 9), port: 22, process: None },
        Listener { protocol: "tcp".to_owned(), address: address(127, 0, 0, 1), port: 8000, process: None },
    ]);
    facts
        .names
        .insert("hub.corp.example".to_owned(), Known::Ok(Resolution::Addresses(vec![address(10, 7, 3, 10)])));
    facts.memory = Known::unknown(format!(
        "asking https://me:{TOKEN}@vault.corp.example:8443/x from {HOST}.corp.example (10.7.3.9, fe80::9e6b:ff:fe1f:aa7e, {MAC}): \
         refused with {TOKEN}, board {UUID}. {HOST} again."
    ));
    facts.shm = Known::unknown("-----BEGIN OPENSSH PRIVATE KEY----- b3Blb");
    let device = Device {
        index: 0,
        name: Some("NVIDIA H100".to_owned()),
        uuid: Some(format!("GPU-{UUID}")),
        memory: None,
        mig: None,
        compute_capability: None,
        brand: None,
    };
    facts.nvml = Known::Ok(Nvml::Answers(Gpus { devices: vec![device], ..Gpus::default() }));
    facts.published = Known::Ok(vec![PublishedContainer {
        name: "db".to_owned(),
        image: "mirror.corp.example/db:1".to_owned(),
        ports: [PublishedPort {
            address: address(10, 7, 3, 9),
            port: 5432,
            container_port: 5432,
            protocol: "tcp".to_owned(),
        }]
        .into(),
        ..PublishedContainer::default()
    }]);
    let words = format!("loading from https://me:{TOKEN}@mirror.corp.example (10.7.3.9) failed: {TOKEN}");
    let ran = Ran::Ended { code: 1, at: Some("import vllm".to_owned()), words };
    facts.engines.insert("d".to_owned(), Known::Ok(EngineSmoke { image: "vllm".to_owned(), ran }));
    facts.daemon_keys = Known::Ok(
        [
            ("/registry-mirrors".to_owned(), "[\"https://mirror.corp.example:5000\"]".to_owned()),
            ("/log-opts/splunk-token".to_owned(), "\"correct-horse\"".to_owned()),
        ]
        .into(),
    );
    facts
}

#[test]
fn a_token_an_address_a_serial_and_a_name_are_not_in_the_file() {
    let text = write(&facts(), &Words::of(&wanted()), HOST).unwrap();
    for gone in [
        TOKEN,
        MAC,
        UUID,
        "10.7.3.9",
        "10.7.3.10",
        "fe80::9e6b",
        "vault.corp",
        "hub.corp",
        "mirror.corp",
        "gpu17.corp",
        "me:",
        "b3Blb",
        "correct-horse",
    ] {
        assert!(!text.contains(gone), "{gone} is in {text}");
    }
    // A host whose own name is the whole one is found by its first label as well.
    let text = write(&facts(), &Words::of(&wanted()), "gpu17.corp.example").unwrap();
    assert!(text.contains("from <host> ") && text.contains("<host> again"), "{text}");
    // What the rules look at is still there.
    for kept in ["127.0.0.1", "\"debian\"", "NVIDIA H100", "refused with", "import vllm"] {
        assert!(text.contains(kept), "{kept} is not in {text}");
    }
}

#[test]
fn whatever_names_a_part_is_left_out_by_its_key() {
    let words = Words::of(&wanted());
    let mut value =
        json!({ "devices": [{ "serial": SERIAL }, { "board_serial": { "ok": SERIAL }, "name": "H100" }] });
    super::scrub::Scrub::new(&words, HOST).all(&mut value);
    // The same word is the same in both places.
    assert_eq!(
        value,
        json!({ "devices": [{ "serial": "<id-1>" }, { "board_serial": { "ok": "<id-1>" }, "name": "H100" }] })
    );
}

#[test]
fn words_that_both_have_come_back() {
    let words = Words::of(&wanted());
    let text = write(&facts(), &words, HOST).unwrap();
    let recorded = read(text.as_bytes(), &words, "x").unwrap();
    assert!(recorded.same);
    assert!(recorded.facts.names.contains_key("hub.corp.example"), "{:?}", recorded.facts.names);
    // For another profile the names stay hidden, and that is said.
    let other = read(text.as_bytes(), &Words::of(&Wanted::default()), "x").unwrap();
    assert!(!other.same && !other.facts.names.contains_key("hub.corp.example"));
    // With the same names and another question the names come back, and it is said as well.
    let mut asks = wanted();
    asks.host.leak_paths.push("/srv/stacks".to_owned());
    let other = read(text.as_bytes(), &Words::of(&asks), "x").unwrap();
    assert!(!other.same && other.facts.names.contains_key("hub.corp.example"));
}

#[test]
fn ordinary_words_stay_as_they_are() {
    let words = Words::of(&wanted());
    for text in [
        "/etc/docker/daemon.json",
        "6.12.57+deb13-cloud-amd64",
        "`/data/huggingface/hub/models--Qwen--Qwen2.5/snapshots/0123456789abcdef0123456789abcdef01234567`: gone",
        "nvidia.com/gpu",
        "0000:0a:00.0",
        "/mnt/5f1c2d3e-aaaa-4bbb-8ccc-0123456789ab/huggingface",
        "starting docker.service failed",
        "native.cgroupdriver=systemd",
        "26.1.5+dfsg1",
        "812@4711",
        "libnvidia-ml.so.1 of 550.163.01",
        "[::]:2375 and 0.0.0.0",
        "docker.io/vllm/vllm-openai@sha256:9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015",
    ] {
        let mut value = Value::from(text);
        super::scrub::Scrub::new(&words, HOST).all(&mut value);
        assert_eq!(value, text);
    }
}

#[test]
fn what_is_no_recording_is_refused_with_its_reason() {
    let words = Words::of(&wanted());
    let good = write(&facts(), &words, HOST).unwrap();
    let other = |from: &str, to: &str| good.replacen(from, to, 1);
    let deep = format!("{{\"schema\":1,\"facts\":{}", "[".repeat(100_000));
    for (text, says) in [
        (String::new(), "it is not JSON, or was cut short"),
        (good[..good.len() / 2].to_owned(), "it is not JSON, or was cut short"),
        (deep, "it is not JSON, or was cut short"),
        ("\u{0}\u{1}".to_owned(), "it is not JSON"),
        ("[]".to_owned(), "it is not an object"),
        ("{}".to_owned(), "it has no `schema`"),
        (other("\"schema\": 1", "\"schema\": \"1\""), "it has no `schema`"),
        (other("\"schema\": 1", "\"schema\": 2"), "made by a newer bedplate; this one reads 1"),
        (other("\"facts\"", "\"facta\""), "it has no `facts`"),
        (other("\"listeners\": {", "\"listeners\": { \"odd\": 1, "), "does not know such facts"),
        (other("\"address\": \"198", "\"address\": \"x198"), "does not know such facts"),
    ] {
        let error = read(text.as_bytes(), &words, "case.json").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{says}");
        assert!(
            error.to_string().contains(says) && error.to_string().contains("case.json"),
            "{says}: {error}"
        );
        assert!(!error.hints().is_empty(), "{says}");
    }
    assert!((good.len() as u64) < LIMIT / 100);
}

#[test]
fn facts_that_are_missing_are_unknown() {
    let recorded = read(b"{\"schema\":1,\"facts\":{}}", &Words::of(&wanted()), "x").unwrap();
    assert_eq!(recorded.facts, Facts::default());
    assert!(!recorded.same);
}
