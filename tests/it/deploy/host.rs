//! A host for the tests: a daemon, directories of its own, and two images loaded from a layout made here.

use std::{collections::BTreeMap, path::Path, process::Command};

use bedplate::{
    deploy::{self, Context, Done, Options, Paths, Wanted},
    docker::Docker,
    error::Result,
    lock::Lock,
    profile::{self, Profile},
    progress::Silent,
    system::files::Root,
};
use secrecy::SecretString;

use crate::support::docker::{Dockerd, load};

pub(super) const PROFILE: &str = r#"
schema = 1
[host]
distribution = "debian"
release = "trixie"
architecture = "amd64"
pin-packages = false
[driver]
flavor = "none"
[container]
engine = "docker"
gpu-access = "none"
[images]
vllm = "registry.example/engine:1.0"
agent = "registry.example/agent:1.0"
[secrets]
API = { env = "API" }
HF_TOKEN = { env = "HF_TOKEN" }
MINER_TOKEN = { env = "MINER_TOKEN" }
MINER_API_KEY = { env = "MINER_API_KEY" }
"#;

pub(super) struct Host {
    pub(super) dockerd: Dockerd,
    pub(super) docker: Docker,
    pub(super) root: Root,
    pub(super) paths: Paths,
    pub(super) profile: Profile,
    pub(super) lock: Lock,
    pub(super) secrets: BTreeMap<String, SecretString>,
    /// On tmpfs: what `/run` is on a host.
    pub(super) run: tempfile::TempDir,
    pub(super) state: tempfile::TempDir,
}

impl Host {
    pub(super) async fn new() -> Self {
        let dockerd = Dockerd::start().await;
        let docker = dockerd.connect().await;
        let run = tempfile::tempdir_in("/dev/shm").unwrap();
        let state = tempfile::tempdir().unwrap();
        let path = |dir: &tempfile::TempDir, name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let paths = Paths {
            launch: path(&run, "launch"),
            secrets: path(&run, "deployments"),
            lock: path(&run, "lock"),
            state: path(&state, "deployments"),
        };
        let server = compile(state.path());
        let mut images = BTreeMap::new();
        // The engine runs as an account that only its image knows.
        for (name, role, user) in [("vllm", "engine", "app"), ("agent", "agent", "")] {
            let reference = format!("registry.example/{}:1.0", if name == "vllm" { "engine" } else { name });
            let files: [(&str, u32, &[u8]); 2] = [
                ("server", 0o755, &server),
                ("etc/passwd", 0o644, b"root:x:0:0::/:/none\napp:x:4711:4712::/:/none\n"),
            ];
            let image = load(&docker, (name, &reference), &files, &["/server", role], user).await;
            images.insert(name.to_owned(), image);
        }
        let value = |text: &str| SecretString::from(text);
        let secrets = BTreeMap::from([
            ("API".to_owned(), value("engine-key-0123456789")),
            ("MINER_TOKEN".to_owned(), value("miner-token-0123456789")),
            ("MINER_API_KEY".to_owned(), value("miner-key-\"0123456789")),
        ]);
        Self {
            docker,
            dockerd,
            root: Root::open(Path::new("/")).unwrap(),
            paths,
            profile: profile::parse("test.toml", PROFILE).unwrap(),
            lock: Lock { images, ..Lock::default() },
            secrets,
            run,
            state,
        }
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { docker: &self.docker, root: &self.root, paths: &self.paths, progress: &Silent }
    }

    pub(super) async fn up(&self, text: &str, options: Options) -> Result<Done> {
        let parsed = profile::deployment::parse("demo.yaml", text).unwrap();
        let wanted = Wanted {
            deployment: &parsed.deployment,
            text,
            profile: &self.profile,
            lock: &self.lock,
            generation: 1,
            secrets: &self.secrets,
        };
        deploy::up(self.context(), wanted, options).await
    }

    pub(super) async fn id(&self, container: &str) -> String {
        self.docker.inspect(container).await.unwrap().expect("it is there").id
    }

    /// The environment of a container's first process, as root sees it.
    pub(super) async fn environment(&self, container: &str) -> String {
        let pid = self.docker.inspect(container).await.unwrap().unwrap().state.pid.unwrap();
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap()).replace('\0', "\n")
    }
}

fn compile(directory: &Path) -> Vec<u8> {
    let output = directory.join("server");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/deploy/server.rs");
    let status = Command::new("rustc")
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=s", "-o"])
        .arg(&output)
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(output).unwrap()
}
