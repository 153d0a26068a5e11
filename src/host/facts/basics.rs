//! The small sources: distribution, kernel, memory, space, modes, secrets.

use super::{
    data::{DaemonJson, DockerConfig, Kernel, Known, Memory, Os, PathState, SecretState, Space},
    tree::Tree,
};
use crate::{
    error::{Doing, Error, Result},
    system::{
        files::{FileKind, Owner},
        users::Users,
    },
};

/// Small text files: kernel tables, configuration.
pub(super) const SMALL: u64 = 1 << 20;

/// A fact out of a result: an error is why nothing is known.
pub(crate) fn known<T>(result: Result<T>) -> Known<T> {
    match result {
        Ok(value) => Known::Ok(value),
        Err(error) => Known::unknown(one_line(&error)),
    }
}

/// An error with its causes in one line.
pub(super) fn one_line(error: &Error) -> String {
    let mut line = error.to_string();
    for cause in error.causes() {
        line.push_str(": ");
        line.push_str(&cause);
    }
    line
}

pub(super) fn required(tree: &Tree, path: &str) -> Result<String> {
    tree.text(path, SMALL)?.ok_or_else(|| Error::failed(format!("reading `{path}`: it does not exist")))
}

/// os-release(5): `/etc/os-release`, else `/usr/lib/os-release`.
pub(super) fn os(tree: &Tree) -> Result<Os> {
    let text = match tree.text("/etc/os-release", SMALL)? {
        Some(text) => text,
        None => required(tree, "/usr/lib/os-release")?,
    };
    parse_os(&text)
}

/// The text of os-release(5).
pub(in crate::host) fn parse_os(text: &str) -> Result<Os> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
        shlex::split(line)?.into_iter().next().filter(|value| !value.is_empty())
    };
    let id = value("ID").ok_or_else(|| Error::failed("reading `/etc/os-release`: it has no `ID`"))?;
    let name = value("PRETTY_NAME").unwrap_or_else(|| id.clone());
    Ok(Os { id, release: value("VERSION_CODENAME"), name })
}

/// uname(2) of the running kernel.
pub(super) fn kernel() -> Kernel {
    let uname = rustix::system::uname();
    Kernel {
        system: uname.sysname().to_string_lossy().into_owned(),
        release: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
    }
}

