//! Checks on this machine, none of which changes it.

use std::net::TcpListener;

use serde_json::Value;

use super::{Place, ran};

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {report}"))
}

/// A profile for the distribution this machine has, so that the layers above `host.os` are looked at.
fn place() -> Place {
    // What this machine's clock does, what lies in its home directories, and which limits another test's daemon has, is not the
    // tests' affair.
    let place = Place::with(
        "",
        "[checks]\nleak-paths = [\"/etc/passwd\"]\nopen-files = 0\naccept = { \"host.clock\" = \"a test machine's clock is its host's\" }\n",
    );
    let release = std::fs::read_to_string("/etc/os-release").unwrap();
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap();
        line.trim_matches('"').to_owned()
    };
    place.edit("profiles/p.toml", "\"debian\"", &format!("\"{}\"", value("ID")));
    place.edit("profiles/p.toml", "\"trixie\"", &format!("\"{}\"", value("VERSION_CODENAME")));
    place.run(["lock", "p"]).exits(0);
    place
}

#[test]
fn docker_away() {
    let place = place();
    place.config("docker-socket = \"/nonexistent/docker.sock\"\n");
    let ran = place.run(["toolkit", "verify", "p"]);
    ran.exits(3).prints("docker.daemon").prints("/nonexistent/docker.sock").prints("next: ");
    let json = place.run(["toolkit", "verify", "p", "--format", "json"]).exits(3).json();
    assert_eq!(json["ready"], false);
    assert_eq!(finding(&json, "docker.daemon")["outcome"], "fail", "{json}");
    assert!(finding(&json, "docker.daemon")["next"].is_string());
    let junit = place.run(["toolkit", "verify", "p", "--format", "junit"]);
    junit.exits(3).prints("<testcase name=\"docker.daemon\"").prints("<failure");
    for verb in [&["list"][..], &["status"], &["status", "x"], &["logs", "x"]] {
        place.refuses(verb.iter().copied(), 1, &["/nonexistent/docker.sock"], "");
    }
    // A socket with nobody behind it is something else.
    let socket = place.at("docker.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    place.config(&format!("docker-socket = \"{}\"\n", socket.display()));
    let json = place.run(["toolkit", "verify", "p", "--format", "json"]).exits(3).json();
    assert_eq!(finding(&json, "docker.daemon")["outcome"], "fail", "{json}");
}

#[test]
fn a_docker_that_never_answers() {
    let place = place();
    let socket = place.at("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    place.config(&format!("docker-socket = \"{}\"\n", socket.display()));
    // That it ends at all is what counts.
    let json = place.run(["toolkit", "verify", "p", "--format", "json"]).exits(3).json();
    let docker = finding(&json, "docker.daemon");
    assert!(docker["outcome"] == "fail" || docker["outcome"] == "unknown", "{json}");
    assert_eq!(json["blame"], "toolkit", "{json}");
}

#[test]
fn a_port_that_is_taken() {
    let place = place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    place.put(
        "deployments/d.yaml",
        format!("name: d\nengine: vllm\nmodel: a/b\nport: {port}\nimage: 127.0.0.1:1/a:1\n"),
    );
    let arguments = ["doctor", "p", "-f", "deployments/d.yaml", "--format", "json"];
    let json = place.run(arguments).exits(3).json();
    let ports = finding(&json, "host.ports");
    assert_eq!(ports["outcome"], "fail", "{ports}");
    let because = ports["because"].as_str().unwrap();
    assert!(because.contains(&port.to_string()) && because.contains("`d`"), "{because}");
    assert!(because.contains(&format!("pid {}", std::process::id())), "{because}");
    assert!(ports["next"].as_str().unwrap().contains(&port.to_string()), "{ports}");
    place
        .run(["doctor", "p", "-f", "deployments/d.yaml"])
        .exits(3)
        .prints("FAIL     host.ports")
        .prints("next: ");
    drop(listener);
    let json = place.run(arguments).json();
    assert_eq!(finding(&json, "host.ports")["outcome"], "pass", "{json}");
}

#[test]
fn an_engine_is_loaded_only_where_the_layers_below_let_it() {
    let place = place();
    place.config("docker-socket = \"/nonexistent/docker.sock\"\nhub = \"http://127.0.0.1:1\"\n");
    let home = place.at("home").display().to_string();
    let more = format!("[checks]\nleak-paths = [\"{home}\"]\n");
    place.put("profiles/gpus.toml", format!("{}{more}", crate::checks::WITH_GPUS));
    place.put("deployments/d.yaml", "name: d\nengine: vllm\nmodel: a/b\nimage: 127.0.0.1:1/a:1\n");
    for (profile, outcome, says) in [("gpus", "skipped", "skipped: `"), ("p", "n/a", "has no GPUs")] {
        let arguments = ["runtime", "prepare", "--profile", profile, "--engine", "vllm", "-f"];
        let rest = ["deployments/d.yaml", "--smoke-test", "--format", "json"];
        let ran = place.run(arguments.into_iter().chain(rest));
        let json = ran.exits(3).json();
        let engine = finding(&json, "runtime.smoke");
        assert_eq!(engine["outcome"], outcome, "{engine}");
        assert!(engine["because"].as_str().unwrap().contains(says), "{engine}");
        assert_eq!(ran.err.contains("smoke test: does not apply"), profile == "p", "{}", ran.err);
    }
}

#[test]
fn a_host_that_was_never_provisioned() {
    // Whoever locks here as root has a store there.
    let there = std::path::Path::new("/var/lib/bedplate").exists();
    assert!(
        !std::path::Path::new("/var/lib/bedplate/current").exists(),
        "this machine was provisioned: use another"
    );
    let place = place();
    place.put("deployments/d.yaml", "name: d\nengine: vllm\nmodel: a/b\nimage: 127.0.0.1:1/a:1\n");
    let here = std::env::temp_dir();
    let elsewhere = |arguments: &[&str]| ran(place.command(arguments.iter().copied()).current_dir(&here));
    elsewhere(&["generations", "list"]).exits(0).says("never provisioned");
    elsewhere(&["generations", "rollback"]).is_refusal(1, &["never provisioned"], "bedplate provision");
    elsewhere(&["generations", "switch", "3"]).is_refusal(1, &["3"], "");
    elsewhere(&["generations", "diff", "1", "2"]).is_refusal(1, &["no generation 1"], "generations list");
    elsewhere(&["secret", "list"]).is_refusal(1, &["not provisioned"], "bedplate provision");
    let file = place.at("deployments/d.yaml").display().to_string();
    elsewhere(&["up", "-f", &file]).is_refusal(1, &["not provisioned"], "bedplate provision");
    elsewhere(&["restart", "nosuch"]).is_refusal(2, &["no deployment `nosuch`"], "bedplate list");
    assert_eq!(std::path::Path::new("/var/lib/bedplate").exists(), there, "refusals leave nothing behind");
}
