//! Images that are built, read by programs of others.

use std::{collections::BTreeMap, num::NonZero, os::unix::fs::MetadataExt, path::Path, process::Command};

use bedplate::{
    build::{
        tree::{Entry, Kind, Tree},
        write::{
            compress::Compression,
            layers::{Group, split},
            oci::{self, Options},
        },
    },
    digest::Digest,
    system::files::Root,
};
use serde_json::Value;

use crate::support::docker::Dockerd;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let (uid, gid, modified) = (0, 0, 1_700_000_000);
    Entry { path: path.to_owned(), kind, mode, uid, gid, modified, xattrs: BTreeMap::new() }
}

/// A tree with something in each layer, and what is easily lost on the way.
fn tree(dir: &Path) -> Tree {
    let long = format!("usr/lib/{}/{}", "l".repeat(120), "m".repeat(150));
    let files = [
        ("boot/initrd.img", "ram", 0o600),
        ("boot/vmlinuz", "kernel", 0o644),
        ("etc/bedplate/profile.toml", "schema = 1\n", 0o644),
        ("usr/bin/bedplate", "program", 0o755),
        ("usr/bin/dockerd", "engine", 0o755),
        ("usr/bin/ping", "ping", 0o755),
        ("usr/bin/su", "su", 0o4755),
        ("usr/lib/nvidia.so", "driver", 0o644),
        (long.as_str(), "far", 0o644),
        ("var/lib/bedplate/store/sha256/ab/abcd", "a layer of a container image", 0o400),
        ("var/lib/dpkg/status", "Package: x\n", 0o644),
    ];
    let mut entries = vec![entry("", Kind::Directory, 0o755)];
    for (path, content, mode) in files {
        let at = dir.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, content).unwrap();
        entries.push(entry(path, Kind::File { size: content.len() as u64 }, mode));
        let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        for parent in parents.into_iter().filter_map(Path::to_str).filter(|parent| !parent.is_empty()) {
            if entries.iter().all(|entry| entry.path != parent) {
                entries.push(entry(parent, Kind::Directory, 0o755));
            }
        }
    }
    let mut ping = entries.iter_mut().find(|entry| entry.path == "usr/bin/ping");
    let capability = vec![1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ping.as_mut().unwrap().xattrs.insert("security.capability".into(), capability);
    entries.push(entry("tmp", Kind::Directory, 0o1777));
    entries.push(entry("usr/bin/suu", Kind::Hard { to: "usr/bin/su".into() }, 0o4755));
    entries.push(entry("bin", Kind::Link { target: "usr/bin".into() }, 0o777));
    let mut owned = entry("var/owned", Kind::Directory, 0o750);
    (owned.uid, owned.gid) = (4_000_000, 5_000_000);
    entries.push(owned);
    Tree::new(Root::open(dir).unwrap(), entries)
}

fn owner(path: &str) -> Option<Group> {
    match path {
        "boot/vmlinuz" => Some(Group::Kernel),
        "usr/bin/bedplate" => Some(Group::Agent),
        "usr/bin/dockerd" => Some(Group::Engine),
        "usr/lib/nvidia.so" => Some(Group::Driver),
        _ if path.ends_with("/abcd") => Some(Group::Images),
        _ if path.starts_with("etc/bedplate") => Some(Group::Configuration),
        _ if path.starts_with("var/lib/dpkg/") || path.starts_with("boot") => None,
        _ => Some(Group::Base),
    }
}

