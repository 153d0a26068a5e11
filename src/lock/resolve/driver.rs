//! Which packages a driver is, by distribution, and which of its versions the archives have whole.

use std::collections::BTreeMap;

use super::roots::{named, word};
use crate::{
    apt::{
        Catalog, Record,
        closure::{Constraint, Preferred, Root},
        version,
    },
    error::{Error, Result},
    profile::{Distribution, DriverFlavor, Profile},
};

/// From this suite priority on a version is taken by itself (apt_preferences(5)).
const AUTOMATIC: u16 = 500;

/// The driver that is locked.
pub(super) struct Driver {
    /// Its upstream version.
    pub(super) version: String,
    /// Its packages, each in that version.
    pub(super) roots: Vec<Root>,
}

/// One way in which archives cut a driver into packages.
struct Family {
    /// All of these, in one version: first the modules' sources.
    parts: Vec<String>,
    /// These too where that version has them.
    more: Vec<String>,
    /// These where they can be had, in whatever version.
    beside: Vec<&'static str>,
}

/// The families a driver of this branch may come in, the most wanted first: what a host without a display computes
/// with, and no more.
fn families(profile: &Profile, branch: &str) -> Vec<Family> {
    let open = profile.driver.flavor == DriverFlavor::Open;
    let family = |parts: &[&str], more: &[&str], beside: &[&'static str]| Family {
        parts: parts.iter().map(|name| name.replace("{}", branch)).collect(),
        more: more.iter().map(|name| name.replace("{}", branch)).collect(),
        beside: beside.to_vec(),
    };
    let beside = ["nvidia-persistenced", "nvidia-modprobe"];
    match profile.host.distribution {
        Distribution::Debian => {
            let more = ["libnvidia-nvvm4"];
            let user_space = ["nvidia-smi", "libcuda1", "libnvidia-ml1", "libnvidia-ptxjitcompiler1"];
            let debian = |modules: &'static str| {
                let parts = [&[modules], user_space.as_slice(), &["firmware-nvidia-gsp"]].concat();
                family(&parts, &more, &beside)
            };
            if open {
                // Debian's own name, then that of NVIDIA's archive.
                let vendor = family(&["nvidia-kernel-open-dkms", "nvidia-driver-cuda"], &[], &beside);
                return vec![debian("nvidia-open-kernel-dkms"), vendor];
            }
            let branch_packages = [
                "nvidia-tesla-{}-kernel-dkms",
                "nvidia-tesla-{}-smi",
                "libnvidia-tesla-{}-cuda1",
                "libnvidia-tesla-{}-ml1",
                "firmware-nvidia-tesla-{}-gsp",
            ];
            vec![
                debian("nvidia-kernel-dkms"),
                family(&branch_packages, &["libnvidia-tesla-{}-nvvm4"], &beside),
                family(&["nvidia-kernel-dkms", "nvidia-driver-cuda"], &[], &beside),
            ]
        }
        Distribution::Ubuntu => {
            let end = if open { "-open" } else { "" };
            ["-server", ""]
                .iter()
                .map(|server| {
                    let modules = format!("nvidia-dkms-{{}}{server}{end}");
                    let headless = format!("nvidia-headless-no-dkms-{{}}{server}{end}");
                    let utilities = format!("nvidia-utils-{{}}{server}");
                    family(&[&modules, &headless, &utilities], &[], &["nvidia-modprobe"])
                })
                .collect()
        }
    }
}

/// The driver of the profile: of a branch the locked version, else the newest that one family has whole. `None`
/// where none is wanted.
pub(super) fn choose(profile: &Profile, catalog: &Catalog, locked: &[Preferred]) -> Result<Option<Driver>> {
    let Some(wanted) = &profile.driver.version else { return Ok(None) };
    if profile.driver.flavor == DriverFlavor::None {
        return Ok(None);
    }
    let branch = wanted.split('.').next().unwrap_or(wanted);
    let families = families(profile, branch);
    let constraint = Constraint::Branch(wanted.clone());
    for family in &families {
        let versions = whole(family, profile, catalog, Some(&constraint));
        let is_locked = |upstream: &str| {
            let modules = family.parts.first();
            locked.iter().any(|l| Some(&l.name) == modules && version::upstream(&l.version) == upstream)
        };
        let best = versions.iter().max_by(|(one, automatic), (other, other_automatic)| {
            let exact = |version: &str| version == wanted;
            exact(one)
                .cmp(&exact(other))
                .then_with(|| is_locked(one).cmp(&is_locked(other)))
                .then_with(|| automatic.cmp(other_automatic))
                .then_with(|| version::compare(one, other))
        });
        if let Some((version, _)) = best {
            return Ok(Some(made(family, profile, catalog, version)));
        }
    }
    Err(missing(&families, profile, catalog, wanted))
}

