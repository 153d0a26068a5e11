//! Layer 3: the images a deployment starts, against the lock, Docker and the driver.

use std::collections::BTreeMap;

use super::{
    subject::Subject,
    verdict::{Tally, Verdict},
};
use crate::{
    host::facts::{
        Facts, Image, Nvml, looked_up,
        wanted::{WantedDeployment, WantedService},
    },
    lock::{LockedImage, VerdictOutcome, cuda},
    profile::services::Role,
};

const NOTHING: &str = "no deployment was given";

/// A locked image with the services that are started from it.
type Used<'s> = (&'s LockedImage, Vec<(&'s WantedDeployment, &'s WantedService)>);

/// Every image the deployments start, by the lock's name.
fn used<'s>(subject: &'s Subject<'_>) -> BTreeMap<&'s str, Used<'s>> {
    let mut used: BTreeMap<&str, Used<'s>> = BTreeMap::new();
    let Some(locked) = &subject.lock else { return used };
    for deployment in &subject.wanted.deployments {
        for service in &deployment.services {
            let image = service.locked.as_deref().and_then(|name| locked.lock.images.get_key_value(name));
            if let Some((name, image)) = image {
                used.entry(name).or_insert((image, Vec::new())).1.push((deployment, service));
            }
        }
    }
    used
}

pub(super) fn locked(subject: &Subject<'_>, _: &Facts) -> Verdict {
    let Some(locked) = &subject.lock else {
        return Verdict::fail("there is no lock")
            .saw("no lock beside the profile")
            .next("run `bedplate lock`");
    };
    if let Some(why) = &locked.stale {
        return Verdict::fail(format!("the lock is stale: {why}")).saw(why).next("run `bedplate lock`");
    }
    let mut tally = Tally::default();
    for deployment in &subject.wanted.deployments {
        for service in &deployment.services {
            match service.locked.as_deref().and_then(|name| Some((name, locked.lock.images.get(name)?))) {
                Some((name, image)) => tally.good(format!(
                    "`{}` of `{}`: `{}` is `{name}`, {}",
                    service.name,
                    deployment.name,
                    service.image,
                    image.manifest.short()
                )),
                None => tally.bad(
                    format!(
                        "`{}` of `{}` starts `{}`, which the lock does not have",
                        service.name, deployment.name, service.image
                    ),
                    "run `bedplate lock`",
                ),
            }
        }
    }
    tally.verdict("every image is locked", NOTHING)
}

pub(super) fn present(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    for (name, (locked, _)) in used(subject) {
        let Some(wanted) = subject.wanted.images.get(name) else { continue };
        match looked_up(&facts.images, name) {
            Ok(Some(image)) if wanted.is(image) => tally.good(format!("`{name}`: {}", image.id)),
            Ok(Some(image)) => tally.bad(
                format!(
                    "Docker's image of `{name}` is {}{}, the lock says {}",
                    image.id,
                    of_another_platform(image, locked),
                    wanted.manifest
                ),
                "run `bedplate provision`, which pulls the locked one by its digest",
            ),
            Ok(None) if wanted.layout => tally.bad(
                format!("image `{name}` comes from the layout `{}` and is not on the host", wanted.reference),
                "take it along from where the layout is: `bedplate provision --host USER@NAME --carry`",
            ),
            Ok(None) => tally.bad(
                format!("image `{name}` (`{}`) is not pulled", wanted.pull),
                "run `bedplate provision`, which pulls it by its digest",
            ),
            Err(why) => tally.unknown(format!("`{name}`: {why}")),
        }
    }
    tally.verdict("every image is in Docker, by its locked digest", NOTHING)
}

/// What is to be said of an image's platform, where it is another one than the lock's.
fn of_another_platform(image: &Image, locked: &LockedImage) -> String {
    let has = format!("{}/{}", image.os, image.architecture);
    if is_platform(&locked.platform, &has) { String::new() } else { format!(", for {has}") }
}

