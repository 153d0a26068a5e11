use super::*;
use crate::{
    error::Kind,
    lock::{self, Builds, LockedRepository, parse, set::tests::package, tests::profile, write},
    profile::Signing,
};

const RELEASE: &str = "6.12.118+deb13-amd64";

/// A host with a driver, and a second reason for `make`.
fn driven() -> Lock {
    let kernel = format!("linux-image-{RELEASE}");
    let headers = format!("linux-headers-{RELEASE}");
    let mut packages = vec![
        package("build-helper", "1", &["make"], &["packages"]),
        package("dkms", "3.2.2", &["gcc-14", "kmod", "make", "patch"], &[]),
        package("firmware-nvidia-gsp", "550.163.01-2", &[], &["driver"]),
        package("gcc-14", "14.2.0-19", &["libc6"], &[]),
        package("kmod", "34", &["libc6"], &[]),
        package("libc6", "2.41-12", &[], &["required"]),
        package(&headers, "6.12.118-1", &["gcc-14", &kernel], &[]),
        package("linux-headers-amd64", "6.12.118-1", &[&headers], &["kernel"]),
        package(&kernel, "6.12.118-1", &["kmod"], &[]),
        package("linux-image-amd64", "6.12.118-1", &[&kernel], &["kernel"]),
        package("make", "4.4", &["libc6"], &[]),
        package(
            "nvidia-open-kernel-dkms",
            "550.163.01-2",
            &["dkms", "firmware-nvidia-gsp", "nvidia-support"],
            &["driver"],
        ),
        package("nvidia-smi", "550.163.01-2", &["nvidia-open-kernel-dkms"], &["driver"]),
        package("nvidia-support", "1", &[], &[]),
        package("patch", "2.8", &["libc6"], &[]),
    ];
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let mut lock = Lock {
        repositories: BTreeMap::from([("debian".to_owned(), LockedRepository::default())]),
        packages,
        ..Lock::default()
    };
    lock.set = Some(set::again(&profile(), &lock.packages, None));
    lock
}

fn built(lock: &Lock) -> LockedModules {
    let kernel = format!("linux-image-{RELEASE}");
    let name = format!("nvidia-open-kernel-{RELEASE}");
    let mut package = package(
        &name,
        "550.163.01-2+bedplate.0123456789ab",
        &["firmware-nvidia-gsp", "kmod", &kernel, "nvidia-support"],
        &["driver"],
    );
    package.repository = BUILT.to_owned();
    package.path = package.file_name();
    LockedModules { inputs: inputs(&profile(), &lock.packages, &lock.inputs).unwrap(), package }
}

fn names(packages: &[LockedPackage]) -> Vec<&str> {
    packages.iter().map(|package| package.name.as_str()).collect()
}

#[test]
fn a_workshop_has_what_builds_modules_and_no_more() {
    let lock = driven();
    let workshop = Workshop::of(&lock.packages).unwrap();
    assert_eq!(
        (workshop.source.name.as_str(), workshop.release.as_str()),
        ("nvidia-open-kernel-dkms", RELEASE)
    );
    let there = names(&workshop.packages);
    for name in
        ["dkms", "gcc-14", "libc6", "linux-headers-6.12.118+deb13-amd64", "nvidia-open-kernel-dkms", "patch"]
    {
        assert!(there.contains(&name), "{name}: {there:?}");
    }
    for name in ["build-helper", "linux-headers-amd64", "nvidia-smi"] {
        assert!(!there.contains(&name), "{name}: {there:?}");
    }
    // Without a driver, or without its kernel's headers, there is nothing to build.
    let without = |left_out: &str| {
        let packages: Vec<LockedPackage> =
            lock.packages.iter().filter(|package| package.name != left_out).cloned().collect();
        Workshop::of(&packages)
    };
    assert_eq!(without("nvidia-open-kernel-dkms"), None);
    assert_eq!(without("linux-headers-6.12.118+deb13-amd64"), None);
    assert_eq!(Workshop::of(&[]), None);
}

