#![allow(clippy::disallowed_methods)]

use std::{fs, io::Read, path::PathBuf};

use super::*;
use crate::{
    build::{
        tree::{Entry, Kind},
        write::{
            layers::split,
            sample::{directory, entry, everything, file, tree},
        },
    },
    digest::Digest,
};

fn options(compression: Compression) -> Options {
    Options {
        name: "trixie-gpu".to_owned(),
        created: 1_700_000_000,
        architecture: "amd64".to_owned(),
        compression,
        threads: NonZero::new(2).unwrap(),
        newest: BTreeMap::new(),
        annotations: BTreeMap::from([("bedplate.lock".to_owned(), "sha256:00".to_owned())]),
    }
}

fn owner(path: &str) -> Option<Group> {
    match path {
        _ if path.starts_with("usr") => Some(Group::Base),
        _ if path.starts_with("srv") => Some(Group::Driver),
        _ if path.starts_with("home") => Some(Group::Configuration),
        _ => None,
    }
}

/// Every file of a directory by its path in it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for found in fs::read_dir(next).unwrap() {
            let path = found.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                out.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    out
}

fn plain(compression: Compression, blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match compression {
        Compression::None => out.extend_from_slice(blob),
        Compression::Gzip => drop(flate2::read::GzDecoder::new(blob).read_to_end(&mut out).unwrap()),
        Compression::Zstd => out = zstd::decode_all(blob).unwrap(),
    }
    out
}

