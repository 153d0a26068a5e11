//! What a lock says of packages: written, read, refused; why a package is there; when it is stale.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{set::tests::package, tests::profile, *};
use crate::error::Kind;

const KEY: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

/// A lock of a few packages, without images.
pub(super) fn example() -> Lock {
    let suite = |seed: &str| LockedSuite {
        release: Digest::of(seed),
        date: "2026-11-21T09:15:00Z".to_owned(),
        signed_by: vec![KEY.to_owned()],
    };
    let mut toolkit = package("nvidia-container-toolkit", "1.18.0-1", &["libc6"], &["container"]);
    toolkit.repository = "vendor".to_owned();
    toolkit.path = "nvidia-container-toolkit_1.18.0-1_amd64.deb".to_owned();
    let mut foreign = package("libc6", "2.41-12", &[], &[]);
    foreign.architecture = "i386".to_owned();
    let mut runs = package("wine32", "10.0-1", &["libc6:i386"], &["packages"]);
    runs.architecture = "i386".to_owned();
    Lock {
        repositories: BTreeMap::from([
            (
                "debian".to_owned(),
                LockedRepository {
                    snapshot: Some("20261121T091500Z".to_owned()),
                    suites: BTreeMap::from([
                        ("trixie".to_owned(), suite("trixie")),
                        ("trixie-updates".to_owned(), suite("updates")),
                    ]),
                },
            ),
            (
                "vendor".to_owned(),
                LockedRepository {
                    snapshot: None,
                    suites: BTreeMap::from([("/".to_owned(), suite("flat"))]),
                },
            ),
        ]),
        set: Some(PackageSet {
            kernel: Some("6.12.117+deb13-amd64".to_owned()),
            driver: Some("550.163.01".to_owned()),
            firmware: Some("550.163.01".to_owned()),
            fabric_manager: None,
            toolkit: Some("1.18.0-1".to_owned()),
            engine: Some("docker.io 26.1.5+dfsg1-9".to_owned()),
            builds: Some(Builds::No),
            because: Some("driver 550.163.01 for kernel 6.12.117 does not build: nv-pci.c".to_owned()),
        }),
        packages: vec![
            package("docker.io", "26.1.5+dfsg1-9", &["libc6", "runc"], &["container"]),
            package("libc6", "2.41-12", &[], &["required"]),
            foreign,
            toolkit,
            package("openssh-server", "1:10.0p1-7", &["libc6"], &["packages"]),
            package("runc", "1.1.15+ds1-2", &["libc6"], &[]),
            runs,
        ],
        ..Lock::default()
    }
}

