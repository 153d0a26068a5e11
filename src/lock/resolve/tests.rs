#![allow(clippy::disallowed_methods)]

use std::{cell::Cell, fs, sync::Mutex};

use serde_json::json;

use super::*;
use crate::{
    digest::Digest,
    lock::{VerdictOutcome, diff, freshness, tests::PROFILE, wanted},
    oci::ClientConfig,
    profile,
    progress::{Event, Silent},
};

/// A profile whose images are these.
fn profile_with(images: &[(&str, &str)]) -> Profile {
    let head = &PROFILE[..PROFILE.find("[images]").unwrap()];
    let lines: Vec<String> =
        images.iter().map(|(name, reference)| format!("{name} = \"{reference}\"")).collect();
    profile::parse("host.toml", &format!("{head}[images]\n{}\n", lines.join("\n"))).unwrap()
}

/// Writes an image layout of one image, as skopeo lays it out.
fn layout(dir: &Path, tag: &str, cuda: &str) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |kind: &str, content: &[u8]| {
        let digest = Digest::of(content);
        fs::write(blobs.join(digest.hex()), content).unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": content.len() })
    };
    let layer = put("layer.v1.tar", format!("layer of {cuda}").as_bytes());
    let config = put(
        "config.v1+json",
        json!({
            "os": "linux",
            "architecture": "amd64",
            "config": { "Env": [format!("CUDA_VERSION={cuda}")], "Entrypoint": ["serve"], "User": "1000" },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        })
        .to_string()
        .as_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut entry = put("manifest.v1+json", manifest.to_string().as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
        .unwrap();
}

fn images_named(name: &str) -> Update {
    Update { images: Selection::Named([name.to_owned()].into()), ..Update::default() }
}

fn no_archives() -> Result<Archives> {
    panic!("no archive is asked for where packages are not pinned");
}

struct Case {
    directory: tempfile::TempDir,
    profile: Profile,
    deployments: BTreeMap<String, Deployment>,
    sources: BTreeMap<String, Vec<u8>>,
    clients: Cell<usize>,
}

impl Case {
    fn new(images: &[(&str, &str)]) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            profile: profile_with(images),
            deployments: BTreeMap::new(),
            sources: BTreeMap::new(),
            clients: Cell::new(0),
        }
    }

    fn request<'a>(&'a self, old: Option<&'a Lock>, update: Update) -> Request<'a> {
        Request {
            profile_file_name: "host.toml",
            directory: self.directory.path(),
            profile: &self.profile,
            deployments: &self.deployments,
            sources: &self.sources,
            old,
            update,
        }
    }

    fn client(&self) -> impl FnOnce() -> Result<Client> + '_ {
        || {
            self.clients.set(self.clients.get() + 1);
            Ok(Client::new(ClientConfig::default()))
        }
    }

    async fn lock(&self, old: Option<&Lock>, update: Update) -> Result<Lock> {
        lock(&self.request(old, update), self.client(), no_archives, &Silent).await
    }

    async fn moved(&self, old: &Lock, update: Update) -> Result<Vec<Moved>> {
        moved(&self.request(Some(old), update), self.client(), &Silent).await
    }
}

