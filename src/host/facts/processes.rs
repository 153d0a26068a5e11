//! Which programs run, from systemd's control groups, else from `/proc`.

use super::{basics::SMALL, tree::Tree};
use crate::error::{Error, Result};

/// Where control groups of units are: the unified hierarchy, systemd's own beside others, both at once
/// (systemd, "Control Group APIs and Delegation").
const GROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// The name of a process has at most this many characters (proc_pid_comm(5)).
const NAME: usize = 15;

/// A program that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    /// The program's name.
    pub(super) name: String,
    /// Its process id.
    pub(super) id: u32,
}

/// Processes of these programs. `units` are the services they usually run as: looked at first, since that is quick
/// where thousands of processes run.
///
/// # Errors
/// `/proc` cannot be read, or hides the processes of others.
pub(super) fn running(tree: &Tree, units: &[&str], programs: &[&str]) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for unit in units {
        for group in GROUPS {
            // No such unit, or no such hierarchy: others are asked.
            let path = format!("{group}/system.slice/{unit}.service/cgroup.procs");
            let Ok(Some(ids)) = tree.text(&path, SMALL) else { continue };
            for id in ids.lines().filter_map(|line| line.trim().parse().ok()) {
                found.extend(named(tree, id, programs));
            }
        }
    }
    if !found.is_empty() {
        found.sort();
        found.dedup();
        return Ok(found);
    }
    if tree.text("/proc/1/comm", SMALL)?.is_none() {
        return Err(Error::failed("`/proc` does not show the processes of others (`hidepid`)"));
    }
    let ids = tree.list("/proc")?.into_iter().filter_map(|entry| entry.name.parse().ok());
    let mut found: Vec<Process> = ids.filter_map(|id| named(tree, id, programs)).collect();
    found.sort();
    Ok(found)
}

/// The process, where it is one of these programs. One that has ended is none.
fn named(tree: &Tree, id: u32, programs: &[&str]) -> Option<Process> {
    let name = tree.text(&format!("/proc/{id}/comm"), SMALL).ok()??;
    let name = name.trim_end();
    let program = programs.iter().find(|program| program.get(..NAME).unwrap_or(program) == name)?;
    Some(Process { name: (*program).to_owned(), id })
}
