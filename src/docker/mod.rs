//! The container engine, through bollard: one typed call for each thing bedplate asks of Docker, each failure
//! told apart and with what to do about it. No bollard type leaves this module.

mod archive;
mod container;
mod failure;
mod image;
mod network;
mod watch;

use std::{io::ErrorKind, time::Duration};

pub use archive::{LayoutImage, archive_from_layout};
pub use container::{
    ContainerOnHost, Gpus, Health, HealthProbe, Listed, Mount, MountKind, NewContainer, Port, Reachable,
    State,
};
pub use image::{Credentials, ImageOnHost};
pub use watch::{End, ExecOutput, LogLine, LogsWanted};

use crate::error::{Error, Result};
use failure::{Asked, failed};

/// Where Docker listens unless its configuration says otherwise (dockerd(8), `-H`).
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The oldest API bedplate speaks: Docker 20.10, which Debian 12 ships.
const OLDEST_API: (usize, usize) = (1, 41);
/// How long the daemon may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// How long a request may wait for its answer to begin.
const ANSWER: Duration = Duration::from_secs(120);

/// A connection to a Docker daemon. Cheap to clone; each request opens the socket anew.
#[derive(Clone)]
pub struct Docker {
    client: bollard::Docker,
    socket: String,
}

impl std::fmt::Debug for Docker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Docker").field("socket", &self.socket).finish()
    }
}

/// What the daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Version of the daemon, such as `26.1.5+dfsg1`.
    pub version: String,
    /// The API version spoken with it, such as `1.45`.
    pub api_version: String,
    /// Its data directory.
    pub root_dir: String,
    /// Storage driver, such as `overlay2`.
    pub storage_driver: String,
    /// The file system under its data directory, as the storage driver names it: `extfs`, `xfs`.
    pub backing: Option<String>,
    /// Whether that file system tells what a directory's entries are (`d_type`), where the storage driver says.
    pub d_type: Option<bool>,
    /// Version of runc, where the daemon says.
    pub runc: Option<String>,
    /// `1` or `2`.
    pub cgroup_version: Option<String>,
    /// `systemd` or `cgroupfs`.
    pub cgroup_driver: Option<String>,
    /// Directories it reads CDI specifications from.
    pub cdi_spec_dirs: Vec<String>,
    /// Whether it takes CDI device requests. `None`: it does not say.
    pub cdi_enabled: Option<bool>,
    /// Names of its container runtimes, sorted.
    pub runtimes: Vec<String>,
    /// The runtime containers get unless they name one.
    pub default_runtime: Option<String>,
    /// Whether containers outlive the daemon.
    pub live_restore: bool,
    /// Whether images are in containerd's store, where an image's id is its manifest's digest.
    pub containerd_store: bool,
    /// The log driver containers get.
    pub logging_driver: Option<String>,
}

impl Docker {
    /// Connects to the daemon behind the Unix socket `socket` and settles on an API version.
    ///
    /// # Errors
    /// No socket, no permission, nothing listening, no answer within ten seconds, or a daemon older than 20.10:
    /// each with its own message and hint.
    pub async fn connect(socket: &str) -> Result<Self> {
        Self::connect_within(socket, HELLO).await
    }

    async fn connect_within(socket: &str, hello: Duration) -> Result<Self> {
        let socket = socket.strip_prefix("unix://").unwrap_or(socket);
        // Asked first by hand: bollard wraps the reason several times over.
        match tokio::time::timeout(hello, tokio::net::UnixStream::connect(socket)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(unreachable(socket, &error)),
            Err(_) => return Err(silent(socket, hello)),
        }
        let client =
            bollard::Docker::connect_with_unix(socket, ANSWER.as_secs(), bollard::API_DEFAULT_VERSION)
                .map_err(|error| failed(Asked::Connect, error))?
                // The daemon decodes this header as URL-safe base64 and takes one it cannot decode for "no
                // credentials"; bollard writes the plain alphabet.
                .with_request_modifier(|mut request| {
                    let header = request.headers().get("x-registry-auth").and_then(|v| v.to_str().ok());
                    if let Some(Ok(value)) = header.map(|v| v.replace('+', "-").replace('/', "_").parse()) {
                        request.headers_mut().insert("x-registry-auth", value);
                    }
                    request
                });
        let client = match tokio::time::timeout(hello, client.negotiate_version()).await {
            Ok(client) => client.map_err(|error| failed(Asked::Connect, error))?,
            Err(_) => return Err(silent(socket, hello)),
        };
        let api = client.client_version();
        if (api.major_version, api.minor_version) < OLDEST_API {
            return Err(Error::failed(format!(
                "the Docker daemon is too old: it speaks API {api}, bedplate needs {}.{} (Docker 20.10)",
                OLDEST_API.0, OLDEST_API.1
            ))
            .hint(
                "bring a newer one with `bedplate toolkit install`; where the profile has `pin-packages = false`, upgrade \
                 the package `docker.io` (or `docker-ce`), then `systemctl restart docker`",
            ));
        }
        Ok(Self { client, socket: socket.to_owned() })
    }

