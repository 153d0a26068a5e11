//! The host itself as a tree on disk: time service, limits, packages, device links, tokens in files. Gathered by the real
//! code, broken one by one, and with every source taken away.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bedplate::{
    check::{judge_only, registry},
    host::facts::{Facts, Known, Sources, gather},
    lock::{Lock, LockedPackage},
    system::files::Root,
};
use tempfile::TempDir;

use super::*;

const TOKEN: &str = "hf_QzWx8EdCr5FvTgB2yHnUj7MiKoLpA9s4";

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
    Max open files            1024                 524288               files     \n\
    Max locked memory         8388608              8388608              bytes     \n";

fn package(name: &str, state: &str) -> String {
    format!("Package: {name}\nStatus: {state} ok installed\nArchitecture: amd64\nVersion: 1.17.8-1\n\n")
}

fn host() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let unit = |name: &str| format!("/sys/fs/cgroup/system.slice/{name}.service/cgroup.procs");
    write(root, &unit("systemd-timesyncd"), "301\n");
    write(root, "/proc/301/comm", "systemd-timesyn\n");
    write(root, "/run/systemd/timesync/synchronized", "");
    write(root, &unit("containerd"), "812\n900\n");
    write(root, "/proc/812/comm", "containerd\n");
    write(root, "/proc/812/limits", LIMITS);
    write(root, "/proc/900/comm", "containerd-shim\n");
    write(root, "/proc/1/comm", "systemd\n");
    let packages = package("docker.io", "hold") + &package("nvidia-container-toolkit", "install");
    write(root, "/var/lib/dpkg/status", &(packages + &package("unattended-upgrades", "install")));
    write(root, "/etc/apt/apt.conf.d/20auto-upgrades", "APT::Periodic::Unattended-Upgrade \"1\";\n");
    write(root, "/etc/apt/apt.conf.d/90off.disabled", "APT::Periodic::Unattended-Upgrade \"0\";\n");
    write(
        root,
        "/etc/nvidia-container-runtime/config.toml",
        "[nvidia-container-runtime]\nmode = \"legacy\"\n",
    );
    write(root, "/dev/nvidia0", "");
    write(root, "/dev/nvidiactl", "");
    std::fs::create_dir(root.join("dev/char")).unwrap();
    symlink("../nvidia0", root.join("dev/char/195:0")).unwrap();
    write(root, "/etc/docker/daemon.json", "{\"features\": {\"cdi\": true}}");
    write(root, "/home/miner/.profile", "umask 022\n");
    directory
}

fn lock() -> Lock {
    let package = |name: &str| LockedPackage {
        repository: "debian".into(),
        name: name.into(),
        version: "1.17.8-1".into(),
        architecture: "amd64".into(),
        sha256: bedplate::digest::Digest::of(name),
        size: 1,
        path: format!("pool/{name}.deb"),
        depends: Vec::new(),
        wanted_by: vec!["host".into()],
    };
    Lock { packages: vec![package("docker.io"), package("nvidia-container-toolkit")], ..Lock::default() }
}

async fn look(root: &Path) -> (Facts, impl Fn(&str) -> Finding) {
    let mut sources = Sources::of(Arc::new(Root::open(root).unwrap()));
    sources.docker_socket = root.join("docker.sock").display().to_string();
    sources.nvml_library = Some(root.join("none.so"));
    sources.limit = Duration::from_secs(5);
    sources.network_limit = Duration::from_millis(500);
    let (profile, lock) = (profile(), lock());
    let subject = |profile| {
        Subject::new("host", profile, Some(bedplate::check::Locked { lock: &lock, stale: None }), Vec::new())
            .unwrap()
    };
    let facts = gather(&subject(&profile).wanted, &sources).await;
    let findings: Vec<Finding> = registry()
        .iter()
        .flat_map(|check| judge_only(&[check.id], &subject(&profile), &facts).findings)
        .collect();
    (facts, move |id: &str| findings.iter().find(|finding| finding.id == id).unwrap().clone())
}

#[tokio::test]
async fn what_a_host_is_set_up_like_is_read_from_its_files() {
    let host = host();
    let (facts, finding) = look(host.path()).await;
    let clock = facts.clock.ok().unwrap();
    assert_eq!((clock.services.len(), clock.in_step), (1, Some(true)), "{clock:?}");
    assert_eq!(finding("host.clock").outcome, Outcome::Pass);
    let limits = facts.limits.ok().unwrap().as_ref().unwrap();
    assert_eq!(
        (limits.of.as_str(), limits.open_files, limits.locked),
        ("`containerd`", Some(524_288), Some(8 << 20))
    );
    let upgrades = facts.upgrades.ok().unwrap();
    assert_eq!((upgrades.off.as_deref(), upgrades.installed), (None, 2));
    assert_eq!(upgrades.free.iter().collect::<Vec<_>>(), ["nvidia-container-toolkit"]);
    let upgrades = finding("host.unattended-upgrades");
    assert_eq!(upgrades.outcome, Outcome::Warn);
    assert!(upgrades.next.unwrap().contains("apt-mark hold nvidia-container-toolkit"));
    let toolkit = facts.toolkit.ok().unwrap();
    assert_eq!((toolkit.version.as_deref(), toolkit.mode.as_deref()), (Some("1.17.8-1"), Some("legacy")));
    let links = facts.device_links.ok().unwrap();
    assert_eq!(links.nodes.len(), 2);
    assert_eq!(links.missing.iter().collect::<Vec<_>>(), ["nvidiactl"]);
    assert_eq!(facts.daemon_keys.ok().unwrap()["/features/cdi"], "true");
    let leaks = facts.leaks.ok().unwrap();
    assert_eq!((leaks.files, leaks.found.len(), leaks.unseen.len()), (1, 0, 0), "{leaks:?}");
    assert_eq!(finding("secret.leaks").outcome, Outcome::Pass);
    let volume = facts.volumes["/"].ok().unwrap();
    assert!(volume.total > 0 && !volume.kind.is_empty(), "{volume:?}");
}

