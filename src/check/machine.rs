//! Layer 1: the clock, inodes, shared memory, limits, and packages that change by themselves.

use super::{
    subject::Subject,
    verdict::{Tally, Verdict, size},
};
use crate::{
    host::facts::{Docker, Facts, Volume},
    profile::{ContainerEngine, services},
};

/// How far off the clock may be unless the profile says, in seconds: the heartbeats of agents bear no more.
const CLOCK: u64 = 5;
/// How many inodes must be free unless the profile says, in percent.
const INODES: u64 = 5;
/// How many files an engine must be able to open unless the profile says: what vLLM raises its own limit to
/// (`set_ulimit`, 65535), and one more.
const OPEN_FILES: u64 = 65_536;
/// The host's shared memory.
const SHM: &str = "/dev/shm";

pub(super) fn clock(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let clock = match facts.clock.as_result() {
        Ok(clock) => clock,
        Err(why) => return Verdict::unknown(why),
    };
    let brings = subject.brings("provision", "`apt-get install chrony`");
    let names: Vec<&str> = clock.services.iter().map(String::as_str).collect();
    let runs = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let saw = |verdict: Verdict| {
        let verdict = verdict.saw(format!("time services that run: {runs}"));
        match (&clock.said_by, clock.in_step) {
            (Some(by), Some(true)) => verdict.saw(format!("{by}: in step")),
            (Some(by), Some(false)) => verdict.saw(format!("{by}: not in step")),
            _ => verdict,
        }
    };
    let most = subject.profile.checks.clock_seconds.unwrap_or(CLOCK);
    if let Some(off) = clock.off.filter(|off| *off > most.saturating_mul(1000)) {
        return saw(Verdict::fail(format!(
            "the clock is {}.{} s off, at most {most} s are allowed",
            off / 1000,
            off % 1000 / 100
        )))
        .next("set it at once: `chronyc makestep`; then see `chronyc sources -v`");
    }
    match clock.in_step {
        Some(true) => saw(Verdict::pass("the clock follows a source of time")),
        _ if names.is_empty() => saw(Verdict::fail("no time service runs"))
            .next(format!("add `chrony` to `[host] packages` of the profile, then {brings}")),
        None => saw(Verdict::unknown(format!("{runs} runs, and nobody says whether it follows a source of time")))
            .next("see what `timedatectl` says on the host itself"),
        // Whether it is right can only be told by a source, and none was reached: the host may have none.
        _ => saw(Verdict::unknown(format!("{runs} runs and has reached no source of time")))
            .tolerated()
            .next(format!(
                "`{}` shows which servers it asks; let it reach one (UDP port 123). This keeps nothing from starting",
                if runs.contains("timesyncd") { "timedatectl timesync-status" } else { "chronyc sources -v" }
            )),
    }
}

/// Places where images and models are kept, with the file systems under them.
fn places<'f>(subject: &Subject<'_>, facts: &'f Facts) -> Vec<(String, Result<&'f Volume, String>)> {
    let root = facts.image_root();
    let caches = subject.wanted.deployments.iter().map(|deployment| deployment.cache.as_str());
    let mut paths: Vec<&str> = std::iter::once(root).chain(caches).collect();
    paths.sort_unstable();
    paths.dedup();
    let found = |path: &str| match facts.volumes.get(path) {
        Some(volume) => volume.as_result().map_err(str::to_owned),
        None => Err("nothing was looked at".to_owned()),
    };
    paths.into_iter().map(|path| (path.to_owned(), found(path))).collect()
}

pub(super) fn inodes(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let wanted = subject.profile.checks.inodes_free_percent.unwrap_or(INODES);
    let mut tally = Tally::default();
    for (path, volume) in places(subject, facts) {
        match volume {
            Err(why) => tally.unknown(format!("inodes for `{path}`: {why}")),
            Ok(volume) if volume.inodes == 0 => {
                tally.note(format!("`{path}`: {} on `{}` does not count inodes", volume.kind, volume.at));
            }
            Ok(Volume { at, inodes, inodes_free, .. }) => {
                let free = inodes_free.saturating_mul(100) / inodes;
                let line = format!("`{at}`: {free} % of {inodes} inodes free");
                if inodes_free.saturating_mul(100) < inodes.saturating_mul(wanted) {
                    tally.bad(
                        format!("`{at}` has {free} % of its {inodes} inodes free, {wanted} % are wanted"),
                        format!("find what has many small files: `du --inodes -xh --max-depth=2 {at} | sort -h | tail`"),
                    );
                } else {
                    tally.good(line);
                }
            }
        }
    }
    tally.verdict("enough inodes are free", "no file system here counts inodes")
}

