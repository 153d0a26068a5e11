//! Values from where the profile says they come from, on the operator's side.

use std::{
    collections::BTreeMap,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{MAX_SIZE, SecretValues, value_of};
use crate::{
    error::{Doing as _, Error, Result},
    profile::{Profile, SecretSource},
    system::{
        files::{self, Root},
        process::Command,
    },
};

/// How long a command may take that prints a secret.
const COMMAND: Duration = Duration::from_mins(1);

/// Values that were found, and why others were not.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The values.
    pub values: SecretValues,
    /// Names without a value here, and why. The host may have them still.
    pub absent: Vec<(String, String)>,
}

/// Finds the values of a profile's secrets where the operator is: `environment` is the operator's,
/// relative paths and commands start at `folder`, the profile's.
///
/// # Errors
/// A file that others may read or that is a link, a command that fails, a value that is no text; all of
/// them at once.
pub async fn resolve(
    profile: &Profile,
    environment: &BTreeMap<String, String>,
    folder: &Path,
) -> Result<Resolved> {
    let mut out = Resolved::default();
    let mut errors = Vec::new();
    for (name, source) in &profile.secrets {
        match one(name, source, environment, folder).await {
            Ok(Found::Value(value)) => out.values.insert(name, value),
            Ok(Found::No(why)) => out.absent.push((name.clone(), why)),
            Err(error) => errors.push(error),
        }
    }
    Error::join(errors).map_or(Ok(out), Err)
}

enum Found {
    Value(SecretString),
    No(String),
}

async fn one(
    name: &str,
    source: &SecretSource,
    environment: &BTreeMap<String, String>,
    folder: &Path,
) -> Result<Found> {
    match source {
        SecretSource::Env(variable) => match environment.get(variable).filter(|value| !value.is_empty()) {
            Some(value) => value_of(name, Zeroizing::new(value.clone().into_bytes())).map(Found::Value),
            None => Ok(Found::No(format!("`{variable}` is not set here"))),
        },
        SecretSource::File(path) => {
            let place = folder.join(path);
            match read_private(&place)? {
                Some(content) => value_of(name, trimmed(content)).map(Found::Value),
                None => Ok(Found::No(format!("`{}` is not here", place.display()))),
            }
        }
        SecretSource::Credential(id) => Ok(Found::No(format!("it is credential `{id}` of the host"))),
        SecretSource::Age(_) => {
            Err(Error::usage(format!("secret `{name}` comes from an age file, which a later version reads"))
                .hint("use `env`, `file`, `credential` or `command` for now"))
        }
        SecretSource::Command(argv) => {
            let (program, arguments) = argv
                .split_first()
                .ok_or_else(|| Error::usage(format!("the command of secret `{name}` is empty")))?;
            let mut command = Command::new(program).directory(folder).timeout(COMMAND).hush();
            command = command.limit(usize::try_from(MAX_SIZE).unwrap_or(usize::MAX));
            for argument in arguments {
                command = command.arg_hidden(argument);
            }
            let mut output =
                command.check().await.doing(|| format!("running the command of secret `{name}`")).map_err(
                    |error| {
                        error.hint(
                        "run that command by hand: what it says is not shown here, it may hold the secret",
                    )
                    },
                )?;
            let content = Zeroizing::new(std::mem::take(&mut output.stdout));
            value_of(name, trimmed(content)).map(Found::Value)
        }
    }
}

/// Without one final line end.
fn trimmed(mut content: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if content.last() == Some(&b'\n') {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    content
}

/// A file of the operator's that nobody else may read. `None`: it is not there.
fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let shown = path.display();
    let seen = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        seen => seen.doing(|| format!("reading `{shown}`"))?,
    };
    if seen.file_type().is_symlink() {
        return Err(Error::failed(format!("`{shown}` is a link, and a secret's file must not be"))
            .hint("name the file itself in the profile"));
    }
    let (mut file, _) = files::open_input(path)?;
    // What was opened decides, and it must be what was looked at.
    let opened = file.metadata().doing(|| format!("reading `{shown}`"))?;
    if (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
        return Err(
            Error::failed(format!("`{shown}` was replaced while it was read")).hint("run the command again")
        );
    }
    check_mode(&shown.to_string(), opened.permissions().mode() & 0o7777)?;
    let mut content = Zeroizing::new(Vec::new());
    (&mut file).take(MAX_SIZE + 3).read_to_end(&mut content).doing(|| format!("reading `{shown}`"))?;
    Ok(Some(content))
}

fn check_mode(path: &str, mode: u32) -> Result<()> {
    if mode.trailing_zeros() >= 6 {
        return Ok(());
    }
    Err(Error::failed(format!("`{path}` holds a secret and others may open it: mode {:04o}", mode & 0o7777))
        .hint(format!("shut it: `chmod 600 {path}`")))
}

/// Adds secrets whose source is a file that is not on the operator's side but on the host itself.
pub fn add_from_host(root: &Root, profile: &Profile, values: &mut SecretValues) -> Result<()> {
    for (name, source) in &profile.secrets {
        let SecretSource::File(path) = source else { continue };
        if values.get(name).is_some() || !path.starts_with('/') {
            continue;
        }
        let Some(stat) = root.stat(path)? else { continue };
        check_mode(path, stat.mode)?;
        if let Some(content) = root.read(path, MAX_SIZE + 2)? {
            values.insert(name, value_of(name, trimmed(Zeroizing::new(content)))?);
        }
    }
    Ok(())
}
