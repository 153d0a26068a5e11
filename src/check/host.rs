//! Layer 1: distribution, disk, memory, names, ports.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    report::Outcome,
    subject::Subject,
    verdict::{Tally, Verdict, size},
};
use crate::host::facts::{
    Facts, Hub, Listener, PublishedContainer, PublishedPort, Resolution, looked_up, need,
    wanted::{WantedDeployment, WantedImage, WantedService},
};
use crate::profile::Published;

const GIB: u64 = 1 << 30;

/// How much larger an image is unpacked than its compressed layers, in tenths: our estimate.
const UNPACKED_TENTHS: u64 = 25;

pub(super) fn os(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let wanted = &subject.profile.host;
    let mut tally = Tally::default();
    match facts.kernel.as_result() {
        Ok(kernel) if kernel.system != "Linux" => {
            tally.bad(format!("the host runs {}, not Linux", kernel.system), "use a Linux host");
        }
        Ok(kernel) if kernel.machine != "x86_64" => tally.bad(
            format!("the host is {}, not x86_64", kernel.machine),
            "use an x86_64 host, which is what the profile is locked for",
        ),
        Ok(kernel) => tally.good(format!("uname: {} {} {}", kernel.system, kernel.release, kernel.machine)),
        Err(why) => tally.unknown(why),
    }
    match facts.os.as_result() {
        Ok(os) => {
            let (id, release) = (wanted.distribution.id(), &wanted.release);
            if os.id == id && os.release.as_ref() == Some(release) {
                tally.good(format!("`/etc/os-release`: {}", os.name));
            } else {
                let has = format!("{} {}", os.id, os.release.as_deref().unwrap_or("(no code name)"));
                tally.bad(
                    format!("the host is {has}, the profile wants {id} {release}"),
                    format!(
                        "install {id} {release}, or change `[host]` in the profile and run `bedplate lock`"
                    ),
                );
            }
        }
        Err(why) => tally.unknown(why),
    }
    tally.verdict(format!("{} {}", wanted.distribution.id(), wanted.release), "nothing to look at")
}

pub(super) fn kernel(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let set = subject.lock.as_ref().and_then(|locked| locked.lock.set.as_ref());
    let Some(locked) = set.and_then(|set| set.kernel.as_ref()) else {
        return Verdict::not_applicable("no kernel is locked");
    };
    match facts.kernel.as_result() {
        Ok(kernel) if kernel.release == *locked => {
            Verdict::pass(format!("kernel {locked} runs")).saw(format!("uname: {}", kernel.release))
        }
        Ok(kernel) => Verdict::fail(format!("kernel {} runs, and {locked} is locked", kernel.release))
            .saw(format!("uname: {}", kernel.release))
            .next("bring it with `bedplate provision`, then `reboot`; if another starts, choose it in the boot loader"),
        Err(why) => Verdict::unknown(why),
    }
}

/// Needs of one file system.
#[derive(Default)]
struct Need {
    bytes: u64,
    free: u64,
    at: String,
    lines: Vec<String>,
}

/// What images take once they are unpacked: an estimate.
pub(super) fn unpacked(download: u64) -> u64 {
    (download / 10).saturating_mul(UNPACKED_TENTHS)
}

/// Images that must be fetched, by the lock's name.
type Images<'i> = BTreeMap<&'i str, &'i WantedImage>;

/// What is needed for images that are not there. Where Docker cannot be asked, none may be there, or all: what holds for all
/// holds, what does not hold even for none is a fault, and what is between is Docker's matter and no fault of the host.
fn for_images(subject: &Subject<'_>, facts: &Facts, judge: impl Fn(&Images<'_>) -> Verdict) -> Verdict {
    let all = need::images(&subject.wanted, facts);
    let verdict = judge(&all);
    let certain: Images<'_> = all
        .iter()
        .filter(|(name, _)| need::asked(name, facts))
        .map(|(name, image)| (*name, *image))
        .collect();
    let well = |verdict: &Verdict| !matches!(verdict.outcome, Outcome::Fail | Outcome::Unknown);
    if well(&verdict) || certain.len() == all.len() {
        return verdict;
    }
    let least = judge(&certain);
    if !well(&least) {
        return least;
    }
    let because = format!("Docker cannot be asked which images it has; if it has none: {}", verdict.because);
    Verdict { evidence: verdict.evidence, ..Verdict::unknown(because) }
        .next("mend what `docker.daemon` of `bedplate toolkit verify` says, then look again")
        .tolerated()
}

pub(super) fn disk(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    for_images(subject, facts, |images| room(subject, facts, images))
}

