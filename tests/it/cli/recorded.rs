//! `doctor --record`, `--facts` and `--watch`.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Place, TOKEN};

/// A place with a deployment that wants this port, and a file with a token that is searched.
fn place(port: u16) -> Place {
    let place = Place::new();
    let leaks = place.at("home/.env").display().to_string();
    place.put("profiles/p.toml", super::profile("", &format!("[checks]\nleak-paths = [\"{leaks}\"]\n")));
    place.put("home/.env", format!("HF_TOKEN={TOKEN}\n"));
    place.config("docker-socket = \"/nonexistent/docker.sock\"\nhub = \"http://127.0.0.1:1\"\n");
    place.put(
        "deployments/d.yaml",
        format!("name: d\nengine: vllm\nmodel: a/b\ntrust_remote_code: false\nport: {port}\nimage: 127.0.0.1:1/a:1\n"),
    );
    place
}

fn verdicts(report: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|f| (text(&f["id"]), text(&f["outcome"]), text(&f["weight"]))).collect()
}

#[test]
fn what_was_recorded_is_judged_the_same_elsewhere() {
    let place = place(8000);
    let record = ["doctor", "p", "-f", "deployments/d.yaml", "--record", "facts.json", "--format", "json"];
    let there = place.run(record).exits(3).json();
    assert_eq!(place.mode("facts.json"), 0o600);
    let leaks = there["findings"].as_array().unwrap().iter().find(|f| f["id"] == "secret.leaks").unwrap();
    assert_eq!(leaks["outcome"], "fail", "{leaks}");
    let facts = place.text("facts.json");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for gone in [TOKEN, boot.trim()] {
        assert!(!facts.contains(gone), "{facts}");
    }
    let judge = ["doctor", "p", "-f", "deployments/d.yaml", "--facts", "facts.json", "--format", "json"];
    let here = place.run(judge).exits(3).json();
    assert_eq!(verdicts(&here), verdicts(&there));
    // For another deployment: judged all the same, and that is said.
    place.put(
        "deployments/e.yaml",
        "name: e\nengine: vllm\nmodel: a/b\npublish: 192.0.2.1\napi_key: secret:K\nimage: 127.0.0.1:1/a:1\n",
    );
    place
        .run(["doctor", "p", "-f", "deployments/e.yaml", "--facts", "facts.json"])
        .exits(3)
        .says("another profile, lock or deployment");
}

#[test]
fn a_file_that_holds_no_facts_is_refused() {
    let place = place(8000);
    place.run(["doctor", "p", "--record", "good.json"]).exits(3);
    let good = place.text("good.json");
    place.put("cut.json", &good[..good.len() / 2]);
    place.put("other.json", good.replacen("\"schema\": 1", "\"schema\": 9", 1));
    place.put("empty.json", "");
    let huge = std::fs::File::create(place.at("huge.json")).unwrap();
    huge.set_len(17 << 20).unwrap();
    for (file, says) in [
        ("cut.json", "cut short"),
        ("other.json", "made by a newer bedplate"),
        ("empty.json", "not JSON"),
        ("huge.json", "larger than"),
        ("missing.json", "does not exist"),
        ("home", "directory"),
    ] {
        place.refuses(["doctor", "p", "--facts", file], 2, &[file, says], "");
    }
    place.refuses(["doctor", "p", "--record", "home"], 2, &["home"], "");
    for both in [["--watch", "--facts"], ["--watch", "--record"], ["--record", "--facts"]] {
        let mut arguments = vec!["doctor", "p", both[0]];
        if both[0] != "--watch" {
            arguments.push("x");
        }
        arguments.extend([both[1], "y"]);
        place.run(arguments).exits(2).says("cannot be used with");
    }
    for format in ["junit", "html"] {
        place.refuses(["doctor", "p", "--watch", "--format", format], 2, &["--watch"], "--format json");
    }
}

#[test]
fn a_watch_shows_what_changed_and_ends_with_130() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = place(listener.local_addr().unwrap().port());
    let arguments =
        ["doctor", "p", "-f", "deployments/d.yaml", "--watch", "--interval", "1", "--format", "json"];
    let mut child = place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    let outcome = |findings: &Value, id: &str| {
        let found = findings.as_array().unwrap().iter().find(|finding| finding["id"] == id);
        found.map(|finding| finding["outcome"].as_str().unwrap().to_owned())
    };
    assert_eq!(outcome(&first["report"]["findings"], "host.ports").as_deref(), Some("fail"), "{first}");
    drop(listener);
    // Something else of the machine may change in between.
    let changed =
        std::iter::repeat_with(&mut next).find(|line| outcome(&line["changed"], "host.ports").is_some());
    let changed = changed.unwrap();
    assert_eq!(outcome(&changed["changed"], "host.ports").as_deref(), Some("pass"), "{changed}");
    assert_eq!(outcome(&changed["changed"], "host.os"), None, "{changed}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn an_edit_is_seen_while_watching_and_a_broken_profile_does_not_end_it() {
    let place = place(8000);
    place.put("home/clean.env", "A=1\n");
    let good = place.text("profiles/p.toml");
    // In one step: a file that is being written is a broken one.
    let replace = |text: &str| {
        place.put("home/new", text);
        std::fs::rename(place.at("home/new"), place.at("profiles/p.toml")).unwrap();
    };
    // Nothing but the edit can be the reason to look again.
    let arguments = ["doctor", "p", "--watch", "--interval", "86400", "--format", "json"];
    let mut child = place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let leaks = |findings: &Value| {
        let found = findings.as_array()?.iter().find(|finding| finding["id"] == "secret.leaks")?;
        Some(found["outcome"].as_str().unwrap().to_owned())
    };
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(leaks(&first["report"]["findings"]).as_deref(), Some("fail"), "{first}");
    replace("schema = 1\n[host\n");
    assert!(errors.any(|line| line.unwrap().starts_with("error: ")));
    assert!(errors.any(|line| line.unwrap().contains("watching goes on")));
    // One that stays as it is, and is written again, is no news.
    replace("schema = 1\n[host\n");
    std::thread::sleep(Duration::from_secs(3));
    replace(&good.replacen("home/.env", "home/clean.env", 1));
    let mut changes = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let change = changes.find_map(|line| leaks(&line["changed"])).unwrap();
    assert_eq!(change, "pass");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let rest: Vec<String> = errors.map(Result::unwrap).collect();
    assert_eq!(rest, ["what to judge by can be read again"]);
}
