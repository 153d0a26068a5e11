//! What tells that something changed, without gathering all facts: the state of the files they come from.

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf, sync::Arc};

use super::{
    data::Known,
    gather::{Sources, aside},
    tree::Tree,
    wanted::Wanted,
};
use crate::{digest::Digest, error::Result, host::layout, plan, system::files::Stat};

/// Files and directories of configuration that facts come from, besides those that are wanted.
const PLACES: [&str; 9] = [
    plan::DAEMON,
    plan::dpkg::STATUS,
    "/etc/apt/apt.conf.d",
    "/etc/cdi",
    "/etc/os-release",
    "/etc/resolv.conf",
    "/run/docker.pid",
    "/run/systemd/timesync/synchronized",
    "/var/run/cdi",
];

/// Of sysfs, whose times are those of the kernel's own memory of it.
const MODULE: &str = "/sys/module/nvidia";

/// A digest over the state of what facts come from. Another one: look again.
///
/// Of files: kind, mode, owner, inode, size and time. Of what others fill while all is well (directories of state, caches,
/// devices) only what checks use: an agent that writes a file anew every second is no change.
pub async fn stamp(wanted: &Wanted, sources: &Sources) -> Known<Digest> {
    let tree = Tree::new(Arc::clone(&sources.root));
    let mut files: BTreeSet<String> = PLACES.iter().map(|path| (*path).to_owned()).collect();
    files.extend(wanted.secrets.values().flatten().cloned());
    files.extend(sources.docker_config.clone());
    files.insert(sources.docker_socket.clone());
    let mut filled: BTreeSet<String> = wanted.private.union(&wanted.host.mounts).cloned().collect();
    filled.extend(wanted.deployments.iter().map(|deployment| deployment.cache.clone()));
    filled.insert(MODULE.to_owned());
    let secrets = sources.secrets_dir.clone();
    aside(sources, "the state of the files", move || {
        let mut seen = String::new();
        for (directory, prefix) in [("/dev", "nvidia"), (secrets.as_str(), "")] {
            filled.insert(directory.to_owned());
            match tree.list(directory) {
                Ok(entries) => {
                    let names = entries.into_iter().map(|entry| entry.name);
                    let names = names.filter(|name| name.starts_with(prefix));
                    filled.extend(names.map(|name| format!("{directory}/{name}")));
                }
                // What cannot be looked at is a state as well.
                Err(error) => {
                    let _ = writeln!(seen, "{directory} {error}");
                }
            }
        }
        for path in &files {
            note(&mut seen, path, tree.stat(path), whole);
        }
        for path in &filled {
            note(&mut seen, path, tree.stat(path), outside);
        }
        Ok(Digest::of(seen))
    })
    .await
}

impl Sources {
    /// A digest over the state of the files that say what to judge by, these and the link to the host's current
    /// generation. Another one: read them again.
    pub async fn stamp_of_inputs(&self, files: &BTreeSet<PathBuf>) -> Known<Digest> {
        let tree = Tree::new(Arc::clone(&self.root));
        let files = files.clone();
        aside(self, "the state of the profile's files", move || {
            let mut seen = String::new();
            for path in files {
                let path = path.to_string_lossy();
                note(&mut seen, &path, tree.stat(&path), whole);
            }
            note(&mut seen, layout::CURRENT, tree.root().stat(layout::CURRENT), whole);
            let _ = match tree.root().read_link(layout::CURRENT) {
                Ok(target) => writeln!(seen, "{target:?}"),
                Err(error) => writeln!(seen, "{error}"),
            };
            Ok(Digest::of(seen))
        })
        .await
    }
}

fn note(seen: &mut String, path: &str, stat: Result<Option<Stat>>, say: impl Fn(&Stat) -> String) {
    let _ = match stat {
        Ok(Some(stat)) => writeln!(seen, "{path} {}", say(&stat)),
        Ok(None) => writeln!(seen, "{path} is not there"),
        Err(error) => writeln!(seen, "{path} {error}"),
    };
}

/// All there is to know of it.
fn whole(stat: &Stat) -> String {
    format!("{stat:?}")
}

/// Nothing of its content. A file that is replaced whole is the same file; a directory is not: something else is mounted.
fn outside(stat: &Stat) -> String {
    let Stat { kind, mode, uid, gid, inode, device, number, .. } = stat;
    let which = stat.is_dir().then_some((inode, device));
    format!("{kind:?} {mode:o} {uid}:{gid} {number:?} {which:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::files::{Owner, Root};

    fn write(sources: &Sources, path: &str, text: &str) {
        sources.root.write(path, text.as_bytes(), 0o600, Owner::current()).unwrap();
    }

    fn sources(directory: &tempfile::TempDir) -> Sources {
        let root = Arc::new(Root::open(directory.path()).unwrap());
        for path in ["/data", "/dev", "/etc", "/run/bedplate/secrets", "/var/lib/bedplate"] {
            root.make_dir(path, 0o700, Owner::current()).unwrap();
        }
        Sources::of(root)
    }

    #[tokio::test]
    async fn what_an_agent_keeps_writing_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let sources = sources(&directory);
        let wanted = Wanted {
            private: ["/data".to_owned(), "/data/state".to_owned()].into(),
            secrets: [("K".to_owned(), Some("/etc/key".to_owned()))].into(),
            ..Wanted::default()
        };
        for path in ["/data/state", "/etc/key", "/etc/resolv.conf"] {
            write(&sources, path, "a");
        }
        let now = async || *stamp(&wanted, &sources).await.ok().unwrap();
        let first = now().await;
        write(&sources, "/data/state", "more");
        write(&sources, "/data/other", "");
        assert_eq!(now().await, first);
        let mut seen = vec![first];
        let mut differs = |stamp: Digest, what: &str| {
            assert!(!seen.contains(&stamp), "{what}");
            seen.push(stamp);
        };
        sources.root.set_mode("/data/state", 0o644).unwrap();
        differs(now().await, "a mode");
        for path in ["/etc/key", "/etc/resolv.conf"] {
            write(&sources, path, "more");
            differs(now().await, path);
        }
        for path in ["/run/bedplate/secrets/K", "/dev/nvidia0"] {
            write(&sources, path, "");
            differs(now().await, path);
        }
    }

    #[tokio::test]
    async fn an_edit_and_another_generation_are_changes() {
        let directory = tempfile::tempdir().unwrap();
        let sources = sources(&directory);
        let files: BTreeSet<PathBuf> = ["/data/p.toml", "/data/p.lock"].map(PathBuf::from).into();
        let now = async || *sources.stamp_of_inputs(&files).await.ok().unwrap();
        let mut seen = vec![now().await];
        let mut differs = |stamp: Digest, what: &str| {
            assert!(!seen.contains(&stamp), "{what}");
            seen.push(stamp);
        };
        for (path, text) in [("/data/p.toml", "a"), ("/data/p.toml", "more"), ("/data/p.lock", "a")] {
            write(&sources, path, text);
            differs(now().await, path);
        }
        for target in ["generations/1", "generations/2"] {
            sources.root.symlink(target, layout::CURRENT).unwrap();
            differs(now().await, target);
        }
    }
}
