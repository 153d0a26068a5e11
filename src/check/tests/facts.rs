//! A healthy host with eight GPUs, its profile, lock and deployment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::healthy;
use crate::{
    check::{
        Locked, Subject,
        gate::Decision,
        up::{Agent, Bound, ContainerState, Exposure, Observed, ObservedService, Serving},
    },
    digest::Digest,
    host::facts::*,
    lock::{ImageFacts, Lock, LockedImage, PackageSet, Verdict, VerdictOutcome},
    profile::{self, Deployment, Profile},
};

pub(super) const DRIVER: &str = "580.159.04";
pub(super) const MODEL: &str = "Qwen/Qwen2.5-72B-Instruct";
pub(super) const GIB: u64 = 1 << 30;

const PROFILE: &str = r#"
schema = 1

[host]
distribution = "debian"
release = "trixie"
architecture = "amd64"

[gpu]
model = "H100"
count = 8

[driver]
flavor = "open"
version = "580.159.04"

[container]
engine = "docker"
gpu-access = "cdi"

[images]
vllm = "vllm/vllm-openai:v0.11.0"

[[mount]]
path = "/data/minerhome"
mode = "0700"
owner = "root:root"
files = { "config.json" = "0600" }

[secrets]
HF_TOKEN = { env = "HF_TOKEN" }
MINER_TOKEN = { file = "/etc/bedplate/secrets/miner-token" }
VLLM_KEY = { env = "VLLM_KEY" }

[checks]
resolve = ["time.example"]
"#;

const DEPLOYMENT: &str = r#"
name: qwen72b
engine: vllm
model: Qwen/Qwen2.5-72B-Instruct
tensor_parallel: 4
gpu_ids: ["0", "1", "2", "3"]
api_key: secret:VLLM_KEY
miner_client:
  enabled: true
  image: registry.example/miner-agent:0.3.1
  public_ip: 203.0.113.7
  host_port: 8080
  volumes: ["/data/minerhome:/root/.miner", "/dev/shm:/dev/shm"]
"#;

/// Everything a check may look at.
#[derive(Clone)]
pub(super) struct World {
    pub profile: Profile,
    pub lock: Option<Lock>,
    pub stale: Option<String>,
    pub deployments: Vec<Deployment>,
    pub facts: Facts,
    pub observed: Option<Observed>,
    pub gate: Option<Decision>,
    pub hf_token: bool,
    /// Whether containers are asked what they see of the GPUs, and engines loaded in their images.
    pub smoke: bool,
}

impl World {
    pub(super) fn subject(&self) -> Subject<'_> {
        let lock = self.lock.as_ref().map(|lock| Locked { lock, stale: self.stale.clone() });
        let mut subject =
            Subject::new("qwen72b", &self.profile, lock, self.deployments.iter().collect()).unwrap();
        subject.observed = self.observed.as_ref();
        subject.gate = self.gate.as_ref();
        subject.wanted.hf_token = self.hf_token;
        subject.wanted.smoke = self.smoke;
        subject.wanted.thorough = self.smoke;
        subject.wanted.engines = self.smoke;
        subject
    }
}

pub(super) fn profile(text: &str) -> Profile {
    profile::parse("test.toml", text).unwrap()
}

/// The healthy world.
pub(super) fn world() -> World {
    World {
        profile: profile(PROFILE),
        lock: Some(lock()),
        stale: None,
        deployments: vec![profile::deployment::parse("qwen72b.yaml", DEPLOYMENT).unwrap().deployment],
        facts: healthy(),
        observed: Some(observed()),
        gate: Some(Decision::Open {
            because: "all passed".to_owned(),
            evidence: vec!["two readinesses".to_owned()],
        }),
        hf_token: false,
        smoke: true,
    }
}