#[tokio::test]
async fn only_what_is_new_or_asked_for_is_resolved() {
    let mut case = Case::new(&[("a", "oci:a:1"), ("b", "oci:sub/b:1")]);
    layout(&case.directory.path().join("a"), "1", "12.4.1");
    layout(&case.directory.path().join("sub/b"), "1", "12.8.1");
    let first = case.lock(None, Update::default()).await.unwrap();
    assert_eq!(first.images["a"].facts.cuda.as_deref(), Some("12.4.1"));
    assert_eq!(first.images["a"].verdict.outcome, VerdictOutcome::Native);
    assert_eq!(first.images["b"].verdict.outcome, VerdictOutcome::Minor);
    assert_eq!(first.images["b"].reference, "oci:sub/b:1", "as written, not where it was found");
    assert_eq!(first.images["a"].facts.user.as_deref(), Some("1000"));
    assert_eq!(crate::lock::parse("x", &crate::lock::write(&first)).unwrap(), first);
    let wanted = wanted(&case.profile, &[]).unwrap();
    let now = inputs("host.toml", &case.profile, &case.deployments, &case.sources);
    assert!(freshness(&first, &now, &wanted).is_fresh());

    // Both move; a plain lock neither asks nor looks.
    layout(&case.directory.path().join("a"), "1", "12.5.0");
    layout(&case.directory.path().join("sub/b"), "1", "12.9.0");
    case.clients.set(0);
    assert_eq!(case.lock(Some(&first), Update::default()).await.unwrap(), first);
    assert_eq!(case.clients.get(), 0, "no client is made");
    assert!(case.moved(&first, Update::default()).await.unwrap().is_empty());
    assert_eq!(case.clients.get(), 0);

    // What is asked for is told, then taken; the other stays.
    let only_a = images_named("a");
    let moved = case.moved(&first, only_a.clone()).await.unwrap();
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].name.as_str(), moved[0].from), ("a", first.images["a"].manifest));
    let second = case.lock(Some(&first), only_a).await.unwrap();
    assert_eq!(second.images["a"].manifest, moved[0].to);
    assert_eq!(second.images["b"], first.images["b"]);
    assert!(diff(&first, &second).text(false).contains("CUDA 12.4.1 → 12.5.0"));
    assert_eq!(case.moved(&second, Update::all()).await.unwrap().len(), 1);
    let third = case.lock(Some(&second), Update::all()).await.unwrap();
    assert_eq!(third.images["b"].facts.cuda.as_deref(), Some("12.9.0"));
    assert!(case.moved(&third, Update::all()).await.unwrap().is_empty());

    // A new driver makes new verdicts without asking anyone.
    case.clients.set(0);
    case.profile.driver.version = Some("580.65.06".into());
    let judged = case.lock(Some(&third), Update::default()).await.unwrap();
    assert_eq!(judged.images["b"].verdict.outcome, VerdictOutcome::Native);
    // So does another name for the same image.
    case.profile = profile_with(&[("renamed", "oci:a:1")]);
    let renamed = case.lock(Some(&third), Update::default()).await.unwrap();
    assert_eq!(renamed.images.keys().collect::<Vec<_>>(), ["renamed"]);
    assert_eq!(renamed.images["renamed"].manifest, third.images["a"].manifest);
    assert_eq!(case.clients.get(), 0);
    // Another platform is another image.
    let mut other = third.clone();
    other.images.values_mut().for_each(|image| image.platform = "linux/arm64".into());
    case.lock(Some(&other), Update::default()).await.unwrap();
    assert_eq!(case.clients.get(), 1);
}

#[tokio::test]
async fn one_bad_image_does_not_hide_another() {
    let case = Case::new(&[("bad", "oci:missing:1"), ("good", "oci:good:1"), ("worse", "oci:empty:1")]);
    layout(&case.directory.path().join("good"), "1", "12.4.1");
    fs::create_dir(case.directory.path().join("empty")).unwrap();
    let error = case.lock(None, Update::default()).await.unwrap_err();
    let told = format!("{error:?}");
    assert!(told.contains("missing") && told.contains("empty"), "{told}");
    assert_eq!(error.related().len(), 1);
}

#[tokio::test]
async fn an_unknown_name_is_refused_before_anything_is_asked() {
    let case = Case::new(&[("a", "oci:a:1")]);
    let error = case.lock(None, images_named("b")).await.unwrap_err();
    assert!(error.message().contains("`b`"));
    assert!(error.hints()[0].ends_with(": a"), "{:?}", error.hints());
    assert_eq!(case.clients.get(), 0);
}

#[tokio::test]
async fn one_source_is_asked_once_and_progress_ends() {
    struct Seen(Mutex<Vec<String>>);
    impl Progress for Seen {
        fn event(&self, event: Event<'_>) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }
    let case = Case::new(&[("one", "oci:a:1"), ("two", "oci:a:1")]);
    layout(&case.directory.path().join("a"), "1", "12.4.1");
    let seen = Seen(Mutex::new(Vec::new()));
    let made = lock(&case.request(None, Update::default()), case.client(), no_archives, &seen).await.unwrap();
    assert_eq!(made.images["one"], made.images["two"]);
    let events = seen.0.lock().unwrap().join("\n");
    assert!(events.contains("total: Some(1)"), "{events}");
    assert!(events.lines().last().unwrap().contains("Finished"), "{events}");
}

#[tokio::test]
async fn what_is_named_by_digest_is_never_asked_again() {
    let digest = Digest::of("x");
    let reference = format!("registry.invalid/x@{digest}");
    let case = Case::new(&[("x", reference.as_str())]);
    let old = Lock {
        images: [("x".to_owned(), crate::lock::tests::image(&reference, "x"))].into(),
        ..Lock::default()
    };
    assert!(case.moved(&old, Update::all()).await.unwrap().is_empty());
    assert_eq!(
        case.lock(Some(&old), Update::all()).await.unwrap().images["x"].manifest,
        old.images["x"].manifest
    );
    assert_eq!(case.clients.get(), 0);
}