/// Upstream versions that a family has whole, and whether each is taken by itself.
fn whole(
    family: &Family,
    profile: &Profile,
    catalog: &Catalog,
    constraint: Option<&Constraint>,
) -> BTreeMap<String, bool> {
    let mut versions: Option<BTreeMap<String, bool>> = None;
    for part in &family.parts {
        let mut here: BTreeMap<String, bool> = BTreeMap::new();
        let admits = |record: &Record<'_>| constraint.is_none_or(|one| one.admits(record.version));
        for record in records(catalog, profile, part).filter(admits) {
            let automatic = here.entry(version::upstream(record.version).to_owned()).or_default();
            *automatic |= record.priority >= AUTOMATIC;
        }
        versions = Some(match versions {
            None => here,
            Some(before) => before
                .into_iter()
                .filter_map(|(version, automatic)| {
                    let also = *here.get(&version)?;
                    Some((version, automatic && also))
                })
                .collect(),
        });
    }
    versions.unwrap_or_default()
}

fn made(family: &Family, profile: &Profile, catalog: &Catalog, version: &str) -> Driver {
    let of = |name: &str, constraint: Option<Constraint>| Root {
        constraint,
        shown: name.to_owned(),
        ..named(profile, name, word::DRIVER)
    };
    let in_version = |name: &str| of(name, Some(Constraint::Upstream(version.to_owned())));
    let mut roots: Vec<Root> = family.parts.iter().map(|name| in_version(name)).collect();
    for name in &family.more {
        if records(catalog, profile, name).any(|record| version::upstream(record.version) == version) {
            roots.push(in_version(name));
        }
    }
    for name in &family.beside {
        if records(catalog, profile, name).next().is_some() {
            roots.push(of(name, None));
        }
    }
    Driver { version: version.to_owned(), roots }
}

/// The packages of this name for the host.
fn records<'c>(catalog: &'c Catalog, profile: &Profile, name: &str) -> impl Iterator<Item = Record<'c>> {
    let native = profile.host.architecture.clone();
    catalog
        .named(name)
        .iter()
        .map(|id| catalog.get(*id))
        .filter(move |record| record.architecture == "all" || record.architecture == native)
}

/// Says what of the driver is there and what is not.
fn missing(families: &[Family], profile: &Profile, catalog: &Catalog, wanted: &str) -> Error {
    let mut lines = Vec::new();
    let mut whole_versions: Vec<String> = Vec::new();
    for family in families {
        let found = whole(family, profile, catalog, None);
        whole_versions.extend(found.into_keys());
        let there: Vec<(&String, Vec<&str>)> = family
            .parts
            .iter()
            .map(|part| {
                let mut versions: Vec<&str> =
                    records(catalog, profile, part).map(|record| version::upstream(record.version)).collect();
                versions.sort_by(|a, b| version::compare(b, a));
                versions.dedup();
                (part, versions)
            })
            .collect();
        if there.iter().all(|(_, versions)| versions.is_empty()) {
            continue;
        }
        for (part, versions) in there {
            let has = if versions.is_empty() { "nowhere".to_owned() } else { versions.join(", ") };
            lines.push(format!("`{part}`: {has}"));
        }
    }
    whole_versions.sort_by(|a, b| version::compare(b, a));
    whole_versions.dedup();
    let flavor = match profile.driver.flavor {
        DriverFlavor::Proprietary => "proprietary",
        _ => "open",
    };
    let error = Error::usage(format!("no archive has the {flavor} driver {wanted} whole"));
    let error = match lines.as_slice() {
        [] => error,
        lines => error.because(Error::failed(format!("the archives have {}", lines.join("; ")))),
    };
    match whole_versions.first() {
        Some(newest) => error.hint(format!(
            "write `version = \"{newest}\"` in `[driver]`, or add an archive that has {wanted}"
        )),
        None => error.hint("add an archive that has it as `[[host.repository]]`, or set `backports = true`"),
    }
}
