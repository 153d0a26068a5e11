//! Credentials from Docker's configuration and its helpers (docs.docker.com, "docker login",
//! "Credential stores" and "Credential helpers").

use std::{path::Path, time::Duration};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{failure::login, read};
use crate::{
    error::{Error, Result},
    system::process::Command,
};

/// The largest configuration file and helper answer read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What one registry is logged in to with. Never printed: `Debug` leaves secrets out.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// User and password, or user and access token.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: SecretString,
    },
    /// An OAuth 2 refresh token, which is exchanged at the registry's token server.
    IdentityToken(SecretString),
}

impl Credentials {
    /// The value of an `Authorization: Basic` header, where there is a password.
    pub(super) fn basic(&self) -> Option<Zeroizing<String>> {
        use base64::Engine as _;
        let Self::Password { user, password } = self else { return None };
        let plain = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
        let encoded = base64::engine::general_purpose::STANDARD.encode(plain.as_bytes());
        Some(Zeroizing::new(format!("Basic {encoded}")))
    }
}

impl From<DockerCredential> for Credentials {
    fn from(credential: DockerCredential) -> Self {
        match credential {
            DockerCredential::IdentityToken(token) => Self::IdentityToken(token.into()),
            DockerCredential::UsernamePassword(user, password) => {
                Self::Password { user, password: password.into() }
            }
        }
    }
}

/// How helpers are run.
#[derive(Clone, Copy)]
pub(super) struct Helpers<'a> {
    /// `PATH` to find them in, where it is not the process's own.
    pub(super) path: Option<&'a str>,
    /// How long one may take.
    pub(super) limit: Duration,
}

