#![allow(clippy::disallowed_methods)]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    body::Body as Page,
    http::{HeaderMap as Headers, Response as Reply},
    routing::get,
};

use super::*;

fn quick() -> Settings {
    Settings {
        retries: 2,
        backoff: Duration::from_millis(5),
        longest_wait: Duration::from_secs(1),
        stall_timeout: Duration::from_millis(300),
        response_timeout: Duration::from_millis(500),
        ..Settings::default()
    }
}

async fn serve(router: Router) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn reply(status: u16, headers: &[(&str, &str)], body: &'static str) -> Reply<Page> {
    let mut reply = Reply::builder().status(status);
    for (name, value) in headers {
        reply = reply.header(*name, *value);
    }
    reply.body(Page::from(body)).unwrap()
}

#[test]
fn paths_are_quoted_below_a_base() {
    for (base, path, url) in [
        ("http://h/debian", "pool/a/b_1%3a2+3~4.deb", "http://h/debian/pool/a/b_1%253a2+3~4.deb"),
        ("http://h/debian/", "a?b#c d", "http://h/debian/a%3Fb%23c%20d"),
        ("http://h", "x", "http://h/x"),
        ("file:///srv/m", "dists/s/InRelease", "file:///srv/m/dists/s/InRelease"),
    ] {
        assert_eq!(below(&base.parse().unwrap(), path).as_str(), url);
    }
}

#[tokio::test]
async fn conditions_ranges_and_retries() {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let router = Router::new()
        .route(
            "/base/f",
            get(|headers: Headers| async move {
                if headers.get("if-none-match").is_some_and(|etag| etag == "\"1\"") {
                    return reply(304, &[], "");
                }
                match headers.get("range").and_then(|range| range.to_str().ok()) {
                    Some("bytes=2-") => {
                        reply(206, &[("content-range", "bytes 2-4/5"), ("etag", "\"1\"")], "cde")
                    }
                    Some("bytes=3-") => reply(206, &[("content-range", "bytes 0-4/5")], "abcde"),
                    Some(_) => reply(416, &[], ""),
                    None => reply(200, &[("etag", "\"1\"")], "abcde"),
                }
            }),
        )
        .route(
            "/base/later",
            get(move || async move {
                if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                    reply(503, &[("retry-after", "0")], "")
                } else {
                    reply(200, &[], "now")
                }
            }),
        )
        .route("/base/busy", get(|| async { reply(429, &[("retry-after", "3600")], "") }))
        .route("/base/secret", get(|| async { reply(403, &[], "") }))
        .route("/base/away", get(|| async { reply(302, &[("location", "f")], "") }))
        .route("/base/circle", get(|| async { reply(302, &[("location", "circle")], "") }))
        .route("/base/out", get(|| async { reply(302, &[("location", "ftp://x/y")], "") }));
    let base = serve(router).await;
    let transport = Transport::new(quick());
    let whole = async |path: &str, ask: Ask<'_>| transport.whole(&below(&base, path), ask, 5).await;

    let (content, validators) = whole("f", Ask::default()).await.unwrap().unwrap();
    assert_eq!((content.as_slice(), validators.strongest()), (&b"abcde"[..], Some("\"1\"")));
    assert!(whole("f", Ask { unless: Some(&validators), ..Ask::default() }).await.unwrap().is_none());
    assert_eq!(whole("later", Ask::default()).await.unwrap().unwrap().0, b"now");
    assert_eq!(whole("away", Ask::default()).await.unwrap().unwrap().0, b"abcde");

    let Ok(Answer::Body(body)) = transport.open(&below(&base, "f"), Ask { from: 2, ..Ask::default() }).await
    else {
        panic!("a body was expected");
    };
    assert_eq!((body.from, body.total), (2, Some(5)));
    let pieces: Vec<_> = body.pieces.map(|piece| piece.unwrap().to_vec()).collect().await;
    assert_eq!(pieces.concat(), b"cde");

    for (path, from, why, says) in [
        ("none", 0, Why::Absent, "answers 404"),
        ("f", 9, Why::Range, "416"),
        ("f", 3, Why::Other, "not asked for"),
        ("busy", 0, Why::Other, "asks to wait 3600 s"),
        ("secret", 0, Why::Other, "does not let this machine read the file"),
        ("circle", 0, Why::Other, "in circles"),
        ("out", 0, Why::Other, "no web address"),
    ] {
        let ask = Ask { what: "the file", from, ..Ask::default() };
        let failure = transport.open(&below(&base, path), ask).await.err().unwrap();
        assert_eq!(failure.why, why, "{path}: {}", failure.error);
        assert!(failure.error.message().contains(says), "{path}: {}", failure.error);
        assert!(!failure.error.hints().is_empty());
    }
    let large = transport.whole(&below(&base, "f"), Ask::default(), 4).await.unwrap_err();
    assert!(large.error.message().contains("too large"), "{}", large.error);
}

