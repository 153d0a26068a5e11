//! Layer 1: whether a deployment fits the GPUs.

use super::{
    subject::Subject,
    verdict::{Tally, Verdict, size},
};
use crate::{
    host::facts::{Facts, Gpus, Nvml},
    profile::{Deployment, deployment::GpuIds},
};

pub(super) fn fit(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    for deployment in &subject.deployments {
        if subject.gpus() {
            with_gpus(&mut tally, deployment, facts);
        } else {
            without_gpus(&mut tally, deployment);
        }
        heads(&mut tally, deployment, facts);
    }
    tally.verdict("every deployment fits", "no deployment was given, or the host has no GPUs")
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

fn with_gpus(tally: &mut Tally, deployment: &Deployment, facts: &Facts) {
    let name = &deployment.name;
    let gpus = match facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) => gpus,
        Ok(Nvml::NoLibrary(_) | Nvml::DriverNotLoaded | Nvml::VersionMismatch) => {
            return tally.unknown(format!("`{name}`: NVML does not answer, so there are no GPUs to count"));
        }
        Err(why) => return tally.unknown(format!("`{name}`: {why}")),
    };
    let given = match &deployment.gpu_ids {
        GpuIds::All => gpus.devices.len(),
        GpuIds::List(ids) => {
            let absent: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !exists(gpus, id)).collect();
            if !absent.is_empty() {
                return tally.bad(
                    format!("`{name}` wants GPU {}, which is not there", absent.join(", ")),
                    format!("name GPUs of `nvidia-smi -L` in `gpu_ids` of `{name}.yaml`"),
                );
            }
            ids.len()
        }
    };
    let shards = deployment.tensor_parallel as usize;
    if shards > given {
        return tally.bad(
            format!("`{name}` shards over {shards} GPUs and gets {given}"),
            format!("write `tensor_parallel: {}` in `{name}.yaml`, or give it more GPUs", given.max(1)),
        );
    }
    tally.good(format!("`{name}`: tensor_parallel {shards} of {given} GPUs"));
    let weights = facts.models.get(name).and_then(|model| model.local.ok()).and_then(Option::as_ref);
    let smallest = gpus.devices.iter().filter_map(|device| device.memory).min();
    match (weights.filter(|model| model.complete), smallest) {
        (Some(model), Some(memory)) => {
            let room = memory.saturating_mul(u64::from(deployment.tensor_parallel));
            if model.weights > room {
                tally.bad(
                    format!(
                        "the weights of `{name}` are {}, its GPUs have {}",
                        size(model.weights),
                        size(room)
                    ),
                    format!("raise `tensor_parallel` in `{name}.yaml`, or use a quantised model"),
                );
            } else {
                tally.note(format!(
                    "`{name}`: weights {} of {} of GPU memory; the cache's size depends on the engine and was not looked at",
                    size(model.weights),
                    size(room)
                ));
            }
        }
        _ => {
            tally.note(format!("`{name}`: weights are not on the host yet, so their size was not looked at"));
        }
    }
}

/// Whether NVML has a GPU of this index or UUID. MIG devices belong to a GPU in MIG mode.
fn exists(gpus: &Gpus, id: &str) -> bool {
    if id.starts_with("MIG-") {
        return gpus.devices.iter().any(|device| device.mig == Some(true));
    }
    // `GPU:INSTANCE`; whether that GPU is divided so is `gpu.mig`'s matter.
    let id = id.split_once(':').map_or(id, |(gpu, _)| gpu);
    gpus.devices.iter().any(|device| {
        device.index.to_string() == id
            || device
                .uuid
                .as_deref()
                .is_some_and(|uuid| uuid == id || (id.len() >= 8 && uuid.starts_with(id)))
    })
}

/// Attention heads are dealt out evenly over the shards (vLLM, `ModelConfig.verify_with_parallel_config`).
fn heads(tally: &mut Tally, deployment: &Deployment, facts: &Facts) {
    let (name, shards) = (&deployment.name, u64::from(deployment.tensor_parallel));
    let model = facts.models.get(name).and_then(|model| model.local.ok()).and_then(Option::as_ref);
    match model.and_then(|model| model.heads) {
        Some(heads) if shards > 0 && heads % shards != 0 => tally.bad(
            format!("the {heads} attention heads of `{name}` cannot be dealt out over {shards} GPUs"),
            format!("choose a `tensor_parallel` in `{name}.yaml` that divides {heads}"),
        ),
        Some(heads) => tally.good(format!("`{name}`: {heads} attention heads over {shards}")),
        None if shards > 1 => {
            tally.note(format!(
                "`{name}`: no `config.json` on the host, so attention heads were not looked at"
            ));
        }
        None => {}
    }
}