#[tokio::test]
async fn a_token_is_found_where_people_put_it_and_nowhere_shown() {
    let host = host();
    let root = host.path();
    write(
        root,
        "/home/miner/work/stack/compose.yaml",
        &format!("services:\n  a:\n    environment:\n      HF_TOKEN: {TOKEN}\n"),
    );
    write(root, "/root/.env", &format!("# the hub\nHF_TOKEN={TOKEN}\n"));
    // None of these: too deep, by a program, an example, another kind of file, behind a link.
    write(root, "/home/miner/a/b/c/d/e/.env", &format!("HF_TOKEN={TOKEN}\n"));
    write(root, "/home/miner/.cache/x.yaml", &format!("HF_TOKEN: {TOKEN}\n"));
    write(root, "/home/miner/.env.example", &format!("HF_TOKEN={TOKEN}\n"));
    write(root, "/home/miner/notes.txt", TOKEN);
    symlink("/root", root.join("home/miner/linked")).unwrap();
    symlink("/root/.env", root.join("home/miner/.env")).unwrap();
    let (facts, finding) = look(root).await;
    let found: Vec<String> =
        facts.leaks.ok().unwrap().found.iter().map(|leak| format!("{}:{}", leak.path, leak.line)).collect();
    assert_eq!(found, ["/root/.env:2", "/home/miner/work/stack/compose.yaml:4"]);
    let leaks = finding("secret.leaks");
    assert_eq!(leaks.outcome, Outcome::Fail);
    assert!(!format!("{leaks:?} {:?}", facts.leaks).contains(TOKEN));
}

#[tokio::test]
async fn what_is_broken_is_seen_and_what_cannot_be_read_is_unknown() {
    let host = host();
    let root = host.path();
    std::fs::remove_file(root.join("run/systemd/timesync/synchronized")).unwrap();
    write(
        root,
        "/etc/docker/daemon.json",
        "{\"default-ulimits\": {\"nofile\": {\"Hard\": 4096}, \"memlock\": {\"Hard\": -1}}}",
    );
    symlink("/dev/null", {
        std::fs::create_dir_all(root.join("etc/systemd/system")).unwrap();
        root.join("etc/systemd/system/apt-daily-upgrade.timer")
    })
    .unwrap();
    let (facts, finding) = look(root).await;
    let clock = finding("host.clock");
    assert_eq!(clock.outcome, Outcome::Unknown, "{clock:?}");
    assert!(clock.because.contains("has reached no source"), "{clock:?}");
    let limits = facts.limits.ok().unwrap().as_ref().unwrap();
    assert_eq!((limits.open_files, limits.locked), (Some(4096), None));
    assert_eq!(finding("host.unattended-upgrades").outcome, Outcome::Pass);
    assert_eq!(finding("host.limits").outcome, Outcome::Fail);

    std::fs::remove_dir_all(root.join("sys/fs/cgroup")).unwrap();
    let (facts, _) = look(root).await;
    // Without control groups the processes are looked through.
    assert_eq!(facts.clock.ok().unwrap().services.len(), 1);
    assert!(facts.limits.ok().unwrap().is_some());
    std::fs::remove_dir_all(root.join("proc")).unwrap();
    std::fs::remove_file(root.join("var/lib/dpkg/status")).unwrap();
    write(root, "/etc/docker/daemon.json", "{ not JSON");
    let (facts, finding) = look(root).await;
    for id in ["host.clock", "host.limits", "host.unattended-upgrades", "docker.live-restore"] {
        assert_eq!(finding(id).outcome, Outcome::Unknown, "{id}: {:?}", finding(id));
    }
    assert!(matches!(facts.toolkit, Known::Unknown { .. }));
}

#[tokio::test]
async fn with_every_source_taken_away_nothing_of_the_host_passes() {
    let empty = tempfile::tempdir().unwrap();
    std::fs::set_permissions(empty.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let (_, finding) = look(empty.path()).await;
    for check in registry() {
        let found = finding(check.id);
        // Room is where the tree itself lies, sockets are the kernel's, the lock was given.
        let seen = ["host.disk", "host.inodes", "net.exposed", "image.locked"].contains(&check.id);
        assert!(seen || found.outcome != Outcome::Pass, "{found:?}");
        assert!(!found.because.is_empty(), "{found:?}");
    }
}