fn options(compression: Compression) -> Options {
    Options {
        name: "host".into(),
        created: 1_700_000_000,
        architecture: "amd64".into(),
        compression,
        threads: NonZero::new(2).unwrap(),
        newest: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

#[test]
fn skopeo_and_umoci_read_a_layout() {
    let source = tempfile::tempdir().unwrap();
    let tree = tree(source.path());
    let layers = split(tree.entries(), &owner);
    assert_eq!(layers.len(), Group::ALL.len());
    for compression in [Compression::Gzip, Compression::Zstd] {
        let to = tempfile::tempdir().unwrap();
        let dir = to.path().join("image");
        let image = oci::write(&tree, &layers, &options(compression), &dir).unwrap();
        let named = format!("oci:{}:host", dir.display());
        let seen: Value = serde_json::from_str(&run("skopeo", &["inspect", &named])).unwrap();
        assert_eq!(seen["Digest"], image.manifest.digest.to_string());
        assert_eq!(seen["Created"], "2023-11-14T22:13:20Z");
        assert_eq!((&seen["Architecture"], &seen["Os"]), (&"amd64".into(), &"linux".into()));
        let digests: Vec<Digest> =
            seen["Layers"].as_array().unwrap().iter().map(|l| l.as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(digests, image.layers.iter().map(|layer| layer.blob.digest).collect::<Vec<_>>());
        // A copy reads every blob and holds it against its digest; umoci holds what is in a layer against its diff id.
        let copy = format!("oci:{}:host", to.path().join("copy").display());
        run("skopeo", &["copy", "--preserve-digests", &named, &copy]);

        // Debian 12's umoci (0.4.7) reads layers in gzip alone.
        if compression == Compression::Gzip {
            unpacked(&tree, &dir, to.path());
        }
    }
}

/// What umoci makes of the layout `dir`, against the tree.
fn unpacked(tree: &Tree, dir: &Path, to: &Path) {
    let root = rustix::process::geteuid().is_root();
    let bundle = to.join("bundle");
    let (named, out) = (format!("{}:host", dir.display()), bundle.to_str().unwrap().to_owned());
    let mut arguments = vec!["unpack", "--image", &named, &out];
    if !root {
        eprintln!("not root: owners and capabilities are not tested");
        arguments.insert(1, "--rootless");
    }
    run("umoci", &arguments);
    for entry in tree.entries() {
        let path = bundle.join("rootfs").join(&entry.path);
        let meta = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if root {
            assert_eq!((meta.uid(), meta.gid()), (entry.uid, entry.gid), "{}", entry.path);
        }
        if !meta.is_symlink() {
            assert_eq!(meta.mode() & 0o7777, entry.mode, "{}", entry.path);
        }
        assert_eq!(meta.mtime(), entry.modified, "{}", entry.path);
        match &entry.kind {
            Kind::File { size } => assert_eq!(meta.len(), *size),
            Kind::Hard { to } => {
                assert_eq!(meta.ino(), bundle.join("rootfs").join(to).metadata().unwrap().ino());
            }
            Kind::Link { target } => assert_eq!(std::fs::read_link(&path).unwrap(), Path::new(target)),
            _ => assert!(meta.is_dir()),
        }
        if root {
            for (name, value) in &entry.xattrs {
                let mut buffer = [0; 64];
                let count = rustix::fs::lgetxattr(&path, name.as_str(), &mut buffer).unwrap();
                assert_eq!(&buffer[..count], value, "{}: {name}", entry.path);
            }
        }
    }
}

/// Docker's own store makes one tree of the layers; what it gives back is the tree.
#[tokio::test]
async fn docker_unpacks_the_layers_to_the_same_tree() {
    let source = tempfile::tempdir().unwrap();
    let tree = tree(source.path());
    let layers = split(tree.entries(), &owner);
    let to = tempfile::tempdir().unwrap();
    let dir = to.path().join("image");
    oci::write(&tree, &layers, &options(Compression::Gzip), &dir).unwrap();
    let archive = to.path().join("docker.tar");
    let named = format!("docker-archive:{}:bedplate/host:1", archive.display());
    run("skopeo", &["copy", &format!("oci:{}:host", dir.display()), &named]);

    let daemon = Dockerd::start().await;
    let socket = format!("unix://{}", daemon.socket());
    run("docker", &["-H", &socket, "load", "-i", archive.to_str().unwrap()]);
    let container = run("docker", &["-H", &socket, "create", "bedplate/host:1"]);
    let exported = to.path().join("exported.tar");
    let (out, container) = (exported.to_str().unwrap(), container.trim());
    run("docker", &["-H", &socket, "export", "-o", out, container]);

    let mut found = BTreeMap::new();
    let mut exported = tar::Archive::new(std::fs::File::open(&exported).unwrap());
    for entry in exported.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let records: Vec<(String, Vec<u8>)> =
            entry.pax_extensions().unwrap().map_or_else(Vec::new, |records| {
                records
                    .map(|record| record.unwrap())
                    .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
                    .collect()
            });
        found.insert(path.trim_end_matches('/').to_owned(), (entry.header().clone(), records));
    }
    for entry in tree.entries().iter().filter(|entry| !entry.path.is_empty()) {
        let (header, records) = &found[&entry.path];
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        assert_eq!(owner, (entry.uid.into(), entry.gid.into()), "{}", entry.path);
        if !matches!(entry.kind, Kind::Link { .. }) {
            assert_eq!(header.mode().unwrap() & 0o7777, entry.mode, "{}", entry.path);
        }
        for (name, value) in &entry.xattrs {
            let record = (format!("SCHILY.xattr.{name}"), value.clone());
            assert!(records.contains(&record), "{}: {records:?}", entry.path);
        }
    }
    let names = ["usr/bin/su", "usr/bin/suu"].map(|name| found[name].0.entry_type());
    assert!(names.contains(&tar::EntryType::Link), "{names:?}");
}
