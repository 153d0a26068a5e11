use md5::{Digest as _, Md5};
use proptest::prelude::*;

use super::*;
use crate::{lock::LockedPackage, system::files::Owner};

fn md5(content: &str) -> String {
    hex::encode(Md5::digest(content))
}

/// A root with a dpkg database, made by hand.
struct Made {
    dir: tempfile::TempDir,
    root: Root,
    status: String,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.make_dir("/var/lib/dpkg/info", 0o755, Owner::current()).unwrap();
        root.make_dir("/var/lib/dpkg/updates", 0o755, Owner::current()).unwrap();
        Self { dir, root, status: String::new() }
    }

    fn file(&self, path: &str, content: &str) {
        let above = path.rsplit_once('/').unwrap().0;
        if !above.is_empty() {
            self.root.make_dir(above, 0o755, Owner::current()).unwrap();
        }
        self.root.write(path, content.as_bytes(), 0o644, Owner::current()).unwrap();
    }

    /// A package with these files; those below `/etc` are configuration files.
    fn package(&mut self, name: &str, state: &str, files: &[(&str, &str)]) {
        let (mut list, mut sums, mut conffiles) = ("/.\n".to_owned(), String::new(), String::new());
        for (path, content) in files {
            self.file(path, content);
            let above = path.rsplit_once('/').unwrap().0;
            list.push_str(&format!("{above}\n{path}\n"));
            if path.starts_with("/etc/") {
                conffiles.push_str(&format!(" {path} {}\n", md5(content)));
            } else {
                sums.push_str(&format!("{}  {}\n", md5(content), &path[1..]));
            }
        }
        self.file(&format!("/var/lib/dpkg/info/{name}.list"), &list);
        self.file(&format!("/var/lib/dpkg/info/{name}.md5sums"), &sums);
        let conffiles = if conffiles.is_empty() { String::new() } else { format!("Conffiles:\n{conffiles}") };
        self.status.push_str(&format!(
            "Package: {name}\nStatus: install ok {state}\nArchitecture: amd64\nVersion: 1-1\n{conffiles}\n"
        ));
    }

    fn report(&self, lock: &Lock) -> Report {
        self.file("/var/lib/dpkg/status", &self.status);
        verify(&self.root, lock, 3).unwrap()
    }

    fn lines(&self, lock: &Lock) -> Vec<String> {
        self.report(lock).findings.iter().map(line).collect()
    }
}

fn line(finding: &Finding) -> String {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let what = serde_json::to_value(finding.what).unwrap();
    format!(
        "{} {} {} {} {}",
        what.as_str().unwrap(),
        or(&finding.package),
        or(&finding.path),
        or(&finding.expected),
        or(&finding.found)
    )
}

fn lock(packages: &[(&str, &str)]) -> Lock {
    let packages = packages.iter().map(|(name, version)| LockedPackage {
        repository: "debian".to_owned(),
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        architecture: "amd64".to_owned(),
        sha256: Digest::of(name),
        size: 1,
        path: format!("pool/{name}.deb"),
        depends: Vec::new(),
        wanted_by: Vec::new(),
    });
    Lock { packages: packages.collect(), ..Lock::default() }
}

fn two() -> Made {
    let mut made = Made::new();
    made.package("one", "installed", &[("/usr/bin/one", "1"), ("/usr/share/one", "data"), ("/etc/one", "c")]);
    made.package("two", "installed", &[("/usr/bin/two", "2")]);
    made
}

fn of_two() -> Lock {
    lock(&[("one", "1-1"), ("two", "1-1")])
}

#[test]
fn a_root_that_is_what_the_lock_says() {
    let made = two();
    let report = made.report(&of_two());
    assert_eq!(report.findings, []);
    assert_eq!(report.outcome, Outcome::Same);
    let counts = Counts { locked: 2, installed: 2, files: 4, ..Counts::default() };
    assert_eq!(report.counts, counts);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["outcome"], &json["counts"]["files"]), (&"same".into(), &4.into()));
    assert!(json["unseen"][0].as_str().unwrap().contains("owners"), "{json}");
}

#[test]
fn packages_that_differ() {
    let mut made = two();
    made.package("half", "half-configured", &[("/usr/bin/half", "h")]);
    made.package("more", "installed", &[("/usr/bin/more", "m")]);
    made.package("gone", "config-files", &[]);
    let lock = lock(&[("gone", "1-1"), ("half", "1-1"), ("one", "1-2"), ("other", "3"), ("two", "1-1")]);
    assert_eq!(
        made.lines(&lock),
        [
            "absent gone:amd64 - 1-1 -",
            "not-configured half:amd64 - - half-configured",
            "not-locked more:amd64 - - 1-1",
            "other-version one:amd64 - 1-2 1-1",
            "absent other:amd64 - 3 -",
        ]
    );
    let report = made.report(&lock);
    assert_eq!((report.outcome, report.counts.differences), (Outcome::Differs, 5));
    made.status = made.status.replace("install ok installed", "install reinstreq installed");
    assert!(made.lines(&lock).contains(&"not-configured two:amd64 - - reinstreq".to_owned()));
    made.file("/var/lib/dpkg/updates/0001", "");
    assert_eq!(made.lines(&lock)[0], "interrupted - - - /var/lib/dpkg/updates");
}

