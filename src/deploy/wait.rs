//! Waiting until a deployment serves: the engine's `/health` answers 200 and `/v1/models` lists the model, and the
//! agent, where there is one, says it is ready.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};

use super::{
    Context, launch, observe,
    spec::Spec,
    up::{Ended, Wanted},
};
use crate::{
    check::up::{Agent, Observed, Serving},
    docker::{ContainerOnHost, State},
    error::{Doing, Result},
    host::facts::Known,
    profile::services::{self, Role, Service},
    progress::{Event, Unit},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Time limit of one request.
const REQUEST: Duration = Duration::from_secs(5);
/// The largest answer read, in bytes.
const ANSWER: usize = 1 << 20;
/// Where the agent listens unless it is told otherwise.
const AGENT_PORT: u16 = 8080;

/// What is asked, and where.
#[derive(Debug, Clone)]
pub struct Target {
    model: String,
    engine: Option<Service>,
    engine_port: u16,
    agent: Option<Service>,
    api_key: Option<SecretString>,
    agent_key: Option<SecretString>,
    secrets: BTreeMap<String, SecretString>,
}

impl Target {
    /// The target of a deployment.
    pub fn new(wanted: Wanted<'_>) -> Self {
        let deployment = wanted.deployment;
        let mut services = services::services(deployment);
        let mut take = |role| {
            let at = services.iter().position(|service| service.role == role)?;
            Some(services.swap_remove(at))
        };
        let engine = take(Role::Engine);
        let agent = take(Role::Agent);
        let secret = |name: &String| wanted.secrets.get(name).cloned();
        let agent_key = agent
            .as_ref()
            .and_then(|agent| agent.secrets.get("MINER_API_KEY"))
            .and_then(|s| secret(&s.secret));
        Self {
            model: served_name(&deployment.model, &deployment.extra_args),
            engine,
            engine_port: deployment.port,
            agent,
            api_key: deployment.api_key.as_ref().and_then(secret),
            agent_key,
            secrets: wanted.secrets.clone(),
        }
    }

    /// Where the engine's API is published on the host, where it is.
    pub fn published(&self) -> Option<String> {
        published(self.engine.as_ref()?, self.engine_port).map(|address| format!("http://{address}"))
    }
}

/// The name `/v1/models` lists: the model's, unless `--served-model-name` gives another (the first of several counts).
fn served_name(model: &str, extra: &[String]) -> String {
    let mut arguments = extra.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--served-model-name"
            && let Some(name) = arguments.next()
        {
            return name.clone();
        }
        if let Some(name) = argument.strip_prefix("--served-model-name=") {
            return name.to_owned();
        }
    }
    model.to_owned()
}

/// Where `port` of a service is reached from the host.
fn published(service: &Service, port: u16) -> Option<SocketAddr> {
    let found = service.ports.iter().find(|p| p.container_port == port && p.protocol == "tcp")?;
    let address = match found.address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Some(SocketAddr::new(address, found.host_port))
}

/// A client for the host's own addresses: no proxy, no redirects.
pub(super) fn client() -> Result<reqwest::Client> {
    // Only needed to build the client; another part of the program may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST)
        .build()
        .doing(|| "making an HTTP client")
}

/// Status and body, or why nothing answered.
pub(super) async fn get(
    client: &reqwest::Client,
    url: &str,
    bearer: Option<&SecretString>,
) -> std::result::Result<(u16, Vec<u8>), String> {
    let mut request = client.get(url);
    if let Some(token) = bearer {
        request = request.header("authorization", format!("Bearer {}", token.expose_secret().trim()));
    }
    // An address only, no header, can be in reqwest's messages.
    let mut answer = request.send().await.map_err(|error| error.to_string())?;
    let mut body = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER {
            break;
        }
    }
    Ok((answer.status().as_u16(), body))
}