#[test]
fn every_part_is_what_the_documents_say() {
    let (_dir, tree) = everything();
    let layers = split(tree.entries(), &owner);
    let to = tempfile::tempdir().unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let dir = to.path().join("image");
        let image = write(&tree, &layers, &options(compression), &dir).unwrap();
        let files = files(&dir);
        assert_eq!(files[Path::new("oci-layout")], br#"{"imageLayoutVersion":"1.0.0"}"#);
        let blob =
            |digest: &str| &files[&Path::new("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())];
        for (path, content) in &files {
            if path.starts_with("blobs") {
                assert_eq!(path.file_name().unwrap().to_str().unwrap(), Digest::of(content).hex());
            }
        }
        // The documents, the layers, and nothing else.
        assert_eq!(files.len(), 2 + 2 + image.layers.len());
        let index: Value = serde_json::from_slice(&files[Path::new("index.json")]).unwrap();
        let named = &index["manifests"][0];
        assert_eq!(named["annotations"][NAME], "trixie-gpu");
        assert_eq!(named["digest"], image.manifest.digest.to_string());
        assert_eq!(named["size"], image.manifest.size);
        let manifest: Value = serde_json::from_slice(blob(named["digest"].as_str().unwrap())).unwrap();
        assert_eq!(manifest["annotations"][CREATED], "2023-11-14T22:13:20Z");
        assert_eq!(manifest["annotations"]["bedplate.lock"], "sha256:00");
        let config: Value =
            serde_json::from_slice(blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        assert_eq!(config["history"].as_array().unwrap().len(), image.layers.len());
        let groups: Vec<Group> = image.layers.iter().map(|layer| layer.group).collect();
        assert_eq!(groups, [Group::Base, Group::Driver, Group::Database, Group::Configuration]);
        let mut entries = 0;
        for (place, layer) in image.layers.iter().enumerate() {
            let described = &manifest["layers"][place];
            assert_eq!(described["digest"], layer.blob.digest.to_string());
            assert_eq!(described["size"], layer.blob.size);
            let archive = plain(compression, blob(described["digest"].as_str().unwrap()));
            assert_eq!(Content::of(&archive), layer.archive);
            assert_eq!(config["rootfs"]["diff_ids"][place], layer.archive.digest.to_string());
            entries += layer.entries;
        }
        assert_eq!(entries, tree.entries().len());
        let blobs: usize =
            files.iter().filter(|(path, _)| path.starts_with("blobs")).map(|(_, b)| b.len()).sum();
        assert_eq!(image.download(), blobs as u64);
    }
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
}

#[test]
fn threads_and_directories_change_nothing() {
    let (_dir, tree) = everything();
    let layers = split(tree.entries(), &owner);
    let to = tempfile::tempdir().unwrap();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let first = write(&tree, &layers, &options(compression), &to.path().join("a")).unwrap();
        let other = Options { threads: NonZero::new(4).unwrap(), ..options(compression) };
        let second = write(&tree, &layers, &other, &to.path().join("b")).unwrap();
        assert_eq!(first, second);
        assert_eq!(files(&to.path().join("a")), files(&to.path().join("b")));
    }
}

/// These bytes are a promise: whoever has the same lock has them. They change only with a new version of the image format.
#[test]
fn the_bytes_are_those_of_the_first_version() {
    let (_dir, tree) = everything();
    let layers = split(tree.entries(), &owner);
    let to = tempfile::tempdir().unwrap();
    let all = [Compression::Gzip, Compression::Zstd].map(|compression| {
        let image = write(&tree, &layers, &options(compression), &to.path().join("a")).unwrap();
        image.manifest.digest.hex()
    });
    assert_eq!(
        all,
        [
            "366f69dcb98cdcf14bd7c5d92c8481ccbbfaa122621e0a4ca1b2f10147b2f5ae",
            "92e5ad8ba08c6a9a0bcc58ee63580a53f9454cdf4666c0041633e2e56078a35a"
        ]
    );
}

/// A newer package of one group leaves the layers of the others as they were, though the whole tree's times end later.
#[test]
fn a_newer_package_moves_its_own_layer_and_those_made_of_all() {
    let build = |version: &str, clamp: i64| {
        let at = |mut entry: Entry, time: i64| {
            entry.modified = time;
            entry
        };
        let (env, words) = file("usr/bin/env", "env");
        let (driver, cuda) = file("srv/libcuda", version);
        let (status, list) = file("var/status", version);
        let (_dir, tree) = tree(
            vec![(at(env, 10), words), (at(driver, clamp), cuda), (at(status, clamp), list)],
            // Made while packages were unpacked: they have the tree's own time.
            ["", "usr", "usr/bin", "srv", "var"].map(|path| at(directory(path), clamp)).to_vec(),
        );
        let to = tempfile::tempdir().unwrap();
        let newest = BTreeMap::from([(Group::Base, 20), (Group::Driver, clamp)]);
        let options = Options { newest, ..options(Compression::Gzip) };
        write(&tree, &split(tree.entries(), &owner), &options, &to.path().join("image")).unwrap().layers
    };
    let (before, after) = (build("one", 30), build("two", 40));
    let moved: Vec<Group> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before.blob != after.blob)
        .map(|(before, _)| before.group)
        .collect();
    assert_eq!(before.len(), 3);
    assert_eq!(moved, [Group::Driver, Group::Database]);
}

#[test]
fn what_a_layer_cannot_hold_is_refused_and_leaves_what_was_there() {
    let to = tempfile::tempdir().unwrap();
    let dir = to.path().join("image");
    let (_dir, good) = everything();
    write(&good, &split(good.entries(), &owner), &options(Compression::Zstd), &dir).unwrap();
    let before = files(&dir);
    for (bad, wanted) in [
        (file("usr/.wh.env", "").0, "means that a file is gone"),
        (directory("usr/.wh..wh..opq"), "means that a file is gone"),
        (entry("usr/a", Kind::File { size: 5 }), "writing layer `base`"),
    ] {
        let (_dir, tree) = tree(vec![], vec![bad]);
        let error =
            write(&tree, &split(tree.entries(), &owner), &options(Compression::Zstd), &dir).unwrap_err();
        assert!(error.message().contains(wanted), "{error:?}");
    }
    for name in ["", "a b", "-a", "a:", "\u{e4}", &"x".repeat(200)] {
        let options = Options { name: name.to_owned(), ..options(Compression::Zstd) };
        let error = write(&good, &[], &options, &dir).unwrap_err();
        assert!(error.message().contains("cannot be the name"), "{error:?}");
    }
    let late = Options { created: i64::MAX, ..options(Compression::Zstd) };
    assert!(write(&good, &[], &late, &dir).is_err());
    assert_eq!(files(&dir), before);
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
}
