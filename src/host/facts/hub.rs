//! The model hub: may this host fetch a model, and with which token.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::{
    basics::one_line,
    data::{Hub, Known},
    model::{self, INDICES},
    shape::Shape,
};
use crate::error::{Doing, Error, Result};

/// The public hub.
pub const ENDPOINT: &str = "https://huggingface.co";
/// The answer about a model with its file list, and an index of shards: a few MB for the largest.
const LIMIT: u64 = 16 << 20;
/// A file of the hub is at most so many redirects away.
const REDIRECTS: usize = 5;

/// What the hub says of a model.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) hub: Hub,
    /// Bytes of the files that an engine loads, by their sizes.
    loaded: Option<u64>,
    /// The index of its shards, where it has one.
    index: Option<&'static str>,
}

impl From<Hub> for Answer {
    fn from(hub: Hub) -> Self {
        Self { hub, loaded: None, index: None }
    }
}

/// A client for the hub. It follows no redirect by itself: a token must not reach another host.
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
) -> Result<Answer> {
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
    if let Some(refused) = refusal(&answer, token.is_some()) {
        return Ok(refused.into());
    }
    if !answer.status().is_success() {
        return Err(Error::failed(format!("{}: it answered {}", doing(), answer.status())));
    }
    let body: Value = serde_json::from_slice(&bounded(answer, LIMIT).await.doing(doing)?).doing(doing)?;
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
            // It was shown, so it is there: without a token the files of a gated model are refused.
            StatusCode::UNAUTHORIZED if token.is_none() => return Ok(Hub::Gated.into()),
            status => {
                return refusal(&answer, token.is_some())
                    .map(Answer::from)
                    .ok_or_else(|| Error::failed(format!("{}: it answered {status}", doing())));
            }
        }
    }
    let named = || {
        files
            .into_iter()
            .flatten()
            .filter_map(|file| Some((file.get("rfilename")?.as_str()?, file.get("size"))))
    };
    let index = INDICES.into_iter().find(|index| named().any(|(name, _)| name == *index));
    let loaded = model::loaded(named().filter_map(|(name, size)| Some((name, size?.as_u64()?))));
    Ok(Answer { hub: Hub::Allowed { gated, bytes, token: token.is_some() }, loaded, index })
}

/// Reads the shape and the size of a model that may be fetched: its configuration, and the index of its shards.
pub(super) async fn describe(
    client: &Client,
    endpoint: &str,
    model: &str,
    token: Option<&SecretString>,
    answer: &Answer,
) -> (Known<Shape>, Known<u64>) {
    let shape = async {
        match file(client, endpoint, model, "config.json", token, model::CONFIGURATION).await {
            Ok(content) => Shape::read(&content).map_or_else(Known::unknown, Known::Ok),
            Err(error) => Known::unknown(one_line(&error)),
        }
    };
    let weights = async {
        let Some(index) = answer.index else {
            return match answer.loaded {
                Some(loaded) => Known::Ok(loaded),
                None => {
                    Known::unknown(format!("the hub does not say how large the weights of `{model}` are"))
                }
            };
        };
        match file(client, endpoint, model, index, token, LIMIT).await {
            Ok(content) => {
                let index: Option<Value> = serde_json::from_slice(&content).ok();
                match index.as_ref().and_then(model::total_size).or(answer.loaded) {
                    Some(size) => Known::Ok(size),
                    None => Known::unknown(format!("the index of `{model}` does not say how large it is")),
                }
            }
            // The sizes of the files are as good, but where a model comes in two forms.
            Err(error) => answer.loaded.map_or_else(|| Known::unknown(one_line(&error)), Known::Ok),
        }
    };
    tokio::join!(shape, weights)
}

/// Fetches a file of a model. A redirect within the hub is followed with the token, one to another host without it and
/// only over TLS.
async fn file(
    client: &Client,
    endpoint: &str,
    model: &str,
    name: &str,
    token: Option<&SecretString>,
    limit: u64,
) -> Result<Vec<u8>> {
    let doing = || format!("fetching `{name}` of `{model}` from the hub");
    let endpoint = endpoint.trim_end_matches('/');
    let mut url = Url::parse(&format!("{endpoint}/{model}/resolve/main/{name}")).doing(doing)?;
    let home = url.origin();
    for _ in 0..REDIRECTS {
        let mut request = client.get(url.clone());
        if let Some(token) = token.filter(|_| url.origin() == home) {
            request = request.bearer_auth(token.expose_secret());
        }
        let answer = request.send().await.map_err(reqwest::Error::without_url).doing(doing)?;
        if answer.status().is_success() {
            return bounded(answer, limit).await.doing(doing);
        }
        if !answer.status().is_redirection() {
            return Err(Error::failed(format!("{}: it answered {}", doing(), answer.status())));
        }
        let place = answer.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
        let next = place.and_then(|place| url.join(place).ok());
        url = match next {
            Some(next) if next.origin() == home || next.scheme() == "https" => next,
            _ => return Err(Error::failed(format!("{}: it redirects to no address over TLS", doing()))),
        };
    }
    Err(Error::failed(format!("{}: more than {REDIRECTS} redirects", doing())))
}

/// A refusal, by its status and by the hub's own word for it (huggingface_hub, `hf_raise_for_status`, `X-Error-Code`).
fn refusal(answer: &Response, token: bool) -> Option<Hub> {
    let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok());
    match (answer.status(), code) {
        (StatusCode::UNAUTHORIZED, Some("GatedRepo")) if !token => Some(Hub::Gated),
        (StatusCode::UNAUTHORIZED, _) if token => Some(Hub::TokenRejected),
        (StatusCode::UNAUTHORIZED, _) => Some(Hub::TokenNeeded),
        (StatusCode::FORBIDDEN, _) => Some(Hub::Forbidden),
        (StatusCode::NOT_FOUND, _) => Some(Hub::NotFound),
        _ => None,
    }
}

async fn bounded(mut answer: Response, limit: u64) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) =
        answer.chunk().await.map_err(reqwest::Error::without_url).doing(|| "reading the answer")?
    {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(Error::failed(format!("the answer is larger than {limit} bytes")));
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
    Url::parse(endpoint).ok()?.host_str().map(str::to_owned)
}
