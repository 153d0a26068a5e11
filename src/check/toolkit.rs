//! Layer 2: the Docker daemon, and GPU access for containers.

use super::{
    subject::Subject,
    verdict::{Tally, Verdict},
};
use crate::{
    host::facts::{CdiSpec, Docker, Engine, Facts},
    plan,
    profile::{ContainerEngine, GpuAccess},
};

/// The first release that takes CDI devices (Docker Engine 25.0 release notes).
const CDI_SINCE: u64 = 25;
/// What the profile's GPU access asks of Docker's configuration, packages locked or not.
const MERGES: &str = "`bedplate provision`, which sets it in `/etc/docker/daemon.json` and restarts Docker";
/// NVIDIA's CDI kind (nvidia-container-toolkit).
pub(super) const KIND: &str = "nvidia.com/gpu";

pub(super) fn engine(facts: &Facts) -> Result<&Engine, String> {
    match facts.docker.as_result() {
        Ok(Docker::Answers(engine)) => Ok(engine),
        Ok(Docker::Away(away)) => Err(away.why.clone()),
        Err(why) => Err(why.to_owned()),
    }
}

fn engine_comes(subject: &Subject<'_>) -> String {
    subject.brings("toolkit install", "`apt-get install docker.io`")
}

fn newer_comes(subject: &Subject<'_>) -> String {
    let newer = if subject.profile.host.pin_packages {
        format!("bring the locked Docker with `bedplate toolkit install`, where that is {CDI_SINCE} or newer")
    } else {
        format!("install Docker {CDI_SINCE} or newer")
    };
    format!("{newer}, or write `gpu-access = \"nvidia-runtime\"`")
}

pub(super) fn daemon(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if subject.profile.container.engine == ContainerEngine::None {
        return Verdict::not_applicable("the profile asks for no container engine");
    }
    if let Some(broken) = broken_configuration(facts) {
        return broken;
    }
    let engine =
        match facts.docker.as_result() {
            Ok(Docker::Answers(engine)) => engine,
            Ok(Docker::Away(away)) => {
                let next = away.next.clone();
                return Verdict::fail(&away.why).next(next.unwrap_or_else(|| {
                    "`systemctl status docker` and `journalctl -u docker -n 20`".to_owned()
                }));
            }
            Err(why) => return Verdict::unknown(why).next("`systemctl status docker`"),
        };
    let saw = |verdict: Verdict| {
        verdict
            .saw(format!("version {}, storage {}", engine.version, engine.storage))
            .saw(format!("data root: `{}`", engine.root))
    };
    if engine.root.starts_with("/var/snap/") {
        return saw(Verdict::fail("Docker is the snap package, which cannot reach the driver's files"))
            .next(format!("`snap remove docker`, then {}", engine_comes(subject)));
    }
    let major = engine.version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    match major {
        None => saw(Verdict::unknown(format!("Docker's version `{}` cannot be read", engine.version))),
        Some(major) if major < CDI_SINCE && subject.profile.container.gpu_access == GpuAccess::Cdi => {
            saw(Verdict::fail(format!("Docker {} is too old for `gpu-access = \"cdi\"`", engine.version)))
                .next(newer_comes(subject))
        }
        Some(_) => saw(Verdict::pass(format!("Docker {} answers", engine.version))),
    }
}

/// A configuration that Docker refuses: it does not start with it, or will not the next time.
fn broken_configuration(facts: &Facts) -> Option<Verdict> {
    let why = facts.broken_daemon_json()?;
    let so = match facts.docker.ok() {
        Some(Docker::Answers(_)) => "Docker runs, and will not start again with it",
        _ => "Docker does not answer, and does not start with it",
    };
    let verdict = Verdict::fail(format!("`{}` is not JSON: {so}", plan::DAEMON));
    Some(verdict.saw(format!("`{}`: {why}", plan::DAEMON)).next(format!(
        "edit it at that place, see that it is right (`dockerd --validate --config-file {}`), then `systemctl restart docker`",
        plan::DAEMON
    )))
}

