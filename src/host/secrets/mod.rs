//! Secrets on the host: in the clear on tmpfs only, over a reboot as systemd credentials encrypted to the
//! host. No value is ever in an argument, an environment, an error, the journal or a generation.

mod frame;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use zeroize::Zeroizing;

pub use self::{
    frame::Frame,
    resolve::{Resolved, add_from_host, resolve},
};
use super::{
    generations::{Generations, note_credential},
    layout::{CREDENTIALS, RUN, SECRETS},
};
use crate::{
    error::{Doing as _, Error, Result},
    plan::Record,
    profile::{Profile, SecretSource},
    system::{
        files::{self, Owner, Root},
        process::Command,
    },
};

/// Largest secret, in bytes: it becomes an environment variable, and execve(2) takes no longer one
/// (`MAX_ARG_STRLEN`, 32 pages of 4 KiB).
pub const MAX_SIZE: u64 = 128 * 1024 - 1;

/// Values of secrets, by name. Shows no value in `Debug`; each is wiped from memory when it is dropped.
#[derive(Debug, Clone, Default)]
pub struct SecretValues(BTreeMap<String, SecretString>);

impl SecretValues {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a value.
    pub fn insert(&mut self, name: impl Into<String>, value: SecretString) {
        self.0.insert(name.into(), value);
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// Where one secret of the profile stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Where its value comes from, without the value.
    pub source: String,
    /// It lies on tmpfs.
    pub present: bool,
    /// Its file is root's alone.
    pub shut: bool,
    /// It is kept over a reboot.
    pub kept: bool,
}

/// Whether the host can keep secrets over a reboot.
pub fn can_keep() -> bool {
    ["/usr/bin/systemd-creds", "/bin/systemd-creds"].iter().any(|path| files::exists(Path::new(path)))
}

pub(crate) fn same(a: &SecretString, b: &SecretString) -> bool {
    a.expose_secret() == b.expose_secret()
}

fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(fine) {
        return Err(Error::usage(format!("`{}` cannot be a secret's name", name.escape_debug()))
            .hint("use letters, digits, `_`, `-` and `.`"));
    }
    Ok(())
}

fn file_of(name: &str) -> Result<String> {
    check_name(name).map(|()| format!("{SECRETS}/{name}"))
}

fn credential_file(id: &str) -> Result<String> {
    check_name(id).map(|()| format!("{CREDENTIALS}/{id}.cred"))
}

/// The value of a secret on this host. `None`: it is not there.
pub fn read(root: &Root, name: &str) -> Result<Option<SecretString>> {
    let Some(content) = root.read(&file_of(name)?, MAX_SIZE)? else { return Ok(None) };
    value_of(name, Zeroizing::new(content)).map(Some)
}

/// A value from bytes: text without NUL, for it becomes an environment variable.
fn value_of(name: &str, content: Zeroizing<Vec<u8>>) -> Result<SecretString> {
    let text = std::str::from_utf8(&content)
        .map_err(|_| Error::failed(format!("the value of secret `{name}` is not UTF-8 text")))?;
    if text.contains('\0') {
        return Err(Error::failed(format!("the value of secret `{name}` has a NUL byte")));
    }
    if text.is_empty() {
        return Err(Error::failed(format!("the value of secret `{name}` is empty")));
    }
    if content.len() as u64 > MAX_SIZE {
        return Err(Error::failed(format!("the value of secret `{name}` is longer than {MAX_SIZE} bytes")));
    }
    Ok(SecretString::from(text))
}

/// Makes the folder on tmpfs.
///
/// # Errors
/// `/run` is no tmpfs: a secret would reach a disk.
fn folder(root: &Root) -> Result<()> {
    let kind = root.file_system(SECRETS)?;
    if kind != "tmpfs" && kind != "ramfs" {
        return Err(Error::failed(format!(
            "`{SECRETS}` would be on {kind}, and secrets are held on tmpfs alone"
        ))
        .hint(format!("mount a tmpfs there: `mount -t tmpfs -o mode=0700 tmpfs {SECRETS}`")));
    }
    if root.stat(RUN)?.is_none() {
        root.make_dir(RUN, 0o755, Owner::ROOT)?;
    }
    root.make_dir(SECRETS, 0o700, Owner::ROOT)
}

/// Puts a secret on tmpfs.
pub(crate) fn put(root: &Root, name: &str, value: &SecretString) -> Result<()> {
    folder(root)?;
    root.write(&file_of(name)?, value.expose_secret().as_bytes(), 0o400, Owner::ROOT)
}

/// Keeps a secret as systemd credential `id`, encrypted to this host.
pub(crate) async fn keep(root: &Root, id: &str, value: &SecretString) -> Result<()> {
    let path = credential_file(id)?;
    let sealed = Command::new("systemd-creds")
        .args(["encrypt", &format!("--name={id}"), "-", "-"])
        .stdin_bytes(value.expose_secret().as_bytes().to_vec())
        .timeout(Duration::from_mins(1))
        .check()
        .await
        .doing(|| format!("encrypting secret `{id}` to this host"))?;
    root.make_dir(CREDENTIALS, 0o700, Owner::ROOT)?;
    root.write(&path, &sealed.stdout, 0o600, Owner::ROOT)
}

