//! Bundles that carry packages and images: made from a registry, and a tree provisioned from them with nothing to reach.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path, process::Stdio, sync::Arc};

use bedplate::{
    digest::Digest,
    fleet::wire::{Lacks, Options, Request},
    host::{
        content::{self, Content, Named},
        secrets::Frame,
    },
    lock::bundle::Bundle,
    store::Store,
};

use super::{Place, profile, snapshot};
use crate::support::{
    image::{Image, ImageSpec},
    registry::{Kind, Registry},
};

/// A place with a profile of two images that share a layer, locked.
async fn registry() -> (Registry, Place, Vec<Image>) {
    let registry = Registry::start(Kind::Plain).await;
    let one = registry.push_image("a:1", &ImageSpec::default()).await;
    let moved = ImageSpec { entrypoint: vec!["/elsewhere".into()], ..ImageSpec::default() };
    let two = registry.push_image("b:1", &moved).await;
    let place = Place::new();
    place.config("retries = 0\ntimeout-seconds = 5\n");
    let images = format!("a = \"{0}/a:1\"\nb = \"{0}/b:1\"", registry.host);
    let file = "[[file]]\npath = \"/etc/a.conf\"\ncontent = \"one\"\nmode = \"0644\"\n";
    place.put("profiles/p.toml", profile(&images, file));
    place.run(["lock", "p"]).exits(0);
    (registry, place, vec![one, two])
}

/// What the images are made of.
fn blobs(images: &[Image]) -> BTreeMap<Digest, Vec<u8>> {
    let all = images.iter().flat_map(|image| image.blobs().chain([&image.manifest]));
    all.map(|blob| (blob.digest, blob.bytes.clone())).collect()
}