/// The same road on a host without GPUs.
pub(super) fn without_gpus() -> World {
    let mut world = world();
    let text = PROFILE
        .replace("[gpu]\nmodel = \"H100\"\ncount = 8\n", "")
        .replace("flavor = \"open\"\nversion = \"580.159.04\"", "flavor = \"none\"")
        .replace("gpu-access = \"cdi\"", "gpu-access = \"none\"");
    world.profile = profile(&text);
    for deployment in &mut world.deployments {
        deployment.tensor_parallel = 1;
        deployment.gpu_ids = profile::deployment::GpuIds::All;
    }
    world.facts.pci = Known::unknown("nothing was asked for");
    world.facts.module = Known::unknown("nothing was asked for");
    world.facts.nvml = Known::unknown("nothing was asked for");
    world.facts.cdi = Known::unknown("nothing was asked for");
    world.facts.health.clear();
    world.facts.nodes = Known::unknown("nothing was asked for");
    world.facts.fabric = Known::unknown("nothing was asked for");
    world.facts.kernel_log = Known::unknown("nothing was asked for");
    world
}

fn image(reference: &str, entrypoint: &str, cuda: Option<&str>) -> LockedImage {
    LockedImage {
        reference: reference.to_owned(),
        platform: "linux/amd64".to_owned(),
        index: None,
        manifest: Digest::of(format!("manifest of {reference}")),
        config: Digest::of(format!("config of {reference}")),
        download: 8 * GIB,
        layers: vec![Digest::of("layer")],
        facts: ImageFacts {
            cuda: cuda.map(str::to_owned),
            entrypoint: vec![entrypoint.to_owned()],
            ..ImageFacts::default()
        },
        verdict: Verdict { outcome: VerdictOutcome::Unknown, because: String::new() },
    }
}

fn lock() -> Lock {
    let images = [
        ("vllm", image("docker.io/vllm/vllm-openai:v0.11.0", "vllm", Some("12.8.1"))),
        ("miner-agent", image("registry.example/miner-agent:0.3.1", "agent", None)),
    ];
    Lock {
        images: images.into_iter().map(|(name, image)| (name.to_owned(), image)).collect(),
        set: Some(PackageSet {
            kernel: Some("6.12.57+deb13-amd64".to_owned()),
            toolkit: Some(healthy::TOOLKIT.to_owned()),
            ..PackageSet::default()
        }),
        packages: healthy::packages(),
        ..Lock::default()
    }
}

pub(super) fn gpus(count: u32) -> Gpus {
    Gpus {
        driver: DRIVER.to_owned(),
        cuda: Some("13.0".to_owned()),
        devices: (0..count)
            .map(|index| Device {
                index,
                name: Some("NVIDIA H100 80GB HBM3".to_owned()),
                uuid: Some(format!("GPU-{index:08}")),
                memory: Some(80 * GIB),
                mig: Some(false),
                compute_capability: Some((9, 0)),
                brand: Some("nvidia".to_owned()),
            })
            .collect(),
        lost: Vec::new(),
    }
}

pub(super) fn pci(count: u32) -> Vec<PciDevice> {
    (0..count)
        .map(|index| PciDevice {
            address: format!("0000:{index:02x}:00.0"),
            device: "0x2330".to_owned(),
            driver: Some("nvidia".to_owned()),
        })
        .collect()
}

/// An H100 of a board with switches, at work.
pub(super) fn health(index: u32) -> Health {
    let off = Mode { now: false, next: false };
    Health {
        address: Reading::Value(format!("0000:{index:02x}:00.0")),
        minor: Reading::Value(index),
        persistence: Reading::Value(true),
        ecc: Reading::Value(Mode { now: true, next: true }),
        uncorrected: Reading::Value(Errors { recent: 0, ever: 0 }),
        remaps: Reading::Value(Remaps { corrected: 0, uncorrected: 0, pending: false, failed: false }),
        retired: Reading::NotSupported,
        link_generation: Reading::Value(Of { now: 5, most: 5 }),
        link_width: Reading::Value(Of { now: 16, most: 16 }),
        clocks: Reading::Value(BTreeSet::new()),
        temperature: Reading::Value(38),
        mig: Reading::Value(off),
        instances: Reading::Value(0),
        fabric: Reading::Value(Fabric {
            state: FabricState::Completed,
            status: None,
            complaints: Vec::new(),
        }),
        memory: Reading::Value(MemoryUse { total: 80 * GIB, used: 0 }),
        processes: Reading::Value(Vec::new()),
    }
}

