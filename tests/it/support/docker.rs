//! A Docker daemon of the test's own: its own data, socket and processes, nothing shared with the host's. Needs root
//! and Debian's `docker.io`.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use bedplate::{
    digest::Digest,
    docker::{Docker, LayoutImage, archive_from_layout},
    error::Error,
    lock::{ImageFacts, LockedImage, Verdict, VerdictOutcome},
};
use serde_json::json;

/// Whose turn it is.
static TURN: LazyLock<Arc<tokio::sync::Mutex<()>>> = LazyLock::new(Arc::default);

/// A running daemon; it and all its containers end when this is dropped.
pub(crate) struct Dockerd {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    /// One daemon at a time: two would give their networks the same addresses.
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Dockerd {
    /// Starts a daemon and waits until it answers.
    pub(crate) async fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "the tests of a Docker daemon need root");
        let turn = TURN.clone().lock_owned().await;
        let mut dockerd = Self { _turn: turn, directory: tempfile::tempdir().unwrap(), daemon: None };
        dockerd.launch().await;
        dockerd
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> String {
        self.path("docker.sock").to_str().unwrap().to_owned()
    }

    pub(crate) async fn connect(&self) -> Docker {
        Docker::connect(&self.socket()).await.unwrap()
    }

    /// Kills the daemon and every container, as a power cut does, and starts the daemon again.
    pub(crate) async fn power_cut(&mut self) {
        let shims = self.descendants();
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        for pid in shims {
            end(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(300));
        let _ = std::fs::remove_dir_all(self.path("exec"));
        let _ = std::fs::remove_file(self.path("pid"));
        self.launch().await;
    }

    async fn launch(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new("dockerd")
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .arg("-H")
            .arg(format!("unix://{}", self.socket()))
            // Networks of deployments are their own; the default bridge is another daemon's perhaps.
            .args(["--bridge", "none", "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("`dockerd` of the package docker.io");
        self.daemon = Some(child);
        let begun = Instant::now();
        loop {
            if Docker::connect(&self.socket()).await.is_ok() {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "dockerd does not answer:\n{}",
                std::fs::read_to_string(self.path("log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Processes that name our directory: containerd, its shims, and through them the containers.
    fn descendants(&self) -> Vec<i32> {
        let mark = self.directory.path().to_str().unwrap().to_owned();
        let own = i32::try_from(std::process::id()).unwrap();
        let mut found: Vec<i32> = Vec::new();
        let processes: Vec<(i32, i32, String)> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter_map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
                Some((pid, parent, String::from_utf8_lossy(&line).into_owned()))
            })
            .collect();
        for (pid, _, line) in &processes {
            if line.contains(&mark) && *pid != own {
                found.push(*pid);
            }
        }
        loop {
            let more: Vec<i32> = processes
                .iter()
                .filter(|(pid, parent, _)| found.contains(parent) && !found.contains(pid))
                .map(|(pid, ..)| *pid)
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Bridges outlive the daemon: they go while it lives.
        let socket = self.socket();
        let cleaned = std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let docker = Docker::connect(&socket).await?;
                let mut bridges = Vec::new();
                let listed = docker.list_by_label("bedplate.deployment").await?;
                for listed in &listed {
                    if let Some(found) = docker.inspect(&listed.id).await? {
                        bridges.extend(bridges_of(&found.shown));
                    }
                    docker.remove(&listed.id).await?;
                }
                for listed in &listed {
                    docker
                        .remove_network(&format!("bedplate-{}", listed.labels["bedplate.deployment"]))
                        .await?;
                }
                // A daemon that was killed forgets to take its bridge away.
                for bridge in bridges {
                    let _ =
                        Command::new("ip").args(["link", "delete", &bridge]).stderr(Stdio::null()).status();
                }
                Ok::<(), bedplate::error::Error>(())
            })
        });
        let _ = cleaned.join();
        let ours = self.descendants();
        if let Some(mut daemon) = self.daemon.take() {
            end(i32::try_from(daemon.id()).unwrap(), rustix::process::Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) && daemon.try_wait().ok().flatten().is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for pid in ours.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            end(pid, rustix::process::Signal::KILL);
        }
        // What is still mounted beneath would keep the directory.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mark = self.directory.path().to_str().unwrap();
        let mut points: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|at| at.starts_with(mark))
            .collect();
        points.reverse();
        for point in points {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Names of the bridges that a container's networks have on the host.
fn bridges_of(shown: &str) -> Vec<String> {
    let shown: serde_json::Value = serde_json::from_str(shown).unwrap_or_default();
    let networks = shown["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let ids =
        networks.values().filter_map(|network| network["NetworkID"].as_str()?.get(..12).map(str::to_owned));
    ids.map(|id| format!("br-{id}")).collect()
}

fn end(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Makes an image of these files (path, mode, content) and has the daemon load it, as `bedplate/NAME:g1`. What a lock says
/// of it. `name`: the lock's name, and the reference.
pub(crate) async fn load(
    docker: &Docker,
    (name, reference): (&str, &str),
    files: &[(&str, u32, &[u8])],
    entrypoint: &[&str],
    user: &str,
) -> LockedImage {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        layer.append_data(&mut header, path, *content).unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        // As first process it would not hear a SIGTERM it has no handler for.
        "config": {"Entrypoint": entrypoint, "User": user, "StopSignal": "SIGKILL"},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    })
    .to_string()
    .into_bytes();
    let descriptor = |kind: &str, blob: &[u8]| {
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::of(blob).to_string(), "size": blob.len()})
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config), "layers": [descriptor("layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let locked = LockedImage {
        reference: reference.to_owned(),
        platform: "linux/amd64".into(),
        index: None,
        manifest: Digest::of(&manifest),
        config: Digest::of(&config),
        download: layer.len() as u64,
        layers: vec![Digest::of(&layer)],
        facts: ImageFacts {
            entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
            ..ImageFacts::default()
        },
        verdict: Verdict { outcome: VerdictOutcome::NotApplicable, because: String::new() },
    };
    let blobs: BTreeMap<Digest, Vec<u8>> =
        [config, layer].into_iter().map(|blob| (Digest::of(&blob), blob)).collect();
    let open = move |digest: &Digest| {
        let blob = blobs.get(digest).cloned().ok_or_else(|| Error::failed("no such blob"))?;
        Ok(Box::new(Cursor::new(blob)) as Box<dyn Read + Send>)
    };
    let image = LayoutImage { manifest, tag: format!("bedplate/{name}:g1") };
    docker.load(archive_from_layout(&image, open).unwrap()).await.unwrap();
    locked
}