#[test]
fn a_host_gets_modules_instead_of_what_builds_them() {
    let mut lock = driven();
    assert!(lock.lacks_modules());
    assert_eq!(lock.host_packages().len(), lock.packages.len());
    lock.adopt(&profile(), built(&lock));
    assert!(!lock.lacks_modules());
    let host = lock.host_packages();
    assert_eq!(
        names(&host),
        [
            "build-helper",
            "firmware-nvidia-gsp",
            "kmod",
            "libc6",
            "linux-image-6.12.118+deb13-amd64",
            "linux-image-amd64",
            // Another package wants it as well.
            "make",
            "nvidia-open-kernel-6.12.118+deb13-amd64",
            "nvidia-smi",
            "nvidia-support",
        ]
    );
    let smi = host.iter().find(|package| package.name == "nvidia-smi").unwrap();
    assert_eq!(smi.depends, ["nvidia-open-kernel-6.12.118+deb13-amd64"]);
    let set = lock.set.unwrap();
    assert_eq!(set.builds, Some(Builds::Yes));
    assert!(set.because.unwrap().contains("were built for kernel 6.12.118+deb13-amd64"));
}

#[test]
fn modules_of_other_inputs_are_not_taken() {
    let lock = driven();
    let modules = built(&lock);
    let of = |change: &dyn Fn(&mut Lock, &mut Profile)| {
        let (mut lock, mut profile) = (lock.clone(), profile());
        change(&mut lock, &mut profile);
        lock.adopt(&profile, modules.clone());
        lock.modules.is_some()
    };
    assert!(of(&|_, _| {}));
    // What does not go into them changes nothing.
    assert!(of(&|lock, _| lock.packages.retain(|package| package.name != "build-helper")));
    assert!(!of(&|lock, _| {
        let gcc = lock.packages.iter_mut().find(|package| package.name == "gcc-14").unwrap();
        gcc.sha256 = Digest::of("another");
    }));
    assert!(!of(&|_, profile| profile.driver.patches.push("a.patch".to_owned())));
    let signing = Signing { key: "/k".to_owned(), certificate: "c".to_owned() };
    assert!(!of(&|_, profile| profile.driver.signing = Some(signing.clone())));
    let patched = |content: &str| {
        let mut profile = profile();
        profile.driver.patches.push("a.patch".to_owned());
        let known = BTreeMap::from([("a.patch".to_owned(), Digest::of(content))]);
        inputs(&profile, &lock.packages, &known)
    };
    assert_ne!(patched("one"), patched("other"));
}

#[test]
fn modules_are_written_and_read_back() {
    let mut lock = driven();
    assert!(write(&lock).contains("\nrevision = 0\n"));
    lock.adopt(&profile(), built(&lock));
    let text = write(&lock);
    assert!(text.contains("\nrevision = 1\n") && text.contains("\n[modules]\ninputs = \"sha256:"), "{text}");
    assert_eq!(parse("x.lock", &text).unwrap(), lock);
    for (from, to, label) in [
        ("inputs = \"sha256:", "inputs = \"sha1:", "sha1"),
        ("name = \"nvidia-open-kernel-6.12", "name = \"kmod\"\nx = \"", "unknown key"),
        ("name = \"nvidia-open-kernel-6.12.118+deb13-amd64\"", "name = \"kmod\"", "`kmod` is there twice"),
        ("[\"firmware-nvidia-gsp\", \"kmod\"", "[\"firmware-nvidia-gsp\", \"aaa\"", "sorted"),
        ("[\"firmware-nvidia-gsp\", \"kmod\"", "[\"firmware-nvidia-gsp\", \"ksmod\"", "no package `ksmod`"),
        ("[modules]\n", "[modules]\npath = \"x\"\n", "unknown key `path`"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        let error = parse("x.lock", &broken).expect_err(to);
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().contains(label), "{to}: {error}");
    }
}

#[test]
fn modules_of_another_making_contradict_their_lock() {
    let mut lock = driven();
    lock.adopt(&profile(), built(&lock));
    assert_eq!(set::contradictions(&profile(), &lock, true), []);
    lock.modules.as_mut().unwrap().inputs = Digest::of("edited");
    let found = set::contradictions(&profile(), &lock, true);
    assert_eq!(found.len(), 1, "{found:?}");
    let error = set::refuse(&found, "x.lock", &lock::write(&lock)).unwrap_err();
    assert!(error.message().contains("`[modules]` has `inputs = "), "{error}");
    assert!(error.snippet().is_some());
}

#[test]
fn finds_the_compilers_first_error() {
    let log = "make[1]: Entering\n  CC nv.o\nnv-pci.c:12:3: error: too few arguments to function 'x'\n\
               nv-pci.c:13:3: error: second\nmake[2]: *** [a] Error 1\n";
    assert_eq!(first_error(log).unwrap(), "nv-pci.c:12:3: error: too few arguments to function 'x'");
    assert_eq!(first_error("make: *** No rule\n").unwrap(), "make: *** No rule");
    assert_eq!(first_error("fine\n"), None);
}
