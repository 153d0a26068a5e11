//! Layer 1: whether a deployment fits the GPUs.

mod estimate;
mod settings;
#[cfg(test)]
mod tests;

use self::{
    estimate::{Estimate, Level, Range},
    settings::Settings,
};
use super::{
    subject::Subject,
    verdict::{Tally, Verdict, size},
};
use crate::{
    host::facts::{Device, Facts, Gpus, Hub, Kept, Known, Model, Nvml, Shape},
    profile::{
        Deployment,
        deployment::{Engine, GpuIds},
    },
};

pub(super) fn fit(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    // Whether what could not be looked at is the host: an estimate that cannot be made does not shut the gate, since
    // the engine says itself what does not fit.
    let mut blind = false;
    for deployment in &subject.deployments {
        let settings = Settings::of(deployment);
        let shards = settings.as_ref().map_or_else(|_| deployment.tensor_parallel.into(), |s| s.tensor);
        let model = facts.models.get(&deployment.name);
        if subject.gpus() {
            let given = given(&mut tally, deployment, settings.as_ref().ok(), shards, facts);
            match (given, settings) {
                (Err(Unseen), _) => blind = true,
                (Ok(Some(given)), Ok(settings)) => memory(&mut tally, deployment, &settings, model, &given),
                (Ok(Some(_)), Err(why)) => tally.unknown_until(
                    format!("`{}`: {why}", deployment.name),
                    "watch the engine's log at the first start: it says how much memory is left for the cache",
                ),
                (Ok(None), _) => {}
            }
        } else {
            without_gpus(&mut tally, deployment);
        }
        heads(&mut tally, deployment, shards, model.and_then(|model| model.shape.ok()));
    }
    let none =
        if subject.deployments.is_empty() { "no deployment was given" } else { "the host has no GPUs" };
    let verdict = tally.verdict("every deployment fits", none);
    if blind { verdict } else { verdict.tolerated() }
}

fn without_gpus(tally: &mut Tally, deployment: &Deployment) {
    let name = &deployment.name;
    if let GpuIds::List(ids) = &deployment.gpu_ids {
        tally.bad(
            format!("`{name}` wants GPUs {}, and the profile's host has none", ids.join(", ")),
            format!("remove `gpu_ids` from `{name}.yaml`, or use a profile with GPUs"),
        );
    } else if deployment.tensor_parallel > 1 {
        tally.bad(
            format!(
                "`{name}` shards over {} GPUs, and the profile's host has none",
                deployment.tensor_parallel
            ),
            format!("write `tensor_parallel: 1` in `{name}.yaml`, or use a profile with GPUs"),
        );
    }
}

/// Nothing of the GPUs could be seen.
struct Unseen;

/// The GPUs of a deployment.
struct Given {
    /// How many it gets.
    count: u64,
    /// How many there are.
    there: u64,
    /// Memory of the smallest, or why it is not known.
    memory: Result<u64, String>,
}

/// The GPUs that a deployment gets; `None`: they are not enough, which was said.
fn given(
    tally: &mut Tally,
    deployment: &Deployment,
    settings: Option<&Settings>,
    shards: u64,
    facts: &Facts,
) -> Result<Option<Given>, Unseen> {
    let name = &deployment.name;
    let gpus = match facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) => gpus,
        Ok(Nvml::NoLibrary(_) | Nvml::DriverNotLoaded | Nvml::VersionMismatch) => {
            tally.unknown(format!("`{name}`: NVML does not answer, so there are no GPUs to count"));
            return Err(Unseen);
        }
        Err(why) => {
            tally.unknown(format!("`{name}`: {why}"));
            return Err(Unseen);
        }
    };
    let (count, memory) = match &deployment.gpu_ids {
        GpuIds::All => (gpus.devices.len(), memory_of(gpus, None)),
        GpuIds::List(ids) => {
            let absent: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !exists(gpus, id)).collect();
            if !absent.is_empty() {
                tally.bad(
                    format!("`{name}` wants GPU {}, which is not there", absent.join(", ")),
                    format!("name GPUs of `nvidia-smi -L` in `gpu_ids` of `{name}.yaml`"),
                );
                return Ok(None);
            }
            (ids.len(), memory_of(gpus, Some(ids)))
        }
    };
    let given = Given { count: count as u64, there: gpus.devices.len() as u64, memory };
    let stages = settings.map_or(1, |settings| settings.pipeline);
    if shards.saturating_mul(stages) > given.count {
        let over = if stages > 1 { format!(" in {stages} stages") } else { String::new() };
        let word = settings.map_or("tensor_parallel", |settings| settings.words.0);
        tally.bad(
            format!("`{name}` shards over {shards} GPUs{over} and gets {count}"),
            format!(
                "write `{word}: {}` in `{name}.yaml`, or give it more GPUs",
                (given.count / stages).max(1)
            ),
        );
        return Ok(None);
    }
    tally.good(format!("`{name}`: tensor_parallel {shards} of {count} GPUs"));
    Ok(Some(given))
}

