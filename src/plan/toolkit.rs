//! The container engine and toolkit alone: the same steps for a part of the lock.

use std::collections::BTreeSet;

use super::{
    Change, Goal, Inputs, Plan, Record, Step,
    packages::{self, Phase},
    parts,
    state::{HostState, Target},
};
use crate::{
    error::{Error, Result},
    lock::{Lock, LockedPackage},
    profile::ContainerEngine,
};

/// Why a package is in the lock by itself: the engine, and what gives containers their GPUs.
const WANTED_BY: &str = "container";

/// The plan that brings the container engine and toolkit of the lock, and Docker's configuration. It makes no generation:
/// nothing is held, nothing is removed, and a later `provision` takes what is there as it finds it. Where the profile pins no
/// packages, Docker is the host's own, and only its configuration is planned.
///
/// # Errors
/// The lock has neither though it pins packages; what stands in the way of Docker's configuration.
pub fn toolkit(inputs: &Inputs, state: &HostState) -> Result<Plan> {
    // Neither engine nor toolkit needs modules.
    let lock = Lock { packages: part(inputs.lock), modules: None, ..inputs.lock.clone() };
    let host = &inputs.profile.host;
    if inputs.profile.container.engine == ContainerEngine::None
        || host.pin_packages && lock.packages.is_empty()
    {
        return Err(Error::usage("the lock has no container engine to install")
            .hint("name one in the profile (`[container] engine`), then `bedplate lock`"));
    }
    let mut profile = inputs.profile.clone();
    profile.host.strict = false;
    let inputs = Inputs { profile: &profile, lock: &lock, ..*inputs };
    let prior = Record::merged(
        state.current.as_ref().map(|known| &known.record),
        state.interrupted.iter().map(|known| &known.record),
    );
    let generation = state.current.as_ref().map_or(0, |known| known.number);
    let mut plan = Plan::without_steps(generation, Change::Repair);
    // Of no earlier generation, so that nothing counts as left by one.
    let Phase { steps, engine } =
        packages::plan(&inputs, state, Goal::Provision, &Record::default(), &mut plan)?;
    plan.unlocked.clear();
    plan.steps.extend(steps.into_iter().filter(|step| !matches!(step, Step::HoldPackages { .. })));
    if state.target == Target::Host {
        let docker = parts::docker(&inputs, state, engine, &prior, &mut plan)?;
        plan.steps.extend(docker);
    }
    Ok(plan)
}

/// The packages that are reached from those the container engine and toolkit are wanted by.
fn part(lock: &Lock) -> Vec<LockedPackage> {
    let packages = lock.host_packages();
    let is_named = |package: &LockedPackage, name: &str| {
        name.split_once(':').map_or(package.name == name, |(name, architecture)| {
            package.name == name && package.architecture == architecture
        })
    };
    let mut reached: BTreeSet<usize> = BTreeSet::new();
    let mut open: Vec<usize> = packages
        .iter()
        .enumerate()
        .filter(|(_, package)| package.wanted_by.iter().any(|word| word == WANTED_BY))
        .map(|(index, _)| index)
        .collect();
    while let Some(index) = open.pop() {
        if !reached.insert(index) {
            continue;
        }
        for name in &packages[index].depends {
            open.extend(
                packages
                    .iter()
                    .enumerate()
                    .filter(|(_, package)| is_named(package, name))
                    .map(|(index, _)| index),
            );
        }
    }
    reached.into_iter().map(|index| packages[index].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        plan::{
            state::DockerState,
            tests::{Model, inputs, profile},
        },
        profile::GpuAccess,
    };

    #[test]
    fn the_part_is_what_the_engine_reaches() {
        let package = |name: &str, depends: &[&str], wanted_by: &[&str]| LockedPackage {
            repository: "debian".into(),
            name: name.into(),
            version: "1".into(),
            architecture: "amd64".into(),
            sha256: Digest::of(name),
            size: 1,
            path: name.into(),
            depends: depends.iter().map(|name| (*name).to_owned()).collect(),
            wanted_by: wanted_by.iter().map(|word| (*word).to_owned()).collect(),
        };
        let lock = Lock {
            packages: vec![
                package("chrony", &["libc6"], &["packages"]),
                package("containerd", &["libc6", "runc"], &[]),
                package("docker.io", &["containerd"], &["container"]),
                package("libc6", &["docker.io"], &["essential"]),
                package("runc", &["libc6:amd64"], &[]),
            ],
            ..Lock::default()
        };
        let names: Vec<String> = part(&lock).into_iter().map(|package| package.name).collect();
        assert_eq!(names, ["containerd", "docker.io", "libc6", "runc"]);
        assert!(part(&Lock::default()).is_empty());
    }

    #[test]
    fn without_pinned_packages_docker_is_the_hosts_own_and_its_configuration_is_planned() {
        let cdi = |engine: &str| {
            let mut profile = profile("");
            profile.host.pin_packages = false;
            profile.container.gpu_access = GpuAccess::Cdi;
            if engine == "none" {
                profile.container.engine = ContainerEngine::None;
            }
            profile
        };
        let lock = Lock::default();
        let mut host = Model::new([]);
        let wanted = cdi("docker");
        let plan = toolkit(&inputs(&wanted, &lock), &host.observed()).unwrap();
        assert!(plan.steps.iter().any(|step| matches!(step, Step::MergeDaemon { .. })), "{:?}", plan.steps);
        plan.refuse().unwrap();
        // It is not brought, and not passed over either.
        host.state.docker =
            DockerState::Away { why: "Docker is not there".into(), hint: "install it".into() };
        let plan = toolkit(&inputs(&wanted, &lock), &host.observed()).unwrap();
        assert!(plan.refuse().unwrap_err().message().contains("Docker is not there"));
        // A lock that should have one and has none, and a host without an engine.
        let error = toolkit(&inputs(&profile(""), &lock), &host.observed()).unwrap_err();
        assert!(error.message().contains("no container engine"), "{error:?}");
        toolkit(&inputs(&cdi("none"), &lock), &host.observed()).unwrap_err();
    }
}