/// Whether a locked platform is that of an image: a variant may follow it.
fn is_platform(locked: &str, has: &str) -> bool {
    locked.strip_prefix(has).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn platform(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    let host = match facts.kernel.as_result() {
        // OCI image specification, `image-index.md`: Go's names of architectures.
        Ok(kernel) => Ok(match kernel.machine.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
        Err(why) => Err(why),
    };
    for (name, (locked, _)) in used(subject) {
        let architecture = locked.platform.split('/').nth(1).unwrap_or_default();
        match host {
            Ok(host) if host != architecture => tally.bad(
                format!("`{name}` is locked for {}, the host is {host}", locked.platform),
                "use a profile of this host's architecture, or another host",
            ),
            Ok(_) => {}
            Err(why) => tally.unknown(format!("the host's architecture: {why}")),
        }
        match looked_up(&facts.images, name) {
            Ok(Some(image)) => {
                let has = format!("{}/{}", image.os, image.architecture);
                if is_platform(&locked.platform, &has) {
                    tally.good(format!("`{name}`: {has}"));
                } else {
                    tally.bad(
                        format!("Docker's image of `{name}` is for {has}, the lock says {}", locked.platform),
                        "run `bedplate provision`, which pulls the locked one by its digest",
                    );
                }
            }
            Ok(None) => tally.unknown_until(format!("`{name}` is not pulled"), "run `bedplate provision`"),
            Err(why) => tally.unknown(format!("`{name}`: {why}")),
        }
    }
    tally.verdict("images, lock and host are of one architecture", NOTHING)
}

pub(super) fn cuda(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let on_gpus: Vec<_> = used(subject)
        .into_iter()
        .filter(|(_, (_, services))| services.iter().any(|(_, service)| service.gpus))
        .collect();
    if on_gpus.is_empty() {
        return Verdict::not_applicable("no container gets a GPU");
    }
    let driver = match facts.module.as_result() {
        Ok(module) => match &module.loaded {
            Some(version) => version.as_str(),
            None => return Verdict::unknown("no driver is loaded to judge with"),
        },
        Err(why) => return Verdict::unknown(format!("the loaded driver's version: {why}")),
    };
    let kinds = kinds(facts);
    let mut tally = Tally::default();
    for (name, (image, _)) in on_gpus {
        for kind in &kinds {
            let verdict = cuda::judge(&image.facts, Some(driver), kind.clone());
            let line = format!("`{name}`: {}: {}", word(verdict.outcome), verdict.because);
            match verdict.outcome {
                VerdictOutcome::Native | VerdictOutcome::Minor | VerdictOutcome::Forward => tally.good(line),
                VerdictOutcome::NotApplicable => tally.note(line),
                VerdictOutcome::Unknown => tally.unknown(line),
                VerdictOutcome::Refuse => tally.bad(
                    line,
                    format!(
                        "lock an image whose CUDA version driver {driver} runs, or {}",
                        newer_driver(subject)
                    ),
                ),
            }
        }
    }
    tally.verdict(format!("driver {driver} can run every image"), "no image asks for CUDA")
}

/// Each kind of card that NVML sees: a host may have two. One that is not known where it sees none.
pub(super) fn kinds(facts: &Facts) -> Vec<Option<cuda::GpuFacts>> {
    let gpus = match facts.nvml.ok() {
        Some(Nvml::Answers(gpus)) => gpus.devices.as_slice(),
        _ => &[],
    };
    let mut kinds: Vec<Option<cuda::GpuFacts>> = Vec::new();
    for device in gpus {
        let kind = Some(cuda::GpuFacts {
            model: device.name.clone(),
            compute_capability: device.compute_capability,
            brand: device.brand.clone(),
        });
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        kinds.push(None);
    }
    kinds
}

fn newer_driver(subject: &Subject<'_>) -> &'static str {
    if subject.profile.host.pin_packages {
        "a newer driver (`[driver] version`), then `bedplate provision`"
    } else {
        "install a newer driver"
    }
}

fn word(outcome: VerdictOutcome) -> &'static str {
    match outcome {
        VerdictOutcome::Native => "native",
        VerdictOutcome::Minor => "minor",
        VerdictOutcome::Forward => "forward",
        VerdictOutcome::Refuse => "refuse",
        VerdictOutcome::Unknown => "unknown",
        VerdictOutcome::NotApplicable => "n/a",
    }
}

pub(super) fn entrypoint(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    for (name, (locked, services)) in used(subject) {
        for (deployment, service) in services {
            let Some(own) = &service.entrypoint else { continue };
            if *own == locked.facts.entrypoint {
                continue;
            }
            if service.role == Role::Engine {
                tally.bad(
                    format!("`{}` replaces the entrypoint of `{name}` by `{}`", deployment.name, shown(own)),
                    format!(
                        "remove the entrypoint from `{}.yaml`; arguments go to `extra_args`",
                        deployment.name
                    ),
                );
            } else {
                // The format lets a sidecar have its own; then the image's does not matter.
                tally.note(format!(
                    "`{}` of `{}` has its own entrypoint: `{}`",
                    service.name,
                    deployment.name,
                    shown(own)
                ));
            }
        }
        match looked_up(&facts.images, name) {
            Ok(Some(image)) if image.entrypoint == locked.facts.entrypoint => {
                tally.good(format!("`{name}`: `{}`, as the lock read it", shown(&image.entrypoint)));
            }
            Ok(Some(image)) => tally.bad(
                format!(
                    "Docker's image of `{name}` starts `{}`, the lock read `{}`",
                    shown(&image.entrypoint),
                    shown(&locked.facts.entrypoint)
                ),
                "run `bedplate provision`, which pulls the locked one by its digest",
            ),
            Ok(None) => tally.unknown_until(format!("`{name}` is not pulled"), "run `bedplate provision`"),
            Err(why) => tally.unknown(format!("`{name}`: {why}")),
        }
    }
    tally.verdict("every image starts what the lock read", NOTHING)
}

fn shown(words: &[String]) -> String {
    if words.is_empty() { "(none)".to_owned() } else { words.join(" ") }
}