/// Memory of the smallest of these GPUs. What NVML says is the whole card's, also where that is divided (MIG).
fn memory_of(gpus: &Gpus, ids: Option<&[String]>) -> Result<u64, String> {
    let mut devices = gpus
        .devices
        .iter()
        .filter(|device| ids.is_none_or(|ids| ids.iter().any(|id| is(device, id))))
        .peekable();
    let divided = ids.is_some_and(|ids| ids.iter().any(|id| id.starts_with("MIG-") || id.contains(':')));
    if divided || devices.peek().is_none() {
        return Err("how much memory an instance of a GPU has is not known".to_owned());
    }
    let mut smallest = u64::MAX;
    for device in devices {
        if device.mig == Some(true) {
            return Err(format!(
                "GPU {} is divided, and how much memory its instances have is not known",
                device.index
            ));
        }
        let memory = device.memory.filter(|memory| *memory > 0);
        smallest = smallest.min(
            memory.ok_or_else(|| format!("NVML does not say how much memory GPU {} has", device.index))?,
        );
    }
    Ok(smallest)
}

/// Weights, and the cache of one sequence, against the memory of the GPUs.
fn memory(
    tally: &mut Tally,
    deployment: &Deployment,
    settings: &Settings,
    model: Option<&Model>,
    given: &Given,
) {
    let name = &deployment.name;
    let known = model
        .ok_or("nothing was looked at")
        .and_then(|model| Ok((model.shape.as_result()?, *model.weights.as_result()?)));
    let (shape, weights) = match known {
        Ok(known) => known,
        Err(why) => return not_seen(tally, deployment, model, why),
    };
    length(tally, deployment, settings, shape);
    if let Some(layers) = shape.layers.filter(|layers| settings.pipeline > *layers) {
        return tally.bad(
            format!("`{name}` has {layers} layers for {} stages", settings.pipeline),
            format!("write a smaller `--pipeline-parallel-size` in `extra_args` of `{name}.yaml`"),
        );
    }
    let memory = match &given.memory {
        Ok(memory) => *memory,
        Err(why) => {
            return tally.unknown_until(
                format!("`{name}`: {why}"),
                "watch the engine's log at the first start: it says how much memory is left for the cache",
            );
        }
    };
    // Heads that cannot be dealt out are said apart.
    if Estimate::undealt(shape, settings.tensor).is_some() {
        return;
    }
    let estimate = Estimate { settings, shape, weights, memory };
    let context = if settings.context_as_fits { Some(1) } else { settings.context.or(shape.longest) };
    judge(tally, deployment, &estimate, context, given);
}

