//! Host packages on a real machine: the engine goes down to an older version and comes back, without a network.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use bedplate::{digest::Digest, store::Store};

use crate::support::{Site, installed_packages, locked_packages, served, store, turn};

#[test]
#[ignore = "long: `make test-full`"]
fn an_older_engine_goes_down_and_comes_back_by_rollback_without_a_network() {
    let _turn = turn();
    let (machine, site) = served();
    machine.untunnel();
    let first = machine.generation();
    let lock = site.read("profiles/try.lock");
    let newer = locked_packages(&lock).remove("docker.io").expect("the engine is locked");

    // The same engine as an older version, in the operator's store.
    let older = format!("{newer}~older1");
    let other = Site::new();
    let deb = repacked(&lock, "docker.io", &newer, &older);
    let bytes = std::fs::read(&deb).expect("it reads");
    Store::open(&store()).expect("the store opens").put(&bytes).expect("it is kept");
    let path = other.path("profiles/try.lock");
    std::fs::write(path, with_package(&lock, "docker.io", &older, &Digest::of(&bytes), bytes.len()))
        .expect("written");

    other.provision(machine, &["--dry-run"]).expect(0).says(&format!("{newer} → {older}"));
    other.provision(machine, &[]).expect(0);
    assert_eq!(installed_packages(machine)["docker.io"], older);
    machine.script("bedplate up -f try").expect(0);
    machine.assert_serves(&site);
    other.provision(machine, &[]).expect(0).says("nothing to do");
    // Nobody else's upgrade moves it.
    let upgrade = machine.sh("apt-get -s -o Debug::NoLocking=1 upgrade");
    assert!(!upgrade.contains("Inst docker.io"), "{upgrade}");

    machine.script("bedplate generations rollback").expect(0);
    assert_eq!(machine.generation(), first);
    assert_eq!(installed_packages(machine)["docker.io"], newer);
    machine.script("bedplate up -f try").expect(0);
    machine.assert_serves(&site);
    machine.tunnel();
    site.provision(machine, &[]).expect(0).says("nothing to do");
}

#[test]
fn a_package_that_was_left_half_installed_is_repaired() {
    let _turn = turn();
    let (machine, site) = served();
    // As after a power cut: unpacked, its scripts not run.
    machine
        .sh("sed -i '/^Package: runc$/,/^$/ s/^Status: .*/Status: hold ok unpacked/' /var/lib/dpkg/status");
    site.provision(machine, &["--dry-run"]).expect(0).says("runc");
    site.provision(machine, &[]).expect(0);
    assert_eq!(machine.sh("dpkg-query -W -f '${db:Status-Status}' runc"), "installed");
    site.provision(machine, &[]).expect(0).says("nothing to do");
}

/// A lock in which one package is another file of another version.
fn with_package(lock: &str, name: &str, version: &str, sha256: &Digest, size: usize) -> String {
    let mut lock = bedplate::lock::parse("try.lock", lock).expect("the lock reads");
    let package = lock.packages.iter_mut().find(|package| package.name == name).expect("it is locked");
    version.clone_into(&mut package.version);
    package.sha256 = *sha256;
    package.size = size as u64;
    // The set says what the packages say.
    let set = lock.set.as_mut().expect("packages are locked as a set");
    if set.engine.as_ref().is_some_and(|engine| engine.starts_with(&format!("{name} "))) {
        set.engine = Some(format!("{name} {version}"));
    }
    bedplate::lock::write(&lock)
}

/// A locked package from the operator's store, packed again with another version.
fn repacked(lock: &str, name: &str, version: &str, other: &str) -> PathBuf {
    let lock = bedplate::lock::parse("try.lock", lock).expect("the lock reads");
    let package = lock.packages.iter().find(|package| package.name == name).expect("it is locked");
    let from = Store::open(&store()).expect("the store opens").path(&package.sha256);
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("repacked");
    let _ = std::fs::remove_dir_all(&work);
    let dpkg_deb = |arguments: &[&str]| {
        let output = Command::new("dpkg-deb").args(arguments).output().expect("dpkg-deb runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (tree, deb) = (work.join("tree"), work.join("older.deb"));
    std::fs::create_dir_all(&work).expect("made");
    dpkg_deb(&["--raw-extract", &from.display().to_string(), &tree.display().to_string()]);
    let control = tree.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).expect("it reads");
    let line = format!("\nVersion: {version}\n");
    assert!(text.contains(&line), "{text}");
    std::fs::write(&control, text.replace(&line, &format!("\nVersion: {other}\n"))).expect("written");
    dpkg_deb(&[
        "--root-owner-group",
        "-Zgzip",
        "-z1",
        "--build",
        &tree.display().to_string(),
        &deb.display().to_string(),
    ]);
    deb
}
