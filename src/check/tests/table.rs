//! Each check: it passes on a healthy host, fails for each way it can break, is unknown where nobody could
//! look, and passes again when repaired.

#![allow(clippy::semicolon_if_nothing_returned)]

use std::net::{IpAddr, Ipv4Addr};

use super::{facts::*, *};
use crate::{
    check::{gate::Decision, registry, up::ContainerState},
    host::facts::*,
    profile::{ContainerEngine, GpuAccess},
};

pub(super) type Change = fn(&mut World);

/// A change, what it makes of the check, and what the finding must say.
pub(super) struct Case(
    pub(super) &'static str,
    pub(super) Outcome,
    pub(super) &'static str,
    pub(super) Change,
);

/// Every row, of this file and its neighbours.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    CASES
        .iter()
        .chain(super::table_host::CASES)
        .chain(super::table_smoke::CASES)
        .chain(super::table_engine::CASES)
        .chain(super::gpu::CASES)
        .chain(super::fit::CASES)
        .chain(super::exposed::CASES)
}

use Outcome::{Fail, NotApplicable, Pass, Unknown, Warn};

fn away() -> Known<Docker> {
    Known::Ok(Docker::Away(Away { why: "no socket".to_owned(), next: Some("install it".to_owned()) }))
}

pub(super) fn engine_of(world: &mut World) -> &mut Engine {
    match &mut world.facts.docker {
        Known::Ok(Docker::Answers(engine)) => engine,
        _ => panic!("no engine"),
    }
}

pub(super) fn spec_of(world: &mut World) -> &mut CdiSpec {
    match &mut world.facts.cdi {
        Known::Ok(specs) => &mut specs[0],
        Known::Unknown { .. } => panic!("no specification"),
    }
}

pub(super) fn listen(world: &mut World, address: Ipv4Addr, port: u16, process: &str) {
    let Known::Ok(listeners) = &mut world.facts.listeners else { panic!("no listeners") };
    listeners.push(Listener {
        protocol: "tcp".to_owned(),
        address: IpAddr::V4(address),
        port,
        process: Some(process.to_owned()),
    });
}

fn contain(world: &mut World, deployment: &str, port: u16) {
    world.facts.containers = Known::Ok(vec![Container {
        name: "c".to_owned(),
        deployment: deployment.to_owned(),
        running: true,
        ports: [port].into(),
    }]);
}

pub(super) fn hub(world: &mut World, answer: Known<Hub>) {
    let model = world.facts.models.get_mut("qwen72b").unwrap();
    model.local = Known::Ok(None);
    model.hub = answer;
}

fn image_of<'w>(world: &'w mut World, name: &str) -> &'w mut Image {
    match world.facts.images.get_mut(name) {
        Some(Known::Ok(Some(image))) => image,
        _ => panic!("no image"),
    }
}

pub(super) fn exit(world: &mut World, code: i64, line: &str) {
    world.observed.as_mut().unwrap().services[0].state = Known::Ok(ContainerState {
        exit_code: Some(code),
        last_lines: if line.is_empty() { Vec::new() } else { vec![line.to_owned()] },
        ..ContainerState::default()
    });
}

fn serving(world: &mut World, health: u16, model: &str, line: &str) {
    let Known::Ok(serving) = &mut world.observed.as_mut().unwrap().serving else { panic!("not serving") };
    serving.health = Some(health);
    serving.models = vec![model.to_owned()];
    serving.last_lines = vec![line.to_owned()];
}

fn exposure(world: &mut World) -> &mut crate::check::up::Exposure {
    match &mut world.observed.as_mut().unwrap().services[0].exposure {
        Known::Ok(exposure) => exposure,
        Known::Unknown { .. } => panic!("nothing seen"),
    }
}

macro_rules! edit {
    ($known:expr, $value:ident => $change:expr) => {
        if let Known::Ok($value) = &mut $known {
            $change
        }
    };
}

fn break_daemon_json(w: &mut World) {
    let broken = Some("expected `,` or `}` at line 3 column 1".to_owned());
    w.facts.daemon_json = Known::Ok(Some(DaemonJson { broken, ..DaemonJson::default() }));
}

