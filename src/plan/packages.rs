//! Packages: from the lock and what dpkg says to what comes, changes and goes, and to the holds on it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Deferred, Goal, Inputs, Plan,
    dpkg::{self, Package, Packages, Want},
    record::{OwnedPackage, Record},
    state::{HostState, Target},
    step::{PackageChange, Step, Way},
};
use crate::{
    error::{Error, Result},
    lock::{Builds, LockedPackage},
    version,
};

/// Packages whose older versions cannot be counted on to work with what the newer ones left on the host.
const DELICATE: [&str; 4] = ["apt", "dpkg", "libc6", "systemd"];
/// Packages that hold the container engine's daemon.
const ENGINES: [&str; 3] = ["docker-ce", "docker.io", "moby-engine"];

/// What the packages' part of a plan came to.
#[derive(Debug, Default)]
pub(super) struct Phase {
    pub(super) steps: Vec<Step>,
    /// The container engine comes, changes or is finished by these steps: what is seen of it now says nothing.
    pub(super) engine: bool,
}

/// Whether packages are locked, so that the host's are brought to them.
pub(super) fn pinned(inputs: &Inputs) -> bool {
    inputs.profile.host.pin_packages && !inputs.lock.packages.is_empty()
}

/// Refuses a driver whose modules are not built: hosts compile nothing.
pub(super) fn refuse_set(inputs: &Inputs) -> Result<()> {
    let Some(set) = &inputs.lock.set else { return Ok(()) };
    let Some(driver) = &set.driver else { return Ok(()) };
    let kernel = set.kernel.as_deref().unwrap_or("the locked kernel");
    if set.builds == Some(Builds::No) {
        let why = set.because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
        return Err(Error::check(format!("driver {driver} is known not to build for kernel {kernel}{why}"))
            .hint("lock a pair that builds: set `[driver] version` or `[kernel] package`, or name a patch in `[driver] patches`; then `bedplate lock`"));
    }
    if inputs.lock.lacks_modules() {
        return Err(Error::check(format!(
            "the lock has no modules of driver {driver} for kernel {kernel}, and hosts compile none"
        ))
        .hint("`bedplate lock --modules`, where the profile is kept, builds them once and locks the package of them"));
    }
    Ok(())
}

/// Refuses a host of another distribution or release: bringing it to the lock would be an upgrade of all of it.
fn refuse_release(inputs: &Inputs, state: &HostState) -> Result<()> {
    let host = &inputs.profile.host;
    let Some((id, release)) = &state.os else { return Ok(()) };
    let wanted = (host.distribution.id(), host.release.as_str());
    if (id.as_str(), release.as_str()) == wanted {
        return Ok(());
    }
    let what = if state.target == Target::Tree { "tree" } else { "host" };
    Err(Error::failed(format!("the {what} is {id} {release}, and the profile is for {} {}", wanted.0, wanted.1)).hint(
        format!(
            "install {} {}, or change `release` in `[host]` and run `bedplate lock`; packages are not moved from one \
             release to another",
            wanted.0, wanted.1
        ),
    ))
}

/// The steps for packages; what they own goes into the plan's record.
pub(super) fn plan(
    inputs: &Inputs,
    state: &HostState,
    goal: Goal,
    prior: &Record,
    plan: &mut Plan,
) -> Result<Phase> {
    plan.record.packages.clone_from(&prior.packages);
    if pinned(inputs) {
        refuse_release(inputs, state)?;
    }
    let none = Packages::default();
    let host = state.packages.as_ref().unwrap_or(&none);
    if !pinned(inputs) {
        return Ok(give_up(inputs, host, prior));
    }
    if !host.tools {
        without_tools(inputs, state, plan);
        return Ok(Phase::default());
    }
    let native = inputs.profile.host.architecture.as_str();
    let there = host.by_key(native);
    let wanted = inputs.lock.host_packages();
    let locked: BTreeMap<String, &LockedPackage> = wanted
        .iter()
        .map(|package| (dpkg::key(&package.name, &package.architecture, native), package))
        .collect();
    let changes: Vec<PackageChange> =
        locked.iter().filter_map(|(key, package)| change(key, package, there.get(key).copied())).collect();
    refuse_delicate(inputs, state, goal, &changes)?;
    let remove = removals(inputs, state, &there, &locked, prior, plan);
    let broken: Vec<String> =
        there.iter().filter(|(_, package)| package.broken()).map(|(key, _)| key.clone()).collect();
    let holds = holds(&there, &locked, &changes, &remove, prior, plan);
    plan.unlocked =
        there.keys().filter(|key| !locked.contains_key(*key) && !remove.contains(key)).cloned().collect();

    let is_engine = |key: &String| ENGINES.contains(&key.as_str());
    let engine = changes.iter().map(|change| &change.package).chain(&broken).any(is_engine);
    let mut steps = Vec::new();
    if host.interrupted || !broken.is_empty() {
        steps.push(Step::RepairPackages { packages: broken });
    }
    if !changes.is_empty() || !remove.is_empty() {
        let size = changes.iter().filter_map(|change| locked.get(&change.package)).map(|p| p.size).sum();
        let lines = changes
            .iter()
            .map(ToString::to_string)
            .chain(remove.iter().map(|package| format!("- {package}")))
            .collect();
        steps.push(Step::InstallPackages { changes, remove, size, lines });
    }
    steps.extend(holds);
    Ok(Phase { steps, engine })
}