#[test]
fn what_is_broken_of_packages_says_where() {
    let golden = write(&example());
    assert_eq!(parse("x.lock", &golden).unwrap(), example());
    let docker = "name = \"docker.io\"";
    for (from, to, label) in [
        ("[repository.vendor", "[repository.\"a b\"", "repository's name"),
        ("snapshot = \"20261121T091500Z\"", "snapshot = \"yesterday, noon\"", "snapshot is a time"),
        ("date = \"2026-11-21T09:15:00Z\"", "date = \"2026-11-21T09:15:00+01:00\"", "RFC 3339"),
        ("date = \"2026-11-21T09:15:00Z\"", "date = \"today\"", "RFC 3339"),
        (KEY, "0123", "fingerprint"),
        ("signed-by", "signed", "unknown key `signed`"),
        ("release = \"sha256:", "release = \"sha512:", "not a sha256 digest"),
        ("\"trixie-updates\"", "\"../x\"", "name of a suite"),
        ("trixie-updates", "\"\"", "name of a suite"),
        ("builds = \"no\"", "builds = \"maybe\"", "`builds` is"),
        ("[set]\n", "[set]\nhost = \"x\"\n", "unknown key `host`"),
        ("repository = \"debian\"\nname", "repository = \"gone\"\nname", "no repository `gone`"),
        (docker, "name = \"Docker\"", "name of a package"),
        (docker, "name = \"zzz\"", "packages are sorted"),
        (docker, "name = \"libc6\"", "is there twice"),
        (docker, "nam = \"docker.io\"", "unknown key `nam`"),
        ("version = \"26.1.5+dfsg1-9\"", "version = \"v26\"", "not a version"),
        ("version = \"26.1.5+dfsg1-9\"", "version = 26", "`version` is a string"),
        ("version = \"26.1.5+dfsg1-9\"\n", "", "a package has no `version`"),
        ("architecture = \"i386\"", "architecture = \"i/386\"", "not an architecture"),
        ("sha256 = \"", "sha256 = \"sha256:", "hexadecimal digits"),
        ("size = 1000", "size = -1", "whole number"),
        ("size = 1000", "size = 0x10", "whole number"),
        ("size = 1000", "size = \"1000\"", "whole number"),
        ("path = \"pool/docker", "path = \"/pool/docker", "below the archive's base"),
        ("path = \"pool/docker", "path = \"pool/../../docker", "below the archive's base"),
        ("path = \"pool/docker", "path = \"./docker", "below the archive's base"),
        ("depends = [\"libc6\", \"runc\"]", "depends = [\"libc6\", \"zzz\"]", "no package `zzz`"),
        ("depends = [\"libc6\", \"runc\"]", "depends = [\"libc6\", \"libc6\"]", "the list is sorted"),
        ("depends = [\"libc6\", \"runc\"]", "depends = [\"runc\", \"libc6\"]", "the list is sorted"),
        ("depends = [\"libc6\", \"runc\"]", "depends = \"libc6\"", "list of strings"),
        ("depends = [\"libc6:i386\"]", "depends = [\"libc6:arm64\"]", "no package `libc6:arm64`"),
        ("wanted-by = [\"required\"]", "wanted-by = [\"me\"]", "not a reason"),
    ] {
        let from = if golden.contains(from) { from } else { from.trim_matches('"') };
        assert!(golden.contains(from), "{from}\n{golden}");
        let text = golden.replacen(from, to, 1);
        let error = parse("x.lock", &text).expect_err(to);
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().starts_with("`x.lock` is broken: "), "{error}");
        assert!(error.message().contains(label), "{to}: {error}");
        let snippet = error.snippet().unwrap_or_else(|| panic!("{to}: has a place"));
        assert!(text.get(snippet.span.clone()).is_some(), "{to}: the place is in the text");
    }
    // A higher revision may know more.
    let additive = golden
        .replacen("revision = 0", "revision = 2", 1)
        .replacen(docker, &format!("{docker}\norigin = \"x\""), 1)
        .replacen("[set]\n", "[set]\nhost = \"x\"\n", 1);
    assert_eq!(parse("x.lock", &additive).unwrap(), example());
}

#[test]
fn a_lock_of_many_packages_is_read_at_once() {
    let mut lock = example();
    let names: Vec<String> = (0..500).map(|at| format!("package-{at:03}")).collect();
    lock.packages = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let depends: Vec<&str> = names[at.saturating_sub(12)..at].iter().map(String::as_str).collect();
            package(name, "1.0-1", &depends, &[])
        })
        .collect();
    let text = write(&lock);
    let started = std::time::Instant::now();
    assert_eq!(parse("x.lock", &text).unwrap(), lock);
    let took = started.elapsed();
    // A few milliseconds where it is optimised; the bound only catches what grows out of hand.
    assert!(took < std::time::Duration::from_millis(500), "{took:?} for {} bytes", text.len());
}

fn versions() -> impl Strategy<Value = String> {
    "([0-9]{1,3}:)?[0-9][0-9a-z.+~]{0,6}(-[0-9a-z.+~]{1,4})?"
}

fn some_text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[ -~\"\\\\é→]{0,12}")
}

fn suites() -> impl Strategy<Value = LockedSuite> {
    (
        any::<[u8; 32]>(),
        0_i64..4_000_000_000,
        proptest::collection::btree_set("[0-9A-F]{40}|[0-9A-F]{64}", 1..3),
    )
        .prop_map(|(digest, seconds, keys)| LockedSuite {
            release: Digest::from_bytes(digest),
            date: jiff::Timestamp::from_second(seconds).unwrap().to_string(),
            signed_by: keys.into_iter().collect(),
        })
}

