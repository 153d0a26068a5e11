//! Layer 2: what a container sees of the GPUs.

use super::{
    diagnosis,
    registry::{Check, check, on_gpus},
    report::Layer,
    subject::Subject,
    verdict::Verdict,
};
use crate::{
    host::{
        facts::{Facts, Known, Nvml},
        smoke::{Fault, Probed, Ran, Seen},
    },
    profile::GpuAccess,
};

/// What both build on.
const WIRED: &[&str] = &["docker.daemon", "toolkit.wiring", "toolkit.cdi-fresh"];
const AGAIN: &str = "`bedplate toolkit verify --smoke-test`";

pub(super) const SMOKE: Check = on_gpus(
    check(
        "toolkit.smoke",
        Layer::Toolkit,
        smoke,
        [
            "with `--smoke-test`, `provision` and `up`: a container of the locked image (`smoke` of `[images]`, else an engine's), by digest; a probe in it loads the driver's library, lists the GPUs and runs a kernel on each",
            "a container that starts need not have every GPU, and `nvidia-smi` runs no CUDA program",
            "mend what the finding names; then `bedplate toolkit verify --smoke-test`",
        ],
    ),
    WIRED,
);

pub(super) const RELOAD: Check = on_gpus(
    check(
        "toolkit.smoke-reload",
        Layer::Toolkit,
        smoke_reload,
        [
            "with `--thorough`: the GPUs in one running container before and after `systemctl daemon-reload`; then Docker is restarted, and `toolkit.smoke` looks once more",
            "with a fragile set-up of control groups systemd takes the GPUs away from running containers, at any package's upgrade: `Failed to initialize NVML: Unknown Error`",
            "`gpu-access = \"cdi\"` with runc 1.1.7 or newer, or links in `/dev/char`: see `bedplate explain docker.cgroup`",
        ],
    ),
    WIRED,
);

/// What the codes mean that say where the fault is (CUDA driver API, `CUresult`), and what to do.
const MEANINGS: [(i32, &str, &str); 8] = [
    (2, "the GPU has no memory left", "`nvidia-smi` shows who has it"),
    (
        100,
        "the driver's library is there, and no GPU",
        "look which device nodes the container gets: `bedplate explain toolkit.wiring`",
    ),
    (
        222,
        "the driver does not know the probe's code (PTX)",
        "the driver is too old for this version of bedplate: lock a newer one",
    ),
    (
        802,
        "the GPUs' fabric is not up, or the driver is not done starting",
        "`systemctl status nvidia-fabricmanager`, and `bedplate explain gpu.fabric-manager`",
    ),
    (
        803,
        "the image has a driver library of its own that does not fit the loaded driver",
        "lock an image without `cuda-compat`",
    ),
    (
        804,
        "the image has forward compatibility libraries, and these GPUs have no forward compatibility; or user space was upgraded under the loaded module",
        "lock an image without `cuda-compat`; after an upgrade, reboot",
    ),
    (
        304,
        "the operating system refused a call of the driver",
        "`dmesg | grep -i -e nvrm -e nvidia` says why",
    ),
    (999, "the driver says no more than that", "`dmesg | grep -i -e nvrm -e nvidia` says why"),
];

/// The verdict where containers get no GPUs.
pub(super) fn none(subject: &Subject<'_>) -> Option<Verdict> {
    (subject.profile.container.gpu_access == GpuAccess::None)
        .then(|| Verdict::not_applicable("the profile gives containers no GPUs"))
}

fn smoke(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if let Some(none) = none(subject) {
        return none;
    }
    match facts.smoke.as_result() {
        Ok(smoke) => judge(subject, &smoke.image, &smoke.ran, facts),
        // Nobody asked for it: the host's readiness is not kept without it.
        Err(_) if !subject.wanted.smoke => {
            Verdict::unknown("no container was started").next(AGAIN).tolerated()
        }
        Err(why) => Verdict::unknown(why),
    }
}

fn smoke_reload(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if let Some(none) = none(subject) {
        return none;
    }
    let reload = match (&facts.smoke_reload, subject.wanted.thorough) {
        (Known::Ok(reload), _) => reload,
        (Known::Unknown { why }, true) => return Verdict::unknown(why),
        (Known::Unknown { .. }, false) => {
            return Verdict::not_applicable("not asked for: `bedplate toolkit verify --thorough`");
        }
    };
    let (Ran::Saw(before), Ran::Saw(after)) = (&reload.before, &reload.after) else {
        let bad = if matches!(reload.before, Ran::Saw(_)) { &reload.after } else { &reload.before };
        return judge(subject, &reload.image, bad, facts);
    };
    let works = |seen: &Seen| seen.devices.iter().filter(|device| device.fault.is_none()).count();
    if works(before) == 0 {
        // What is wrong is not the reload.
        return judge(subject, &reload.image, &reload.before, facts);
    }
    if works(after) >= works(before) && after.fault.is_none() {
        return Verdict::pass("`systemctl daemon-reload` leaves a running container its GPUs").saw(format!(
            "before: {} GPUs, after: {}",
            works(before),
            works(after)
        ));
    }
    let verdict = Verdict::fail(format!(
        "`systemctl daemon-reload` takes GPUs away from a running container: {} before, {} after",
        works(before),
        works(after)
    ))
    .next("`bedplate explain docker.cgroup` says what to change");
    match after.fault.as_ref().or_else(|| after.devices.iter().find_map(|device| device.fault.as_ref())) {
        Some(fault) => verdict.saw(shown(fault)),
        None => verdict,
    }
}

