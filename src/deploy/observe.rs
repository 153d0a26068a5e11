//! What can be seen of a deployment from outside, as the facts of layer 4.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Context, spec::Spec};
use crate::{
    check::up::{Bound, ContainerState, Exposure, ObservedService},
    docker::{ContainerOnHost, End, Port},
    error::Result,
    host::facts::Known,
    profile::{secrets_like, services::Role},
    system::files::read_input,
};

/// How many last lines of a log are shown.
const LINES: usize = 20;
/// Shorter values are not looked for: they would be found everywhere.
const SHORTEST: usize = 4;
/// Shorter lines of a secret of several lines are not looked for.
const SHORTEST_LINE: usize = 8;
/// How many processes of a container are looked at.
const PROCESSES: usize = 256;

/// Every container of a deployment as it is now.
pub async fn services(
    context: Context<'_>,
    specs: &[Spec],
    secrets: &BTreeMap<String, SecretString>,
) -> Vec<ObservedService> {
    let mut seen = Vec::new();
    for spec in specs {
        let name = &spec.container.name;
        let mut done = false;
        let (state, exposure) = match context.docker.inspect(name).await {
            Ok(Some(found)) => {
                done = spec.role == Role::Extra && found.state.ended_well();
                let lines = if found.state.running && found.state.restarts == 0 {
                    Vec::new()
                } else {
                    last_lines(context, name, secrets).await
                };
                let state = match last_end(context, &found).await {
                    Ok(end) => Known::Ok(state(&found, end, lines, secrets)),
                    Err(error) => Known::unknown(error.message()),
                };
                (state, Known::Ok(exposure(spec, &found, secrets)))
            }
            Ok(None) => (
                Known::Ok(ContainerState {
                    error: Some("the container is gone".to_owned()),
                    ..ContainerState::default()
                }),
                Known::unknown("the container is gone"),
            ),
            Err(error) => (Known::unknown(error.message()), Known::unknown(error.message())),
        };
        let (service, container) = (spec.service.clone(), name.clone());
        seen.push(ObservedService { name: service, container, done, state, exposure });
    }
    seen
}

/// How a container ended last, if it did. Docker's state forgets that as it starts a container again.
async fn last_end(context: Context<'_>, found: &ContainerOnHost) -> Result<Option<End>> {
    let state = &found.state;
    let ended = !state.running && !state.finished_at.is_empty() && !state.finished_at.starts_with("0001");
    if ended || state.restarting {
        return Ok(Some(End { exit_code: state.exit_code, oom_killed: state.oom_killed }));
    }
    if state.restarts == 0 {
        return Ok(None);
    }
    context.docker.last_end(&found.id).await
}

fn state(
    found: &ContainerOnHost,
    end: Option<End>,
    last_lines: Vec<String>,
    secrets: &BTreeMap<String, SecretString>,
) -> ContainerState {
    let state = &found.state;
    ContainerState {
        running: state.running && !state.restarting,
        exit_code: end.map(|end| end.exit_code),
        oom_killed: end.is_some_and(|end| end.oom_killed),
        restarts: state.restarts,
        error: Some(redact(&state.error, secrets)).filter(|error| !error.is_empty()),
        last_lines,
    }
}

/// Ports meant and had, and secrets that can be seen in the container's configuration or in an argument list.
fn exposure(spec: &Spec, found: &ContainerOnHost, secrets: &BTreeMap<String, SecretString>) -> Exposure {
    let bound = |ports: &[Port]| {
        ports.iter().map(|port| Bound { address: port.address, port: port.host_port }).collect::<Vec<_>>()
    };
    let arguments: Vec<(u32, Vec<u8>)> = found.state.pid.map(processes).unwrap_or_default();
    let mut leaks = Vec::new();
    for (name, value) in secrets {
        let value = value.expose_secret().trim();
        if value.len() < SHORTEST {
            continue;
        }
        // What Docker shows is JSON: the value stands there escaped.
        let escaped = serde_json::Value::from(value).to_string();
        if found.shown.contains(escaped.trim_matches('"')) {
            leaks.push(format!("`docker inspect {}` shows secret `{name}`", found.name));
        }
        for (pid, line) in &arguments {
            if contains(line, value.as_bytes()) {
                leaks.push(format!("the argument list of process {pid} holds secret `{name}`"));
            }
        }
    }
    leaks.extend(tokens(&found.shown, &found.name));
    for (pid, line) in &arguments {
        if secrets_like::holds_issued_token(&String::from_utf8_lossy(line).replace('\0', " ")) {
            leaks.push(format!("the argument list of process {pid} holds a token"));
        }
    }
    Exposure { wanted: bound(&spec.container.ports), bound: bound(&found.ports), leaks }
}

