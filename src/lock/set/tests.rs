use super::*;
use crate::{
    digest::Digest,
    lock::{Lock, tests::PROFILE},
    profile,
};

pub(in crate::lock) fn package(
    name: &str,
    version: &str,
    depends: &[&str],
    wanted_by: &[&str],
) -> LockedPackage {
    let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    LockedPackage {
        repository: "debian".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        sha256: Digest::of(format!("{name} {version}")),
        size: 1000,
        path: format!("pool/{name}_{version}.deb"),
        depends: all(depends),
        wanted_by: all(wanted_by),
    }
}

/// A host with this driver and kernel; `more` besides.
fn host(driver: &str, kernel: &str, more: Vec<LockedPackage>) -> (Vec<LockedPackage>, Vec<String>) {
    let release = format!("{kernel}+deb13-amd64");
    let (image, headers) = (format!("linux-image-{release}"), format!("linux-headers-{release}"));
    let driver = format!("{driver}-2");
    let kernel = format!("{kernel}-1");
    let mut packages = vec![
        package("dkms", "3.0", &[], &[]),
        package("docker.io", "26.1.5+dfsg1-9", &[], &["container"]),
        package("firmware-nvidia-gsp", &driver, &[], &["driver"]),
        package("libnvidia-cfg1", &driver, &[], &[]),
        package(&headers, &kernel, &[], &[]),
        package("linux-headers-amd64", &kernel, &[&headers], &["kernel"]),
        package(&image, &kernel, &[], &[]),
        package("linux-image-amd64", &kernel, &[&image], &["kernel"]),
        package("nvidia-open-kernel-dkms", &driver, &["dkms", "firmware-nvidia-gsp"], &["driver"]),
        package("nvidia-persistenced", "550.1-1", &["libnvidia-cfg1"], &["driver"]),
    ];
    packages.extend(more);
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let sources = packages
        .iter()
        .map(|package| match package.name.as_str() {
            "nvidia-open-kernel-dkms" => "nvidia-open-gpu-kernel-modules".to_owned(),
            "firmware-nvidia-graphics" => "firmware-nonfree".to_owned(),
            name if name.contains("-nvidia-") || name.starts_with("libnvidia") || name == "libcuda1" => {
                "nvidia-graphics-drivers".to_owned()
            }
            name => name.to_owned(),
        })
        .collect();
    (packages, sources)
}

fn profile_of(release: &str) -> Profile {
    profile::parse("host.toml", &PROFILE.replace("trixie", release)).unwrap()
}

fn kernels(all: &[(&str, &str)]) -> Vec<Kernel> {
    all.iter().filter_map(|(name, version)| Kernel::of(name, version)).collect()
}