pub(super) fn wiring(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let access = subject.profile.container.gpu_access;
    if access == GpuAccess::None {
        return Verdict::not_applicable("the profile gives containers no GPUs");
    }
    let engine = match engine(facts) {
        Ok(engine) => engine,
        Err(why) => return Verdict::unknown(why),
    };
    if access == GpuAccess::NvidiaRuntime {
        let runtimes: Vec<&str> = engine.runtimes.iter().map(String::as_str).collect();
        let line = format!("runtimes: {}", runtimes.join(", "));
        return if engine.runtimes.contains("nvidia") {
            Verdict::pass("the runtime `nvidia` is registered").saw(line)
        } else {
            Verdict::fail("the runtime `nvidia` is not registered with Docker").saw(line).next(MERGES)
        };
    }
    let mut tally = Tally::default();
    match engine.cdi {
        Some(true) => tally.good(format!("Docker takes CDI devices from {}", engine.cdi_dirs.join(", "))),
        Some(false) => tally.bad("Docker does not take CDI devices: the feature is off", MERGES),
        None => match facts.daemon_json.as_result() {
            Ok(Some(configuration)) if configuration.cdi == Some(true) => {
                tally.good("`/etc/docker/daemon.json`: `features.cdi` is on");
            }
            Ok(_) => tally.unknown("Docker does not say whether it takes CDI devices"),
            Err(why) => tally.unknown(why),
        },
    }
    match facts.cdi.as_result() {
        Ok(specs) => specification(&mut tally, specs, subject, facts),
        Err(why) => tally.unknown(why),
    }
    tally.verdict("Docker takes CDI devices, and there is a specification", "nothing to look at")
}

fn specification(tally: &mut Tally, specs: &[CdiSpec], subject: &Subject<'_>, facts: &Facts) {
    let ours: Vec<&CdiSpec> = specs.iter().filter(|spec| spec.kind.as_deref() == Some(KIND)).collect();
    for spec in specs.iter().filter(|spec| spec.broken.is_some()) {
        let why = spec.broken.as_deref().unwrap_or_default();
        tally.bad(format!("`{}` is broken: {why}", spec.path), generate(subject, facts));
    }
    if ours.is_empty() {
        return tally.bad(format!("there is no CDI specification of `{KIND}`"), generate(subject, facts));
    }
    for spec in ours {
        let devices: Vec<&str> = spec.devices.iter().map(String::as_str).collect();
        if devices.is_empty() {
            tally.bad(format!("`{}` names no device", spec.path), generate(subject, facts));
        } else {
            tally.good(format!("`{}`: {}", spec.path, devices.join(", ")));
        }
    }
}

/// Who writes the specification: the vendor's toolkit where it is installed, else bedplate.
pub(super) fn generate(subject: &Subject<'_>, facts: &Facts) -> &'static str {
    if facts.toolkit.ok().is_some_and(|toolkit| toolkit.version.is_some()) {
        "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
    } else if subject.profile.host.pin_packages {
        "`bedplate toolkit install` writes it; remove one that is left of another toolkit"
    } else {
        "`bedplate provision` writes it; remove one that is left of another toolkit"
    }
}

pub(super) fn cdi_fresh(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if subject.profile.container.gpu_access != GpuAccess::Cdi {
        return Verdict::not_applicable("the profile does not use CDI");
    }
    let specs = match facts.cdi.as_result() {
        Ok(specs) => specs,
        Err(why) => return Verdict::unknown(why),
    };
    let loaded = match facts.module.as_result() {
        Ok(module) => module.loaded.as_deref(),
        Err(why) => return Verdict::unknown(format!("the loaded driver's version: {why}")),
    };
    let Some(loaded) = loaded else { return Verdict::unknown("no driver is loaded to compare with") };
    let mut tally = Tally::default();
    let ours: Vec<&CdiSpec> = specs.iter().filter(|spec| spec.kind.as_deref() == Some(KIND)).collect();
    if ours.is_empty() {
        return Verdict::fail(format!("there is no CDI specification of `{KIND}`"))
            .saw("looked in `/etc/cdi` and `/var/run/cdi`")
            .next(generate(subject, facts));
    }
    for spec in ours {
        let path = &spec.path;
        let other: Vec<&str> = spec.versions.iter().map(String::as_str).filter(|v| *v != loaded).collect();
        if !other.is_empty() {
            tally.bad(
                format!("`{path}` was made for driver {}, {loaded} is loaded", other.join(", ")),
                generate(subject, facts),
            );
        } else if let Some(first) = spec.missing.first() {
            tally.bad(
                format!("`{path}` names {} paths that are not there, such as `{first}`", spec.missing.len()),
                generate(subject, facts),
            );
        } else if spec.versions.is_empty() {
            tally.unknown_until(
                format!("`{path}` names no library with a version, so its driver is not known"),
                generate(subject, facts),
            );
        } else {
            tally.good(format!("`{path}`: made for driver {loaded}, all its paths are there"));
        }
    }
    tally.verdict(format!("the specification is of driver {loaded}"), "there is no specification")
}