/// The value of systemd credential `id`.
async fn unseal(root: &Root, id: &str) -> Result<SecretString> {
    let sealed = root.read(&credential_file(id)?, 4 * MAX_SIZE)?.ok_or_else(|| {
        Error::failed(format!("there is no credential `{id}` on this host"))
            .hint(format!("store it: `bedplate secret set {id}`"))
    })?;
    let mut open = Command::new("systemd-creds")
        .args(["decrypt", &format!("--name={id}"), "-", "-"])
        .stdin_bytes(sealed)
        .timeout(Duration::from_mins(1))
        .check()
        .await
        .doing(|| format!("decrypting credential `{id}`; it opens only on the host it was made on"))?;
    value_of(id, Zeroizing::new(std::mem::take(&mut open.stdout)))
}

/// Brings one secret from its credential to tmpfs.
pub(crate) async fn restore(root: &Root, name: &str, id: &str) -> Result<()> {
    let value = unseal(root, id).await?;
    put(root, name, &value)
}

/// Removes a secret from tmpfs.
pub(crate) fn remove(root: &Root, name: &str) -> Result<()> {
    root.remove_file(&file_of(name)?).map(drop)
}

/// Removes systemd credential `id`.
pub(crate) fn remove_credential(root: &Root, id: &str) -> Result<()> {
    root.remove_file(&credential_file(id)?).map(drop)
}

/// The credential a secret is kept as, going by its source.
fn credential_of<'a>(name: &'a str, source: &'a SecretSource) -> &'a str {
    if let SecretSource::Credential(id) = source { id } else { name }
}

/// What came back after a boot.
#[derive(Debug, Default)]
pub struct Restored {
    /// Names of the secrets that are on tmpfs now.
    pub names: Vec<String>,
    /// Why others are not.
    pub failed: Vec<Error>,
}

/// Brings the current generation's secrets back to tmpfs after a boot. One that fails does not hold up the
/// others.
pub async fn restore_at_boot(root: &Root) -> Result<Restored> {
    let mut out = Restored::default();
    let generations = Generations::new(root);
    let Some(current) = generations.current()? else { return Ok(out) };
    let profile = generations.bundle(current.about.number).and_then(|bundle| bundle.open());
    let profile = profile.map_err(|error| out.failed.push(error)).ok().map(|pinned| pinned.profile);
    restore_those(root, &current.record, profile.as_ref(), &mut out).await?;
    Ok(out)
}

/// The record names credentials as they were when it was written; one stored since goes by the profile.
async fn restore_those(
    root: &Root,
    record: &Record,
    profile: Option<&Profile>,
    out: &mut Restored,
) -> Result<()> {
    let sources = profile.map(|profile| &profile.secrets);
    let names: BTreeSet<&String> =
        record.secrets.keys().chain(sources.into_iter().flatten().map(|(name, _)| name)).collect();
    for name in names {
        if root.stat(&file_of(name)?)?.is_some() {
            out.names.push(name.clone());
            continue;
        }
        let noted = record.secrets.get(name).and_then(|owned| owned.credential.as_deref());
        let source = sources.and_then(|sources| sources.get(name));
        let mut found = None;
        for id in
            noted.into_iter().chain(source.map(|source| credential_of(name, source))).chain([name.as_str()])
        {
            if root.stat(&credential_file(id)?)?.is_some() {
                found = Some(id);
                break;
            }
        }
        match (found.or(noted), source) {
            (None, Some(SecretSource::Credential(_))) => out.failed.push(
                Error::failed(format!("secret `{name}` was never stored on this host"))
                    .hint(format!("store it: `bedplate secret set {name}`")),
            ),
            (None, _) => out.failed.push(
                Error::failed(format!("secret `{name}` was not kept over the reboot"))
                    .hint("give it again: `bedplate provision`"),
            ),
            (Some(id), _) => match restore(root, name, id).await {
                Ok(()) => out.names.push(name.clone()),
                Err(error) => out.failed.push(error),
            },
        }
    }
    Ok(())
}

/// Stores the value of a secret as a credential of this host, and puts it on tmpfs where the profile names it;
/// the current generation's record then names the credential. Call it under the host's lock.
///
/// # Errors
/// A bad name or value; the host has no `systemd-creds`.
pub async fn set(root: &Root, profile: Option<&Profile>, name: &str, value: &SecretString) -> Result<()> {
    check_name(name)?;
    let value = value_of(name, Zeroizing::new(value.expose_secret().as_bytes().to_vec()))?;
    let source = profile.and_then(|profile| profile.secrets.get(name));
    let id = source.map_or(name, |source| credential_of(name, source));
    if !can_keep() {
        return Err(Error::failed("this host has no `systemd-creds` to keep a secret with")
            .hint("it comes with systemd 250 and later"));
    }
    keep(root, id, &value).await?;
    if let Some(source) = source {
        note_credential(root, name, id, !matches!(source, SecretSource::Credential(_)))?;
        put(root, name, &value)?;
    }
    Ok(())
}

/// Where every secret of the profile stands on this host.
pub fn status(root: &Root, profile: &Profile) -> Result<Vec<Status>> {
    profile
        .secrets
        .iter()
        .map(|(name, source)| {
            let stat = root.stat(&file_of(name)?)?;
            let (id, source) = match source {
                SecretSource::Env(variable) => (name, format!("environment variable {variable}")),
                SecretSource::File(path) => (name, format!("file {path}")),
                SecretSource::Credential(id) => (id, format!("credential {id}")),
                SecretSource::Age(path) => (name, format!("age file {path}")),
                SecretSource::Command(argv) => {
                    (name, format!("command {}", argv.first().map_or("", String::as_str)))
                }
            };
            Ok(Status {
                name: name.clone(),
                source,
                present: stat.is_some(),
                shut: stat.is_some_and(|stat| stat.mode == 0o400 && stat.uid == 0),
                kept: root.stat(&credential_file(id)?)?.is_some(),
            })
        })
        .collect()
}