fn old_driver(w: &mut World) {
    edit!(w.facts.module, m => m.loaded = Some("470.57.02".into()));
    // A consumer card has no forward compatibility, whatever the image holds.
    let mut gpus = gpus(1);
    gpus.devices[0].name = Some("NVIDIA GeForce RTX 4090".into());
    gpus.devices[0].brand = Some("geforce".into());
    gpus.devices[0].compute_capability = Some((8, 9));
    w.facts.nvml = Known::Ok(Nvml::Answers(gpus));
}

const CASES: &[Case] = &[
    Case(
        "host.os",
        Fail,
        "host is debian bookworm, the profile wants debian trixie",
        |w| edit!(w.facts.os, os => os.release = Some("bookworm".into())),
    ),
    Case("host.os", Fail, "aarch64", |w| edit!(w.facts.kernel, k => k.machine = "aarch64".into())),
    Case("host.os", Fail, "not Linux", |w| edit!(w.facts.kernel, k => k.system = "FreeBSD".into())),
    Case("host.kernel", Fail, "kernel 6.1.0-9-amd64 runs, and 6.12.57+deb13-amd64 is locked", |w| {
        edit!(w.facts.kernel, k => k.release = "6.1.0-9-amd64".into());
    }),
    Case("host.kernel", Unknown, "no answer", |w| w.facts.kernel = Known::unknown("no answer")),
    Case("host.kernel", NotApplicable, "no kernel is locked", |w| w.lock.as_mut().unwrap().set = None),
    Case("host.os", Unknown, "unreadable", |w| w.facts.os = Known::unknown("unreadable")),
    Case("host.disk", Fail, "1.0 GiB free", |w| {
        w.facts.images.insert("vllm".into(), Known::Ok(None));
        edit!(*w.facts.space.get_mut("/var/lib/docker").unwrap(), s => s.free = GIB);
    }),
    Case("host.disk", Fail, "100.0 GiB free, 200.0 GiB are wanted", |w| {
        w.profile.checks.disk_free_gib = 200;
        edit!(*w.facts.space.get_mut("/data/huggingface").unwrap(), s => s.free = 100 * GIB);
    }),
    // On one file system both needs add up: 20 for the image, 140 for the weights.
    Case("host.disk", Fail, "150.0 GiB free, 160.0 GiB are wanted", |w| {
        w.facts.images.insert("vllm".into(), Known::Ok(None));
        hub(w, Known::Ok(Hub::Allowed { gated: false, bytes: Some(140 * GIB), token: true }));
        for space in w.facts.space.values_mut() {
            edit!(*space, s => { s.device = 7; s.free = 150 * GIB });
        }
    }),
    Case("host.disk", Unknown, "nothing was looked at", |w| w.facts.space.clear()),
    Case("host.memory", Fail, "8.0 GiB of memory", |w| edit!(w.facts.memory, m => m.total = 8 * GIB)),
    Case("host.memory", Unknown, "no /proc", |w| w.facts.memory = Known::unknown("no /proc")),
    Case("host.dns", Fail, "does not resolve", |w| {
        w.facts
            .names
            .insert("time.example".into(), Known::Ok(Resolution::Failed("it does not resolve".into())));
    }),
    Case("host.dns", Unknown, "registry-1.docker.io", |w| {
        drop(w.facts.images.insert("vllm".into(), Known::Ok(None)))
    }),
    Case("host.dns", Unknown, "huggingface.co", |w| hub(w, Known::unknown("no network"))),
    Case("host.dns", NotApplicable, "nothing must be fetched", |w| w.profile.checks.resolve.clear()),
    Case("host.ports", Fail, "taken by nginx (pid 9)", |w| {
        listen(w, Ipv4Addr::UNSPECIFIED, 8000, "nginx (pid 9)")
    }),
    Case("host.ports", Fail, "taken by deployment `other`", |w| {
        listen(w, Ipv4Addr::LOCALHOST, 8000, "docker-proxy (pid 9)");
        contain(w, "other", 8000);
    }),
    Case("host.ports", Pass, "this deployment's own", |w| {
        listen(w, Ipv4Addr::LOCALHOST, 8000, "docker-proxy (pid 9)");
        contain(w, "qwen72b", 8000);
    }),
    Case("host.ports", Pass, "free", |w| listen(w, Ipv4Addr::new(10, 0, 0, 1), 8000, "nginx (pid 9)")),
    Case("host.ports", Fail, "both want port 8000", |w| {
        let mut twin = w.deployments[0].clone();
        twin.name = "twin".into();
        twin.miner_client = None;
        w.deployments.push(twin);
    }),
    Case("host.ports", Unknown, "whose is not known", |w| {
        listen(w, Ipv4Addr::LOCALHOST, 8000, "docker-proxy (pid 9)");
        w.facts.containers = Known::unknown("Docker does not answer");
    }),
    Case("host.ports", Unknown, "no /proc", |w| w.facts.listeners = Known::unknown("no /proc")),
    Case("gpu.pci", Fail, "7 of 8", |w| w.facts.pci = Known::Ok(pci(7))),
    Case("gpu.pci", Fail, "0 of 8", |w| w.facts.pci = Known::Ok(Vec::new())),
    Case("gpu.pci", Unknown, "no sysfs", |w| w.facts.pci = Known::unknown("no sysfs")),
    Case("gpu.module", Fail, "was not built", |w| w.facts.module = Known::Ok(Module::default())),
    Case("gpu.module", Fail, "Secure Boot", |w| {
        w.facts.module =
            Known::Ok(Module { file: Some("/m".into()), secure_boot: Some(true), ..Module::default() });
    }),
    Case("gpu.module", Fail, "not loaded", |w| {
        w.facts.module = Known::Ok(Module { file: Some("/m".into()), ..Module::default() });
    }),
    Case("gpu.module", Unknown, "no sysfs", |w| w.facts.module = Known::unknown("no sysfs")),
    Case("gpu.version-match", Fail, "upgraded under a running driver", |w| {
        w.facts.nvml = Known::Ok(Nvml::VersionMismatch)
    }),
    Case("gpu.version-match", Fail, "user-space library 580.200.01", |w| {
        w.facts.user_space = Known::Ok(Some("580.200.01".into()))
    }),
    Case("gpu.version-match", Fail, "not installed", |w| {
        w.facts.nvml = Known::Ok(Nvml::NoLibrary("gone".into()))
    }),
    Case("gpu.version-match", Unknown, "cannot reach it", |w| {
        w.facts.nvml = Known::Ok(Nvml::DriverNotLoaded)
    }),
    Case("gpu.version-match", Unknown, "hung", |w| w.facts.nvml = Known::unknown("hung")),
    Case("gpu.count", Fail, "7 of 8", |w| w.facts.nvml = Known::Ok(Nvml::Answers(gpus(7)))),
    Case("gpu.count", Unknown, "not loaded", |w| w.facts.nvml = Known::Ok(Nvml::DriverNotLoaded)),
    Case("gpu.count", Unknown, "hung", |w| w.facts.nvml = Known::unknown("hung")),
    Case("gpu.count", Unknown, "no sysfs", |w| w.facts.pci = Known::unknown("no sysfs")),
    Case("secret.modes", Fail, "mode 0755", |w| {
        drop(w.facts.paths.insert("/data/minerhome".into(), shut(0o755, true)))
    }),
    Case("secret.modes", Fail, "mode 0644", |w| {
        drop(w.facts.paths.insert("/data/minerhome/config.json".into(), shut(0o644, false)))
    }),
    Case("secret.modes", Fail, "mode 0440", |w| {
        drop(w.facts.paths.insert("/run/bedplate/secrets/HF_TOKEN".into(), shut(0o440, false)))
    }),
    Case("secret.modes", Fail, "through the link `/data`", |w| {
        w.facts.paths.insert("/data/minerhome".into(), Known::Ok(PathState::Link("/data".into())));
    }),
    Case("secret.modes", Fail, "belongs to miner:miner", |w| {
        let state = PathState::Present {
            mode: 0o700,
            owner: "miner:miner".into(),
            ids: (1000, 1000),
            directory: true,
        };
        w.facts.paths.insert("/data/minerhome".into(), Known::Ok(state));
    }),
    Case("secret.modes", Fail, "is not there", |w| {
        drop(w.facts.paths.insert("/data/minerhome".into(), Known::Ok(PathState::Absent)))
    }),
    Case("secret.modes", Pass, "shut", |w| {
        drop(w.facts.paths.insert("/data/minerhome/config.json".into(), Known::Ok(PathState::Absent)))
    }),
    Case("secret.modes", Fail, "/root/.docker/config.json", |w| {
        let Known::Ok(state) = shut(0o644, false) else { return };
        w.facts.docker_config = Known::Ok(Some(DockerConfig {
            path: "/root/.docker/config.json".into(),
            state,
            user: 0,
            plain: [].into(),
        }));
    }),
    Case("secret.modes", Pass, "is shut", |w| {
        let state = PathState::Present {
            mode: 0o600,
            owner: "miner:miner".into(),
            ids: (1000, 1000),
            directory: false,
        };
        w.facts.docker_config = Known::Ok(Some(DockerConfig {
            path: "/home/miner/.docker/config.json".into(),
            state,
            user: 1000,
            plain: [].into(),
        }));
    }),
    Case("secret.modes", Fail, "belongs to other:other", |w| {
        let state = PathState::Present {
            mode: 0o600,
            owner: "other:other".into(),
            ids: (1001, 1001),
            directory: false,
        };
        w.facts.docker_config = Known::Ok(Some(DockerConfig {
            path: "/home/miner/.docker/config.json".into(),
            state,
            user: 1000,
            plain: [].into(),
        }));
    }),
    Case("secret.modes", Warn, "registry.example in clear", |w| {
        let Known::Ok(state) = shut(0o600, false) else { return };
        w.facts.docker_config = Known::Ok(Some(DockerConfig {
            path: "/root/.docker/config.json".into(),
            state,
            user: 0,
            plain: ["registry.example".to_owned()].into(),
        }));
    }),
    Case("secret.modes", Unknown, "permission denied", |w| {
        drop(w.facts.paths.insert("/data/minerhome".into(), Known::unknown("permission denied")))
    }),
    Case("secret.present", Fail, "`VLLM_KEY` of `qwen72b` resolves to nothing", |w| {
        w.facts
            .secrets
            .insert("VLLM_KEY".into(), Known::Ok(SecretState::Absent("`$VLLM_KEY` is not set".into())));
    }),
    Case("secret.present", Pass, "", |w| {
        drop(w.facts.secrets.insert("HF_TOKEN".into(), Known::Ok(SecretState::Absent("x".into()))))
    }),
    Case("secret.present", Unknown, "nothing was looked at", |w| drop(w.facts.secrets.remove("VLLM_KEY"))),
    Case(
        "net.exposed",
        Fail,
        "tcp://0.0.0.0:2375",
        |w| edit!(w.facts.daemon_json, d => if let Some(d) = d { d.hosts = vec!["tcp://0.0.0.0:2375".into()] }),
    ),
    Case("net.exposed", Fail, "port 2375", |w| listen(w, Ipv4Addr::UNSPECIFIED, 2375, "dockerd")),
    Case("net.exposed", Pass, "", |w| listen(w, Ipv4Addr::LOCALHOST, 2375, "dockerd")),
    Case("net.exposed", Fail, "0.0.0.0:8080, meant was 127.0.0.1", |w| {
        listen(w, Ipv4Addr::UNSPECIFIED, 8080, "agent")
    }),
    // That Docker's configuration is broken is not the host's matter: what listens is seen.
    Case("net.exposed", Unknown, "is not JSON", break_daemon_json),
    Case("net.exposed", Fail, "port 2375", |w| {
        break_daemon_json(w);
        listen(w, Ipv4Addr::UNSPECIFIED, 2375, "dockerd");
    }),
    Case("net.exposed", Unknown, "no /proc", |w| w.facts.listeners = Known::unknown("no /proc")),
    Case("docker.daemon", NotApplicable, "no container engine", |w| {
        w.profile.container.engine = ContainerEngine::None;
        w.facts.docker = away();
    }),
    Case("docker.daemon", Fail, "no socket", |w| w.facts.docker = away()),
    Case("docker.daemon", Fail, "is not JSON: Docker runs, and will not start again", |w| {
        break_daemon_json(w)
    }),
    Case("docker.daemon", Fail, "is not JSON: Docker does not answer, and does not start with it", |w| {
        break_daemon_json(w);
        w.facts.docker = away();
    }),
    Case("docker.daemon", Fail, "too old", |w| engine_of(w).version = "20.10.24".into()),
    Case("docker.daemon", Fail, "snap", |w| {
        engine_of(w).root = "/var/snap/docker/common/var-lib-docker".into()
    }),
    Case("docker.daemon", Unknown, "did not answer within", |w| {
        w.facts.docker = Known::unknown("Docker did not answer within 10 s")
    }),
    Case("toolkit.wiring", Fail, "feature is off", |w| engine_of(w).cdi = Some(false)),
    Case("toolkit.wiring", Fail, "no CDI specification", |w| w.facts.cdi = Known::Ok(Vec::new())),
    Case("toolkit.wiring", Fail, "is broken", |w| spec_of(w).broken = Some("not YAML".into())),
    Case("toolkit.wiring", Fail, "`nvidia` is not registered", |w| {
        w.profile.container.gpu_access = GpuAccess::NvidiaRuntime
    }),
    Case("toolkit.wiring", Pass, "`nvidia` is registered", |w| {
        w.profile.container.gpu_access = GpuAccess::NvidiaRuntime;
        engine_of(w).runtimes.insert("nvidia".into());
    }),
    Case("toolkit.wiring", Unknown, "no socket", |w| w.facts.docker = away()),
    Case("toolkit.cdi-fresh", Fail, "made for driver 535.1.2", |w| {
        spec_of(w).versions = ["535.1.2".to_owned()].into()
    }),
    Case("toolkit.cdi-fresh", Fail, "/dev/nvidia7", |w| {
        spec_of(w).missing = ["/dev/nvidia7".to_owned()].into()
    }),
    Case("toolkit.cdi-fresh", Fail, "no CDI specification", |w| w.facts.cdi = Known::Ok(Vec::new())),
    Case("toolkit.cdi-fresh", Unknown, "no library with a version", |w| spec_of(w).versions.clear()),
    Case("toolkit.cdi-fresh", Unknown, "unreadable", |w| w.facts.cdi = Known::unknown("unreadable")),
    Case("image.locked", Fail, "no lock", |w| w.lock = None),
    Case("image.locked", Fail, "`test.toml` changed", |w| w.stale = Some("`test.toml` changed".into())),
    Case("image.locked", Fail, "which the lock does not have", |w| {
        drop(w.lock.as_mut().unwrap().images.remove("miner-agent"))
    }),
    Case("image.present", Fail, "not pulled", |w| {
        drop(w.facts.images.insert("vllm".into(), Known::Ok(None)))
    }),
    Case("image.present", Fail, "the lock says sha256:", |w| image_of(w, "vllm").id = "sha256:0".into()),
    Case("image.present", Fail, "sha256:0, for linux/arm64, the lock says", |w| {
        let image = image_of(w, "vllm");
        (image.id, image.architecture) = ("sha256:0".into(), "arm64".into());
    }),
    Case("image.present", Unknown, "no socket", |w| {
        drop(w.facts.images.insert("vllm".into(), Known::unknown("no socket")))
    }),
    Case("image.platform", Fail, "linux/arm64", |w| image_of(w, "vllm").architecture = "arm64".into()),
    Case(
        "image.platform",
        Fail,
        "the host is arm64",
        |w| edit!(w.facts.kernel, k => k.machine = "aarch64".into()),
    ),
    Case("image.platform", Unknown, "no socket", |w| {
        drop(w.facts.images.insert("vllm".into(), Known::unknown("no socket")))
    }),
    Case("image.cuda", Fail, "refuse", old_driver),
    Case(
        "image.cuda",
        Unknown,
        "forward compatibility libraries",
        |w| edit!(w.facts.module, m => m.loaded = Some("470.57.02".into())),
    ),
    Case("image.cuda", Unknown, "no sysfs", |w| w.facts.module = Known::unknown("no sysfs")),
    Case("image.cuda", Unknown, "neither a CUDA version nor", |w| {
        w.lock.as_mut().unwrap().images.get_mut("vllm").unwrap().facts.cuda = None
    }),
    Case("image.entrypoint", Fail, "starts `sh`", |w| image_of(w, "vllm").entrypoint = vec!["sh".into()]),
    Case("image.entrypoint", Unknown, "no socket", |w| {
        drop(w.facts.images.insert("vllm".into(), Known::unknown("no socket")))
    }),
    Case("runtime.hf-token", Fail, "(401)", |w| hub(w, Known::Ok(Hub::TokenRejected))),
    Case("runtime.hf-token", Fail, "it is private, or does not exist", |w| {
        hub(w, Known::Ok(Hub::TokenNeeded))
    }),
    Case("runtime.hf-token", Fail, "is gated (401): it exists", |w| hub(w, Known::Ok(Hub::Gated))),
    Case("runtime.hf-token", Fail, "licence was not accepted", |w| hub(w, Known::Ok(Hub::Forbidden))),
    Case("runtime.hf-token", Fail, "(404)", |w| hub(w, Known::Ok(Hub::NotFound))),
    Case("runtime.hf-token", Fail, "gives none", |w| {
        w.hf_token = true;
        hub(w, Known::Ok(Hub::Allowed { gated: false, bytes: None, token: false }));
    }),
    Case("runtime.hf-token", Pass, "may be fetched", |w| {
        hub(w, Known::Ok(Hub::Allowed { gated: true, bytes: None, token: true }))
    }),
    Case("runtime.hf-token", Unknown, "no network", |w| hub(w, Known::unknown("no network"))),
    Case("runtime.hf-token", NotApplicable, "", |w| w.deployments[0].model = "/models/own".into()),
    Case("runtime.cache", Fail, "read-only", |w| {
        edit!(*w.facts.caches.get_mut("/data/huggingface").unwrap(), c => {
            c.writable = false;
            c.why = Some("mounted read-only".into());
        })
    }),
    Case("runtime.cache", Fail, "needs 3000.0 GiB", |w| {
        hub(w, Known::Ok(Hub::Allowed { gated: false, bytes: Some(3000 * GIB), token: true }))
    }),
    Case("runtime.cache", Fail, "there is no model at `/data/huggingface/own`", |w| {
        w.deployments[0].model = "/root/.cache/huggingface/own".into();
        w.facts.models.get_mut("qwen72b").unwrap().local = Known::Ok(None);
    }),
    Case("runtime.cache", Unknown, "no network", |w| hub(w, Known::unknown("no network"))),
    Case("runtime.cache", Unknown, "nothing was looked at", |w| w.facts.caches.clear()),
    Case("up.readiness", Fail, "the boot id changed", |w| {
        w.gate =
            Some(Decision::Shut { because: "the boot id changed".into(), next: "run `bedplate up`".into() });
    }),
    Case("up.readiness", Unknown, "nobody asked", |w| w.gate = None),
    Case("up.started", Fail, "exited with 1: boom", |w| exit(w, 1, "boom")),
    Case("up.started", Fail, "something else sent it SIGKILL", |w| exit(w, 137, "")),
    Case("up.started", Fail, "to blame: the host", |w| {
        exit(w, 1, "Failed to initialize NVML: Driver/library version mismatch");
        w.facts.user_space = Known::Ok(Some("580.200.01".into()));
    }),
    Case("up.started", Fail, "to blame: GPU access", |w| {
        exit(w, 128, "could not select device driver \"cdi\" with capabilities: [[gpu]]");
        engine_of(w).cdi = Some(false);
    }),
    // What facts rule out is not said.
    Case("up.started", Fail, "none of its known causes holds", |w| {
        exit(w, 128, "could not select device driver \"cdi\" with capabilities: [[gpu]]")
    }),
    Case("up.started", Unknown, "not started", |w| w.observed = None),
    Case("up.started", Unknown, "nothing was looked at", |w| {
        w.observed.as_mut().unwrap().services[0].state = Known::default()
    }),
    Case("up.serving", Fail, "/health says 503", |w| serving(w, 503, MODEL, "")),
    Case("up.serving", Fail, "it serves other", |w| serving(w, 200, "other", "")),
    Case("up.serving", Fail, "still fetching", |w| serving(w, 503, MODEL, "Downloading shards: 40%")),
    Case("up.serving", Fail, "which is not decided", |w| {
        serving(w, 503, MODEL, "torch.OutOfMemoryError: CUDA out of memory.")
    }),
    Case("up.serving", Unknown, "nothing was looked at", |w| {
        w.observed.as_mut().unwrap().serving = Known::default()
    }),
    Case("up.exposed", Fail, "was not meant", |w| {
        exposure(w).bound[0].address = IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }),
    Case("up.exposed", Fail, "shows a secret", |w| {
        exposure(w).leaks.push("variable `X` holds `HF_TOKEN`".into())
    }),
    Case("up.exposed", Unknown, "nothing was looked at", |w| {
        w.observed.as_mut().unwrap().services[0].exposure = Known::default()
    }),
    Case("up.agent", Fail, "not ready (503): not registered", |w| {
        let agent = crate::check::up::Agent { ready: Some(503), reason: Some("not registered".into()) };
        w.observed.as_mut().unwrap().agent = Some(Known::Ok(agent));
    }),
    Case("up.agent", NotApplicable, "no agent", |w| w.observed.as_mut().unwrap().agent = None),
    Case("up.agent", Unknown, "nothing was looked at", |w| {
        w.observed.as_mut().unwrap().agent = Some(Known::default())
    }),
];

