//! `provision --root` ended at any moment: the next run converges, and nothing is left lying about.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Place, Random, profile, snapshot, tree::tree};

const PROVISION: [&str; 4] = ["provision", "p", "--root", "root"];

/// Many files, so that there are many moments.
fn files(value: u32) -> String {
    let mut more = String::from("[[mount]]\npath = \"/data/minerhome\"\nmode = \"0700\"\n");
    for number in 0..12 {
        more.push_str(&format!(
            "[[file]]\npath = \"/etc/many/{number}/a.conf\"\ncontent = \"value = {value}\"\n"
        ));
    }
    profile("", &more)
}

/// What a tree holds but for times, and for the state that counts runs.
fn content(root: &Path) -> BTreeMap<String, String> {
    let mut found = snapshot(root);
    found.retain(|path, _| !path.starts_with("var/lib/bedplate/"));
    for what in found.values_mut() {
        *what = what.rsplit_once(' ').unwrap().0.to_owned();
    }
    found
}

fn is_tidy(root: &Path) {
    for path in snapshot(root).keys() {
        assert!(!path.contains(".bedplate-"), "a temporary file is left: {path}");
    }
    assert!(!root.join("var/lib/bedplate/journal").exists());
    for entry in std::fs::read_dir(root.join("var/lib/bedplate/generations")).unwrap() {
        let folder = entry.unwrap().path();
        let state = std::fs::read_to_string(folder.join("state")).unwrap();
        assert!(!state.contains("pending"), "{}: {state}", folder.display());
    }
}

/// Starts a run and ends it with `signal` after `wait`. True: it did not come to its own end.
fn ended(place: &Place, signal: Signal, wait: Duration) -> bool {
    let mut child = place.command(PROVISION).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(wait);
    // It may have ended by itself; it is still ours to wait for.
    kill_process(Pid::from_child(&child), signal).unwrap();
    let status = child.wait().unwrap();
    match (status.signal(), status.code()) {
        (Some(number), _) => {
            assert!(number == signal.as_raw());
            true
        }
        (None, Some(0)) => false,
        (None, Some(130 | 143)) => true,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_run_converges() {
    let wanted = tree();
    let mut reference = Vec::new();
    for value in [1, 2] {
        wanted.put("profiles/p.toml", files(value));
        wanted.run(["lock", "p"]).exits(0);
        wanted.run(PROVISION).exits(0);
        reference.push(content(&wanted.at("root")));
    }
    let place = tree();
    place.put("profiles/p.toml", files(1));
    place.run(["lock", "p"]).exits(0);
    let start = Instant::now();
    place.run(PROVISION).exits(0);
    let mut whole = start.elapsed();

    let mut random = Random(20_261_124);
    let mut number = 0;
    // A machine that was busy at the measurement is quicker now: then the span shrinks until runs are caught again.
    for round in 0..60_u32 {
        if round >= 12 && number >= 3 {
            break;
        }
        // A new file content each time, so that there is always something to do, from the value before.
        let value = if round % 2 == 0 { 2 } else { 1 };
        place.put("profiles/p.toml", files(value));
        place.run(["lock", "p"]).exits(0);
        // One after the other, from the first moment to the last; the rest is chance.
        let moment = whole.mul_f64((f64::from(round % 12) + (random.next() % 1000) as f64 / 1000.0) / 12.0);
        let signal = [Signal::KILL, Signal::KILL, Signal::TERM, Signal::INT][round as usize % 4];
        if ended(&place, signal, moment) {
            number += 1;
        } else {
            whole = whole.mul_f64(0.8);
        }
        place.run(PROVISION).exits(0);
        assert_eq!(content(&place.at("root")), reference[value as usize - 1], "round {round}");
        is_tidy(&place.at("root"));
        place.run(PROVISION).exits(0).prints("nothing to do");
    }
    assert!(number >= 3, "only {number} of 60 runs were caught before their end");
}

#[test]
fn from_nothing_too() {
    let wanted = tree();
    wanted.run(PROVISION).exits(0);
    let start = Instant::now();
    wanted.run(PROVISION).exits(0);
    let least = start.elapsed();
    let reference = content(&wanted.at("root"));
    let mut random = Random(42);
    for round in 0..5 {
        let place = tree();
        let moment = least.mul_f64(1.0 + f64::from(round)) + Duration::from_micros(random.next() % 5000);
        ended(&place, Signal::KILL, moment);
        place.run(PROVISION).exits(0);
        assert_eq!(content(&place.at("root")), reference, "round {round}");
        is_tidy(&place.at("root"));
        place.run(PROVISION).exits(0).prints("nothing to do");
    }
}
