//! The clock: which time service runs, and what it says.
//!
//! Whether the kernel's clock is in step is what adjtimex(2) tells. There is no safe call for it here, so those are asked
//! that ask it: the service itself, else `timedatectl`, whose `NTPSynchronized` is that answer.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{processes, tree::Tree};
use crate::{error::Result, system::process::Command};

/// Services that keep the clock, as Debian and others name their units.
const UNITS: [&str; 8] =
    ["chrony", "chronyd", "systemd-timesyncd", "ntpsec", "ntp", "ntpd", "openntpd", "phc2sys"];
/// Their programs.
const PROGRAMS: [&str; 5] = ["chronyd", "systemd-timesyncd", "ntpd", "openntpd", "phc2sys"];
/// Made when it is in step for the first time since it was started (systemd-timesyncd.service(8)).
const IN_STEP: &str = "/run/systemd/timesync/synchronized";
/// There where systemd has started the host (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// The clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Clock {
    /// Time services that run, by program.
    pub services: BTreeSet<String>,
    /// Whether it follows a source of time; `None`: nobody says.
    pub in_step: Option<bool>,
    /// How far off it is, in milliseconds, where the service says.
    pub off: Option<u64>,
    /// Who said so.
    pub said_by: Option<String>,
}

/// Which services run; for systemd's own also what it has noted.
pub(super) fn services(tree: &Tree) -> Result<Clock> {
    let found = processes::running(tree, &UNITS, &PROGRAMS)?;
    let services: BTreeSet<String> = found.into_iter().map(|process| process.name).collect();
    let mut clock = Clock { services, ..Clock::default() };
    if clock.services.contains("systemd-timesyncd") {
        clock.in_step = Some(tree.stat(IN_STEP)?.is_some());
        clock.said_by = Some(format!("`{IN_STEP}`"));
    }
    Ok(clock)
}

/// Asks the service, else systemd, where nothing is known yet. What cannot be asked stays unknown.
pub(super) async fn ask(tree: &Tree, clock: &mut Clock, limit: Duration) {
    if !tree.root().is_host() {
        return;
    }
    if clock.services.contains("chronyd")
        && let Some(said) = output(Command::new("chronyc").args(["-n", "-c", "tracking"]), limit).await
        && let Some((in_step, off)) = tracking(&said)
    {
        clock.in_step = Some(in_step);
        clock.off = off.filter(|_| in_step);
        clock.said_by = Some("`chronyc tracking`".to_owned());
    }
    if clock.in_step.is_none() && matches!(tree.stat(BOOTED), Ok(Some(_))) {
        let show = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]);
        let said = output(show, limit).await;
        clock.in_step = said.and_then(|said| match said.trim() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        });
        clock.said_by = clock.in_step.map(|_| "`timedatectl show`".to_owned());
    }
}

async fn output(command: Command, limit: Duration) -> Option<String> {
    Some(command.timeout(limit).limit(1 << 16).check().await.ok()?.text())
}

/// A line of `chronyc -c tracking` (chronyc(1)): the fifth field is how far off the clock is, in seconds; the last one
/// says whether it follows a source.
fn tracking(text: &str) -> Option<(bool, Option<u64>)> {
    let fields: Vec<&str> = text.trim().split(',').collect();
    let [_, _, _, _, off, .., leap] = fields.as_slice() else { return None };
    let off = off.parse::<f64>().ok().filter(|off| off.is_finite());
    let off =
        off.and_then(|off| u64::try_from(Duration::try_from_secs_f64(off.abs()).ok()?.as_millis()).ok());
    Some((!leap.eq_ignore_ascii_case("Not synchronised"), off))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chrony_says_how_far_off_the_clock_is() {
        let line = "C0248F97,192.36.143.151,2,1764192000.123,-6.251,0.000001,0.000012,-12.3,0.001,0.02,0.01,0.001,64.2,Normal\n";
        assert_eq!(tracking(line), Some((true, Some(6251))));
        let line = "00000000,,0,0.0,0.000000000,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n";
        assert_eq!(tracking(line), Some((false, Some(0))));
        assert_eq!(tracking(&line.replace("0.000000000", "NaN")), Some((false, None)));
        for odd in ["", "506 Cannot talk to daemon", "1,2,3"] {
            assert_eq!(tracking(odd), None, "{odd}");
        }
    }
}
