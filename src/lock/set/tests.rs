use super::*;
use crate::{digest::Digest, lock::tests::PROFILE, profile};

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
        because.ends_with("no kernel of this release in the archives is known to build a driver"),
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
    let mut again = mended;
    judge_again(&mut again, &profile, &packages);
    assert_eq!(again.builds, Some(Builds::No));
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
