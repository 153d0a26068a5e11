//! The registry client against real registries and against ones that misbehave.

mod faults;
mod helpers;
mod layouts;
mod push;
mod real;

use std::{collections::BTreeMap, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bedplate::oci::{ClientConfig, Platform, RegistryConfig, Source};
use serde_json::json;
use tempfile::TempDir;

/// A configuration that does not keep a test waiting.
fn quick() -> ClientConfig {
    ClientConfig {
        backoff: Duration::from_millis(10),
        response_timeout: Duration::from_millis(400),
        connect_timeout: Duration::from_millis(600),
        stall_timeout: Duration::from_millis(400),
        retries: 2,
        ..ClientConfig::default()
    }
}

fn with_registry(host: &str, registry: RegistryConfig) -> ClientConfig {
    ClientConfig { registries: BTreeMap::from([(host.to_owned(), registry)]), ..quick() }
}

/// The same with a login for `host` in a Docker configuration, which lies in the directory returned.
fn with_login(mut config: ClientConfig, host: &str, user: &str, password: &str) -> (ClientConfig, TempDir) {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    let dir = docker_config(&json!({"auths": {host: {"auth": auth}}}));
    config.docker_config = Some(dir.path().to_owned());
    (config, dir)
}

fn docker_config(config: &serde_json::Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn source(text: impl AsRef<str>) -> Source {
    text.as_ref().parse().unwrap()
}

fn amd64() -> Platform {
    Platform::linux("amd64")
}

/// Standard output of a program that must succeed.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn write_program(dir: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
