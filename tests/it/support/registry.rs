//! Debian's `docker-registry` on loopback: plain, with a login, with tokens, with TLS.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{Json, Router, extract::RawQuery, http::HeaderMap, http::StatusCode, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    free_port,
    image::{Blob, Image, ImageSpec, index},
    tls::Tls,
};

/// The one account of registries that want a login.
pub(crate) const USER: &str = "reader";
pub(crate) const PASSWORD: &str = "correct horse: battery";

/// How a registry lets one in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Basic,
    /// A token server of the test's own signs for the account, or for anyone who pulls from repositories under
    /// `public/`.
    Token,
    Tls,
}

/// A running registry; it ends with this value.
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`, as references write it.
    pub(crate) host: String,
    /// Where images are pushed to: the same content, plain.
    back_door: String,
    /// The authority's certificate, for [`Kind::Tls`].
    pub(crate) ca: Option<String>,
    children: Vec<Child>,
    _dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Registry {
    pub(crate) async fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut children = Vec::new();
        let back_door = serve(&dir, "plain", "", "", &mut children).await;
        let mut ca = None;
        let host = match kind {
            Kind::Plain => back_door.clone(),
            Kind::Basic => {
                let file = dir.path().join("htpasswd");
                let line = Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]).output().unwrap();
                assert!(line.status.success(), "htpasswd (package apache2-utils) failed");
                std::fs::write(&file, line.stdout).unwrap();
                let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
                serve(&dir, "basic", &auth, "", &mut children).await
            }
            Kind::Token => {
                let (realm, bundle) = token_server().await;
                let file = dir.path().join("token.pem");
                std::fs::write(&file, bundle).unwrap();
                let auth = format!(
                    "auth:\n  token:\n    realm: {realm}\n    service: test\n    issuer: bedplate-test\n    \
                     rootcertbundle: {}\n",
                    file.display()
                );
                serve(&dir, "token", &auth, "", &mut children).await
            }
            Kind::Tls => {
                let tls = Tls::new();
                let certificate = dir.path().join("tls.pem");
                let key = dir.path().join("tls.key");
                std::fs::write(&certificate, &tls.certificate).unwrap();
                std::fs::write(&key, &tls.key).unwrap();
                ca = Some(tls.ca);
                let tls = format!(
                    "  tls:\n    certificate: {}\n    key: {}\n",
                    certificate.display(),
                    key.display()
                );
                serve(&dir, "tls", "", &tls, &mut children).await
            }
        };
        Self { host, back_door, ca, children, _dir: dir }
    }

    /// Pushes an image as `name`, which is `REPOSITORY:TAG`.
    pub(crate) async fn push_image(&self, name: &str, spec: &ImageSpec) -> Image {
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let image = spec.build();
        self.push_parts(repository, &image).await;
        self.push_manifest(repository, tag, &image.manifest).await;
        image
    }

    /// Pushes an index of images as `name`. Returns the index and its images.
    pub(crate) async fn push_index(&self, name: &str, specs: &[ImageSpec]) -> (Blob, Vec<Image>) {
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let mut images = Vec::new();
        for spec in specs {
            let image = spec.build();
            self.push_parts(repository, &image).await;
            self.push_manifest(repository, &image.manifest.digest.to_string(), &image.manifest).await;
            images.push(image);
        }
        let index = index(&images.iter().map(Image::entry).collect::<Vec<_>>());
        self.push_manifest(repository, tag, &index).await;
        (index, images)
    }

    async fn push_parts(&self, repository: &str, image: &Image) {
        for blob in image.blobs() {
            let start = format!("http://{}/v2/{repository}/blobs/uploads/", self.back_door);
            let answer = http().post(start).send().await.unwrap();
            assert_eq!(answer.status(), 202);
            let location = answer.headers()["location"].to_str().unwrap();
            let mut location: url::Url = answer.url().join(location).unwrap();
            location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
            let answer = http()
                .put(location)
                .header("content-type", "application/octet-stream")
                .body(blob.bytes.clone())
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 201);
        }
    }

    pub(crate) async fn push_manifest(&self, repository: &str, name: &str, manifest: &Blob) {
        let answer = http()
            .put(format!("http://{}/v2/{repository}/manifests/{name}", self.back_door))
            .header("content-type", manifest.media_type)
            .body(manifest.bytes.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
    }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

async fn serve(dir: &TempDir, name: &str, auth: &str, tls: &str, children: &mut Vec<Child>) -> String {
    let port = free_port();
    let config = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
         rootdirectory: {}\n{auth}http:\n  addr: 127.0.0.1:{port}\n{tls}",
        dir.path().join("content").display()
    );
    let file = dir.path().join(format!("{name}.yml"));
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::create(dir.path().join(format!("{name}.log"))).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(log)
        .env("OTEL_TRACES_EXPORTER", "none")
        .spawn()
        .expect("docker-registry (package docker-registry) is installed");
    children.push(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        let log = std::fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap_or_default();
        assert!(Instant::now() < deadline, "the registry does not listen: {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    format!("127.0.0.1:{port}")
}

/// Starts a token server (distribution, "Token Authentication Specification"). Returns its address and the
/// certificate its tokens are signed with.
async fn token_server() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["token.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = certificate.pem();
    let x5c = STANDARD.encode(certificate.der());
    let key = Arc::new(key);
    let answer = async move |RawQuery(query): RawQuery, headers: HeaderMap| {
        let login = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let given = headers.get("authorization").and_then(|v| v.to_str().ok());
        if given.is_some_and(|given| given != login) {
            return (StatusCode::UNAUTHORIZED, Json(json!({"details": "incorrect username or password"})));
        }
        let query = query.unwrap_or_default();
        let scopes = url::form_urlencoded::parse(query.as_bytes()).filter(|(k, _)| k == "scope");
        let access: Vec<Value> = scopes
            .filter_map(|(_, scope)| {
                let [kind, name, actions] = scope.split(':').collect::<Vec<_>>()[..] else { return None };
                let allowed =
                    |action: &&str| given.is_some() || (*action == "pull" && name.starts_with("public/"));
                let actions: Vec<&str> = actions.split(',').filter(allowed).collect();
                (!actions.is_empty()).then(|| json!({"type": kind, "name": name, "actions": actions}))
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [x5c]});
        let claims = json!({
            "iss": "bedplate-test", "sub": "", "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": "1", "access": access,
        });
        let body = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = fixed(&key.sign(body.as_bytes()).unwrap());
        let token = format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature));
        (StatusCode::OK, Json(json!({"token": token, "expires_in": 300})))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/token", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}/token"), pem)
}

/// An ECDSA signature as JWS wants it (RFC 7518, 3.4): the two numbers of the ASN.1 form, 32 bytes each.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let start = number.iter().position(|b| *b != 0).unwrap_or(number.len());
        let number = &number[start..];
        out.extend(std::iter::repeat_n(0, 32 - number.len()));
        out.extend_from_slice(number);
        rest = after;
    }
    out
}