#[test]
fn every_check_passes_on_a_healthy_host() {
    let world = world();
    for check in registry() {
        let finding = world.finding(check.id);
        assert_eq!(finding.outcome, Pass, "{}: {} {:?}", check.id, finding.because, finding.evidence);
        assert!(!finding.evidence.is_empty(), "{}", check.id);
        assert_eq!(finding.next, None, "{}", check.id);
    }
}

#[test]
fn broken_unseen_and_repaired() {
    for Case(id, outcome, says, change) in cases() {
        let healthy = world();
        let mut broken = healthy.clone();
        change(&mut broken);
        let finding = broken.finding(id);
        assert_eq!(finding.outcome, *outcome, "{id} ({says}): {} {:?}", finding.because, finding.evidence);
        assert!(finding.because.contains(says), "{id}: `{}` lacks `{says}`", finding.because);
        let wants_next = matches!(outcome, Fail | Warn | Unknown);
        assert_eq!(finding.next.is_some(), wants_next, "{id}: {:?}", finding.next);
        assert_eq!(healthy.finding(id).outcome, Pass, "{id}: repaired");
    }
}

#[test]
fn every_check_has_a_way_to_fail_and_to_be_unknown() {
    for check in registry() {
        let cases = || cases().filter(|case| case.0 == check.id);
        // One that is advisory says at most a warning.
        let bad = if check.weight == Weight::Advisory { Warn } else { Fail };
        assert!(cases().any(|case| case.1 == bad), "{}", check.id);
        // The lock is an input, not an observation: it is there or not.
        assert!(check.id == "image.locked" || cases().any(|case| case.1 == Unknown), "{}", check.id);
    }
}

