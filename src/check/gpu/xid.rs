//! Layer 1: errors that the driver reported in the kernel's log (Xid), and what they mean.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};

use crate::{
    check::{
        subject::Subject,
        verdict::{Tally, Verdict},
    },
    error::{Error, Result},
    host::facts::{Facts, Xid},
};

/// Xid errors, as data.
const XIDS: &str = include_str!("../../../data/xid.toml");

/// What an Xid means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meaning {
    /// Where it may come from, the usual one first.
    pub class: Vec<Class>,
    /// What to do.
    pub action: Action,
    /// In one line.
    pub means: String,
}

/// Where an Xid comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The card, its slot, power or cooling.
    Hardware,
    /// The driver or the GPU's firmware.
    Driver,
    /// A program on the GPU.
    Application,
}

/// What to do after an Xid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is for information.
    None,
    /// Start the program again.
    Application,
    /// Reset the GPU.
    Reset,
    /// Restart the host.
    Reboot,
    /// Look at the GPU's memory.
    Memory,
    /// Look at NVLinks.
    Link,
    /// Power off and on; look at seat and cables.
    Power,
    /// Update driver or firmware.
    Update,
    /// As the line says.
    Recovery,
    /// Report it.
    Support,
}

impl Class {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Driver => "driver",
            Self::Application => "application",
        }
    }
}

impl Action {
    /// As a next step.
    pub fn step(self) -> &'static str {
        match self {
            Self::None => "nothing is to be done; if it comes often, report it to the vendor",
            Self::Application => {
                "start the program again; if it comes back, look at the program (`bedplate logs NAME`) and at its CUDA version, then have the GPU tested"
            }
            Self::Reset => {
                "drain the host, then reset the GPU (`nvidia-smi --gpu-reset -i N`) or reboot; if it comes back, have the card looked at"
            }
            Self::Reboot => "drain the host and reboot it",
            Self::Memory => {
                "drain the host, then reset the GPU (`nvidia-smi --gpu-reset -i N`) or reboot; `gpu.ecc` says whether the card must be replaced"
            }
            Self::Link => {
                "`nvidia-smi nvlink -s`, then reset the GPUs or reboot; if it comes back: the card, its board or cables"
            }
            Self::Power => {
                "drain the host and power it off and on; look at the card's seat, cables and power; if it comes back, have the card replaced"
            }
            Self::Update => "bring driver and firmware to versions that are made for each other",
            Self::Recovery => "what the line says the GPU needs: a reset, or a reboot",
            Self::Support => "keep `nvidia-bug-report.sh`'s file, and report it to the vendor",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    unused: Vec<u32>,
    xid: BTreeMap<String, Meaning>,
}

// The table is part of the program; a test reads every row, so what is wrong in one is found there.
static TABLE: LazyLock<BTreeMap<u32, Meaning>> =
    LazyLock::new(|| read(XIDS).expect("the embedded table is valid"));

fn read(text: &str) -> std::result::Result<BTreeMap<u32, Meaning>, String> {
    let table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let unused = Meaning {
        class: vec![Class::Driver],
        action: Action::Support,
        means: "NVIDIA's catalogue lists this number as not used".to_owned(),
    };
    let mut all: BTreeMap<u32, Meaning> =
        table.unused.into_iter().map(|code| (code, unused.clone())).collect();
    for (code, meaning) in table.xid {
        let number = code.parse::<u32>().map_err(|error| format!("{code}: {error}"))?;
        if all.insert(number, meaning).is_some() {
            return Err(format!("{code}: twice"));
        }
    }
    Ok(all)
}

/// What an Xid means; `None` for one that is not in the table.
pub fn meaning(code: u32) -> Option<&'static Meaning> {
    TABLE.get(&code)
}

/// The Xid that an id of `explain` names: `xid-79`. `None`: it names none.
///
/// # Errors
/// A usage error for a number that is not in the table.
pub fn named(id: &str) -> Option<Result<(u32, &'static Meaning)>> {
    let code = id.strip_prefix("xid-").or_else(|| id.strip_prefix("xid:"))?;
    let wrong = |what: &str| {
        Error::usage(format!("Xid `{}` {what}", code.escape_debug()))
            .hint("`bedplate explain xid-79`: the number after `Xid (PCI:…):` in the kernel's log")
    };
    let Ok(number) = code.parse::<u32>() else { return Some(Err(wrong("is not a number"))) };
    Some(meaning(number).map(|meaning| (number, meaning)).ok_or_else(|| {
        wrong(&format!("is not known here: the table ends at {}", TABLE.keys().next_back().unwrap_or(&0)))
    }))
}

