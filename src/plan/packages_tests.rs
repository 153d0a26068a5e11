use proptest::prelude::*;

use super::{
    dpkg::{Package, Packages, State, Want},
    tests::{Model, profile},
    *,
};
use crate::lock::{Builds, LockedPackage, PackageSet};

fn there(name: &str, version: &str) -> Package {
    Package {
        name: name.to_owned(),
        architecture: "amd64".to_owned(),
        version: version.to_owned(),
        want: Want::Install,
        state: State::Installed,
        reinstall: false,
        essential: false,
        depends: Vec::new(),
        provides: Vec::new(),
        installed_size: 0,
        conffiles: Vec::new(),
    }
}

fn locked(name: &str, version: &str) -> LockedPackage {
    LockedPackage {
        repository: "debian".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        sha256: Digest::of(name),
        size: 1000,
        path: format!("{name}.deb"),
        depends: Vec::new(),
        wanted_by: Vec::new(),
    }
}

pub(super) fn lock(packages: &[(&str, &str)]) -> Lock {
    Lock {
        packages: packages.iter().map(|(name, version)| locked(name, version)).collect(),
        ..Lock::default()
    }
}

pub(super) fn host(packages: impl IntoIterator<Item = Package>) -> Model {
    let mut model = Model::new([]);
    let known = packages
        .into_iter()
        .map(|package| ((package.name.clone(), package.architecture.clone()), package))
        .collect();
    model.state.packages = Some(Packages { known, interrupted: false, tools: true });
    model
}

#[test]
fn another_release_is_refused_before_anything() {
    let lock = lock(&[("a", "1")]);
    let wanted = profile("");
    let mut host = host([there("a", "0")]);
    host.state.os = Some(("debian".to_owned(), wanted.host.release.clone()));
    assert!(!host.plan(&wanted, &lock).unwrap().is_empty());
    for (id, release) in [("debian", "sid"), ("ubuntu", wanted.host.release.as_str())] {
        host.state.os = Some((id.to_owned(), release.to_owned()));
        let error = host.plan(&wanted, &lock).unwrap_err();
        assert!(error.message().contains(&format!("the host is {id} {release}")), "{error:?}");
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .filter(|step| {
            matches!(
                step,
                Step::RepairPackages { .. } | Step::InstallPackages { .. } | Step::HoldPackages { .. }
            )
        })
        .flat_map(|step| [step.to_string()].into_iter().chain(step.detail().iter().cloned()))
        .collect()
}

#[test]
fn packages_go_each_its_way() {
    let mut broken = there("broken", "1");
    (broken.state, broken.reinstall) = (State::HalfInstalled, true);
    let mut model =
        host([there("up", "1.9"), there("down", "1.10"), there("same", "1"), there("mine", "1"), broken]);
    let wanted = lock(&[("broken", "1"), ("down", "1.9"), ("new", "1"), ("same", "1"), ("up", "1.10")]);
    let plan = model.run(&profile(""), &wanted, None).unwrap();
    assert_eq!(
        steps(&plan),
        [
            "! finish half-installed broken",
            "~ packages: 1 installed, 1 upgraded, 1 downgraded, 1 installed again (4.0 kB)",
            "~ broken 1 (broken; again)",
            "↓ down 1.10 → 1.9",
            "+ new 1",
            "↑ up 1.9 → 1.10",
            "! hold 5 packages",
        ]
    );
    assert_eq!(plan.unlocked, ["mine"]);
    assert!(model.plan(&profile(""), &wanted).unwrap().is_empty());
}

#[test]
fn foreign_packages_are_their_own() {
    let foreign = Package { architecture: "i386".to_owned(), ..there("libc6", "2") };
    let mut model = host([there("libc6", "2"), foreign]);
    let mut wanted = lock(&[("libc6", "2")]);
    wanted.packages.push(LockedPackage { architecture: "i386".to_owned(), ..locked("libc6", "3") });
    let plan = model.run(&profile(""), &wanted, None).unwrap();
    assert!(steps(&plan).contains(&"↑ libc6:i386 2 → 3".to_owned()), "{:?}", steps(&plan));
}

#[test]
fn a_step_back_that_endangers_is_refused_unless_it_is_named() {
    let mut model = host([there("libc6", "2.41-12+deb13u1"), there("linux-image-6.1-amd64", "2")]);
    model.state.running.kernel = Some("6.1-amd64".to_owned());
    let back = lock(&[("libc6", "2.41-12"), ("linux-image-6.1-amd64", "1")]);
    let profile = profile("");
    let error = model.plan(&profile, &back).unwrap_err();
    assert!(error.message().contains("`libc6` would go back from 2.41-12+deb13u1 to 2.41-12"), "{error:?}");
    assert!(error.related()[0].message().contains("linux-image-6.1-amd64"));
    assert!(error.hints()[1].contains("--allow libc6"));
    let allow = ["libc6".to_owned(), "linux-image-6.1-amd64".to_owned()];
    let inputs = super::tests::inputs(&profile, &back).allowing(&allow);
    assert!(make(&inputs, &model.observed(), Goal::Provision).is_ok());
}

#[test]
fn kernels_stand_side_by_side() {
    let mut model = host([]);
    model.state.running.kernel = Some("6.1-amd64".to_owned());
    model.run(&profile(""), &lock(&[("linux-image-6.1-amd64", "1"), ("other", "1")]), None).unwrap();
    let newer = lock(&[("linux-image-6.12-amd64", "1")]);
    let plan = model.run(&profile(""), &newer, None).unwrap();
    assert!(steps(&plan).contains(&"- other".to_owned()));
    assert!(model.state.packages.as_ref().unwrap().has("linux-image-6.1-amd64"));
    assert!(model.plan(&profile(""), &newer).unwrap().is_empty());
    // Strict removes the others, and never the one that runs.
    let mut strict = profile("");
    strict.host.strict = true;
    let plan = model.plan(&strict, &newer).unwrap();
    assert!(steps(&plan).is_empty(), "{:?}", steps(&plan));
}

#[test]
fn a_driver_whose_modules_are_not_built_is_refused() {
    let mut wanted = lock(&[("a", "1"), ("nvidia-open-kernel-dkms", "550.163.01-2")]);
    wanted.set = Some(PackageSet { driver: Some("550.163.01".into()), ..PackageSet::default() });
    let error = host([]).plan(&profile(""), &wanted).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Check);
    assert!(error.message().contains("no modules of driver 550.163.01"), "{error:?}");
    assert!(error.hints()[0].starts_with("`bedplate lock --modules`"), "{error:?}");
}

