//! The model hub: may this host fetch a model, and with which token.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::data::Hub;
use crate::error::{Doing, Error, Result};

/// The public hub.
pub const ENDPOINT: &str = "https://huggingface.co";
/// The answer about a model with its file list: a few MB for the largest.
const LIMIT: usize = 16 << 20;

/// A client for the hub. Redirects are not followed: the hub's answer is enough, and a token must not
/// reach another host.
pub(super) fn client(limit: Duration) -> Result<Client> {
    // Fails only where a provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(limit)
        .connect_timeout(limit)
        .user_agent(concat!("bedplate/", env!("CARGO_PKG_VERSION")))
        .build()
        .doing(|| "preparing to ask the model hub")
}

/// Asks the hub about a model (huggingface_hub, `HfApi.model_info` with `files_metadata`), and for a
/// gated one whether its configuration may be read.
pub(super) async fn ask(
    client: &Client,
    endpoint: &str,
    model: &str,
    token: Option<&SecretString>,
) -> Result<Hub> {
    let endpoint = endpoint.trim_end_matches('/');
    if !is_model_id(model) {
        return Err(Error::usage(format!("`{}` is not the id of a model", model.escape_debug()))
            .hint("write it as `organisation/name`"));
    }
    let request = |request: reqwest::RequestBuilder| match token {
        Some(token) => request.bearer_auth(token.expose_secret()),
        None => request,
    };
    let doing = || format!("asking `{endpoint}` about `{model}`");
    let answer = request(client.get(format!("{endpoint}/api/models/{model}?blobs=true")))
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .doing(doing)?;
    if let Some(refused) = refusal(answer.status(), token.is_some()) {
        return Ok(refused);
    }
    if !answer.status().is_success() {
        return Err(Error::failed(format!("{}: it answered {}", doing(), answer.status())));
    }
    let body: Value = serde_json::from_slice(&bounded(answer).await.doing(doing)?).doing(doing)?;
    // `false`, or the manner of access: `"auto"`, `"manual"`.
    let gated = body.get("gated").is_some_and(|gated| gated != &Value::Bool(false) && !gated.is_null());
    let files = body.get("siblings").and_then(Value::as_array);
    let bytes = files.and_then(|files| {
        let sizes = files.iter().map(|file| file.get("size").and_then(Value::as_u64));
        sizes.sum::<Option<u64>>().filter(|bytes| *bytes > 0)
    });
    if gated {
        let answer = request(client.head(format!("{endpoint}/{model}/resolve/main/config.json")))
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .doing(doing)?;
        // A redirect leads to the file itself: access was given. 404: a model without that file.
        match answer.status() {
            StatusCode::NOT_FOUND => {}
            status if status.is_success() || status.is_redirection() => {}
            status => {
                return refusal(status, token.is_some())
                    .ok_or_else(|| Error::failed(format!("{}: it answered {status}", doing())));
            }
        }
    }
    Ok(Hub::Allowed { gated, bytes, token: token.is_some() })
}

fn refusal(status: StatusCode, token: bool) -> Option<Hub> {
    match status {
        StatusCode::UNAUTHORIZED if token => Some(Hub::TokenRejected),
        StatusCode::UNAUTHORIZED => Some(Hub::TokenNeeded),
        StatusCode::FORBIDDEN => Some(Hub::Forbidden),
        StatusCode::NOT_FOUND => Some(Hub::NotFound),
        _ => None,
    }
}

async fn bounded(mut answer: Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) =
        answer.chunk().await.map_err(reqwest::Error::without_url).doing(|| "reading the answer")?
    {
        if body.len() + chunk.len() > LIMIT {
            return Err(Error::failed(format!("the answer is larger than {LIMIT} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `[organisation/]name` of letters, digits, `-`, `_` and `.` (huggingface_hub, `validate_repo_id`).
fn is_model_id(model: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    model.split('/').count() <= 2 && model.split('/').all(part)
}

/// The host name in an address, for name resolution.
pub(super) fn host(endpoint: &str) -> Option<String> {
    url::Url::parse(endpoint).ok()?.host_str().map(str::to_owned)
}
