//! Rows of the diagnosis: a symptom, what it comes to, what is seen, and what of the host is otherwise than healthy.

#![allow(clippy::semicolon_if_nothing_returned)]

use std::net::Ipv4Addr;

use super::{
    facts::*,
    gpu::{fabric_of, load, manager, third},
    symptoms::Expect::{self, Decided, RuledOut, Undecided},
    table::{Change, engine_of, hub, listen, spec_of},
};
use crate::{
    host::facts::*,
    lock::ImageFacts,
    profile::{DriverFlavor, GpuAccess},
};

/// A symptom's id, what its causes come to, the last line (or the exit code), and the change.
pub(super) struct Row(pub(super) &'static str, pub(super) Expect, pub(super) &'static str, pub(super) Change);

fn image(world: &mut World) -> &mut ImageFacts {
    &mut world.lock.as_mut().unwrap().images.get_mut("vllm").unwrap().facts
}

/// GPUs of one model.
fn cards(world: &mut World, name: &str, capability: Option<(u32, u32)>) {
    let mut seen = gpus(1);
    seen.devices[0].name = Some(name.to_owned());
    seen.devices[0].compute_capability = capability;
    world.facts.nvml = Known::Ok(Nvml::Answers(seen));
}

/// A driver, loaded and in user space.
fn driver(world: &mut World, version: &str) {
    load(world, version);
    world.facts.user_space = Known::Ok(Some(version.to_owned()));
    if let Known::Ok(Nvml::Answers(gpus)) = &mut world.facts.nvml {
        version.clone_into(&mut gpus.driver);
    }
}

/// The vendor's runtime, configured and registered.
fn by_runtime(world: &mut World) {
    world.profile.container.gpu_access = GpuAccess::NvidiaRuntime;
    world.facts.daemon_keys =
        Known::Ok([("/runtimes/nvidia/path".to_owned(), "\"nvidia-container-runtime\"".to_owned())].into());
    engine_of(world).runtimes.insert("nvidia".to_owned());
}

fn toolkit(world: &mut World, version: Option<&str>) {
    world.facts.toolkit =
        Known::Ok(VendorToolkit { version: version.map(str::to_owned), ..VendorToolkit::default() });
}

fn no_switches(world: &mut World) {
    *manager(world) = FabricManager::default();
    for health in world.facts.health.values_mut() {
        if let Known::Ok(health) = health {
            health.fabric = Reading::NotSupported;
        }
    }
}

fn log(world: &mut World, whole: bool, kills: &[(bool, u64)]) {
    let kills =
        kills.iter().map(|(limit, ago)| Kill { limit: *limit, program: "python3".to_owned(), ago: *ago });
    world.facts.kernel_log =
        Known::Ok(KernelLog { reach: 60, whole, kills: kills.collect(), ..KernelLog::default() });
}

fn oom(world: &mut World) {
    let Known::Ok(state) = &mut world.observed.as_mut().unwrap().services[0].state else { return };
    state.oom_killed = true;
}

fn free(world: &mut World, path: &str, bytes: u64) {
    if let Some(Known::Ok(space)) = world.facts.space.get_mut(path) {
        space.free = bytes;
    }
}

fn not_pulled(world: &mut World) {
    world.facts.images.insert("vllm".to_owned(), Known::Ok(None));
}

fn secret(world: &mut World, state: SecretState) {
    world.facts.secrets.insert("HF_TOKEN".to_owned(), Known::Ok(state));
}

fn credentials(world: &mut World, plain: &[&str]) {
    let Known::Ok(state) = shut(0o600, false) else { return };
    world.facts.docker_config = Known::Ok(Some(DockerConfig {
        path: "/root/.docker/config.json".to_owned(),
        state,
        user: 0,
        plain: plain.iter().map(|host| (*host).to_owned()).collect(),
    }));
}

const SELECT: &str = "could not select device driver \"\" with capabilities: [[gpu]]";
const REQUIRE: &str =
    "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver";
const E804: &str = "CUDA initialization: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW";
const E803: &str = "Error 803: system has unsupported display driver / cuda driver combination";
const E802: &str = "Error 802: system not yet initialized";
const MISMATCH: &str = "Failed to initialize NVML: Driver/library version mismatch";
const TAKEN: &str = "Failed to initialize NVML: Unknown Error";
const KERNEL: &str = "RuntimeError: CUDA error: no kernel image is available for execution on the device";
const PTX: &str = "CUDA error: the provided PTX was compiled with an unsupported toolchain.";
const SPACE: &str = "write /var/lib/docker/tmp/GetImageBlob1: no space left on device";
const MEMORY: &str = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB";
const GATED: &str = "huggingface_hub.errors.GatedRepoError: 401 Client Error.";
const QUOTA: &str = "toomanyrequests: You have reached your pull rate limit.";
const PORT: &str = "bind: address already in use";
const CDI: &str =
    "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0, nvidia.com/gpu=all";

