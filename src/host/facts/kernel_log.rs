//! The kernel's log: errors of GPUs and switches (Xid, `SXid`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{basics::required, tree::Tree};
use crate::{
    error::{Error, Result},
    system::kernel_log::{self, Record},
};

/// What the kernel's log says of GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelLog {
    /// How far back it goes, in seconds.
    pub reach: u64,
    /// Whether it begins with this boot; else older lines were overwritten.
    pub whole: bool,
    /// Errors, oldest first; those of one kind and device are one.
    pub xids: Vec<Xid>,
    /// Processes that were killed for memory, oldest first.
    pub kills: Vec<Kill>,
}

/// A process that the kernel killed for memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// A limit of a control group was reached; else the host had no memory left.
    pub limit: bool,
    /// The program's name.
    pub program: String,
    /// How long it is ago, in seconds.
    pub ago: u64,
}

/// An error that NVIDIA's driver reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xid {
    /// Its number.
    pub code: u32,
    /// Whether a switch reported it (`SXid`), and not a GPU.
    pub switch: bool,
    /// PCI address as the driver writes it: `0000:c6:00`.
    pub address: String,
    /// How many lines.
    pub count: u64,
    /// How long the last one is ago, in seconds.
    pub ago: u64,
    /// What the last one says after the number.
    pub says: String,
}

/// Longest text that is kept of a line, in characters.
const LONGEST: usize = 160;

/// Reads the log.
pub(super) fn read(tree: &Tree) -> Result<KernelLog> {
    let Some(records) = kernel_log::read(tree.root())? else {
        return Err(Error::failed("there is no `/dev/kmsg`: is this a container?"));
    };
    let uptime = required(tree, "/proc/uptime")?;
    let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse().ok());
    let uptime: u64 = uptime.ok_or_else(|| Error::failed("reading `/proc/uptime`: it holds no number"))?;
    Ok(of(&records, uptime))
}

fn of(records: &[Record], uptime: u64) -> KernelLog {
    let ago = |record: &Record| uptime.saturating_sub(record.microseconds / 1_000_000);
    let mut found: BTreeMap<(u32, bool, String), Xid> = BTreeMap::new();
    for record in records {
        let Some((switch, address, code, says)) = parse(&record.text) else { continue };
        let entry = found.entry((code, switch, address.to_owned())).or_insert_with(|| Xid {
            code,
            switch,
            address: address.to_owned(),
            count: 0,
            ago: 0,
            says: String::new(),
        });
        entry.count += 1;
        entry.ago = ago(record);
        entry.says = says.chars().take(LONGEST).collect();
    }
    let mut xids: Vec<Xid> = found.into_values().collect();
    xids.sort_by_key(|xid| std::cmp::Reverse(xid.ago));
    let kills = records.iter().filter_map(|record| {
        let (limit, program) = kill(&record.text)?;
        Some(Kill { limit, program: program.chars().take(LONGEST).collect(), ago: ago(record) })
    });
    KernelLog {
        kills: kills.collect(),
        reach: records.first().map_or(0, ago),
        whole: records.first().is_some_and(|first| first.sequence == 0),
        xids,
    }
}

/// `Out of memory: Killed process 812 (python3) …`, or with `Memory cgroup out of memory` where a limit was reached
/// (Linux, `mm/oom_kill.c`, `__oom_kill_process`).
fn kill(text: &str) -> Option<(bool, &str)> {
    let (limit, rest) = match text.strip_prefix("Memory cgroup out of memory: ") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("Out of memory: ")?),
    };
    let rest = rest.strip_prefix("Killed process ")?;
    Some((limit, rest.split_once('(')?.1.split_once(')')?.0))
}

