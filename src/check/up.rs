//! Layer 4: a started deployment, from what `up` observed of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    diagnosis::{Diagnosis, Seen, diagnose},
    gate::Decision,
    subject::Subject,
    verdict::{Tally, Verdict},
};
use crate::host::facts::{Facts, Known};

/// What `up` observed, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// The deployment's name.
    pub deployment: String,
    /// Its containers.
    pub services: Vec<ObservedService>,
    /// What its API answers.
    pub serving: Known<Serving>,
    /// What its agent answers; absent where it has none.
    pub agent: Option<Known<Agent>>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObservedService {
    /// The service's name.
    pub name: String,
    /// The container's name.
    pub container: String,
    /// Its work is over and went well: a further service that runs once.
    #[serde(default)]
    pub done: bool,
    /// Whether it runs.
    pub state: Known<ContainerState>,
    /// What of it can be seen from outside.
    pub exposure: Known<Exposure>,
}

/// Whether a container runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerState {
    /// It runs.
    pub running: bool,
    /// With what it exited.
    pub exit_code: Option<i64>,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// What Docker says of a failed start.
    pub error: Option<String>,
    /// The last lines of its log, without secrets.
    pub last_lines: Vec<String>,
}

/// What can be seen of a container from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exposure {
    /// Ports it was meant to have.
    pub wanted: Vec<Bound>,
    /// Ports it has.
    pub bound: Vec<Bound>,
    /// Secrets that can be seen: `environment variable `X` holds secret `Y`` — a place and a name, never a value.
    pub leaks: Vec<String>,
}

/// A port on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Host address.
    pub address: IpAddr,
    /// Host port.
    pub port: u16,
}

/// What the engine's API answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Serving {
    /// Where it was asked.
    pub url: String,
    /// Status of `/health`; absent where nothing answered.
    pub health: Option<u16>,
    /// What `/v1/models` lists.
    pub models: Vec<String>,
    /// The model that must be listed.
    pub model: String,
    /// Seconds waited.
    pub waited: u64,
    /// The last lines of the engine's log, without secrets.
    pub last_lines: Vec<String>,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Agent {
    /// Status of `/readyz`; absent where nothing answered.
    pub ready: Option<u16>,
    /// The reason it gives.
    pub reason: Option<String>,
}

const NOT_STARTED: &str = "the deployment was not started";

pub(super) fn readiness(subject: &Subject<'_>, _: &Facts) -> Verdict {
    match subject.gate {
        None => Verdict::unknown("nobody asked the gate"),
        Some(Decision::Open { because, evidence }) => {
            let mut verdict = Verdict::pass(because);
            verdict.evidence.clone_from(evidence);
            verdict
        }
        Some(Decision::Shut { because, next }) => Verdict::fail(because).saw(because).next(next),
    }
}

pub(super) fn started(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let Some(observed) = subject.observed else { return Verdict::unknown(NOT_STARTED) };
    let mut tally = Tally::default();
    for service in &observed.services {
        let name = &service.name;
        let state = match service.state.as_result() {
            Ok(state) => state,
            Err(why) => {
                tally.unknown(format!("`{name}`: {why}"));
                continue;
            }
        };
        if state.running {
            if state.restarts > 0 {
                tally.note(format!("`{name}` was started again {} times", state.restarts));
            }
            tally.good(format!("`{}` runs", service.container));
            continue;
        }
        if service.done {
            tally.good(format!("`{}` has done its work", service.container));
            continue;
        }
        for line in &state.last_lines {
            tally.note(format!("`{name}`: {line}"));
        }
        let exit =
            state.exit_code.map_or_else(|| "did not start".to_owned(), |code| format!("exited with {code}"));
        let logs = format!("`bedplate logs {}` shows all of it", observed.deployment);
        if let Some(found) = diagnose(subject, facts, Seen::of(name, state)) {
            for line in found.evidence() {
                tally.note(format!("`{name}`: {line}"));
            }
            tally.bad(format!("`{name}` {exit}: {}", found.says()), found.next().unwrap_or(logs));
        } else {
            let last = state.error.as_ref().or(state.last_lines.last());
            let last = last.map_or_else(String::new, |line| format!(": {line}"));
            tally.bad(format!("`{name}` {exit}{last}"), logs);
        }
    }
    tally.verdict("every container runs", "the deployment has no container")
}

