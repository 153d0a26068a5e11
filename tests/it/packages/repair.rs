//! Interrupted anywhere, the next run repairs.

use std::{fs, time::Duration};

use bedplate::plan::{Goal, Step};

use super::guest::Guest;
use crate::apt::package::Package;

#[test]
fn what_is_half_installed_is_finished() {
    let guest = Guest::new();
    // Unpacked and never configured, by someone else; and one of ours that was cut short while it was unpacked.
    guest.dpkg("--unpack", &[&Package::new("bp-stray", "1")]);
    let ours = Package::new("bp-ours", "1");
    guest.dpkg("-i", &[&ours]);
    let status = guest.text("/var/lib/dpkg/status");
    let broken = status.replacen(
        "Package: bp-ours\nStatus: install ok installed",
        "Package: bp-ours\nStatus: install reinstreq half-installed",
        1,
    );
    assert_ne!(status, broken);
    fs::write(guest.at("/var/lib/dpkg/status"), broken).unwrap();
    let (plan, _) = guest.provision(&[&ours]).unwrap();
    assert!(
        matches!(&plan.steps[0], Step::RepairPackages { packages } if *packages == ["bp-ours", "bp-stray"]),
        "{:?}",
        plan.lines()
    );
    assert_eq!((guest.state("bp-ours"), guest.state("bp-stray")), ("hi 1".into(), "ii 1".into()));
    guest.is_tidy();
    assert!(guest.plan(&[&ours]).is_empty());
}

#[test]
fn what_is_only_unpacked_is_there_for_what_needs_it() {
    let guest = Guest::new();
    let low = Package::new("bp-low", "1");
    let high = Package::new("bp-high", "1").depends("bp-low (= 1)");
    guest.dpkg("-i", &[&low, &high]);
    // As a cut while both came: the one unpacked, the other not even that.
    let mut status = guest.text("/var/lib/dpkg/status");
    for (name, state) in [("bp-low", "ok unpacked"), ("bp-high", "reinstreq half-installed")] {
        let whole = format!("Package: {name}\nStatus: install ok installed");
        assert!(status.contains(&whole), "{name}");
        status = status.replacen(&whole, &format!("Package: {name}\nStatus: install {state}"), 1);
    }
    fs::write(guest.at("/var/lib/dpkg/status"), status).unwrap();
    guest.provision(&[&low, &high]).unwrap();
    assert_eq!((guest.state("bp-low"), guest.state("bp-high")), ("hi 1".into(), "hi 1".into()));
    guest.is_tidy();
    assert!(guest.plan(&[&low, &high]).is_empty());
}

#[test]
fn a_way_down_that_was_cut_is_gone_to_its_end() {
    let guest = Guest::new();
    let [low, high] = ["1", "2"].map(|version| Package::new("bp-ours", version));
    guest.dpkg("-i", &[&high]);
    // As dpkg leaves it when it is killed while it unpacks the older one (dpkg, `process_archive`).
    let status = guest.text("/var/lib/dpkg/status");
    let whole = "Package: bp-ours\nStatus: install ok installed";
    assert!(status.contains(whole), "{status}");
    let cut = status.replacen(whole, "Package: bp-ours\nStatus: install reinstreq half-installed", 1);
    fs::write(guest.at("/var/lib/dpkg/status"), cut).unwrap();
    guest.provision(&[&low]).unwrap();
    assert_eq!(guest.state("bp-ours"), "hi 1");
    guest.is_tidy();
    assert!(guest.plan(&[&low]).is_empty());
}

#[test]
fn what_scripts_print_goes_into_no_file() {
    let guest = Guest::new();
    let script =
        "#!/bin/sh\nset -e\necho one line\n/bin/echo another\nexec 5>/var/tmp/bp-talks\necho a third\n";
    let talks = Package::new("bp-talks", "1").script("postinst", script);
    guest.provision(&[&talks]).unwrap();
    assert_eq!(guest.state("bp-talks"), "hi 1");
    assert_eq!(guest.text("/var/tmp/bp-talks") + &guest.text("/var/lib/dpkg/lock"), "");
}

#[test]
fn what_cannot_be_configured_is_said() {
    let guest = Guest::new();
    let bad = Package::new("bp-bad", "1").script("postinst", "#!/bin/sh\necho the reason >&2\nexit 7\n");
    let error = guest.provision(&[&bad]).unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("the reason") && said.contains("bp-bad"), "{said}");
    // The generation is pending; the mended package finishes it.
    let good = Package::new("bp-bad", "2");
    let (plan, _) = guest.provision(&[&good]).unwrap();
    assert!(plan.finishes.is_some());
    assert_eq!(guest.state("bp-bad"), "hi 2");
    guest.is_tidy();
}

#[test]
fn killed_anywhere_it_converges() {
    let guest = Guest::new();
    let slow = |name: &str, version: &str| {
        let script = "#!/bin/sh\nsleep 0.1\n";
        Package::new(name, version).script("postinst", script).script("prerm", script)
    };
    let set = |version: &str| ["bp-a", "bp-b", "bp-c"].map(|name| slow(name, version)).to_vec();
    let mut wait = 150;
    for version in ["1", "2", "1"] {
        let packages = set(version);
        let packages: Vec<&Package> = packages.iter().collect();
        let bundle = guest.bundle(guest.locked(&packages));
        for _ in 0..4 {
            // Spread over what a whole run takes, and never the same twice.
            wait = (wait * 7 + 131) % 2300;
            let _ = guest.run(&bundle, Goal::Provision, Some(Duration::from_millis(wait)));
        }
        guest.provision(&packages).unwrap();
        guest.is_tidy();
        for package in &packages {
            assert_eq!(guest.state(&package.name), format!("hi {version}"));
        }
        assert!(guest.plan(&packages).is_empty());
    }
}