    /// The socket's path.
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// Whether `error` is the daemon's answer: it did not take too long, and it answers now.
    pub async fn answers_after(&self, error: &Error) -> bool {
        !failure::is_late(error) && self.engine().await.is_ok()
    }

    /// What the daemon says of itself.
    pub async fn engine(&self) -> Result<EngineInfo> {
        let (info, version) = tokio::join!(self.client.info(), self.client.version());
        let info = info.map_err(|error| failed(Asked::Engine, error))?;
        // What the daemon does not say of its parts is not known; nothing else hangs on it.
        let parts = version.ok().and_then(|version| version.components).unwrap_or_default();
        let runc = parts.into_iter().find(|part| part.name == "runc").map(|part| part.version);
        let row = |name: &str| {
            let mut rows = info.driver_status.iter().flatten();
            rows.find(|row| row.first().is_some_and(|first| first == name)).and_then(|row| row.get(1))
        };
        let backing =
            row("Backing Filesystem").filter(|name| !name.is_empty() && *name != "<unknown>").cloned();
        let d_type = row("Supports d_type").and_then(|value| value.parse().ok());
        let api = self.client.client_version();
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        let containerd_store = info.driver_status.iter().flatten().any(|row| {
            row.first().is_some_and(|key| key == "driver-type")
                && row.get(1).is_some_and(|value| value.starts_with("io.containerd.snapshotter"))
        });
        // "An empty list indicates that CDI device injection is disabled" (Engine API, SystemInfo.CDISpecDirs);
        // the field came with API 1.44, and no older daemon knows CDI.
        let cdi_enabled = match &info.cdi_spec_dirs {
            Some(dirs) => Some(!dirs.is_empty()),
            None if (api.major_version, api.minor_version) < (1, 44) => Some(false),
            None => None,
        };
        Ok(EngineInfo {
            version: info.server_version.unwrap_or_default(),
            api_version: api.to_string(),
            root_dir: info.docker_root_dir.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            backing,
            d_type,
            runc: runc.filter(|version| !version.is_empty()),
            cgroup_version: info.cgroup_version.map(|v| v.to_string()).filter(|v| !v.is_empty()),
            cgroup_driver: info.cgroup_driver.map(|v| v.to_string()).filter(|v| !v.is_empty()),
            cdi_spec_dirs: info.cdi_spec_dirs.unwrap_or_default(),
            cdi_enabled,
            runtimes,
            default_runtime: info.default_runtime.filter(|name| !name.is_empty()),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            containerd_store,
            logging_driver: info.logging_driver.filter(|name| !name.is_empty()),
        })
    }
}

fn unreachable(socket: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::failed(format!("Docker is not running: there is no socket `{socket}`"))
            .hint(
                "start it with `systemctl start docker`; where it is missing, `bedplate toolkit install` brings it, or \
                 `apt-get install docker.io` where the profile has `pin-packages = false`",
            ),
        ErrorKind::PermissionDenied => Error::failed(format!(
            "connecting to Docker: no permission to use `{socket}`"
        ))
        .hint(
            "run as root, or join the group: `usermod -aG docker USER`, then log in again (that group is as \
                 powerful as root)",
        ),
        ErrorKind::ConnectionRefused => {
            Error::failed(format!("Docker is not running: nothing listens on `{socket}`"))
                .hint("start it with `systemctl start docker`; if it will not start: `bedplate toolkit verify`, then `journalctl -u docker`")
        }
        _ => Error::failed(format!("connecting to Docker at `{socket}`: {error}"))
            .hint("look at `systemctl status docker`"),
    }
}

fn silent(socket: &str, hello: Duration) -> Error {
    Error::failed(format!("Docker does not answer on `{socket}` within {} s", hello.as_secs()))
        .hint("look at `journalctl -u docker`, then `systemctl restart docker`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_a_dead_and_a_mute_socket_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let error = Docker::connect(&path("absent")).await.unwrap_err();
        assert!(error.message().contains("there is no socket"), "{error}");
        for says in ["systemctl start docker", "bedplate toolkit install", "pin-packages = false"] {
            assert!(error.hints()[0].contains(says), "{error:?}");
        }

        let dead = path("dead");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let error = Docker::connect(&dead).await.unwrap_err();
        assert!(error.message().contains("nothing listens"), "{error}");

        let mute = path("mute");
        let _listener = std::os::unix::net::UnixListener::bind(&mute).unwrap();
        let error = Docker::connect_within(&mute, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.message().contains("does not answer"), "{error}");
    }

    #[test]
    fn permission_has_its_own_hint() {
        let error = unreachable("/run/x.sock", &ErrorKind::PermissionDenied.into());
        assert!(error.hints()[0].contains("usermod"), "{error}");
    }
}
