//! Rows of the table: the host itself, tokens in files, and how Docker is set up.

#![allow(clippy::semicolon_if_nothing_returned)]

use super::{facts::*, table::Case, *};
use crate::{
    host::facts::*,
    profile::{ContainerEngine, GpuAccess},
};

use Outcome::{Fail, NotApplicable, Pass, Unknown, Warn};

fn daemon(w: &mut World, key: &str, value: &str) {
    w.profile.container.daemon.insert(key.to_owned(), value.into());
}

fn details(w: &mut World) -> &mut EngineDetails {
    match &mut w.facts.engine {
        Known::Ok(details) => details,
        Known::Unknown { .. } => panic!("no details"),
    }
}

fn volume<'w>(w: &'w mut World, path: &str) -> &'w mut Volume {
    match w.facts.volumes.get_mut(path) {
        Some(Known::Ok(volume)) => volume,
        _ => panic!("no volume"),
    }
}

fn by_runtime(w: &mut World, mode: &str, version: &str) {
    w.profile.container.gpu_access = GpuAccess::NvidiaRuntime;
    w.facts.toolkit = Known::Ok(VendorToolkit {
        version: Some(version.to_owned()),
        mode: Some(mode.to_owned()),
        broken: false,
    });
}

fn unlinked(w: &mut World) {
    details(w).runc = Some("1.1.5+ds1-1".to_owned());
    edit!(w.facts.device_links, links => links.missing = ["nvidia0".to_owned()].into());
}

fn upgrades_on(w: &mut World) {
    edit!(w.facts.upgrades, upgrades => upgrades.off = None);
}

