//! Layer 2: how Docker is set up: storage, control groups, its configuration against the profile's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    host::unpacked,
    subject::Subject,
    toolkit::engine,
    verdict::{Tally, Verdict, size},
};
use crate::{
    host::facts::{EngineDetails, Facts, LIVE_RESTORE, VendorToolkit},
    plan,
    profile::{ContainerEngine, GpuAccess},
    version,
};

/// Storage drivers that share layers and start fast (Docker, "Select a storage driver"); `overlayfs` is containerd's.
const FIT: [&str; 4] = ["overlay2", "overlayfs", "btrfs", "zfs"];
/// Drivers that copy every layer, or are gone from Docker.
const UNFIT: [&str; 4] = ["vfs", "devicemapper", "aufs", "overlay"];
/// File systems that Docker's data must not lie on: of other hosts, of memory, of another overlay, without owners.
const UNFIT_UNDER: [&str; 11] =
    ["nfs", "cifs", "ceph", "fuse", "9p", "overlay", "tmpfs", "ramfs", "vfat", "exfat", "squashfs"];
/// How much larger another disk must be for a word about it.
const MUCH_LARGER: u64 = 4;
/// From this release on runc tells systemd of devices that have no link in `/dev/char` (runc 1.1.7 release notes).
const RUNC: &str = "1.1.7";
/// From this release on `auto` means that the runtime makes CDI specifications (NVIDIA container toolkit 1.18.0).
const AUTO_IS_CDI: &str = "1.18";

fn no_engine(subject: &Subject<'_>) -> Option<Verdict> {
    (subject.profile.container.engine == ContainerEngine::None)
        .then(|| Verdict::not_applicable("the profile asks for no container engine"))
}

pub(super) fn storage(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if let Some(none) = no_engine(subject) {
        return none;
    }
    let (engine, details) = match (engine(facts), facts.engine.as_result()) {
        (Ok(engine), Ok(details)) => (engine, details),
        (Err(why), _) => return Verdict::unknown(why),
        (_, Err(why)) => return Verdict::unknown(why),
    };
    let mut tally = Tally::default();
    let root = facts.image_root();
    let move_it = || {
        if details.containerd_store {
            return "write `root` in `/etc/containerd/config.toml`, then restart containerd; images are loaded again".to_owned();
        }
        "write `data-root` under `[container.daemon]` of the profile, then `bedplate provision`; images are loaded again".to_owned()
    };
    match engine.storage.as_str() {
        driver if FIT.contains(&driver) => tally.good(format!("storage driver: {driver}")),
        driver if UNFIT.contains(&driver) => tally.bad(
            format!("Docker's storage driver is {driver}, which is slow, wasteful or gone from newer releases"),
            "write `storage-driver = \"overlay2\"` under `[container.daemon]` of the profile, then `bedplate provision`",
        ),
        "fuse-overlayfs" => tally.weak(
            "Docker's storage driver is fuse-overlayfs, which is slow",
            "run Docker as root on a kernel with overlayfs",
        ),
        driver => tally.unknown(format!("storage driver `{driver}` is not known here")),
    }
    if details.d_type == Some(false) {
        tally.bad(
            format!("the file system under `{root}` was made without `d_type`: layers break on it"),
            format!("make it anew with `mkfs.xfs -n ftype=1`, or another one; then {}", move_it()),
        );
    }
    match facts.volumes.get(root).map(crate::host::facts::Known::as_result) {
        None => tally.unknown(format!("the file system of `{root}`: nothing was looked at")),
        Some(Err(why)) => tally.unknown(format!("the file system of `{root}`: {why}")),
        Some(Ok(volume)) if UNFIT_UNDER.contains(&volume.kind.as_str()) => tally.bad(
            format!("Docker's data lie on {} (`{root}`)", volume.kind),
            format!("use a local disk with ext4 or xfs: {}", move_it()),
        ),
        Some(Ok(volume)) => {
            let images = subject.wanted.images.values().map(|image| image.download).sum::<u64>();
            let unpacked = unpacked(images);
            let other = |path: &str| facts.volumes.get(path).and_then(|other| other.ok());
            let larger = subject.wanted.host.mounts.iter().find(|path| {
                let on_root = other("/").is_some_and(|other| other.device == volume.device);
                on_root
                    && other(path).is_some_and(|other| {
                        other.device != volume.device && other.total / MUCH_LARGER >= volume.total
                    })
            });
            let line = format!("`{root}`: {}, {} in all", volume.kind, size(volume.total));
            if volume.total < unpacked {
                tally.bad(
                    format!(
                        "`{root}` is on a disk of {}, the locked images unpacked are {} (estimated)",
                        size(volume.total),
                        size(unpacked)
                    ),
                    move_it(),
                );
            } else if let Some(path) = larger {
                tally.weak(
                    format!(
                        "Docker's data share the root disk ({}), and the disk of `{path}` is much larger",
                        size(volume.total)
                    ),
                    move_it(),
                );
            } else {
                tally.good(line);
            }
        }
    }
    if let Some(wanted) = subject.profile.container.daemon.get("data-root").and_then(Value::as_str)
        && wanted.trim_end_matches('/') != engine.root.trim_end_matches('/')
    {
        tally.bad(
            format!("Docker's data lie in `{}`, the profile wants `{wanted}`", engine.root),
            "`bedplate provision`, then `systemctl restart docker`",
        );
    }
    tally.verdict(format!("{} on a fit disk", engine.storage), "nothing to look at")
}

