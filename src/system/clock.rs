//! Time and boots of the running host.

use std::{path::Path, time::Duration};

use crate::{
    error::{Error, Result},
    system::files::read_text,
};

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
    fn this_host_has_a_boot() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(id, boot_id().unwrap());
        assert!(uptime().unwrap() > Duration::ZERO);
    }
}
