//! Provisioning, as a verb puts it together: hold the host, observe, plan, apply.

use std::time::Duration;

pub use super::{
    apply::{Context, Outcome, apply, apply_alone},
    observe::{Options, observe},
};
use super::{
    generations::{Generations, Journal, State, never_whole, sweep},
    layout::{LOCK, LOCK_IN_TREE, STATE},
};
use crate::{
    error::{Error, Result},
    lock::bundle::Bundle,
    system::{
        files::{self, HostLock, Root},
        process::Command,
    },
};

/// Takes the host for a run that changes it; `what` is told to whoever comes meanwhile.
///
/// # Errors
/// Another run holds it: the error names the process.
pub fn hold(root: &Root, what: &str) -> Result<HostLock> {
    let held = HostLock::acquire(root, if root.is_host() { LOCK } else { LOCK_IN_TREE }, what)?;
    // A run that was killed before it wrote its journal left at most these.
    sweep(root)?;
    Ok(held)
}

/// Whether a directory is a root tree, or nothing yet. A new file system has `lost+found`; a run that was interrupted in
/// an empty one may have left our state before there was an `etc`.
///
/// # Errors
/// It cannot be read.
pub fn looks_like_tree(root: &Root) -> Result<bool> {
    let names: Vec<String> = root.list("/")?.into_iter().map(|entry| entry.name).collect();
    let begun = root.exists(STATE).is_ok_and(|begun| begun);
    let unused = names.iter().all(|name| name == "lost+found" || name == "var");
    Ok(begun || unused || names.iter().any(|name| name == "etc"))
}

/// An error where another run holds the host. Takes nothing and changes nothing.
///
/// # Errors
/// Another run holds it: the error names the process.
pub fn refuse_held(root: &Root) -> Result<()> {
    files::refuse_held(root, if root.is_host() { LOCK } else { LOCK_IN_TREE })
}

/// Where `rollback` goes: the last generation before the current one whose checks passed, else the one before it.
///
/// # Errors
/// There is none.
pub fn previous(root: &Root) -> Result<u64> {
    let generations = Generations::new(root);
    let current = generations.current_number()?.ok_or_else(|| {
        Error::failed("this host was never provisioned").hint("provision it: `bedplate provision PROFILE`")
    })?;
    let mut earlier: Vec<u64> =
        generations.numbers()?.into_iter().filter(|number| *number < current).collect();
    earlier.retain(|number| generations.state(*number).is_ok_and(|state| state != State::Pending));
    // One whose checks failed is nowhere to go back to, where there is a better one.
    let passed = earlier.iter().rev().find(|number| generations.is_ready(**number) == Some(true)).copied();
    passed.or_else(|| earlier.pop()).ok_or_else(|| {
        Error::failed(format!("there is no generation before {current}"))
            .hint("see which there are: `bedplate generations list`")
    })
}

/// The bundle of generation `number`, to go to it with [`crate::plan::Goal::Switch`].
///
/// # Errors
/// It is not there, cannot be read, or was never made whole.
pub fn switch_to(root: &Root, number: u64) -> Result<Bundle> {
    let generations = Generations::new(root);
    if generations.load(number)?.state == State::Pending && generations.current_number()? != Some(number) {
        return Err(never_whole(number));
    }
    generations.bundle(number)
}

/// Has systemd restart the host in two seconds, so that whoever asked for it is answered first.
///
/// # Errors
/// systemd does not take it.
pub async fn schedule_reboot() -> Result<()> {
    // A timer may be a minute late unless it is told otherwise (systemd.timer(5), `AccuracySec=`).
    Command::new("systemd-run")
        .args(["--quiet", "--collect", "--on-active=2", "--timer-property=AccuracySec=100ms"])
        .args(["systemctl", "reboot"])
        .timeout(Duration::from_mins(1))
        .check()
        .await
        .map(drop)
        .map_err(|error| error.hint("restart the host yourself: `systemctl reboot`"))
}

/// What an interrupted run was doing, for people. `None`: none was interrupted.
pub fn interrupted(root: &Root) -> Result<Option<String>> {
    Journal::read(root)
}
