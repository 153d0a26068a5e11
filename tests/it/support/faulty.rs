//! A registry that misbehaves as a test wants: every request is seen, any answer can be replaced.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    body::Body,
    extract::Request,
    http::{Response, StatusCode},
};

use super::image::{Blob, Image};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path with query.
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) accept: String,
    /// The server's own address, as the client names it.
    pub(crate) host: String,
    pub(crate) body: String,
}

/// What the server holds: path to media type and bytes.
#[derive(Clone, Default)]
pub(crate) struct Content(HashMap<String, (String, Vec<u8>)>);

impl Content {
    /// An image under `repository:tag`.
    pub(crate) fn image(repository: &str, tag: &str, image: &Image) -> Self {
        let mut content = Self::default();
        content.add_image(repository, tag, image);
        content
    }

    pub(crate) fn add_image(&mut self, repository: &str, tag: &str, image: &Image) {
        self.add_manifest(repository, tag, &image.manifest);
        for blob in image.blobs() {
            let path = format!("/v2/{repository}/blobs/{}", blob.digest);
            self.0.insert(path, ("application/octet-stream".to_owned(), blob.bytes.clone()));
        }
    }

    /// A manifest or index, by tag and by digest.
    pub(crate) fn add_manifest(&mut self, repository: &str, tag: &str, manifest: &Blob) {
        for name in [tag, &manifest.digest.to_string()] {
            let path = format!("/v2/{repository}/manifests/{name}");
            self.0.insert(path, (manifest.media_type.to_owned(), manifest.bytes.clone()));
        }
    }
}

/// Replaces an answer: from the request and how many came before it. `None` lets the content through.
pub(crate) type Fault = Box<dyn Fn(&Seen, usize) -> Option<Response<Body>> + Send + Sync>;

pub(crate) struct Faulty {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Faulty {
    pub(crate) async fn start(content: Content, fault: Fault) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, content, fault, std::time::Duration::ZERO)
    }

    /// One that lets every request wait first.
    pub(crate) async fn slow(content: Content, wait: std::time::Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, content, Box::new(|_, _| None), wait)
    }

    fn on(
        listener: tokio::net::TcpListener,
        content: Content,
        fault: Fault,
        wait: std::time::Duration,
    ) -> Self {
        let host = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = seen.clone();
        let shared = Arc::new((content, fault));
        let app = axum::Router::new().fallback(move |request: Request| {
            let (log, shared) = (log.clone(), shared.clone());
            async move {
                let (request, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
                let header =
                    |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
                let this = Seen {
                    method: request.method.to_string(),
                    path: request.uri.to_string(),
                    authorization: header("authorization"),
                    accept: header("accept").unwrap_or_default(),
                    host: header("host").unwrap_or_default(),
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
                let before = {
                    let mut log = log.lock().unwrap();
                    log.push(this.clone());
                    log.len() - 1
                };
                tokio::time::sleep(wait).await;
                let (content, fault) = &*shared;
                fault(&this, before).unwrap_or_else(|| answer(content, &this.path))
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { host, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `METHOD PATH` of every request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }
}

fn answer(content: &Content, path: &str) -> Response<Body> {
    match content.0.get(path) {
        Some((media_type, bytes)) => Response::builder()
            .header("content-type", media_type)
            .header("docker-content-digest", bedplate::digest::Digest::of(bytes).to_string())
            .body(bytes.clone().into())
            .unwrap(),
        None => status(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    }
}

/// An answer of a status with a body.
pub(crate) fn status(status: u16, body: &str) -> Response<Body> {
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body.to_owned().into()).unwrap()
}

/// An answer with one more header.
pub(crate) fn with(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

/// A body that announces more than it holds and then breaks off.
pub(crate) fn cut_short(bytes: &[u8]) -> Response<Body> {
    use futures_util::StreamExt;
    let half = bytes[..bytes.len() / 2].to_vec();
    // The break comes later, or the head of the answer would not be sent at all.
    let cut = futures_util::stream::once(async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut"))
    });
    Response::builder()
        .header("content-length", bytes.len())
        .body(Body::from_stream(futures_util::stream::iter([Ok(half)]).chain(cut)))
        .unwrap()
}

/// A body that begins and then never goes on.
pub(crate) fn stalls(bytes: &[u8]) -> Response<Body> {
    use futures_util::StreamExt;
    let half = bytes[..bytes.len() / 2].to_vec();
    let begin = futures_util::stream::iter([Ok::<_, std::io::Error>(half)]);
    Response::builder()
        .header("content-length", bytes.len())
        .body(Body::from_stream(begin.chain(futures_util::stream::pending())))
        .unwrap()
}

/// Listens and accepts, and never says a word. Its address.
pub(crate) fn silent() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
