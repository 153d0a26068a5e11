//! Secrets of a deployment as files on tmpfs, which its containers mount read-only.
//!
//! `DEPLOYMENT/SERVICE/VARIABLE` for variables, `DEPLOYMENT/SERVICE/file-N` for files a program reads itself (a name no
//! variable can have, so the launcher leaves them alone). All above is root's, 0700; the directory and the files are
//! the container user's, 0500 and 0400.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::{Paths, launch::must_be_volatile};
use crate::{
    docker::Docker,
    error::{Error, Result},
    profile::services::{SecretUse, Service},
    system::{
        files::{Owner, Root},
        users::Users,
    },
};

/// Where a container has its variables. The launcher knows it too.
pub const IN_CONTAINER: &str = "/.bedplate/secrets";

/// The largest secret, in bytes: what one variable may hold (execve(2), `MAX_ARG_STRLEN`).
const LIMIT: u64 = 128 << 10;

/// The directory of a service's secrets on the host.
pub fn directory(paths: &Paths, deployment: &str, service: &str) -> String {
    format!("{}/{deployment}/{service}", paths.secrets)
}

/// The name of the `number`th secret file in that directory.
pub(super) fn file_name(number: usize) -> String {
    format!("file-{number}")
}

/// The files of a service: name to content.
///
/// # Errors
/// A required secret has no value, or a value cannot be a variable's. No value is in a message.
pub fn files(
    service: &Service,
    values: &BTreeMap<String, SecretString>,
) -> Result<BTreeMap<String, SecretString>> {
    let mut files = BTreeMap::new();
    let value = |wanted: &SecretUse| match values.get(&wanted.secret) {
        Some(value) => Ok(Some(value.expose_secret())),
        None if wanted.required => Err(Error::failed(format!(
            "service `{}` needs the secret `{}`, and it has no value",
            service.name, wanted.secret
        ))
        .hint(format!("give it one with `bedplate secret set {}`", wanted.secret))),
        None => Ok(None),
    };
    for (variable, wanted) in &service.secrets {
        let Some(value) = value(wanted)? else { continue };
        if value.contains('\0') || value.len() as u64 >= LIMIT {
            return Err(Error::failed(format!(
                "the secret `{}` cannot be a variable: it holds a zero byte or is larger than 128 KiB",
                wanted.secret
            )));
        }
        files.insert(variable.clone(), SecretString::from(value));
    }
    for (number, file) in service.secret_files.values().enumerate() {
        let content = value(&file.secret)?.map(|value| file.content(value)).unwrap_or_default();
        files.insert(file_name(number), SecretString::from(content));
    }
    Ok(files)
}

/// Makes the service's directory hold exactly these files. Returns whether anything changed in content.
///
/// # Errors
/// The place is not on tmpfs, or cannot be written.
pub fn place(
    root: &Root,
    paths: &Paths,
    deployment: &str,
    service: &str,
    files: &BTreeMap<String, SecretString>,
    owner: Option<Owner>,
) -> Result<bool> {
    let above = format!("{}/{deployment}", paths.secrets);
    must_be_volatile(root, &paths.secrets)?;
    root.make_dir(&paths.secrets, 0o700, Owner::current())?;
    root.make_dir(&above, 0o700, Owner::current())?;
    let directory = directory(paths, deployment, service);
    let known = root.stat(&directory)?;
    let owner = owner.or_else(|| known.map(|stat| stat.owner())).unwrap_or_else(Owner::current);
    root.make_dir(&directory, 0o500, owner)?;
    let mut changed = false;
    for (name, content) in files {
        let path = format!("{directory}/{name}");
        let content = content.expose_secret().as_bytes();
        if let Some(stat) = root.stat(&path)?
            && root.read(&path, LIMIT * 2)?.is_some_and(|held| held == content)
        {
            if stat.owner() != owner || stat.mode != 0o400 {
                root.set_owner(&path, owner)?;
                root.set_mode(&path, 0o400)?;
            }
            continue;
        }
        root.write(&path, content, 0o400, owner)?;
        changed = true;
    }
    for entry in root.list(&directory)? {
        if !files.contains_key(&entry.name) {
            changed |= root.remove_file(&format!("{directory}/{}", entry.name))?;
        }
    }
    Ok(changed)
}

/// Removes a deployment's secrets from the host.
pub fn remove(root: &Root, paths: &Paths, deployment: &str) -> Result<()> {
    root.remove_tree(&format!("{}/{deployment}", paths.secrets)).map(drop)
}

/// Who a container runs as, by its own account files: `user[:group]` as numbers or names, root where nothing is said.
/// As Docker resolves it: a number that no account has goes with group 0.
///
/// # Errors
/// A name the container's `/etc/passwd` or `/etc/group` does not have.
pub async fn owner(docker: &Docker, container: &str, user: Option<&str>) -> Result<Owner> {
    let Some(text) = user.filter(|text| !text.is_empty()) else { return Ok(Owner::ROOT) };
    if let Some((uid, gid)) = text.split_once(':')
        && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
    {
        return Ok(Owner { uid, gid });
    }
    let read = async |path| -> Result<String> {
        let content = docker.read_file(container, path).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&content).into_owned())
    };
    let accounts = Users::parse(&read("/etc/passwd").await?, &read("/etc/group").await?);
    resolve(&accounts, container, text)
}

fn resolve(accounts: &Users, container: &str, text: &str) -> Result<Owner> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let missing = |what: &str, name: &str| {
        Error::failed(format!(
            "container `{container}` runs as {what} `{name}`, which its image does not have"
        ))
        .hint("set `user` to a number, or to an account of the image")
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, accounts.user_by_id(uid).map_or(0, |account| account.gid)),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => accounts
            .user(user)
            .map(|account| (account.uid, account.gid))
            .ok_or_else(|| missing("user", user))?,
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => accounts.group(group).ok_or_else(|| missing("group", group))?.gid,
        },
    };
    Ok(Owner { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_resolve_as_docker_does() {
        let accounts = Users::parse("root:x:0:0::/:\napp:x:1000:1001::/:\n", "app:x:1001:\nvideo:x:44:\n");
        let cases = [
            ("1000", (1000, 1001)),
            ("4242", (4242, 0)),
            ("app", (1000, 1001)),
            ("app:video", (1000, 44)),
            ("4242:7", (4242, 7)),
            ("app:7", (1000, 7)),
        ];
        for (text, (uid, gid)) in cases {
            assert_eq!(resolve(&accounts, "c", text).unwrap(), Owner { uid, gid }, "{text}");
        }
        for text in ["nobody", "app:nogroup"] {
            assert!(resolve(&accounts, "c", text).unwrap_err().message().contains("does not have"), "{text}");
        }
    }
}
