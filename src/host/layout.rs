//! Where bedplate keeps its things on a host.

use crate::plan;

/// State that outlives a reboot; 0700.
pub const STATE: &str = "/var/lib/bedplate";
/// The content store.
pub const STORE: &str = "/var/lib/bedplate/store";
/// Generations, one folder each, by number.
pub const GENERATIONS: &str = "/var/lib/bedplate/generations";
/// Link to the current generation.
pub const CURRENT: &str = "/var/lib/bedplate/current";
/// What a run is doing; there only while it runs, or after it was interrupted.
pub const JOURNAL: &str = "/var/lib/bedplate/journal";
/// Secrets as systemd credentials, encrypted to the host; 0700.
pub const CREDENTIALS: &str = "/var/lib/bedplate/credentials";
/// State of this boot.
pub const RUN: &str = "/run/bedplate";
/// Secrets in the clear, on tmpfs; 0700, files 0400.
pub const SECRETS: &str = "/run/bedplate/secrets";
/// One writer at a time.
pub const LOCK: &str = "/run/bedplate/lock";
/// The same for a tree prepared with `--root`, which has no `/run` of its own.
pub const LOCK_IN_TREE: &str = "/var/lib/bedplate/lock";
/// The program.
pub const BINARY: &str = plan::BINARY;
/// GRUB's menu, as `update-grub` makes it on Debian and Ubuntu.
pub const GRUB_MENU: &str = "/boot/grub/grub.cfg";
/// Where the Docker daemon listens.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The file with this generation's report, within its folder.
pub const REPORT: &str = "report.json";
/// What the checks proved of a generation, within its folder.
pub const READINESS: &str = "readiness";
/// The realised profile, within a generation's folder.
pub const HOST_PROFILE: &str = "host-profile.json";

/// The folder of generation `number`.
pub fn generation(number: u64) -> String {
    format!("{GENERATIONS}/{number}")
}
