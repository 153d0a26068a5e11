//! Smoke tests: a container of a locked image, by digest, with the GPUs, and what the probe (`src/probe`) sees in it, or what
//! an engine comes to in its own image ([`engine`]).
//!
//! What is found is facts like others; judging them is for checks. See `docs/decisions/smoke.md`.

mod container;
pub mod engine;
mod reading;
mod run;

use serde::{Deserialize, Serialize};

pub use self::{
    container::Lab,
    run::{reload, restart_engine, smoke},
};
use crate::lock::{Lock, LockedImage};

/// The program, built from `src/probe` with bedplate itself.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));
/// Where it lies on the host.
pub const ON_HOST: &str = "/run/bedplate/exec/probe";
/// Where a container has it.
pub const IN_CONTAINER: &str = "/.bedplate/probe";

/// What a container saw of the GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smoke {
    /// The lock's name for the image.
    pub image: String,
    /// What came of it.
    pub ran: Ran,
}

/// What a running container saw before and after systemd read its units anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// The lock's name for the image.
    pub image: String,
    /// Before `systemctl daemon-reload`.
    pub before: Ran,
    /// After it, in the same container.
    pub after: Ran,
}

/// What came of the probe in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ran {
    /// Docker did not start the container, in its words.
    Refused(String),
    /// The image cannot run the program; what was said about it.
    CannotRun(String),
    /// It ended without a word that can be read: its exit status, its last line.
    Ended(i64, String),
    /// It did not end within so many seconds.
    Hung(u64),
    /// What it saw.
    Saw(Seen),
}

/// What the probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// Version of the image's C library.
    pub libc: Option<String>,
    /// Why the driver's library could not be loaded; absent where it was.
    pub library: Option<String>,
    /// What failed as a whole.
    pub fault: Option<Fault>,
    /// CUDA version of the driver, such as `12.8`.
    pub driver: Option<String>,
    /// The devices.
    pub devices: Vec<Probed>,
}

/// A device as CUDA sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Probed {
    /// CUDA's index.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Compute capability.
    pub capability: Option<(u32, u32)>,
    /// Whether the kernel calculated right; absent where none was run.
    pub kernel: Option<bool>,
    /// What failed.
    pub fault: Option<Fault>,
}

/// A call of the CUDA driver API that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// The function.
    pub at: String,
    /// Its code (`CUresult`).
    pub code: i32,
    /// The driver's name for it; empty where it has none.
    pub name: String,
}

/// The image a smoke test runs in: the one that the profile calls `smoke`, else an engine's, else any: the probe needs
/// nothing of it but a C library.
pub fn image(lock: &Lock) -> Option<(&str, &LockedImage)> {
    let named = ["smoke", "vllm", "sglang"].into_iter().find_map(|name| lock.images.get_key_value(name));
    named.or_else(|| lock.images.iter().next()).map(|(name, image)| (name.as_str(), image))
}
