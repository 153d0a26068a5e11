//! Exit codes: documented once, here.

use crate::error::{Error, Kind};

/// It was done.
pub const DONE: u8 = 0;
/// It failed; also: another run holds the host.
pub const FAILED: u8 = 1;
/// Wrong usage or configuration.
pub const USAGE: u8 = 2;
/// A check failed, or a verdict or set is refused.
pub const CHECK: u8 = 3;
/// Stale lock or drift.
pub const STALE: u8 = 4;
/// Done, and a reboot is needed.
pub const REBOOT: u8 = 10;

/// The exit codes as `--help` shows them.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    it failed (also: another run holds the host)
  2    wrong usage or configuration
  3    a check failed, or a verdict is refused
  4    the lock is stale, or the host drifted
  10   done, a reboot is needed
  130  interrupted (143: terminated)";

/// The exit code of an error.
pub fn of(error: &Error) -> u8 {
    match error.kind() {
        Kind::Failed => FAILED,
        Kind::Usage => USAGE,
        Kind::Check => CHECK,
        Kind::Stale => STALE,
        Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(FAILED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_documented_code() {
        for (kind, code) in [
            (Kind::Failed, 1),
            (Kind::Usage, 2),
            (Kind::Check, 3),
            (Kind::Stale, 4),
            (Kind::Interrupted(2), 130),
            (Kind::Interrupted(15), 143),
        ] {
            assert_eq!(of(&Error::new(kind, "x")), code, "{kind:?}");
            assert!(HELP.contains(&format!("{code}")), "{code} is documented");
        }
    }
}
