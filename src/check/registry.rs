//! Every check there is: id, layer, weight, and what `explain` says.

use std::sync::LazyLock;

use super::{
    accept::unknown_id,
    engine_smoke, entries, fit, gpu, host, image, net,
    report::{Layer, Weight},
    runtime, secret, smoke,
    subject::Subject,
    toolkit, up,
    verdict::Verdict,
};
use crate::{error::Result, host::facts::Facts};

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Stable id.
    pub id: &'static str,
    /// Whose responsibility.
    pub layer: Layer,
    /// Whether it counts for the gate.
    pub weight: Weight,
    /// Whether it applies only to a host with GPUs.
    pub gpus_only: bool,
    /// Checks of the same layer it builds on: skipped where one of them shuts the gate.
    pub needs: &'static [&'static str],
    /// What it looks at.
    pub what: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// How to mend it.
    pub mend: &'static str,
    /// From facts to verdict.
    pub run: fn(&Subject<'_>, &Facts) -> Verdict,
}

/// What `explain` says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// The check's id.
    pub id: &'static str,
    /// Whose responsibility.
    pub layer: Layer,
    /// Whether it counts for the gate.
    pub weight: Weight,
    /// What it looks at.
    pub what: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// How to mend it.
    pub mend: &'static str,
}

pub(super) const fn check(
    id: &'static str,
    layer: Layer,
    run: fn(&Subject<'_>, &Facts) -> Verdict,
    [what, why, mend]: [&'static str; 3],
) -> Check {
    Check { id, layer, weight: Weight::Required, gpus_only: false, needs: &[], what, why, mend, run }
}

pub(super) const fn on_gpus(mut check: Check, needs: &'static [&'static str]) -> Check {
    check.gpus_only = true;
    check.needs = needs;
    check
}

pub(super) const fn advisory(mut check: Check) -> Check {
    check.weight = Weight::Advisory;
    check
}

/// Every check, in the catalogue's order.
static REGISTRY: LazyLock<Vec<Check>> = LazyLock::new(|| [HOST, gpu::CHECKS, REST].concat());

/// Checks of the host before those of GPUs.
const HOST: &[Check] = &[
    check(
        "host.os",
        Layer::Doctor,
        host::os,
        [
            "uname(2) and `/etc/os-release`: Linux on x86_64, of the profile's distribution and release",
            "packages, kernel and driver are locked for one release; on another they do not fit together",
            "install the profile's release, or change `[host]` in the profile and run `bedplate lock`",
        ],
    ),
    check(
        "host.kernel",
        Layer::Doctor,
        host::kernel,
        [
            "uname(2) against the kernel of the lock's `[set]`",
            "kernel and driver are locked as a pair: modules that were built for one kernel do not load on another",
            "restart the host; if another kernel starts all the same: `bedplate provision`, which has GRUB start the locked one (choose it yourself in any other boot loader)",
        ],
    ),
    entries::CLOCK,
    check(
        "host.disk",
        Layer::Doctor,
        host::disk,
        [
            "free space where Docker keeps images and at each model cache, against images that are not pulled yet (their unpacked size is estimated) and weights that must be fetched, and `[checks] disk-free-gib` beside them",
            "a pull or download that runs full leaves half of its content behind, hours later",
            "make room where the finding says, or move the directory to a larger file system",
        ],
    ),
    entries::INODES,
    check(
        "host.memory",
        Layer::Doctor,
        host::memory,
        [
            "`/proc/meminfo` against each deployment's `shm_size`, its largest file of weights where they are on the host, and `[checks] memory-free-gib`",
            "an engine that runs out of memory while it loads is killed with exit code 137 and says nothing",
            "lower `shm_size`, or use a host with more memory",
        ],
    ),
    entries::SHM,
    entries::LIMITS,
    check(
        "host.dns",
        Layer::Doctor,
        host::dns,
        [
            "whether names resolve: registries of locked images that are not on the host, the model hub where a model is not in the cache, and `[checks] resolve`",
            "a pull that cannot resolve its registry fails late, after retries",
            "check `/etc/resolv.conf` and `getent ahosts NAME`; what is on the host already needs no name",
        ],
    ),
    check(
        "host.ports",
        Layer::Doctor,
        host::ports,
        [
            "sockets that listen on a port a deployment publishes; the deployment's own containers do not count",
            "Docker refuses a container whose port is taken, after the image was pulled and the old one stopped",
            "end the process that the finding names, or choose another port in the deployment",
        ],
    ),
    entries::UPGRADES,
];

/// Checks after those of GPUs.
const REST: &[Check] = &[
    check(
        "secret.modes",
        Layer::Doctor,
        secret::modes,
        [
            "mode, owner and links of each `[[mount]]`, its private files, the secrets handed to the host, secret files of the profile, and Docker's client configuration; the directories above them",
            "what others on the host can read is not secret; a link can lead a write elsewhere",
            "run `bedplate provision`, or the `chmod` and `chown` the finding names",
        ],
    ),
    check(
        "secret.present",
        Layer::Doctor,
        secret::present,
        [
            "whether each secret a deployment needs resolves to something; never its value",
            "a container that starts without its token fails later, or runs unguarded",
            "give the secret where the profile's `[secrets]` says, or `bedplate secret set NAME`",
        ],
    ),
    entries::LEAKS,
    check(
        "net.exposed",
        Layer::Doctor,
        net::exposed,
        [
            "Docker's API in `daemon.json` and on its TCP ports, where the agent's API is published and listens, and every port that a container publishes beyond loopback",
            "whoever reaches Docker's API is root on the host; the agent's API signs in the node's name",
            "let both listen on loopback only; reach them through an SSH tunnel",
        ],
    ),
    check(
        "deploy.fit",
        Layer::Doctor,
        fit::fit,
        [
            "`tensor_parallel` and `gpu_ids` against the GPUs; heads, layers, weights and the cache of one sequence of `max_model_len` tokens against their memory, from the model's `config.json` and index, on the host or on the hub",
            "an engine that does not fit says so only after it loaded for minutes",
            "write the `tensor_parallel` or `max_model_len` that the finding names, or take GPUs that exist",
        ],
    ),
    check(
        "docker.daemon",
        Layer::Toolkit,
        toolkit::daemon,
        [
            "whether Docker answers on its socket, how old it is for what the profile asks, and whether it is the snap package",
            "every container is started through it",
            "`systemctl status docker`; where it is missing, `bedplate toolkit install` brings it, or `apt-get install docker.io` with `pin-packages = false`",
        ],
    ),
    entries::STORAGE,
    entries::CGROUP,
    entries::CONFIGURATION,
    entries::PACKAGE,
    on_gpus(
        check(
            "toolkit.wiring",
            Layer::Toolkit,
            toolkit::wiring,
            [
                "`gpu-access = \"cdi\"`: Docker takes CDI devices and there is a specification; `\"nvidia-runtime\"`: the runtime is registered",
                "without it a container with GPUs does not start: `could not select device driver`",
                "`bedplate provision` sets both in `/etc/docker/daemon.json` and restarts Docker, and writes a specification where the vendor's toolkit is not installed; with it: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
            ],
        ),
        &["docker.daemon"],
    ),
    on_gpus(
        check(
            "toolkit.cdi-fresh",
            Layer::Toolkit,
            toolkit::cdi_fresh,
            [
                "driver version and host paths that the CDI specification names, against the loaded driver and what is there",
                "a specification of the driver before gives containers libraries that do not match",
                "`bedplate provision` or `bedplate toolkit install` writes it; where the vendor's toolkit is installed: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
            ],
        ),
        &[],
    ),
    smoke::SMOKE,
    smoke::RELOAD,
    check(
        "image.locked",
        Layer::Runtime,
        image::locked,
        [
            "whether the lock matches its inputs and has every image the deployments start",
            "an image that is not locked means something else tomorrow",
            "run `bedplate lock`",
        ],
    ),
    Check {
        needs: &["image.locked"],
        ..check(
            "image.present",
            Layer::Runtime,
            image::present,
            [
                "what Docker has, by the digests of the lock",
                "a name can be moved; only the digest says which image runs",
                "run `bedplate provision`, which pulls by digest",
            ],
        )
    },
    Check {
        needs: &["image.locked", "image.present"],
        ..check(
            "image.platform",
            Layer::Runtime,
            image::platform,
            [
                "operating system and architecture of the image in Docker, of the lock and of the host",
                "an image of another architecture fails with `exec format error`",
                "use a profile of this host's architecture, then `bedplate provision`",
            ],
        )
    },
    on_gpus(
        check(
            "image.cuda",
            Layer::Runtime,
            image::cuda,
            [
                "the image's CUDA version and `NVIDIA_REQUIRE_*` against the loaded driver and the GPUs",
                "in CDI mode nothing else enforces what the image wants, and the engine fails with a CUDA error instead",
                "lock an image for this driver, or a newer driver (with `pin-packages = false` install one)",
            ],
        ),
        &["image.locked"],
    ),
    Check {
        needs: &["image.locked", "image.present"],
        ..check(
            "image.entrypoint",
            Layer::Runtime,
            image::entrypoint,
            [
                "the entrypoint of the image in Docker and of the deployment, against what the lock read",
                "arguments are appended to that entrypoint; another one does something else with them",
                "remove the override, or run `bedplate provision`",
            ],
        )
    },
    check(
        "runtime.hf-token",
        Layer::Runtime,
        runtime::hf_token,
        [
            "whether the hub lets this host fetch each model that is not in the cache, with the deployment's token; with `--require-hf-token` always",
            "a gated model fails after the engine started, in the middle of its log",
            "give a token that may read the model, and accept its licence with the same account",
        ],
    ),
    check(
        "runtime.cache",
        Layer::Runtime,
        runtime::cache,
        [
            "whether each model cache can be written, and has room for what must be fetched",
            "a download that runs full is found hours later",
            "make room, or move `hf_cache` to a larger file system",
        ],
    ),
    engine_smoke::ENGINE,
    check(
        "up.readiness",
        Layer::Up,
        up::readiness,
        [
            "whether layers 1 to 3 have a fresh full pass on this generation, boot, driver and Docker start",
            "what was proved before a reboot or an upgrade is not proved after it",
            "run `bedplate up`, which runs the layers again",
        ],
    ),
    check(
        "up.started",
        Layer::Up,
        up::started,
        [
            "whether each container runs; of one that exited, its last lines and the layer to blame",
            "a container that exits at once usually fails for a reason of a lower layer",
            "what the finding says; `bedplate logs NAME` shows all of it",
        ],
    ),
    Check {
        needs: &["up.started"],
        ..check(
            "up.serving",
            Layer::Up,
            up::serving,
            [
                "`/health` and whether `/v1/models` lists the model",
                "an engine can run for long before it serves, or serve another model",
                "`bedplate logs -f NAME` shows what it is doing",
            ],
        )
    },
    check(
        "up.exposed",
        Layer::Up,
        up::exposed,
        [
            "ports the containers have, against those meant; secrets and tokens in `docker inspect` or an argument list",
            "a port on every address is open to the network; a secret in `inspect` is readable by whoever may ask Docker",
            "remove the deployment, change the secret where it was issued, start again",
        ],
    ),
    Check {
        needs: &["up.started"],
        ..check(
            "up.agent",
            Layer::Up,
            up::agent,
            [
                "the agent's `/readyz`",
                "an agent that is not ready earns nothing, though everything runs",
                "the reason it gives; `bedplate logs NAME`",
            ],
        )
    },
];

/// Every check, in the order they are judged and shown.
pub fn registry() -> &'static [Check] {
    &REGISTRY
}

/// What a check looks at, why it matters, and how to mend it.
///
/// # Errors
/// A usage error for an id that is none, naming the nearest.
pub fn explain(id: &str) -> Result<Explanation> {
    if let Some(check) = REGISTRY.iter().find(|check| check.id == id) {
        return Ok(Explanation {
            id: check.id,
            layer: check.layer,
            weight: check.weight,
            what: check.what,
            why: check.why,
            mend: check.mend,
        });
    }
    Err(unknown_id(id, "there is no check"))
}
