//! Registries that misbehave: each its own message, no request too many, no secret where it does not belong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bedplate::{
    digest::Digest,
    error::Kind,
    oci::{Client, ClientConfig, RegistryConfig},
};
use serde_json::json;

use super::{amd64, docker_config, quick, source, with_login, with_registry};
use crate::support::faulty::{Content, Faulty, Seen, cut_short, silent, stalls, status, with};
use crate::support::image::{Blob, DOCKER_INDEX, Image, ImageSpec, OCI_MANIFEST, index};

fn image() -> Image {
    ImageSpec::default().build()
}

/// An index under `a:1` with one image.
fn indexed() -> (Content, Image, Blob) {
    let image = image();
    let index = index(&[image.entry()]);
    let mut content = Content::image("a", "img", &image);
    content.add_manifest("a", "1", &index);
    (content, image, index)
}

#[tokio::test]
async fn no_request_too_many() {
    let (content, image, index) = indexed();
    let server = Faulty::start(content, Box::new(|_, _| None)).await;
    let client = Client::new(quick());
    let from = source(format!("{}/a:1", server.host));
    client.resolve(&from, &amd64()).await.unwrap();
    let want = [
        "GET /v2/a/manifests/1".to_owned(),
        format!("GET /v2/a/manifests/{}", image.manifest.digest),
        format!("GET /v2/a/blobs/{}", image.config.digest),
    ];
    assert_eq!(server.lines(), want);
    assert!(server.seen().iter().all(|seen| seen.authorization.is_none()));
    for media_type in ["oci.image.index.v1", "manifest.list.v2", "oci.image.manifest.v1", "manifest.v2"] {
        assert!(server.seen()[0].accept.contains(media_type), "{}", server.seen()[0].accept);
    }
    assert_eq!(client.head(&from).await.unwrap(), index.digest);
    assert_eq!(server.lines()[3..], ["HEAD /v2/a/manifests/1"]);
}

#[tokio::test]
async fn rate_limits_are_waited_for_as_asked() {
    let (content, _, _) = indexed();
    let limit = |_: &_, before: usize| (before < 1).then(|| with(status(429, "{}"), "retry-after", "1"));
    let server = Faulty::start(content.clone(), Box::new(limit)).await;
    let start = Instant::now();
    Client::new(quick()).head(&source(format!("{}/a:1", server.host))).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.lines().len(), 2);

    // A wait beyond what is allowed is not begun.
    let limit = |_: &_, _| Some(with(status(429, "{}"), "retry-after", "3600"));
    let server = Faulty::start(content, Box::new(limit)).await;
    let start = Instant::now();
    let error = Client::new(quick()).head(&source(format!("{}/a:1", server.host))).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(server.lines().len(), 1);
    assert!(error.message().contains("for another 3600 s, until "), "{error:?}");
    assert!(error.hints()[0].contains("mirror"), "{error:?}");
    assert_eq!(error.kind(), Kind::Failed);
}

