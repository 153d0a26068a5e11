//! The process that provisions is killed anywhere; the next run converges.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{Tree, managed, one, run, three, two};
use crate::{
    host::generations::{Generations, State},
    plan::Goal,
    progress::{Event, Progress, Silent},
};

/// Kills itself at the event of this number.
struct Deadly {
    at: usize,
    seen: AtomicUsize,
}

impl Progress for Deadly {
    fn event(&self, _: Event<'_>) {
        if self.seen.fetch_add(1, Ordering::Relaxed) == self.at {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

/// This test binary again, as a process of its own that provisions and may be killed.
pub(super) fn child(tree: &Tree, more: &str, environment: &[(&str, &str)]) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "host::tests::killed::provisions_as_a_child", "--ignored", "--quiet"])
        .env("BEDPLATE_TEST_TREE", tree.folder.path())
        .env("BEDPLATE_TEST_PROFILE", more)
        .envs(environment.iter().map(|(name, value)| (format!("BEDPLATE_TEST_{name}"), value)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the child of other tests"]
fn provisions_as_a_child() {
    let set = |name: &str| std::env::var(format!("BEDPLATE_TEST_{name}")).ok();
    let Some(folder) = set("TREE") else { return };
    if let Some(mask) = set("MASK") {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(u32::from_str_radix(&mask, 8).unwrap()));
    }
    if let Some(size) = set("SIZE") {
        // SIGXFSZ ends the process in the middle of a write.
        let limit = rustix::process::Rlimit { current: size.parse().ok(), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    }
    let at = set("KILL").map_or(usize::MAX, |at| at.parse().unwrap());
    let goal = set("SWITCH").map_or(Goal::Provision, |to| Goal::Switch(to.parse().unwrap()));
    let deadly = Deadly { at, seen: AtomicUsize::new(0) };
    run(Path::new(&folder), &set("PROFILE").unwrap(), goal, &deadly).unwrap();
}

/// After whatever happened: another profile holds, nothing is left over, and giving all up restores.
fn converges(tree: &Tree, last: &str, before: &BTreeMap<String, String>) {
    tree.run(last).unwrap();
    tree.is_tidy();
    assert!(tree.run(last).unwrap().0.is_empty());
    tree.run("").unwrap();
    tree.is_tidy();
    assert_eq!(&tree.outside(), before);
}

#[test]
fn killed_at_any_point_the_next_run_converges() {
    for (first, last) in
        [(None, one()), (None, two()), (Some(one()), one()), (Some(one()), two()), (Some(one()), three())]
    {
        for kill in 0.. {
            let tree = Tree::new();
            tree.put("/etc/was.conf", "was there", 0o604);
            let before = tree.outside();
            if let Some(first) = &first {
                tree.run(first).unwrap();
            }
            let ended = child(&tree, &two(), &[("KILL", &kill.to_string())]).wait().unwrap();
            converges(&tree, &last, &before);
            if ended.success() {
                assert!(kill > 10, "the child was never killed");
                break;
            }
        }
    }
}

#[test]
fn what_a_run_left_that_was_killed_before_its_journal_goes_although_nothing_else_is_to_do() {
    for left in ["generations/.new-2/bundle/.bedplate-1-0", "generations/.gone-1/state", "apt/lists/partial"]
    {
        let tree = Tree::new();
        let before = tree.outside();
        tree.run(&one()).unwrap();
        assert!(tree.run(&one()).unwrap().0.is_empty());
        tree.put(&format!("/var/lib/bedplate/{left}"), "half", 0o600);
        converges(&tree, &one(), &before);
        assert!(!tree.folder.path().join("var/lib/bedplate/apt").exists());
    }
}

#[test]
fn killed_twice_and_in_a_switch_the_next_run_converges() {
    for kill in 0..14 {
        let tree = Tree::new();
        tree.put("/etc/was.conf", "was there", 0o604);
        let before = tree.outside();
        tree.run(&one()).unwrap();
        tree.run(&three()).unwrap();
        let kill = kill.to_string();
        child(&tree, "", &[("KILL", &kill), ("SWITCH", "1")]).wait().unwrap();
        child(&tree, &two(), &[("KILL", &kill)]).wait().unwrap();
        converges(&tree, &one(), &before);
    }
}

#[test]
fn killed_in_the_middle_of_a_write_no_half_file_is_left() {
    let big = |letter: &str| managed("/etc/big.conf", &letter.repeat(60_000), "0644");
    for size in ["0", "10", "100", "700", "3000", "59000", "60000"] {
        let tree = Tree::new();
        let before = tree.outside();
        tree.run(&big("a")).unwrap();
        assert!(!child(&tree, &(big("b") + &one()), &[("SIZE", size)]).wait().unwrap().success(), "{size}");
        let text = tree.text("/etc/big.conf");
        assert!(
            text == "a".repeat(60_000) + "\n" || text == "b".repeat(60_000) + "\n",
            "{} bytes",
            text.len()
        );
        converges(&tree, &two(), &before);
    }
}

#[test]
fn killed_between_the_commit_and_what_follows_it() {
    for last in [two(), three()] {
        let tree = Tree::new();
        tree.put("/etc/was.conf", "was there", 0o604);
        let before = tree.outside();
        tree.run(&one()).unwrap();
        // At the event before the commit: its record is the superset still, its state pending.
        for kill in 0.. {
            child(&tree, &two(), &[("KILL", &kill.to_string())]).wait().unwrap();
            if tree.text("/var/lib/bedplate/journal").contains("+ file /etc/d/c.conf") {
                break;
            }
        }
        std::fs::remove_file(tree.at("/var/lib/bedplate/current")).unwrap();
        std::os::unix::fs::symlink("generations/2", tree.at("/var/lib/bedplate/current")).unwrap();
        assert_eq!(Generations::new(&tree.root()).state(2).unwrap(), State::Pending);
        converges(&tree, &last, &before);
    }
}

#[test]
fn nothing_stays_proved_once_a_step_is_begun() {
    let proved = ["1/readiness/host.json", "1/readiness/deployment-x.json"];
    let place = |name: &str| format!("/var/lib/bedplate/generations/{name}");
    for kill in 0.. {
        let tree = Tree::new();
        tree.run(&one()).unwrap();
        for name in proved {
            tree.put(&place(name), "{}", 0o600);
        }
        assert!(tree.run(&one()).unwrap().0.is_empty());
        assert!(proved.iter().all(|name| tree.at(&place(name)).exists()), "an empty plan changes nothing");
        let ended = child(&tree, &two(), &[("KILL", &kill.to_string())]).wait().unwrap();
        let begun = tree.text("/etc/a.conf") == "two\n" || tree.mode("/data/m") == 0o750;
        let left = proved.iter().filter(|name| tree.at(&place(name)).exists()).count();
        assert!(!begun || left == 0, "killed at event {kill}");
        if ended.success() {
            assert!(left == 0 && kill > 5, "the child was never killed");
            break;
        }
    }
    // Going to a generation forgets what was once proved of it.
    let tree = Tree::new();
    tree.run(&one()).unwrap();
    tree.run(&two()).unwrap();
    tree.put(&place(proved[0]), "{}", 0o600);
    run(tree.folder.path(), "", Goal::Switch(1), &Silent).unwrap();
    assert!(!tree.at(&place(proved[0])).exists());
}

/// Ten kills at times spread over a run; more with `BEDPLATE_TEST_KILLS`, as `make test-full` asks for.
#[test]
fn killed_at_any_time_the_next_run_converges() {
    let rounds = std::env::var("BEDPLATE_TEST_KILLS").map_or(10, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let tree = Tree::new();
        tree.put("/etc/was.conf", "was there", 0o604);
        let before = tree.outside();
        tree.run(&one()).unwrap();
        let mut child = child(&tree, &two(), &[]);
        std::thread::sleep(std::time::Duration::from_micros(3000 + round * 40_000 / rounds));
        let _ = child.kill();
        child.wait().unwrap();
        converges(&tree, &three(), &before);
    }
}