pub(super) fn xid(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let log = match facts.kernel_log.as_result() {
        Ok(log) => log,
        Err(why) => {
            return Verdict::unknown(why).next(
                "run it as root (`kernel.dmesg_restrict` keeps the log from others), on the host itself",
            );
        }
    };
    let hours = subject.profile.checks.xid_hours.unwrap_or(24);
    let window = hours.saturating_mul(3600);
    let mut tally = Tally::default();
    let reach = span(log.reach.min(window));
    for xid in log.xids.iter().rev() {
        if xid.ago > window {
            tally.note(format!("{}: older than {hours} h (`[checks] xid-hours`)", shown(xid)));
        } else if xid.switch {
            switch(&mut tally, xid);
        } else {
            gpu(&mut tally, xid);
        }
    }
    if log.whole {
        tally.good(format!("`/dev/kmsg`: from this boot on, {} ago", span(log.reach)));
    } else if log.reach > 0 {
        tally.good(format!("`/dev/kmsg`: the last {}, older lines were overwritten", span(log.reach)));
    } else {
        tally.unknown("the kernel's log is empty");
    }
    tally.verdict(format!("no Xid in the kernel's log of the last {reach} that calls for anything"), "")
}

/// What is wrong, with how often and how long ago.
fn shown(xid: &Xid) -> String {
    let name = if xid.switch { "SXid" } else { "Xid" };
    let times = if xid.count > 1 { format!(", {} times", xid.count) } else { String::new() };
    format!("{name} {} on {}{times}, {} ago", xid.code, xid.address, span(xid.ago))
}

fn gpu(tally: &mut Tally, xid: &Xid) {
    let shown = shown(xid);
    let Some(meaning) = meaning(xid.code) else {
        return tally.unknown_until(
            format!("{shown} is not in the table that this bedplate has: {}", xid.says),
            "look it up in NVIDIA's \"Xid Errors\", and look for a newer bedplate",
        );
    };
    let from: Vec<&str> = meaning.class.iter().map(|class| class.word()).collect();
    let line = format!("{shown} ({}): {}", from.join(" or "), meaning.means);
    match meaning.action {
        Action::None => tally.note(line),
        Action::Application => tally.weak(line, meaning.action.step()),
        Action::Recovery if says_none(&xid.says) => tally.note(line),
        Action::Recovery => tally.bad(format!("{line}: {}", xid.says), meaning.action.step()),
        action => tally.bad(line, action.step()),
    }
}

/// `GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)`.
fn says_none(says: &str) -> bool {
    says.rsplit(" to ").next().is_some_and(|last| last.contains("(None)"))
}

/// Switches say themselves whether it is fatal (NVIDIA, Fabric Manager user guide, "`SXid` errors").
fn switch(tally: &mut Tally, xid: &Xid) {
    let line = format!("{} of an NVSwitch: {}", shown(xid), xid.says);
    let says = xid.says.to_ascii_lowercase();
    if says.starts_with("non-fatal") {
        tally.note(line);
    } else if says.starts_with("fatal") {
        tally.bad(line, "drain the host, reset GPUs and switches or reboot; then `systemctl restart nvidia-fabricmanager`");
    } else {
        tally.unknown_until(line, "look it up in NVIDIA's Fabric Manager user guide");
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_catalogue_has_a_meaning() {
        assert!((1..=172).all(|code| meaning(code).is_some()));
        assert_eq!(TABLE.len(), 172);
        for (code, meaning) in &*TABLE {
            assert!(!meaning.class.is_empty() && !meaning.means.is_empty(), "{code}");
            assert!(!meaning.means.ends_with('.') && meaning.means.chars().count() <= 100, "{code}");
        }
        let first = |code| meaning(code).unwrap().class[0];
        assert_eq!((first(79), first(13), first(119)), (Class::Hardware, Class::Application, Class::Driver));
        assert!(
            read("unused = [1]\n[xid]\n1 = { class = [\"driver\"], action = \"none\", means = \"x\" }")
                .is_err()
        );
    }

    #[test]
    fn explain_takes_the_number_of_an_xid() {
        assert!(named("gpu.xid").is_none());
        assert_eq!(named("xid-79").unwrap().unwrap().1.action, Action::Power);
        assert!(named("xid-9999").unwrap().unwrap_err().to_string().contains("not known here"));
        assert!(named("xid-x").unwrap().unwrap_err().to_string().contains("not a number"));
    }

    #[test]
    fn spans_are_rounded_down() {
        let shown: Vec<_> = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(span).into();
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
