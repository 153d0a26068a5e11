//! `lock` against registries that refuse, stall, cut short or lie.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bedplate::digest::Digest;
use rustix::process::{Pid, Signal, kill_process};

use super::{Place, TOKEN, profile};
use crate::support::{
    faulty::{Content, Fault, Faulty, Seen, cut_short, silent, stalls, status, with},
    image::{Image, ImageSpec},
    registry::{Kind, PASSWORD, Registry, USER},
    tls::Tls,
};

/// A profile `p` with the image `HOST/a:1`, and settings that do not let a test wait.
fn place(host: &str) -> Place {
    let place = Place::with(&format!("vllm = \"{host}/a:1\""), "");
    place.config("timeout-seconds = 1\nretries = 0\n");
    place
}

fn login(place: &Place, host: &str, password: &str) {
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    let config = serde_json::json!({ "auths": { host: { "auth": auth } } });
    place.put_private("home/.docker/config.json", &config.to_string());
}

fn image() -> Image {
    ImageSpec::default().build()
}

async fn faulty(fault: Fault) -> (Faulty, Place) {
    let server = Faulty::start(Content::image("a", "1", &image()), fault).await;
    let place = place(&server.host);
    (server, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_or_repository_that_is_not_there() {
    let registry = Registry::start(Kind::Plain).await;
    registry.push_image("b:1", &ImageSpec::default()).await;
    let place = place(&registry.host);
    let named = format!("{}/a", registry.host);
    place.refuses(["lock", "p"], 1, &[&named], "");
    place.put("profiles/p.toml", profile(&format!("vllm = \"{}/b:2\"", registry.host), ""));
    place.refuses(["lock", "p"], 1, &[&format!("`{}/b` has no tag `2`", registry.host)], "");
    let digest = Digest::of(b"nothing");
    place.put("profiles/p.toml", profile(&format!("vllm = \"{}/b@{digest}\"", registry.host), ""));
    place.refuses(["lock", "p"], 1, &[&digest.to_string()], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_platform() {
    let registry = Registry::start(Kind::Plain).await;
    let arm = ImageSpec { architecture: "arm64", ..ImageSpec::default() };
    registry.push_image("a:1", &arm).await;
    let place = place(&registry.host);
    place.refuses(["lock", "p"], 1, &["linux/arm64", "linux/amd64"], "");
    let s390 = ImageSpec { architecture: "s390x", ..ImageSpec::default() };
    registry.push_index("a:1", &[arm, s390]).await;
    place.refuses(["lock", "p"], 1, &["linux/arm64", "linux/s390x", "linux/amd64"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_missing_or_wrong() {
    for kind in [Kind::Basic, Kind::Token] {
        let registry = Registry::start(kind).await;
        registry.push_image("a:1", &ImageSpec::default()).await;
        let place = place(&registry.host);
        let hint = format!("docker login {}", registry.host);
        place.refuses(["lock", "p"], 1, &[&registry.host, "login"], &hint);
        login(&place, &registry.host, TOKEN);
        let ran = place.refuses(["-vvv", "lock", "p"], 1, &[&registry.host], &hint);
        assert!(!ran.err.contains(&STANDARD.encode(format!("{USER}:{TOKEN}"))), "{}", ran.err);
        login(&place, &registry.host, PASSWORD);
        let ran = place.run(["-vvv", "lock", "p"]);
        ran.exits(0);
        assert!(!ran.err.contains(PASSWORD) && !place.text("profiles/p.lock").contains(PASSWORD));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_configuration_that_cannot_be_read() {
    let (_server, place) =
        faulty(Box::new(|_, _| Some(with(status(401, ""), "www-authenticate", "Basic realm=\"x\"")))).await;
    for text in ["{", "[]", "{\"auths\": {\"x\": {\"auth\": 7}}}"] {
        place.put_private("home/.docker/config.json", text);
        let ran = place.run(["lock", "p"]);
        assert!(matches!(ran.code, Some(1 | 2)), "{ran:?}");
        ran.says("config.json").says("hint: ");
    }
    let helper = r#"{"credsStore": "not-installed"}"#;
    place.put_private("home/.docker/config.json", helper);
    let ran = place.run(["lock", "p"]);
    ran.exits(1).says("docker-credential-not-installed").says("hint: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_refusals() {
    for (code, says, hint) in [
        (401, "login", ""),
        (403, "does not let anyone without a login read", "docker login"),
        (404, "has no tag `1`", ""),
        (418, "answered 418", ""),
        (500, "answered 500", ""),
        (503, "answered 503", ""),
    ] {
        let (server, place) = faulty(Box::new(move |_, _| Some(status(code, "{}")))).await;
        place.refuses(["lock", "p"], 1, &[&server.host, says], hint);
        assert_eq!(server.lines().len(), 1, "{code}: {:?}", server.lines());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests() {
    let (server, place) = faulty(Box::new(|_, _| Some(with(status(429, "{}"), "retry-after", "3600")))).await;
    place.config("retries = 5");
    let start = Instant::now();
    place.refuses(["lock", "p"], 1, &[&server.host, "3600 s"], "mirror");
    assert!(start.elapsed() < Duration::from_secs(3));

    // A wait that is short is waited.
    let first = |_: &Seen, before| (before == 0).then(|| with(status(429, "{}"), "retry-after", "1"));
    let (server, place) = faulty(Box::new(first)).await;
    place.config("retries = 1");
    let start = Instant::now();
    place.run(["lock", "p"]).exits(0);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.lines()[0], server.lines()[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_server_are_tried_again() {
    let (server, place) = faulty(Box::new(|_, before| (before == 0).then(|| status(502, "")))).await;
    place.config("retries = 1");
    place.run(["lock", "p"]).exits(0);
    assert_eq!(server.lines()[0], server.lines()[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence() {
    let (_listener, address) = silent();
    let quiet = place(&address.to_string());
    let start = Instant::now();
    quiet.refuses(["lock", "p"], 1, &[&address.to_string(), "did not answer in time"], "network");

    let (_server, stalled) = faulty(Box::new(|_, _| Some(stalls(&image().manifest.bytes)))).await;
    stalled.refuses(["lock", "p"], 1, &["stopped sending in the middle of"], "network");
    assert!(start.elapsed() < Duration::from_secs(8));

    let closed = crate::support::free_port();
    let place = place(&format!("127.0.0.1:{closed}"));
    place.refuses(["lock", "p"], 1, &["refused the connection"], "check that the registry runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_cut_short_and_other_bytes() {
    let config = image().config;
    let bytes = config.bytes.clone();
    let cut = move |seen: &Seen, _| seen.path.contains("/blobs/").then(|| cut_short(&bytes));
    let (server, place) = faulty(Box::new(cut)).await;
    place.refuses(["lock", "p"], 1, &[&server.host, "cut short"], "try again");

    let other = b"{\"architecture\":\"amd64\",\"os\":\"linux\"}";
    let lie = |seen: &Seen, _| {
        seen.path.contains("/blobs/").then(|| status(200, std::str::from_utf8(other).unwrap()))
    };
    let (_server, place) = faulty(Box::new(lie)).await;
    let (want, got) = (config.digest.to_string(), Digest::of(other).to_string());
    place.refuses(["lock", "p"], 1, &[&want, &got, "sent other content"], "do not use this image");

    let page = "<!doctype html><title>Sign in</title>";
    let (server, place) =
        faulty(Box::new(move |_, _| Some(with(status(200, page), "content-type", "text/html")))).await;
    place.refuses(["lock", "p"], 1, &[&server.host], "registry and not a web page");

    let endless = |_: &Seen, _| Some(status(200, &" ".repeat(9 << 20)));
    let (_server, place) = faulty(Box::new(endless)).await;
    place.refuses(["lock", "p"], 1, &["too large"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_does_not_follow_to_another_host() {
    let image = image();
    let elsewhere = Faulty::start(Content::image("a", "1", &image), Box::new(|_, _| None)).await;
    let other = elsewhere.host.clone();
    let wanted = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let fault = move |seen: &Seen, _| {
        if seen.authorization.as_ref() != Some(&wanted) {
            return Some(with(status(401, ""), "www-authenticate", "Basic realm=\"test\""));
        }
        let blob = seen.path.contains("/blobs/");
        blob.then(|| with(status(307, ""), "location", &format!("http://{other}{}", seen.path)))
    };
    let (server, place) = faulty(Box::new(fault)).await;
    login(&place, &server.host, PASSWORD);
    place.run(["lock", "p"]).exits(0);
    assert!(server.seen().iter().any(|seen| seen.authorization.is_some()));
    assert!(!elsewhere.seen().is_empty());
    for seen in elsewhere.seen() {
        assert_eq!(seen.authorization, None, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_lead_nowhere() {
    let (_server, place) =
        faulty(Box::new(|seen: &Seen, _| Some(with(status(307, ""), "location", &seen.path)))).await;
    place.refuses(["lock", "p"], 1, &["redirect"], "");
    let (_server, place) =
        faulty(Box::new(|_, _| Some(with(status(307, ""), "location", "file:///etc/shadow")))).await;
    place.refuses(["lock", "p"], 1, &[], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_fails_is_said_and_the_old_lock_stays() {
    let mut content = Content::image("a", "1", &image());
    content.add_image("b", "1", &image());
    let server = Faulty::start(content, Box::new(|_, _| None)).await;
    let place = place(&server.host);
    place.run(["lock", "p"]).exits(0);
    let old = place.text("profiles/p.lock");
    let images =
        ["vllm = \"HOST/a:1\"", "b = \"HOST/b:1\"", "c = \"HOST/c:1\"", "d = \"HOST/d:1\""].join("\n");
    place.put("profiles/p.toml", profile(&images.replace("HOST", &server.host), ""));
    place.refuses(["lock", "p"], 1, &["/c`", "/d`"], "");
    assert_eq!(place.text("profiles/p.lock"), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority() {
    let registry = Registry::start(Kind::Tls).await;
    registry.push_image("a:1", &ImageSpec::default()).await;
    let place = place(&registry.host);
    let host = &registry.host;
    let settings = |more: &str| {
        place.config(&format!("timeout-seconds = 5\nretries = 0\n[registry.\"{host}\"]\n{more}\n"));
    };
    place.put("other.pem", Tls::new().ca);
    settings(&format!("ca = \"{}\"", place.at("other.pem").display()));
    place.refuses(["lock", "p"], 1, &[host, "an authority this machine does not know"], "`ca`");
    settings("ca = \"/nonexistent/ca.pem\"");
    place.refuses(["lock", "p"], 2, &["/nonexistent/ca.pem"], "");
    place.put("ca.pem", "not a certificate");
    settings(&format!("ca = \"{}\"", place.at("ca.pem").display()));
    place.run(["lock", "p"]).says("ca.pem").says("hint: ");
    place.put("ca.pem", registry.ca.as_ref().unwrap());
    place.run(["lock", "p"]).exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors() {
    let mirror = Faulty::start(Content::image("a", "1", &image()), Box::new(|_, _| None)).await;
    let (server, place) = faulty(Box::new(|_, _| Some(status(500, "")))).await;
    let set = |mirror: &str| {
        place.config(&format!("retries = 0\n[registry.\"{}\"]\nmirrors = [\"{mirror}\"]\n", server.host));
    };
    set("ftp://x");
    place.refuses(["lock", "p"], 2, &["mirror `ftp://x`", "is not an address"], "https://HOST");
    set(&format!("http://{}", mirror.host));
    place.run(["lock", "p"]).exits(0);
    assert!(server.lines().is_empty(), "{:?}", server.lines());
    assert!(
        place.text("profiles/p.lock").contains(&format!("{}/a:1", server.host)),
        "a lock names no location"
    );
}

#[test]
fn interrupted() {
    for (signal, code, name) in [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM")] {
        let (listener, address) = silent();
        let place = Place::with(&format!("vllm = \"{address}/a:1\""), "");
        let before = place.snapshot();
        let mut command = place.command(["lock", "p"]);
        let child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It is at work when it has asked.
        let _connection = listener.accept().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(err.contains(&format!("error: interrupted by {name}")), "{err}");
        assert_eq!(before, place.snapshot());
    }
}
