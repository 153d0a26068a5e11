use proptest::prelude::*;

use super::*;
use crate::build::write::sample::{directory, entry, hard, link};

fn file(path: &str) -> Entry {
    entry(path, Kind::File { size: 1 })
}

/// Who owns what, by how the path begins; the longest counts.
fn owner(path: &str) -> Option<Group> {
    [
        ("boot/vmlinuz", Group::Kernel),
        ("etc/bedplate", Group::Configuration),
        ("etc/docker/daemon.json", Group::Configuration),
        ("etc/hosts", Group::Configuration),
        ("usr/bin/bedplate", Group::Agent),
        ("usr/bin/dockerd", Group::Engine),
        ("usr/bin/env", Group::Base),
        ("usr/lib/modules/6.1/kernel", Group::Kernel),
        ("usr/lib/modules/6.1/updates", Group::Driver),
        ("usr/lib/nvidia", Group::Driver),
        ("usr/lib/python3/a.py", Group::Base),
    ]
    .iter()
    .find(|(begin, _)| path.starts_with(begin))
    .map(|(_, group)| *group)
}

fn host() -> Vec<Entry> {
    let directories = [
        "",
        "boot",
        "dev",
        "etc",
        "etc/docker",
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/lib/modules",
        "usr/lib/modules/6.1",
        "usr/lib/modules/6.1/kernel",
        "usr/lib/modules/6.1/updates",
        "usr/lib/nvidia",
        "usr/lib/python3",
        "usr/lib/python3/__pycache__",
        "var",
        "var/empty",
        "var/empty/deep",
        "var/lib",
        "var/lib/dpkg",
    ];
    let files = [
        "boot/initrd.img-6.1",
        "boot/vmlinuz-6.1",
        "etc/docker/daemon.json",
        "etc/hosts",
        "etc/ld.so.cache",
        "usr/bin/bedplate",
        "usr/bin/dockerd",
        "usr/bin/env",
        "usr/lib/modules/6.1/kernel/fs.ko",
        "usr/lib/modules/6.1/modules.dep",
        "usr/lib/modules/6.1/updates/nvidia.ko",
        "usr/lib/nvidia/libcuda.so.1",
        "usr/lib/python3/__pycache__/a.cpython-311.pyc",
        "usr/lib/python3/a.py",
        "var/lib/dpkg/status",
    ];
    let mut entries: Vec<Entry> = directories.into_iter().map(directory).collect();
    entries.extend(files.into_iter().map(file));
    entries.push(hard("var/lib/dpkg/env-again", "usr/bin/env"));
    entries.push(link("usr/lib/nvidia/libcuda.so", "libcuda.so.1"));
    entries
}

fn names<'a>(layers: &'a [Layer]) -> Vec<(Group, Vec<&'a str>)> {
    layers
        .iter()
        .map(|layer| (layer.group, layer.entries.iter().map(|entry| entry.path.as_str()).collect()))
        .collect()
}

#[test]
fn a_host_is_split_by_what_changes_together() {
    let entries = host();
    let layers = split(&entries, &owner);
    assert_eq!(
        names(&layers),
        [
            (
                Group::Base,
                vec![
                    "",
                    "usr",
                    "usr/bin",
                    "usr/bin/env",
                    "usr/lib",
                    "usr/lib/python3",
                    "usr/lib/python3/__pycache__",
                    "usr/lib/python3/__pycache__/a.cpython-311.pyc",
                    "usr/lib/python3/a.py",
                    "var",
                    "var/lib",
                    "var/lib/dpkg",
                    "var/lib/dpkg/env-again",
                ]
            ),
            (
                Group::Kernel,
                vec![
                    "boot",
                    "boot/vmlinuz-6.1",
                    "usr/lib/modules",
                    "usr/lib/modules/6.1",
                    "usr/lib/modules/6.1/kernel",
                    "usr/lib/modules/6.1/kernel/fs.ko",
                ]
            ),
            (
                Group::Driver,
                vec![
                    "usr/lib/modules/6.1/updates",
                    "usr/lib/modules/6.1/updates/nvidia.ko",
                    "usr/lib/nvidia",
                    "usr/lib/nvidia/libcuda.so",
                    "usr/lib/nvidia/libcuda.so.1",
                ]
            ),
            (Group::Engine, vec!["usr/bin/dockerd"]),
            (Group::Boot, vec!["boot/initrd.img-6.1"]),
            (Group::Agent, vec!["usr/bin/bedplate"]),
            (
                Group::Database,
                vec![
                    "dev",
                    "etc",
                    "etc/ld.so.cache",
                    "usr/lib/modules/6.1/modules.dep",
                    "var/empty",
                    "var/empty/deep",
                    "var/lib/dpkg/status",
                ]
            ),
            (Group::Configuration, vec!["etc/docker", "etc/docker/daemon.json", "etc/hosts"]),
        ]
    );
}

#[test]
fn a_directory_is_where_it_is_owned_or_lower() {
    let entries = [directory("a"), directory("a/b"), file("a/b/c")];
    let owned = |path: &str| match path {
        "a" => Some(Group::Driver),
        "a/b" => Some(Group::Base),
        _ => Some(Group::Configuration),
    };
    let layers = split(&entries, &owned);
    assert_eq!(names(&layers), [(Group::Base, vec!["a", "a/b"]), (Group::Configuration, vec!["a/b/c"])]);
    assert_eq!(split(&[], &|_| None), []);
}

#[test]
fn groups_are_in_their_order() {
    assert!(Group::ALL.is_sorted());
    assert_eq!(Group::ALL[..2], [Group::Images, Group::Base]);
    let mut names = Group::ALL.map(Group::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Group::ALL.len());
}

proptest! {
    /// Whoever owns what: each entry is in one layer, and no layer needs a directory that is not in it or below.
    #[test]
    fn every_entry_is_in_one_layer_whatever_the_order(
        owners in prop::collection::vec(prop::option::of(0_usize..8), 40),
        order in Just((0_usize..40).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let entries = host();
        let owner_of = |path: &str| {
            let place = entries.iter().position(|entry| entry.path == path)?;
            owners[place].map(|group| Group::ALL[group])
        };
        let layers = split(&entries, &owner_of);
        let mut seen = std::collections::BTreeSet::new();
        for layer in &layers {
            prop_assert!(!layer.entries.is_empty());
            prop_assert!(layer.entries.is_sorted_by(|a, b| a.path.as_bytes() < b.path.as_bytes()));
            for entry in &layer.entries {
                prop_assert!(seen.insert(entry.path.as_str()), "{} is there twice", entry.path);
                prop_assert!(above(&entry.path).is_none_or(|above| seen.contains(above)), "{}", entry.path);
                if let Kind::Hard { to } = &entry.kind {
                    prop_assert!(layer.entries.iter().any(|first| first.path == *to), "{}", entry.path);
                }
            }
        }
        prop_assert_eq!(seen.len(), entries.len());

        let turned: Vec<Entry> =
            order.iter().filter_map(|place| entries.get(*place).cloned()).collect();
        prop_assert_eq!(turned.len(), entries.len());
        let again = split(&turned, &owner_of);
        prop_assert_eq!(names(&again), names(&layers));
    }
}
