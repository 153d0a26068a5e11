//! What travels to a host on standard input: the bundle, and secrets that never touch a disk.
//!
//! Form: the eight bytes `BEDPLATE`, the header's length (32 bit, big endian), the header as JSON,
//! then the bundle as tar, as long as the header says.

use std::{collections::BTreeMap, fmt, io::Read};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    error::{Doing as _, Error, Result},
    lock::bundle::Bundle,
};

const MAGIC: &[u8; 8] = b"BEDPLATE";
/// Size limit of the header, in bytes: secrets and credentials are short.
const HEADER_LIMIT: u32 = 4 << 20;
/// Size limit of the bundle, in bytes.
const BUNDLE_LIMIT: u64 = 256 << 20;

/// What the far end is to do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Print the plan, change nothing.
    pub dry_run: bool,
    /// Reboot when one is needed.
    pub reboot: bool,
    /// Leave the checks out.
    pub no_check: bool,
}

/// One request.
pub struct Request {
    /// What to do.
    pub options: Options,
    /// The pinned profile.
    pub bundle: Bundle,
    /// Secrets by name, resolved on the operator's side.
    pub secrets: BTreeMap<String, SecretString>,
    /// Registry credentials by registry host.
    pub credentials: BTreeMap<String, Login>,
}

/// How to log in to a registry.
#[derive(Clone)]
pub struct Login {
    /// User name; empty with an identity token.
    pub username: String,
    /// Password or token.
    pub password: SecretString,
    /// An identity token instead of a password.
    pub identity_token: Option<SecretString>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("options", &self.options)
            .field("bundle", &self.bundle.digest())
            .field("secrets", &self.secrets.keys())
            .field("credentials", &self.credentials.keys())
            .finish()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: String,
    options: Options,
    bundle: u64,
    secrets: BTreeMap<String, Zeroizing<String>>,
    credentials: BTreeMap<String, WireLogin>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLogin {
    username: String,
    password: Zeroizing<String>,
    identity_token: Option<Zeroizing<String>>,
}

fn open(secret: &SecretString) -> Zeroizing<String> {
    Zeroizing::new(secret.expose_secret().to_owned())
}

fn shut(text: &Zeroizing<String>) -> SecretString {
    SecretString::from(text.as_str())
}

impl Request {
    /// The bytes for the far end's standard input.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>> {
        let bundle = self.bundle.to_tar();
        let header = Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options: self.options.clone(),
            bundle: bundle.len() as u64,
            secrets: self.secrets.iter().map(|(name, value)| (name.clone(), open(value))).collect(),
            credentials: self
                .credentials
                .iter()
                .map(|(host, login)| {
                    let login = WireLogin {
                        username: login.username.clone(),
                        password: open(&login.password),
                        identity_token: login.identity_token.as_ref().map(open),
                    };
                    (host.clone(), login)
                })
                .collect(),
        };
        let header = Zeroizing::new(serde_json::to_vec(&header).doing(|| "writing the request failed")?);
        let length = u32::try_from(header.len())
            .ok()
            .filter(|length| *length <= HEADER_LIMIT)
            .ok_or_else(|| Error::failed("the secrets are too large to send"))?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(12 + header.len() + bundle.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&bundle);
        Ok(bytes)
    }

    /// Reads a request. Bounded: hostile lengths are refused before anything is allocated.
    ///
    /// # Errors
    /// It is not a request, was made by another version, is cut short, or holds no valid bundle.
    pub fn read(from: &mut dyn Read) -> Result<Self> {
        let wrong = || {
            Error::usage("standard input is not a request of `bedplate provision --host`")
                .hint("run `bedplate provision --host USER@NAME` on your own machine instead")
        };
        let mut start = [0; 12];
        from.read_exact(&mut start).map_err(|_| wrong())?;
        let (magic, length) = start.split_at(8);
        let length = u32::from_be_bytes(length.try_into().map_err(|_| wrong())?);
        if magic != MAGIC || length > HEADER_LIMIT {
            return Err(wrong());
        }
        let mut header = Zeroizing::new(vec![0; length as usize]);
        let cut = || Error::failed("the request was cut short").hint("check the connection, and run it again");
        from.read_exact(&mut header).map_err(|_| cut())?;
        // serde's message could quote a secret: it is left out.
        let header: Header = serde_json::from_slice(&header)
            .map_err(|_| Error::failed("the request was made by another version of bedplate"))?;
        if header.version != env!("CARGO_PKG_VERSION") {
            return Err(Error::failed(format!(
                "the request was made by bedplate {}, this is {}",
                header.version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        if header.bundle > BUNDLE_LIMIT {
            return Err(wrong());
        }
        let mut bundle = Vec::new();
        from.take(header.bundle).read_to_end(&mut bundle).doing(|| "reading the bundle failed")?;
        if bundle.len() as u64 != header.bundle {
            return Err(cut());
        }
        Ok(Self {
            options: header.options,
            bundle: Bundle::from_tar(&bundle)?,
            secrets: header.secrets.iter().map(|(name, value)| (name.clone(), shut(value))).collect(),
            credentials: header
                .credentials
                .iter()
                .map(|(host, login)| {
                    let login = Login {
                        username: login.username.clone(),
                        password: shut(&login.password),
                        identity_token: login.identity_token.as_ref().map(shut),
                    };
                    (host.clone(), login)
                })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"BEDPLATE\xff\xff\xff\xff", b"BEDPLATE\0\0\0\x09{}"] {
            assert!(Request::read(&mut &*bytes).is_err());
        }
    }

    #[test]
    fn an_error_never_quotes_the_header() {
        let header = br#"{"version":"0.1.0","secrets":{"A":["hf_secret"]}}"#;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(header);
        let error = Request::read(&mut &*bytes).unwrap_err();
        assert!(!format!("{error:?}").contains("hf_secret"));
    }
}
