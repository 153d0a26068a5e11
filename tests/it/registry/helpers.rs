//! Credential helpers: the right one is asked once, and what goes wrong with one is told apart.

use std::time::{Duration, Instant};

use bedplate::oci::{Client, ClientConfig, Credentials};
use secrecy::ExposeSecret;
use serde_json::json;
use tempfile::TempDir;

use super::{amd64, docker_config, quick, source, write_program};
use crate::support::{
    image::ImageSpec,
    registry::{Kind, PASSWORD, Registry, USER},
};

/// A configuration whose helper for `host` is this script, found nowhere but in its own directory.
fn with_helper(host: &str, script: &str) -> (ClientConfig, TempDir, TempDir) {
    let programs = tempfile::tempdir().unwrap();
    write_program(programs.path(), "docker-credential-test", script);
    let dir = docker_config(&json!({"credHelpers": {host: "test"}}));
    let config = ClientConfig {
        docker_config: Some(dir.path().to_owned()),
        helper_path: Some(format!("{}:/usr/bin:/bin", programs.path().display())),
        helper_timeout: Duration::from_millis(500),
        ..quick()
    };
    (config, dir, programs)
}

#[tokio::test]
async fn a_helper_is_asked_once_for_many_images() {
    let registry = Registry::start(Kind::Basic).await;
    registry.push_image("a:1", &ImageSpec::default()).await;
    let script = format!(
        "#!/bin/sh\nread host\necho \"$1 $host\" >> \"$(dirname \"$0\")/asked\"\n\
         printf '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"
    );
    // `read` fails without a line end, which the protocol does not send.
    let script = script.replace("read host\n", "host=$(cat)\n");
    let (config, _dir, programs) = with_helper(&registry.host, &script);
    let client = Client::new(config);
    let wanted = vec![(source(format!("{}/a:1", registry.host)), amd64()); 8];
    for result in client.resolve_many(&wanted, |_, _| {}).await {
        result.unwrap();
    }
    let asked = std::fs::read_to_string(programs.path().join("asked")).unwrap();
    assert_eq!(asked, format!("get {}\n", registry.host));
    match client.credentials(&registry.host).await.unwrap() {
        Some(Credentials::Password { user, password }) => {
            assert_eq!((user.as_str(), password.expose_secret()), (USER, PASSWORD));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_goes_wrong_with_helpers() {
    for (script, says) in [
        ("#!/bin/sh\necho hunter2; echo hunter2 >&2; exit 3\n", Some("failed: exit status: 3")),
        ("#!/bin/sh\nsleep 60\n", Some("took longer than 0.5 s")),
        ("#!/bin/sh\necho hunter2\n", Some("answered in no form of its protocol")),
        ("#!/bin/sh\necho credentials not found in native keychain; exit 1\n", None),
    ] {
        let (config, _dir, _programs) = with_helper("r.example", script);
        let client = Client::new(config);
        let start = Instant::now();
        match (client.credentials("r.example").await, says) {
            (Err(error), Some(says)) => {
                assert!(error.message().contains("`docker-credential-test`"), "{error:?}");
                assert!(error.message().contains(says), "{error:?}");
                assert!(!format!("{error:?} {:?}", error.hints()).contains("hunter2"));
                assert!(!error.hints().is_empty());
                assert!(client.credentials("r.example").await.is_err(), "it stays an error");
            }
            (Ok(None), None) => {}
            (got, _) => panic!("{script}: {got:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(5), "asked once, and not for longer than allowed");
        assert!(client.credentials("other.example").await.unwrap().is_none());
    }
}