/// The paths and bytes of an archive, as another program reads them.
fn entries(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        found.insert(entry.path().unwrap().display().to_string(), content);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_carries_images_and_is_the_same_bytes() {
    let (registry, place, images) = registry().await;
    let plain = place.run(["bundle", "p", "-o", "plain.tar"]);
    let one =
        place.run(["bundle", "p", "--with-images", "-o", "one.tar", "--store", "store", "--format", "json"]);
    let json = one.exits(0).json();
    // The content does not name it.
    assert_eq!(json["bundle"], plain.exits(0).out.trim());
    let bytes = fs::read(place.at("one.tar")).unwrap();
    assert_eq!(json["bytes"], bytes.len());
    let want = blobs(&images);
    let carried: BTreeMap<String, Vec<u8>> =
        entries(&place.at("one.tar")).into_iter().filter(|(path, _)| path.starts_with("store/")).collect();
    assert_eq!(carried.len(), want.len());
    assert_eq!(json["carried"]["files"], want.len());
    for (digest, content) in &want {
        assert_eq!(&carried[&format!("store/sha256/{}", digest.hex())], content);
    }
    assert_eq!(place.mode("one.tar"), 0o644);
    // Everything is in the store by now: the same again without a registry.
    drop(registry);
    place.run(["bundle", "p", "--with-images", "-o", "two.tar", "--store", "store"]).exits(0);
    assert_eq!(fs::read(place.at("two.tar")).unwrap(), bytes);
    place.run(["bundle", "p", "--with-packages", "-o", "three.tar"]).exits(0).says("has no packages");
    assert_eq!(fs::read(place.at("three.tar")).unwrap(), fs::read(place.at("plain.tar")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_travels_too() {
    let place = Place::new();
    let image = ImageSpec::default().build();
    for (digest, content) in blobs(std::slice::from_ref(&image)) {
        place.put(&format!("profiles/layout/blobs/sha256/{}", digest.hex()), content);
    }
    place.put("profiles/layout/oci-layout", "{\"imageLayoutVersion\": \"1.0.0\"}");
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [image.entry()]});
    place.put("profiles/layout/index.json", index.to_string());
    place.put("profiles/p.toml", profile("a = \"oci:layout\"", ""));
    place.run(["lock", "p"]).exits(0);
    place.run(["bundle", "p", "--with-images", "-o", "one.tar", "--store", "store"]).exits(0);
    assert_eq!(
        entries(&place.at("one.tar")).keys().filter(|path| path.starts_with("store/")).count(),
        blobs(&[image]).len()
    );
    fs::remove_dir_all(place.at("profiles/layout/blobs")).unwrap();
    place.run(["bundle", "p", "--with-images", "-o", "two.tar", "--store", "other"]).is_refusal(
        1,
        &["no content with digest"],
        "copy the image again",
    );
    assert!(!place.at("two.tar").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_from_a_bundle_alone() {
    let (registry, place, images) = registry().await;
    place.run(["bundle", "p", "--with-images", "-o", "away/one.tar", "--store", "store"]).is_refusal(
        2,
        &["away"],
        "mkdir -p",
    );
    fs::create_dir(place.at("away")).unwrap();
    place.run(["bundle", "p", "--with-images", "-o", "away/one.tar", "--store", "store"]).exits(0);
    drop(registry);
    fs::remove_dir_all(place.at("profiles")).unwrap();
    fs::remove_dir_all(place.at("store")).unwrap();
    fs::create_dir_all(place.at("root/etc")).unwrap();
    let arguments = ["provision", "away/one.tar", "--root", "root", "--store", "store"];
    let before = place.snapshot();
    let dry = place.run(arguments.into_iter().chain(["--dry-run"]));
    dry.exits(0).prints("+ file /etc/a.conf");
    assert_eq!(before, place.snapshot(), "a dry run changes nothing");
    place.run(arguments).exits(0).says("generation 1 is current");
    assert_eq!(place.text("root/etc/a.conf"), "one\n");
    // Images wait in the tree's own store for its first boot.
    let store = Store::open(&place.at("root/var/lib/bedplate/store")).unwrap();
    for (digest, content) in blobs(&images) {
        assert_eq!(store.get(&digest).unwrap(), content);
    }
    assert_eq!(place.mode("root/var/lib/bedplate/store"), 0o700);
    let before = snapshot(&place.at("root"));
    place.run(arguments).exits(0).prints("nothing to do");
    assert_eq!(before, snapshot(&place.at("root")));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bundles_are_refused_and_leave_nothing() {
    let (_registry, place, images) = registry().await;
    place.run(["bundle", "p", "--with-images", "-o", "one.tar", "--store", "store"]).exits(0);
    fs::create_dir_all(place.at("root/etc")).unwrap();
    let bytes = fs::read(place.at("one.tar")).unwrap();
    let provision = ["provision", "bad.tar", "--root", "root", "--store", "new"];
    let empty = snapshot(&place.at("root"));

    place.put("bad.tar", &bytes[..bytes.len() - 700]);
    place.refuses(provision, 1, &["reading `", "cut short"], "copy it again");
    place.put("bad.tar", &bytes[..3000]);
    place.refuses(provision, 1, &["reading `"], "bedplate bundle");
    place.put("bad.tar", &bytes[..100]);
    place.refuses(provision, 1, &["neither a profile nor a whole bundle"], "copy it again");
    assert_eq!(empty, snapshot(&place.at("root")));

    // Content that is not what its name says.
    let layer = &images[0].layers[0].bytes;
    let at = bytes.windows(layer.len()).position(|part| part == layer.as_slice()).unwrap();
    let mut other = bytes.clone();
    other[at + 20] ^= 1;
    place.put("bad.tar", &other);
    let digest = images[0].layers[0].digest.to_string();
    place.run(provision).is_refusal(1, &[&digest], "copy the bundle again");
    assert!(!place.at("root/etc/a.conf").exists() && !place.at("root/var/lib/bedplate/current").exists());

    // Content that the lock does not name.
    let (bundle, mut content) = content::open_archive(&place.at("one.tar")).unwrap();
    let store = Arc::new(Store::open(&place.at("store")).unwrap());
    let foreign = store.put(b"foreign").unwrap();
    content.add(&store, [foreign]).unwrap();
    write(&place.at("bad.tar"), &bundle, &content);
    place.refuses(provision, 1, &["which its lock does not name"], "bedplate bundle");

    // A lock that is stale.
    let mut files = bundle.files().clone();
    let text = String::from_utf8(files["profile.toml"].clone()).unwrap().replace("0644", "0600");
    files.insert("profile.toml".to_owned(), text.into_bytes());
    write(&place.at("bad.tar"), &Bundle::from_files(files).unwrap(), &Content::default());
    place.refuses(provision, 4, &["the lock of `bad.tar` is stale"], "bedplate lock");
}

fn write(path: &Path, bundle: &Bundle, content: &Content) {
    let mut bytes = Vec::new();
    let mut take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    content::write_archive(bundle, content, &mut take, |_| ()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_says_what_it_lacks() {
    let (_registry, place, images) = registry().await;
    place.config("docker-socket = \"/nonexistent/docker.sock\"\n");
    place.run(["bundle", "p", "-o", "one.tar"]).exits(0);
    let (bundle, _) = content::open_archive(&place.at("one.tar")).unwrap();
    let request = Request { options: Options::default(), bundle, frame: Frame::default(), content: 0 };
    let ask = || {
        let mut command = place.command(["receive", "--lacks", "--store", "far"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&request.to_bytes().unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Lacks::read(&String::from_utf8(output.stdout).unwrap()).unwrap().lacks
    };
    let all = blobs(&images);
    assert!(ask().iter().eq(all.keys()));
    assert!(!place.at("far").exists(), "asking makes nothing");
    let store = Store::open(&place.at("far")).unwrap();
    let (there, content) = all.first_key_value().unwrap();
    store.put(content).unwrap();
    let lacks = ask();
    assert_eq!(lacks.len(), all.len() - 1);
    assert!(!lacks.contains(there));
    let pinned = request.bundle.open().unwrap();
    assert_eq!(Named::of(&pinned.lock).digests().count(), all.len());
}

#[test]
fn carrying_along_is_for_another_host() {
    let place = Place::with("", "");
    place.run(["provision", "p", "--carry"]).exits(2).says("--host");
    place.run(["provision", "p", "--carry", "--root", "home"]).exits(2).says("--root");
}
