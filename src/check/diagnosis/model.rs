//! Symptoms of the model and of where it and its image come from: GPU memory, the hub, the registry.

use super::{Case, Cause, Layer, Repair, Sign, Symptom};
use crate::{
    check::verdict::size,
    host::facts::{Health, Hub, Known, Nvml, Reading, SecretState, looked_up, need},
    profile::deployment::GpuIds,
};

pub(super) const ROWS: &[Symptom] = &[
    Symptom {
        id: "symptom.gpu-memory",
        texts: &["cuda out of memory", "torch.outofmemoryerror", "cuda_error_out_of_memory"],
        exit: None,
        looks: "`CUDA out of memory`",
        causes: &[
            Cause {
                id: "held",
                means: "another process holds the GPU's memory",
                layer: Layer::Doctor,
                repair: Repair::EndProcess,
                decides: "processes and used memory of the deployment's GPUs, by NVML, once its container has ended",
                fix: "end that process, then `bedplate up` again",
                sign: held,
            },
            Cause {
                id: "too-large",
                means: "the model does not fit the GPUs",
                layer: Layer::Up,
                repair: Repair::EditDeployment,
                decides: "weights, and where they are known heads and cache, against GPU memory: `deploy.fit`; else a start with a smaller `max_model_len`",
                fix: "raise `tensor_parallel`, lower `max_model_len`, or use a quantised model",
                sign: too_large,
            },
        ],
    },
    Symptom {
        id: "symptom.hub-refused",
        texts: &["gatedrepoerror", "repositorynotfounderror", "401 client error", "403 client error"],
        exit: None,
        looks: "401 or 403 from the model hub",
        causes: &[
            Cause {
                id: "no-token",
                means: "the hub wants a token, and none was given",
                layer: Layer::Runtime,
                repair: Repair::GiveToken,
                decides: "whether the deployment's token resolves to something, and what the hub answers",
                fix: "`bedplate secret set HF_TOKEN` with a token that may read the model, then `bedplate up` again",
                sign: no_token,
            },
            Cause {
                id: "wrong-token",
                means: "the hub refuses the token",
                layer: Layer::Runtime,
                repair: Repair::GiveToken,
                decides: "the hub's answer to this token (401): `bedplate runtime prepare --require-hf-token`",
                fix: "give a valid token (https://huggingface.co/settings/tokens), then `bedplate up` again",
                sign: |case| by_hub(case, |hub| matches!(hub, Hub::TokenRejected)),
            },
            Cause {
                id: "licence",
                means: "the model's licence was not accepted with the account of the token",
                layer: Layer::Runtime,
                repair: Repair::AcceptLicence,
                decides: "the hub's answer to this token (403): `bedplate runtime prepare --require-hf-token`",
                fix: "accept the licence on the model's page with the account of the token",
                sign: licence,
            },
            Cause {
                id: "no-such-model",
                means: "the hub has no such model, or hides it from this token",
                layer: Layer::Up,
                repair: Repair::EditDeployment,
                decides: "the hub's answer (404): `bedplate runtime prepare --require-hf-token`",
                fix: "correct `model` in the deployment",
                sign: |case| by_hub(case, |hub| matches!(hub, Hub::NotFound)),
            },
        ],
    },
    Symptom {
        id: "symptom.registry-429",
        texts: &[
            "toomanyrequests",
            "429 too many requests",
            "pull rate limit",
            "how often it may be asked (429)",
        ],
        exit: None,
        looks: "429 from a registry",
        causes: &[
            Cause {
                id: "anonymous-quota",
                means: "the registry's quota for those who are not logged in is used up",
                layer: Layer::Runtime,
                repair: Repair::LogIn,
                decides: "the registry's words, and whether Docker's client configuration holds credentials",
                fix: "`docker login` at that registry, use a mirror, or start only what the lock already has on the host",
                sign: anonymous,
            },
            Cause {
                id: "own-quota",
                means: "the quota of the account itself is used up",
                layer: Layer::Runtime,
                repair: Repair::LogIn,
                decides: "whether Docker's client configuration holds credentials for that registry",
                fix: "wait as long as the registry says, or use a mirror",
                sign: own_quota,
            },
        ],
    },
];

