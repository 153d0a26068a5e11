//! The host itself: system, room, memory, limits, names, ports, what others can reach.

use super::{Fault, Layer::Doctor};

pub(super) const FAULTS: &[Fault] = &[
    Fault::new(
        Doctor,
        "another release than the profile's",
        &["host.os"],
        &["/etc/os-release"],
        [
            "sed 's/trixie/bookworm/' /usr/lib/os-release >$kept/os-release; mount --bind $kept/os-release /usr/lib/os-release",
            "umount /usr/lib/os-release",
        ],
    ),
    Fault::new(
        Doctor,
        "no time service runs",
        &["host.clock"],
        &["the time service"],
        ["systemctl stop systemd-timesyncd", "systemctl start systemd-timesyncd"],
    )
    .often(),
    Fault::new(
        Doctor,
        "the disk is full",
        &["host.disk"],
        &["room on the disk"],
        [
            "fallocate -l $(($(df --output=avail -B1M / | tail -n 1) - 300))M /var/lib/lab-full",
            "rm /var/lib/lab-full",
        ],
    )
    .often(),
    Fault::new(
        Doctor,
        "the cache is on a small disk",
        &["host.disk"],
        &["the cache"],
        ["mount -t tmpfs -o size=64m,mode=0755 tmpfs /data/huggingface", "umount /data/huggingface"],
    ),
    Fault::new(
        Doctor,
        "the cache's file system has no inodes left",
        &["host.inodes"],
        &["the cache"],
        [
            "mount -t tmpfs -o size=4g,nr_inodes=60,mode=0755 tmpfs /data/huggingface; \
             for file in $(seq 58); do : >/data/huggingface/$file; done",
            "umount /data/huggingface",
        ],
    ),
    Fault::new(
        Doctor,
        "the model is larger than the disk",
        &["host.disk"],
        &["the deployment"],
        ["model lab/large", ""],
    ),
    Fault::new(
        Doctor,
        "the deployment wants more memory than the host has",
        &["host.memory"],
        &["the deployment"],
        ["deployment 's/^shm_size: .*/shm_size: 640g/'", ""],
    ),
    Fault::new(
        Doctor,
        "the host's shared memory is too small",
        &["host.shm"],
        &["/dev/shm"],
        ["mount -o remount,size=256m /dev/shm", "mount -o remount,size=50% /dev/shm"],
    ),
    Fault::new(
        Doctor,
        "containers may open too few files",
        &["host.limits"],
        &["limits of containerd"],
        [
            "prlimit --pid $(pidof containerd) --nofile --noheadings --output HARD >$kept/limit; \
             prlimit --pid $(pidof containerd) --nofile=1024:1024",
            "prlimit --pid $(pidof containerd) --nofile=$(tr -d ' ' <$kept/limit)",
        ],
    ),
    Fault::new(
        Doctor,
        "containers may lock too little memory",
        &["host.limits"],
        &["limits of containerd"],
        [
            "prlimit --pid $(pidof containerd) --memlock --noheadings --output HARD >$kept/limit; \
             prlimit --pid $(pidof containerd) --memlock=65536:65536",
            "prlimit --pid $(pidof containerd) --memlock=$(tr -d ' ' <$kept/limit)",
        ],
    ),
    Fault::new(
        Doctor,
        "Docker's configuration lets containers open too few files",
        &["host.limits"],
        &["daemon.json"],
        [
            "daemon_json '{\"default-ulimits\": {\"nofile\": {\"Name\": \"nofile\", \"Hard\": 1024, \"Soft\": 1024}}}'",
            "daemon_json",
        ],
    ),
    Fault::new(
        Doctor,
        "a name does not resolve",
        &["host.dns"],
        &["/etc/hosts"],
        ["cp /etc/hosts $kept/hosts; sed -i '/hub[.]lab/d' /etc/hosts", "cat $kept/hosts >/etc/hosts"],
    ),
    Fault::new(
        Doctor,
        "another program has the engine's port",
        &["host.ports"],
        &["port 8000"],
        ["listen 127.0.0.1 8000", "settle"],
    ),
    Fault::new(
        Doctor,
        "another program has the agent's port",
        &["host.ports", "net.exposed"],
        &["port 8080"],
        ["listen 0.0.0.0 8080", "settle"],
    )
    .often(),
    Fault::new(
        Doctor,
        "another container has the engine's port",
        &["host.ports"],
        &["port 8000", "Docker"],
        ["other -p 127.0.0.1:8000:9400", "docker rm -f lab-other"],
    ),
    Fault::new(
        Doctor,
        "another container publishes the agent's port to everyone",
        &["host.ports", "net.exposed"],
        &["port 8080", "Docker"],
        ["other -p 0.0.0.0:8080:9400", "docker rm -f lab-other"],
    ),
    Fault::new(
        Doctor,
        "a container publishes a port past the firewall",
        &["net.exposed"],
        &["port 9401", "Docker"],
        ["other -p 9401:9400", "docker rm -f lab-other"],
    )
    .warns(),
    Fault::new(
        Doctor,
        "the agent's API is published to everyone, without a key",
        &["secret.present", "net.exposed"],
        &["the deployment", "port 8080"],
        ["deployment 's/host_port: 8080/host_port: \"0.0.0.0:8080\"/'", ""],
    ),
    Fault::new(
        Doctor,
        "Docker's API is open to the network, by its configuration",
        &["net.exposed"],
        &["daemon.json"],
        ["daemon_json '{\"hosts\": [\"fd://\", \"tcp://0.0.0.0:2375\"]}'", "daemon_json"],
    ),
    Fault::new(
        Doctor,
        "Docker's TCP port is open to the network",
        &["net.exposed"],
        &["port 2375"],
        ["listen 0.0.0.0 2375", "settle"],
    ),
    Fault::new(
        Doctor,
        "upgrades run by themselves, and a locked package is not held",
        &["host.unattended-upgrades"],
        &["apt"],
        [
            "package unattended-upgrades; apt-mark unhold docker.io >/dev/null; \
             mv /etc/systemd/system/apt-daily-upgrade.timer $kept/timer; \
             echo 'APT::Periodic::Unattended-Upgrade \"1\";' >/etc/apt/apt.conf.d/20auto-upgrades",
            "dpkg --purge unattended-upgrades; apt-mark hold docker.io >/dev/null; \
             mv $kept/timer /etc/systemd/system/apt-daily-upgrade.timer; rm /etc/apt/apt.conf.d/20auto-upgrades",
        ],
    )
    .warns(),
    Fault::new(
        Doctor,
        "the deployment shards over GPUs that the host does not have",
        &["deploy.fit"],
        &["the deployment"],
        ["deployment '$a tensor_parallel: 2'", ""],
    ),
    Fault::new(
        Doctor,
        "a profile with GPUs on a host without",
        &["gpu.pci", "deploy.fit"],
        &["another profile"],
        ["profile_with_gpus", "profile_as_it_was"],
    )
    .by("doctor $profile"),
];
