//! What a host goes through: packages come, go up, down and away, and back by a rollback.

use bedplate::plan::Step;

use super::guest::{Guest, entry};
use crate::apt::package::Package;

fn engine(version: &str) -> Package {
    let mut package = Package::new("bp-engine", version)
        .depends(&format!("bp-library (>= {version})"))
        .file("./etc/bp-engine.conf", &format!("of {version}\n"));
    package.conffiles.push("/etc/bp-engine.conf".to_owned());
    package
}

fn library(version: &str) -> Package {
    Package::new("bp-library", version).architecture("all")
}

fn lines(plan: &bedplate::plan::Plan) -> Vec<String> {
    plan.lines().into_iter().filter(|line| line.contains("package") || line.contains("bp-")).collect()
}

#[test]
fn packages_come_go_up_and_down_and_back() {
    let guest = Guest::new();
    let before = guest.all();
    let (plan, _) = guest.provision(&[&engine("1.0"), &library("1.0")]).unwrap();
    let shown = lines(&plan);
    assert!(shown[0].starts_with("~ packages: 2 installed ("), "{shown:?}");
    assert_eq!(
        shown[1..],
        ["    + bp-engine 1.0", "    + bp-library 1.0", "! hold 2 packages"].map(str::to_owned)
    );
    assert!(plan.unlocked.contains(&"dpkg".to_owned()));
    assert_eq!((guest.state("bp-engine"), guest.state("bp-library")), ("hi 1.0".into(), "hi 1.0".into()));
    guest.is_tidy();
    assert!(guest.plan(&[&engine("1.0"), &library("1.0")]).is_empty());

    // Up, with a configuration file that someone changed.
    std::fs::write(guest.at("/etc/bp-engine.conf"), "by hand\n").unwrap();
    let extra = Package::new("bp-extra", "1");
    let (plan, outcome) = guest.provision(&[&engine("2.0"), &library("2.0"), &extra]).unwrap();
    assert!(lines(&plan).contains(&"    ↑ bp-engine 1.0 → 2.0".to_owned()), "{:?}", lines(&plan));
    assert_eq!(guest.text("/etc/bp-engine.conf"), "by hand\n");
    assert_eq!(guest.text("/etc/bp-engine.conf.dpkg-dist"), "of 2.0\n");
    assert!(
        outcome
            .warnings
            .iter()
            .any(|warning| warning.contains("`/etc/bp-engine.conf` of package `bp-engine`")
                && warning.contains("/etc/bp-engine.conf.dpkg-dist")),
        "{:?}",
        outcome.warnings
    );
    assert_eq!(guest.state("bp-extra"), "hi 1");

    // An upgrade of the host's own moves nothing that is held.
    std::fs::create_dir_all(guest.at("/srv")).unwrap();
    let newer = library("3.0");
    std::fs::write(guest.at("/srv/l.deb"), newer.deb()).unwrap();
    std::fs::write(guest.at("/srv/Packages"), newer.stanza("./l.deb", &newer.deb())).unwrap();
    std::fs::write(guest.at("/etc/apt/sources.list"), "deb [trusted=yes] file:/srv ./\n").unwrap();
    let update = guest.chroot(&["apt-get", "-o", "APT::Sandbox::User=root", "update"]);
    assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));
    for verb in ["upgrade", "dist-upgrade"] {
        guest.chroot(&["apt-get", "-y", verb]);
        assert_eq!(guest.state("bp-library"), "hi 2.0");
    }

    // Back, from the store alone: what only the newer generation brought goes.
    let (plan, _) = guest.switch(1).unwrap();
    assert!(lines(&plan).contains(&"    ↓ bp-library 2.0 → 1.0".to_owned()), "{:?}", lines(&plan));
    assert!(lines(&plan).contains(&"    - bp-extra".to_owned()));
    assert_eq!((guest.state("bp-engine"), guest.state("bp-library")), ("hi 1.0".into(), "hi 1.0".into()));
    assert!(!guest.state("bp-extra").contains("i "), "{}", guest.state("bp-extra"));
    guest.is_tidy();

    // Down by a profile, and away.
    guest.provision(&[&library("0.9")]).unwrap();
    assert_eq!(guest.state("bp-library"), "hi 0.9");
    assert!(!guest.state("bp-engine").contains("hi"));
    guest.is_tidy();
    // What was there before is as it was.
    let after = guest.all();
    assert!(before.lines().all(|line| after.lines().any(|other| other == line)), "{after}");
}

#[test]
fn what_was_there_before_stays_and_is_let_go_of() {
    let guest = Guest::new();
    guest.dpkg("-i", &[&library("1.0"), &Package::new("bp-held", "1")]);
    guest.chroot(&["apt-mark", "hold", "bp-held"]);
    let (plan, _) = guest.provision(&[&library("2.0"), &Package::new("bp-held", "2")]).unwrap();
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("`bp-held` was held by hand at 1: it goes to 2")),
        "{:?}",
        plan.warnings
    );
    assert_eq!((guest.state("bp-library"), guest.state("bp-held")), ("hi 2.0".into(), "hi 2".into()));
    // No longer locked: theirs again, at the version they have; the administrator's own hold is not ours to lift.
    let other = Package::new("bp-other", "1");
    let (plan, _) = guest.provision(&[&other]).unwrap();
    assert!(lines(&plan).contains(&"! hold 1 package, let go of 1".to_owned()), "{:?}", lines(&plan));
    assert_eq!((guest.state("bp-library"), guest.state("bp-held")), ("ii 2.0".into(), "hi 2".into()));
    // A package that someone else installed since, and that needs ours, keeps it.
    guest.dpkg("-i", &[&Package::new("bp-user", "1").depends("bp-other")]);
    let (plan, _) = guest.provision(&[&library("2.0")]).unwrap();
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("`bp-other` is no longer wanted, and stays")),
        "{:?}",
        plan.warnings
    );
    assert_eq!(guest.state("bp-other"), "ii 1");
    assert!(guest.plan(&[&library("2.0")]).is_empty());
}

#[test]
fn strict_removes_what_is_not_locked() {
    let mut guest = Guest::new();
    let base: Vec<_> = guest
        .chroot(&["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n"])
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let line = String::from_utf8_lossy(line).into_owned();
            let mut words = line.split(' ').map(str::to_owned);
            let (name, version) = (words.next()?, words.next()?);
            Some(entry(&Package::new(&name, &version).architecture(&words.next()?)))
        })
        .collect();
    guest.dpkg("-i", &[&Package::new("bp-stray", "1")]);
    guest.host = "strict = true".to_owned();
    let mut packages = guest.locked(&[&library("1.0")]);
    packages.extend(base);
    let bundle = guest.bundle(packages);
    let (plan, _) = guest.run(&bundle, bedplate::plan::Goal::Provision, None).unwrap();
    let removed = plan.steps.iter().find_map(|step| match step {
        Step::InstallPackages { remove, .. } => Some(remove.clone()),
        _ => None,
    });
    assert_eq!(removed.unwrap(), ["bp-stray"]);
    assert!(!guest.state("bp-stray").contains("ii") && guest.state("bp-library") == "hi 1.0");
    assert_eq!(guest.state("apt").split(' ').next(), Some("hi"));
}