pub(super) fn cgroup(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let access = subject.profile.container.gpu_access;
    if access == GpuAccess::None {
        return Verdict::not_applicable("the profile gives containers no GPUs");
    }
    let details = match facts.engine.as_result() {
        Ok(details) => details,
        Err(why) => return Verdict::unknown(why),
    };
    let version = details.cgroup_version.as_deref().unwrap_or("of unknown version");
    match details.cgroup_driver.as_deref() {
        Some("cgroupfs") => Verdict::pass("Docker keeps control groups itself: systemd does not touch them")
            .saw(format!("driver cgroupfs, control groups {version}")),
        Some("systemd") => {
            let verdict = match access {
                GpuAccess::Cdi => by_specification(details, facts),
                _ => by_runtime(details, facts),
            };
            verdict.saw(format!("driver systemd, control groups {version}"))
        }
        Some(other) => Verdict::unknown(format!("the driver of control groups `{other}` is not known here")),
        None => Verdict::unknown("Docker does not say which driver of control groups it uses"),
    }
}

/// Devices of a specification are in the container's own configuration, so runc tells systemd of them: older ones only
/// where they have a link in `/dev/char` (NVIDIA container toolkit, "Troubleshooting").
fn by_specification(details: &EngineDetails, facts: &Facts) -> Verdict {
    let runc = details.runc.as_deref();
    if let Some(runc) = runc
        && version::compare(runc, RUNC).is_ge()
    {
        return Verdict::pass("`daemon-reload` leaves containers their GPUs")
            .saw(format!("runc {runc}, {RUNC} or newer"));
    }
    let shown = runc.map_or_else(|| "runc of unknown version".to_owned(), |runc| format!("runc {runc}"));
    match facts.device_links.as_result() {
        Err(why) => Verdict::unknown(why),
        Ok(links) if links.nodes.is_empty() => Verdict::unknown(format!("{shown}, and there is no device node of the driver to look for links of")),
        Ok(links) => match links.missing.first() {
            None => Verdict::pass("`daemon-reload` leaves containers their GPUs").saw(format!("{shown}; every device node has its link in `/dev/char`")),
            Some(first) => Verdict::fail(format!(
                "`systemctl daemon-reload` takes GPUs away from running containers: {shown}, and `/dev/{first}` has no link in `/dev/char`"
            ))
            .next(LINKS),
        },
    }
}

/// What makes the links, now and at each boot.
const LINKS: &str = "make the links: `nvidia-ctk system create-dev-char-symlinks --create-all`, and at each boot; or bring runc 1.1.7 or newer";

