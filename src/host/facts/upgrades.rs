//! Packages that may change by themselves, and the toolkit's, from dpkg's database and apt's configuration.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{basics::SMALL, tree::Tree, wanted_host::WantedOfHost};
use crate::{
    apt::conf,
    error::{Error, Result},
    plan::dpkg::{Package, Packages, Want},
    system::files::FileKind,
};

/// The largest database of dpkg that is read, in bytes.
const DATABASE: u64 = 256 << 20;
/// The package that upgrades by itself.
const UPGRADER: &str = "unattended-upgrades";
/// The timer that starts it.
const TIMER: &str = "/etc/systemd/system/apt-daily-upgrade.timer";
/// The vendor's container toolkit.
const TOOLKIT: &str = "nvidia-container-toolkit";

/// What dpkg and apt say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Upgrades {
    /// Why nothing is upgraded by itself; `None`: it is.
    pub off: Option<String>,
    /// Locked packages that are installed and not kept from being upgraded.
    pub free: BTreeSet<String>,
    /// How many locked packages are installed.
    pub installed: u64,
}

/// The vendor's container toolkit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VendorToolkit {
    /// Version of its package; `None`: not installed.
    pub version: Option<String>,
    /// How its runtime gives devices, where its configuration says: `auto`, `legacy`, `cdi`, …
    pub mode: Option<String>,
    /// Its package is unpacked, and not configured to its end.
    #[serde(default)]
    pub broken: bool,
}

/// What dpkg says is there.
pub(super) fn packages(tree: &Tree) -> Result<Packages> {
    let root = tree.root();
    Packages::read(|path| root.read_text(path, DATABASE), |path| root.names(path))?
        .ok_or_else(|| Error::failed("this host has no package database at `/var/lib/dpkg/status`"))
}

/// Whether locked packages may change by themselves.
pub(super) fn upgrades(tree: &Tree, packages: &Packages, wanted: &WantedOfHost) -> Result<Upgrades> {
    let settings = settings(tree)?;
    let mut found = Upgrades { off: off(tree, packages, &settings)?, ..Upgrades::default() };
    let kept: Vec<&str> = settings
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("Unattended-Upgrade::Package-Blacklist::"))
        .map(|(_, pattern)| pattern.as_str())
        .collect();
    for package in packages.known.values().filter(|package| package.present()) {
        if !wanted.packages.contains(&package.name) {
            continue;
        }
        found.installed += 1;
        if package.want != Want::Hold && !kept.iter().any(|pattern| keeps(pattern, &package.name)) {
            found.free.insert(package.name.clone());
        }
    }
    Ok(found)
}

/// Whether a pattern of the upgrader's list holds a package back: a regular expression that the name begins with
/// (unattended-upgrades, README). Only those without special characters are understood; others hold nothing back here.
fn keeps(pattern: &str, name: &str) -> bool {
    let (pattern, whole) = pattern.strip_suffix('$').map_or((pattern, false), |pattern| (pattern, true));
    let plain: String = pattern.replace("\\.", ".").replace("\\+", "+").replace("\\-", "-");
    let literal =
        !plain.is_empty() && plain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '+'));
    literal && if whole { name == plain } else { name.starts_with(&plain) }
}

/// Settings in the order apt reads them: the last one of a name counts (apt.conf(5)).
fn settings(tree: &Tree) -> Result<Vec<(String, String)>> {
    const PARTS: &str = "/etc/apt/apt.conf.d";
    let mut names: Vec<String> = tree.list(PARTS)?.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        name.chars().all(good) && name.rsplit_once('.').is_none_or(|(_, end)| end == "conf")
    });
    names.sort_unstable();
    let mut found = Vec::new();
    for path in
        names.into_iter().map(|name| format!("{PARTS}/{name}")).chain(["/etc/apt/apt.conf".to_owned()])
    {
        if let Some(text) = tree.text(&path, SMALL)? {
            found.extend(conf::settings(&text));
        }
    }
    Ok(found)
}

/// Why nothing is upgraded by itself (apt.systemd.daily: `Enable` is on unless said, the rest off).
fn off(tree: &Tree, packages: &Packages, settings: &[(String, String)]) -> Result<Option<String>> {
    let there = packages.known.values().any(|package| package.name == UPGRADER && package.present());
    if !there {
        return Ok(Some(format!("`{UPGRADER}` is not installed")));
    }
    let timer = tree.root().stat(TIMER)?;
    if timer.is_some_and(|timer| timer.kind == FileKind::Link)
        && tree.root().read_link(TIMER)?.as_deref() == Some("/dev/null")
    {
        return Ok(Some("`apt-daily-upgrade.timer` is masked".to_owned()));
    }
    let last = |wanted: &str| {
        settings
            .iter()
            .rev()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.as_str())
    };
    let never = |value: &str| matches!(value, "" | "0");
    if last("APT::Periodic::Enable").is_some_and(never) {
        return Ok(Some("`APT::Periodic::Enable` is 0".to_owned()));
    }
    if last("APT::Periodic::Unattended-Upgrade").is_none_or(never) {
        return Ok(Some("`APT::Periodic::Unattended-Upgrade` is 0".to_owned()));
    }
    Ok(None)
}

/// The vendor's toolkit, and how its runtime gives devices.
pub(super) fn toolkit(tree: &Tree, packages: &Packages) -> Result<VendorToolkit> {
    const CONFIGURATION: &str = "/etc/nvidia-container-runtime/config.toml";
    let package = packages.known.values().find(|package| package.name == TOOLKIT && package.present());
    let text = tree.text(CONFIGURATION, SMALL)?.unwrap_or_default();
    let table: toml::Table = toml::from_str(&text)
        .map_err(|error| Error::failed(format!("reading `{CONFIGURATION}`: {}", error.message())))?;
    let mode = table.get("nvidia-container-runtime").and_then(|part| part.get("mode")?.as_str());
    Ok(VendorToolkit {
        version: package.map(|package| package.version.clone()),
        mode: mode.map(str::to_owned),
        broken: package.is_some_and(Package::broken),
    })
}

#[cfg(test)]
mod tests {
    use super::keeps;

    #[test]
    fn a_plain_pattern_holds_what_begins_with_it() {
        assert!(keeps("linux-", "linux-image-amd64") && keeps("docker\\.io$", "docker.io"));
        assert!(!keeps("docker.io$", "docker.io-doc") && !keeps("", "x") && !keeps(".*", "x"));
    }
}
