//! The archives that tests start from, and that real dpkg and apt take them for what they stand for.

use std::process::Command;

use super::{
    archive::{Archive, Form, Release},
    keys::Keys,
    package::{Package, Packing},
    server::Server,
};

/// The name of the key that stands for a distribution's or a vendor's.
pub(crate) const SIGNER: &str = "Archive Signer <archive@example.org>";
/// The keys to sign with where nothing else is asked for.
pub(crate) const BY: &[&str] = &[SIGNER];

/// What every host of the pretended distribution has: the essential and required packages, and apt.
pub(crate) fn base() -> Vec<Package> {
    vec![
        Package::new("base-files", "13ubuntu10").field("Essential", "yes").field("Priority", "required"),
        Package::new("libc6", "2.39-0ubuntu8").field("Multi-Arch", "same").field("Priority", "optional"),
        Package::new("dash", "0.5.12-6ubuntu5")
            .field("Essential", "yes")
            .field("Priority", "required")
            .field("Pre-Depends", "libc6 (>= 2.38)"),
        Package::new("mawk", "1.3.4.20240123-1")
            .field("Priority", "required")
            .field("Provides", "awk")
            .field("Pre-Depends", "libc6 (>= 2.38)"),
        Package::new("apt", "2.7.14build2").field("Priority", "important").depends("libc6 (>= 2.38), awk"),
    ]
}

/// A container engine and what it needs.
pub(crate) fn engine(version: &str) -> Vec<Package> {
    vec![
        Package::new("docker.io", version)
            .depends("containerd (>= 1.2.6-0ubuntu1~), iptables, libc6 (>= 2.34)"),
        Package::new("containerd", "1.7.12-0ubuntu4").depends("runc (>= 1.0.0~rc2~), libc6"),
        Package::new("runc", "1.1.12-0ubuntu3").depends("libc6"),
        Package::new("iptables", "1.8.10-3ubuntu2").depends("libc6"),
    ]
}

/// An archive that stands for Ubuntu's: three suites, four components, packages packed with zstd.
pub(crate) fn ubuntu(keys: &Keys) -> Archive {
    let zstd = |packages: Vec<Package>| -> Vec<Package> {
        packages.into_iter().map(|package| package.packed(Packing::Zstd)).collect()
    };
    let mut main = base();
    main.push(
        Package::new("openssh-server", "1:9.6p1-3ubuntu13")
            .depends("libc6, openssh-client (= ${v})".replace("${v}", "1:9.6p1-3ubuntu13").as_str()),
    );
    main.push(Package::new("openssh-client", "1:9.6p1-3ubuntu13").depends("libc6"));
    let universe = vec![Package::new("chrony", "4.5-1ubuntu4").depends("libc6, awk")];
    let multiverse = vec![Package::new("fonts-free-not", "1.0").architecture("all")];
    let (main, universe, multiverse) = (zstd(main), zstd(universe), zstd(multiverse));
    let newer = zstd(engine("24.0.7-0ubuntu4.1"));
    let security = zstd(vec![
        Package::new("openssh-server", "1:9.6p1-3ubuntu13.5")
            .depends("libc6, openssh-client (= 1:9.6p1-3ubuntu13.5)"),
        Package::new("openssh-client", "1:9.6p1-3ubuntu13.5").depends("libc6"),
    ]);
    let engine = zstd(engine("24.0.7-0ubuntu4"));
    let mut archive = Archive::default();
    let mut suite = |name, components: &[(&str, &[Package])]| {
        let release = Release { codename: "noble", ..Release::new(name, BY) };
        archive.suite(&release, components, keys);
    };
    let main = [main, engine].concat();
    suite(
        "noble",
        &[("main", &main), ("restricted", &[]), ("universe", &universe), ("multiverse", &multiverse)],
    );
    suite("noble-updates", &[("main", &newer), ("restricted", &[]), ("universe", &[]), ("multiverse", &[])]);
    suite(
        "noble-security",
        &[("main", &security), ("restricted", &[]), ("universe", &[]), ("multiverse", &[])],
    );
    archive
}

/// A flat repository that stands for a vendor's.
pub(crate) fn vendor(release: &Release<'_>, keys: &Keys) -> Archive {
    let mut archive = Archive::default();
    archive.flat(release, &vendor_packages(), keys);
    archive
}

/// As a vendor's container toolkit: packages of one version that need each other.
pub(crate) fn vendor_packages() -> Vec<Package> {
    let toolkit = |version: &str| {
        vec![
            Package::new("vendor-toolkit", version)
                .depends(&format!("vendor-toolkit-base (= {version}), libvendor1 (>= {version})")),
            Package::new("vendor-toolkit-base", version),
            Package::new("libvendor1", version).depends("libc6 (>= 2.17)"),
        ]
    };
    [toolkit("1.17.8-1"), toolkit("1.18.0-1")].concat()
}

