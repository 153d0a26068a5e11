//! From the machine's settings to clients: registries, and the logins that travel with a pull.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::Context;
use crate::{
    docker,
    error::Result,
    host::facts::registry_host,
    lock::Lock,
    oci::{Ca, Client, ClientConfig, Credentials, RegistryConfig},
};

/// A registry client by the configuration files and the user's Docker configuration.
pub fn client(context: &Context) -> Client {
    let registries = context
        .config
        .registry
        .iter()
        .map(|(host, registry)| {
            let settings = RegistryConfig {
                mirrors: registry.mirrors.clone(),
                ca: registry.ca.clone().or_else(|| docker_ca(host)).map(Ca::File),
                plain_http: registry.plain_http.then_some(true),
            };
            (host.clone(), settings)
        })
        .collect();
    let mut config =
        ClientConfig { registries, docker_config: docker_config(context), ..ClientConfig::default() };
    if let Some(seconds) = context.config.timeout_seconds {
        let limit = Duration::from_secs(seconds);
        (config.connect_timeout, config.response_timeout, config.stall_timeout) = (limit, limit, limit);
    }
    config.retries = context.config.retries.map_or(config.retries, |retries| retries.min(20));
    Client::new(config)
}

/// The directory of Docker's `config.json`.
fn docker_config(context: &Context) -> Option<PathBuf> {
    context
        .variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| context.home().map(|home| home.join(".docker")))
}

/// The authority Docker itself trusts for a registry (dockerd's `certs.d`).
fn docker_ca(host: &str) -> Option<PathBuf> {
    Some(PathBuf::from(format!("/etc/docker/certs.d/{host}/ca.crt"))).filter(|path| path.is_file())
}

/// Logins for the registries of a lock's images, by host. Those without are left out: the pull is anonymous.
pub async fn logins(context: &Context, lock: &Lock) -> Result<BTreeMap<String, docker::Credentials>> {
    let client = client(context);
    let mut logins = BTreeMap::new();
    for image in lock.images.values() {
        let Some(host) = registry_host(&image.reference) else { continue };
        if logins.contains_key(&host) {
            continue;
        }
        if let Some(found) = client.credentials(&host).await? {
            logins.insert(host, login(found));
        }
    }
    Ok(logins)
}

fn login(credentials: Credentials) -> docker::Credentials {
    match credentials {
        Credentials::Password { user, password } => {
            docker::Credentials { username: user, password, identity_token: None }
        }
        Credentials::IdentityToken(token) => docker::Credentials {
            username: String::new(),
            password: secrecy::SecretString::from(String::new()),
            identity_token: Some(token),
        },
    }
}
