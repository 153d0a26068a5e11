//! `provision --root`: links, other runs, nothing to do. It changes owners, so it needs root.

use std::{collections::BTreeMap, fs, io::Write, os::unix::fs::symlink, path::Path};

use bedplate::{
    digest::Digest,
    lock::{self, Lock, LockedPackage, LockedRepository, LockedSuite},
    profile as profiles,
};
use rustix::fs::{FlockOperation, flock};

use super::{Place, profile, snapshot};

const MORE: &str = "[[mount]]\npath = \"/data/minerhome\"\nmode = \"0700\"\nowner = \"root:root\"\n\
                    files = { \"config.json\" = \"0600\" }\n\n\
                    [[file]]\npath = \"/etc/sysctl.d/60-inference.conf\"\ncontent = \"vm.max_map_count = 262144\"\n";

/// A profile with a private mount and a file, locked, and an empty tree in `root`.
pub(crate) fn tree() -> Place {
    assert!(rustix::process::geteuid().is_root(), "these tests change owners: run them as root");
    let place = Place::with("", MORE);
    for folder in ["etc", "data", "usr"] {
        fs::create_dir_all(place.at("root").join(folder)).unwrap();
    }
    place
}

const PROVISION: [&str; 4] = ["provision", "p", "--root", "root"];

#[test]
fn a_managed_path_through_a_link() {
    let place = tree();
    fs::remove_dir(place.at("root/data")).unwrap();
    symlink("/etc", place.at("root/data")).unwrap();
    place.refuses(PROVISION, 1, &["`/data/minerhome` goes through the link `/data` → `/etc`"], "real path");

    let place = tree();
    symlink("/tmp", place.at("root/data/minerhome")).unwrap();
    place.refuses(PROVISION, 1, &["`/data/minerhome`", "`/tmp`"], "");

    let place = tree();
    fs::create_dir(place.at("root/data/minerhome")).unwrap();
    place.put("elsewhere", "private");
    symlink(place.at("elsewhere"), place.at("root/data/minerhome/config.json")).unwrap();
    place.refuses(PROVISION, 1, &["`/data/minerhome/config.json`"], "");

    let place = tree();
    symlink("../../home", place.at("root/etc/sysctl.d")).unwrap();
    place.refuses(PROVISION, 1, &["`/etc/sysctl.d/60-inference.conf` goes through the link"], "real path");
    // Also what the last part of a file's path is.
    let place = tree();
    fs::create_dir(place.at("root/etc/sysctl.d")).unwrap();
    place.put("elsewhere", "other");
    symlink(place.at("elsewhere"), place.at("root/etc/sysctl.d/60-inference.conf")).unwrap();
    place.refuses(PROVISION, 1, &["60-inference.conf`"], "");
}

#[test]
fn something_else_where_a_managed_path_should_be() {
    let place = tree();
    place.put("root/data/minerhome", "a file");
    place.refuses(PROVISION, 1, &["`/data/minerhome`"], "");
    let place = tree();
    fs::create_dir_all(place.at("root/etc/sysctl.d/60-inference.conf")).unwrap();
    place.refuses(PROVISION, 1, &["`/etc/sysctl.d/60-inference.conf`"], "");
}

#[test]
fn another_run_holds_the_tree() {
    let place = tree();
    place.run(PROVISION).exits(0);
    place.edit("profiles/p.toml", "262144", "524288");
    place.run(["lock", "p"]).exits(0);
    let path = place.at("root/var/lib/bedplate/lock");
    let mut held = fs::OpenOptions::new().write(true).open(&path).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    held.write_all(b"4711\n2026-11-24T01:02:03Z\nprovision\n").unwrap();
    let says = ["another run holds the host: process 4711 since 2026-11-24T01:02:03Z, provision"];
    place.refuses(PROVISION, 1, &says, "ps -fp 4711");
    // Looking is not changing: a dry run needs no lock.
    place.run(["provision", "p", "--root", "root", "--dry-run"]).exits(0).prints("524288");
    // Whatever someone wrote there is no way to print to a terminal.
    held.set_len(0).unwrap();
    held.write_all(b"\n\n\n\n\n\n\n\n\n\n\x1b[2J\n\x1b[2J\n\x1b[2J\n").unwrap();
    place.refuses(PROVISION, 1, &["another run holds the host"], "wait for it");
    drop(held);
    place.run(PROVISION).exits(0);
}