pub(super) const CASES: &[Case] = &[
    Case(
        "host.clock",
        Fail,
        "the clock is 6.2 s off, at most 5 s",
        |w| edit!(w.facts.clock, c => c.off = Some(6251)),
    ),
    Case("host.clock", Pass, "follows a source", |w| {
        w.profile.checks.clock_seconds = Some(10);
        edit!(w.facts.clock, c => c.off = Some(6251));
    }),
    Case("host.clock", Fail, "no time service runs", |w| w.facts.clock = Known::Ok(Clock::default())),
    Case("host.clock", Pass, "follows a source", |w| edit!(w.facts.clock, c => c.services.clear())),
    Case("host.clock", Unknown, "chronyd runs and has reached no source", |w| {
        edit!(w.facts.clock, c => c.in_step = Some(false));
    }),
    Case("host.clock", Unknown, "nobody says whether it follows a source", |w| {
        edit!(w.facts.clock, c => c.in_step = None);
    }),
    Case("host.clock", Unknown, "hidepid", |w| w.facts.clock = Known::unknown("hidepid")),
    Case("host.inodes", Fail, "`/var/lib/docker` has 1 % of its 1000000 inodes free, 5 % are wanted", |w| {
        volume(w, "/var/lib/docker").inodes_free = 10_000;
    }),
    Case("host.inodes", Pass, "enough", |w| {
        w.profile.checks.inodes_free_percent = Some(1);
        volume(w, "/var/lib/docker").inodes_free = 10_000;
    }),
    Case("host.inodes", Pass, "enough", |w| volume(w, "/data/huggingface").inodes = 0),
    Case("host.inodes", NotApplicable, "counts inodes", |w| {
        volume(w, "/data/huggingface").inodes = 0;
        volume(w, "/var/lib/docker").inodes = 0;
    }),
    Case("host.inodes", Unknown, "nothing was looked at", |w| w.facts.volumes.clear()),
    Case("host.shm", Fail, "`/dev/shm` has 1.0 GiB", |w| edit!(w.facts.shm, s => s.total = GIB)),
    Case("host.shm", Fail, "is not there", |w| edit!(w.facts.shm, s => s.at = "/dev".into())),
    Case("host.shm", Fail, "600.0 GiB are wanted", |w| {
        w.deployments.clear();
        w.profile.checks.shm_gib = Some(600);
    }),
    Case("host.shm", Pass, "500.0 GiB wanted", |w| w.profile.checks.shm_gib = Some(500)),
    Case("host.shm", Unknown, "no /dev", |w| w.facts.shm = Known::unknown("no /dev")),
    Case("host.shm", NotApplicable, "no container shares", |w| w.deployments.clear()),
    Case("host.limits", Fail, "may open 1024 files, 65536 are wanted", |w| {
        edit!(w.facts.limits, l => if let Some(l) = l { l.open_files = Some(1024) });
    }),
    Case("host.limits", Fail, "may lock 8.0 MiB, 64.0 MiB are wanted", |w| {
        w.profile.checks.memlock_mib = Some(64);
        edit!(w.facts.limits, l => if let Some(l) = l { l.locked = Some(8 << 20) });
    }),
    Case("host.limits", Pass, "as much as an engine needs", |w| {
        edit!(w.facts.limits, l => if let Some(l) = l { l.locked = Some(8 << 20) });
    }),
    Case("host.limits", Warn, "RDMA devices", |w| {
        edit!(w.facts.limits, l => if let Some(l) = l { (l.locked, l.rdma) = (Some(8 << 20), true) });
    }),
    Case("host.limits", Unknown, "cannot be seen", |w| w.facts.limits = Known::Ok(None)),
    Case("host.limits", Unknown, "hidepid", |w| w.facts.limits = Known::unknown("hidepid")),
    Case("host.limits", NotApplicable, "no container engine runs", |w| {
        w.facts.limits = Known::Ok(None);
        w.facts.docker = Known::unknown("no socket");
    }),
    Case("host.limits", NotApplicable, "asks for no container engine", |w| {
        w.profile.container.engine = ContainerEngine::None;
    }),
    Case("host.unattended-upgrades", Warn, "may change 1 locked packages, such as `docker.io`", upgrades_on),
    Case("host.unattended-upgrades", Pass, "every locked package is held", |w| {
        upgrades_on(w);
        edit!(w.facts.upgrades, u => u.free.clear());
    }),
    Case("host.unattended-upgrades", NotApplicable, "none of the locked packages is installed", |w| {
        upgrades_on(w);
        edit!(w.facts.upgrades, u => (u.installed, u.free) = (0, [].into()));
    }),
    Case("host.unattended-upgrades", Unknown, "no database", |w| {
        w.facts.upgrades = Known::unknown("no database")
    }),
    Case("host.unattended-upgrades", NotApplicable, "no packages are locked", |w| {
        w.lock.as_mut().unwrap().packages.clear();
    }),
    Case("secret.leaks", Fail, "`/home/miner/.env`, line 3, holds the value of `HF_TOKEN`", |w| {
        let leak = Leak { path: "/home/miner/.env".into(), line: 3, what: "the value of `HF_TOKEN`".into() };
        edit!(w.facts.leaks, l => l.found.push(leak));
    }),
    Case("secret.leaks", Unknown, "more below `/home`", |w| {
        edit!(w.facts.leaks, l => l.unfinished.push("/home".into()));
    }),
    Case("secret.leaks", Unknown, "`/srv/stacks`: nothing was looked at", |w| {
        w.profile.checks.leak_paths = Some(vec!["/home".into(), "/srv/stacks".into()]);
    }),
    Case("secret.leaks", Unknown, "permission denied", |w| {
        edit!(w.facts.leaks, l => l.unseen.push("`/root`: permission denied".into()));
    }),
    Case("secret.leaks", Unknown, "did not answer", |w| w.facts.leaks = Known::unknown("it did not answer")),
    Case("docker.storage", Fail, "storage driver is vfs", |w| {
        edit!(w.facts.docker, d => if let Docker::Answers(engine) = d { engine.storage = "vfs".into() });
    }),
    Case("docker.storage", Fail, "without `d_type`", |w| details(w).d_type = Some(false)),
    Case("docker.storage", Fail, "lie on nfs", |w| volume(w, "/var/lib/docker").kind = "nfs".into()),
    Case("docker.storage", Fail, "on a disk of 20.0 GiB, the locked images unpacked are 40.0 GiB", |w| {
        volume(w, "/var/lib/docker").total = 20 * GIB;
    }),
    Case("docker.storage", Fail, "the profile wants `/data/docker`", |w| {
        daemon(w, "data-root", "/data/docker")
    }),
    Case("docker.storage", Pass, "fit disk", |w| daemon(w, "data-root", "/var/lib/docker/")),
    Case("docker.storage", Warn, "the disk of `/data/minerhome` is much larger", |w| {
        volume(w, "/var/lib/docker").total = 100 * GIB;
    }),
    Case("docker.storage", Fail, "lie on nfs", |w| {
        details(w).containerd_store = true;
        let mut far = volume(w, "/var/lib/docker").clone();
        far.kind = "nfs".into();
        w.facts.volumes.insert("/var/lib/containerd".into(), Known::Ok(far));
    }),
    Case("docker.storage", Unknown, "`/var/lib/containerd`: nothing was looked at", |w| {
        details(w).containerd_store = true;
    }),
    Case("docker.storage", Unknown, "is not known here", |w| {
        edit!(w.facts.docker, d => if let Docker::Answers(engine) = d { engine.storage = "next".into() });
    }),
    Case("docker.storage", Unknown, "nothing was looked at", |w| w.facts.volumes.clear()),
    Case("docker.storage", Unknown, "no answer", |w| w.facts.engine = Known::unknown("no answer")),
    Case("docker.storage", NotApplicable, "no container engine", |w| {
        w.profile.container.engine = ContainerEngine::None
    }),
    Case("docker.cgroup", Fail, "runc 1.1.5+ds1-1, and `/dev/nvidia0` has no link", unlinked),
    Case("docker.cgroup", Pass, "leaves containers their GPUs", |w| details(w).runc = None),
    Case("docker.cgroup", Pass, "systemd does not touch them", |w| {
        unlinked(w);
        details(w).cgroup_driver = Some("cgroupfs".into());
    }),
    Case("docker.cgroup", Fail, "runtime in mode `legacy` gives them past systemd", |w| {
        by_runtime(w, "legacy", "1.18.0-1")
    }),
    Case("docker.cgroup", Fail, "runtime in mode `auto`", |w| by_runtime(w, "auto", "1.17.8-1")),
    Case("docker.cgroup", Pass, "leaves containers their GPUs", |w| by_runtime(w, "auto", "1.18.0-1")),
    Case("docker.cgroup", Pass, "leaves containers their GPUs", |w| by_runtime(w, "cdi", "1.17.8-1")),
    Case("docker.cgroup", Unknown, "is not installed", |w| {
        w.profile.container.gpu_access = GpuAccess::NvidiaRuntime;
        w.facts.toolkit = Known::Ok(VendorToolkit::default());
    }),
    Case("docker.cgroup", Unknown, "does not say", |w| details(w).cgroup_driver = None),
    Case("docker.cgroup", Unknown, "no device node", |w| {
        details(w).runc = None;
        w.facts.device_links = Known::Ok(DeviceLinks::default());
    }),
    Case("docker.cgroup", NotApplicable, "no GPUs", |w| w.profile.container.gpu_access = GpuAccess::None),
    Case("docker.live-restore", Warn, "lacks `features.cdi`", |w| w.facts.daemon_keys = Known::Ok([].into())),
    Case("docker.live-restore", Warn, "has false for `features.cdi`, the profile wants true", |w| {
        edit!(w.facts.daemon_keys, k => drop(k.insert("/features/cdi".into(), "false".into())));
    }),
    Case("docker.live-restore", Warn, "live-restore off, its configuration says on", |w| {
        edit!(w.facts.daemon_keys, k => drop(k.insert("/live-restore".into(), "true".into())));
    }),
    Case("docker.live-restore", Pass, "is the profile's", |w| {
        edit!(w.facts.daemon_keys, k => drop(k.insert("/live-restore".into(), "true".into())));
        details(w).live_restore = true;
    }),
    Case("docker.live-restore", Pass, "is the profile's", |w| {
        w.profile.container.daemon.insert("log-opts".into(), serde_json::json!({}));
        edit!(w.facts.daemon_keys, k => drop(k.insert("/log-opts".into(), "{\"max-size\":\"10m\"}".into())));
    }),
    Case("docker.live-restore", NotApplicable, "sets nothing", |w| {
        w.profile.container.gpu_access = GpuAccess::None
    }),
    Case("docker.live-restore", Unknown, "not JSON", |w| w.facts.daemon_keys = Known::unknown("not JSON")),
    Case("toolkit.package", Fail, "is not installed", |w| {
        w.facts.toolkit = Known::Ok(VendorToolkit::default())
    }),
    Case("toolkit.package", Fail, "1.16.2-1 is installed, and 1.17.8-1 is locked", |w| {
        edit!(w.facts.toolkit, t => t.version = Some("1.16.2-1".into()));
    }),
    Case("toolkit.package", Fail, "is installed in part", |w| edit!(w.facts.toolkit, t => t.broken = true)),
    Case("toolkit.package", NotApplicable, "no toolkit is locked", |w| {
        w.lock.as_mut().unwrap().set.as_mut().unwrap().toolkit = None;
    }),
    Case("toolkit.package", Pass, "`nvidia-container-toolkit` 1.17.8-1", |w| {
        w.profile.container.gpu_access = GpuAccess::NvidiaRuntime;
        w.lock = None;
    }),
    Case("toolkit.package", Unknown, "no database", |w| w.facts.toolkit = Known::unknown("no database")),
];