#[test]
fn a_set_that_does_not_build_is_refused() {
    let model = host([]);
    let mut wanted = lock(&[("a", "1")]);
    wanted.set = Some(PackageSet {
        kernel: Some("6.12.117+deb13-cloud-amd64".into()),
        driver: Some("550.163.01".into()),
        builds: Some(Builds::No),
        because: Some("pci_resize_resource takes a fourth argument".into()),
        ..PackageSet::default()
    });
    let error = model.plan(&profile(""), &wanted).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Check);
    assert!(error.message().contains("550.163.01 is known not to build for kernel 6.12.117"), "{error:?}");
    wanted.set.as_mut().unwrap().builds = Some(Builds::Untried);
    let mut model = host([]);
    model.state.running = Running { kernel: Some("6.1".into()), driver: None };
    let plan = model.plan(&profile(""), &wanted).unwrap();
    assert_eq!(plan.reboot.unwrap(), "kernel 6.1 runs, and 6.12.117+deb13-cloud-amd64 is locked");
}

#[test]
fn docker_that_comes_with_the_packages_is_not_missing() {
    let mut model = host([]);
    model.state.docker = DockerState::Away { why: "no Docker daemon".into(), hint: "install it".into() };
    let mut wanted =
        profile("daemon = { mtu = 1400 }\n[[user]]\nname = \"operator\"\ngroups = [\"docker\"]\n");
    let plan = model.plan(&wanted, &lock(&[("docker.io", "26")])).unwrap();
    assert!(plan.missing.is_empty(), "{:?}", plan.missing);
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::AddGroup { .. })));
    assert!(plan.steps.iter().any(|step| matches!(step, Step::JoinGroup { group, .. } if group == "docker")));
    // Not so where it is there already and does not answer, or is not locked.
    let plan = model.plan(&wanted, &lock(&[("other", "26")])).unwrap();
    assert_eq!(plan.missing[0].what, "no Docker daemon");
    // Someone else's packages are let alone.
    wanted.host.pin_packages = false;
    assert!(steps(&model.plan(&wanted, &lock(&[("other", "26")])).unwrap()).is_empty());
}

/// What packages there are, as far as a rollback must bring it back.
fn versions(model: &Model) -> BTreeMap<String, String> {
    let packages = model.state.packages.as_ref().unwrap();
    packages.present().map(|package| (package.name.clone(), package.version.clone())).collect()
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn some_lock() -> impl Strategy<Value = Lock> {
    proptest::collection::vec(proptest::option::of(prop_oneof![Just("1"), Just("2"), Just("3")]), 4).prop_map(
        |versions| {
            let mut packages: Vec<(&str, &str)> =
                NAMES.iter().zip(versions).filter_map(|(name, version)| Some((*name, version?))).collect();
            // Never empty: that would be a lock without packages.
            packages.push(("z", "1"));
            lock(&packages)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However often runs are interrupted: the next whole one leaves the locked versions, held, and a second one finds
    /// nothing to do; what bedplate brought goes again, what was there before stays, and so does a hold by hand.
    #[test]
    fn interrupted_runs_converge(
        before in proptest::collection::vec(proptest::option::of((prop_oneof![Just("1"), Just("2")], any::<bool>())), 4),
        runs in proptest::collection::vec((some_lock(), proptest::option::of(0..6usize)), 1..5),
        last in some_lock(),
    ) {
        let packages = NAMES.iter().zip(&before).filter_map(|(name, package)| {
            let (version, held) = package.as_ref()?;
            let want = if *held { Want::Hold } else { Want::Install };
            Some(Package { want, ..there(name, version) })
        });
        let mut model = host(packages);
        let wanted = profile("");
        for (lock, kill) in &runs {
            model.run(&wanted, lock, *kill).unwrap();
        }
        model.run(&wanted, &last, None).unwrap();
        prop_assert!(model.plan(&wanted, &last).unwrap().is_empty());
        let now = versions(&model);
        for package in &last.packages {
            prop_assert_eq!(now.get(&package.name), Some(&package.version));
            let key = (package.name.clone(), "amd64".to_owned());
            prop_assert_eq!(model.state.packages.as_ref().unwrap().known[&key].want, Want::Hold);
        }
        // Only what was there before, and what is locked.
        model.run(&wanted, &lock(&[("z", "1")]), None).unwrap();
        let mut names: Vec<&str> = NAMES.iter().zip(&before).filter(|(_, p)| p.is_some()).map(|(n, _)| *n).collect();
        names.push("z");
        prop_assert_eq!(versions(&model).into_keys().collect::<Vec<_>>(), names);
        for (name, package) in NAMES.iter().zip(&before) {
            let Some((_, held)) = package else { continue };
            let key = ((*name).to_owned(), "amd64".to_owned());
            let want = model.state.packages.as_ref().unwrap().known[&key].want;
            prop_assert_eq!(want == Want::Hold, *held, "{}", name);
        }
    }
}
