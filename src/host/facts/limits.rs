//! Limits that containers inherit: of the program that starts them, and what Docker's configuration puts in their place.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    basics::SMALL,
    processes::{self, Process},
    tree::Tree,
};
use crate::{
    error::{Error, Result},
    plan,
};

/// Limits of what an engine may take: the hard ones, up to which it raises its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Where they come from: a process, or Docker's configuration.
    pub of: String,
    /// Files open at once; `None`: no limit.
    pub open_files: Option<u64>,
    /// Bytes of memory locked; `None`: no limit.
    pub locked: Option<u64>,
    /// The host has devices for remote direct memory access, which lock what they reach.
    pub rdma: bool,
}

/// The limits of a container that asks for none. `None`: nothing runs that would start one.
pub(super) fn limits(tree: &Tree) -> Result<Option<Limits>> {
    let running = processes::running(tree, &["containerd", "docker"], &["containerd", "dockerd"])?;
    // containerd starts containers; one that dockerd has started has its limits from there.
    let process = running.iter().find(|process| process.name == "containerd").or(running.first());
    let Some(Process { name, id }) = process else { return Ok(None) };
    let path = format!("/proc/{id}/limits");
    let text = tree
        .text(&path, SMALL)?
        .ok_or_else(|| Error::failed(format!("reading `{path}`: the process has ended")))?;
    let hard = |row: &str| -> Result<Option<u64>> {
        let number = hard(&text, row);
        let number = number.ok_or_else(|| Error::failed(format!("reading `{path}`: it has no `{row}`")))?;
        Ok(Some(number).filter(|number| *number != u64::MAX))
    };
    let mut limits = Limits {
        of: format!("`{name}`"),
        open_files: hard("Max open files")?,
        locked: hard("Max locked memory")?,
        rdma: !tree.list("/sys/class/infiniband")?.is_empty(),
    };
    let daemon = tree.read(plan::DAEMON, SMALL)?.unwrap_or_default();
    // One that is not JSON sets nothing; that it is broken is `docker.daemon`'s matter.
    if let Ok(daemon) = serde_json::from_slice::<Value>(&daemon) {
        for (name, place) in [("nofile", &mut limits.open_files), ("memlock", &mut limits.locked)] {
            // -1: no limit (dockerd(8), `--default-ulimit`).
            if let Some(hard) =
                daemon.pointer(&format!("/default-ulimits/{name}/Hard")).and_then(Value::as_i64)
            {
                *place = u64::try_from(hard).ok();
                limits.of = format!("`{}`, `default-ulimits`", plan::DAEMON);
            }
        }
    }
    Ok(Some(limits))
}

/// The second number of a row of proc_pid_limits(5); the largest there is for `unlimited`.
fn hard(text: &str, row: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(row))?;
    match rest.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}