/// Identity of this boot (random(4)).
pub(super) fn boot_id(tree: &Tree) -> Result<String> {
    Ok(required(tree, "/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// `/proc/meminfo` (proc_meminfo(5)); its kB are KiB.
pub(super) fn memory(tree: &Tree) -> Result<Memory> {
    let text = required(tree, "/proc/meminfo")?;
    let kib = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .and_then(|kib| kib.checked_mul(1024))
            .ok_or_else(|| Error::failed(format!("reading `/proc/meminfo`: it has no `{key}`")))
    };
    Ok(Memory { total: kib("MemTotal")?, available: kib("MemAvailable")? })
}

/// Room where `path` is, or would be.
pub(super) fn space(tree: &Tree, path: &str) -> Result<Space> {
    let mut at = tree.real(path)?;
    let stat = loop {
        if let Some(stat) = tree.root().stat(&at)? {
            break stat;
        }
        let end = at.rfind('/').filter(|end| *end > 0);
        at = end.map_or_else(|| "/".to_owned(), |end| at[..end].to_owned());
    };
    let room = tree.root().free_space(&at)?;
    Ok(Space { at, total: room.bytes_total, free: room.bytes_free, device: stat.device })
}

/// Mode, owner and links of a path.
pub(super) fn path_state(tree: &Tree, users: &Users, path: &str) -> Result<PathState> {
    if let Some(link) = tree.first_link(path)? {
        return Ok(PathState::Link(link));
    }
    Ok(match tree.root().stat(path)? {
        None => PathState::Absent,
        Some(stat) => PathState::Present {
            mode: stat.mode,
            owner: users.describe(stat.owner()),
            ids: (stat.uid, stat.gid),
            directory: stat.kind == FileKind::Directory,
        },
    })
}

/// The directories above a path, the nearest first and `/` last.
pub(crate) fn above(path: &str) -> impl Iterator<Item = &str> {
    let up = |path: &&'_ str| path.rfind('/').filter(|_| *path != "/");
    std::iter::successors(Some(path), move |path| {
        up(path).map(|end| path.get(..end).filter(|rest| !rest.is_empty()).unwrap_or("/"))
    })
    .skip(1)
}

/// Whether a secret is on the host: a file that is not empty. The value is not read.
pub(super) fn secret_file(tree: &Tree, path: &str) -> Result<SecretState> {
    Ok(match tree.root().stat(path)? {
        Some(stat) if stat.is_file() && stat.size > 0 => SecretState::Present(format!("`{path}`")),
        Some(stat) if stat.is_file() => SecretState::Absent(format!("`{path}` is empty")),
        Some(_) => SecretState::Absent(format!("`{path}` is not a regular file")),
        None => SecretState::Absent(format!("`{path}` is not there")),
    })
}

/// Docker's client configuration: its state, and the registries whose password it holds in clear.
pub(super) fn docker_config(tree: &Tree, users: &Users, path: &str) -> Result<Option<DockerConfig>> {
    let state = path_state(tree, users, path)?;
    if state == PathState::Absent {
        return Ok(None);
    }
    let text = tree.read(path, SMALL)?.unwrap_or_default();
    let parsed: serde_json::Value =
        serde_json::from_slice(&text).doing(|| format!("reading `{path}` as JSON"))?;
    let plain = parsed
        .get("auths")
        .and_then(serde_json::Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, auth)| {
            ["auth", "password", "identitytoken"]
                .iter()
                .any(|key| auth.get(key).and_then(serde_json::Value::as_str).is_some_and(|v| !v.is_empty()))
        })
        .map(|(registry, _)| registry.clone())
        .collect();
    Ok(Some(DockerConfig { path: path.to_owned(), state, user: Owner::current().uid, plain }))
}

/// What matters of `/etc/docker/daemon.json`.
pub(super) fn daemon_json(tree: &Tree) -> Result<Option<DaemonJson>> {
    const PATH: &str = "/etc/docker/daemon.json";
    let Some(text) = tree.read(PATH, SMALL)? else { return Ok(None) };
    // Docker takes an empty one for none (moby, `getConflictFreeConfiguration`).
    // It reads past a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let given = if text.trim_ascii().is_empty() { b"{}".as_slice() } else { text };
    let parsed: serde_json::Value = match serde_json::from_slice(given) {
        Ok(parsed) => parsed,
        Err(error) => {
            return Ok(Some(DaemonJson { broken: Some(error.to_string()), ..DaemonJson::default() }));
        }
    };
    let hosts = parsed.get("hosts").and_then(serde_json::Value::as_array).into_iter().flatten();
    Ok(Some(DaemonJson {
        hosts: hosts.filter_map(|host| host.as_str().map(str::to_owned)).collect(),
        cdi: parsed.pointer("/features/cdi").and_then(serde_json::Value::as_bool),
        broken: None,
    }))
}

/// What identifies this start of the daemon: its process and when that began. The process's id is in
/// the file that dockerd writes (`--pidfile`); its start is field 22 of `/proc/PID/stat` (proc(5)).
/// Without that file, the socket: a daemon that is not started through systemd's makes it anew.
pub(super) fn daemon_started(tree: &Tree, pid_file: &str, socket: &str) -> Option<String> {
    if let Some(text) = tree.text(pid_file, SMALL).ok()? {
        let pid: u32 = text.trim().parse().ok()?;
        let stat = tree.text(&format!("/proc/{pid}/stat"), SMALL).ok()??;
        // The second field is the program's name in brackets, and may hold anything.
        let ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
        return Some(format!("{pid}@{ticks}"));
    }
    let stat = tree.stat(socket).ok()??;
    Some(format!("socket {}@{}", stat.inode, stat.modified))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::system::files::Root;

    #[test]
    fn a_start_of_the_daemon_is_told_from_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::open(directory.path()).unwrap());
        let tree = Tree::new(Arc::clone(&root));
        let write =
            |path: &str, text: &str| root.write(path, text.as_bytes(), 0o600, Owner::current()).unwrap();
        for path in ["/run", "/proc/812"] {
            root.make_dir(path, 0o755, Owner::current()).unwrap();
        }
        let started = || daemon_started(&tree, "/run/docker.pid", "/run/docker.sock");
        assert_eq!(started(), None);
        write("/run/docker.sock", "");
        assert!(started().unwrap().starts_with("socket "));
        write("/run/docker.pid", "812");
        // The process is gone: its file says nothing.
        assert_eq!(started(), None);
        let fields = |start: &str| format!("812 (docker) d) S {} {start} 0 0", vec!["0"; 18].join(" "));
        write("/proc/812/stat", &fields("4711"));
        assert_eq!(started().as_deref(), Some("812@4711"));
        write("/proc/812/stat", &fields("5000"));
        assert_eq!(started().as_deref(), Some("812@5000"));
    }
}
