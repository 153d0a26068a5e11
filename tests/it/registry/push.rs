//! Pushing an image layout: into Debian's `docker-registry`, and into registries that misbehave.

use std::path::Path;

use bedplate::{
    digest::Digest,
    oci::{Ca, Client, ClientConfig, Pushed, Reference, RegistryConfig},
    progress::Silent,
};
use tempfile::TempDir;

use super::{amd64, output, quick, source, with_login, with_registry};
use crate::support::{
    faulty::{Content, Faulty, Seen, status, with},
    image::{Image, ImageSpec, index},
    registry::{Kind, PASSWORD, Registry, USER},
};

/// An image with a layer of some size, and its layout on disk.
fn image(second: &str) -> (Image, TempDir) {
    let mut noise = crate::cli::Random(7);
    let large: Vec<u8> =
        std::iter::repeat_with(|| noise.next().to_le_bytes()).take(90_000).flatten().collect();
    let spec = ImageSpec {
        layers: vec![
            vec![("usr/noise".to_owned(), 0o644, large)],
            vec![("etc/second".to_owned(), 0o644, second.as_bytes().to_vec())],
        ],
        ..ImageSpec::default()
    };
    let image = spec.build();
    let dir = tempfile::tempdir().unwrap();
    write_layout(dir.path(), &image);
    (image, dir)
}

fn write_layout(dir: &Path, image: &Image) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(dir.join("index.json"), index(&[image.entry()]).bytes).unwrap();
    for blob in image.blobs().chain([&image.manifest]) {
        std::fs::write(blobs.join(blob.digest.hex()), &blob.bytes).unwrap();
    }
}

fn to(text: impl AsRef<str>) -> Reference {
    text.as_ref().parse().unwrap()
}

async fn push(config: ClientConfig, dir: &TempDir, name: &str) -> bedplate::error::Result<Pushed> {
    let client = Client::new(config);
    client.knock(&to(name)).await?;
    client.push(dir.path(), &to(name), &[], &Silent).await
}