fn judge(subject: &Subject<'_>, image: &str, ran: &Ran, facts: &Facts) -> Verdict {
    let seen = match ran {
        Ran::Saw(seen) => seen,
        Ran::Refused(words) => {
            let verdict = Verdict::fail(format!("Docker does not start `{image}` with GPUs: {words}"));
            let seen = diagnosis::Seen { error: Some(words), ..diagnosis::Seen::default() };
            let known = diagnosis::diagnose(subject, facts, seen);
            return verdict.told(known.as_ref(), "`journalctl -u docker -n 20`");
        }
        Ran::CannotRun(words) => {
            return Verdict::unknown(format!(
                "image `{image}` cannot run the probe: its C library is missing or older than the one bedplate was built with"
            ))
            .saw(words)
            .next("name an image with glibc 2.34 or newer as `smoke` in `[images]`, then `bedplate lock` and `bedplate provision`");
        }
        Ran::Ended(code, words) => {
            return Verdict::fail(format!("the probe ended with exit status {code} in `{image}`"))
                .said(words)
                .next("`dmesg | tail` shows whether the kernel ended it or the driver failed");
        }
        Ran::Hung(seconds) => {
            return Verdict::fail(format!("the probe did not end within {seconds} s: the driver hangs"))
                .saw(format!("image `{image}`"))
                .next("`dmesg | grep -i xid`; a GPU that hangs is reset with `nvidia-smi --gpu-reset`, or by a reboot");
        }
    };
    if let Some(why) = &seen.library {
        return Verdict::fail(format!("the container in `{image}` has no driver library"))
            .saw(why)
            .next("the CDI specification or the runtime brings it in: `bedplate explain toolkit.wiring`");
    }
    if let Some(fault) = &seen.fault {
        return failed(format!("CUDA does not start in `{image}`"), fault);
    }
    if let Some((device, fault)) = seen.devices.iter().find_map(|d| Some((d, d.fault.as_ref()?))) {
        return failed(format!("GPU {} does not work in a container", device.index), fault);
    }
    if let Some(wrong) = seen.devices.iter().find(|device| device.kernel == Some(false)) {
        return Verdict::fail(format!("GPU {} calculated wrong", wrong.index))
            .saw(line(wrong))
            .next("take the card out of service: `nvidia-smi -q -d ECC`, then replace it");
    }
    all_there(seen, image, facts)
}

/// Whether the container has as many GPUs as the host.
fn all_there(seen: &Seen, image: &str, facts: &Facts) -> Verdict {
    let gpus = match facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) => gpus,
        Ok(_) => {
            return Verdict::unknown(
                "NVML does not answer on the host, so how many GPUs there should be is not known",
            );
        }
        Err(why) => return Verdict::unknown(why),
    };
    let (inside, outside) = (seen.devices.len(), gpus.devices.len());
    // A CUDA program sees one MIG device and no more (MIG User Guide, "CUDA Visible Devices").
    let parted = gpus.devices.iter().any(|device| device.mig == Some(true));
    let enough = if parted { inside >= 1 } else { inside >= outside };
    let with = |mut verdict: Verdict| {
        verdict.evidence.extend(seen.devices.iter().map(line));
        let library = seen.libc.as_deref().unwrap_or("unknown");
        verdict.saw(format!("image `{image}`, C library {library}"))
    };
    if inside == 0 || !enough {
        return with(Verdict::fail(format!("a container sees {inside} of {outside} GPUs"))).next(
            "`bedplate explain toolkit.wiring`: the specification or the runtime does not give all of them",
        );
    }
    if seen.devices.iter().all(|device| device.kernel.is_none()) {
        return with(Verdict::unknown(
            "no kernel was run: the GPUs are older than what the probe is written for (compute capability 7.0)",
        ))
        .next("`accept` does not help here: run a CUDA program of your own in the image");
    }
    let driver = seen.driver.as_deref().unwrap_or("unknown");
    with(Verdict::pass(format!("a container sees {inside} of {outside} GPUs, and each ran a kernel")))
        .saw(format!("CUDA {driver}"))
}

fn failed(what: String, fault: &Fault) -> Verdict {
    let known = MEANINGS.iter().find(|(code, _, _)| *code == fault.code);
    let name = if fault.name.is_empty() { "unknown" } else { &fault.name };
    let because = match known {
        Some((_, means, _)) => format!("{what}: {means} (CUDA error {}, {name})", fault.code),
        None => format!("{what}: CUDA error {}, {name}", fault.code),
    };
    Verdict::fail(because).saw(shown(fault)).next(
        known.map_or("`dmesg | grep -i -e nvrm -e nvidia` says what the driver saw", |(_, _, next)| *next),
    )
}

fn shown(fault: &Fault) -> String {
    format!("`{}` returned {}", fault.at, fault.code)
}

fn line(device: &Probed) -> String {
    let kernel = match device.kernel {
        Some(true) => "the kernel calculated right",
        Some(false) => "the kernel calculated wrong",
        None => "no kernel was run",
    };
    device_line(device.index, device.name.as_deref(), device.capability, kernel)
}

/// What a container saw of one GPU.
pub(super) fn device_line(
    index: u32,
    name: Option<&str>,
    capability: Option<(u32, u32)>,
    result: &str,
) -> String {
    let name = name.unwrap_or("no name");
    let capability = capability.map_or_else(String::new, |(major, minor)| format!(", {major}.{minor}"));
    format!("GPU {index}: {name}{capability}: {result}")
}
