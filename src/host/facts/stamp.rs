//! What tells that something changed, without gathering all facts: the state of the files they come from.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use super::{
    data::Known,
    gather::{Sources, aside},
    tree::Tree,
    wanted::Wanted,
};
use crate::{digest::Digest, plan};

/// Files and directories that facts come from, besides those that are wanted.
const PLACES: [&str; 11] = [
    plan::DAEMON,
    plan::dpkg::STATUS,
    "/dev",
    "/etc/apt/apt.conf.d",
    "/etc/cdi",
    "/etc/os-release",
    "/etc/resolv.conf",
    "/run/docker.pid",
    "/run/systemd/timesync/synchronized",
    "/sys/module/nvidia",
    "/var/run/cdi",
];

/// A digest over kind, mode, owner, size and time of what facts come from. Another one: look again.
pub async fn stamp(wanted: &Wanted, sources: &Sources) -> Known<Digest> {
    let tree = Tree::new(Arc::clone(&sources.root));
    let mut places: BTreeSet<String> = PLACES.iter().map(|path| (*path).to_owned()).collect();
    places.extend(wanted.private.iter().chain(&wanted.host.mounts).cloned());
    places.extend(wanted.secrets.values().flatten().cloned());
    places.extend(wanted.deployments.iter().map(|deployment| deployment.cache.clone()));
    places.extend(sources.docker_config.clone());
    places.extend([sources.docker_socket.clone(), sources.secrets_dir.clone()]);
    aside(sources.limit, "the file system", move || {
        let mut seen = String::new();
        for path in places {
            // What cannot be looked at is a state as well.
            let _ = match tree.stat(&path) {
                Ok(stat) => writeln!(seen, "{path} {stat:?}"),
                Err(error) => writeln!(seen, "{path} {error}"),
            };
        }
        Ok(Digest::of(seen))
    })
    .await
}