/// GPU memory that is held although nothing of the deployment runs; less is what a driver and a desktop take.
const MUCH: u64 = 1 << 30;

/// The GPUs of the deployments: index, and how each is.
fn own_gpus<'c>(case: &'c Case<'_>) -> Result<Vec<(u32, &'c Health)>, String> {
    let gpus = match case.facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) => gpus,
        Ok(_) => return Err("NVML does not answer".to_owned()),
        Err(why) => return Err(why.to_owned()),
    };
    let asked = |index: u32, uuid: Option<&str>| {
        case.subject.deployments.iter().any(|deployment| match &deployment.gpu_ids {
            GpuIds::All => true,
            GpuIds::List(ids) => ids.iter().any(|id| {
                let id = id.split_once(':').map_or(id.as_str(), |(gpu, _)| gpu);
                *id == index.to_string() || uuid.is_some_and(|uuid| id.len() >= 8 && uuid.starts_with(id))
            }),
        })
    };
    let mut found = Vec::new();
    for gpu in gpus.devices.iter().filter(|gpu| asked(gpu.index, gpu.uuid.as_deref())) {
        match case.facts.health.get(&gpu.index) {
            Some(Known::Ok(health)) => found.push((gpu.index, health)),
            Some(Known::Unknown { why }) => return Err(format!("GPU {}: {why}", gpu.index)),
            None => return Err(format!("GPU {}: nothing was looked at", gpu.index)),
        }
    }
    if found.is_empty() { Err("which GPUs the deployment has is not known".to_owned()) } else { Ok(found) }
}

fn held(case: &Case<'_>) -> Sign {
    if case.seen.running {
        return Sign::open("the container still runs, and holds memory itself");
    }
    let gpus = match own_gpus(case) {
        Ok(gpus) => gpus,
        Err(why) => return Sign::open(why),
    };
    let mut open = None;
    for (index, health) in gpus {
        if let Reading::Value(processes) = &health.processes
            && let Some(process) = processes.iter().max_by_key(|process| process.memory)
        {
            let pid = process.pid;
            let holds = process.memory.map_or_else(|| "memory".to_owned(), size);
            return Sign::holds(format!("process {pid} holds {holds} of GPU {index}")).fix(format!(
                "see what it is (`ps -fp {pid}`), end it or give the deployment other GPUs, then `bedplate up` again"
            ));
        }
        match &health.memory {
            Reading::Value(memory) if memory.used >= MUCH => {
                return Sign::holds(format!(
                    "{} of GPU {index} are in use, by no process that NVML names",
                    size(memory.used)
                ))
                .fix("find who has it (`fuser -v /dev/nvidia*`), end it, then `bedplate up` again");
            }
            Reading::Value(_) => {}
            Reading::NotSupported => open = Some("NVML gives no memory use".to_owned()),
            Reading::Unknown { why } => open = Some(why.clone()),
        }
    }
    open.map_or_else(|| Sign::no("nothing holds memory of these GPUs now"), Sign::Open)
}

fn too_large(case: &Case<'_>) -> Sign {
    match case.by_check("deploy.fit") {
        // That the weights fit says nothing of what the engine takes beside them.
        Sign::No(line) => Sign::open(line),
        other => other,
    }
}

/// What the hub says of the models that are not on the host.
fn hub<'c>(case: &'c Case<'_>) -> Result<&'c Hub, String> {
    let deployments = case.deployments();
    let mut why = "no deployment takes its model from the hub".to_owned();
    let mut allowed = None;
    for deployment in deployments {
        match case.facts.models.get(&deployment.name).map(|model| model.hub.as_result()) {
            Some(Ok(hub @ Hub::Allowed { .. })) => allowed = Some(hub),
            Some(Ok(hub)) => return Ok(hub),
            Some(Err(unknown)) => unknown.clone_into(&mut why),
            None => "nothing was looked at".clone_into(&mut why),
        }
    }
    allowed.ok_or(why)
}

