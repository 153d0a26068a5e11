//! The model hub: a server on loopback that answers as the hub does, and one that does not answer.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Path as Route,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use bedplate::{
    host::facts::{Hub, Known, Model, Sources, gather},
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
        let weights = if name == "sharded" { "model.safetensors.index.json" } else { "model.safetensors" };
        let siblings = serde_json::json!([{ "rfilename": weights, "size": 1000 }, { "rfilename": "config.json", "size": 24 }]);
        (StatusCode::OK, serde_json::json!({ "gated": gated, "siblings": siblings }).to_string())
    };
    match (name.as_str(), token(&headers)) {
        (_, Some("bad")) | ("hidden", _) => (StatusCode::UNAUTHORIZED, String::new()),
        ("open" | "sharded" | "odd" | "endless" | "away", _) => body(serde_json::json!(false)),
        ("gated", _) => body(serde_json::json!("manual")),
        ("broken", _) => (StatusCode::OK, "<html>".to_owned()),
        ("slow", _) => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            body(serde_json::json!(false))
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    }
}

const CONFIG: &str = r#"{"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "hidden_size": 4096, "max_position_embeddings": 8192, "torch_dtype": "bfloat16"}"#;

async fn file(Route((_, name, file)): Route<(String, String, String)>, headers: HeaderMap) -> Response {
    let token = token(&headers);
    let redirect = |to: String| (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response();
    match (name.as_str(), file.as_str()) {
        ("gated", _) => match token {
            Some("good") => CONFIG.into_response(),
            Some(_) => StatusCode::FORBIDDEN.into_response(),
            None => StatusCode::UNAUTHORIZED.into_response(),
        },
        ("sharded", "model.safetensors.index.json") => {
            r#"{"metadata": {"total_size": 16060522496}, "weight_map": {"a": "model-1.safetensors"}}"#
                .into_response()
        }
        // The hub's own answer for small files leads to another of its paths.
        ("open", _) => redirect(format!("/kept/{name}/{file}")),
        ("odd", _) => "[]".into_response(),
        ("endless", _) => redirect(format!("/o/endless/resolve/main/{file}")),
        ("away", _) => redirect("http://127.0.0.2:1/config.json".to_owned()),
        _ => CONFIG.into_response(),
    }
}

/// Where a redirect leads: the token comes along within the hub.
async fn kept(headers: HeaderMap) -> Response {
    if token(&headers) == Some("good") {
        CONFIG.into_response()
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

async fn serve() -> String {
    let router = Router::new()
        .route("/api/models/{organisation}/{name}", get(model))
        .route("/{organisation}/{name}/resolve/main/{file}", get(file))
        .route("/kept/{name}/{file}", get(kept));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// What the facts and the check say of a model with a token.
async fn ask(endpoint: &str, model: &str, token: Option<&str>, asked: bool) -> (Known<Hub>, Finding) {
    let (model, mut findings) = whole(endpoint, model, token, asked).await;
    (model.hub, findings.remove(0))
}

/// What is known of a model, and what `runtime.hf-token` and `deploy.fit` say: eight GPUs of 80 GiB.
async fn whole(endpoint: &str, model: &str, token: Option<&str>, asked: bool) -> (Model, Vec<Finding>) {
    let host = tempfile::tempdir().unwrap();
    on(host.path(), endpoint, model, token, asked).await
}

/// The same on a host with this tree.
async fn on(
    host: &Path,
    endpoint: &str,
    model: &str,
    token: Option<&str>,
    asked: bool,
) -> (Model, Vec<Finding>) {
    let mut sources = Sources::of(Arc::new(Root::open(host).unwrap()));
    sources.docker_socket = host.join("docker.sock").display().to_string();
    sources.network_limit = Duration::from_millis(700);
    sources.tokens.extend(token.map(|token| ("HF_TOKEN".to_owned(), SecretString::from(token))));
    let profile = profile();
    let mut deployment = deployment();
    deployment.model = model.to_owned();
    let mut subject = Subject::new("tiny", &profile, None, vec![&deployment]).unwrap();
    subject.wanted.hub = endpoint.to_owned();
    subject.wanted.hf_token = asked;
    let (_library, library) = super::nvml::standin(super::nvml::EIGHT);
    sources.nvml_library = Some(library);
    let facts = gather(&subject.wanted, &sources).await;
    let judged = |id| bedplate::check::judge_only(&[id], &subject, &facts).findings.remove(0);
    (facts.models["tiny"].clone(), vec![judged("runtime.hf-token"), judged("deploy.fit")])
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
        ("o/gated", None, false, Known::Ok(Hub::Gated), Outcome::Fail),
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

#[tokio::test]
async fn a_token_that_cannot_be_read_is_not_a_missing_one() {
    let endpoint = serve().await;
    let host = tempfile::tempdir().unwrap();
    // As root everything can be read: what is there is no file.
    std::fs::create_dir_all(host.path().join("run/bedplate/secrets/HF_TOKEN")).unwrap();
    for model in ["o/gated", "o/hidden"] {
        let (seen, findings) = on(host.path(), &endpoint, model, None, false).await;
        assert!(matches!(seen.hub, Known::Unknown { .. }), "{model}: {seen:?}");
        assert_eq!(findings[0].outcome, Outcome::Unknown, "{model}: {:?}", findings[0]);
        assert!(findings[0].because.contains("cannot be read"), "{model}: {:?}", findings[0]);
    }
    // Where no token is needed it does not matter.
    let (_, findings) = on(host.path(), &endpoint, "o/open", None, false).await;
    assert_eq!(findings[0].outcome, Outcome::Pass, "{:?}", findings[0]);
}

#[tokio::test]
async fn the_fit_of_a_model_that_is_not_here_is_known_from_the_hub() {
    let endpoint = serve().await;
    // 32 layers of 8 heads, 128 wide; the index says how large, or the sizes of the files do.
    for (model, token, weights) in
        [("o/sharded", None, 16_060_522_496), ("o/open", Some("good"), 1000), ("o/gated", Some("good"), 1000)]
    {
        let (seen, findings) = whole(&endpoint, model, token, false).await;
        assert_eq!(seen.weights, Known::Ok(weights), "{model}");
        let shape = seen.shape.ok().unwrap();
        assert_eq!((shape.layers, shape.longest), (Some(32), Some(8192)), "{model}");
        assert_eq!(findings[1].outcome, Outcome::Pass, "{model}: {:?}", findings[1]);
    }
    // Before anything is pulled it is said which it is, and nothing passes unseen.
    for (model, token, says) in [
        ("o/gated", None, "it is gated, and no token was sent"),
        ("o/gated", Some("other"), "did not accept its licence"),
        ("o/hidden", None, "it is private, or does not exist"),
        ("o/none", Some("good"), "the hub has no such model"),
        ("o/open", Some("bad"), "the hub refuses the token"),
        // A redirect without the token's right, none that ends, one without TLS to another host, no configuration.
        ("o/open", None, "it answered 403"),
        ("o/endless", None, "more than 5 redirects"),
        ("o/away", None, "redirects to no address over TLS"),
        ("o/odd", None, "is not an object"),
    ] {
        let (seen, findings) = whole(&endpoint, model, token, false).await;
        let fit = &findings[1];
        assert_eq!(fit.outcome, Outcome::Unknown, "{model}: {fit:?}");
        assert!(fit.because.contains(says), "{model} {token:?}: {}", fit.because);
        assert!(!fit.shuts_gate(), "{model}");
        let said = format!("{findings:?} {seen:?}");
        assert!(!said.contains("good") && !said.contains("bad\""), "{said}");
    }
}