pub(super) fn node(major: u32, minor: u32) -> Node {
    Node { mode: 0o666, ids: (0, 0), number: Some((major, minor)) }
}

pub(super) fn nodes(count: u32) -> DeviceNodes {
    let mut nodes = BTreeMap::from([
        ("/dev/nvidiactl".to_owned(), node(195, 255)),
        ("/dev/nvidia-uvm".to_owned(), node(511, 0)),
    ]);
    nodes.extend((0..count).map(|minor| (format!("/dev/nvidia{minor}"), node(195, minor))));
    DeviceNodes {
        nodes,
        minors: (0..count).collect(),
        mode: Some(0o666),
        majors: keyed([("nvidia", 195), ("nvidia-uvm", 511)]),
    }
}

pub(super) fn fabric() -> FabricManager {
    FabricManager {
        switches: vec!["0000:c1:00.0".to_owned()],
        installed: true,
        version: Some(DRIVER.to_owned()),
        process: Some(901),
    }
}

pub(super) fn shut(mode: u32, directory: bool) -> Known<PathState> {
    Known::Ok(PathState::Present { mode, owner: "root:root".to_owned(), ids: (0, 0), directory })
}

pub(super) fn spec() -> CdiSpec {
    CdiSpec {
        path: "/etc/cdi/nvidia.yaml".to_owned(),
        digest: Digest::of("spec"),
        kind: Some("nvidia.com/gpu".to_owned()),
        devices: BTreeSet::from(["0".to_owned(), "all".to_owned()]),
        versions: BTreeSet::from([DRIVER.to_owned()]),
        missing: BTreeSet::new(),
        broken: None,
    }
}

pub(super) fn engine() -> Engine {
    Engine {
        version: "26.1.5+dfsg1".to_owned(),
        root: "/var/lib/docker".to_owned(),
        storage: "overlay2".to_owned(),
        runtimes: BTreeSet::from(["runc".to_owned()]),
        cdi: Some(true),
        cdi_dirs: vec!["/etc/cdi".to_owned()],
        started: Some("812@4711".to_owned()),
    }
}

pub(super) fn local() -> LocalModel {
    LocalModel {
        path: "/data/huggingface/hub/models--Qwen/snapshots/1".to_owned(),
        complete: true,
        weights: 140 * GIB,
        largest: 4 * GIB,
    }
}

/// The shape of Qwen2.5 72B.
pub(super) fn shape() -> Shape {
    Shape {
        kind: "qwen2".to_owned(),
        layers: Some(80),
        heads: Some(64),
        kept: Kept::Heads { heads: 8, width: 128 },
        longest: Some(32_768),
        dtype: Some("bfloat16".to_owned()),
        ..Shape::default()
    }
}