#[test]
fn kernels_by_their_packages() {
    for (name, version, wanted) in [
        (
            "linux-image-6.12.117+deb13-amd64",
            "6.12.117-1",
            Some(("6.12.117+deb13-amd64", "6.12.117", "amd64")),
        ),
        (
            "linux-image-6.1.0-50-cloud-amd64",
            "6.1.176-1",
            Some(("6.1.0-50-cloud-amd64", "6.1.176", "cloud-amd64")),
        ),
        ("linux-image-6.8.0-51-generic", "6.8.0-51.52", Some(("6.8.0-51-generic", "6.8.0", "generic"))),
        (
            "linux-image-unsigned-6.8.0-51-generic",
            "6.8.0-51.52",
            Some(("6.8.0-51-generic", "6.8.0", "generic")),
        ),
        ("linux-image-6.1.0-50-amd64-unsigned", "6.1.176-1", Some(("6.1.0-50-amd64", "6.1.176", "amd64"))),
        ("linux-image-6.1.0-50-amd64-dbg", "6.1.176-1", None),
        ("linux-image-amd64", "6.1.176-1", None),
        ("linux-headers-6.1.0-50-amd64", "6.1.176-1", None),
    ] {
        let kernel = Kernel::of(name, version);
        let found = kernel.as_ref().map(|k| (k.release.as_str(), k.version.as_str(), k.flavor()));
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn a_set_and_what_is_known_of_its_pair() {
    let (packages, sources) = host("550.163.01", "6.12.117", Vec::new());
    let set_of = |profile: &Profile, packages: &[LockedPackage], kernels: &[Kernel]| {
        set(profile, packages, &sources, Some(kernels)).unwrap()
    };
    let profile = profile_of("trixie");
    let made = set_of(&profile, &packages, &[]);
    assert_eq!(made.kernel.as_deref(), Some("6.12.117+deb13-amd64"));
    assert_eq!(made.driver.as_deref(), Some("550.163.01"));
    assert_eq!(made.firmware.as_deref(), Some("550.163.01"));
    assert_eq!(made.engine.as_deref(), Some("docker.io 26.1.5+dfsg1-9"));
    assert_eq!((made.toolkit, made.fabric_manager), (None, None));
    assert_eq!(made.builds, Some(Builds::No));
    let because = made.because.unwrap();
    assert!(because.contains("for kernel 6.12.117 does not build: nv-pci.c"), "{because}");
    assert!(
        because
            .ends_with("no driver is known to build for any kernel that the archives have of this release"),
        "{because}"
    );

    // The same numbers of another release say nothing.
    let other = set_of(&profile_of("forky"), &packages, &[]);
    assert_eq!(other.builds, Some(Builds::Untried));

    // Patches mend it.
    let mut patched = profile.clone();
    patched.driver.patches = vec!["x.patch".to_owned()];
    let mended = set_of(&patched, &packages, &[]);
    assert_eq!(mended.builds, Some(Builds::Patched));
    assert!(mended.because.as_deref().unwrap().contains("without them it does not build"));
    assert_eq!(again(&profile, &packages, Some(&mended)).builds, Some(Builds::No));
    // Where all is the same, the words stay; where somebody edited it, they go with it.
    let words = PackageSet { because: Some("as it was".to_owned()), ..again(&profile, &packages, None) };
    assert_eq!(again(&profile, &packages, Some(&words)), words);
    let edited = PackageSet { builds: Some(Builds::Yes), ..words };
    assert_eq!(again(&profile, &packages, Some(&edited)), again(&profile, &packages, None));
}

type Edit = fn(&mut PackageSet);

#[test]
fn a_set_that_was_edited_contradicts_its_lock() {
    let profile = profile_of("trixie");
    let more = vec![
        package("firmware-nvidia-graphics", "20250410-2", &[], &["packages"]),
        package("nvidia-container-toolkit", "1.18.0-1", &[], &["container"]),
        package("nvidia-fabricmanager-550", "550.163.01-1", &[], &["packages"]),
        package("nvidia-fs-dkms", "2.20-1", &["dkms"], &["packages"]),
    ];
    let (packages, sources) = host("550.163.01", "6.12.117", more);
    let set = set(&profile, &packages, &sources, Some(&[])).unwrap();
    assert_eq!(set.fabric_manager.as_deref(), Some("550.163.01"));
    let lock = Lock { set: Some(set), packages, ..Lock::default() };
    assert_eq!(contradictions(&profile, &lock, true), []);
    let edits: [(&str, Edit, &str, &str); 7] = [
        ("kernel", |set| set.kernel = Some("1.2".to_owned()), "1.2", "6.12.117+deb13-amd64"),
        ("driver", |set| set.driver = None, "", "550.163.01"),
        ("firmware", |set| set.firmware = Some("20250410".to_owned()), "20250410", "550.163.01"),
        ("fabric-manager", |set| set.fabric_manager = None, "", "550.163.01"),
        ("toolkit", |set| set.toolkit = Some("1.2".to_owned()), "1.2", "1.18.0-1"),
        ("engine", |set| set.engine = None, "", "docker.io 26.1.5+dfsg1-9"),
        ("builds", |set| set.builds = Some(Builds::Yes), "yes", "no"),
    ];
    for (field, edit, said, follows) in edits {
        let mut edited = lock.clone();
        edit(edited.set.as_mut().unwrap());
        let found = contradictions(&profile, &edited, true);
        let [one] = found.as_slice() else { panic!("{field}: {found:?}") };
        let told = (one.field, one.said.as_deref().unwrap_or_default(), one.follows.as_deref());
        assert_eq!(told, (field, said, Some(follows)));
        // Of a lock that is stale the table may be another one: only what follows from the packages is held against it.
        assert_eq!(contradictions(&profile, &edited, false).is_empty(), field == "builds", "{field}");

        let text = crate::lock::write(&edited);
        let error = refuse(&found, "h.lock", &text).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Usage);
        let message = error.message();
        assert!(message.starts_with("`h.lock` does not agree with itself: `[set]` has "), "{message}");
        assert!(message.contains(field) && message.contains(said) && message.contains(follows), "{message}");
        assert!(error.hints()[0].contains("run `bedplate lock`"), "{error:?}");
        let span = error.snippet().unwrap().span.clone();
        let line = if said.is_empty() { "[set]".to_owned() } else { format!("{field} = \"{said}\"") };
        assert_eq!(&text[span], line);
    }
    // The set gone whole, and one without packages.
    let bare = Lock { set: None, ..lock.clone() };
    assert_eq!(contradictions(&profile, &bare, false).len(), 6);
    let alone = Lock { packages: Vec::new(), ..lock };
    assert_eq!(contradictions(&profile, &alone, true).len(), 7);
    assert!(refuse(&[], "h.lock", "").is_ok());
}

#[test]
fn one_package_that_pulls_many_parts_is_one_error() {
    let names = ["libcuda1", "libnvidia-ml1", "libnvidia-nvvm4", "nvidia-smi", "nvidia-vaapi"];
    let mut more: Vec<LockedPackage> =
        names.iter().map(|name| package(name, "535.309.01-1", &[], &[])).collect();
    more.push(package("rendering", "1.0", &names[..4], &["packages"]));
    let (packages, mut sources) = host("550.163.01", "6.12.117", more);
    for (source, package) in sources.iter_mut().zip(&packages) {
        if names[..4].contains(&package.name.as_str()) {
            "nvidia-graphics-drivers".clone_into(source);
        }
    }
    let error = set(&profile_of("trixie"), &packages, &sources, None).unwrap_err();
    assert_eq!(
        error.message(),
        "the parts of the driver differ in version: `libcuda1` is 535.309.01, `libnvidia-ml1` is 535.309.01, \
         `libnvidia-nvvm4` is 535.309.01, 1 more of another version, and the driver is 550.163.01"
    );
    assert!(error.related().is_empty(), "{error:?}");
    assert_eq!(error.causes(), ["they come by packages: rendering → libcuda1"]);
    assert_eq!(
        error.hints(),
        ["take `rendering` out of `packages`, or write the driver version that it wants in `[driver]`"]
    );
}

#[test]
fn the_newest_pair_that_builds_is_named() {
    let profile = profile_of("bookworm");
    let (packages, sources) = host("535.261.03", "6.1.192", Vec::new());
    let there = kernels(&[
        ("linux-image-6.1.0-50-cloud-amd64", "6.1.176-1"),
        ("linux-image-6.1.0-50-amd64", "6.1.176-1"),
        ("linux-image-6.1.0-56-amd64", "6.1.192-2"),
    ]);
    let made = set(&profile, &packages, &sources, Some(&there)).unwrap();
    assert_eq!(made.builds, Some(Builds::No));
    let because = made.because.unwrap();
    assert!(
        because.ends_with("kernel 6.1.176 (`linux-image-6.1.0-50-amd64`) with driver 535.261.03"),
        "{because}"
    );
    let (packages, sources) = host("535.261.03", "6.1.180", Vec::new());
    let made = set(&profile, &packages, &sources, Some(&there)).unwrap();
    assert_eq!(made.builds, Some(Builds::Untried));
    let because = made.because.unwrap();
    assert!(because.contains("for 6.1.192 it does not build"), "{because}");
    let (packages, sources) = host("535.261.03", "6.1.176", Vec::new());
    let made = set(&profile, &packages, &sources, Some(&there)).unwrap();
    assert_eq!(
        (made.builds, made.because.as_deref()),
        (Some(Builds::Yes), Some("driver 535.261.03 for kernel 6.1.176 was seen to build"))
    );
}

#[test]
fn parts_of_two_versions_are_refused_and_the_odd_one_is_named() {
    let more = vec![
        package("libcuda1", "535.309.01-1", &[], &[]),
        package("rendering", "1.0", &["libcuda1"], &["packages"]),
    ];
    let (packages, sources) = host("550.163.01", "6.12.117", more);
    let error = set(&profile_of("trixie"), &packages, &sources, None).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Check);
    assert_eq!(
        error.message(),
        "the parts of the driver differ in version: `libcuda1` is 535.309.01, and the driver is 550.163.01"
    );
    assert_eq!(error.causes(), ["it comes by packages: rendering → libcuda1"]);
    assert!(error.hints()[0].contains("take `rendering` out of `packages`"), "{error:?}");
}

#[test]
fn headers_are_those_of_the_kernel_that_boots() {
    let (mut packages, sources) = host("550.163.01", "6.12.117", Vec::new());
    let at = packages.iter().position(|p| p.name.starts_with("linux-headers-6")).unwrap();
    packages[at].name = "linux-headers-6.12.116+deb13-amd64".to_owned();
    let error = set(&profile_of("trixie"), &packages, &sources, None).unwrap_err();
    assert!(error.message().contains("linux-headers-6.12.116"), "{error}");
}

#[test]
fn a_host_without_gpus_has_an_engine_alone() {
    let packages = vec![package("docker.io", "26.1-1", &[], &["container"])];
    let made = set(&profile_of("trixie"), &packages, &["docker.io".to_owned()], None).unwrap();
    assert_eq!(made, PackageSet { engine: Some("docker.io 26.1-1".to_owned()), ..PackageSet::default() });
}
