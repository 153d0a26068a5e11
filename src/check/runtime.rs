//! Layer 3: the model cache, and access to the model.

use super::{
    subject::Subject,
    verdict::{Tally, Verdict, size},
};
use crate::host::facts::{
    Facts, Hub, LocalModel, looked_up,
    wanted::{ModelAt, WantedDeployment},
};

fn local<'f>(facts: &'f Facts, deployment: &WantedDeployment) -> Result<Option<&'f LocalModel>, &'f str> {
    match facts.models.get(&deployment.name) {
        Some(model) => model.local.as_result().map(Option::as_ref),
        None => Err("nothing was looked at"),
    }
}

fn hub<'f>(facts: &'f Facts, deployment: &WantedDeployment) -> Result<&'f Hub, &'f str> {
    match facts.models.get(&deployment.name) {
        Some(model) => model.hub.as_result(),
        None => Err("nothing was looked at"),
    }
}

pub(super) fn cache(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    for deployment in &subject.wanted.deployments {
        let path = &deployment.cache;
        match looked_up(&facts.caches, path) {
            Ok(cache) if !cache.writable => {
                let why = cache.why.as_deref().unwrap_or("it cannot be written to");
                tally.bad(
                    format!("the cache of `{}` cannot be written: {why}", deployment.name),
                    format!("make `{path}` a directory on a writable file system, or change `hf_cache` in `{}.yaml`", deployment.name),
                );
                continue;
            }
            Ok(cache) if cache.exists => tally.good(format!("`{path}`: a writable directory")),
            Ok(_) => tally.note(format!("`{path}`: not there yet; it is made at the start")),
            Err(why) => {
                tally.unknown(format!("`{path}`: {why}"));
                continue;
            }
        }
        room(&mut tally, deployment, facts);
    }
    tally.verdict("caches are writable and have room", "no deployment was given")
}

fn room(tally: &mut Tally, deployment: &WantedDeployment, facts: &Facts) {
    let (path, model) = (&deployment.cache, &deployment.model);
    match &deployment.model_at {
        ModelAt::Container => {
            return tally.good(format!("`{model}` is a path inside the container: nothing is fetched"));
        }
        ModelAt::Host(place) => {
            return match local(facts, deployment) {
                Ok(Some(found)) if found.complete => {
                    tally.good(format!("`{place}`: {} of weights", size(found.weights)));
                }
                Ok(Some(_)) => tally.bad(
                    format!("the model at `{place}` is not complete"),
                    format!("copy all files of the model to `{place}`"),
                ),
                Ok(None) => tally
                    .bad(format!("there is no model at `{place}`"), format!("copy the model to `{place}`")),
                Err(why) => tally.unknown(format!("`{place}`: {why}")),
            };
        }
        ModelAt::Hub => {}
    }
    let here = match local(facts, deployment) {
        Ok(Some(found)) if found.complete => {
            return tally.good(format!("`{}`: `{model}` is here, {}", found.path, size(found.weights)));
        }
        // What a cut-short download left is used again.
        Ok(Some(found)) => found.weights,
        Ok(None) => 0,
        Err(why) => return tally.unknown(format!("`{model}` in `{path}`: {why}")),
    };
    let bytes = match hub(facts, deployment) {
        Ok(Hub::Allowed { bytes: Some(bytes), .. }) => bytes.saturating_sub(here),
        Ok(Hub::Allowed { bytes: None, .. }) => {
            return tally.unknown(format!("the hub does not say how large `{model}` is"));
        }
        // `runtime.hf-token` says what is wrong with the access.
        Ok(_) => return tally.unknown(format!("the hub does not show how large `{model}` is")),
        Err(why) => return tally.unknown(format!("how large `{model}` is: {why}")),
    };
    match looked_up(&facts.space, path) {
        Ok(space) if space.free < bytes => tally.bad(
            format!("`{path}` has {} free, `{model}` needs {}", size(space.free), size(bytes)),
            format!("make {} room in `{path}`", size(bytes - space.free)),
        ),
        Ok(space) => tally.good(format!("`{path}`: {} free, {} to fetch", size(space.free), size(bytes))),
        Err(why) => tally.unknown(format!("free space for `{path}`: {why}")),
    }
}

pub(super) fn hf_token(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    let asked = subject.wanted.hf_token;
    for deployment in &subject.wanted.deployments {
        let (model, secret) = (&deployment.model, &deployment.hf_token);
        if deployment.model_at != ModelAt::Hub {
            tally.note(format!("`{model}` is a path: the hub is not needed"));
            continue;
        }
        let give = format!(
            "give the secret `{secret}` a token that may read `{model}` (https://huggingface.co/settings/tokens)"
        );
        if !asked
            && let Ok(Some(found)) = local(facts, deployment)
            && found.complete
        {
            tally.good(format!("`{model}` is in the cache already: nothing must be fetched"));
            continue;
        }
        match hub(facts, deployment) {
            Ok(Hub::Allowed { token: false, .. }) if asked => {
                tally.bad(format!("a token was asked for, and `{secret}` gives none"), give);
            }
            Ok(Hub::Allowed { gated, token, .. }) => tally.good(format!(
                "`{model}` may be fetched: {}, {}",
                if *gated { "gated" } else { "not gated" },
                if *token { "the token was accepted" } else { "no token was sent" }
            )),
            Ok(Hub::TokenRejected) => {
                tally.bad(format!("the hub refuses the token in `{secret}` (401)"), give);
            }
            Ok(Hub::Gated) => tally.bad(
                format!("`{model}` is gated (401): it exists, wants an accepted licence, and `{secret}` gives no token"),
                format!("accept its licence at https://huggingface.co/{model}, then {give}"),
            ),
            Ok(Hub::TokenNeeded) => tally.bad(
                format!(
                    "the hub shows no `{model}` without a token (401): it is private, or does not exist, and `{secret}` gives none"
                ),
                format!("check `model` in `{}.yaml`; if it is private, {give}", deployment.name),
            ),
            Ok(Hub::Forbidden) => tally.bad(
                format!(
                    "the token in `{secret}` has no access to `{model}` (403): its licence was not accepted"
                ),
                format!("accept it at https://huggingface.co/{model} with the account of that token"),
            ),
            Ok(Hub::NotFound) => tally.bad(
                format!("the hub has no model `{model}` (404), or hides it from this token"),
                format!("check `model` in `{}.yaml`; a private one wants a token of its owners", deployment.name),
            ),
            Err(why) => tally.unknown_until(
                format!("`{model}`: {why}"),
                format!(
                    "check that `{}` can be reached, or put the model into the cache beforehand",
                    subject.wanted.hub
                ),
            ),
        }
    }
    tally.verdict("every model may be fetched, or is here", "no deployment takes its model from the hub")
}
