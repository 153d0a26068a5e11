//! What went wrong at Docker, in words that name the cause and the way out.

use bollard::errors::Error as Bollard;

use crate::error::Error;

/// What was asked of the daemon, for the first half of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    Connect,
    Engine,
    Image(&'a str),
    Pull(&'a str),
    Load,
    Tag(&'a str),
    Create(&'a str),
    Start(&'a str),
    Stop(&'a str),
    Remove(&'a str),
    Inspect(&'a str),
    Logs(&'a str),
    Exec(&'a str),
    Copy(&'a str),
    List,
    Network(&'a str),
}

impl std::fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("connecting to Docker"),
            Self::Engine => f.write_str("asking Docker about itself"),
            Self::Image(name) => write!(f, "looking for image `{name}`"),
            Self::Pull(name) => write!(f, "pulling `{name}`"),
            Self::Load => f.write_str("loading an image"),
            Self::Tag(name) => write!(f, "tagging image `{name}`"),
            Self::Create(name) => write!(f, "creating container `{name}`"),
            Self::Start(name) => write!(f, "starting container `{name}`"),
            Self::Stop(name) => write!(f, "stopping container `{name}`"),
            Self::Remove(name) => write!(f, "removing container `{name}`"),
            Self::Inspect(name) => write!(f, "inspecting container `{name}`"),
            Self::Logs(name) => write!(f, "reading the log of container `{name}`"),
            Self::Exec(name) => write!(f, "running a command in container `{name}`"),
            Self::Copy(name) => write!(f, "copying files with container `{name}`"),
            Self::List => f.write_str("listing containers"),
            Self::Network(name) => write!(f, "setting up network `{name}`"),
        }
    }
}

/// What is said where the daemon takes too long.
const LATE: &str = "the daemon did not answer in time";

/// Whether an error of this module is that the daemon took too long.
pub(super) fn is_late(error: &Error) -> bool {
    error.message().ends_with(LATE)
}

/// The daemon's own words, without bollard's wrapping.
pub(super) fn words(error: &Bollard) -> String {
    match error {
        Bollard::DockerResponseServerError { message, status_code } if message.trim().is_empty() => {
            format!("the daemon answered {status_code}")
        }
        Bollard::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Bollard::DockerStreamError { error } => error.trim().to_owned(),
        Bollard::RequestTimeoutError => LATE.to_owned(),
        other => {
            let mut text = other.to_string();
            let mut next = std::error::Error::source(other);
            while let Some(cause) = next {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                next = cause.source();
            }
            text
        }
    }
}

/// Whether the daemon said that what was named is not there.
pub(super) fn is_absent(error: &Bollard) -> bool {
    matches!(error, Bollard::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the daemon said that there is nothing to change.
pub(super) fn is_unchanged(error: &Bollard) -> bool {
    matches!(error, Bollard::DockerResponseServerError { status_code: 304, .. })
}

/// The error for a call that failed.
pub(super) fn failed(asked: Asked<'_>, error: Bollard) -> Error {
    let said = words(&error);
    match asked {
        Asked::Pull(reference) => pull(reference, &said),
        _ => general(asked, &said),
    }
}

fn general(asked: Asked<'_>, said: &str) -> Error {
    let low = said.to_ascii_lowercase();
    let made = Error::failed(format!("{asked}: {said}"));
    if is_full(&low) {
        return made
            .hint("make room under Docker's data directory: `docker system df`, then `docker image prune`");
    }
    if low.contains("port is already allocated") || low.contains("address already in use") {
        return made
            .hint("another program has the port: `ss -ltnp` shows which; stop it, or choose another port");
    }
    if low.contains("bind source path does not exist") || low.contains("invalid mount config") {
        return made.hint(
            "make the directory, or let a `[[mount]]` of the profile make it with `bedplate provision`",
        );
    }
    if low.contains("could not select device driver") {
        return made
            .hint("the container toolkit is missing, or Docker was not restarted since it came: run `bedplate toolkit verify`");
    }
    if low.contains("unresolvable cdi devices") || low.contains("cdi device injection failed") {
        return made.hint("no CDI specification names that device: run `bedplate toolkit verify`");
    }
    if low.contains("is already in use by container") {
        return made
            .hint("another container has that name; look with `docker ps -a`, then rename or remove it");
    }
    if low.contains("broken pipe") || low.contains("connection reset") || low.contains("connection closed") {
        return made.hint("the daemon went away: look at `journalctl -u docker`");
    }
    made
}

fn is_full(low: &str) -> bool {
    low.contains("no space left on device") || low.contains("disk quota exceeded")
}

/// A pull's failure, by cause. The daemon gives words only; the patterns are those of Docker 20.10 to 28 and of
/// the registries' error codes (OCI distribution specification, "Error Codes").
pub(super) fn pull(reference: &str, said: &str) -> Error {
    let low = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| low.contains(word));
    let registry = reference.split('/').next().unwrap_or(reference);
    let what = format!("pulling `{reference}`");
    if is_full(&low) {
        return Error::failed(format!("{what}: no space left on the disk that holds Docker's data"))
            .because(said.to_owned())
            .hint(
                "unpacked layers need more than the download: `docker system df`, then `docker image prune`",
            );
    }
    if has(&["toomanyrequests", "too many requests", "429", "rate limit"]) {
        return Error::failed(format!("{what}: the registry limits how often it may be asked (429)"))
            .because(said.to_owned())
            .hint(format!("log in with `docker login {registry}`, use a mirror, or try again later"));
    }
    // "repository does not exist or may require 'docker login'" is what an unknown repository and missing rights
    // both look like; only the second half tells.
    if has(&[
        "unauthorized",
        "no basic auth credentials",
        "authentication required",
        "denied",
        "401",
        "403 forbidden",
    ]) {
        return Error::failed(format!("{what}: the registry refused the credentials, or wants some"))
            .because(said.to_owned())
            .hint(format!("log in with `docker login {registry}` as the user that runs bedplate"));
    }
    if has(&["manifest unknown", "not found", "404", "name unknown", "does not exist"]) {
        return Error::failed(format!("{what}: the registry has no such image any more"))
            .because(said.to_owned())
            .hint("see what moved with `bedplate lock --update-all --check`, then lock again");
    }
    if has(&[
        "digest mismatch",
        "digest did not match",
        "does not match digest",
        "manifest verification failed",
        "filesystem layer verification failed",
        "verification failed for digest",
    ]) {
        return Error::failed(format!("{what}: the registry sent other bytes than the digest says"))
            .because(said.to_owned())
            .hint("nothing of it was kept; a broken mirror or proxy is likely: try without it");
    }
    if has(&["x509", "certificate", "server gave http response to https client"]) {
        return Error::failed(format!("{what}: no trusted TLS connection to `{registry}`"))
            .because(said.to_owned())
            .hint(format!("put the registry's CA at `/etc/docker/certs.d/{registry}/ca.crt`"));
    }
    if has(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "no route to host",
        "network is unreachable",
        "timeout exceeded",
        "connection reset",
        "unexpected eof",
        "temporary failure in name resolution",
        "server misbehaving",
        "eof",
        "500 internal server error",
        "502 bad gateway",
        "503 service unavailable",
        "received unexpected http status: 5",
    ]) {
        return Error::failed(format!("{what}: `{registry}` cannot be reached, or broke off"))
            .because(said.to_owned())
            .hint(format!("look at name resolution and firewall: `curl -sSI https://{registry}/v2/`"));
    }
    Error::failed(format!("{what}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_failures_are_told_apart() {
        let reference = "registry.example/team/engine@sha256:00";
        let cases = [
            ("unauthorized: authentication required", "credentials"),
            (
                "Head \"https://registry.example/v2/team/engine/manifests/x\": no basic auth credentials",
                "credentials",
            ),
            (
                "pull access denied for team/engine, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                "credentials",
            ),
            (
                "manifest for registry.example/team/engine@sha256:00 not found: manifest unknown: manifest unknown",
                "no such image",
            ),
            ("toomanyrequests: You have reached your pull rate limit", "(429)"),
            ("received unexpected HTTP status: 429 Too Many Requests", "(429)"),
            ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "no space left"),
            (
                "failed to register layer: Error processing tar file(exit status 1): write /x: no space left on device",
                "no space left",
            ),
            ("filesystem layer verification failed for digest sha256:11", "other bytes"),
            ("manifest verification failed for digest sha256:11", "other bytes"),
            (
                "Get \"https://registry.example/v2/\": dial tcp: lookup registry.example: no such host",
                "cannot be reached",
            ),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                "cannot be reached",
            ),
            ("received unexpected HTTP status: 500 Internal Server Error", "cannot be reached"),
            ("Get \"https://registry.example/v2/\": x509: certificate signed by unknown authority", "TLS"),
            ("something new", "something new"),
        ];
        for (said, wanted) in cases {
            let error = pull(reference, said);
            assert!(error.message().contains(wanted), "{said} gave {error}");
            assert!(error.message().starts_with("pulling `registry.example/team/engine@sha256:00`"));
        }
        let hints = pull(reference, "toomanyrequests").hints().join(" ");
        assert!(hints.contains("docker login registry.example"), "{hints}");
    }

    #[test]
    fn failures_to_start_have_a_way_out() {
        let cases = [
            (
                "driver failed programming external connectivity: Bind for 127.0.0.1:80 failed: port is already allocated",
                "ss -ltnp",
            ),
            ("could not select device driver \"nvidia\" with capabilities: [[gpu]]", "toolkit verify"),
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /data",
                "bedplate provision",
            ),
        ];
        for (said, wanted) in cases {
            let error = general(Asked::Start("engine"), said);
            assert!(error.hints().iter().any(|hint| hint.contains(wanted)), "{said}");
        }
    }
}