/// Waits, and fills in what was seen of the API and the agent. `restarts`: how often Docker had started each service
/// again before; none where nothing is said.
pub(super) async fn until_serving(
    context: Context<'_>,
    target: &Target,
    specs: &[Spec],
    restarts: &BTreeMap<String, u64>,
    limit: Duration,
    observed: &mut Observed,
) -> Result<Ended> {
    let begun = Instant::now();
    let client = client()?;
    let task = format!("wait for `{}`", target.model);
    context.progress.started(&task, None, Unit::None);
    let mut serving = Serving { model: target.model.clone(), ..Serving::default() };
    let mut agent = Agent::default();
    let mut agent_unknown: Option<String> = None;
    let before = |spec: &Spec| restarts.get(&spec.service).copied().unwrap_or(0);
    let ended = loop {
        let mut containers = BTreeMap::new();
        let mut exited = None;
        for spec in specs {
            let found = context.docker.inspect(&spec.container.name).await?;
            if exited.is_none()
                && has_exited(spec.role, found.as_ref().map(|found| &found.state), before(spec))
            {
                exited = Some(spec.service.clone());
            }
            if let Some(found) = found {
                containers.insert(spec.service.clone(), found);
            }
        }
        if let Some(service) = exited {
            break Ended::Exited { service };
        }
        let engine_ready = look(&client, target, &containers, &mut serving).await;
        let mut agent_ready = true;
        if engine_ready && let Some(service) = &target.agent {
            match ask_agent(context, &client, target, service, &containers).await {
                Ok(seen) => {
                    agent_ready = seen.ready == Some(200);
                    (agent, agent_unknown) = (seen, None);
                }
                Err(why) => {
                    agent_ready = false;
                    agent_unknown = Some(why);
                }
            }
        }
        if engine_ready && agent_ready {
            break Ended::Serving;
        }
        if begun.elapsed() >= limit {
            break Ended::TimedOut;
        }
        let waits_for = if engine_ready { target.agent.as_ref() } else { target.engine.as_ref() };
        say(context, target, &task, waits_for, begun).await;
        tokio::time::sleep(PAUSE.min(limit.saturating_sub(begun.elapsed()))).await;
    };
    serving.waited = begun.elapsed().as_secs();
    if let Some(engine) = &target.engine
        && !matches!(ended, Ended::Serving)
    {
        serving.last_lines = observe::last_lines(context, &engine.container_name, &target.secrets).await;
    }
    if matches!(ended, Ended::Serving) {
        context.progress.finished(&task, Some(&format!("serves after {} s", serving.waited)));
    }
    observed.serving = Known::Ok(serving);
    observed.agent = target.agent.as_ref().map(|_| match agent_unknown {
        Some(why) => Known::unknown(why),
        None => Known::Ok(agent),
    });
    Ok(ended)
}

/// Whether a container's end ends the wait. One that Docker started again since has ended too; a further service that
/// ended well has done its work.
fn has_exited(role: Role, state: Option<&State>, restarts_before: u64) -> bool {
    let Some(state) = state else { return true };
    if state.running && !state.restarting {
        return state.restarts > restarts_before;
    }
    !(role == Role::Extra && state.ended_well())
}

async fn look(
    client: &reqwest::Client,
    target: &Target,
    containers: &BTreeMap<String, ContainerOnHost>,
    serving: &mut Serving,
) -> bool {
    let Some(engine) = &target.engine else { return true };
    let Some(address) = address(engine, target.engine_port, containers) else { return false };
    serving.url = format!("http://{address}");
    serving.health = get(client, &format!("{}/health", serving.url), target.api_key.as_ref())
        .await
        .ok()
        .map(|(code, _)| code);
    if serving.health != Some(200) {
        return false;
    }
    if let Ok((200, body)) = get(client, &format!("{}/v1/models", serving.url), target.api_key.as_ref()).await
    {
        serving.models = models(&body);
    }
    serving.models.contains(&serving.model)
}

/// The ids in an answer of `/v1/models` (OpenAI API, "List models").
fn models(body: &[u8]) -> Vec<String> {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else { return Vec::new() };
    let listed = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    listed.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect()
}

/// The published address, else the container's own.
fn address(
    service: &Service,
    port: u16,
    containers: &BTreeMap<String, ContainerOnHost>,
) -> Option<SocketAddr> {
    published(service, port).or_else(|| {
        let own = containers.get(&service.name)?.addresses.values().next()?;
        Some(SocketAddr::new(*own, port))
    })
}

