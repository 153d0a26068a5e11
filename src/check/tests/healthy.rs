//! What a healthy host says of itself: clock, limits, file systems, packages, Docker's set-up.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::GIB;
use crate::{digest::Digest, host::facts::*, lock::LockedPackage};

pub(super) const TOOLKIT: &str = "1.17.8-1";

pub(super) fn packages() -> Vec<LockedPackage> {
    ["docker.io", "nvidia-container-toolkit"]
        .into_iter()
        .map(|name| LockedPackage {
            repository: "debian".to_owned(),
            name: name.to_owned(),
            version: TOOLKIT.to_owned(),
            architecture: "amd64".to_owned(),
            sha256: Digest::of(name),
            size: 1,
            path: format!("pool/{name}.deb"),
            depends: Vec::new(),
            wanted_by: vec!["host".to_owned()],
        })
        .collect()
}

pub(super) fn shm() -> Known<Space> {
    Known::Ok(Space { at: "/dev/shm".to_owned(), total: 500 * GIB, free: 500 * GIB, device: 3 })
}

fn volume(at: &str, device: u64) -> (String, Known<Volume>) {
    let volume = Volume {
        at: at.to_owned(),
        kind: "ext4".to_owned(),
        inodes: 1_000_000,
        inodes_free: 900_000,
        total: 4000 * GIB,
        device,
    };
    (at.to_owned(), Known::Ok(volume))
}

pub(super) fn host() -> Facts {
    Facts {
        clock: Known::Ok(Clock {
            services: BTreeSet::from(["chronyd".to_owned()]),
            in_step: Some(true),
            off: Some(2),
            said_by: Some("`chronyc tracking`".to_owned()),
        }),
        limits: Known::Ok(Some(Limits {
            of: "`containerd`".to_owned(),
            open_files: Some(1 << 20),
            locked: None,
            rdma: false,
        })),
        volumes: [
            volume("/", 1),
            volume("/var/lib/docker", 1),
            volume("/data/huggingface", 2),
            volume("/data/minerhome", 2),
        ]
        .into(),
        upgrades: Known::Ok(Upgrades {
            off: Some("`unattended-upgrades` is not installed".to_owned()),
            free: BTreeSet::from(["docker.io".to_owned()]),
            installed: 2,
        }),
        toolkit: Known::Ok(VendorToolkit {
            version: Some(TOOLKIT.to_owned()),
            mode: Some("auto".to_owned()),
            broken: false,
        }),
        device_links: Known::Ok(DeviceLinks {
            nodes: BTreeSet::from(["nvidia0".to_owned(), "nvidiactl".to_owned()]),
            missing: BTreeSet::new(),
        }),
        leaks: Known::Ok(Leaks {
            asked: ["/root", "/home", "/etc/environment", "/etc/profile", "/etc/profile.d", "/opt", "/srv"]
                .map(str::to_owned)
                .to_vec(),
            places: 2,
            files: 3,
            ..Leaks::default()
        }),
        engine: Known::Ok(EngineDetails {
            backing: Some("extfs".to_owned()),
            d_type: Some(true),
            cgroup_driver: Some("systemd".to_owned()),
            cgroup_version: Some("2".to_owned()),
            runc: Some("1.1.15".to_owned()),
            live_restore: false,
            containerd_store: false,
        }),
        daemon_keys: Known::Ok(BTreeMap::from([("/features/cdi".to_owned(), "true".to_owned())])),
        ..Facts::default()
    }
}