/// Tokens that have the form their issuers give them, whether they are secrets of ours or not: in the environment, the
/// command, the entrypoint, the arguments and the labels that Docker shows.
fn tokens(shown: &str, container: &str) -> Vec<String> {
    let shown: Value = serde_json::from_str(shown).unwrap_or_default();
    let mut leaks = Vec::new();
    for (place, pointer) in [
        ("a variable", "/Config/Env"),
        ("the command", "/Config/Cmd"),
        ("the entrypoint", "/Config/Entrypoint"),
        ("an argument", "/Args"),
        ("a label", "/Config/Labels"),
    ] {
        let token = |value: &Value| value.as_str().is_some_and(secrets_like::holds_issued_token);
        match shown.pointer(pointer) {
            Some(Value::Array(items)) => leaks.extend(items.iter().filter(|item| token(item)).map(|item| {
                // Of a variable its name is said, never its value.
                let name = item.as_str().and_then(|item| item.split_once('=')).map(|(name, _)| name);
                match name.filter(|name| place == "a variable" && !secrets_like::holds_issued_token(name)) {
                    Some(name) => format!("variable `{name}` holds a token"),
                    None => format!("{place} in `docker inspect {container}` holds a token"),
                }
            })),
            Some(Value::Object(labels)) => {
                leaks.extend(labels.iter().filter(|(_, value)| token(value)).map(|(name, _)| {
                    let name = if secrets_like::holds_issued_token(name) { "…" } else { name };
                    format!("label `{name}` holds a token")
                }));
            }
            _ => {}
        }
    }
    leaks.dedup();
    leaks
}