fn judge(
    tally: &mut Tally,
    deployment: &Deployment,
    estimate: &Estimate<'_>,
    context: Option<u64>,
    given: &Given,
) {
    let (name, settings) = (&deployment.name, estimate.settings);
    let tensor = settings.tensor;
    let gpus = tensor.saturating_mul(settings.pipeline);
    let (room, weights) = (estimate.room(tensor), estimate.weights(tensor));
    let of = format!("{} of each GPU's {}", size(room), size(estimate.memory));
    let level = estimate.level(tensor, context);
    if level == Level::Weights {
        return tally.bad(
            format!(
                "the weights of `{name}` are {}, {} on each of {gpus} GPUs, and the engine may take {of}",
                size(estimate.weights),
                shown(weights),
            ),
            remedy(deployment, estimate, context, given),
        );
    }
    let unknown_cache = match (&estimate.shape.kept, estimate.shape.layers, context) {
        (Kept::Unknown { why }, ..) => Some(why.clone()),
        (_, None, _) => Some("`config.json` does not say `num_hidden_layers`".to_owned()),
        (.., None) => {
            Some("neither `max_model_len` nor `config.json` says how long a text may be".to_owned())
        }
        _ => None,
    };
    if let Some(why) = unknown_cache {
        tally.note(format!("`{name}`: weights {} on each of {gpus} GPUs, of {of}", shown(weights)));
        return tally.unknown_until(
            format!("`{name}`: how much its cache takes is not known: {why}"),
            "watch the engine's log at the first start: it says how much memory is left for the cache",
        );
    }
    let context = context.unwrap_or(1);
    let cache = estimate.cache(tensor, context).unwrap_or(Range { low: 0, high: 0 });
    let beside = match estimate.beside() {
        0 => String::new(),
        beside => format!(" and about {} beside (an estimate)", size(beside)),
    };
    let line = format!(
        "one sequence of {context} tokens takes {} of cache on each GPU, with weights of {}{beside}; the engine may take {of}",
        shown(cache),
        shown(weights),
    );
    match level {
        Level::Fits => tally.good(format!("`{name}`: {line}")),
        Level::Close => tally.weak(
            format!("`{name}` may not fit, by an estimate within 10 %: {line}"),
            remedy(deployment, estimate, Some(context), given),
        ),
        // SGLang starts, and refuses what is longer than its cache (`max_total_num_tokens`).
        Level::Cache if settings.engine == Engine::Sglang && settings.context.is_none() => tally.weak(
            format!("`{name}` cannot serve its longest texts: {line}"),
            remedy(deployment, estimate, Some(context), given),
        ),
        Level::Cache | Level::Weights => tally.bad(
            format!("`{name}` does not fit: {line}"),
            remedy(deployment, estimate, Some(context), given),
        ),
    }
}

/// A range as people read it.
fn shown(range: Range) -> String {
    if range.low == range.high {
        size(range.high)
    } else {
        format!("{} to {}", size(range.low), size(range.high))
    }
}

/// What would fit.
fn remedy(deployment: &Deployment, estimate: &Estimate<'_>, context: Option<u64>, given: &Given) -> String {
    let (name, settings) = (&deployment.name, estimate.settings);
    let (tensor_word, context_word) = settings.words;
    let suggestion = estimate.suggestion(context);
    let mut ways = Vec::new();
    let mut more = None;
    if let Some(tensor) = suggestion.tensor.filter(|tensor| *tensor != settings.tensor) {
        let gpus = tensor.saturating_mul(settings.pipeline);
        if gpus <= given.count {
            ways.push(format!("`{tensor_word}: {tensor}`"));
        } else if gpus <= given.there {
            ways.push(format!("`{tensor_word}: {tensor}` with {gpus} GPUs in `gpu_ids`"));
        } else {
            more = Some(format!(
                "`{tensor_word}: {tensor}` would fit on {gpus} such GPUs ({} here)",
                given.there
            ));
        }
    }
    if let Some(length) = suggestion.context.filter(|length| Some(*length) != context) {
        ways.push(format!("`{context_word}: {length}`"));
    }
    match (ways.is_empty(), more) {
        (false, _) => format!("write {} in `{name}.yaml`", ways.join(" or ")),
        (true, Some(more)) => format!("use a quantised or smaller model; {more}"),
        (true, None) => "use a quantised or smaller model, or larger GPUs".to_owned(),
    }
}