/// A flat repository's release file.
pub(crate) fn flat_release() -> Release<'static> {
    Release { valid_until: None, by_hash: false, ..Release::new("", BY) }
}

/// Runs the real apt in a root of its own with one source, `deb [signed-by] URI REST`: what it says to `update`
/// and then to installing `names` (addresses only). The exit code of the first that fails.
fn real_apt(source: &str, key: &[u8], names: &[&str]) -> (Option<i32>, String) {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for folder in [
        "etc/apt/preferences.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/lib/dpkg",
    ] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("var/lib/dpkg/status"), "").unwrap();
    std::fs::write(at("key.asc"), key).unwrap();
    let source = source.replacen("deb ", &format!("deb [signed-by={}] ", at("key.asc").display()), 1);
    std::fs::write(at("etc/apt/sources.list"), source + "\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("apt-get")
            .env("APT_CONFIG", "/dev/null")
            .args(["-qq", "-o", &format!("Dir={}", root.path().display())])
            .args(["-o", &format!("Dir::State::status={}", at("var/lib/dpkg/status").display())])
            .args([
                "-o",
                "APT::Architecture=amd64",
                "-o",
                "APT::Architectures=amd64",
                "-o",
                "APT::Sandbox::User=root",
            ])
            .args([
                "-o",
                "APT::Install-Recommends=false",
                "-o",
                "Acquire::Languages=none",
                "-o",
                "Acquire::Retries=0",
            ])
            .args(arguments)
            .output()
            .expect("apt-get is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let updated = run(&["update", "--error-on=any"]);
    if updated.0 != Some(0) || names.is_empty() {
        return updated;
    }
    run(&[&["install", "--print-uris"], names].concat())
}

#[test]
fn dpkg_reads_the_packages_made_here() {
    let directory = tempfile::tempdir().unwrap();
    for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd] {
        let mut package = Package::new("tiny", "1:2.0-3~a")
            .depends("libc6 (>= 2.0)")
            .script("postinst", "#!/bin/sh\nexit 0\n")
            .file("./usr/share/tiny/tiny.conf", "a = 1\n")
            .entry(b'2', "./usr/share/tiny/link", "../other", b"")
            .packed(packing);
        package.conffiles = vec!["/usr/share/tiny/tiny.conf".to_owned()];
        let path = directory.path().join(package.file_name());
        std::fs::write(&path, package.deb()).unwrap();
        let dpkg = |option: &str| {
            let output = Command::new("dpkg-deb").arg(option).arg(&path).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let fields = dpkg("--field");
        assert_eq!(fields.trim_end(), package.control());
        let listed = dpkg("--contents");
        assert!(listed.contains("./usr/share/tiny/link -> ../other"), "{listed}");
        let facts = bedplate::apt::deb::inspect(
            std::fs::read(&path).unwrap().as_slice(),
            &bedplate::apt::deb::Limits::default(),
        )
        .unwrap();
        assert_eq!(facts.control.trim_end(), package.control());
        assert_eq!(facts.conffiles, package.conffiles);
        assert_eq!(facts.files, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apt_reads_the_archives_made_here() {
    let keys = Keys::with(SIGNER);
    let key = keys.armored(BY);
    let noble = Server::start(ubuntu(&keys)).await;
    let source = format!("deb {} noble main restricted universe multiverse", noble.url);
    let (code, said) = real_apt(&source, &key, &["docker.io", "chrony"]);
    assert_eq!(code, Some(0), "{said}");
    for name in ["docker.io_24.0.7-0ubuntu4_amd64.deb", "runc_", "chrony_4.5", "libc6_", "mawk_"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    for form in [Form::Inline, Form::Apart] {
        let flat = Server::start(vendor(&Release { form, ..flat_release() }, &keys)).await;
        let (code, said) = real_apt(&format!("deb {} /", flat.url), &key, &["vendor-toolkit-base"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("vendor-toolkit-base_1.18.0-1_amd64.deb"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apt_refuses_what_the_tests_want_refused() {
    let keys = Keys::with(SIGNER);
    let (other, good) = (Keys::with("Other <other@example.org>"), keys.armored(BY));
    let other = other.armored(&["Other <other@example.org>"]);
    let flat = Server::start(vendor(&flat_release(), &keys)).await;
    let (code, said) = real_apt(&format!("deb {} /", flat.url), &other, &[]);
    assert_ne!(code, Some(0), "{said}");
    let unsigned = Server::start(vendor(&Release { form: Form::None, ..flat_release() }, &keys)).await;
    let (code, said) = real_apt(&format!("deb {} /", unsigned.url), &good, &[]);
    assert_ne!(code, Some(0), "{said}");
    flat.change(|archive| {
        let index = archive.0.get_mut("Packages.xz").unwrap();
        *index.last_mut().unwrap() ^= 1;
    });
    let (code, said) = real_apt(&format!("deb {} /", flat.url), &good, &[]);
    assert_ne!(code, Some(0), "{said}");
}