/// What Docker's configuration calls a registry.
fn key(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

/// Looks up the credentials for a registry (host with port, as references write it). `None` where there
/// are none. A helper that fails or takes too long is an error.
pub(super) async fn look_up(dir: &Path, registry: &str, run: Helpers<'_>) -> Result<Option<Credentials>> {
    let path = dir.join("config.json");
    let Some(content) = read::to_limit(&path, LARGEST)?.map(Zeroizing::new) else { return Ok(None) };
    // The cause is left out on purpose: a parser's message may quote what it read.
    let mut config: Value = serde_json::from_slice(&content).map_err(|_| broken(&path))?;
    let Some(fields) = config.as_object_mut() else { return Err(broken(&path)) };
    // Helpers are run here and not by the library, which waits for them without a limit.
    let helpers = fields.remove("credHelpers");
    let store = fields.remove("credsStore");
    let own = helpers.as_ref().and_then(|h| h.get(key(registry)).or_else(|| h.get(registry)));
    if let Some(helper) = own.and_then(Value::as_str).filter(|name| !name.is_empty()) {
        return run_helper(helper, registry, run).await;
    }
    let content = Zeroizing::new(serde_json::to_vec(&config).map_err(|_| broken(&path))?);
    match docker_credential::get_credential_from_reader(content.as_slice(), key(registry)) {
        // `docker logout` and helpers leave an empty entry behind.
        Ok(DockerCredential::UsernamePassword(user, password)) if user.is_empty() && password.is_empty() => {}
        Ok(DockerCredential::IdentityToken(token)) if token.is_empty() => {}
        Ok(credential) => return Ok(Some(credential.into())),
        Err(CredentialRetrievalError::NoCredentialConfigured) => {}
        Err(CredentialRetrievalError::ConfigReadError) => return Err(broken(&path)),
        Err(_) => {
            return Err(Error::failed(format!(
                "the entry for `{registry}` in `{}` cannot be read",
                path.display()
            ))
            .hint(format!("run `{}` again", login(registry))));
        }
    }
    match store.as_ref().and_then(Value::as_str).filter(|name| !name.is_empty()) {
        Some(store) => run_helper(store, registry, run).await,
        None => Ok(None),
    }
}

fn broken(path: &Path) -> Error {
    Error::failed(format!("Docker's configuration `{}` is not valid JSON of its form", path.display()))
        .hint("mend it, or move it away and log in again")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks `docker-credential-NAME get` (github.com/docker/docker-credential-helpers, "Development").
async fn run_helper(name: &str, registry: &str, run: Helpers<'_>) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{name}");
    let shown = super::failure::excerpt(&program);
    let try_it = format!("try it by hand: `echo {} | {shown} get`", key(registry));
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(Error::failed(format!("`{shown}` is not the name of a credential helper"))
            .hint("correct `credHelpers` or `credsStore` in Docker's `config.json`"));
    }
    let mut command = Command::new(&program)
        .arg("get")
        .stdin_bytes(key(registry).as_bytes())
        .timeout(run.limit)
        .limit(LARGEST as usize)
        .hush();
    if let Some(path) = run.path {
        command = command.env("PATH", path);
    }
    let answer = command.run().await.map_err(|error| {
        Error::failed(format!("the credential helper `{program}` gave no answer for `{registry}`"))
            .because(error)
            .hint(format!("{try_it}; or correct `credHelpers` or `credsStore` in Docker's `config.json`"))
    })?;
    let (status, answer) = (answer.status, Zeroizing::new(answer.stdout));
    if !status.success() {
        // The one failure that means "none" has a fixed text (credentials/error.go). Nothing else of what a
        // helper prints is shown: it may be a secret.
        let text = String::from_utf8_lossy(&answer);
        if text.trim().starts_with("credentials not found") {
            return Ok(None);
        }
        return Err(Error::failed(format!("the credential helper `{program}` failed: {status}")).hint(try_it));
    }
    let answer: HelperAnswer = serde_json::from_slice(&answer).map_err(|_| {
        Error::failed(format!("the credential helper `{program}` answered in no form of its protocol"))
            .hint(try_it)
    })?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = SecretString::from(answer.secret);
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::IdentityToken(secret),
        user => Credentials::Password { user: user.to_owned(), password: secret },
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    const HELPERS: Helpers<'_> = Helpers { path: None, limit: Duration::from_secs(1) };

    async fn found(config: &str, registry: &str) -> Result<Option<Credentials>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        look_up(dir.path(), registry, HELPERS).await
    }

    #[tokio::test]
    async fn from_the_file() {
        // `user:secret`
        let auth = r#"{"auth":"dXNlcjpzZWNyZXQ="}"#;
        for (auths, registry) in [
            (format!(r#""h.io:5000":{auth}"#), "h.io:5000"),
            (format!(r#""https://h.io/v2/":{auth}"#), "h.io"),
            (format!(r#""https://index.docker.io/v1/":{auth}"#), "docker.io"),
        ] {
            let found = found(&format!(r#"{{"auths":{{{auths}}}}}"#), registry).await.unwrap().unwrap();
            assert_eq!(found.basic().unwrap().as_str(), "Basic dXNlcjpzZWNyZXQ=");
            assert!(!format!("{found:?}").contains("secret\""), "{found:?}");
        }
        let token = r#"{"auths":{"h.io":{"identitytoken":"t"}}}"#;
        assert!(matches!(found(token, "h.io").await.unwrap(), Some(Credentials::IdentityToken(_))));
        for none in [r"{}", r#"{"auths":{}}"#, r#"{"auths":{"h.io":{}}}"#] {
            assert!(found(none, "h.io").await.unwrap().is_none(), "{none}");
        }
        assert!(
            found(r#"{"auths":{"other.io":{"auth":"dXNlcjpzZWNyZXQ="}}}"#, "h.io").await.unwrap().is_none()
        );
    }

    #[tokio::test]
    async fn no_file_is_no_credentials() {
        let dir = tempfile::tempdir().unwrap();
        assert!(look_up(dir.path(), "h.io", HELPERS).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn broken_files_say_so_and_quote_nothing() {
        for bad in ["{", "[]", r#"{"auths":"hunter2"}"#, r#"{"auths":{"h.io":{"auth":"%hunter2%"}}}"#] {
            let error = found(bad, "h.io").await.unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            assert!(!error.hints().is_empty());
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there() {
        let error = found(r#"{"credsStore":"no-such-helper"}"#, "h.io").await.unwrap_err();
        assert!(error.message().contains("`docker-credential-no-such-helper` gave no answer"), "{error:?}");
        let error = found(r#"{"credHelpers":{"h.io":"../x"}}"#, "h.io").await.unwrap_err();
        assert!(error.message().contains("not the name"), "{error:?}");
        assert!(found(r#"{"credHelpers":{"h.io":"no-such"}}"#, "other.io").await.unwrap().is_none());
    }
}
