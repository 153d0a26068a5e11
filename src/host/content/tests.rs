#![allow(clippy::disallowed_methods)]

use std::{collections::BTreeMap, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{
    lock::{self, ImageFacts, LockedPackage, Verdict, VerdictOutcome},
    progress::Silent,
};

/// Contents of a lock with two packages and one image.
struct Lot {
    folder: tempfile::TempDir,
    lock: Lock,
    contents: BTreeMap<Digest, Vec<u8>>,
}

fn package(name: &str, content: &[u8]) -> LockedPackage {
    LockedPackage {
        repository: "debian".into(),
        name: name.into(),
        version: "1".into(),
        architecture: "amd64".into(),
        sha256: Digest::of(content),
        size: content.len() as u64,
        path: format!("pool/{name}.deb"),
        depends: Vec::new(),
        wanted_by: Vec::new(),
    }
}

impl Lot {
    fn new() -> Self {
        let (config, layer) = (b"{}".to_vec(), vec![7; 300_000]);
        let descriptor = |kind: &str, blob: &[u8]| {
            serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": Digest::of(blob).to_string(), "size": blob.len()})
        };
        let manifest = serde_json::json!({"schemaVersion": 2, "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)]});
        let manifest = manifest.to_string().into_bytes();
        let image = LockedImage {
            reference: "oci:layout:v1".into(),
            platform: "linux/amd64".into(),
            index: None,
            manifest: Digest::of(&manifest),
            config: Digest::of(&config),
            download: 300_002,
            layers: vec![Digest::of(&layer)],
            facts: ImageFacts::default(),
            verdict: Verdict { outcome: VerdictOutcome::NotApplicable, because: String::new() },
        };
        let packages = [b"package one".to_vec(), vec![1; 512]];
        let lock = Lock {
            packages: vec![package("a", &packages[0]), package("b", &packages[1])],
            images: BTreeMap::from([("x".to_owned(), image)]),
            ..Lock::default()
        };
        let contents = packages.into_iter().chain([config, layer, manifest]);
        let contents = contents.map(|content| (Digest::of(&content), content)).collect();
        Self { folder: tempfile::tempdir().unwrap(), lock, contents }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self, name: &str) -> Arc<Store> {
        Arc::new(Store::open(&self.at(name)).unwrap())
    }

    /// A store with everything, and all of it.
    fn full(&self) -> Content {
        let store = self.store("full");
        for content in self.contents.values() {
            store.put(content).unwrap();
        }
        let mut content = Content::default();
        content.add(&store, Named::of(&self.lock).digests()).unwrap();
        content
    }

    fn bundle() -> Bundle {
        Bundle::assemble("t.toml", "schema = 1\n", &lock::write(&Lock::default()), BTreeMap::new()).unwrap()
    }

    fn archive(content: &Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_archive(
            &Self::bundle(),
            content,
            &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            },
            |_| (),
        )
        .unwrap();
        bytes
    }

    fn open(&self, bytes: &[u8]) -> Result<Content> {
        std::fs::write(self.at("archive"), bytes).unwrap();
        open_archive(&self.at("archive")).map(|(_, content)| content)
    }

    fn section(content: &Content) -> Vec<u8> {
        Self::archive(content).split_off(Self::bundle().to_open_tar().len())
    }
}

#[test]
fn an_archive_carries_all_a_lock_names_and_is_the_same_bytes() {
    let lot = Lot::new();
    let content = lot.full();
    let bytes = Lot::archive(&content);
    assert_eq!(bytes, Lot::archive(&content));
    assert_eq!(bytes.len() as u64, Lot::bundle().to_open_tar().len() as u64 + content.archived());
    let read = lot.open(&bytes).unwrap();
    read.refuse_other(&Named::of(&lot.lock)).unwrap();
    assert_eq!(read.blobs().collect::<Vec<_>>(), content.blobs().collect::<Vec<_>>());
    assert_eq!(read.size(), content.size());
    // From the archive it is written again as it was.
    assert_eq!(Lot::archive(&read), bytes);
    let store = lot.store("new");
    assert_eq!(into_store(&read, &store, &Silent).unwrap(), content.size());
    assert_eq!(into_store(&read, &store, &Silent).unwrap(), 0);
    for (digest, content) in &lot.contents {
        assert_eq!(&store.get(digest).unwrap(), content);
    }
    assert!(complete(&store, &lot.lock.images["x"]).unwrap());
    // Without content it is the bundle as it always was.
    assert_eq!(Lot::archive(&Content::default()), Lot::bundle().to_tar());
}

#[test]
fn a_changed_byte_is_found_and_nothing_of_it_kept() {
    let lot = Lot::new();
    let mut bytes = Lot::archive(&lot.full());
    let at = bytes.windows(11).position(|part| part == b"package one").unwrap();
    bytes[at] = b'P';
    let read = lot.open(&bytes).unwrap();
    let store = lot.store("new");
    let error = into_store(&read, &store, &Silent).unwrap_err();
    assert!(error.message().contains(&Digest::of("package one").to_string()), "{error:?}");
    assert!(!store.contains(&Digest::of("package one")).unwrap());
    for digest in store.digests().unwrap() {
        store.get(&digest).unwrap();
    }
    // Nor is it written on.
    assert!(read.write(&mut |_| Ok(()), |_| ()).is_err());
}

#[test]
fn an_archive_cut_anywhere_is_refused_before_anything_is_kept() {
    let lot = Lot::new();
    let bytes = Lot::archive(&lot.full());
    for end in (0..bytes.len()).step_by(997).chain(bytes.len() - 1030..bytes.len()) {
        assert!(lot.open(&bytes[..end]).is_err(), "{end}");
    }
}

#[test]
fn what_the_lock_does_not_name_is_refused() {
    let lot = Lot::new();
    let store = lot.store("full");
    let mut content = lot.full();
    let foreign = store.put(b"foreign").unwrap();
    content.add(&store, [foreign]).unwrap();
    let named = Named::of(&lot.lock);
    let error = content.refuse_other(&named).unwrap_err();
    assert!(error.message().contains(&format!("`{foreign}`, which its lock does not name")), "{error:?}");
    let section = Lot::section(&content);
    let error = receive(section.as_slice(), section.len() as u64, &lot.store("far"), &named).unwrap_err();
    assert!(error.message().contains("does not name"), "{error:?}");
    assert!(!lot.store("far").contains(&foreign).unwrap());
    // A package with another size than the lock's.
    let mut lock = lot.lock.clone();
    lock.packages[0].size += 1;
    assert!(lot.full().refuse_other(&Named::of(&lock)).unwrap_err().message().contains("its lock says 12"));
}

#[tokio::test]
async fn a_cut_connection_leaves_what_came_and_less_is_lacking() {
    let lot = Lot::new();
    let named = Named::of(&lot.lock);
    let section = Lot::section(&lot.full());
    let all = named.digests().count();
    let far = lot.at("far");
    assert_eq!(lacking(&lot.lock, &far, None).await.unwrap().len(), all);
    assert!(!far.exists(), "looking makes nothing");
    let mut before = all;
    for end in [0, 600, section.len() / 2, section.len() - 1] {
        let store = Store::open(&far).unwrap();
        let error = receive(&section[..end], section.len() as u64, &store, &named).unwrap_err();
        assert!(format!("{error:?}").contains("cut short"), "{error:?}");
        let lacks = lacking(&lot.lock, &far, None).await.unwrap().len();
        assert!(lacks <= before);
        before = lacks;
    }
    assert_eq!(before, 0, "all content came, only the end did not");
    // What is sent is only what is lacking.
    let store = Store::open(&far).unwrap();
    store.remove(&Digest::of("package one")).unwrap();
    let mut content = lot.full();
    content.only(&lacking(&lot.lock, &far, None).await.unwrap());
    let section = Lot::section(&content);
    assert_eq!(section.len() as u64, content.archived());
    let came = receive(section.as_slice(), section.len() as u64, &store, &named).unwrap();
    assert_eq!(came, BTreeSet::from([Digest::of("package one")]));
    assert!(lacking(&lot.lock, &far, None).await.unwrap().is_empty());
    // A length that ends elsewhere than the archive.
    let longer = [section.as_slice(), b"x"].concat();
    assert!(receive(longer.as_slice(), longer.len() as u64, &store, &named).is_err());
    assert!(receive(section.as_slice(), 1 << 60, &store, &named).unwrap_err().message().contains("room"));
}

#[tokio::test]
async fn a_damaged_package_comes_again() {
    let lot = Lot::new();
    let content = lot.full();
    let store = lot.store("far");
    into_store(&content, &store, &Silent).unwrap();
    let digest = Digest::of("package one");
    let path = store.path(&digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "package two").unwrap();
    let lacks = lacking(&lot.lock, &lot.at("far"), None).await.unwrap();
    assert_eq!(lacks, BTreeSet::from([digest]));
    into_store(&content, &store, &Silent).unwrap();
    assert_eq!(store.get(&digest).unwrap(), b"package one");
}

#[test]
fn images_are_at_hand_in_a_store_a_layout_or_what_comes() {
    let lot = Lot::new();
    let image = &lot.lock.images["x"];
    let none = Places::default();
    assert!(!at_hand(&none, image).unwrap());
    let absent = Places { store: Some(lot.at("nowhere")), ..Places::default() };
    assert!(!at_hand(&absent, image).unwrap());
    assert!(!lot.at("nowhere").exists(), "looking makes nothing");
    let coming = Places { coming: blobs_of(image).collect(), ..absent };
    assert!(at_hand(&coming, image).unwrap());
    let store = lot.store("far");
    into_store(&lot.full(), &store, &Silent).unwrap();
    let stored = Places { store: Some(lot.at("far")), ..Places::default() };
    assert!(at_hand(&stored, image).unwrap());
    // Dropped once it is in Docker; packages stay.
    let freed = drop_images(&lot.at("far"), &lot.lock).unwrap();
    assert_eq!(freed, blobs_of(image).map(|digest| lot.contents[&digest].len() as u64).sum::<u64>());
    assert!(!at_hand(&stored, image).unwrap());
    assert_eq!(store.digests().unwrap().len(), 2);
    // The layout beside the profile.
    let blobs = lot.at("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for digest in blobs_of(image) {
        std::fs::write(blobs.join(digest.hex()), &lot.contents[&digest]).unwrap();
    }
    let layout = Places { layouts: Some(lot.folder.path().to_owned()), ..Places::default() };
    assert!(at_hand(&layout, image).unwrap());
    std::fs::remove_file(blobs.join(image.config.hex())).unwrap();
    assert!(!at_hand(&layout, image).unwrap());
}

#[tokio::test]
async fn images_come_from_a_layout_and_are_held_against_the_lock() {
    let lot = Lot::new();
    let image = &lot.lock.images["x"];
    let blobs = lot.at("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for digest in blobs_of(image) {
        std::fs::write(blobs.join(digest.hex()), &lot.contents[&digest]).unwrap();
    }
    let client = crate::oci::Client::new(crate::oci::ClientConfig::default());
    let fetch =
        async |store: &Store, images| fetch_images(store, images, &client, lot.folder.path(), &Silent).await;
    let store = lot.store("new");
    let mut images = lot.lock.images.clone();
    images.insert("y".to_owned(), image.clone());
    let fetched = fetch(&store, &images).await.unwrap();
    assert_eq!((fetched.files, fetched.bytes), (2, 300_002));
    assert!(complete(&store, image).unwrap());
    assert_eq!(fetch(&store, &images).await.unwrap().files, 0);
    // A lock that was edited.
    let mut images = lot.lock.images.clone();
    images.get_mut("x").unwrap().layers.clear();
    assert!(fetch(&store, &images).await.unwrap_err().message().contains("not those of its manifest"));
    // A layer that is not what it should be.
    let store = lot.store("other");
    std::fs::write(blobs.join(image.layers[0].hex()), vec![8; 300_000]).unwrap();
    let error = fetch(&store, &lot.lock.images).await.unwrap_err();
    assert!(error.message().contains("layer 1 of image `x`"), "{error:?}");
    assert!(!store.contains(&image.layers[0]).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_content_never_panics_and_never_enters_as_something_else(
        at in 0_usize..4000, with in any::<u8>(), cut in 0_usize..4000,
    ) {
        let lot = Lot::new();
        let mut content = lot.full();
        content.only(&Named::of(&lot.lock).packages().collect());
        let mut section = Lot::section(&content);
        let place = at % section.len();
        section[place] = with;
        section.truncate(section.len() - cut % section.len());
        let store = lot.store("far");
        let _ = receive(section.as_slice(), section.len() as u64, &store, &Named::of(&lot.lock));
        for digest in store.digests().unwrap() {
            prop_assert!(lot.contents.contains_key(&digest));
            store.get(&digest).unwrap();
        }
    }
}