#[tokio::test]
async fn a_host_that_is_not_there_and_one_that_drips() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/", closed.local_addr().unwrap()).parse().unwrap();
    drop(closed);
    let transport = Transport::new(quick());
    let failure = transport.whole(&url, Ask::default(), 9).await.unwrap_err();
    assert_eq!(failure.why, Why::Unreachable);
    assert!(failure.error.message().contains("refused the connection"), "{}", failure.error);

    let router = Router::new().route(
        "/base/f",
        get(|| async {
            let pieces = stream::iter([Ok::<_, std::io::Error>("a")]).chain(stream::pending());
            Reply::new(Page::from_stream(pieces))
        }),
    );
    let base = serve(router).await;
    let failure =
        transport.whole(&below(&base, "f"), Ask { what: "it", ..Ask::default() }, 9).await.unwrap_err();
    assert!(failure.error.message().contains("stopped sending in the middle of it"), "{}", failure.error);
}

#[tokio::test]
async fn a_server_that_hangs_is_told_of_and_given_up() {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let router = Router::new().route(
        "/base/f",
        get(|| async move {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Reply<Page>>().await
        }),
    );
    let url = below(&serve(router).await, "f");
    let (notice, limit) = (Duration::from_millis(20), Duration::from_millis(100));
    let transport = Transport::new(Settings {
        retries: 9,
        connect_timeout: limit,
        response_timeout: limit,
        notice_after: notice,
        notice_every: notice,
        ..quick()
    });
    let told = Mutex::new(Vec::new());
    let waits = |silent| told.lock().unwrap().push(silent);
    let ask = Ask { what: "the release file", waits: Some(&waits), ..Ask::default() };
    let failure = transport.whole(&url, ask, 9).await.unwrap_err();
    assert_eq!((failure.why, asked.load(Ordering::Relaxed)), (Why::Unreachable, 2));
    let (host, message) = (failure::authority(&url), failure.error.message());
    assert!(message.starts_with(&format!("`{host}` did not answer in time")), "{message}");
    assert!(failure.error.hints()[0].contains("--mirror URL"), "{:?}", failure.error);
    let told = told.into_inner().unwrap();
    let silent: Vec<Duration> = told.iter().copied().flatten().collect();
    assert!(!silent.is_empty() && silent.iter().all(|silent| *silent >= notice), "{told:?}");
    assert!(silent.is_sorted(), "the silence goes on over both tries: {told:?}");
    assert_eq!(told.last(), Some(&None), "and ends");
}

#[tokio::test]
async fn a_body_that_hardly_comes_is_given_up() {
    let router = Router::new().route(
        "/base/f",
        get(|| async {
            let drip = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Some((Ok::<_, std::io::Error>("a"), ()))
            });
            Reply::new(Page::from_stream(drip))
        }),
    );
    let url = below(&serve(router).await, "f");
    let slow = Settings { slow_after: Duration::from_millis(50), slowest: 1 << 20, ..quick() };
    let ask = Ask { what: "the index", ..Ask::default() };
    let failure = Transport::new(slow).whole(&url, ask, 1 << 20).await.unwrap_err();
    assert_eq!(failure.why, Why::Slow);
    let message = failure.error.message();
    assert!(message.contains("is too slow: ") && message.contains(" bytes came of the index"), "{message}");
}

#[test]
fn only_what_is_waited_for_counts_as_slow() {
    let new = || Pace { slow_after: Duration::from_secs(60), slowest: 100, waited: Duration::ZERO, bytes: 0 };
    let second = Duration::from_secs(1);
    let mut pace = new();
    assert!((0..59).all(|_| !pace.is_slow(second, 1)));
    assert!(pace.is_slow(second, 1), "60 bytes in a minute");
    let mut pace = new();
    assert!((0..600).all(|_| !pace.is_slow(second, 100)));
    // What comes at once was not waited for.
    assert!((0..600).all(|_| !pace.is_slow(Duration::ZERO, 1)));
}

#[tokio::test]
async fn files_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "abc").unwrap();
    let base = Url::from_directory_path(dir.path()).unwrap();
    let transport = Transport::new(quick());
    assert_eq!(transport.whole(&below(&base, "f"), Ask::default(), 3).await.unwrap().unwrap().0, b"abc");
    let failure = transport.whole(&below(&base, "g"), Ask::default(), 3).await.unwrap_err();
    assert_eq!(failure.why, Why::Absent);
}