/// What happens to one locked package.
fn change(key: &str, locked: &LockedPackage, there: Option<&Package>) -> Option<PackageChange> {
    let to = locked.version.clone();
    let Some(there) = there else {
        return Some(PackageChange { package: key.to_owned(), from: None, to, way: Way::Install });
    };
    let from = Some(there.version.clone()).filter(|version| !version.is_empty());
    let way = if there.version != to {
        if version::compare(&there.version, &to).is_gt() { Way::Down } else { Way::Up }
    } else if there.reinstall || there.state == dpkg::State::HalfInstalled {
        Way::Again
    } else {
        return None;
    };
    let way = if from.is_none() { Way::Install } else { way };
    Some(PackageChange { package: key.to_owned(), from, to, way })
}

/// A host or tree whose packages cannot be touched.
fn without_tools(inputs: &Inputs, state: &HostState, plan: &mut Plan) {
    // What an earlier run brought stays its own.
    for owned in plan.record.packages.values_mut() {
        owned.wanted = true;
    }
    if state.target == Target::Tree {
        plan.deferred.push(Deferred {
            what: format!("{} packages", inputs.lock.host_packages().len()),
            why: "the tree has no apt: packages are installed on the booted host".to_owned(),
        });
    } else {
        plan.missing.push(super::Missing {
            what: "packages are locked, and the host has no apt and dpkg to install them with".to_owned(),
            hint: "use a Debian or Ubuntu host, or say `pin-packages = false` in `[host]`".to_owned(),
        });
    }
}

/// Nothing is locked: the packages are someone else's from now on, and nothing holds them any more.
fn give_up(inputs: &Inputs, host: &Packages, prior: &Record) -> Phase {
    let there = host.by_key(&inputs.profile.host.architecture);
    let release: Vec<String> = released(prior, &there, |_| true);
    let hold = lost(prior, &there, |_| true);
    let none = hold.is_empty() && release.is_empty();
    let steps = if none { Vec::new() } else { vec![Step::HoldPackages { hold, release }] };
    Phase { steps, engine: false }
}

/// Holds by hand that a run took away when it changed the package, and was killed before it set them again.
fn lost(prior: &Record, there: &BTreeMap<String, &Package>, left: impl Fn(&str) -> bool) -> Vec<String> {
    prior
        .packages
        .iter()
        .filter(|(key, owned)| !owned.held && owned.before.is_some() && left(key))
        .filter(|(key, _)| there.get(*key).is_some_and(|package| package.want != Want::Hold))
        .map(|(key, _)| key.clone())
        .collect()
}

/// Our holds that are still there, of the packages that `left` names.
fn released(prior: &Record, there: &BTreeMap<String, &Package>, left: impl Fn(&str) -> bool) -> Vec<String> {
    prior
        .packages
        .iter()
        .filter(|(key, owned)| owned.held && left(key))
        .filter(|(key, _)| there.get(*key).is_some_and(|package| package.want == Want::Hold))
        .map(|(key, _)| key.clone())
        .collect()
}

/// What goes: what earlier generations brought and this one does not want; with `strict` all that is not locked.
fn removals(
    inputs: &Inputs,
    state: &HostState,
    there: &BTreeMap<String, &Package>,
    locked: &BTreeMap<String, &LockedPackage>,
    prior: &Record,
    plan: &mut Plan,
) -> Vec<String> {
    let strict = inputs.profile.host.strict;
    let ours = |key: &str| prior.packages.get(key).is_some_and(|owned| owned.before.is_none());
    let runs = |package: &Package| {
        state.running.kernel.as_ref().is_some_and(|release| {
            package.name.starts_with("linux-") && package.name.ends_with(&format!("-{release}"))
        })
    };
    // Kernels stand side by side: one that is left is what a host falls back to.
    let stays = |package: &Package| {
        package.essential || runs(package) || (!strict && package.name.starts_with("linux-image-"))
    };
    let mut going: BTreeSet<&String> = there
        .iter()
        .filter(|(key, package)| !locked.contains_key(*key) && (strict || ours(key)) && !stays(package))
        .map(|(key, _)| key)
        .collect();
    // What stays may need some of it; and what that needs.
    loop {
        let needed: BTreeSet<&str> = there
            .iter()
            .filter(|(key, _)| !locked.contains_key(*key) && !going.contains(key))
            .flat_map(|(_, package)| package.depends.iter().map(String::as_str))
            .collect();
        let kept: Vec<&String> = going
            .iter()
            .copied()
            .filter(|key| {
                there.get(*key).is_some_and(|package| {
                    needed.contains(package.name.as_str())
                        || package.provides.iter().any(|name| needed.contains(name.as_str()))
                })
            })
            .collect();
        if kept.is_empty() {
            break;
        }
        for key in kept {
            going.remove(key);
            plan.warnings.push(format!(
                "package `{key}` is no longer wanted, and stays: a package that is not locked needs it"
            ));
        }
    }
    for (key, owned) in &mut plan.record.packages {
        let stays = there.contains_key(key) && !locked.contains_key(key) && !going.contains(key);
        // Ours still, for the day when nothing needs it; but nothing holds it.
        owned.wanted = stays && owned.before.is_none();
    }
    going.into_iter().cloned().collect()
}

