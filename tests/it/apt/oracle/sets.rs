//! Closures against what apt would install onto nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use bedplate::apt::{
    Catalog,
    closure::{Ask, Closure, Root, solve},
};

use super::{Apt, Named};

const ONE: &[&str] = &["amd64"];
const TWO: &[&str] = &["amd64", "i386"];

struct Case {
    name: &'static str,
    release: &'static str,
    architectures: &'static [&'static str],
    names: &'static [&'static str],
    recommends: bool,
    /// What the closure has and apt's set has not, and the other way round, as `docs/decisions/closure-and-apt.md`
    /// explains.
    ours: &'static [&'static str],
    theirs: &'static [&'static str],
}

const fn case(name: &'static str, release: &'static str, names: &'static [&'static str]) -> Case {
    Case { name, release, architectures: ONE, names, recommends: false, ours: &[], theirs: &[] }
}

const GPU_550: &[&str] = &[
    "linux-image-amd64",
    "linux-headers-amd64",
    "nvidia-open-kernel-dkms",
    "nvidia-smi",
    "libcuda1",
    "libnvidia-ml1",
    "nvidia-persistenced",
    "firmware-nvidia-gsp",
    "docker.io",
    "openssh-server",
];
const GPU_535: &[&str] = &[
    "linux-image-amd64",
    "linux-headers-amd64",
    "nvidia-tesla-535-kernel-dkms",
    "nvidia-tesla-535-smi",
    "libnvidia-tesla-535-cuda1",
    "libnvidia-tesla-535-ml1",
    "firmware-nvidia-tesla-535-gsp",
    "docker.io",
];
const WEB: &[&str] = &["nginx", "postgresql"];
const SYSTEMD: &[&str] = &[
    "systemd-sysv",
    "systemd-resolved",
    "systemd-container",
    "dbus",
    "polkitd",
    "network-manager",
    "udisks2",
];
const KERNEL: &[&str] = &["linux-image-amd64", "linux-headers-amd64", "dkms"];
const MULTI_ARCH: &[&str] = &["libc6:i386", "libgl1:i386", "libpulse0:i386", "libsane1:i386"];
const CONTAINERS: &[&str] = &["podman", "buildah", "docker.io", "docker-cli"];

fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("gpu 550", "trixie", GPU_550),
        case("gpu 550 full", "trixie", &["nvidia-driver", "nvidia-cuda-toolkit"]),
        Case {
            ours: &["crun", "libyajl2"],
            theirs: &["containernetworking-plugins"],
            ..case("containers", "trixie", CONTAINERS)
        },
        Case { ours: &["cpp", "gcc"], ..case("gpu 535", "bookworm", GPU_535) },
        case("gpu 535 full", "bookworm", &["nvidia-driver", "nvidia-cuda-toolkit"]),
        case("containers", "bookworm", &["podman", "buildah", "docker.io"]),
    ];
    for release in ["trixie", "bookworm"] {
        cases.push(case("minimal", release, &[]));
        cases.push(case("ssh", release, &["openssh-server", "chrony"]));
        cases.push(case("docker", release, &["docker.io"]));
        cases.push(case("build", release, &["python3", "build-essential"]));
        cases.push(case("web", release, WEB));
        cases.push(case("desktop", release, &["xfce4"]));
        cases.push(case("systemd", release, SYSTEMD));
        cases.push(case("kernel", release, KERNEL));
        cases.push(case("mail", release, &["mailutils", "apticron", "unattended-upgrades"]));
        cases.push(Case { architectures: TWO, ..case("multi-arch", release, MULTI_ARCH) });
        cases.push(Case {
            recommends: true,
            ..case("recommended", release, &["docker.io", "openssh-server"])
        });
    }
    cases
}

fn root(name: &str) -> Root {
    let (bare, architecture) = match name.split_once(':') {
        Some((bare, architecture)) => (bare, Some(architecture.to_owned())),
        None => (name, None),
    };
    Root {
        name: bare.to_owned(),
        architecture,
        constraint: None,
        because: "packages".to_owned(),
        shown: name.to_owned(),
    }
}

/// Names that apt must be given so that it begins where we do.
fn base(apt: &Apt) -> BTreeSet<String> {
    let mut names = BTreeSet::from(["apt".to_owned()]);
    for (_, text) in apt.texts() {
        for stanza in text.split("\n\n") {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
            let marked = field("Essential: ") == Some("yes") || field("Priority: ") == Some("required");
            if marked && field("Architecture: ") != Some("i386") {
                names.extend(field("Package: ").map(str::to_owned));
            }
        }
    }
    names
}

fn versions(catalog: &Catalog, closure: &Closure) -> BTreeMap<Named, String> {
    closure
        .packages
        .iter()
        .map(|package| {
            let record = catalog.get(package.id);
            let architecture = if record.architecture == "all" { "amd64" } else { record.architecture };
            ((record.name.to_owned(), architecture.to_owned()), record.version.to_owned())
        })
        .collect()
}

fn only(here: &BTreeMap<Named, String>, there: &BTreeMap<Named, String>) -> Vec<String> {
    here.iter()
        .filter(|(named, version)| there.get(*named) != Some(version))
        .map(|((name, architecture), version)| {
            match (architecture.as_str(), there.contains_key(&(name.clone(), architecture.clone()))) {
                (_, true) => format!("{name}={version}"),
                ("amd64", false) => name.clone(),
                (_, false) => format!("{name}:{architecture}"),
            }
        })
        .collect()
}

#[test]
fn closures_are_what_apt_would_install() {
    let mut wrong = Vec::new();
    let mut catalogs: BTreeMap<(&str, usize), (Catalog, BTreeSet<String>)> = BTreeMap::new();
    for case in cases() {
        let apt = Apt::of(case.release, case.architectures);
        let (catalog, base) = catalogs
            .entry((case.release, case.architectures.len()))
            .or_insert_with(|| (apt.catalog(), base(&apt)));
        let roots: Vec<Root> = case.names.iter().map(|name| root(name)).collect();
        let ask = Ask {
            catalog,
            architecture: "amd64",
            roots: &roots,
            preferred: &[],
            recommends: case.recommends,
        };
        let started = Instant::now();
        let closure = match solve(&ask) {
            Ok(closure) => closure,
            Err(unsatisfied) => {
                wrong.push(format!("{} on {}: {unsatisfied}", case.name, case.release));
                continue;
            }
        };
        let took = started.elapsed();
        let ours = versions(catalog, &closure);
        let mut names = base.clone();
        names.extend(case.names.iter().map(|name| (*name).to_owned()));
        let more: &[&str] = if case.recommends { &["--install-recommends"] } else { &[] };
        let started = Instant::now();
        let theirs = apt.install(&names, more);
        println!(
            "{} on {}: {} packages in {:.1} ms; apt {} in {:.1} ms",
            case.name,
            case.release,
            ours.len(),
            took.as_secs_f64() * 1e3,
            theirs.len(),
            started.elapsed().as_secs_f64() * 1e3
        );
        let (more, less) = (only(&ours, &theirs), only(&theirs, &ours));
        if more != case.ours || less != case.theirs {
            wrong.push(format!("{} on {}: ours {more:?}, apt's {less:?}", case.name, case.release));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