#[test]
fn a_clock_without_a_source_does_not_shut_the_gate() {
    let mut world = world();
    edit!(world.facts.clock, clock => clock.in_step = Some(false));
    let finding = world.finding("host.clock");
    assert_eq!((finding.outcome, finding.weight), (Unknown, Weight::Advisory));
    assert!(world.report(&[Layer::Doctor, Layer::Toolkit]).opens_gate());
    // Where nobody could look at all, it does.
    world.facts.clock = Known::unknown("no /proc");
    assert_eq!(world.finding("host.clock").weight, Weight::Required);
    assert!(!world.report(&[Layer::Doctor]).opens_gate());
}

/// Docker is stopped, and so cannot be asked which images it has.
fn silent(free: u64) -> World {
    let mut world = world();
    let away = Away { why: "no socket".to_owned(), next: Some("start it".to_owned()) };
    world.facts.docker = Known::Ok(Docker::Away(away));
    for found in world.facts.images.values_mut() {
        *found = Known::unknown("Docker does not answer");
    }
    for space in world.facts.space.values_mut() {
        edit!(*space, s => s.free = free);
    }
    let address = Resolution::Addresses(vec![std::net::Ipv4Addr::LOCALHOST.into()]);
    world.facts.names.insert("registry-1.docker.io".into(), Known::Ok(address.clone()));
    world.facts.names.insert("registry.example".into(), Known::Ok(address));
    world
}

