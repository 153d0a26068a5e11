use super::*;
use crate::{
    lock::{LockedRepository, LockedSuite},
    profile,
    ui::{Format, Ui},
};

/// A context of a directory with this configuration file and these sources.
fn context(directory: &Path, config: &str, sources: &str) -> Context {
    let write =
        |path: &str, text: &str| files::write_output(&directory.join(path), text.as_bytes(), 0o644).unwrap();
    files::make_dir(&directory.join("apt")).unwrap();
    write("apt/sources.list", sources);
    let apt = directory.join("apt").display().to_string();
    write("config.toml", &format!("apt-directory = {apt:?}\n{config}"));
    let path = directory.join("config.toml").display().to_string();
    let env = BTreeMap::from([("BEDPLATE_CONFIG".to_owned(), path)]);
    let ui = Ui { format: Format::Text, quiet: true, verbose: 0, remote: false };
    Context::new(ui, env, directory.to_owned(), Some(directory.join("store"))).unwrap()
}

fn profile(distribution: &str, more: &str) -> Profile {
    let text = format!(
        "schema = 1\n[host]\n{distribution}\n{more}\n[driver]\nflavor = \"none\"\n[container]\ngpu-access = \"none\"\n"
    );
    profile::parse("p.toml", &text).unwrap()
}

const TRIXIE: &str = "distribution = \"debian\"\nrelease = \"trixie\"";
const NOBLE: &str = "distribution = \"ubuntu\"\nrelease = \"noble\"";
const VENDOR: &str = "[[host.repository]]\nname = \"vendor\"\nuri = \"https://v.example/deb\"\nsuites = [\"/\"]\nkeyring = \"v.asc\"\n";

fn shown(places: &BTreeMap<String, Vec<Url>>, name: &str) -> String {
    places[name].iter().map(Url::as_str).collect::<Vec<_>>().join(" ")
}

#[test]
fn places_in_the_order_they_are_asked() {
    let directory = tempfile::tempdir().unwrap();
    let apt = "deb http://apt.example/debian bookworm main\ndeb http://apt.example/debian-security bookworm-security main\n";
    let config = "[archive.debian]\nmirrors = [\"http://c.example/debian/\"]\nsnapshot = \"http://s.example/debian/@SNAPSHOTID@\"\n\
                  [archive.vendor]\nmirrors = [\"file:///srv/vendor\"]\n";
    let context = context(directory.path(), config, apt);
    let places = |more: &str, mirror| places(&context, &profile(TRIXIE, more), mirror).unwrap();
    let plain = places(VENDOR, Some("http://m.example/debian"));
    assert_eq!(
        shown(&plain, "debian"),
        "http://m.example/debian http://c.example/debian/ http://apt.example/debian"
    );
    assert_eq!(
        shown(&plain, "debian-security"),
        "http://m.example/debian-security http://c.example/debian-security http://apt.example/debian-security"
    );
    assert_eq!(shown(&plain, "vendor"), "file:///srv/vendor https://v.example/deb");
    let then = places("snapshot = \"20261121T091500Z\"", None);
    assert!(shown(&then, "debian").starts_with("http://s.example/debian/20261121T091500Z http://c.example"));
    assert!(super::places(&context, &profile(TRIXIE, ""), Some("m.example/debian")).is_err());
}

#[test]
fn ubuntu_has_its_security_updates_in_the_same_archive() {
    let directory = tempfile::tempdir().unwrap();
    let context = context(directory.path(), "", "");
    let places = |mirror| places(&context, &profile(NOBLE, ""), mirror).unwrap();
    assert_eq!(shown(&places(Some("http://m.example/u")), "ubuntu-security"), "http://m.example/u");
    assert_eq!(shown(&places(None), "ubuntu"), "");
}

#[test]
fn archives_of_a_profile() {
    let directory = tempfile::tempdir().unwrap();
    files::write_output(&directory.path().join("ring.asc"), b"key", 0o644).unwrap();
    let context = context(directory.path(), "[archive.debian]\nkeyring = \"ring.asc\"\n", "");
    let profile = profile(TRIXIE, &format!("backports = true\nsnapshot = \"20261121T091500Z\"\n{VENDOR}"));
    let keyrings = BTreeMap::from([("v.asc".to_owned(), b"vendor's".to_vec())]);
    let mut old = Lock::default();
    let locked = LockedSuite {
        release: crate::digest::Digest::of("x"),
        date: "2026-11-20T08:00:00Z".to_owned(),
        signed_by: Vec::new(),
    };
    let suites = BTreeMap::from([("trixie".to_owned(), locked)]);
    old.repositories.insert("debian".to_owned(), LockedRepository { snapshot: None, suites });
    let made = archives(&context, &profile, &keyrings, Some("http://m.example/debian"), Some(&old)).unwrap();
    let suites: Vec<String> =
        made.iter().map(|archive| format!("{}: {}", archive.name, archive.suites.join(" "))).collect();
    assert_eq!(
        suites,
        ["debian: trixie trixie-updates trixie-backports", "debian-security: trixie-security", "vendor: /"]
    );
    assert_eq!(made[0].keyring.bytes, b"key");
    assert_eq!(made[1].keyring.bytes, b"key");
    assert_eq!(made[2].keyring.bytes, b"vendor's");
    assert_eq!(made[0].not_before["trixie"], "2026-11-20T08:00:00Z".parse().unwrap());
    assert_eq!(made[0].snapshot.as_deref(), Some("20261121T091500Z"));
    assert_eq!(made[2].snapshot, None);

    let none = archives(&context, &profile, &keyrings, None, None).unwrap_err();
    assert!(none.message().starts_with("no mirror of the archive `debian` is known"), "{none}");
    assert!(none.hints()[0].contains("--mirror URL"), "{:?}", none.hints());
}

#[test]
fn what_is_wrong_in_the_configuration() {
    for (config, said) in [
        (
            "[archive.debian]\nmirrors = [\"m.example/debian\"]\n",
            "`mirrors` of `[archive.debian]` is no address",
        ),
        ("[archive.debian]\nsnapshot = \"http://s.example/\"\n", "has no `@SNAPSHOTID@` in it"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let context = context(directory.path(), config, "");
        let error = places(&context, &profile(TRIXIE, ""), None).unwrap_err();
        assert!(error.message().contains(said), "{error}");
    }
}
