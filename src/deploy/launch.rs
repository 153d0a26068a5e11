//! The launcher on the host: a static program embedded in bedplate, put on tmpfs once the gate has opened.
//!
//! See `docs/decisions/launcher.md`.

use super::Paths;
use crate::{
    digest::Digest,
    error::{Error, Result},
    system::files::{Owner, Root},
};

/// The program, built from `src/launch` with bedplate itself.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launch"));

/// Where a container has it.
pub const IN_CONTAINER: &str = "/.bedplate/launch";

/// Puts the launcher where containers mount it from, unless it is there already, byte for byte.
///
/// # Errors
/// The place is not on tmpfs on a running host (then it would outlive a reboot, and with it what the gate said), it
/// is mounted `noexec` and that cannot be changed, or it cannot be written.
pub fn materialise(root: &Root, paths: &Paths) -> Result<()> {
    let (directory, _) = paths.launch.rsplit_once('/').unwrap_or(("/", ""));
    if root.stat(directory)?.is_none() {
        root.make_dir(directory, 0o755, Owner::current())?;
    }
    must_be_volatile(root, directory)?;
    // A container has what it mounts with the flags of the mount it comes from, and initramfs-tools mounts `/run` noexec.
    root.put_program(&paths.launch, PROGRAM, Owner::current())
}

/// Refuses a directory that outlives a reboot.
pub(super) fn must_be_volatile(root: &Root, directory: &str) -> Result<()> {
    let kind = root.file_system(directory)?;
    if matches!(kind.as_str(), "tmpfs" | "ramfs") {
        return Ok(());
    }
    Err(Error::failed(format!("`{directory}` is on `{kind}`, not on tmpfs: secrets would reach a disk"))
        .hint("mount tmpfs on `/run`, as systemd does"))
}

/// The launcher's digest: part of what a container is made of.
pub fn digest() -> Digest {
    Digest::of(PROGRAM)
}
