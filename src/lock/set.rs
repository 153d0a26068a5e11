//! The set: kernel, driver, firmware, toolkit and engine of a host as one unit, from its locked packages.

use super::{
    Builds, LockedPackage, PackageSet,
    graph::{self, Graph},
    names::upstream,
    pairs::{self, Pair},
};
use crate::{
    error::{Error, Result},
    profile::Profile,
};

/// Source packages of the driver, as the distributions name them: their packages are of one version or do not work.
const DRIVER_SOURCES: &[&str] = &[
    "nvidia-graphics-drivers",
    "nvidia-open-gpu-kernel-modules",
    "firmware-nvidia-",
    "nvidia-fabricmanager",
];
/// Start of the names of kernel packages.
const IMAGE: &str = "linux-image-";
/// Firmware of cards for another driver than NVIDIA's (Debian's source `firmware-nonfree`).
const OTHER_FIRMWARE: &str = "firmware-nvidia-graphics";
/// How many packages of another version are named, and what brings them; the rest is counted.
const ODD_SHOWN: usize = 3;
/// The container toolkit's package.
const TOOLKIT: &str = "nvidia-container-toolkit";
/// Packages that are a container engine.
pub(super) const ENGINES: &[&str] = &["docker.io", "docker-ce"];

/// A kernel that the archives have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// Upstream version of its package: `6.12.117`.
    pub version: String,
}

impl Kernel {
    /// The kernel that a package is; `None` for other packages, and for those that only stand for the newest kernel.
    pub fn of(name: &str, version: &str) -> Option<Self> {
        let release = name.strip_prefix(IMAGE)?;
        let release = release.strip_prefix("unsigned-").unwrap_or(release);
        let release = release.strip_suffix("-unsigned").unwrap_or(release);
        if release.ends_with("-dbg") || !release.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let upstream = upstream(version);
        let end = upstream.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(upstream.len());
        Some(Self { release: release.to_owned(), version: upstream[..end].to_owned() })
    }

    /// What is behind the numbers of its release: `cloud-amd64`.
    fn flavor(&self) -> &str {
        let bytes = self.release.as_bytes();
        let at = (0..bytes.len().saturating_sub(1))
            .find(|at| bytes[*at] == b'-' && bytes[at + 1].is_ascii_alphabetic());
        at.map_or("", |at| &self.release[at + 1..])
    }
}

/// Whether a package is a part of the driver, by its name and that of its source package: all of them must be of one
/// upstream version.
pub fn is_driver_part(name: &str, source: &str) -> bool {
    DRIVER_SOURCES.iter().any(|start| source.starts_with(start)) || name.starts_with("nvidia-fabricmanager")
}

/// The set of these packages. `sources` names their source packages, in the same order; `kernels` are those that the
/// archives have, `None` where nobody looked.
///
/// # Errors
/// Of kind check: the driver's parts differ in version, or the headers are not the kernel's. The odd packages are
/// named, with what asks for them.
pub fn set(
    profile: &Profile,
    packages: &[LockedPackage],
    sources: &[String],
    kernels: Option<&[Kernel]>,
) -> Result<PackageSet> {
    let kernel = kernel(packages);
    let mut set = facts(packages);
    if let Some(driver) = &set.driver {
        let is_part =
            |at: &usize| is_driver_part(&packages[*at].name, sources.get(*at).map_or("", String::as_str));
        let odd: Vec<usize> = (0..packages.len())
            .filter(is_part)
            .filter(|at| upstream(&packages[*at].version) != driver)
            .collect();
        if !odd.is_empty() {
            return Err(odd_parts(packages, &odd, driver));
        }
        if let Some(kernel) = &kernel {
            headers(packages, kernel)?;
        }
    }
    judge(&mut set, profile, kernel.as_ref(), kernels);
    Ok(set)
}

/// Kernel, driver, firmware, Fabric Manager, toolkit and engine, from what the lock says of its packages and nothing
/// else: whoever reads the lock comes to the same. `builds` and `because` are left out.
fn facts(packages: &[LockedPackage]) -> PackageSet {
    let driver = driver(packages).map(|package| upstream(&package.version).to_owned());
    let part = |starts: &[&str]| {
        let named = packages.iter().filter(|package| {
            package.name != OTHER_FIRMWARE && starts.iter().any(|start| package.name.starts_with(start))
        });
        let mut versions = named.map(|package| upstream(&package.version));
        match &driver {
            Some(driver) => versions.find(|version| version == driver).map(str::to_owned),
            None => versions.next().map(str::to_owned),
        }
    };
    let named = |name: &&str| packages.iter().find(|package| package.name == *name);
    PackageSet {
        kernel: kernel(packages).map(|kernel| kernel.release),
        firmware: part(&["firmware-nvidia-", "nvidia-firmware-"]),
        fabric_manager: part(&["nvidia-fabricmanager"]),
        toolkit: named(&TOOLKIT).map(|package| package.version.clone()),
        engine: ENGINES.iter().find_map(named).map(|found| format!("{} {}", found.name, found.version)),
        driver,
        builds: None,
        because: None,
    }
}

