//! A running deployment: its containers, the secrets handed in, the wait until it serves, its life.
//!
//! `spec` says what is wanted (pure), `secrets` and `launch` put on tmpfs what containers mount, `up` makes it so,
//! `wait` waits until it serves, `observe` says what was seen for the checks of layer 4, `life` is the rest.

pub mod launch;
pub mod life;
pub mod observe;
pub mod secrets;
pub mod spec;
pub mod state;
pub mod up;
pub mod wait;

use crate::{docker::Docker, progress::Progress, system::files::Root};

pub use up::{Change, Done, Options, Wanted, up};

/// Where a deployment's files lie on the host. Tests put them elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The launcher, on tmpfs, alone in its directory. Every container mounts it, so without it nothing starts.
    pub launch: String,
    /// Secrets of running deployments, on tmpfs: `DEPLOYMENT/SERVICE/VARIABLE` beneath.
    pub secrets: String,
    /// What outlives a reboot: `DEPLOYMENT/{deployment.yaml,state.json}` beneath.
    pub state: String,
    /// The host's lock: one writer at a time.
    pub lock: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            launch: "/run/bedplate/exec/launch".to_owned(),
            secrets: "/run/bedplate/deployments".to_owned(),
            state: "/var/lib/bedplate/deployments".to_owned(),
            lock: "/run/bedplate/lock".to_owned(),
        }
    }
}

/// What every verb of a deployment works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The container engine.
    pub docker: &'a Docker,
    /// The host's files.
    pub root: &'a Root,
    /// Where they lie.
    pub paths: &'a Paths,
    /// Who is told how it goes.
    pub progress: &'a dyn Progress,
}
