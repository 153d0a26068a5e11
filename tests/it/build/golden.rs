//! An image whose digests stand in the tree: the same, whatever machine, day and program.
//!
//! Its lock is frozen and its packages are made here without any library, so that their bytes stay. What stands for dpkg is
//! frozen as well (`tests/samples/golden/dpkg.c`): the real one is another with every update of the distribution. Everything
//! else is what it is for any image. `BEDPLATE_BLESS=1` locks the packages anew and writes the digests; `BEDPLATE_BLESS=digests` keeps the lock.

use std::{collections::BTreeMap, path::Path};

use bedplate::store::Store;

use super::made::{IMAGE, LIBC, apt, base_files, profile};
use crate::{
    apt::{
        fixtures::{SIGNER, engine},
        keys::Keys,
        locking::{mirrors, trixie},
        package::{Package, Packing},
        server::Server,
    },
    cli::Place,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/golden");

fn packages() -> Vec<Package> {
    let dpkg = std::fs::read(Path::new(GOLDEN).join("dpkg")).unwrap();
    let tool = Package::new("tool", "2:1.0~rc1-1")
        .depends("libtool1 (>= 1)")
        .directory("./usr/bin")
        .directory("./usr/lib")
        .program("./usr/bin/tool", b"#!/usr/bin/interpreter\n")
        .entry(b'1', "./usr/bin/tool-too", "./usr/bin/tool", b"")
        .entry(b'2', "./usr/bin/tool-link", "tool", b"")
        .file("./usr/lib/\u{e9}t\u{e9}", &"summer ".repeat(50_000));
    let library =
        Package::new("libtool1", "1.2").field("Multi-Arch", "same").directory("./usr/lib/x86_64-linux-gnu");
    let long = format!("./usr/lib/x86_64-linux-gnu/{}", "l".repeat(70));
    let dpkg = Package::new("dpkg", "1-1")
        .field("Essential", "yes")
        .field("Priority", "required")
        .directory("./usr/bin")
        .program("./usr/bin/dpkg", &dpkg);
    let all = [vec![base_files(), dpkg, apt(), tool, library.file(&long, "1")], engine("1-1"), essentials()]
        .concat();
    all.into_iter().map(|package| package.packed(Packing::None)).collect()
}

/// What the engine depends on.
fn essentials() -> Vec<Package> {
    vec![Package::new("libc6", LIBC)]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_the_digests_it_always_had() {
    let bless = std::env::var_os("BEDPLATE_BLESS");
    let lock_too = bless.as_ref().is_some_and(|what| what != "digests");
    let place = Place::new();
    place.put("profiles/small.toml", profile(&["tool"]));
    place.put("images/small.toml", IMAGE);
    let store = place.at("store");
    let store = store.to_str().unwrap();
    if lock_too {
        let keys = Keys::with(SIGNER);
        let (debian, security) = trixie(&keys, &packages(), &[]);
        let (debian, security) = (Server::start(debian).await, Server::start(security).await);
        mirrors(&place, &keys, &debian.url, &security.url);
        place.run(["--store", store, "lock", "small"]).exits(0);
        std::fs::copy(place.at("profiles/small.lock"), Path::new(GOLDEN).join("small.lock")).unwrap();
    } else {
        std::fs::copy(Path::new(GOLDEN).join("small.lock"), place.at("profiles/small.lock")).unwrap();
    }
    // No archive is asked: the store has every package.
    place.config("");
    let made = Store::open(Path::new(store)).unwrap();
    for package in packages() {
        made.put(&package.deb()).unwrap();
    }
    let ran = place.run(["--quiet", "--store", store, "build", "small", "--output", "out"]);
    ran.exits(0);
    let record: serde_json::Value = serde_json::from_str(&place.text("out/small.record.json")).unwrap();
    let parts = &record["parts"];
    let digest = |part: &serde_json::Value| part["digest"].as_str().unwrap().to_owned();
    let mut found = BTreeMap::from([
        ("tar".to_owned(), digest(&parts["files"]["small.tar"])),
        ("tar.zst".to_owned(), digest(&parts["files"]["small.tar.zst"])),
        ("oci manifest".to_owned(), digest(&parts["oci"]["manifest"])),
    ]);
    for (number, layer) in parts["oci"]["layers"].as_array().unwrap().iter().enumerate() {
        found.insert(format!("oci layer {number}"), digest(layer));
    }
    let text: String = found.iter().map(|(part, digest)| format!("{digest}  {part}\n")).collect();
    let golden = Path::new(GOLDEN).join("digests");
    if bless.is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(
        text,
        std::fs::read_to_string(&golden).unwrap(),
        "an image has other bytes than before; if that is meant: BEDPLATE_BLESS=digests cargo test --test it golden"
    );
}