#[tokio::test]
async fn what_is_pushed_is_what_was_built() {
    let registry = Registry::start(Kind::Plain).await;
    let host = &registry.host;
    let (first, dir) = image("one");
    let name = format!("{host}/fleet/host:1");
    let pushed = push(quick(), &dir, &name).await.unwrap();
    assert_eq!(pushed.reference, format!("{host}/fleet/host@{}", first.manifest.digest));
    assert_eq!((pushed.sent, pushed.mounted, pushed.there), (3, 0, 0));
    assert_eq!(pushed.bytes, first.download());

    let resolved = Client::new(quick()).resolve(&source(&name), &amd64()).await.unwrap();
    assert_eq!((resolved.index, resolved.manifest), (None, first.manifest.digest));
    for at in [&name, &pushed.reference] {
        let raw = output("skopeo", &["inspect", "--tls-verify=false", "--raw", &format!("docker://{at}")]);
        assert_eq!(raw.as_bytes(), first.manifest.bytes);
    }
    let copy = tempfile::tempdir().unwrap();
    let copied = format!("oci:{}:1", copy.path().display());
    let from = format!("docker://{}", pushed.reference);
    output("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &from, &copied]);
    for blob in first.blobs() {
        let path = copy.path().join("blobs/sha256").join(blob.digest.hex());
        assert_eq!(std::fs::read(path).unwrap(), blob.bytes);
    }

    // Again, under another tag, and with another layer.
    for (name, dir, sent) in [
        (name.clone(), &dir, 0),
        (format!("{host}/fleet/host:again"), &dir, 0),
        (format!("{host}/fleet/host:2"), &image("two").1, 2),
    ] {
        let again = push(quick(), dir, &name).await.unwrap();
        assert_eq!((again.sent, again.there), (sent, 3 - sent), "{name}");
    }

    // Into another repository, from the first.
    let client = Client::new(quick());
    let others = [to(format!("{host}/fleet/host:1"))];
    let other = to(format!("{host}/spare/host:1"));
    let pushed = client.push(dir.path(), &other, &others, &Silent).await.unwrap();
    assert_eq!((pushed.sent, pushed.mounted, pushed.there), (0, 3, 0));
    assert_eq!(client.head(&source(format!("{other}"))).await.unwrap(), first.manifest.digest);
}

#[tokio::test]
async fn logins() {
    let (first, dir) = image("one");
    for kind in [Kind::Basic, Kind::Token] {
        let registry = Registry::start(kind).await;
        // With tokens anyone may pull from here, and nobody without a login push.
        let name = format!("{}/public/host:1", registry.host);
        let error = push(quick(), &dir, &name).await.unwrap_err();
        assert!(error.message().contains("wants a login for `public/host`"), "{error:?}");
        let (config, _home) = with_login(quick(), &registry.host, USER, "hunter2");
        let error = push(config, &dir, &name).await.unwrap_err();
        assert!(error.message().contains("refused the credentials"), "{error:?}");
        let (config, _home) = with_login(quick(), &registry.host, USER, PASSWORD);
        let client = Client::new(config);
        let pushed = client.push(dir.path(), &to(&name), &[], &Silent).await.unwrap();
        assert_eq!((pushed.sent, pushed.digest), (3, first.manifest.digest));
        let other = to(format!("{}/private/host:1", registry.host));
        let pushed = client.push(dir.path(), &other, &[to(&name)], &Silent).await.unwrap();
        assert_eq!(pushed.mounted, 3);
        assert_eq!(client.head(&source(&name)).await.unwrap(), first.manifest.digest);
    }
}

#[tokio::test]
async fn a_private_authority() {
    let registry = Registry::start(Kind::Tls).await;
    let (first, dir) = image("one");
    let name = format!("{}/host:1", registry.host);
    let pem = registry.ca.clone().unwrap();
    let trusting = RegistryConfig { ca: Some(Ca::Pem(pem.into_bytes())), ..RegistryConfig::default() };
    let pushed = push(with_registry(&registry.host, trusting), &dir, &name).await.unwrap();
    assert_eq!((pushed.sent, pushed.digest), (3, first.manifest.digest));
    let error = push(quick(), &dir, &name).await.unwrap_err();
    assert!(error.message().contains("wants TLS"), "{error:?}");
}

/// What a registry says to one who pushes. The session's address is relative, and has a query.
fn takes(seen: &Seen) -> Option<axum::response::Response> {
    match seen.method.as_str() {
        "POST" => Some(with(status(202, ""), "location", "/session/1?state=a%2Fb")),
        "PUT" => Some(status(201, "")),
        _ => None,
    }
}

#[tokio::test]
async fn no_request_too_many_and_in_order() {
    let (image, dir) = image("one");
    let server = Faulty::start(Content::default(), Box::new(|seen, _| takes(seen))).await;
    let client = Client::new(quick());
    let pushed = client.push(dir.path(), &to(format!("{}/a:1", server.host)), &[], &Silent).await.unwrap();
    assert_eq!(pushed.sent, 3);
    let lines = server.lines();
    for blob in image.blobs() {
        let digest = blob.digest.to_string();
        let sent = format!("PUT /session/1?state=a%2Fb&digest={}", digest.replace(':', "%3A"));
        assert!(lines[..9].contains(&sent), "{sent}: {lines:?}");
        assert!(lines[..9].contains(&format!("HEAD /v2/a/blobs/{digest}")), "{lines:?}");
    }
    assert_eq!(lines.iter().filter(|line| *line == "POST /v2/a/blobs/uploads/").count(), 3);
    let digest = image.manifest.digest;
    let last = ["HEAD /v2/a/manifests/1", &format!("PUT /v2/a/manifests/{digest}"), "PUT /v2/a/manifests/1"];
    assert_eq!(lines[9..], last);
    let whole = String::from_utf8(image.manifest.bytes.clone()).unwrap();
    assert!(server.seen()[10..].iter().all(|seen| seen.body == whole));

    // Where all is there, it is only looked at.
    let server = Faulty::start(Content::image("a", "1", &image), Box::new(|_, _| None)).await;
    let pushed = client.push(dir.path(), &to(format!("{}/a:1", server.host)), &[], &Silent).await.unwrap();
    assert_eq!((pushed.sent, pushed.there), (0, 3));
    assert!(server.seen().iter().all(|seen| seen.method == "HEAD"), "{:?}", server.lines());
    assert_eq!(server.lines().len(), 4);
}

#[tokio::test]
async fn server_errors_are_tried_again() {
    // Every request twice: once the server is out of order.
    for method in ["HEAD", "POST", "PUT"] {
        let odd = std::sync::Mutex::new(std::collections::BTreeMap::<String, usize>::new());
        let fault = move |seen: &Seen, _| {
            let mut odd = odd.lock().unwrap();
            let before = odd.entry(format!("{} {}", seen.method, seen.path)).or_default();
            *before += 1;
            if seen.method == method && *before <= 2 { Some(status(500, "")) } else { takes(seen) }
        };
        let (_, dir) = image("one");
        let server = Faulty::start(Content::default(), Box::new(fault)).await;
        let pushed =
            push(ClientConfig { retries: 6, ..quick() }, &dir, &format!("{}/a:1", server.host)).await;
        assert_eq!(pushed.unwrap().sent, 3, "{method}");
    }
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let (image, dir) = image("one");
    let other = Digest::of("other").to_string();
    for (method, code, header, says, requests) in [
        ("POST", 405, None, "takes no images", 1),
        ("POST", 403, None, "does not let anyone without a login write to", 1),
        ("POST", 404, None, "has no repository `a` that could be pushed to", 1),
        ("PUT", 413, None, "refused as too large", 1),
        ("PUT", 500, None, "answered 500 Internal Server Error when asked for a place for blob", 3),
        ("PUT", 201, Some(other.as_str()), "and was sent", 1),
    ] {
        let header = header.map(str::to_owned);
        let fault = move |seen: &Seen, _| {
            if seen.method != method {
                return takes(seen);
            }
            let answer = status(code, "{}");
            Some(header.iter().fold(answer, |answer, header| with(answer, "docker-content-digest", header)))
        };
        // Only one blob is missing, so that requests can be counted.
        let mut content = Content::default();
        let mut rest = image.clone();
        rest.layers.pop();
        content.add_image("a", "2", &rest);
        let server = Faulty::start(content, Box::new(fault)).await;
        let error = push(quick(), &dir, &format!("{}/a:1", server.host)).await.unwrap_err();
        assert!(error.message().contains(says), "{says}: {error:?}");
        assert!(!error.hints().is_empty(), "{error:?}");
        assert_eq!(server.seen().iter().filter(|seen| seen.method == method).count(), requests, "{says}");
    }
}

#[tokio::test]
async fn a_login_does_not_go_to_where_a_session_is() {
    let elsewhere = Faulty::start(Content::default(), Box::new(|seen, _| takes(seen))).await;
    let session = format!("http://{}/elsewhere", elsewhere.host);
    let fault = move |seen: &Seen, _| match (&seen.authorization, seen.method.as_str()) {
        (None, _) => Some(with(status(401, ""), "www-authenticate", "Basic realm=\"x\"")),
        (_, "POST") => Some(with(status(202, ""), "location", &session)),
        _ => takes(seen),
    };
    let server = Faulty::start(Content::default(), Box::new(fault)).await;
    let (_, dir) = image("one");
    let (config, _home) = with_login(quick(), &server.host, USER, PASSWORD);
    let pushed = push(config, &dir, &format!("{}/a:1", server.host)).await.unwrap();
    assert_eq!(pushed.sent, 3);
    assert_eq!(elsewhere.seen().len(), 3);
    assert!(elsewhere.seen().iter().all(|seen| seen.method == "PUT" && seen.authorization.is_none()));
}

#[tokio::test]
async fn a_broken_layout_is_not_pushed() {
    let (image, dir) = image("one");
    let server = Faulty::start(Content::default(), Box::new(|seen, _| takes(seen))).await;
    let name = format!("{}/a:1", server.host);
    let layer = dir.path().join("blobs/sha256").join(image.layers[1].digest.hex());
    std::fs::write(&layer, b"short").unwrap();
    let error = push(quick(), &dir, &name).await.unwrap_err();
    assert!(error.message().contains("has 5 bytes, its manifest says"), "{error:?}");
    std::fs::remove_file(&layer).unwrap();
    assert!(push(quick(), &dir, &name).await.is_err());
    assert!(!server.lines().iter().any(|line| line.starts_with("PUT /v2")), "{:?}", server.lines());
}