fn room(subject: &Subject<'_>, facts: &Facts, images: &Images<'_>) -> Verdict {
    let wanted = &subject.wanted;
    let mut tally = Tally::default();
    let mut needs: BTreeMap<u64, Need> = BTreeMap::new();
    let mut add =
        |tally: &mut Tally, path: &str, bytes: u64, line: String| match looked_up(&facts.space, path) {
            Ok(space) => {
                let need = needs.entry(space.device).or_default();
                need.bytes = need.bytes.saturating_add(bytes);
                need.free = space.free;
                need.at.clone_from(&space.at);
                need.lines.push(line);
            }
            Err(why) => tally.unknown(format!("free space for `{path}`: {why}")),
        };
    let root = facts.image_root();
    let download: u64 = images.values().map(|image| image.download).sum();
    let unpacked = unpacked(download);
    add(
        &mut tally,
        root,
        unpacked,
        format!(
            "`{root}`: {} for images not yet here (estimated from {} compressed)",
            size(unpacked),
            size(download)
        ),
    );
    let fetched = need::models(wanted, facts);
    for deployment in &wanted.deployments {
        let cache = &deployment.cache;
        let hub = facts.models.get(&deployment.name).and_then(|model| model.hub.ok());
        let (bytes, line) = if fetched.iter().any(|other| other.name == deployment.name) {
            match hub {
                Some(Hub::Allowed { bytes: Some(bytes), .. }) => {
                    (*bytes, format!("`{cache}`: {} for `{}`", size(*bytes), deployment.model))
                }
                _ => (
                    0,
                    format!("`{cache}`: the size of `{}` is not known, and not counted", deployment.model),
                ),
            }
        } else {
            (0, format!("`{cache}`: nothing to fetch for `{}`", deployment.name))
        };
        add(&mut tally, cache, bytes, line);
    }
    let beside = subject.profile.checks.disk_free_gib.saturating_mul(GIB);
    for need in needs.into_values() {
        let total = need.bytes.saturating_add(beside);
        for line in need.lines {
            tally.note(line);
        }
        let at = &need.at;
        let state = format!("`{at}`: {} free, {} wanted", size(need.free), size(total));
        if need.free < total {
            let lacking = size(total - need.free);
            tally.bad(
                format!("`{at}` has {} free, {} are wanted", size(need.free), size(total)),
                format!("make {lacking} room on `{at}`: `docker system df` and `du -xh --max-depth=1 {at}` show what is used"),
            );
        } else {
            tally.good(state);
        }
    }
    tally.verdict("enough room for images and weights", "nothing needs room")
}

pub(super) fn memory(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let memory = match facts.memory.as_result() {
        Ok(memory) => memory,
        Err(why) => return Verdict::unknown(why),
    };
    let mut wanted = subject.profile.checks.memory_free_gib.saturating_mul(GIB);
    let mut lines =
        vec![format!("`/proc/meminfo`: {} in all, {} available", size(memory.total), size(memory.available))];
    for deployment in &subject.deployments {
        wanted = wanted.saturating_add(deployment.shm_size);
        lines.push(format!(
            "`{}`: {} of shared memory (`shm_size`)",
            deployment.name,
            size(deployment.shm_size)
        ));
        let local = facts.models.get(&deployment.name).and_then(|model| model.local.ok());
        if let Some(local) = local.and_then(Option::as_ref).filter(|local| local.largest > 0) {
            // Weights pass through the host's memory file by file.
            wanted = wanted.saturating_add(local.largest);
            lines.push(format!(
                "`{}`: {} to load weights (estimated: the largest file)",
                deployment.name,
                size(local.largest)
            ));
        } else {
            lines.push(format!(
                "`{}`: what loading the weights takes is not known, and not counted",
                deployment.name
            ));
        }
    }
    let mut verdict = if memory.total < wanted {
        Verdict::fail(format!("the host has {} of memory, {} are wanted", size(memory.total), size(wanted)))
            .next("lower `shm_size` in the deployment, or use a host with more memory")
    } else {
        Verdict::pass(format!("{} of memory, {} wanted", size(memory.total), size(wanted)))
    };
    verdict.evidence = lines;
    verdict
}

pub(super) fn dns(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    for_images(subject, facts, |images| resolves(subject, facts, images))
}

fn resolves(subject: &Subject<'_>, facts: &Facts, images: &Images<'_>) -> Verdict {
    let mut why: BTreeMap<String, String> = BTreeMap::new();
    for (host, images) in need::registries(images) {
        let names: Vec<String> = images.into_iter().map(|name| format!("`{name}`")).collect();
        why.insert(host, format!("registry of {}", names.join(", ")));
    }
    for name in &subject.wanted.names {
        why.entry(name.clone()).or_insert_with(|| "`[checks] resolve`".to_owned());
    }
    let mut tally = Tally::default();
    if let Some(first) = need::models(&subject.wanted, facts).first() {
        match subject.wanted.hub_host() {
            Some(hub) => drop(why.insert(hub, format!("model hub of `{}`", first.model))),
            None => tally.bad(
                format!("`{}` is not the address of a model hub", subject.wanted.hub),
                "set `HF_ENDPOINT` to one, such as `https://huggingface.co`",
            ),
        }
    }
    for (name, why) in why {
        if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            tally.note(format!("`{name}` is an address ({why})"));
            continue;
        }
        match looked_up(&facts.names, &name) {
            Ok(Resolution::Addresses(found)) if !found.is_empty() => {
                let found: Vec<String> = found.iter().map(ToString::to_string).collect();
                tally.good(format!("`{name}`: {} ({why})", found.join(", ")));
            }
            Ok(Resolution::Addresses(_)) => {
                tally.bad(format!("`{name}` has no address ({why})"), resolve_hint(&name));
            }
            Ok(Resolution::Failed(reason)) => {
                tally.bad(format!("`{name}` ({why}): {reason}"), resolve_hint(&name));
            }
            Err(reason) => tally.unknown(format!("`{name}` ({why}): {reason}")),
        }
    }
    tally.verdict(
        "every name resolves that something must be fetched from",
        "nothing must be fetched from a named host",
    )
}