pub(super) fn serving(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let Some(observed) = subject.observed else { return Verdict::unknown(NOT_STARTED) };
    let serving = match observed.serving.as_result() {
        Ok(serving) => serving,
        Err(why) => return Verdict::unknown(why),
    };
    let Serving { url, model, .. } = serving;
    let health = serving.health.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let mut lines = vec![
        format!("{url}/health: {health}"),
        format!(
            "{url}/v1/models: {}",
            if serving.models.is_empty() { "no model".to_owned() } else { serving.models.join(", ") }
        ),
    ];
    let ready = serving.health == Some(200) && serving.models.iter().any(|listed| listed == model);
    let mut verdict = if ready {
        Verdict::pass(format!("`{model}` is served at {url}"))
    } else {
        let waited = format!("not ready after {} s", serving.waited);
        lines.extend(serving.last_lines.iter().map(|line| format!("log: {line}")));
        let logs = format!("`bedplate logs -f {}`", observed.deployment);
        if let Some(found) = of_engine(subject, facts, serving) {
            lines.extend(found.evidence());
            Verdict::fail(format!("{waited}: {}", found.says())).next(found.next().unwrap_or(logs))
        } else if serving.health == Some(200) && !serving.models.is_empty() {
            Verdict::fail(format!("{waited}: it serves {}, not `{model}`", serving.models.join(", "))).next(
                format!(
                    "remove `--served-model-name` from `extra_args` in `{}.yaml`, or correct `model`",
                    observed.deployment
                ),
            )
        } else if downloading(&serving.last_lines) {
            Verdict::fail(format!("{waited}: it is still fetching the model"))
                .next(format!("wait for it ({logs}), or `bedplate up --timeout` with more seconds"))
        } else {
            Verdict::fail(format!("{waited}: /health says {health}"))
                .next(format!("{logs} shows what it is doing; `bedplate up --timeout` waits longer"))
        }
    };
    verdict.evidence = lines;
    verdict
}

/// What the lines of an engine that runs and does not serve stand for.
fn of_engine(subject: &Subject<'_>, facts: &Facts, serving: &Serving) -> Option<Diagnosis> {
    let deployment = subject.wanted.deployments.first();
    let engine = deployment.and_then(|deployment| {
        deployment.services.iter().find(|service| service.role == crate::profile::services::Role::Engine)
    });
    let service = engine.map_or("", |engine| engine.name.as_str());
    diagnose(subject, facts, Seen { service, lines: &serving.last_lines, running: true, ..Seen::default() })
}

/// Whether the last lines are of a download (huggingface_hub's and vLLM's words).
fn downloading(lines: &[String]) -> bool {
    let last = lines.iter().rev().take(5).map(|line| line.to_lowercase());
    last.into_iter().any(|line| line.contains("download") || line.contains("fetching"))
}

pub(super) fn exposed(subject: &Subject<'_>, _: &Facts) -> Verdict {
    let Some(observed) = subject.observed else { return Verdict::unknown(NOT_STARTED) };
    let mut tally = Tally::default();
    for service in &observed.services {
        let name = &service.name;
        let exposure = match service.exposure.as_result() {
            Ok(exposure) => exposure,
            Err(why) => {
                tally.unknown(format!("`{name}`: {why}"));
                continue;
            }
        };
        for bound in &exposure.bound {
            let shown = format!("{}:{}", bound.address, bound.port);
            if exposure.wanted.contains(bound) {
                tally.good(format!("`{name}` is on {shown}, as meant"));
            } else {
                tally.bad(
                    format!("`{name}` is on {shown}, which was not meant"),
                    format!("`bedplate rm {0} && bedplate up -f {0}.yaml`", observed.deployment),
                );
            }
        }
        for leak in &exposure.leaks {
            tally.bad(
                format!("`{name}` shows a secret: {leak}"),
                format!(
                    "`bedplate rm {}`, change that secret where it was issued, and start again",
                    observed.deployment
                ),
            );
        }
        if exposure.leaks.is_empty() {
            tally.good(format!("`{name}`: no secret in `docker inspect` or its arguments"));
        }
    }
    tally.verdict("ports as meant, no secret to be seen", "the deployment has no container")
}

pub(super) fn agent(subject: &Subject<'_>, _: &Facts) -> Verdict {
    let Some(observed) = subject.observed else { return Verdict::unknown(NOT_STARTED) };
    let Some(agent) = &observed.agent else { return Verdict::not_applicable("the deployment has no agent") };
    let logs = format!("`bedplate logs {}` shows what the agent says", observed.deployment);
    match agent.as_result() {
        Ok(Agent { ready: Some(200), .. }) => Verdict::pass("the agent is ready").saw("/readyz: 200"),
        Ok(Agent { ready: Some(status), reason }) => {
            let why = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            Verdict::fail(format!("the agent is not ready ({status}){why}"))
                .saw(format!("/readyz: {status}"))
                .next(logs)
        }
        Ok(Agent { ready: None, reason }) => {
            let why = reason.as_deref().unwrap_or("no answer");
            Verdict::fail(format!("the agent does not answer: {why}"))
                .saw(format!("/readyz: {why}"))
                .next(logs)
        }
        Err(why) => Verdict::unknown(why),
    }
}