pub(super) const ROWS: &[Row] = &[
    Row("symptom.device-driver", Decided("snap"), SELECT, |w| {
        engine_of(w).root = "/var/snap/docker/common/var-lib-docker".into();
    }),
    Row("symptom.device-driver", Decided("toolkit-missing"), SELECT, |w| {
        by_runtime(w);
        toolkit(w, None);
    }),
    Row("symptom.device-driver", Decided("docker-not-restarted"), SELECT, |w| {
        by_runtime(w);
        engine_of(w).runtimes.remove("nvidia");
    }),
    Row("symptom.device-driver", Decided("docker-not-restarted"), SELECT, |w| engine_of(w).cdi = Some(false)),
    Row("symptom.device-driver", Decided("cdi-off"), SELECT, |w| {
        engine_of(w).cdi = Some(false);
        w.facts.daemon_json = Known::Ok(None);
    }),
    // All is set up: when Docker looked for the toolkit no fact tells.
    Row("symptom.device-driver", Undecided(&["docker-not-restarted"]), SELECT, by_runtime),
    Row("symptom.device-driver", Undecided(&["toolkit-missing", "docker-not-restarted"]), SELECT, |w| {
        by_runtime(w);
        w.facts.toolkit = Known::unknown("dpkg is locked");
    }),
    Row("symptom.device-driver", RuledOut, SELECT, |_| ()),
    Row("symptom.cuda-requirement", Decided("driver-too-old"), REQUIRE, |w| driver(w, "470.57.02")),
    Row("symptom.cuda-requirement", Decided("branch-not-listed"), REQUIRE, |w| driver(w, "550.163.01")),
    Row("symptom.cuda-requirement", Decided("branch-not-listed"), REQUIRE, |w| {
        image(w).require = [(
            "NVIDIA_REQUIRE_CUDA".to_owned(),
            "brand=tesla,driver>=470,driver<471 brand=tesla,driver>=535,driver<536".to_owned(),
        )]
        .into();
    }),
    Row("symptom.cuda-requirement", RuledOut, REQUIRE, |_| ()),
    Row("symptom.cuda-requirement", Undecided(&["driver-too-old", "branch-not-listed"]), REQUIRE, |w| {
        image(w).cuda = None;
    }),
    Row("symptom.cuda-requirement", Undecided(&["driver-too-old", "branch-not-listed"]), REQUIRE, |w| {
        w.facts.module = Known::unknown("no sysfs");
    }),
    Row("symptom.cuda-804", Decided("upgraded"), E804, |w| {
        w.facts.user_space = Known::Ok(Some("580.200.01".into()));
    }),
    Row("symptom.cuda-804", Decided("no-forward-compatibility"), E804, |w| {
        cards(w, "NVIDIA GeForce RTX 4090", Some((8, 9)));
    }),
    Row("symptom.cuda-804", Undecided(&["no-forward-compatibility"]), E804, |w| {
        cards(w, "NVIDIA Unheard-of 9", None);
    }),
    Row("symptom.cuda-804", Undecided(&["upgraded", "no-forward-compatibility"]), E804, |w| {
        w.facts.user_space = Known::unknown("hung");
        w.facts.nvml = Known::unknown("hung");
    }),
    Row("symptom.cuda-804", RuledOut, E804, |_| ()),
    Row("symptom.cuda-803", Decided("upgraded"), E803, |w| w.facts.nvml = Known::Ok(Nvml::VersionMismatch)),
    Row("symptom.cuda-803", Decided("forced-by-deployment"), E803, |w| {
        w.deployments[0].env.insert("LD_LIBRARY_PATH".into(), "/usr/local/cuda/compat".into());
    }),
    Row("symptom.cuda-803", Decided("forced-by-image"), E803, |_| ()),
    Row("symptom.cuda-803", Decided("forced-by-image"), E803, |w| driver(w, "550.163.01")),
    Row("symptom.cuda-803", RuledOut, E803, |w| driver(w, "470.57.02")),
    Row("symptom.cuda-803", Undecided(&["forced-by-image"]), E803, |w| image(w).cuda = None),
    Row("symptom.cuda-802", Decided("fabric-manager-absent"), E802, |w| {
        *manager(w) = FabricManager { switches: vec!["0000:c1:00.0".into()], ..FabricManager::default() };
        fabric_of(w, FabricState::NotStarted, None, None);
    }),
    Row("symptom.cuda-802", Decided("fabric-manager-stopped"), E802, |w| manager(w).process = None),
    Row("symptom.cuda-802", Decided("fabric-manager-version"), E802, |w| {
        manager(w).version = Some("580.95.05".into());
    }),
    Row("symptom.cuda-802", Decided("fabric-not-completed"), E802, |w| {
        fabric_of(w, FabricState::InProgress, None, None);
    }),
    Row("symptom.cuda-802", Decided("fabric-not-completed"), E802, |w| {
        fabric_of(w, FabricState::Completed, Some("an internal error"), None);
    }),
    Row("symptom.cuda-802", Decided("hmm"), E802, |_| ()),
    Row("symptom.cuda-802", Decided("hmm"), E802, no_switches),
    Row("symptom.cuda-802", RuledOut, E802, |w| {
        w.profile.kernel.options.insert("nvidia-uvm".into(), "uvm_disable_hmm=1".into());
    }),
    Row("symptom.cuda-802", RuledOut, E802, |w| w.profile.driver.flavor = DriverFlavor::Proprietary),
    Row("symptom.cuda-802", RuledOut, E802, |w| {
        driver(w, "525.60.13");
        manager(w).version = Some("525.60.13".into());
    }),
    Row("symptom.cuda-802", Undecided(&["fabric-not-completed", "hmm"]), E802, |w| {
        third(w, |gpu| gpu.fabric = Reading::unknown("hung"));
    }),
    Row("symptom.cuda-802", Undecided(&["fabric-manager-version", "hmm"]), E802, |w| {
        manager(w).version = None;
    }),
    Row("symptom.version-mismatch", Decided("upgraded"), MISMATCH, |w| {
        w.facts.nvml = Known::Ok(Nvml::VersionMismatch);
    }),
    Row("symptom.version-mismatch", Decided("stale-specification"), MISMATCH, |w| {
        spec_of(w).versions = ["535.1.2".to_owned()].into();
    }),
    Row("symptom.version-mismatch", RuledOut, MISMATCH, |_| ()),
    Row("symptom.version-mismatch", Undecided(&["upgraded", "stale-specification"]), MISMATCH, |w| {
        w.facts.module = Known::unknown("no sysfs");
    }),
    Row("symptom.gpus-taken-away", Decided("daemon-reload"), TAKEN, |w| {
        by_runtime(w);
        toolkit(w, Some("1.14.3-1"));
    }),
    Row("symptom.gpus-taken-away", RuledOut, TAKEN, |_| ()),
    Row("symptom.gpus-taken-away", Undecided(&["daemon-reload"]), TAKEN, |w| {
        w.facts.engine = Known::unknown("Docker did not answer");
    }),
    Row("symptom.no-kernel-image", Decided("other-capabilities"), KERNEL, |w| {
        cards(w, "Tesla V100-SXM2-32GB", Some((7, 0)));
    }),
    Row("symptom.no-kernel-image", Undecided(&["other-capabilities"]), KERNEL, |w| {
        cards(w, "NVIDIA Unheard-of 9", None);
    }),
    Row("symptom.ptx", Decided("ptx-newer"), PTX, |w| driver(w, "550.163.01")),
    Row("symptom.ptx", RuledOut, PTX, |_| ()),
    Row("symptom.ptx", Undecided(&["ptx-newer"]), PTX, |w| image(w).cuda = None),
    Row("symptom.no-space", Decided("unpacked-images"), SPACE, |w| {
        not_pulled(w);
        // The download fits, what it unpacks to does not.
        free(w, "/var/lib/docker", 10 * GIB);
    }),
    Row("symptom.no-space", Decided("weights"), SPACE, |w| {
        hub(w, Known::Ok(Hub::Allowed { gated: false, bytes: Some(3000 * GIB), token: true }));
    }),
    Row("symptom.no-space", Decided("inodes"), SPACE, |w| {
        let Some(Known::Ok(volume)) = w.facts.volumes.get_mut("/var/lib/docker") else { return };
        volume.inodes_free = 0;
    }),
    Row("symptom.no-space", Decided("shared-memory"), "/dev/shm/psm_1: No space left on device", |_| ()),
    Row("symptom.no-space", RuledOut, SPACE, |_| ()),
    Row("symptom.no-space", Undecided(&["unpacked-images"]), SPACE, |w| {
        not_pulled(w);
        w.facts.space.remove("/var/lib/docker");
    }),
    Row("symptom.exit-137", Decided("host-memory"), "137", |w| log(w, true, &[(false, 9)])),
    Row("symptom.exit-137", Decided("host-memory"), "137", |w| {
        w.facts.kernel_log = Known::unknown("not root");
        w.facts.memory = Known::Ok(Memory { total: 8 * GIB, available: GIB });
    }),
    Row("symptom.exit-137", Decided("container-limit"), "137", |w| {
        oom(w);
        log(w, true, &[(true, 9)]);
    }),
    // One of yesterday is another one's.
    Row("symptom.exit-137", Decided("killed"), "137", |w| log(w, true, &[(true, 90_000)])),
    Row("symptom.exit-137", Undecided(&["container-limit", "host-memory", "killed"]), "137", |w| {
        w.facts.kernel_log = Known::unknown("not root");
    }),
    Row("symptom.exit-137", Undecided(&["container-limit", "host-memory"]), "137", |w| {
        oom(w);
        log(w, false, &[]);
    }),
    Row("symptom.gpu-memory", Decided("held"), MEMORY, |w| {
        third(w, |gpu| {
            gpu.processes = Reading::Value(vec![Holder { pid: 4711, memory: Some(40 * GIB) }]);
        });
    }),
    Row("symptom.gpu-memory", Decided("held"), MEMORY, |w| {
        third(w, |gpu| gpu.memory = Reading::Value(MemoryUse { total: 80 * GIB, used: 40 * GIB }));
    }),
    Row("symptom.gpu-memory", Decided("too-large"), MEMORY, |w| {
        w.facts.models.get_mut("qwen72b").unwrap().weights = Known::Ok(400 * GIB);
    }),
    Row("symptom.gpu-memory", Undecided(&["too-large"]), MEMORY, |_| ()),
    Row("symptom.gpu-memory", Undecided(&["held", "too-large"]), MEMORY, |w| {
        w.facts.nvml = Known::unknown("hung");
    }),
    // Another GPU's process is none of this deployment's business.
    Row("symptom.gpu-memory", Undecided(&["too-large"]), MEMORY, |w| {
        let Some(Known::Ok(gpu)) = w.facts.health.get_mut(&7) else { return };
        gpu.processes = Reading::Value(vec![Holder { pid: 4711, memory: Some(40 * GIB) }]);
    }),
    Row("symptom.hub-refused", Decided("no-token"), GATED, |w| {
        secret(w, SecretState::Absent("`$HF_TOKEN` is not set".into()));
    }),
    Row("symptom.hub-refused", Decided("no-token"), GATED, |w| hub(w, Known::Ok(Hub::TokenNeeded))),
    Row("symptom.hub-refused", Decided("wrong-token"), GATED, |w| hub(w, Known::Ok(Hub::TokenRejected))),
    Row("symptom.hub-refused", Decided("licence"), GATED, |w| hub(w, Known::Ok(Hub::Forbidden))),
    Row(
        "symptom.hub-refused",
        Decided("licence"),
        "403 Client Error: access to model is restricted and you are not in the authorized list.",
        |_| (),
    ),
    Row("symptom.hub-refused", Decided("no-such-model"), GATED, |w| hub(w, Known::Ok(Hub::NotFound))),
    Row("symptom.hub-refused", Undecided(&["wrong-token", "licence", "no-such-model"]), GATED, |w| {
        hub(w, Known::unknown("no network"));
    }),
    Row("symptom.hub-refused", RuledOut, GATED, |w| {
        hub(w, Known::Ok(Hub::Allowed { gated: true, bytes: None, token: true }));
    }),
    Row("symptom.registry-429", Decided("anonymous-quota"), QUOTA, |_| ()),
    Row(
        "symptom.registry-429",
        Decided("anonymous-quota"),
        "toomanyrequests: You have reached your unauthenticated pull rate limit.",
        |w| {
            not_pulled(w);
            credentials(w, &["https://index.docker.io/v1/"]);
        },
    ),
    Row("symptom.registry-429", Decided("own-quota"), QUOTA, |w| {
        not_pulled(w);
        credentials(w, &["https://index.docker.io/v1/"]);
    }),
    Row("symptom.registry-429", Undecided(&["anonymous-quota", "own-quota"]), QUOTA, |w| {
        not_pulled(w);
        credentials(w, &[]);
    }),
    Row("symptom.port-taken", Decided("taken"), PORT, |w| {
        listen(w, Ipv4Addr::LOCALHOST, 8000, "nginx (pid 9)")
    }),
    Row("symptom.port-taken", RuledOut, PORT, |_| ()),
    Row("symptom.port-taken", Undecided(&["taken"]), PORT, |w| {
        w.facts.listeners = Known::unknown("no /proc")
    }),
    Row("symptom.cdi-devices", Decided("no-specification"), CDI, |w| w.facts.cdi = Known::Ok(Vec::new())),
    Row(
        "symptom.cdi-devices",
        Decided("no-such-device"),
        "unresolvable CDI devices nvidia.com/gpu=7",
        |_| (),
    ),
    Row("symptom.cdi-devices", Decided("stale-specification"), CDI, |w| {
        spec_of(w).missing = ["/dev/nvidia7".to_owned()].into();
    }),
    Row("symptom.cdi-devices", RuledOut, CDI, |_| ()),
    Row(
        "symptom.cdi-devices",
        Undecided(&["no-specification", "no-such-device", "stale-specification"]),
        CDI,
        |w| w.facts.cdi = Known::unknown("unreadable"),
    ),
];