/// Why the model's shape or size is not known. What the hub refuses is said in its own words: `runtime.hf-token` judges it.
fn not_seen(tally: &mut Tally, deployment: &Deployment, model: Option<&Model>, why: &str) {
    let (name, id) = (&deployment.name, &deployment.model);
    let said = match model.map(|model| &model.hub) {
        Some(Known::Ok(Hub::Gated)) => Some("it is gated, and no token was sent"),
        Some(Known::Ok(Hub::Forbidden)) => {
            Some("it is gated, and the token's account did not accept its licence")
        }
        Some(Known::Ok(Hub::TokenRejected)) => Some("the hub refuses the token"),
        Some(Known::Ok(Hub::TokenNeeded)) => {
            Some("the hub shows no such model without a token: it is private, or does not exist")
        }
        Some(Known::Ok(Hub::NotFound)) => Some("the hub has no such model"),
        Some(Known::Unknown { why }) if model.is_some_and(|model| model.local == Known::Ok(None)) => {
            Some(why.as_str())
        }
        _ => None,
    };
    tally.unknown_until(
        format!("`{name}`: how large `{id}` is was not seen: {}", said.unwrap_or(why)),
        "`bedplate explain runtime.hf-token` says how to get at the model",
    );
}

/// A length that is longer than the model was made for. Both engines refuse it, unless told not to (vLLM,
/// `_get_and_verify_max_len`; SGLang, `ModelConfig`).
fn length(tally: &mut Tally, deployment: &Deployment, settings: &Settings, shape: &Shape) {
    let name = &deployment.name;
    let (Some(asked), Some(longest)) = (settings.context, shape.longest) else { return };
    if asked <= longest {
        return;
    }
    let word = settings.words.1;
    let variable = match settings.engine {
        Engine::Vllm => "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
        Engine::Sglang => "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN",
    };
    let line = format!("`{name}` asks for {asked} tokens, and the model was made for {longest}");
    let allowed =
        deployment.env.get(variable).is_some_and(|value| matches!(value.as_str(), "1" | "true" | "True"));
    let next = format!(
        "write `{word}: {longest}` or less in `{name}.yaml`, or configure RoPE scaling for the model"
    );
    if allowed {
        tally.weak(format!("{line}: `{variable}` lets the engine start, and answers may be wrong"), next);
    } else {
        tally.bad(format!("{line}: the engine refuses that"), next);
    }
}

/// Whether NVML has a GPU of this index or UUID. MIG devices belong to a GPU in MIG mode.
fn exists(gpus: &Gpus, id: &str) -> bool {
    if id.starts_with("MIG-") {
        return gpus.devices.iter().any(|device| device.mig == Some(true));
    }
    // `GPU:INSTANCE`; whether that GPU is divided so is `gpu.mig`'s matter.
    let id = id.split_once(':').map_or(id, |(gpu, _)| gpu);
    gpus.devices.iter().any(|device| is(device, id))
}

/// Whether it is this GPU, by its index, its UUID or the beginning of that.
fn is(device: &Device, id: &str) -> bool {
    device.index.to_string() == id
        || device.uuid.as_deref().is_some_and(|uuid| uuid == id || (id.len() >= 8 && uuid.starts_with(id)))
}

/// Heads are dealt out evenly over the shards; key and value heads are repeated where there are fewer.
fn heads(tally: &mut Tally, deployment: &Deployment, shards: u64, shape: Option<&Shape>) {
    let name = &deployment.name;
    match shape {
        Some(shape) if shards > 0 => match (Estimate::undealt(shape, shards), shape.heads) {
            (Some(undealt), heads) => tally.bad(
                format!("{undealt} of `{name}` cannot be dealt out over {shards} GPUs"),
                format!(
                    "choose a `tensor_parallel` in `{name}.yaml` that divides {}",
                    heads.unwrap_or_default()
                ),
            ),
            (None, Some(heads)) => tally.good(format!("`{name}`: {heads} attention heads over {shards}")),
            (None, None) => tally.note(format!("`{name}`: `config.json` does not say how many heads it has")),
        },
        _ if shards > 1 => {
            tally.note(format!(
                "`{name}`: its `config.json` was not read, so attention heads were not looked at"
            ));
        }
        _ => {}
    }
}