fn keyed<T, const N: usize>(entries: [(&str, T); N]) -> BTreeMap<String, T> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn healthy() -> Facts {
    let space = |device| Known::Ok(Space { at: "/".to_owned(), total: 4000 * GIB, free: 2000 * GIB, device });
    let on_host = |reference: &str, entrypoint: &str| {
        Known::Ok(Some(Image {
            id: Digest::of(format!("config of {reference}")).to_string(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            size: 20 * GIB,
            entrypoint: vec![entrypoint.to_owned()],
            ..Image::default()
        }))
    };
    let present = || Known::Ok(SecretState::Present("`/run/bedplate/secrets/…`".to_owned()));
    Facts {
        os: Known::Ok(Os {
            id: "debian".to_owned(),
            release: Some("trixie".to_owned()),
            name: "Debian GNU/Linux 13 (trixie)".to_owned(),
        }),
        kernel: Known::Ok(Kernel {
            system: "Linux".to_owned(),
            release: "6.12.57+deb13-amd64".to_owned(),
            machine: "x86_64".to_owned(),
        }),
        boot_id: Known::Ok("b00t".to_owned()),
        memory: Known::Ok(Memory { total: 1000 * GIB, available: 900 * GIB }),
        shm: healthy::shm(),
        space: keyed([("/var/lib/docker", space(1)), ("/data/huggingface", space(2))]),
        names: keyed([(
            "time.example",
            Known::Ok(Resolution::Addresses(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])),
        )]),
        listeners: Known::Ok(vec![Listener {
            protocol: "tcp".to_owned(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 22,
            process: None,
        }]),
        pci: Known::Ok(pci(8)),
        module: Known::Ok(Module { loaded: Some(DRIVER.to_owned()), ..Module::default() }),
        user_space: Known::Ok(Some(DRIVER.to_owned())),
        nvml: Known::Ok(Nvml::Answers(gpus(8))),
        smoke: super::table_smoke::smoke(8),
        smoke_reload: super::table_smoke::reload(8),
        engines: keyed([("qwen72b", super::table_engine::smoke(4))]),
        health: (0..8).map(|index| (index, Known::Ok(health(index)))).collect(),
        nodes: Known::Ok(nodes(8)),
        fabric: Known::Ok(fabric()),
        kernel_log: Known::Ok(KernelLog { reach: 90_000, whole: true, xids: Vec::new(), kills: Vec::new() }),
        at: Known::Ok("2026-11-26T12:00:00Z".parse().unwrap()),
        paths: keyed([
            ("/data/minerhome", shut(0o700, true)),
            ("/data/minerhome/config.json", shut(0o600, false)),
            ("/run/bedplate/secrets", shut(0o700, true)),
            ("/run/bedplate/secrets/HF_TOKEN", shut(0o400, false)),
        ]),
        parents: keyed(["/", "/data", "/run", "/run/bedplate"].map(|path| (path, shut(0o755, true)))),
        published: Known::Ok(Vec::new()),
        secrets: keyed([
            ("HF_TOKEN", present()),
            ("VLLM_KEY", present()),
            ("MINER_TOKEN", present()),
            ("MINER_API_KEY", Known::Ok(SecretState::Absent("not given".to_owned()))),
            ("MINER_VLLM_API_KEY", Known::Ok(SecretState::Absent("not given".to_owned()))),
        ]),
        docker_config: Known::Ok(None),
        daemon_json: Known::Ok(Some(DaemonJson { cdi: Some(true), ..DaemonJson::default() })),
        docker: Known::Ok(Docker::Answers(engine())),
        images: keyed([
            ("vllm", on_host("docker.io/vllm/vllm-openai:v0.11.0", "vllm")),
            ("miner-agent", on_host("registry.example/miner-agent:0.3.1", "agent")),
        ]),
        containers: Known::Ok(Vec::new()),
        cdi: Known::Ok(vec![spec()]),
        caches: keyed([("/data/huggingface", Known::Ok(Cache { exists: true, writable: true, why: None }))]),
        models: keyed([(
            "qwen72b",
            Model {
                local: Known::Ok(Some(local())),
                hub: Known::unknown("nothing must be asked of the hub"),
                shape: Known::Ok(shape()),
                weights: Known::Ok(140 * GIB),
            },
        )]),
        ..healthy::host()
    }
}

fn observed() -> Observed {
    let bound = |port| vec![Bound { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port }];
    let service = |name: &str, port: u16| ObservedService {
        name: name.to_owned(),
        container: name.to_owned(),
        done: false,
        state: Known::Ok(ContainerState { running: true, ..ContainerState::default() }),
        exposure: Known::Ok(Exposure { wanted: bound(port), bound: bound(port), leaks: Vec::new() }),
    };
    Observed {
        deployment: "qwen72b".to_owned(),
        services: vec![service("qwen72b", 8000), service("miner-client", 8080)],
        serving: Known::Ok(Serving {
            url: "http://127.0.0.1:8000".to_owned(),
            health: Some(200),
            models: vec![MODEL.to_owned()],
            model: MODEL.to_owned(),
            waited: 40,
            last_lines: Vec::new(),
        }),
        agent: Some(Known::Ok(Agent { ready: Some(200), reason: None })),
    }
}
