//! Entries of the registry: the host itself, and how Docker is set up.

use super::{
    engine, machine,
    registry::{Check, advisory, check, on_gpus},
    report::Layer,
    secret,
};

pub(super) const CLOCK: Check = check(
    "host.clock",
    Layer::Doctor,
    machine::clock,
    [
        "which time service runs, whether it follows a source, and how far off it says the clock is (`[checks] clock-seconds`)",
        "signatures and certificates are refused and heartbeats missed where the clock is wrong; where no source of time can be reached it stays unknown, and does not shut the gate",
        "let a time service run (`chrony` in `[host] packages`) and reach a server; `chronyc makestep` sets a clock that is far off",
    ],
);

pub(super) const INODES: Check = check(
    "host.inodes",
    Layer::Doctor,
    machine::inodes,
    [
        "free inodes where Docker keeps images and at each model cache, against `[checks] inodes-free-percent`",
        "a file system without inodes says `no space left` while `df` shows room",
        "remove what has many small files: `du --inodes -xh --max-depth=2 PATH | sort -h | tail`",
    ],
);

pub(super) const SHM: Check = check(
    "host.shm",
    Layer::Doctor,
    machine::shm,
    [
        "size of the host's `/dev/shm`, where a container mounts it or `[checks] shm-gib` asks for it, against `shm_size`",
        "workers of an engine talk through it, and die with a bus error when it is full",
        "`mount -o remount,size=SIZE /dev/shm`, and the same in `/etc/fstab`; or let the container have its own (`shm_size`)",
    ],
);

pub(super) const LIMITS: Check = check(
    "host.limits",
    Layer::Doctor,
    machine::limits,
    [
        "how many files a container may open and how much memory it may lock: of the process that starts containers, or `default-ulimits` of Docker's configuration, against `[checks] open-files` and `memlock-mib`",
        "an engine with many connections and shards stops with `too many open files`; RDMA needs locked memory",
        "set `default-ulimits` under `[container.daemon]` of the profile, then `bedplate provision`",
    ],
);

pub(super) const UPGRADES: Check = advisory(check(
    "host.unattended-upgrades",
    Layer::Doctor,
    machine::upgrades,
    [
        "whether `unattended-upgrades` is installed and on (apt.conf(5), its timer), and which locked packages dpkg does not hold",
        "a driver library or Docker that changes under a running host breaks every new container, at night",
        "`bedplate provision` holds what it locks; or `apt-mark hold PACKAGE`, or `APT::Periodic::Unattended-Upgrade \"0\";`",
    ],
));

pub(super) const LEAKS: Check = check(
    "secret.leaks",
    Layer::Doctor,
    secret::leaks,
    [
        "YAML and `.env` files and shell profiles under `[checks] leak-paths` (home directories, `/etc`'s profiles, `/opt` and `/srv` unless said): lines that hold a token or give one to a variable; never its value",
        "a token in such a file is in every backup and shell, and is copied with it",
        "replace the token where it was issued, name it in `[secrets]`, and write `${NAME}` in the file; `bedplate init --from FILE` moves it",
    ],
);

pub(super) const STORAGE: Check = on(check(
    "docker.storage",
    Layer::Toolkit,
    engine::storage,
    [
        "Docker's storage driver, the file system under its data, and whether that is the disk it should be: `data-root` of the profile, large enough for the locked images",
        "a driver that copies every layer, or a file system without `d_type`, makes images slow, huge or broken",
        "set `storage-driver` or `data-root` under `[container.daemon]` of the profile, then `bedplate provision`",
    ],
));

pub(super) const CGROUP: Check = on_gpus(
    check(
        "docker.cgroup",
        Layer::Toolkit,
        engine::cgroup,
        [
            "Docker's driver of control groups, runc's version, links in `/dev/char`, and how the `nvidia` runtime gives devices",
            "where systemd keeps the control groups and does not know of the GPUs, `systemctl daemon-reload` (any package's upgrade) takes them from running containers: `Failed to initialize NVML: Unknown Error`",
            "use `gpu-access = \"cdi\"` with runc 1.1.7 or newer or links in `/dev/char`; or `exec-opts = [\"native.cgroupdriver=cgroupfs\"]` under `[container.daemon]`",
        ],
    ),
    DAEMON,
);

pub(super) const CONFIGURATION: Check = advisory(on(check(
    "docker.live-restore",
    Layer::Toolkit,
    engine::configuration,
    [
        "keys of `/etc/docker/daemon.json` that the profile sets, and whether the running daemon has live-restore as it says",
        "what differs from the profile comes back with the next restart, or was changed by hand",
        "`bedplate provision`; `systemctl reload docker` where only the daemon is behind",
    ],
)));

pub(super) const PACKAGE: Check = on_gpus(
    check(
        "toolkit.package",
        Layer::Toolkit,
        engine::package,
        [
            "whether `nvidia-container-toolkit` is installed, at the version of the lock; not where a CDI specification alone gives GPUs",
            "another version gives containers other libraries and devices than what was proved",
            "`bedplate toolkit install` brings the locked one",
        ],
    ),
    &[],
);

/// What these build on.
const DAEMON: &[&str] = &["docker.daemon"];

const fn on(mut check: Check) -> Check {
    check.needs = DAEMON;
    check
}