#[test]
fn two_runs_at_once_leave_what_one_leaves() {
    let place = tree();
    let start = || place.command(PROVISION).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let (one, two) = (start(), start());
    for child in [one, two] {
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => {}
            Some(1) => assert!(err.contains("another run holds the host"), "{err}"),
            other => panic!("{other:?}: {err}"),
        }
    }
    place.run(PROVISION).exits(0).prints("nothing to do");
    assert_eq!(place.text("root/etc/sysctl.d/60-inference.conf").trim(), "vm.max_map_count = 262144");
    assert!(!place.at("root/var/lib/bedplate/generations/2").exists());
}

#[test]
fn a_second_run_has_nothing_to_do() {
    let place = tree();
    let before = place.snapshot();
    let ran = place.run(["provision", "p", "--root", "root", "--dry-run"]);
    ran.exits(0)
        .prints("+ directory /data/minerhome 0700 root:root")
        .prints("    +vm.max_map_count = 262144");
    ran.says("nothing was changed");
    let ran = place.run(["provision", "p", "--root", "root", "--dry-run", "--format", "json"]);
    assert!(!ran.exits(0).json()["steps"].as_array().unwrap().is_empty());
    assert_eq!(before, place.snapshot());

    place.run(PROVISION).exits(0).says("generation 1 is current");
    assert_eq!(place.mode("root/data/minerhome"), 0o700);
    let before = snapshot(&place.at("root"));
    place.run(PROVISION).exits(0).prints("nothing to do");
    place.run(["provision", "p", "--root", "root", "--dry-run"]).exits(0).prints("nothing to do");
    let json = place.run(["provision", "p", "--root", "root", "--format", "json"]).exits(0).json();
    assert_eq!((&json["generation"], &json["changed"]), (&1.into(), &0.into()), "{json}");
    assert_eq!(before, snapshot(&place.at("root")), "times and all");
}

#[test]
fn what_a_tree_cannot_have_yet_waits() {
    let place = Place::with("", "[secrets]\nHF_TOKEN = { env = \"HF_TOKEN\" }\n");
    fs::create_dir_all(place.at("root/etc")).unwrap();
    place.edit("profiles/p.toml", "release = \"trixie\"", "release = \"trixie\"\npackages = [\"chrony\"]");
    place.run(["lock", "p"]).exits(0);
    let ran = place.run(PROVISION);
    ran.exits(0).says("waits: ").says("chrony").says("HF_TOKEN");
}

