//! Time and boots of the running host.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    system::files::{exists, read_text},
};

/// Where Debian's `libfaketime` has its library for programs with threads.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Another clock for programs, by a library that the dynamic loader loads into each (libfaketime). Static programs do not
/// see it, and the times that the kernel gives to files are not its.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shifted {
    /// The library.
    pub library: PathBuf,
    /// What the clock shows, in libfaketime's words: `+400d`.
    pub shows: String,
}

impl Shifted {
    /// A clock that is some days ahead; `None` where this machine has no `libfaketime`.
    pub fn ahead(days: u32) -> Option<Self> {
        let library = PathBuf::from(LIBRARY);
        exists(&library).then(|| Self { library, shows: format!("+{days}d") })
    }

    /// The clock of a process with this environment, where it has another one than the machine.
    pub fn of(env: &BTreeMap<String, String>) -> Option<Self> {
        let (library, shows) = (env.get("LD_PRELOAD")?, env.get("FAKETIME")?);
        Some(Self { library: library.into(), shows: shows.clone() })
    }

    /// The environment that gives a program this clock; `library` is where the program finds the library.
    pub fn environment(&self, library: &Path) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", library.to_string_lossy().into_owned()),
            ("FAKETIME", self.shows.clone()),
            // Waiting takes as long as it does, and the times of files are what they are.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}

/// The time now.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The id of this boot, as the kernel writes it (random(4), `boot_id`): another one after each boot.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> Result<String> {
    Ok(read_text(Path::new("/proc/sys/kernel/random/boot_id"), 4096)?.trim().to_owned())
}

/// Time since boot, suspended time included (proc(5), `/proc/uptime`).
///
/// # Errors
/// `/proc` is not mounted, or the file is not as documented.
pub fn uptime() -> Result<Duration> {
    let text = read_text(Path::new("/proc/uptime"), 4096)?;
    parse_uptime(&text)
        .ok_or_else(|| Error::failed(format!("`/proc/uptime` holds `{}`", text.trim().escape_debug())))
}

fn parse_uptime(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_read() {
        assert_eq!(parse_uptime("350735.47 234388.90\n"), Some(Duration::from_secs_f64(350_735.47)));
        for bad in ["", "x", "-1 0", "inf", "NaN 1"] {
            assert_eq!(parse_uptime(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_process_has_the_clock_of_its_environment() {
        let clock = Shifted { library: "/x/lib.so".into(), shows: "+400d".to_owned() };
        let set = clock.environment(&clock.library).map(|(name, value)| (name.to_owned(), value));
        assert_eq!(Shifted::of(&set.into()), Some(clock));
        assert_eq!(Shifted::of(&[("LD_PRELOAD".to_owned(), "/x/other.so".to_owned())].into()), None);
    }

    #[test]
    fn this_host_has_a_boot() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(id, boot_id().unwrap());
        assert!(uptime().unwrap() > Duration::ZERO);
    }
}