fn by_hub(case: &Case<'_>, is: fn(&Hub) -> bool) -> Sign {
    match hub(case) {
        Ok(hub) if is(hub) => Sign::holds(format!("the hub says: {}", words(hub))),
        Ok(hub) => Sign::no(format!("the hub says: {}", words(hub))),
        Err(why) => Sign::open(why),
    }
}

fn words(hub: &Hub) -> &'static str {
    match hub {
        Hub::Allowed { .. } => "the model may be fetched",
        Hub::TokenRejected => "the token is not valid (401)",
        Hub::TokenNeeded => "a token is needed, and none was sent (401)",
        Hub::Gated => "the model is gated, and no token was sent",
        Hub::Forbidden => "the token has no access (403)",
        Hub::NotFound => "no such model (404)",
    }
}

fn no_token(case: &Case<'_>) -> Sign {
    let mut open = None;
    for name in case.deployments().iter().map(|deployment| &deployment.hf_token) {
        let give = format!(
            "`bedplate secret set {name}` with a token that may read the model, then `bedplate up` again"
        );
        match looked_up(&case.facts.secrets, name) {
            Ok(SecretState::Absent(why)) => {
                return Sign::holds(format!("`{name}` resolves to nothing: {why}")).fix(give);
            }
            Ok(SecretState::Present(_)) => {}
            Err(why) => open = Some(format!("`{name}`: {why}")),
        }
    }
    match (by_hub(case, |hub| matches!(hub, Hub::TokenNeeded | Hub::Gated)), open) {
        (Sign::Open(_), Some(why)) => Sign::Open(why),
        (Sign::Open(_), None) if !case.deployments().is_empty() => {
            Sign::no("the token resolves to something")
        }
        (sign, _) => sign,
    }
}

fn licence(case: &Case<'_>) -> Sign {
    // huggingface.co's words to an account that has not been let in.
    if case.says(&["not in the authorized list", "awaiting a review from the repo authors"]) {
        return Sign::holds("the hub says that the account is not on the model's list");
    }
    by_hub(case, |hub| matches!(hub, Hub::Forbidden))
}

/// Docker Hub's words to who is not logged in.
const ANONYMOUS: &[&str] = &["unauthenticated pull rate limit", "increase the limit by authenticating"];

/// Whether there are credentials for a registry that must still be asked; why that is not known.
fn logged_in(case: &Case<'_>) -> Result<bool, String> {
    match case.facts.docker_config.as_result() {
        Ok(None) => Ok(false),
        Ok(Some(configuration)) => {
            let wanted = need::registries(&need::images(&case.subject.wanted, case.facts));
            let alias = |host: &str| host == "registry-1.docker.io";
            let has = wanted.keys().any(|host| {
                configuration
                    .plain
                    .iter()
                    .any(|known| known.contains(host.as_str()) || alias(host) && known.contains("docker.io"))
            });
            if has {
                Ok(true)
            } else {
                Err(format!(
                    "whether a helper named in `{}` has credentials is not known",
                    configuration.path
                ))
            }
        }
        Err(why) => Err(why.to_owned()),
    }
}

fn anonymous(case: &Case<'_>) -> Sign {
    if case.says(ANONYMOUS) {
        return Sign::holds("the registry speaks of those who are not logged in");
    }
    match logged_in(case) {
        Ok(false) => Sign::holds("there are no credentials: Docker has no client configuration"),
        Ok(true) => Sign::no("Docker's client configuration holds credentials"),
        Err(why) => Sign::open(why),
    }
}

fn own_quota(case: &Case<'_>) -> Sign {
    if case.says(ANONYMOUS) {
        return Sign::no("the registry speaks of those who are not logged in");
    }
    match logged_in(case) {
        Ok(true) => Sign::holds("Docker's client configuration holds credentials for it"),
        Ok(false) => Sign::no("there are no credentials"),
        Err(why) => Sign::open(why),
    }
}