#[test]
fn a_drifted_tree_is_mended() {
    let place = tree();
    place.run(PROVISION).exits(0);
    place.put("root/etc/sysctl.d/60-inference.conf", "by hand");
    fs::set_permissions(place.at("root/data/minerhome"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    place.run(PROVISION).exits(0);
    assert_eq!(place.mode("root/data/minerhome"), 0o700);
    assert!(place.text("root/etc/sysctl.d/60-inference.conf").contains("262144"));
    // A file that is no longer wanted goes; a mount and what is in it stays.
    place.put("root/data/minerhome/config.json", "private");
    place.put("profiles/p.toml", profile("", ""));
    place.run(["lock", "p"]).exits(0);
    place.run(PROVISION).exits(0);
    assert!(!place.at("root/etc/sysctl.d/60-inference.conf").exists());
    assert_eq!(place.text("root/data/minerhome/config.json"), "private");
}

#[test]
fn a_directory_of_something_else_is_no_tree() {
    let place = Place::with("", MORE);
    place.put("mine/notes.txt", "mine");
    let before = place.snapshot();
    for verb in [&["provision", "p"][..], &["generations", "list"], &["generations", "diff", "1", "2"]] {
        let says = ["`--root mine` is no root tree", "has no `etc`"];
        place.refuses([verb, &["--root", "mine"]].concat(), 2, &says, "an empty one");
    }
    assert_eq!(before, place.snapshot());
    // One that is empty becomes one, also a file system that was made just now.
    fs::create_dir_all(place.at("root/lost+found")).unwrap();
    place.run(PROVISION).exits(0).says("generation 1 is current");
    // One that a run was interrupted in, before there was an `etc`.
    fs::create_dir_all(place.at("begun/data")).unwrap();
    place.run(["provision", "p", "--root", "begun"]).exits(2);
    fs::create_dir_all(place.at("begun/var/lib/bedplate")).unwrap();
    place.run(["provision", "p", "--root", "begun"]).exits(0).says("generation 1 is current");
}

#[test]
fn generations_of_a_tree() {
    let place = tree();
    let list = ["generations", "list", "--root", "root"];
    place.run(list).exits(0).says("this tree was never provisioned");
    place.run(PROVISION).exits(0);
    place.edit("profiles/p.toml", "262144", "524288");
    place.run(["lock", "p"]).exits(0);
    place.run(PROVISION).exits(0);
    let before = snapshot(&place.at("root"));
    place.run(list).exits(0).prints("* 2").prints("  1");
    let json = place.run([&list[..], &["--format", "json"]].concat()).exits(0).json();
    let current: Vec<_> = json.as_array().unwrap().iter().map(|one| one["current"].as_bool()).collect();
    assert_eq!(current, [Some(false), Some(true)], "{json}");
    let diff = ["generations", "diff", "1", "2", "--root", "root"];
    place.run(diff).exits(0).prints("/etc/sysctl.d/60-inference.conf");
    place.refuses(["generations", "diff", "1", "3", "--root", "root"], 1, &["no generation 3"], "list");
    assert_eq!(before, snapshot(&place.at("root")), "looking changes nothing");
    place.refuses(["generations", "list", "--root", "none"], 2, &["none` does not exist"], "mkdir -p");
    place.refuses(["generations", "list", "--root", "/"], 2, &["this host itself"], "leave `--root` out");
}

/// A lock of one package, as `lock` writes it.
fn lock_of_one(place: &Place) {
    let text = place.text("profiles/p.toml");
    let none = BTreeMap::new();
    let profile = profiles::parse("p.toml", &text).unwrap();
    let suite = LockedSuite {
        release: Digest::of("release"),
        date: "2026-11-21T09:15:00Z".to_owned(),
        signed_by: vec!["0123456789ABCDEF0123456789ABCDEF01234567".to_owned()],
    };
    let package = LockedPackage {
        repository: "debian".to_owned(),
        name: "chrony".to_owned(),
        version: "4.6.1-3".to_owned(),
        architecture: "amd64".to_owned(),
        sha256: Digest::of("chrony"),
        size: 1000,
        path: "pool/main/c/chrony/chrony_4.6.1-3_amd64.deb".to_owned(),
        depends: Vec::new(),
        wanted_by: vec!["packages".to_owned()],
    };
    let lock = Lock {
        inputs: lock::inputs("p.toml", &profile, &BTreeMap::new(), &none),
        repositories: [(
            "debian".to_owned(),
            LockedRepository { snapshot: None, suites: [("trixie".to_owned(), suite)].into() },
        )]
        .into(),
        packages: vec![package],
        ..Lock::default()
    };
    place.put("profiles/p.lock", lock::write(&lock));
}

/// What bedplate takes for a Debian tree with apt and dpkg in it.
fn with_apt(root: &Path) {
    for (path, content) in [
        ("etc/os-release", "ID=debian\nVERSION_CODENAME=trixie\n"),
        ("usr/bin/apt-get", "#!/bin/false\n"),
        ("usr/bin/dpkg", "#!/bin/false\n"),
        ("var/lib/dpkg/status", ""),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[test]
fn a_dry_run_says_that_apt_was_not_asked() {
    const SAYS: &str = "apt was not asked in this dry run";
    let place = tree();
    with_apt(&place.at("root"));
    let dry = ["provision", "p", "--root", "root", "--dry-run"];
    assert!(!place.run(dry).exits(0).err.contains(SAYS), "no package is locked");
    place.edit("profiles/p.toml", "pin-packages = false", "packages = [\"chrony\"]");
    lock_of_one(&place);
    let before = place.snapshot();
    place.run(dry).exits(0).prints("+ chrony 4.6.1-3").says(SAYS);
    let json = place.run([&dry[..], &["--format", "json"]].concat());
    json.exits(0).says(SAYS);
    assert_eq!(json.json()["steps"][0]["step"].as_str(), Some("install-packages"), "{json:?}");
    assert_eq!(before, place.snapshot());
}