/// The set of locked packages that stay as they are, made anew: the table or the profile's patches may have changed, or
/// somebody the old set. Where all is the same, the old one's words stay.
pub fn again(profile: &Profile, packages: &[LockedPackage], old: Option<&PackageSet>) -> PackageSet {
    let mut set = facts(packages);
    judge(&mut set, profile, kernel(packages).as_ref(), None);
    match old {
        Some(old) if PackageSet { because: set.because.clone(), ..old.clone() } == set => old.clone(),
        _ => set,
    }
}

/// The kernel that boots: the newest of those that `[kernel]` leads to, else of all.
pub(super) fn kernel(packages: &[LockedPackage]) -> Option<Kernel> {
    let wanted = packages.iter().filter(|package| package.wanted_by.iter().any(|word| word == "kernel"));
    let mut open: Vec<&LockedPackage> = wanted.filter(|package| package.name.starts_with(IMAGE)).collect();
    if open.is_empty() {
        open = packages.iter().filter(|package| package.name.starts_with(IMAGE)).collect();
    }
    let mut found = Vec::new();
    // A package such as `linux-image-amd64` leads to the kernel; chains are short, and none comes twice.
    for _ in 0..8 {
        let mut next = Vec::new();
        for package in open {
            let before = next.len();
            next.extend(
                packages
                    .iter()
                    .filter(|other| other.name.starts_with(IMAGE) && package.depends.contains(&other.name)),
            );
            if next.len() == before {
                found.extend(Kernel::of(&package.name, &package.version));
            }
        }
        open = next;
    }
    found.into_iter().max_by_key(|kernel| (pairs::numbers(&kernel.version), kernel.release.clone()))
}

/// The package that says which driver it is: the modules' sources, first those that `[driver]` asked for.
pub(super) fn driver(packages: &[LockedPackage]) -> Option<&LockedPackage> {
    let asked = |package: &&LockedPackage| package.wanted_by.iter().any(|word| word == "driver");
    let mut modules = packages.iter().filter(|package| package.name.contains("dkms"));
    modules.clone().find(asked).or_else(|| modules.find(|package| is_modules(&package.name)))
}

/// Whether it is a package of the driver's modules, by the names that Debian, Ubuntu and NVIDIA give it: not
/// `nvidia-fs-dkms`.
fn is_modules(name: &str) -> bool {
    let kernel = name.ends_with("kernel-dkms") || name.ends_with("kernel-open-dkms");
    name.starts_with("nvidia-dkms-") || (name.starts_with("nvidia-") && kernel)
}

/// The parts of the driver that are of other versions, as one error, with what brings them.
fn odd_parts(packages: &[LockedPackage], odd: &[usize], driver: &str) -> Error {
    let graph = Graph::of(packages);
    let of = |at: &usize| format!("`{}` is {}", packages[*at].name, upstream(&packages[*at].version));
    let parts: Vec<String> = odd.iter().take(ODD_SHOWN).map(of).collect();
    let more = odd.len() - parts.len();
    let more = if more == 0 { String::new() } else { format!(", {more} more of another version") };
    let mut error = Error::check(format!(
        "the parts of the driver differ in version: {}{more}, and the driver is {driver}",
        parts.join(", ")
    ));
    // What somebody asked for tells more than what every host has.
    let asked = |chain: &&Vec<&LockedPackage>| {
        chain.first().is_some_and(|first| first.wanted_by.iter().any(|word| word == "packages"))
    };
    let mut told: Vec<Vec<&LockedPackage>> = Vec::new();
    let mut other: Option<Vec<&LockedPackage>> = None;
    for at in odd {
        let chains = graph.chains(*at);
        match chains.iter().find(asked) {
            Some(chain) if told.iter().any(|known| known.first() == chain.first()) => {}
            Some(chain) => told.push(chain.clone()),
            None => other = other.or_else(|| chains.into_iter().next()),
        }
    }
    let they = if odd.len() == 1 { "it comes" } else { "they come" };
    let chains = if told.is_empty() { other.as_slice() } else { told.as_slice() };
    if !chains.is_empty() {
        let lines: Vec<String> = chains.iter().take(ODD_SHOWN).map(|chain| graph::line(chain)).collect();
        error = error.because(Error::failed(format!("{they} by {}", lines.join("; "))));
    }
    let names: Vec<String> =
        told.iter().filter_map(|chain| Some(format!("`{}`", chain.first()?.name))).collect();
    error.hint(match names.as_slice() {
        [] => "write a `version` in `[driver]` that the archives have whole".to_owned(),
        names => format!(
            "take {} out of `packages`, or write the driver version that {} in `[driver]`",
            names.join(", "),
            if names.len() == 1 { "it wants" } else { "they want" }
        ),
    })
}