#[tokio::test]
async fn server_errors_are_tried_again_a_few_times() {
    let (content, _, _) = indexed();
    let twice = |_: &_, before: usize| (before < 2).then(|| status(503, ""));
    let server = Faulty::start(content.clone(), Box::new(twice)).await;
    Client::new(quick()).resolve(&source(format!("{}/a:1", server.host)), &amd64()).await.unwrap();
    assert_eq!(server.lines().len(), 5);

    let server = Faulty::start(content, Box::new(|_, _| Some(status(500, "")))).await;
    let error =
        Client::new(quick()).resolve(&source(format!("{}/a:1", server.host)), &amd64()).await.unwrap_err();
    assert!(error.message().contains("answered 500 Internal Server Error"), "{error:?}");
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn refusals_are_not_tried_again() {
    for (code, says) in [
        (401, "wants a login of a kind that is not supported"),
        (403, "does not let anyone without a login read"),
        (404, "has no tag `1`"),
        (418, "answered 418"),
    ] {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"x"}]}"#;
        let server = Faulty::start(Content::default(), Box::new(move |_, _| Some(status(code, body)))).await;
        let from = source(format!("{}/a:1", server.host));
        let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
        assert!(error.message().contains(says), "{error:?}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn silence_ends() {
    let config = ClientConfig { retries: 0, ..quick() };
    let (_listener, address) = silent();
    let start = Instant::now();
    let error = Client::new(config.clone()).head(&source(format!("{address}/a:1"))).await.unwrap_err();
    assert!(error.message().contains("did not answer in time"), "{error:?}");

    let (content, image, _) = indexed();
    let manifest = image.manifest.bytes.clone();
    let digest = image.manifest.digest.to_string();
    let stall = move |seen: &Seen, _| seen.path.ends_with(&digest).then(|| stalls(&manifest));
    let server = Faulty::start(content, Box::new(stall)).await;
    let from = source(format!("{}/a:1", server.host));
    let error = Client::new(config).resolve(&from, &amd64()).await.unwrap_err();
    assert!(error.message().contains("stopped sending in the middle of"), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_body_cut_short_is_fetched_again() {
    let (content, image, _) = indexed();
    let bytes = image.config.bytes.clone();
    let cut =
        move |seen: &Seen, before| (seen.path.contains("/blobs/") && before < 3).then(|| cut_short(&bytes));
    let server = Faulty::start(content.clone(), Box::new(cut)).await;
    Client::new(quick()).resolve(&source(format!("{}/a:1", server.host)), &amd64()).await.unwrap();
    assert_eq!(server.lines().len(), 4);

    let layer = image.layers[0].clone();
    let bytes = layer.bytes.clone();
    let server = Faulty::start(content, Box::new(move |_, _| Some(cut_short(&bytes)))).await;
    let from = source(format!("{}/a:1", server.host));
    let mut sink = Vec::new();
    let size = layer.bytes.len() as u64;
    let error = Client::new(quick()).fetch_blob(&from, layer.digest, size, &mut sink).await.unwrap_err();
    assert!(error.message().contains("was cut short"), "{error:?}");
}

#[tokio::test]
async fn wrong_bytes_name_both_digests() {
    let (content, image, _) = indexed();
    let other = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
    for (which, want) in [("blobs", image.config.digest), ("manifests/sha256", image.manifest.digest)] {
        let mut other = other.clone();
        // The stated size bounds the read, so that other content must not be longer to be seen whole.
        other.truncate(image.config.bytes.len());
        let got = Digest::of(&other);
        let lie = move |seen: &Seen, _| {
            seen.path.contains(which).then(|| axum::http::Response::new(other.clone().into()))
        };
        let server = Faulty::start(content.clone(), Box::new(lie)).await;
        let from = source(format!("{}/a:1", server.host));
        let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
        assert!(error.message().contains(&format!("wanted {want}, got {got}")), "{error:?}");
    }
    // By tag the header is what the body is held against.
    let claimed = Digest::of("claimed");
    let lie = move |_: &_, _| {
        let answer = axum::http::Response::new(axum::body::Body::from("{}"));
        Some(with(answer, "docker-content-digest", &claimed.to_string()))
    };
    let server = Faulty::start(Content::default(), Box::new(lie)).await;
    let from = source(format!("{}/a:1", server.host));
    let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
    assert!(error.message().contains(&format!("wanted {claimed}, got {}", Digest::of("{}"))), "{error:?}");
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let (content, image, _) = indexed();
    let elsewhere = Faulty::start(content.clone(), Box::new(|_, _| None)).await;
    let target = elsewhere.host.clone();
    let fault = move |seen: &Seen, _: usize| {
        if seen.authorization.is_none() {
            return Some(with(status(401, ""), "www-authenticate", "Basic realm=\"x\""));
        }
        let to = format!("http://{target}{}", seen.path);
        seen.path.contains("/blobs/").then(|| with(status(307, ""), "location", &to))
    };
    let server = Faulty::start(content, Box::new(fault)).await;
    let (config, _dir) = with_login(quick(), &server.host, "user", "hunter2");
    let from = source(format!("{}/a:1", server.host));
    Client::new(config).resolve(&from, &amd64()).await.unwrap();
    let there = elsewhere.seen();
    assert_eq!(there.len(), 1);
    assert!(there[0].path.ends_with(&image.config.digest.to_string()));
    assert_eq!(there[0].authorization, None, "another port is another host");
    assert_eq!(
        server.lines().len(),
        4,
        "one request was answered by 401, and no other: {:?}",
        server.lines()
    );
}

#[tokio::test]
async fn redirects_end_and_keep_to_tls() {
    let (content, _, _) = indexed();
    let around = |seen: &Seen, _: usize| Some(with(status(307, ""), "location", &seen.path));
    let server = Faulty::start(content.clone(), Box::new(around)).await;
    let error = Client::new(quick()).head(&source(format!("{}/a:1", server.host))).await.unwrap_err();
    assert!(error.message().contains("redirects in circles"), "{error:?}");
    assert_eq!(server.lines().len(), 11);

    for location in ["http://192.0.2.1/x?signature=hunter2", "file:///etc/passwd"] {
        let away = move |_: &_, _: usize| Some(with(status(302, ""), "location", location));
        let server = Faulty::start(content.clone(), Box::new(away)).await;
        let error = Client::new(quick()).head(&source(format!("{}/a:1", server.host))).await.unwrap_err();
        assert!(error.message().contains("without TLS"), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    let nowhere = |_: &_, _: usize| Some(status(302, ""));
    let server = Faulty::start(content, Box::new(nowhere)).await;
    let error = Client::new(quick()).head(&source(format!("{}/a:1", server.host))).await.unwrap_err();
    assert!(error.message().contains("redirects to nowhere"), "{error:?}");
}

/// A server that wants tokens of the epoch and gives them out at its own `/token`.
async fn token_server(content: Content, epoch: &Arc<AtomicUsize>) -> Faulty {
    let epoch = epoch.clone();
    let fault = move |seen: &Seen, _: usize| {
        let now = epoch.load(Ordering::SeqCst);
        if seen.path.starts_with("/token") {
            return Some(status(200, &json!({"access_token": format!("t{now}")}).to_string()));
        }
        if seen.authorization.as_deref() == Some(&format!("Bearer t{now}")) {
            return None;
        }
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", seen.host);
        Some(with(status(401, ""), "www-authenticate", &challenge))
    };
    Faulty::start(content, Box::new(fault)).await
}

#[tokio::test]
async fn tokens_are_shared_and_renewed() {
    let (content, _, index) = indexed();
    let epoch = Arc::new(AtomicUsize::new(1));
    let server = token_server(content, &epoch).await;
    let tokens = || server.lines().iter().filter(|line| line.contains("/token")).count();
    let client = Client::new(quick());
    let from = source(format!("{}/a:1", server.host));
    for result in client.resolve_many(&vec![(from.clone(), amd64()); 8], |_, _| {}).await {
        result.unwrap();
    }
    assert_eq!(tokens(), 1, "one token serves all");
    let asked = server.lines().into_iter().find(|line| line.contains("/token")).unwrap();
    assert_eq!(asked, "GET /token?service=s&scope=repository%3Aa%3Apull");
    let before = server.lines().len();
    client.head(&from).await.unwrap();
    assert_eq!(server.lines().len(), before + 1, "what is known is not asked again");

    epoch.store(2, Ordering::SeqCst);
    assert_eq!(client.head(&from).await.unwrap(), index.digest);
    assert_eq!(tokens(), 2);
    let lines = server.lines();
    let last: Vec<_> = lines[before + 1..].iter().map(|line| line.split('?').next().unwrap()).collect();
    assert_eq!(last, ["HEAD /v2/a/manifests/1", "GET /token", "HEAD /v2/a/manifests/1"]);
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let (content, _, _) = indexed();
    let epoch = Arc::new(AtomicUsize::new(1));
    let server = token_server(content, &epoch).await;
    let dir = docker_config(&json!({"auths": {&server.host: {"identitytoken": "refresh me"}}}));
    let config = ClientConfig { docker_config: Some(dir.path().to_owned()), ..quick() };
    Client::new(config).head(&source(format!("{}/a:1", server.host))).await.unwrap();
    let exchange = server.seen().into_iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(exchange.method, "POST");
    assert_eq!(
        exchange.body,
        "grant_type=refresh_token&service=s&client_id=bedplate&scope=repository%3Aa%3Apull&\
         refresh_token=refresh+me"
    );
}

#[tokio::test]
async fn a_token_server_without_tls_elsewhere_gets_no_login() {
    for realm in ["http://192.0.2.1/token", "ftp://x/token", "token"] {
        let fault = move |_: &Seen, _: usize| {
            Some(with(status(401, ""), "www-authenticate", &format!("Bearer realm=\"{realm}\"")))
        };
        let server = Faulty::start(Content::default(), Box::new(fault)).await;
        let (config, _dir) = with_login(quick(), &server.host, "user", "hunter2");
        let error = Client::new(config).head(&source(format!("{}/a:1", server.host))).await.unwrap_err();
        assert!(error.message().contains("cannot be trusted with a login"), "{error:?}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": Digest::of("x").to_string(), "size": 9 << 20});
    let huge_config = json!({"schemaVersion": 2, "config": config, "layers": []}).to_string();
    let chart = huge_config.replace("oci.image.config", "cncf.helm.config");
    for (body, says) in [
        (" ".repeat(5 << 20), "is too large: more than 4194304 bytes"),
        ("<html>please log in</html>".to_owned(), "is not a manifest or configuration"),
        ("{}".to_owned(), "outdated schema 0"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "outdated schema 1"),
        (r#"{"schemaVersion":2}"#.to_owned(), "is not a manifest or configuration"),
        (huge_config, "configuration of "),
        (chart, "is no container image"),
    ] {
        let mut content = Content::default();
        content.add_manifest("a", "1", &Blob::new(OCI_MANIFEST, body.into_bytes()));
        let server = Faulty::start(content, Box::new(|_, _| None)).await;
        let from = source(format!("{}/a:1", server.host));
        let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
        assert!(error.message().contains(says), "{error:?}");
        assert_eq!(error.kind(), Kind::Failed);
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let endless = |_: &Seen, _: usize| {
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
        Some(axum::http::Response::new(axum::body::Body::from_stream(pieces)))
    };
    let server = Faulty::start(Content::default(), Box::new(endless)).await;
    let from = source(format!("{}/a:1", server.host));
    let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
    assert!(error.message().contains("too large"), "{error:?}");
}

#[tokio::test]
async fn nested_indices_go_one_level_deep() {
    let image = image();
    let mut content = Content::image("a", "img", &image);
    let inner = index(&[image.entry()]);
    let middle = index(&[inner.descriptor()]);
    let outer = index(&[middle.descriptor()]);
    for (tag, index) in [("inner", &inner), ("middle", &middle), ("outer", &outer)] {
        content.add_manifest("a", tag, index);
    }
    let server = Faulty::start(content, Box::new(|_, _| None)).await;
    let client = Client::new(quick());
    let resolved = client.resolve(&source(format!("{}/a:middle", server.host)), &amd64()).await.unwrap();
    assert_eq!((resolved.index, resolved.manifest), (Some(middle.digest), image.manifest.digest));
    let error = client.resolve(&source(format!("{}/a:outer", server.host)), &amd64()).await.unwrap_err();
    assert!(error.message().contains("deeper than one level"), "{error:?}");
}

#[tokio::test]
async fn an_index_that_lies_about_the_platform() {
    let arm = ImageSpec { architecture: "arm64", ..ImageSpec::default() }.build();
    let mut entry = arm.entry();
    entry["platform"]["architecture"] = json!("amd64");
    let mut content = Content::image("a", "img", &arm);
    let mut lying = index(&[entry]);
    lying.media_type = DOCKER_INDEX;
    content.add_manifest("a", "1", &lying);
    let server = Faulty::start(content, Box::new(|_, _| None)).await;
    let from = source(format!("{}/a:1", server.host));
    let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
    assert!(error.message().contains("is built for linux/arm64, not for linux/amd64"), "{error:?}");
}

type Answers = fn() -> axum::http::Response<axum::body::Body>;

#[tokio::test]
async fn a_mirror_that_lies_or_fails_is_passed_over() {
    let (content, image, _) = indexed();
    let origin = Faulty::start(content, Box::new(|_, _| None)).await;
    let pinned = format!("{}/a@{}", origin.host, image.manifest.digest);
    let answers: [Answers; 4] = [
        || status(500, ""),
        || status(404, ""),
        || with(status(429, ""), "retry-after", "3600"),
        || status(200, "{\"schemaVersion\":2}"),
    ];
    for answer in answers {
        let mirror = Faulty::start(Content::default(), Box::new(move |_, _| Some(answer()))).await;
        let mirrors = vec![format!("http://{}", mirror.host)];
        let registry = RegistryConfig { mirrors, ..RegistryConfig::default() };
        let (config, _dir) = with_login(with_registry(&origin.host, registry), &origin.host, "user", "x");
        let resolved = Client::new(config).resolve(&source(&pinned), &amd64()).await.unwrap();
        assert_eq!(resolved.manifest, image.manifest.digest);
        assert_eq!(mirror.lines().len(), 2, "once for the manifest, once for the configuration");
        assert!(mirror.seen().iter().all(|seen| seen.authorization.is_none()));
    }
}

#[tokio::test]
async fn many_at_once_in_order_with_their_own_errors() {
    let (content, image, _) = indexed();
    let server = Faulty::slow(content, Duration::from_millis(60)).await;
    let mut wanted: Vec<_> = (0..50).map(|_| (source(format!("{}/a:1", server.host)), amd64())).collect();
    wanted[7].0 = source(format!("{}/a:none", server.host));
    let heard = std::sync::Mutex::new(Vec::new());
    let client = Client::new(ClientConfig::default());
    let start = Instant::now();
    let results = client.resolve_many(&wanted, |n, _| heard.lock().unwrap().push(n)).await;
    let took = start.elapsed();
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(resolved) => assert_eq!(resolved.manifest, image.manifest.digest),
            Err(error) => assert!(n == 7 && error.message().contains("no tag `none`"), "{error:?}"),
        }
    }
    assert!(results[7].is_err());
    let mut heard = heard.into_inner().unwrap();
    heard.sort_unstable();
    assert_eq!(heard, (0..50).collect::<Vec<_>>());
    assert_eq!(server.lines().len(), 49 * 3 + 1);
    // Three round trips of 60 ms in all, with room for a busy machine; one by one it is nine seconds.
    println!("50 references behind 60 ms a round trip: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