/// The argument lists of a process and its descendants, as the host sees them (proc(5)).
fn processes(first: u32) -> Vec<(u32, Vec<u8>)> {
    let read = |path: String| read_input(&PathBuf::from(path), 4 << 20).unwrap_or_default();
    let (mut left, mut seen) = (vec![first], Vec::new());
    while let Some(pid) = left.pop()
        && seen.len() < PROCESSES
    {
        seen.push((pid, read(format!("/proc/{pid}/cmdline"))));
        let children = read(format!("/proc/{pid}/task/{pid}/children"));
        left.extend(
            String::from_utf8_lossy(&children).split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    seen
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// The last lines of a container's log, without secrets.
pub(super) async fn last_lines(
    context: Context<'_>,
    container: &str,
    secrets: &BTreeMap<String, SecretString>,
) -> Vec<String> {
    let lines = context.docker.last_lines(container, LINES).await.unwrap_or_default();
    lines.iter().map(|line| redact(line, secrets)).collect()
}

/// The text with every secret's value, and every line of one of several lines, replaced by its name. Where values
/// overlap, all they cover goes.
pub fn redact(text: &str, secrets: &BTreeMap<String, SecretString>) -> String {
    let mut found: Vec<(usize, usize, &str)> = Vec::new();
    for (name, value) in secrets {
        for part in parts(value.expose_secret()) {
            // Step by one character: a value can overlap itself.
            let step = part.chars().next().map_or(1, char::len_utf8);
            let mut from = 0;
            while let Some(at) = text.get(from..).and_then(|rest| rest.find(part)) {
                found.push((from + at, from + at + part.len(), name));
                from += at + step;
            }
        }
    }
    // The longer of two that begin together gives its name.
    found.sort_by_key(|&(start, end, _)| (start, std::cmp::Reverse(end)));
    let mut clean = String::with_capacity(text.len());
    let mut covered = 0;
    for (start, end, name) in found {
        if start >= covered {
            clean.push_str(&text[covered..start]);
            clean.push_str(&format!("<secret {name}>"));
        }
        covered = covered.max(end);
    }
    clean.push_str(&text[covered..]);
    clean
}

/// What is looked for of a secret: a log shows a value of several lines line by line.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let whole = value.trim();
    let lines =
        whole.lines().map(str::trim).filter(move |line| *line != whole && line.len() >= SHORTEST_LINE);
    std::iter::once(whole).filter(|whole| whole.len() >= SHORTEST).chain(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_names() {
        let secrets = BTreeMap::from([
            ("TOKEN".to_owned(), SecretString::from("s3cr3t-value")),
            ("SHORT".to_owned(), SecretString::from("a")),
        ]);
        assert_eq!(redact("a key=s3cr3t-value b", &secrets), "a key=<secret TOKEN> b");
    }

    #[test]
    fn a_token_is_seen_wherever_docker_shows_it() {
        let token = format!("hf_{}", "aB3dE5gH7j".repeat(4));
        let shown = |pointer: &str, value: Value| {
            let mut whole = serde_json::json!({
                "Args": ["serve"],
                "Config": { "Env": ["PATH=/bin", "GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568"], "Cmd": null,
                    "Entrypoint": ["vllm"], "Labels": { "a": "b" } },
            });
            *whole.pointer_mut(pointer).unwrap() = value;
            tokens(&whole.to_string(), "web")
        };
        let list = |text: String| serde_json::json!(["x", text]);
        for (pointer, value, says) in [
            ("/Config/Env", list(format!("HF={token}")), "variable `HF` holds a token"),
            ("/Config/Env", list(token.clone()), "a variable in `docker inspect web` holds a token"),
            (
                "/Config/Cmd",
                list(format!("--key={token}")),
                "the command in `docker inspect web` holds a token",
            ),
            (
                "/Config/Entrypoint",
                list(token.clone()),
                "the entrypoint in `docker inspect web` holds a token",
            ),
            ("/Args", list(token.clone()), "an argument in `docker inspect web` holds a token"),
            ("/Config/Labels", serde_json::json!({ "note": token }), "label `note` holds a token"),
        ] {
            let leaks = shown(pointer, value);
            assert_eq!(leaks, [says], "{pointer}");
            assert!(!leaks[0].contains(&token));
        }
        assert_eq!(shown("/Args", serde_json::json!([])), [""; 0]);
    }

    #[test]
    fn overlapping_and_long_values_leave_nothing() {
        let secrets = BTreeMap::from([
            ("A".to_owned(), SecretString::from("abcd")),
            ("B".to_owned(), SecretString::from("abcd-efgh")),
            ("C".to_owned(), SecretString::from("efgh-ijkl")),
            ("D".to_owned(), SecretString::from("secret")),
            ("KEY".to_owned(), SecretString::from("-----BEGIN-----\nMIIEvAIBADAN\r\nshort\n-----END-----\n")),
        ]);
        for (text, wanted) in [
            ("x abcd y", "x <secret A> y"),
            ("x abcd-efgh y", "x <secret B> y"),
            ("x abcd-efgh-ijkl y", "x <secret B> y"),
            ("abcdabcd", "<secret A><secret A>"),
            ("secret abcd", "<secret D> <secret A>"),
            ("| MIIEvAIBADAN", "| <secret KEY>"),
            ("short", "short"),
            ("-----BEGIN-----\nMIIEvAIBADAN\r\nshort\n-----END-----", "<secret KEY>"),
            ("é abcd é", "é <secret A> é"),
            ("", ""),
        ] {
            assert_eq!(redact(text, &secrets), wanted, "{text}");
        }
    }

    #[test]
    fn this_process_has_arguments() {
        let seen = processes(std::process::id());
        assert!(!seen[0].1.is_empty());
        assert!(contains(b"--key=abcd", b"abcd") && !contains(b"ab", b"abcd"));
    }
}