#[test]
fn a_one_shot_that_ended_well_counts_as_started() {
    let mut world = world();
    exit(&mut world, 0, "");
    assert_eq!(world.finding("up.started").outcome, Fail);
    world.observed.as_mut().unwrap().services[0].done = true;
    assert_eq!(world.finding("up.started").outcome, Pass);
}

#[test]
fn what_is_missing_comes_from_the_lock_or_by_hand() {
    let cases: [(&str, &str, &str, Change); 5] = [
        ("docker.daemon", "bedplate toolkit install", "apt-get install docker.io", |w| {
            engine_of(w).root = "/var/snap/docker/common/var-lib-docker".into()
        }),
        ("docker.daemon", "bedplate toolkit install", "install Docker 25", |w| {
            engine_of(w).version = "20.10.24".into()
        }),
        ("gpu.module", "bedplate provision", "install the driver package", |w| {
            w.facts.module = Known::Ok(Module::default())
        }),
        ("gpu.version-match", "bedplate provision", "`libnvidia-ml1`", |w| {
            w.facts.nvml = Known::Ok(Nvml::NoLibrary("not found".into()))
        }),
        ("image.cuda", "bedplate provision", "install a newer driver", old_driver),
    ];
    for (id, locked, by_hand, change) in cases {
        let mut world = world();
        change(&mut world);
        let next = world.finding(id).next.unwrap();
        assert!(next.contains(locked) && !next.contains(by_hand), "{id}: {next}");
        world.profile.host.pin_packages = false;
        let next = world.finding(id).next.unwrap();
        assert!(next.contains(by_hand) && !next.contains(locked), "{id}: {next}");
    }
}
