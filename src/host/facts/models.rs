//! What is known of a deployment's model: from the host, else from the hub.

use secrecy::SecretString;
use tokio::time::timeout;

use super::{
    basics::one_line,
    data::{Hub, Known, LocalModel, Model},
    gather::Sources,
    hub, model,
    shape::Shape,
    tree::Tree,
    wanted::{Wanted, WantedDeployment},
};
use crate::error::Result;

/// What is known of a model from the host alone.
pub(super) fn on_host(found: Known<Option<model::Found>>) -> Model {
    match found {
        Known::Ok(Some(found)) => Model {
            local: Known::Ok(Some(found.local)),
            shape: found.shape,
            weights: found.weights,
            ..Model::default()
        },
        Known::Ok(None) => Model {
            local: Known::Ok(None),
            shape: Known::unknown("the model is not on the host"),
            weights: Known::unknown("the model is not on the host"),
            ..Model::default()
        },
        Known::Unknown { why } => Model {
            local: Known::unknown(&*why),
            shape: Known::unknown(&*why),
            weights: Known::unknown(why),
            ..Model::default()
        },
    }
}

/// What the hub says of a model: whether it may be fetched, and where that was asked what it is.
pub(super) struct Said {
    pub(super) hub: Known<Hub>,
    pub(super) described: Option<(Known<Shape>, Known<u64>)>,
}

/// Whether all of it is on the host.
pub(super) fn complete(local: Option<&LocalModel>) -> bool {
    local.is_some_and(|local| local.complete)
}

/// `describe`: its size and shape are not known from the host. They are only wanted where there are GPUs.
pub(super) async fn ask_hub(
    sources: &Sources,
    tree: &Tree,
    wanted: &Wanted,
    deployment: &WantedDeployment,
    describe: bool,
) -> Said {
    let (endpoint, model) = (&wanted.hub, &deployment.model);
    let (token, unread) = match sources.tokens.get(&deployment.hf_token) {
        Some(token) => (Some(token.clone()), None),
        None => match token_on_host(tree, &sources.secrets_dir, &deployment.hf_token) {
            Ok(token) => (token, None),
            Err(error) => (None, Some(one_line(&error))),
        },
    };
    let late = format!("the hub did not answer within {} s", sources.network_limit.as_secs_f32());
    let client = match hub::client(sources.network_limit) {
        Ok(client) => client,
        Err(error) => return Said { hub: Known::unknown(one_line(&error)), described: None },
    };
    let _asked = sources.awaited.ask("the hub");
    let asked = timeout(sources.network_limit, hub::ask(&client, endpoint, model, token.as_ref())).await;
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Said { hub: Known::unknown(one_line(&error)), described: None },
        Err(_) => return Said { hub: Known::unknown(late), described: None },
    };
    // Refused without a token that is there: what the hub says with it is not known.
    if let Some(why) = unread
        && !matches!(answer.hub, Hub::Allowed { .. })
    {
        let why = format!("the hub wants a token, and the one on this host cannot be read: {why}");
        return Said { hub: Known::unknown(why), described: None };
    }
    let mut described = None;
    if describe && wanted.gpus && matches!(answer.hub, Hub::Allowed { .. }) {
        let look = hub::describe(&client, endpoint, model, token.as_ref(), &answer);
        let found = timeout(sources.network_limit, look).await;
        described = Some(found.unwrap_or_else(|_| (Known::unknown(&*late), Known::unknown(&*late))));
    }
    Said { hub: Known::Ok(answer.hub), described }
}

/// A token that was handed to this host, where there is one.
fn token_on_host(tree: &Tree, directory: &str, secret: &str) -> Result<Option<SecretString>> {
    if secret.contains('/') {
        return Ok(None);
    }
    let text = tree.root().read_text(&format!("{directory}/{secret}"), 1 << 16)?.unwrap_or_default();
    let text = text.trim();
    Ok((!text.is_empty()).then(|| SecretString::from(text)))
}