/// The holds, and who owns what.
fn holds(
    there: &BTreeMap<String, &Package>,
    locked: &BTreeMap<String, &LockedPackage>,
    changes: &[PackageChange],
    remove: &[String],
    prior: &Record,
    plan: &mut Plan,
) -> Option<Step> {
    let release =
        released(prior, there, |key| !locked.contains_key(key) && !remove.iter().any(|gone| gone == key));
    for (key, owned) in &mut plan.record.packages {
        // As long as a run may not have let go of it, the hold is known to be ours.
        owned.held &= !owned.wanted || release.contains(key);
    }
    let mut hold = lost(prior, there, |key| !locked.contains_key(key));
    for key in locked.keys() {
        let now = there.get(key);
        let known = prior.packages.get(key);
        let held = now.is_some_and(|package| package.want == Want::Hold);
        // Of a run that was interrupted the record knows it, and dpkg does not any more.
        let by_hand = match known {
            Some(owned) if owned.held => false,
            Some(owned) if owned.before.is_some() => true,
            _ => held,
        };
        let change = changes.iter().find(|change| change.package == *key);
        // A package that changes loses its hold.
        if !held || change.is_some() {
            hold.push(key.clone());
        }
        if let (true, true, Some(change)) = (held, by_hand, change) {
            plan.warnings.push(format!(
                "package `{key}` was held by hand at {}: it goes to {}, and stays held",
                change.from.as_deref().unwrap_or("no version"),
                change.to
            ));
        }
        let before = match known {
            Some(owned) => owned.before.clone(),
            None => now.map(|package| package.version.clone()),
        };
        plan.record.packages.insert(key.clone(), OwnedPackage { before, held: !by_hand, wanted: true });
    }
    (!hold.is_empty() || !release.is_empty()).then_some(Step::HoldPackages { hold, release })
}

/// A step back that would endanger the host is refused unless it is named.
fn refuse_delicate(inputs: &Inputs, state: &HostState, goal: Goal, changes: &[PackageChange]) -> Result<()> {
    let running = state.running.kernel.as_ref().map(|release| format!("linux-image-{release}"));
    let refused = changes.iter().filter(|change| change.way == Way::Down).filter(|change| {
        let name = change.package.split(':').next().unwrap_or_default();
        let delicate = DELICATE.contains(&name) || running.as_deref() == Some(name);
        delicate && !inputs.allow.iter().any(|allowed| allowed == name || *allowed == change.package)
    });
    let errors: Vec<Error> = refused
        .map(|change| {
            let PackageChange { package, from, to, .. } = change;
            let from = from.as_deref().unwrap_or_default();
            let error = Error::failed(format!(
                "package `{package}` would go back from {from} to {to}, which can leave the host unable to start"
            ));
            match goal {
                Goal::Switch(number) => error
                    .hint(format!("if you mean it, name it: `bedplate generations switch {number} --allow {package}`")),
                Goal::Provision => error
                    .hint(format!("lock what the host has or newer: `bedplate lock --update package:{package}`"))
                    .hint(format!("or, if you mean it, name it: `bedplate provision --allow {package}`")),
            }
        })
        .collect();
    Error::join(errors).map_or(Ok(()), Err)
}

/// Why the host must be restarted for its packages: what runs is not what is locked.
pub(super) fn reboot(inputs: &Inputs, state: &HostState) -> Option<String> {
    let set = inputs.lock.set.as_ref().filter(|_| pinned(inputs))?;
    let differs = |locked: &Option<String>, runs: &Option<String>| match (locked, runs) {
        (Some(locked), Some(runs)) if locked != runs => Some((locked.clone(), runs.clone())),
        _ => None,
    };
    if let Some((locked, runs)) = differs(&set.kernel, &state.running.kernel) {
        return Some(format!("kernel {runs} runs, and {locked} is locked"));
    }
    let (locked, runs) = differs(&set.driver, &state.running.driver)?;
    Some(format!("driver {runs} is loaded, and {locked} is locked"))
}