fn resolve_hint(name: &str) -> String {
    format!("check `getent ahosts {name}` and the name servers in `/etc/resolv.conf`")
}

pub(super) fn ports(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    let all: Vec<_> = subject.wanted.ports().collect();
    for (index, (deployment, service, port)) in all.iter().enumerate() {
        let twice = all[..index].iter().find(|(_, _, other)| {
            other.host_port == port.host_port
                && other.protocol == port.protocol
                && overlap(other.address, port.address)
        });
        if let Some((other, other_service, _)) = twice {
            tally.bad(
                format!(
                    "`{}` of `{}` and `{}` of `{}` both want port {}",
                    other_service.name, other.name, service.name, deployment.name, port.host_port
                ),
                format!("give one of them another port in `{}.yaml`", deployment.name),
            );
            continue;
        }
        one_port(&mut tally, deployment, service, port, facts);
    }
    tally.verdict("every port is free, or this deployment's own", "no deployment publishes a port")
}

fn one_port(
    tally: &mut Tally,
    deployment: &WantedDeployment,
    service: &WantedService,
    port: &Published,
    facts: &Facts,
) {
    let shown = format!("{}:{}/{}", port.address, port.host_port, port.protocol);
    let listeners = match facts.listeners.as_result() {
        Ok(listeners) => listeners,
        Err(why) => return tally.unknown(format!("port {shown}: {why}")),
    };
    let taken = |listener: &&Listener| {
        listener.port == port.host_port
            && listener.protocol == port.protocol
            && overlap(listener.address, port.address)
    };
    let Some(listener) = listeners.iter().find(taken) else {
        return tally.good(format!("{shown} is free (`{}` of `{}`)", service.name, deployment.name));
    };
    let process = listener.process.as_deref().unwrap_or("a process this user may not see");
    match facts.containers.as_result() {
        Ok(containers) => {
            let holder = containers.iter().find(|c| c.running && c.ports.contains(&port.host_port));
            match holder {
                Some(container) if container.deployment == deployment.name => {
                    tally
                        .good(format!("{shown} is held by this deployment's container `{}`", container.name));
                }
                Some(container) => tally.bad(
                    format!("port {shown} is taken by deployment `{}`", container.deployment),
                    format!("`bedplate stop {}`, or choose another port", container.deployment),
                ),
                None => taken_by_others(tally, deployment, port, &shown, process, facts),
            }
        }
        // Docker's own proxy has it, and Docker cannot say for whom.
        Err(why) if process.starts_with("docker-proxy") => {
            tally.unknown(format!("port {shown} is held by a container, and whose is not known: {why}"));
        }
        Err(_) => taken_by_program(tally, deployment, port, &shown, process),
    }
}

/// The port is held by a program: `nginx (pid 812)`, where it may be seen.
fn taken_by_program(
    tally: &mut Tally,
    deployment: &WantedDeployment,
    port: &Published,
    shown: &str,
    process: &str,
) {
    let port = port.host_port;
    let next = match process.rsplit_once("(pid ").and_then(|(_, rest)| rest.strip_suffix(')')) {
        Some(pid) => format!(
            "`systemctl status {pid}` names its unit: `systemctl stop UNIT`, or `kill {pid}` where it has none; or choose another port than {port}"
        ),
        None => format!("end that process (`ss -ltnp 'sport = :{port}'` shows it), or choose another port"),
    };
    tally.bad(format!("port {shown} of `{}` is taken by {process}", deployment.name), next);
}

/// The port is held by what is no deployment: a container, for which Docker's proxy has it, or another program.
fn taken_by_others(
    tally: &mut Tally,
    deployment: &WantedDeployment,
    port: &Published,
    shown: &str,
    process: &str,
    facts: &Facts,
) {
    match publisher(facts, port) {
        Some(other) => tally.bad(
            format!(
                "port {shown} of `{}` is taken by container `{}` (`{}`)",
                deployment.name, other.name, other.image
            ),
            format!("`docker stop {}`, or choose another port", other.name),
        ),
        None => taken_by_program(tally, deployment, port, shown, process),
    }
}

/// The container that Docker publishes this port for, where one does.
fn publisher<'f>(facts: &'f Facts, wanted: &Published) -> Option<&'f PublishedContainer> {
    let is = |port: &PublishedPort| {
        port.port == wanted.host_port
            && port.protocol == wanted.protocol
            && overlap(port.address, wanted.address)
    };
    facts.published.ok()?.iter().find(|container| container.ports.iter().any(is))
}

/// Whether two sockets of one port collide: the same address, or one of them on all. `[::]` takes IPv4 too
/// unless it was made for IPv6 alone, which cannot be seen from outside.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}
