//! The form in which secrets and registry credentials travel to another host: on standard input alone.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::SecretValues;
use crate::{
    docker::Credentials,
    error::{Error, Result},
};

/// What travels.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Secrets.
    pub secrets: SecretValues,
    /// Registry credentials, by registry as references name it.
    pub registries: BTreeMap<String, Credentials>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    secrets: BTreeMap<String, String>,
    registries: BTreeMap<String, Registry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    username: String,
    password: String,
    identity_token: Option<String>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.secrets.values_mut().for_each(Zeroize::zeroize);
        for registry in self.registries.values_mut() {
            registry.password.zeroize();
            registry.identity_token.zeroize();
        }
    }
}

impl Frame {
    /// One line of JSON. It is wiped when it is dropped.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        let wire = Wire {
            version: 1,
            secrets: self
                .secrets
                .iter()
                .map(|(name, value)| (name.to_owned(), value.expose_secret().to_owned()))
                .collect(),
            registries: self
                .registries
                .iter()
                .map(|(name, credentials)| {
                    let token = credentials.identity_token.as_ref();
                    let registry = Registry {
                        username: credentials.username.clone(),
                        password: credentials.password.expose_secret().to_owned(),
                        identity_token: token.map(|token| token.expose_secret().to_owned()),
                    };
                    (name.clone(), registry)
                })
                .collect(),
        };
        // Large enough not to be moved while it is filled, which would leave copies behind.
        let size: usize = wire.secrets.iter().map(|(name, value)| name.len() + 6 * value.len() + 16).sum();
        let mut line = Zeroizing::new(Vec::with_capacity(size + 4096 * (wire.registries.len() + 1)));
        serde_json::to_writer(&mut *line, &wire)
            .map_err(|_| Error::failed("encoding secrets for the host"))?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads what [`Frame::encode`] wrote. An error says nothing of the content.
    pub fn decode(line: &[u8]) -> Result<Self> {
        let mut wire: Wire = serde_json::from_slice(line).map_err(|_| {
            Error::failed("the secrets on standard input are not in the form this bedplate reads")
        })?;
        if wire.version != 1 {
            return Err(Error::failed("the secrets on standard input come from another version of bedplate"));
        }
        let mut frame = Self::default();
        for (name, value) in std::mem::take(&mut wire.secrets) {
            super::check_name(&name)?;
            frame.secrets.insert(name, SecretString::from(value));
        }
        for (name, mut registry) in std::mem::take(&mut wire.registries) {
            frame.registries.insert(
                name,
                Credentials {
                    username: std::mem::take(&mut registry.username),
                    password: SecretString::from(std::mem::take(&mut registry.password)),
                    identity_token: registry.identity_token.take().map(SecretString::from),
                },
            );
        }
        Ok(frame)
    }
}
