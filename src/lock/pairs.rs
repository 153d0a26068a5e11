//! Kernel and driver pairs, and whether the driver's modules were seen to build for the kernel: the embedded table.

use std::sync::LazyLock;

use serde::Deserialize;

/// The table, as data.
pub const DRIVER_KERNEL_PAIRS: &str = include_str!("../../data/driver-kernel-pairs.toml");

/// A kernel and a driver of one release, as they were tried.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The distribution's release, by its code name.
    pub release: String,
    /// Upstream version of the kernel package: `6.12.117`.
    pub kernel: String,
    /// Upstream version of the driver: `550.163.01`.
    pub driver: String,
    /// Whether the modules build.
    pub builds: bool,
    /// Why they do not.
    pub because: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    pair: Vec<Pair>,
}

// The table is part of the program; a test reads every row, so what is wrong in one is found there.
static PAIRS: LazyLock<Vec<Pair>> =
    LazyLock::new(|| read(DRIVER_KERNEL_PAIRS).expect("the embedded table is valid"));

/// Every pair that was tried.
pub fn pairs() -> &'static [Pair] {
    &PAIRS
}

fn read(text: &str) -> Result<Vec<Pair>, String> {
    let wire: Wire = toml::from_str(text).map_err(|error| error.to_string())?;
    for (at, pair) in wire.pair.iter().enumerate() {
        let named = format!("{} with {} on {}", pair.driver, pair.kernel, pair.release);
        if numbers(&pair.kernel).len() != 3 || numbers(&pair.driver).len() < 2 {
            return Err(format!("{named}: a kernel is x.y.z, a driver two or three numbers"));
        }
        if pair.builds == pair.because.is_some() {
            return Err(format!("{named}: what does not build says why, and nothing else does"));
        }
        let same = |other: &Pair| {
            (&other.release, &other.kernel, &other.driver) == (&pair.release, &pair.kernel, &pair.driver)
        };
        if wire.pair[..at].iter().any(same) {
            return Err(format!("{named} is there twice"));
        }
    }
    Ok(wire.pair)
}

/// A dotted version as numbers, which order as the versions do; empty if it is something else.
pub(super) fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(str::parse).collect::<Result<_, _>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read() {
        let pairs = pairs();
        assert!(pairs.iter().any(|pair| pair.builds) && pairs.iter().any(|pair| !pair.builds));
    }

    #[test]
    fn a_broken_table_is_told() {
        let row = "[[pair]]\nrelease = \"bookworm\"\nkernel = \"6.1.176\"\ndriver = \"535.261.03\"\nbuilds = true\n";
        assert_eq!(read(row).unwrap().len(), 1);
        for (text, says) in [
            (row.replace("builds = true", "builds = false"), "says why"),
            (row.replace("builds = true", "builds = true\nbecause = \"x\""), "says why"),
            (row.replace("6.1.176", "6.1"), "x.y.z"),
            (row.replace("535.261.03", "535-x"), "two or three numbers"),
            (row.replace("release", "relaese"), "relaese"),
            (format!("{row}{row}"), "twice"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