/// The modules are built against the headers of the kernel that boots.
fn headers(packages: &[LockedPackage], kernel: &Kernel) -> Result<()> {
    let builds = packages.iter().any(|package| package.name == "dkms");
    let wanted = format!("linux-headers-{}", kernel.release);
    if !builds || packages.iter().any(|package| package.name == wanted) {
        return Ok(());
    }
    let others: Vec<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .filter(|name| name.starts_with("linux-headers-"))
        .collect();
    let has = if others.is_empty() { "there are none".to_owned() } else { others.join(", ") };
    Err(Error::check(format!("the headers are not those of kernel {}: {has}", kernel.release)).hint(format!(
        "name the kernel whose headers the archives have in `[kernel] package`, or wait for `{wanted}`"
    )))
}

/// Fills in whether the driver builds for the kernel.
fn judge(set: &mut PackageSet, profile: &Profile, kernel: Option<&Kernel>, kernels: Option<&[Kernel]>) {
    let (Some(kernel), Some(driver)) = (kernel, &set.driver) else { return };
    let release = &profile.host.release;
    let of_release = || pairs::pairs().iter().filter(|pair| pair.release == *release);
    let known = of_release().find(|pair| pair.kernel == kernel.version && pair.driver == *driver);
    let patched = !profile.driver.patches.is_empty();
    let here = format!("driver {driver} for kernel {}", kernel.version);
    let (builds, mut because) = match known {
        _ if patched => {
            let as_it_is = match known {
                Some(Pair { builds: true, .. }) => "without them it builds too",
                Some(_) => "without them it does not build",
                None => "without them nobody is known to have tried",
            };
            (Builds::Patched, format!("{here} is built with the profile's patches; {as_it_is}"))
        }
        Some(pair) if pair.builds => (Builds::Yes, format!("{here} was seen to build")),
        Some(pair) => {
            let why = pair.because.as_deref().unwrap_or("it was seen to fail");
            (Builds::No, format!("{here} does not build: {why}"))
        }
        None => {
            let mut text = format!("nobody is known to have built {here}");
            let near = of_release().filter(|pair| pair.driver == *driver);
            if let Some(near) = near.max_by_key(|pair| closeness(&pair.kernel, &kernel.version)) {
                let word = if near.builds { "builds" } else { "does not build" };
                text += &format!("; for {} it {word}", near.kernel);
            }
            (Builds::Untried, text)
        }
    };
    if matches!(builds, Builds::No | Builds::Untried) {
        because += &newest_that_builds(of_release(), kernel, driver, kernels);
    }
    set.builds = Some(builds);
    set.because = Some(because);
}

/// Says that the driver's modules were built: whatever was known before, this is proof.
pub fn built(set: &mut PackageSet, profile: &Profile) {
    let (Some(kernel), Some(driver)) = (&set.kernel, &set.driver) else { return };
    let patched = !profile.driver.patches.is_empty();
    set.because = Some(format!(
        "the modules of driver {driver} were built for kernel {kernel}{}",
        if patched { " with the profile's patches" } else { "" }
    ));
    set.builds = Some(if patched { Builds::Patched } else { Builds::Yes });
}

/// How near one kernel is to another: how many leading numbers are the same, then the newer.
fn closeness(one: &str, other: &str) -> (usize, Vec<u64>) {
    let (one, other) = (pairs::numbers(one), pairs::numbers(other));
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    (same, one)
}

/// The newest pair that builds, of the kernels there are: with this driver where there is one.
fn newest_that_builds<'p>(
    pairs: impl Iterator<Item = &'p Pair>,
    kernel: &Kernel,
    driver: &str,
    kernels: Option<&[Kernel]>,
) -> String {
    let package = |pair: &Pair| {
        let of = kernels?.iter().filter(|known| known.version == pair.kernel);
        of.max_by_key(|known| (known.flavor() == kernel.flavor(), known.release.clone()))
    };
    let best = pairs.filter(|pair| pair.builds && (kernels.is_none() || package(pair).is_some())).max_by_key(
        |pair| (pair.driver == driver, pairs::numbers(&pair.kernel), pairs::numbers(&pair.driver)),
    );
    match best {
        None => {
            "; no driver is known to build for any kernel that the archives have of this release".to_owned()
        }
        Some(pair) => {
            let named =
                package(pair).map(|known| format!(" (`{IMAGE}{}`)", known.release)).unwrap_or_default();
            format!(
                "; the newest pair that builds: kernel {}{named} with driver {}",
                pair.kernel, pair.driver
            )
        }
    }
}

mod agreement;
pub use agreement::{Contradiction, contradictions, refuse};

#[cfg(test)]
pub(super) mod tests;
