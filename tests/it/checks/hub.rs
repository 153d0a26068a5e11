//! The model hub: a server on loopback that answers as the hub does, and one that does not answer.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Path as Route,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::get,
};
use bedplate::{
    host::facts::{Hub, Known, Sources, gather},
    system::files::Root,
};
use secrecy::SecretString;

use super::*;

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

/// `open` is for all, `gated` for the token `good`, `hidden` for nobody, everything else is not there.
async fn model(Route((_, name)): Route<(String, String)>, headers: HeaderMap) -> impl IntoResponse {
    let body = |gated| {
        let siblings = serde_json::json!([{ "rfilename": "model.safetensors", "size": 1000 }, { "rfilename": "config.json", "size": 24 }]);
        (StatusCode::OK, serde_json::json!({ "gated": gated, "siblings": siblings }).to_string())
    };
    match (name.as_str(), token(&headers)) {
        (_, Some("bad")) | ("hidden", _) => (StatusCode::UNAUTHORIZED, String::new()),
        ("open", _) => body(serde_json::json!(false)),
        ("gated", _) => body(serde_json::json!("manual")),
        ("broken", _) => (StatusCode::OK, "<html>".to_owned()),
        ("slow", _) => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            body(serde_json::json!(false))
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    }
}

async fn configuration(headers: HeaderMap) -> StatusCode {
    match token(&headers) {
        Some("good") => StatusCode::OK,
        Some(_) => StatusCode::FORBIDDEN,
        None => StatusCode::UNAUTHORIZED,
    }
}

async fn serve() -> String {
    let router = Router::new()
        .route("/api/models/{organisation}/{name}", get(model))
        .route("/{organisation}/{name}/resolve/main/config.json", get(configuration));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// What the facts and the check say of a model with a token.
async fn ask(endpoint: &str, model: &str, token: Option<&str>, asked: bool) -> (Known<Hub>, Finding) {
    let directory = tempfile::tempdir().unwrap();
    let mut sources = Sources::of(Arc::new(Root::open(Path::new(directory.path())).unwrap()));
    sources.docker_socket = directory.path().join("docker.sock").display().to_string();
    sources.network_limit = Duration::from_millis(700);
    sources.tokens.extend(token.map(|token| ("HF_TOKEN".to_owned(), SecretString::from(token))));
    let profile = profile();
    let mut deployment = deployment();
    deployment.model = model.to_owned();
    let mut subject = Subject::new("tiny", &profile, None, vec![&deployment]).unwrap();
    subject.wanted.hub = endpoint.to_owned();
    subject.wanted.hf_token = asked;
    let facts = gather(&subject.wanted, &sources).await;
    let report = bedplate::check::judge_only(&["runtime.hf-token"], &subject, &facts);
    (facts.models["tiny"].hub.clone(), report.findings.into_iter().next().unwrap())
}

#[tokio::test]
async fn each_answer_of_the_hub_is_told_apart() {
    let endpoint = serve().await;
    let allowed = |gated, token| Known::Ok(Hub::Allowed { gated, bytes: Some(1024), token });
    let cases = [
        ("o/open", None, false, allowed(false, false), Outcome::Pass),
        ("o/open", None, true, allowed(false, false), Outcome::Fail),
        ("o/open", Some("good"), true, allowed(false, true), Outcome::Pass),
        ("o/gated", Some("good"), false, allowed(true, true), Outcome::Pass),
        ("o/gated", Some("other"), false, Known::Ok(Hub::Forbidden), Outcome::Fail),
        ("o/gated", None, false, Known::Ok(Hub::TokenNeeded), Outcome::Fail),
        ("o/open", Some("bad"), false, Known::Ok(Hub::TokenRejected), Outcome::Fail),
        ("o/hidden", None, false, Known::Ok(Hub::TokenNeeded), Outcome::Fail),
        ("o/none", Some("good"), false, Known::Ok(Hub::NotFound), Outcome::Fail),
    ];
    for (model, token, asked, hub, outcome) in cases {
        let (fact, finding) = ask(&endpoint, model, token, asked).await;
        assert_eq!(fact, hub, "{model} {token:?}");
        assert_eq!(finding.outcome, outcome, "{model} {token:?}: {}", finding.because);
        let said = format!("{finding:?} {fact:?}");
        assert!(!said.contains("good") && !said.contains("bad\""), "{said}");
    }
}

#[tokio::test]
async fn a_hub_that_cannot_be_asked_is_unknown() {
    let endpoint = serve().await;
    let gone = "http://127.0.0.1:1".to_owned();
    for (endpoint, model) in
        [(&endpoint, "o/slow"), (&endpoint, "o/broken"), (&gone, "o/open"), (&endpoint, "../../etc")]
    {
        let (fact, finding) = ask(endpoint, model, Some("good"), false).await;
        if model.starts_with("..") {
            // A path, not an id: nothing is asked.
            assert_eq!(finding.outcome, Outcome::NotApplicable);
            continue;
        }
        assert!(matches!(fact, Known::Unknown { .. }), "{model}: {fact:?}");
        assert_eq!(finding.outcome, Outcome::Unknown, "{model}");
        assert!(!format!("{finding:?}").contains("good"));
    }
}