/// `NVRM: Xid (PCI:0000:c6:00): 79, …` of a GPU, `nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 19084, …` of a switch.
fn parse(text: &str) -> Option<(bool, &str, u32, &str)> {
    let (before, rest) = text.split_once("Xid (")?;
    let (switch, driver) = match before.strip_suffix('S') {
        Some(before) => (true, before),
        None => (false, before),
    };
    if !driver.contains(if switch { "nvswitch" } else { "NVRM" }) {
        return None;
    }
    let (address, rest) = rest.split_once("):")?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let code = rest[..end].parse().ok()?;
    Some((
        switch,
        address.strip_prefix("PCI:").unwrap_or(address),
        code,
        rest[end..].trim_start_matches([',', ' ']),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64, seconds: u64, text: &str) -> Record {
        Record { sequence, microseconds: seconds * 1_000_000 + 5, text: text.to_owned() }
    }

    #[test]
    fn lines_of_gpus_and_switches_are_told_from_others() {
        for (line, wanted) in [
            (
                "NVRM: Xid (PCI:0000:c6:00): 79, pid=1234, name=nvc:[driver], GPU has fallen off the bus.",
                Some((false, "0000:c6:00", 79, "pid=1234, name=nvc:[driver], GPU has fallen off the bus.")),
            ),
            (
                "NVRM: Xid (0000:03:00): 14, Channel 00000001",
                Some((false, "0000:03:00", 14, "Channel 00000001")),
            ),
            (
                "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 19084, Fatal, Link 53",
                Some((true, "0000:c1:00.0", 19084, "Fatal, Link 53")),
            ),
            ("NVRM: Xid (PCI:0000:c6:00): 43", Some((false, "0000:c6:00", 43, ""))),
            ("NVRM: Xid (PCI:0000:c6:00): none", None),
            ("NVRM: Xid (PCI:0000:c6:00", None),
            ("NVRM: loading NVIDIA UNIX Open Kernel Module", None),
            ("nfsd: bad Xid (x): 3", None),
            ("NVRM: Xid (PCI:0000:c6:00): 99999999999, x", None),
        ] {
            assert_eq!(parse(line), wanted, "{line}");
        }
    }

    #[test]
    fn a_limit_is_told_from_a_host_without_memory() {
        for (line, wanted) in [
            (
                "Out of memory: Killed process 812 (python3) total-vm:9kB, anon-rss:8kB, UID:0",
                Some((false, "python3")),
            ),
            (
                "Memory cgroup out of memory: Killed process 9 (VLLM::Worker) total-vm:9kB",
                Some((true, "VLLM::Worker")),
            ),
            ("Out of memory: Killed process 812", None),
            ("oom_reaper: reaped process 812 (python3), now anon-rss:0kB", None),
        ] {
            assert_eq!(kill(line), wanted, "{line}");
        }
        let log = of(&[record(0, 5, "Out of memory: Killed process 812 (python3) x")], 100);
        assert_eq!(log.kills, [Kill { limit: false, program: "python3".to_owned(), ago: 95 }]);
    }

    #[test]
    fn errors_of_one_kind_are_counted_and_the_last_is_kept() {
        let log = of(
            &[
                record(0, 10, "Linux version 6.12"),
                record(1, 20, "NVRM: Xid (PCI:0000:c6:00): 13, first"),
                record(2, 30, "NVRM: Xid (PCI:0000:c6:00): 79, gone"),
                record(3, 40, "NVRM: Xid (PCI:0000:c6:00): 13, last"),
                record(4, 50, "NVRM: Xid (PCI:0000:c7:00): 13, other"),
            ],
            110,
        );
        assert_eq!((log.reach, log.whole), (100, true));
        let seen: Vec<_> = log.xids.iter().map(|x| (x.code, x.count, x.ago, x.says.as_str())).collect();
        assert_eq!(seen, [(79, 1, 80, "gone"), (13, 2, 70, "last"), (13, 1, 60, "other")]);
        let later = of(&[record(7, 10, "x")], 20);
        assert_eq!((later.reach, later.whole), (10, false));
        assert!(!of(&[], 20).whole);
    }
}
