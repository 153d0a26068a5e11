use super::*;
use crate::{apt::closure::Constraint, lock::tests::PROFILE, profile};

/// A catalog of packages as `NAME VERSION`, of one suite each.
fn catalog(suites: &[(&str, u16, &[&str])]) -> Catalog {
    let texts: Vec<(String, u16, String)> = suites
        .iter()
        .map(|(suite, priority, packages)| {
            let stanzas = packages.iter().map(|package| {
                let (name, version) = package.split_once(' ').unwrap();
                format!(
                    "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 1\n\
                     SHA256: {}\n\n",
                    crate::digest::Digest::of(package).hex()
                )
            });
            ((*suite).to_owned(), *priority, stanzas.collect())
        })
        .collect();
    let parts: Vec<(&str, &str, u16, &str)> = texts
        .iter()
        .map(|(suite, priority, text)| ("archive", suite.as_str(), *priority, text.as_str()))
        .collect();
    Catalog::from_texts(&parts).unwrap()
}

fn profile_with(edits: &[(&str, &str)]) -> Profile {
    let text = edits.iter().fold(PROFILE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    profile::parse("host.toml", &text).unwrap()
}

/// Each root as `because: name[:architecture][ = version]`.
fn shown(found: &Roots) -> Vec<String> {
    let one = |root: &Root| {
        let architecture = root.architecture.as_ref().map(|a| format!(":{a}")).unwrap_or_default();
        let version = match &root.constraint {
            Some(Constraint::Upstream(version)) => format!(" = {version}"),
            None => String::new(),
            other => format!(" {other:?}"),
        };
        format!("{}: {}{architecture}{version}", root.because, root.name)
    };
    found.roots.iter().map(one).collect()
}

fn debian(version: &str) -> Vec<String> {
    [
        "nvidia-open-kernel-dkms",
        "nvidia-smi",
        "libcuda1",
        "libnvidia-ml1",
        "libnvidia-ptxjitcompiler1",
        "firmware-nvidia-gsp",
    ]
    .map(|name| format!("{name} {version}-1"))
    .to_vec()
}

fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

#[test]
fn a_debian_host_with_gpus() {
    let mut packages = debian("550.163.01");
    packages.extend(
        ["nvidia-persistenced 550.1-1", "docker.io 26-1", "docker-cli 26-1", "ca-certificates 2025"]
            .map(str::to_owned),
    );
    let catalog = catalog(&[("trixie", 500, &texts(&packages))]);
    let profile =
        profile_with(&[("pin-packages = false", "packages = [\"chrony\", \"libc6:i386\", \"curl:amd64\"]")]);
    let found = roots(&profile, &catalog, &[]).unwrap();
    assert_eq!(found.driver.as_deref(), Some("550.163.01"));
    assert_eq!(
        shown(&found),
        [
            "packages: chrony",
            "packages: libc6:i386",
            "packages: curl",
            "kernel: linux-image-amd64",
            "kernel: linux-headers-amd64",
            "container: docker.io",
            "container: docker-cli",
            "container: ca-certificates",
            "driver: nvidia-open-kernel-dkms = 550.163.01",
            "driver: nvidia-smi = 550.163.01",
            "driver: libcuda1 = 550.163.01",
            "driver: libnvidia-ml1 = 550.163.01",
            "driver: libnvidia-ptxjitcompiler1 = 550.163.01",
            "driver: firmware-nvidia-gsp = 550.163.01",
            "driver: nvidia-persistenced",
        ]
    );
    // A kernel that is named, and one among the packages.
    let named = profile_with(&[("[gpu]", "[kernel]\npackage = \"linux-image-cloud-amd64\"\n[gpu]")]);
    let all = shown(&roots(&named, &catalog, &[]).unwrap());
    assert_eq!(all[..2], ["kernel: linux-image-cloud-amd64", "kernel: linux-headers-cloud-amd64"]);
    let own = profile_with(&[("pin-packages = false", "packages = [\"linux-image-rt-amd64\"]")]);
    let all = shown(&roots(&own, &catalog, &[]).unwrap());
    assert_eq!(all[..2], ["packages: linux-image-rt-amd64", "kernel: linux-headers-rt-amd64"]);
}

#[test]
fn a_branch_is_its_newest_version_that_is_whole() {
    let mut main = debian("550.100");
    main.extend(debian("550.163.01"));
    // The user space went ahead of the modules.
    let ahead: Vec<String> = debian("550.200").into_iter().skip(1).collect();
    main.extend(ahead);
    let backports = debian("550.300");
    let catalog = catalog(&[("trixie", 500, &texts(&main)), ("backports", 100, &texts(&backports))]);
    let branch = profile_with(&[("550.163.01", "550")]);
    let version =
        |profile: &Profile, locked: &[Preferred]| roots(profile, &catalog, locked).unwrap().driver.unwrap();
    assert_eq!(version(&branch, &[]), "550.163.01");
    let locked = Preferred {
        name: "nvidia-open-kernel-dkms".into(),
        architecture: "amd64".into(),
        version: "550.100-1".into(),
    };
    assert_eq!(version(&branch, &[locked]), "550.100");
    assert_eq!(version(&profile_with(&[("550.163.01", "550.300")]), &[]), "550.300");
    for (wanted, says) in
        [("550.200", "`nvidia-open-kernel-dkms`: 550.300, 550.163.01, 550.100"), ("580", "nvidia-smi")]
    {
        let error = roots(&profile_with(&[("550.163.01", wanted)]), &catalog, &[]).unwrap_err();
        assert!(error.message().contains(&format!("driver {wanted} whole")), "{error}");
        assert!(error.causes().join("\n").contains(says), "{error:?}");
        assert!(error.hints()[0].contains("version = \"550.300\""), "{error:?}");
    }
    let empty = super::tests::catalog(&[("trixie", 500, &["docker.io 26-1"])]);
    assert!(roots(&branch, &empty, &[]).unwrap_err().hints()[0].contains("[[host.repository]]"));
}

#[test]
fn drivers_of_a_branch_in_packages_of_their_own() {
    let names = [
        "nvidia-tesla-535-kernel-dkms 535.274.02-1",
        "nvidia-tesla-535-smi 535.274.02-1",
        "libnvidia-tesla-535-cuda1 535.274.02-1",
        "libnvidia-tesla-535-ml1 535.274.02-1",
        "firmware-nvidia-tesla-535-gsp 535.274.02-1",
    ];
    let catalog = catalog(&[("trixie", 500, &names)]);
    let proprietary = profile_with(&[("\"open\"", "\"proprietary\""), ("550.163.01", "535")]);
    let all = shown(&roots(&proprietary, &catalog, &[]).unwrap());
    assert!(all.contains(&"driver: libnvidia-tesla-535-cuda1 = 535.274.02".to_owned()), "{all:?}");
    let open = profile_with(&[("550.163.01", "535")]);
    assert!(roots(&open, &catalog, &[]).is_err(), "there are no open modules among them");
}

#[test]
fn an_ubuntu_host_with_gpus() {
    let of = |end: &str, version: &str| -> Vec<String> {
        [format!("nvidia-dkms-550{end}"), format!("nvidia-headless-no-dkms-550{end}")]
            .iter()
            .map(|name| format!("{name} {version}-0ubuntu1"))
            .collect()
    };
    let mut packages = of("-server-open", "550.90.07");
    packages.extend(of("-open", "550.120"));
    packages.push("nvidia-utils-550-server 550.90.07-0ubuntu1".into());
    packages.push("nvidia-utils-550 550.120-0ubuntu1".into());
    packages.push("docker.io 26-1".into());
    let catalog = catalog(&[("noble", 500, &texts(&packages))]);
    let profile = profile_with(&[("\"debian\"", "\"ubuntu\""), ("trixie", "noble"), ("550.163.01", "550")]);
    assert_eq!(
        shown(&roots(&profile, &catalog, &[]).unwrap()),
        [
            "kernel: linux-image-generic",
            "kernel: linux-headers-generic",
            "container: docker.io",
            "driver: nvidia-dkms-550-server-open = 550.90.07",
            "driver: nvidia-headless-no-dkms-550-server-open = 550.90.07",
            "driver: nvidia-utils-550-server = 550.90.07",
        ]
    );
    // An exact version is found where it is.
    let exact = profile_with(&[("\"debian\"", "\"ubuntu\""), ("trixie", "noble"), ("550.163.01", "550.120")]);
    let all = shown(&roots(&exact, &catalog, &[]).unwrap());
    assert!(all.contains(&"driver: nvidia-dkms-550-open = 550.120".to_owned()), "{all:?}");
}

#[test]
fn engines_and_toolkits() {
    let vendor =
        ["docker-ce 28-1", "docker-ce-cli 28-1", "containerd.io 1.7-1", "nvidia-container-toolkit 1.18-1"];
    let without_gpus: [(&str, &str); 3] = [
        ("[gpu]\nmodel = \"H100\"\ncount = 8\n", ""),
        ("flavor = \"open\"\nversion = \"550.163.01\"", "flavor = \"none\""),
        ("\"cdi\"", "\"none\""),
    ];
    let plain = profile_with(&without_gpus);
    let only = catalog(&[("x", 500, &vendor)]);
    assert_eq!(
        shown(&roots(&plain, &only, &[]).unwrap()),
        ["container: docker-ce", "container: docker-ce-cli", "container: containerd.io"]
    );
    let both = catalog(&[("x", 500, &[vendor.as_slice(), &["docker.io 26-1"]].concat())]);
    assert_eq!(shown(&roots(&plain, &both, &[]).unwrap()), ["container: docker.io"]);
    let mut without = plain.clone();
    without.container.engine = ContainerEngine::None;
    assert!(roots(&without, &both, &[]).unwrap().roots.is_empty());
    let mut asked = plain.clone();
    asked.host.packages = vec!["docker-ce".into()];
    assert_eq!(shown(&roots(&asked, &both, &[]).unwrap())[1], "container: docker-ce");

    let driver = debian("550.163.01");
    let mut packages = texts(&driver);
    packages.push("docker.io 26-1");
    let cdi = profile_with(&[]);
    let runtime = profile_with(&[("\"cdi\"", "\"nvidia-runtime\"")]);
    let bare = catalog(&[("x", 500, &packages)]);
    assert!(!shown(&roots(&cdi, &bare, &[]).unwrap()).iter().any(|root| root.contains("toolkit")));
    let error = roots(&runtime, &bare, &[]).unwrap_err();
    assert!(error.message().contains("nvidia-container-toolkit"), "{error}");
    packages.push("nvidia-container-toolkit 1.18-1");
    let with = catalog(&[("x", 500, &packages)]);
    for profile in [cdi, runtime] {
        let all = shown(&roots(&profile, &with, &[]).unwrap());
        assert!(all.contains(&"container: nvidia-container-toolkit".to_owned()), "{all:?}");
    }
}