#[test]
fn files_that_differ_and_are_mended() {
    let made = two();
    made.file("/usr/bin/one", "X");
    made.root.remove_file("/usr/bin/two").unwrap();
    made.root.remove_file("/usr/share/one").unwrap();
    made.root.symlink("one", "/usr/share/one").unwrap();
    let (one, x) = (md5("1"), md5("X"));
    assert_eq!(
        made.lines(&of_two()),
        [
            format!("content one:amd64 /usr/bin/one {one} {x}"),
            "not-a-file one:amd64 /usr/share/one - a symbolic link".to_owned(),
            "missing two:amd64 /usr/bin/two - -".to_owned(),
        ]
    );
    made.root.remove_file("/usr/share/one").unwrap();
    for (path, content) in [("/usr/bin/one", "1"), ("/usr/bin/two", "2"), ("/usr/share/one", "data")] {
        made.file(path, content);
    }
    assert_eq!(made.report(&of_two()).outcome, Outcome::Same);
}

#[test]
fn configuration_is_the_administrators() {
    let made = two();
    made.file("/etc/one", "changed");
    let report = made.report(&of_two());
    assert_eq!(report.outcome, Outcome::Same);
    assert_eq!((report.counts.administrator, report.counts.differences), (1, 0));
    let (c, changed) = (md5("c"), md5("changed"));
    assert_eq!(made.lines(&of_two()), [format!("conffile one:amd64 /etc/one {c} {changed}")]);
    made.root.remove_file("/etc/one").unwrap();
    assert_eq!(made.lines(&of_two()), ["conffile-missing one:amd64 /etc/one - -"]);
}

#[test]
fn what_is_not_known_is_never_the_same() {
    let info = "/var/lib/dpkg/info";
    let made = two();
    made.root.remove_file(&format!("{info}/two.md5sums")).unwrap();
    let report = made.report(&of_two());
    assert_eq!((report.outcome, report.counts.unverifiable), (Outcome::Unverifiable, 2));
    assert_eq!(
        made.lines(&of_two()),
        ["no-digests two:amd64 - - -", "no-digest two:amd64 /usr/bin/two - one file"]
    );

    let made = two();
    made.file(&format!("{info}/one.md5sums"), &format!("{}  usr/bin/one\nnonsense\n", md5("1")));
    assert_eq!(
        made.lines(&of_two()),
        [
            "no-digest one:amd64 /usr/share/one - one file".to_owned(),
            format!("unreadable one:amd64 {info}/one.md5sums - line 2 has no digest and path"),
        ]
    );

    let made = two();
    made.root.remove_file(&format!("{info}/two.list")).unwrap();
    assert_eq!(made.lines(&of_two()), ["no-digests two:amd64 - - -"]);

    let made = two();
    made.root.rename("/usr/share", "/usr/elsewhere").unwrap();
    made.root.symlink("elsewhere", "/usr/share").unwrap();
    let lines = made.lines(&of_two());
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("unreadable one:amd64 /usr/share/one - ") && lines[0].contains("link"),
        "{lines:?}"
    );

    let mut made = two();
    made.status = made.status.replace(&md5("c"), "newconffile");
    assert_eq!(made.lines(&of_two()), ["no-digest one:amd64 /etc/one - one file"]);
}

#[test]
fn diverted_files_are_looked_for_where_they_are() {
    let mut made = two();
    made.package("three", "installed", &[]);
    made.file("/var/lib/dpkg/diversions", "/usr/bin/one\n/usr/bin/one.distrib\nthree\n");
    made.root.rename("/usr/bin/one", "/usr/bin/one.distrib").unwrap();
    let lock = lock(&[("one", "1-1"), ("three", "1-1"), ("two", "1-1")]);
    assert_eq!(made.lines(&lock), [""; 0]);
    made.file("/usr/bin/one.distrib", "X");
    assert_eq!(
        made.lines(&lock),
        [format!("content one:amd64 /usr/bin/one.distrib {} {}", md5("1"), md5("X"))]
    );
}

#[test]
fn packages_of_two_architectures_have_their_own_lists() {
    let mut made = two();
    made.package("two:i386", "installed", &[("/usr/lib/two", "i")]);
    made.status = made.status.replace(
        "Package: two:i386\nStatus: install ok installed\nArchitecture: amd64",
        "Package: two\nStatus: install ok installed\nArchitecture: i386",
    );
    made.file("/usr/lib/two", "j");
    let mut lock = of_two();
    lock.packages.push(LockedPackage { architecture: "i386".to_owned(), ..lock.packages[1].clone() });
    let lines = made.lines(&lock);
    assert_eq!(lines, [format!("content two:i386 /usr/lib/two {} {}", md5("i"), md5("j"))]);
}

#[test]
fn what_cannot_be_verified_at_all_is_an_error() {
    let made = two();
    let message = |lock: &Lock| verify(&made.root, lock, 1).unwrap_err().message().to_owned();
    assert!(message(&of_two()).ends_with("has no dpkg database"));
    assert!(message(&Lock::default()).contains("no packages are locked"));
    made.file("/var/lib/dpkg/status", "Package: one\nStatus: nonsense\n");
    assert!(message(&of_two()).contains("line 2"));
    assert!(made.dir.path().exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn hostile_lists_are_findings(list in "([./]{0,3}[a-z\0 ]{0,3}\n){0,6}", sums in "([a-f0-9 ]{0,33} {0,2}[./a-z]{0,4}\n){0,6}") {
        let made = two();
        made.file("/var/lib/dpkg/info/two.list", &list);
        made.file("/var/lib/dpkg/info/two.md5sums", &sums);
        made.file("/var/lib/dpkg/status", &made.status);
        let report = verify(&made.root, &of_two(), 2).unwrap();
        prop_assert!(report.findings.iter().all(|finding| finding.package.as_deref() == Some("two:amd64")));
    }
}