#[test]
fn what_only_docker_knows_is_no_fault_of_the_host() {
    // Room for all images, for none of them, and not even for what is wanted beside them.
    let mut world = silent(900 * GIB);
    world.profile.checks.disk_free_gib = 10;
    assert_eq!(world.finding("host.disk").outcome, Pass);
    let mut world = silent(11 * GIB);
    world.profile.checks.disk_free_gib = 10;
    let found = world.finding("host.disk");
    assert_eq!((found.outcome, found.weight), (Unknown, Weight::Advisory), "{found:?}");
    assert!(
        found.because.starts_with("Docker cannot be asked which images it has; if it has none: `/"),
        "{found:?}"
    );
    let report = world.report(&[Layer::Doctor, Layer::Toolkit, Layer::Runtime]);
    assert_eq!(report.layer_to_blame(), Some(Layer::Toolkit), "{report:#?}");
    let mut world = silent(9 * GIB);
    world.profile.checks.disk_free_gib = 10;
    assert_eq!(world.finding("host.disk").outcome, Fail);

    // A registry that has to be asked only if an image is not there; and a name that is wanted in any case.
    let refused = || Known::Ok(Resolution::Failed("it does not resolve".into()));
    let mut world = silent(900 * GIB);
    assert_eq!(world.finding("host.dns").outcome, Pass);
    world.facts.names.insert("registry.example".into(), refused());
    let found = world.finding("host.dns");
    assert_eq!((found.outcome, found.weight), (Unknown, Weight::Advisory), "{found:?}");
    world.facts.images.insert("miner-agent".into(), Known::Ok(None));
    assert_eq!(world.finding("host.dns").outcome, Fail);
    let mut world = silent(900 * GIB);
    world.facts.names.insert("time.example".into(), refused());
    assert_eq!(world.finding("host.dns").outcome, Fail);
}