/// The runtime of the toolkit puts devices into a running container behind systemd's back, unless it makes specifications.
fn by_runtime(details: &EngineDetails, facts: &Facts) -> Verdict {
    let toolkit = match facts.toolkit.as_result() {
        Ok(toolkit) => toolkit,
        Err(why) => return Verdict::unknown(why),
    };
    let VendorToolkit { version: installed, mode, .. } = toolkit;
    let mode = mode.as_deref().unwrap_or("auto");
    let Some(installed) = installed else {
        return Verdict::unknown(
            "the container toolkit is not installed, so how it gives devices is not known",
        );
    };
    let saw = |verdict: Verdict| verdict.saw(format!("toolkit {installed}, mode `{mode}`"));
    let makes = mode.contains("cdi") || mode == "auto" && version::compare(installed, AUTO_IS_CDI).is_ge();
    if makes {
        return saw(by_specification(details, facts));
    }
    saw(Verdict::fail(format!(
        "`systemctl daemon-reload` takes GPUs away from running containers: the `nvidia` runtime in mode `{mode}` gives them past systemd"
    )))
    .next("write `gpu-access = \"cdi\"` in `[container]`, or `exec-opts = [\"native.cgroupdriver=cgroupfs\"]` under `[container.daemon]` of the profile, then `bedplate provision`")
}

pub(super) fn configuration(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if let Some(none) = no_engine(subject) {
        return none;
    }
    let found: &BTreeMap<String, String> = match facts.daemon_keys.as_result() {
        Ok(found) => found,
        Err(why) => return Verdict::unknown(why),
    };
    let mut tally = Tally::default();
    for (pointer, wanted) in plan::daemon_keys(&subject.profile.container) {
        let key = pointer.trim_start_matches('/').replace('/', ".");
        let is = found.get(&pointer).and_then(|text| serde_json::from_str::<Value>(text).ok());
        match is {
            Some(is) if plan::daemon_key_is(&is, &wanted) => {
                tally.good(format!("`{}`: `{key}` is {wanted}", plan::DAEMON));
            }
            Some(is) => tally.bad(
                format!("`{}` has {is} for `{key}`, the profile wants {wanted}", plan::DAEMON),
                "`bedplate provision`, which sets it and restarts Docker",
            ),
            None => tally.bad(
                format!("`{}` lacks `{key}`, the profile wants {wanted}", plan::DAEMON),
                "`bedplate provision`, which sets it and restarts Docker",
            ),
        }
    }
    let written = found.get(LIVE_RESTORE).map(String::as_str) == Some("true");
    match facts.engine.as_result() {
        Ok(details) if details.live_restore != written => tally.bad(
            format!(
                "Docker runs with live-restore {}, its configuration says {}",
                on(details.live_restore),
                on(written)
            ),
            "`systemctl reload docker`; if it stays, look for `--live-restore` in `systemctl cat docker`",
        ),
        Ok(details) => tally.note(format!("live-restore is {}", on(details.live_restore))),
        Err(why) => tally.unknown(why),
    }
    tally.verdict(
        "Docker's configuration is the profile's",
        "the profile sets nothing in Docker's configuration",
    )
}

fn on(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

pub(super) fn package(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let access = subject.profile.container.gpu_access;
    let set = subject.lock.as_ref().and_then(|locked| locked.lock.set.as_ref());
    let locked = set.and_then(|set| set.toolkit.as_deref());
    if access == GpuAccess::None {
        return Verdict::not_applicable("the profile gives containers no GPUs");
    }
    if access == GpuAccess::Cdi && locked.is_none() {
        return Verdict::not_applicable(
            "containers get GPUs by a CDI specification, and no toolkit is locked",
        );
    }
    let brings = subject.brings("toolkit install", "`apt-get install nvidia-container-toolkit`");
    let installed = match facts.toolkit.as_result() {
        Ok(VendorToolkit { version: Some(version), broken: true, .. }) => {
            return Verdict::fail(format!("`nvidia-container-toolkit` {version} is installed in part"))
                .next("`dpkg --configure -a`, then `apt-get -f install`");
        }
        Ok(toolkit) => toolkit.version.as_deref(),
        Err(why) => return Verdict::unknown(why),
    };
    match (installed, locked) {
        (None, _) => Verdict::fail("`nvidia-container-toolkit` is not installed").next(brings),
        (Some(installed), Some(locked)) if installed != locked => Verdict::fail(format!(
            "`nvidia-container-toolkit` {installed} is installed, and {locked} is locked"
        ))
        .next(brings),
        (Some(installed), _) => Verdict::pass(format!("`nvidia-container-toolkit` {installed}"))
            .saw(format!("dpkg: {installed}; the lock: {}", locked.unwrap_or("none"))),
    }
}
