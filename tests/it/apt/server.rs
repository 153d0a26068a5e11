//! An archive on loopback that misbehaves as a test wants. Every request is seen; what it holds can be changed between
//! two of them.

use std::sync::{Arc, Mutex};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Response},
};
use bedplate::digest::Digest;

use super::archive::Archive;
use crate::support::faulty::status;

/// A request as it came: method, path below the base, and how many came before it.
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) before: usize,
    /// The archive, to be changed: the answer comes from it as it then is.
    pub(crate) archive: &'a mut Archive,
}

/// Replaces an answer, or changes the archive and lets it answer (`None`).
pub(crate) type Fault = Box<dyn FnMut(Asked<'_>) -> Option<Response<Body>> + Send>;

struct State {
    archive: Archive,
    fault: Fault,
    seen: Vec<String>,
}

/// A running server.
pub(crate) struct Server {
    /// Its base address, without a slash at its end.
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// One that answers as it should.
    pub(crate) async fn start(archive: Archive) -> Self {
        Self::faulty(archive, Box::new(|_| None)).await
    }

    pub(crate) async fn faulty(archive: Archive, fault: Fault) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/archive", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { archive, fault, seen: Vec::new() }));
        let shared = state.clone();
        let app = axum::Router::new().fallback(move |request: Request| {
            let shared = shared.clone();
            async move { answer(&mut shared.lock().unwrap(), &request) }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, state }
    }

    /// `METHOD PATH` of every request since the last call, with the status it got.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    /// Changes what it holds.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Archive)) {
        change(&mut self.state.lock().unwrap().archive);
    }
}

fn answer(state: &mut State, request: &Request) -> Response<Body> {
    let path = request.uri().path();
    let path = path.strip_prefix("/archive/").unwrap_or(path);
    let path = percent(path);
    let State { archive, fault, seen } = state;
    let replaced = fault(Asked { path: &path, before: seen.len(), archive });
    let response = replaced.unwrap_or_else(|| match archive.0.get(&path) {
        Some(bytes) => file(bytes, request.headers()),
        None => status(404, "not here"),
    });
    seen.push(format!("{} {path} {}", request.method(), response.status().as_u16()));
    response
}

/// A file with its entity tag; a part of it, or word that it has not changed, where asked for.
fn file(bytes: &[u8], headers: &HeaderMap) -> Response<Body> {
    let tag = format!("\"{}\"", Digest::of(bytes).hex());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("if-none-match") == Some(&tag) {
        return Response::builder().status(304).header("etag", tag).body(Body::empty()).unwrap();
    }
    let fits = header("if-range").is_none_or(|range| range == tag);
    let start = header("range")
        .filter(|_| fits)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let builder = Response::builder().header("etag", tag).header("accept-ranges", "bytes");
    match start {
        None => builder.body(bytes.to_vec().into()).unwrap(),
        Some(start) if start < bytes.len() => builder
            .status(206)
            .header("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
            .body(bytes[start..].to_vec().into())
            .unwrap(),
        Some(_) => builder
            .status(416)
            .header("content-range", format!("bytes */{}", bytes.len()))
            .body(Body::empty())
            .unwrap(),
    }
}

/// Without percent signs.
fn percent(path: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let code: String = bytes.by_ref().take(2).map(char::from).collect();
            out.push(u8::from_str_radix(&code, 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}
