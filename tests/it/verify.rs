//! `build::verify` beside the machine's own dpkg: the same files of a root made by hand are at fault.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use bedplate::{
    build::verify::{Class, Outcome, verify},
    digest::Digest,
    lock::{Lock, LockedPackage},
    system::files::Root,
};

const A: &str = "0cc175b9c0f1b6a831c399e269772661"; // MD5 of `a` (RFC 1321, A.5)

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn the_same_files_are_at_fault_as_for_dpkg() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (path, content) in [
        ("var/lib/dpkg/info/format", "1\n".to_owned()),
        ("var/lib/dpkg/diversions", "/usr/bin/d\n/usr/bin/d.distrib\nother\n".to_owned()),
        (
            "var/lib/dpkg/info/p.list",
            "/.\n/usr\n/usr/bin\n/usr/bin/d\n/usr/bin/gone\n/usr/bin/good\n/usr/bin/wrong\n/etc\n/etc/p\n/etc/q\n"
                .to_owned(),
        ),
        (
            "var/lib/dpkg/info/p.md5sums",
            format!("{A}  usr/bin/d\n{A}  usr/bin/gone\n{A}  usr/bin/good\n{A}  usr/bin/wrong\n"),
        ),
        ("var/lib/dpkg/info/other.list", "/.\n/usr\n/usr/bin\n/usr/bin/d\n".to_owned()),
        ("var/lib/dpkg/info/other.md5sums", format!("{A}  usr/bin/d\n")),
        (
            "var/lib/dpkg/status",
            format!(
                "Package: p\nStatus: install ok installed\nMaintainer: P <p@example.org>\nArchitecture: all\nVersion: 1\n\
                 Conffiles:\n /etc/p {A}\n /etc/q {A}\nDescription: p\n\n\
                 Package: other\nStatus: install ok installed\nMaintainer: P <p@example.org>\nArchitecture: all\n\
                 Version: 1\nDescription: o\n"
            ),
        ),
        ("usr/bin/d", "a".to_owned()),
        ("usr/bin/d.distrib", "b".to_owned()),
        ("usr/bin/good", "a".to_owned()),
        ("usr/bin/wrong", "b".to_owned()),
        ("etc/p", "a".to_owned()),
        ("etc/q", "b".to_owned()),
    ] {
        put(root, path, &content);
    }
    let output = Command::new("dpkg").arg("--root").arg(root).arg("--verify").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // `??5?????? c /etc/q`, `missing     /usr/bin/gone`: columns, a letter for a configuration file, the path.
    let mut theirs: BTreeSet<(String, bool)> = text
        .lines()
        .map(|line| (line[line.find('/').unwrap()..].to_owned(), line.contains(" c /")))
        .collect();

    // dpkg keeps the digest under the path that is diverted, and does not compare the file that was.
    theirs.insert(("/usr/bin/d.distrib".to_owned(), false));

    let package = |name: &str| LockedPackage {
        repository: "debian".to_owned(),
        name: name.to_owned(),
        version: "1".to_owned(),
        architecture: "all".to_owned(),
        sha256: Digest::of(name),
        size: 1,
        path: format!("pool/{name}.deb"),
        depends: Vec::new(),
        wanted_by: Vec::new(),
    };
    let lock = Lock { packages: vec![package("other"), package("p")], ..Lock::default() };
    let report = verify(&Root::open(root).unwrap(), &lock, 2).unwrap();
    let ours: BTreeSet<(String, bool)> = report
        .findings
        .iter()
        .map(|finding| (finding.path.clone().unwrap(), finding.class == Class::Administrator))
        .collect();
    assert_eq!(ours, theirs, "{text}");
    assert_eq!(ours.len(), 4);
    assert_eq!(report.outcome, Outcome::Differs);
}
