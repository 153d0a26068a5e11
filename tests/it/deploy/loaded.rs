//! Images that were carried along, in a real Docker daemon with no registry to reach.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bedplate::{
    check::{
        Locked, Subject, judge,
        report::{Layer, Outcome},
    },
    digest::Digest,
    host::{
        content::{self, Places},
        facts::{Sources, gather},
        provision::{self, Options},
        secrets::SecretValues,
    },
    lock::{ImageFacts, Lock, LockedImage, Verdict, VerdictOutcome},
    plan::{self, Goal, Inputs, Step},
    profile,
    store::Store,
    system::files::Root,
};

use super::host::PROFILE;
use crate::support::{
    docker::Dockerd,
    image::{Image, ImageSpec},
};

fn locked(image: &Image, reference: &str) -> LockedImage {
    LockedImage {
        reference: reference.to_owned(),
        platform: "linux/amd64".into(),
        index: None,
        manifest: image.manifest.digest,
        config: image.config.digest,
        download: image.download(),
        layers: image.layers.iter().map(|layer| layer.digest).collect(),
        facts: ImageFacts { entrypoint: image.spec.entrypoint.clone(), ..ImageFacts::default() },
        verdict: Verdict { outcome: VerdictOutcome::NotApplicable, because: String::new() },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carried_image_is_loaded_and_known_by_its_digest() {
    let dockerd = Dockerd::start().await;
    let docker = dockerd.connect().await;
    let folder = tempfile::tempdir().unwrap();
    let layers = vec![
        vec![("etc/a".to_owned(), 0o644, vec![1; 200_000])],
        vec![("etc/b".to_owned(), 0o644, b"two".to_vec())],
    ];
    let image = ImageSpec { layers, ..ImageSpec::default() }.build();
    // Nothing is there by that name.
    let locked = locked(&image, "registry.example/engine:1.0");
    let lock = Lock { images: BTreeMap::from([("vllm".to_owned(), locked.clone())]), ..Lock::default() };
    let store = Store::open(&folder.path().join("store")).unwrap();
    for blob in image.blobs().chain([&image.manifest]) {
        store.put(&blob.bytes).unwrap();
    }
    let profile = profile::parse("test.toml", PROFILE).unwrap();
    let none = BTreeMap::new();
    let inputs = Inputs {
        profile: &profile,
        lock: &lock,
        sources: &BTreeMap::new(),
        deployments: &none,
        bundle: Digest::of("bundle"),
        allow: &[],
    };
    let root = Root::open(Path::new("/")).unwrap();
    let places = Places { store: Some(folder.path().join("store")), ..Places::default() };
    let look = Options { docker_socket: dockerd.socket(), content: places.clone(), ..Options::default() };
    let steps = async || {
        let state = provision::observe(&root, &inputs, &SecretValues::new(), &look).await.unwrap();
        let plan = plan::make(&inputs, &state, Goal::Provision).unwrap();
        (plan.generation, plan.steps)
    };
    let (generation, planned) = steps().await;
    let tag = plan::image_tag("vllm", generation);
    assert!(
        planned.iter().any(|step| matches!(step, Step::LoadImage { tag: to, .. } if *to == tag)),
        "{planned:?}"
    );

    content::load(&docker, &locked, &tag, &places, |_| ()).await.unwrap();
    let reference = locked.pull_reference();
    let by_digest =
        async || docker.image_by_digest(&reference, &locked.manifest, &locked.config, None).await.unwrap();
    let (name, found) = by_digest().await.unwrap();
    assert!(found.id == locked.config.to_string() || found.id == locked.manifest.to_string(), "{found:?}");
    assert!(name.contains("sha256:"), "a name that cannot move: {name}");
    assert!(found.repo_tags.contains(&tag), "{found:?}");
    let (_, planned) = steps().await;
    let of_images = |step: &&Step| {
        matches!(step, Step::LoadImage { .. } | Step::PullImage { .. } | Step::TagImage { .. })
    };
    assert_eq!(planned.iter().filter(of_images).count(), 0, "{planned:?}");
    assert!(
        content::lacking(&lock, &folder.path().join("empty"), Some(&dockerd.socket()))
            .await
            .unwrap()
            .is_empty()
    );

    // The checks know it, too.
    let text = "name: demo\nengine: vllm\nmodel: org/echo\nport: 8000\n";
    let deployment = profile::deployment::parse("demo.yaml", text).unwrap().deployment;
    let with_lock = Locked { lock: &lock, stale: None };
    let mut subject = Subject::new("demo", &profile, Some(with_lock), vec![&deployment]).unwrap();
    subject.wanted.hub = "http://127.0.0.1:1".to_owned();
    let mut sources = Sources::of(Arc::new(Root::open(Path::new("/")).unwrap()));
    sources.network_limit = Duration::from_secs(1);
    sources.docker_socket = dockerd.socket();
    let facts = gather(&subject.wanted, &sources).await;
    let report = judge(&[Layer::Runtime], &subject, &facts);
    for id in ["image.locked", "image.present", "image.platform", "image.entrypoint"] {
        let finding = report.findings.iter().find(|finding| finding.id == id).unwrap();
        assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
    }

    // Its content is not needed any more.
    let freed = content::drop_images(&folder.path().join("store"), &lock).unwrap();
    assert_eq!(freed, image.download() + image.manifest.bytes.len() as u64);
    assert!(store.digests().unwrap().is_empty());
    assert!(by_digest().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_content_is_not_loaded_and_moved_aside() {
    let dockerd = Dockerd::start().await;
    let docker = dockerd.connect().await;
    let folder = tempfile::tempdir().unwrap();
    let image = ImageSpec::default().build();
    let locked = locked(&image, "oci:layout:v1");
    let store = Store::open(&folder.path().join("store")).unwrap();
    for blob in image.blobs().chain([&image.manifest]) {
        store.put(&blob.bytes).unwrap();
    }
    let layer = image.layers[0].digest;
    let mut bytes = image.layers[0].bytes.clone();
    bytes[30] ^= 1;
    std::fs::remove_file(store.path(&layer)).unwrap();
    std::fs::write(store.path(&layer), bytes).unwrap();
    let places = Places { store: Some(folder.path().join("store")), ..Places::default() };
    let error = content::load(&docker, &locked, "bedplate/x:g1", &places, |_| ()).await.unwrap_err();
    assert!(error.message().contains("damaged in the store"), "{error:?}");
    assert!(docker.image("bedplate/x:g1").await.unwrap().is_none());
    assert!(!content::at_hand(&places, &locked).unwrap());

    // The layout it was locked from has it still: what the store lacks comes from there.
    let blobs = folder.path().join("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(layer.hex()), &image.layers[0].bytes).unwrap();
    let places = Places { layouts: Some(folder.path().to_owned()), ..places };
    assert!(content::at_hand(&places, &locked).unwrap());
    content::load(&docker, &locked, "bedplate/x:g1", &places, |_| ()).await.unwrap();
    let found =
        docker.image_by_digest(&locked.pull_reference(), &locked.manifest, &locked.config, None).await;
    assert!(found.unwrap().is_some());
    let names: BTreeSet<String> = docker.images_tagged("bedplate/").await.unwrap().into_keys().collect();
    assert_eq!(names, BTreeSet::from(["bedplate/x:g1".to_owned()]));
}
