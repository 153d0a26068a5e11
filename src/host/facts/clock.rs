//! The clock: which time service runs, and what it says.
//!
//! Whether the kernel's clock is in step is what adjtimex(2) tells. There is no safe call for it here, so those are asked
//! that ask it: the service itself, else `timedatectl`, whose `NTPSynchronized` is that answer.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{processes, tree::Tree};
use crate::{
    error::Result,
    system::{clock, process::Command},
};

/// Services that keep the clock, as Debian and others name their units.
const UNITS: [&str; 8] =
    ["chrony", "chronyd", "systemd-timesyncd", "ntpsec", "ntp", "ntpd", "openntpd", "phc2sys"];
/// Their programs.
const PROGRAMS: [&str; 5] = ["chronyd", "systemd-timesyncd", "ntpd", "openntpd", "phc2sys"];
/// Made when it is in step for the first time since it was started (systemd-timesyncd.service(8)).
const IN_STEP: &str = "/run/systemd/timesync/synchronized";
/// After so many seconds without a word from a source the clock follows none: chrony asks at least every 1024 s
/// (chrony.conf(5), `maxpoll`), some of which may be lost.
const SILENT: i64 = 6 * 3600;
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
        && let Some((in_step, off)) = tracking(&said, clock::now().as_second())
    {
        clock.in_step = Some(in_step);
        clock.off = off.filter(|_| in_step);
        clock.said_by = Some("`chronyc tracking`".to_owned());
    }
    // The file of systemd's service says that it once was in step, not that it still is.
    let settled =
        clock.services.contains("chronyd") && clock.in_step.is_some() || clock.in_step == Some(false);
    if !settled && matches!(tree.stat(BOOTED), Ok(Some(_))) {
        let show = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]);
        let said = output(show, limit).await;
        let kernel = said.and_then(|said| match said.trim() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        });
        if kernel.is_some() {
            clock.in_step = kernel;
            clock.said_by = Some("`timedatectl show`".to_owned());
        }
    }
}

async fn output(command: Command, limit: Duration) -> Option<String> {
    Some(command.timeout(limit).limit(1 << 16).check().await.ok()?.text())
}

/// A line of `chronyc -c tracking` (chronyc(1)): the fourth field is when a source was last heard, in seconds since 1970,
/// the fifth how far off the clock is, in seconds; the last one says whether it follows a source, and stays as it is when
/// all sources fall silent.
fn tracking(text: &str, now: i64) -> Option<(bool, Option<u64>)> {
    let fields: Vec<&str> = text.trim().split(',').collect();
    let [_, _, _, heard, off, .., leap] = fields.as_slice() else { return None };
    let heard = heard.split('.').next()?.parse::<i64>().ok()?;
    let off = off.parse::<f64>().ok().filter(|off| off.is_finite());
    let off =
        off.and_then(|off| u64::try_from(Duration::try_from_secs_f64(off.abs()).ok()?.as_millis()).ok());
    Some((!leap.eq_ignore_ascii_case("Not synchronised") && now.saturating_sub(heard) < SILENT, off))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chrony_says_how_far_off_the_clock_is() {
        let line = "C0248F97,192.36.143.151,2,1764192000.123,-6.251,0.000001,0.000012,-12.3,0.001,0.02,0.01,0.001,64.2,Normal\n";
        let now = 1_764_192_060;
        assert_eq!(tracking(line, now), Some((true, Some(6251))));
        // All sources have been silent for a day.
        assert_eq!(tracking(line, now + 86_400), Some((false, Some(6251))));
        let line = "00000000,,0,0.0,0.000000000,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n";
        assert_eq!(tracking(line, now), Some((false, Some(0))));
        assert_eq!(tracking(&line.replace("0.000000000", "NaN"), now), Some((false, None)));
        for odd in ["", "506 Cannot talk to daemon", "1,2,3"] {
            assert_eq!(tracking(odd, now), None, "{odd}");
        }
    }
}