pub(super) fn shm(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let asked = subject.profile.checks.shm_gib.unwrap_or(0).saturating_mul(1 << 30);
    let mut shared = 0_u64;
    let mut lines: Vec<String> =
        if asked > 0 { vec![format!("`[checks] shm-gib`: {}", size(asked))] } else { Vec::new() };
    for deployment in &subject.deployments {
        let shares = services::services(deployment).into_iter().any(|service| {
            service
                .volumes
                .iter()
                .any(|volume| volume.source == SHM || volume.source.starts_with("/dev/shm/"))
        });
        if shares {
            shared = shared.saturating_add(deployment.shm_size);
            lines.push(format!("`{}` shares it and wants {}", deployment.name, size(deployment.shm_size)));
        }
    }
    if lines.is_empty() {
        return Verdict::not_applicable("no container shares the host's `/dev/shm`");
    }
    let wanted = asked.max(shared);
    let mut verdict = match facts.shm.as_result() {
        Err(why) => Verdict::unknown(why),
        // Where nothing is mounted there, files land on the disk around it.
        Ok(shm) if shm.at != SHM => Verdict::fail("`/dev/shm` is not there")
            .next("`systemctl start dev-shm.mount`, or `mount -t tmpfs tmpfs /dev/shm`"),
        Ok(shm) if shm.total < wanted => {
            Verdict::fail(format!("`/dev/shm` has {}, {} are wanted", size(shm.total), size(wanted)))
                .next(format!("`mount -o remount,size={wanted} /dev/shm`, and the same size in `/etc/fstab`"))
        }
        Ok(shm) => Verdict::pass(format!("`/dev/shm` has {}, {} wanted", size(shm.total), size(wanted))),
    };
    verdict.evidence = lines;
    verdict
}

pub(super) fn limits(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if subject.profile.container.engine == ContainerEngine::None {
        return Verdict::not_applicable("the profile asks for no container engine");
    }
    let limits = match facts.limits.as_result() {
        Ok(Some(limits)) => limits,
        Ok(None) if matches!(facts.docker.ok(), Some(Docker::Answers(_))) => {
            return Verdict::unknown("Docker answers, and its process cannot be seen")
                .next("run it as root on the host itself: `sudo bedplate doctor`");
        }
        Ok(None) => return Verdict::not_applicable("no container engine runs, whose limits would count"),
        Err(why) => return Verdict::unknown(why).next("run it as root: `sudo bedplate doctor`"),
    };
    let checks = &subject.profile.checks;
    let (files, locked) =
        (checks.open_files.unwrap_or(OPEN_FILES), checks.memlock_mib.unwrap_or(0).saturating_mul(1 << 20));
    let of = &limits.of;
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let mend = |ulimit: &str, hard: u64| {
        format!(
            "write `default-ulimits = {{ {ulimit} = {{ Name = \"{ulimit}\", Hard = {hard}, Soft = {hard} }} }}` under `[container.daemon]` of the \
             profile, then `bedplate provision`"
        )
    };
    let mut tally = Tally::default();
    match limits.open_files {
        Some(limit) if limit < files => tally.bad(
            format!("a container may open {limit} files, {files} are wanted ({of})"),
            mend("nofile", files),
        ),
        limit => tally.good(format!("files: {} ({of}), {files} wanted", shown(limit))),
    }
    match limits.locked {
        Some(limit) if limit < locked => tally.bad(
            format!("a container may lock {}, {} are wanted ({of})", size(limit), size(locked)),
            mend("memlock", locked),
        ),
        Some(limit) if limits.rdma && checks.memlock_mib.is_none() => tally.weak(
            format!("the host has RDMA devices, which lock memory, and a container may lock {} ({of})", size(limit)),
            "write `default-ulimits = { memlock = { Name = \"memlock\", Hard = -1, Soft = -1 } }` under `[container.daemon]` of the profile, then `bedplate provision`; or `[checks] memlock-mib = 0` where they are not used",
        ),
        limit => tally.good(format!(
            "locked memory: {} ({of}), {} wanted",
            limit.map_or_else(|| "unlimited".to_owned(), size),
            size(locked)
        )),
    }
    tally.verdict("a container may open and lock as much as an engine needs", "nothing to look at")
}

pub(super) fn upgrades(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if subject.wanted.host.packages.is_empty() {
        return Verdict::not_applicable("no packages are locked");
    }
    let found = match facts.upgrades.as_result() {
        Ok(found) => found,
        Err(why) => return Verdict::unknown(why),
    };
    let held = format!(
        "{} locked packages are installed, {} of them may be upgraded by others",
        found.installed,
        found.free.len()
    );
    if let Some(why) = &found.off {
        return Verdict::pass(format!("nothing is upgraded by itself: {why}")).saw(held);
    }
    if found.installed == 0 {
        return Verdict::not_applicable("none of the locked packages is installed yet");
    }
    match found.free.first() {
        None => Verdict::pass("upgrades run by themselves, and every locked package is held").saw(held),
        Some(first) => {
            let some: Vec<&str> = found.free.iter().take(20).map(String::as_str).collect();
            Verdict::fail(format!(
                "unattended upgrades may change {} locked packages, such as `{first}`",
                found.free.len()
            ))
            .saw(held)
            .next(format!(
                "`apt-mark hold {}`, or `bedplate provision`, which holds what it locks",
                some.join(" ")
            ))
        }
    }
}