fn repositories() -> impl Strategy<Value = BTreeMap<String, LockedRepository>> {
    let one = (
        proptest::option::of("[0-9]{8}T[0-9]{6}Z"),
        proptest::collection::btree_map("[a-z]{1,6}(-[a-z]{1,3})?|/|[a-z]{1,3}/", suites(), 0..3),
    )
        .prop_map(|(snapshot, suites)| LockedRepository { snapshot, suites });
    proptest::collection::btree_map("[A-Za-z0-9._-]{1,8}", one, 1..3)
}

fn sets() -> impl Strategy<Value = Option<PackageSet>> {
    let builds = prop_oneof![
        Just(None),
        Just(Some(Builds::Yes)),
        Just(Some(Builds::Patched)),
        Just(Some(Builds::No)),
        Just(Some(Builds::Untried))
    ];
    let set =
        (some_text(), some_text(), some_text(), some_text(), some_text(), some_text(), builds, some_text())
            .prop_map(|(kernel, driver, firmware, fabric_manager, toolkit, engine, builds, because)| {
                PackageSet { kernel, driver, firmware, fabric_manager, toolkit, engine, builds, because }
            });
    proptest::option::of(set)
}

type Drawn = ((String, String), (String, [u8; 32], u32, Vec<prop::sample::Index>, BTreeSet<&'static str>));

fn packages() -> impl Strategy<Value = Vec<Drawn>> {
    let key = ("[a-z0-9][a-z0-9+.-]{1,6}", prop_oneof![Just("amd64"), Just("all"), Just("i386")])
        .prop_map(|(name, architecture)| (name, architecture.to_owned()));
    let words = proptest::collection::btree_set(
        prop_oneof![Just("packages"), Just("driver"), Just("essential"), Just("apt")],
        0..3,
    );
    let value = (
        versions(),
        any::<[u8; 32]>(),
        any::<u32>(),
        proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        words,
    );
    proptest::collection::btree_map(key, value, 0..8).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn packages_are_read_back(repositories in repositories(), set in sets(), drawn in packages()) {
        let names: Vec<&String> = repositories.keys().collect();
        let packages: Vec<LockedPackage> = drawn
            .iter()
            .map(|((name, architecture), (version, digest, size, needs, words))| {
                let depends: BTreeSet<String> = needs
                    .iter()
                    .map(|at| &drawn[at.index(drawn.len())].0)
                    .map(|(name, a)| if a == "i386" { format!("{name}:{a}") } else { name.clone() })
                    .collect();
                LockedPackage {
                    repository: names[*size as usize % names.len()].clone(),
                    name: name.clone(),
                    version: version.clone(),
                    architecture: architecture.clone(),
                    sha256: Digest::from_bytes(*digest),
                    size: u64::from(*size),
                    path: format!("pool/{name}_{version}_{architecture}.deb"),
                    depends: depends.into_iter().collect(),
                    wanted_by: words.iter().map(|word| (*word).to_owned()).collect(),
                }
            })
            .collect();
        let lock = Lock { repositories, set, packages, ..Lock::default() };
        let text = write(&lock);
        let read = parse("x.lock", &text);
        prop_assert!(read.is_ok(), "{:?}\n{}", read, text);
        let read = read.unwrap();
        prop_assert_eq!(write(&read), text);
        prop_assert_eq!(read, lock);
    }

    #[test]
    fn a_damaged_lock_is_read_without_a_panic(cut in any::<prop::sample::Index>(), put in "[ -~\n]{0,3}") {
        let text = write(&example());
        let cut = cut.index(text.len());
        if text.is_char_boundary(cut) {
            let _ = parse("x.lock", &text[..cut]);
            let _ = parse("x.lock", &format!("{}{put}{}", &text[..cut], &text[cut..]));
        }
    }
}

#[test]
fn why_a_package_is_there() {
    let lock = example();
    let told = |name: &str| why::text(&why::why(&lock, name).unwrap(), false);
    assert_eq!(
        told("runc"),
        "runc 1.1.15+ds1-2 (amd64, from debian)\n  container: docker.io → runc\n  1 package depends on it: docker.io\n"
    );
    assert_eq!(
        told("libc6"),
        "libc6 2.41-12 (amd64, from debian)\n  \
         packages: openssh-server → libc6\n  \
         3 more packages that were asked for lead to it; 4 packages depend on it (`--verbose` lists them)\n\
         libc6 2.41-12 (i386, from debian)\n  \
         packages: wine32 → libc6\n  \
         1 package depends on it: wine32\n"
    );
    assert_eq!(
        why::text(&why::why(&lock, "libc6").unwrap(), true),
        "libc6 2.41-12 (amd64, from debian)\n  \
         packages: openssh-server → libc6\n  \
         container: docker.io → libc6\n  \
         container: nvidia-container-toolkit → libc6\n  \
         required: libc6\n  \
         4 packages depend on it: docker.io, nvidia-container-toolkit, openssh-server, runc\n\
         libc6 2.41-12 (i386, from debian)\n  \
         packages: wine32 → libc6\n  \
         1 package depends on it: wine32\n"
    );
    assert_eq!(why::why(&lock, "libc6:i386").unwrap().len(), 1);
    let json = why::json(&why::why(&lock, "runc").unwrap());
    assert_eq!(json["packages"][0]["chains"][0]["chain"], serde_json::json!(["docker.io", "runc"]));
    let error = why::why(&lock, "openssh-sever").unwrap_err();
    assert_eq!(error.message(), "no package `openssh-sever` is in the lock");
    assert_eq!(error.hints(), ["the lock has `openssh-server`"]);
    assert_eq!(why::why(&lock, "toolkit").unwrap_err().hints(), ["the lock has `nvidia-container-toolkit`"]);
    assert!(why::why(&lock, "zzz").unwrap_err().hints()[0].contains("no name in the lock is like it"));
    assert!(why::why(&Lock::default(), "x").unwrap_err().message().contains("no packages are locked"));
}

#[test]
fn staleness_of_packages_is_told_in_words() {
    let mut pinned = profile();
    pinned.host.pin_packages = true;
    let none = BTreeMap::new();
    let sources = BTreeMap::from([("keys/a.asc".to_owned(), b"key".to_vec())]);
    let inputs_of = |profile: &crate::profile::Profile| inputs("host.toml", profile, &none, &sources);
    let now = inputs_of(&pinned);
    assert!(now.contains_key(PACKAGES) && now.contains_key(TABLE_PAIRS));
    let lock = Lock { inputs: now.clone(), ..example() };
    let told = |lock: &Lock, inputs: &BTreeMap<String, Digest>| -> Vec<String> {
        let found = freshness(lock, inputs, &BTreeMap::new());
        found.reasons().iter().map(ToString::to_string).collect()
    };
    assert!(told(&lock, &now).is_empty());
    // What asks nothing else of the archives solves nothing anew.
    let asks = |change: &dyn Fn(&mut crate::profile::Profile)| {
        let mut profile = pinned.clone();
        change(&mut profile);
        inputs_of(&profile)[PACKAGES] != now[PACKAGES]
    };
    assert!(!asks(&|profile| profile.gpu = None));
    assert!(!asks(&|profile| profile.kernel.parameters.push("iommu=pt".to_owned())));
    assert!(!asks(&|profile| profile.driver.patches.push("x.patch".to_owned())));
    assert!(asks(&|profile| profile.host.packages.push("chrony".to_owned())));
    assert!(asks(&|profile| profile.driver.version = Some("550".to_owned())));
    assert!(asks(&|profile| profile.kernel.package = Some("linux-image-cloud-amd64".to_owned())));
    assert!(asks(&|profile| profile.host.backports = true));
    assert!(asks(&|profile| profile.host.snapshot = Some("20261121T091500Z".to_owned())));

    let mut more = pinned.clone();
    more.host.packages.push("chrony".to_owned());
    assert_eq!(
        told(&lock, &inputs_of(&more)),
        [
            "the packages that the profile asks for changed since they were locked",
            "`host.toml` changed since it was locked"
        ]
    );
    let unpinned = profile();
    assert_eq!(
        told(&lock, &inputs_of(&unpinned)),
        [
            "packages are locked, and the profile has `pin-packages = false`",
            "`host.toml` changed since it was locked"
        ]
    );
    let without = Lock { inputs: inputs_of(&unpinned), ..Lock::default() };
    assert_eq!(told(&without, &now), ["packages are not locked", "`host.toml` changed since it was locked"]);
    let emptied = Lock { packages: Vec::new(), ..lock };
    assert_eq!(told(&emptied, &now), ["packages are not locked"]);
}
