//! The machine's real Debian archive as it is read here, against what apt fetched of it.

use std::{collections::BTreeMap, fs, path::Path};

use bedplate::{
    apt::{
        Catalog,
        archive::{self, Access, Archive, KeyringFile},
        sources,
        transport::{Settings, Transport},
    },
    progress::Silent,
};

use super::{Apt, COMPONENTS};

fn rows(catalog: &Catalog) -> Vec<String> {
    let mut rows: Vec<String> = catalog
        .iter()
        .map(|(_, r)| {
            format!("{} {} {} {} {} {}", r.suite, r.name, r.version, r.architecture, r.path, r.sha256)
        })
        .collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_what_apt_reads() {
    let release = "trixie";
    let apt = Apt::of(release, &["amd64"]);
    let bases = sources::bases(&sources::read(Path::new("/etc/apt")).unwrap(), "debian");
    let shown = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let archive = |name: &str, uris, suites: &[&str]| Archive {
        name: name.to_owned(),
        uris,
        suites: suites.iter().map(|end| format!("{release}{end}")).collect(),
        components: COMPONENTS.split(' ').map(str::to_owned).collect(),
        keyring: KeyringFile { shown: shown.to_owned(), bytes: fs::read(shown).unwrap() },
        snapshot: None,
        not_before: BTreeMap::new(),
    };
    let archives = [
        archive("debian", bases.main, &["", "-updates"]),
        archive("debian-security", bases.security, &["-security"]),
    ];
    let transport = Transport::new(Settings::default());
    let cache = tempfile::tempdir().unwrap();
    let access = Access {
        transport: &transport,
        cache: Some(cache.path()),
        architectures: &["amd64".to_owned()],
        now: jiff::Timestamp::now(),
    };
    let cold = archive::read(&archives, &access, &Silent).await.unwrap();
    let hot = archive::read(&archives, &access, &Silent).await.unwrap();
    let (ours, theirs) = (rows(&cold.catalog), rows(&apt.catalog()));
    assert!(ours.len() > 60_000, "{}", ours.len());
    let differing: Vec<(&String, &String)> =
        ours.iter().zip(&theirs).filter(|(one, other)| one != other).take(3).collect();
    assert!(ours.len() == theirs.len() && differing.is_empty(), "{differing:?}");
    assert_eq!(ours, rows(&hot.catalog));
    assert_eq!(cold.seen, hot.seen);
}