async fn ask_agent(
    context: Context<'_>,
    client: &reqwest::Client,
    target: &Target,
    service: &Service,
    containers: &BTreeMap<String, ContainerOnHost>,
) -> std::result::Result<Agent, String> {
    let port =
        service.environment.get("MINER_HTTP_PORT").and_then(|port| port.parse().ok()).unwrap_or(AGENT_PORT);
    let reason = |body: &[u8]| reason(body).map(|text| observe::redact(&text, &target.secrets));
    if let Some(address) = published(service, port) {
        let url = format!("http://{address}/readyz");
        return Ok(match get(client, &url, target.agent_key.as_ref()).await {
            Ok((code, body)) => Agent { ready: Some(code), reason: reason(&body) },
            Err(_) => Agent { ready: None, reason: Some(format!("nothing answers at {url}")) },
        });
    }
    // It listens on its own loopback: ask from inside, with the launcher, which reads the key itself.
    let container = containers.get(&service.name).ok_or("its container is gone")?;
    let url = format!("http://127.0.0.1:{port}/readyz");
    let mut command = vec![launch::IN_CONTAINER, "--probe", &url];
    if target.agent_key.is_some() {
        command.extend(["--bearer", "MINER_API_KEY"]);
    }
    let ran = context
        .docker
        .exec(&container.id, &command, None)
        .await
        .map_err(|error| error.message().to_owned())?;
    let text = String::from_utf8_lossy(&ran.stdout);
    let (status, body) = text.split_once('\n').unwrap_or((&text, ""));
    Ok(match status.trim().parse() {
        Ok(code) => Agent { ready: Some(code), reason: reason(body.as_bytes()) },
        Err(_) => Agent { ready: None, reason: reason(&ran.stderr) },
    })
}

/// The reason an answer gives: a field of that meaning, or its first line.
fn reason(body: &[u8]) -> Option<String> {
    if let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) {
        for key in ["reason", "detail", "error", "message", "status"] {
            if let Some(text) = answer[key].as_str() {
                return Some(text.to_owned());
            }
        }
    }
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(200).collect())
}

async fn say(context: Context<'_>, target: &Target, task: &str, service: Option<&Service>, begun: Instant) {
    let Some(service) = service else { return };
    let last = context.docker.last_lines(&service.container_name, 1).await.unwrap_or_default();
    let last = last.last().map(|line| observe::redact(line, &target.secrets)).unwrap_or_default();
    let seconds = begun.elapsed().as_secs();
    let note = format!("{seconds} s, {}: {}", service.name, last.trim());
    context.progress.event(Event::Advanced {
        task: task.into(),
        done: seconds,
        total: None,
        note: Some(note.into()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_served_name_may_differ() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(served_name("a/b", &words(&["--seed", "1"])), "a/b");
        assert_eq!(served_name("a/b", &words(&["--served-model-name", "x", "y"])), "x");
        assert_eq!(served_name("a/b", &words(&["--served-model-name=z"])), "z");
    }

    #[test]
    fn an_end_is_told_from_a_restart_of_long_ago() {
        let running = State { running: true, started_at: "2026-01-01T00:00:00Z".into(), ..State::default() };
        let ended = State { running: false, ..running.clone() };
        let again = State { restarts: 2, ..running.clone() };
        let waits = State { restarting: true, ..again.clone() };
        let failed = State { exit_code: 1, ..ended.clone() };
        let never = State { started_at: "0001-01-01T00:00:00Z".into(), ..ended.clone() };
        let cases = [
            (Role::Engine, Some(&running), 0, false),
            (Role::Engine, Some(&again), 2, false),
            (Role::Engine, Some(&again), 1, true),
            (Role::Engine, Some(&waits), 2, true),
            (Role::Engine, Some(&ended), 0, true),
            (Role::Engine, None, 0, true),
            (Role::Extra, Some(&ended), 0, false),
            (Role::Extra, Some(&failed), 0, true),
            (Role::Extra, Some(&never), 0, true),
        ];
        for (role, state, before, wanted) in cases {
            assert_eq!(has_exited(role, state, before), wanted, "{role:?} {state:?} {before}");
        }
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(models(br#"{"data":[{"id":"a"},{"id":"b"},{}]}"#), ["a", "b"]);
        assert!(models(b"<html>").is_empty());
        assert_eq!(reason(br#"{"reason":"not registered"}"#).as_deref(), Some("not registered"));
        assert_eq!(reason(b"\n no heartbeat \nx").as_deref(), Some("no heartbeat"));
        assert_eq!(reason(b""), None);
    }
}
