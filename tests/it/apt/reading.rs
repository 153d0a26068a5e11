//! Archives as they should be: every layout, form and signature, and what a second run asks for.

use bedplate::{apt::deb, digest::Digest};

use super::{
    archive::{Archive, Form, Release},
    fixtures::{BY, SIGNER, flat_release, ubuntu, vendor},
    keys::{Keys, Signing, day},
    library::{all, flat, noble, packages, read, read_warned},
    package::Package,
    server::{Fault, Server},
};
use crate::support::faulty::status;

/// A suite `noble` with one package of this version.
fn one(release: &Release<'_>, version: &str, keys: &Keys) -> Archive {
    let mut archive = Archive::default();
    archive.suite(release, &[("main", &[Package::new("one", version)])], keys);
    archive
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_release_file_and_index() {
    let keys = Keys::with(SIGNER);
    for form in [Form::Inline, Form::Apart] {
        for (compressions, asked) in
            [(&[".xz", ".gz"][..], ".xz"), (&[".gz"], ".gz"), (&["", ".gz"], ".gz"), (&[""], "")]
        {
            for by_hash in [true, false] {
                let release = Release { by_hash, compressions, form, ..Release::new("noble", BY) };
                let archive = one(&release, "1", &keys);
                let index = &archive.0[&format!("dists/noble/main/binary-amd64/Packages{asked}")];
                let by_digest =
                    format!("dists/noble/main/binary-amd64/by-hash/SHA256/{}", Digest::of(index).hex());
                let by_name = format!("dists/noble/main/binary-amd64/Packages{asked}");
                let server = Server::start(archive).await;
                let read = read(&noble(&server.url, &keys.armored(BY)), None).await.unwrap();
                assert_eq!(packages(&read), ["one 1"]);
                let suite = &read.seen["ubuntu"].suites["noble"];
                assert_eq!(suite.signed_by, [keys.fingerprint(SIGNER)]);
                assert_eq!(&suite.date[..10], &day(-1).to_string()[..10]);
                let mut requests = match form {
                    Form::Inline => vec!["GET dists/noble/InRelease 200".to_owned()],
                    _ => ["InRelease 404", "Release 200", "Release.gpg 200"]
                        .iter()
                        .map(|file| format!("GET dists/noble/{file}"))
                        .collect(),
                };
                requests.push(format!("GET {} 200", if by_hash { &by_digest } else { &by_name }));
                assert_eq!(server.seen(), requests);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_as_ubuntus() {
    let keys = Keys::with(SIGNER);
    let files = ubuntu(&keys);
    let server = Server::start(files.clone()).await;
    let archive = bedplate::apt::archive::Archive {
        suites: ["noble", "noble-updates", "noble-security"].map(str::to_owned).to_vec(),
        components: ["main", "restricted", "universe", "multiverse"].map(str::to_owned).to_vec(),
        ..noble(&server.url, &keys.binary(BY))
    };
    let read = read(&archive, None).await.unwrap();
    let names = packages(&read);
    for name in ["chrony 4.5-1ubuntu4", "docker.io 24.0.7-0ubuntu4.1", "openssh-server 1:9.6p1-3ubuntu13.5"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    let suites: Vec<&str> = read.seen["ubuntu"].suites.keys().map(String::as_str).collect();
    assert_eq!(suites, ["noble", "noble-security", "noble-updates"]);
    let mut paths: Vec<String> = read.catalog.iter().map(|(_, record)| record.path.to_owned()).collect();
    paths.sort();
    assert_eq!(paths, files.packages());
    // What the catalog says of a package is what lies at its path.
    for (_, record) in read.catalog.iter() {
        let bytes = &files.0[record.path];
        assert_eq!(record.sha256, Digest::of(bytes), "{}", record.path);
        assert_eq!(record.size, bytes.len() as u64);
        deb::inspect(bytes.as_slice(), &deb::Limits::default()).unwrap();
        assert_eq!(record.priority, 500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flat_repositories() {
    let keys = Keys::with(SIGNER);
    for (form, key) in [(Form::Inline, keys.armored(BY)), (Form::Apart, keys.binary(BY))] {
        let files = vendor(&Release { form, ..flat_release() }, &keys);
        let below =
            Archive(files.0.iter().map(|(path, bytes)| (format!("deb/{path}"), bytes.clone())).collect());
        for (files, suite) in [(files, "/"), (below, "deb/")] {
            let server = Server::start(files).await;
            let archive =
                bedplate::apt::archive::Archive { suites: vec![suite.to_owned()], ..flat(&server.url, &key) };
            let read = read(&archive, None).await.unwrap();
            assert_eq!(read.catalog.len(), 6);
            let (_, record) = read.catalog.iter().next().unwrap();
            assert_eq!((record.repository, record.suite), ("vendor", suite));
            // Below the base address, not below the release file: so apt takes it too.
            assert_eq!(record.path, "libvendor1_1.17.8-1_amd64.deb");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_this_machine() {
    let keys = Keys::with(SIGNER);
    let directory = tempfile::tempdir().unwrap();
    one(&Release::new("noble", BY), "1", &keys).write(directory.path());
    let url = format!("file://{}", directory.path().display());
    let read = read(&noble(&url, &keys.armored(BY)), None).await.unwrap();
    assert_eq!(packages(&read), ["one 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_signatures_and_several_keys() {
    let keys = Keys::with(SIGNER);
    keys.make("Second <second@example.org>");
    let by = [SIGNER, "Second <second@example.org>"];
    let server = Server::start(one(&Release::new("noble", &by), "1", &keys)).await;
    // One known key is enough; each good one is named.
    let read_with = |key: Vec<u8>| {
        let archive = noble(&server.url, &key);
        async move { read(&archive, None).await.unwrap().seen["ubuntu"].suites["noble"].signed_by.clone() }
    };
    assert_eq!(read_with(keys.armored(&by[1..])).await, [keys.fingerprint(by[1])]);
    let mut both = [keys.fingerprint(by[0]), keys.fingerprint(by[1])];
    both.sort();
    assert_eq!(read_with(keys.binary(&by)).await, both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_asks_for_the_release_file_alone() {
    let keys = Keys::with(SIGNER);
    let cache = tempfile::tempdir().unwrap();
    for form in [Form::Inline, Form::Apart] {
        let server = Server::start(one(&Release { form, ..Release::new("noble", BY) }, "1", &keys)).await;
        let archive = noble(&server.url, &keys.armored(BY));
        let first = read(&archive, Some(cache.path())).await.unwrap();
        server.seen();
        let second = read(&archive, Some(cache.path())).await.unwrap();
        assert_eq!(packages(&first), packages(&second));
        assert_eq!(first.seen, second.seen);
        let requests = match form {
            Form::Inline => vec!["GET dists/noble/InRelease 304"],
            _ => vec![
                "GET dists/noble/InRelease 404",
                "GET dists/noble/Release 304",
                "GET dists/noble/Release.gpg 304",
            ],
        };
        assert_eq!(server.seen(), requests);
        // The signature is verified again: another key does not get by with what was kept.
        let other = Keys::with("Other <other@example.org>");
        let archive = noble(&server.url, &other.armored(&["Other <other@example.org>"]));
        assert!(read(&archive, Some(cache.path())).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_fetched_and_what_is_broken_is_made_anew() {
    let keys = Keys::with(SIGNER);
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(one(&Release::new("noble", BY), "1", &keys)).await;
    let archive = noble(&server.url, &keys.armored(BY));
    read(&archive, Some(cache.path())).await.unwrap();
    let newer = one(&Release::new("noble", BY), "2", &keys);
    server.change(|archive| *archive = newer);
    assert_eq!(packages(&read(&archive, Some(cache.path())).await.unwrap()), ["one 2"]);
    let entries = || -> Vec<std::path::PathBuf> {
        std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    assert_eq!(entries().len(), 3, "two indices and a release file");
    for spoil in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| bytes[5] ^= 1,
        Vec::clear,
    ] {
        for path in entries() {
            let mut bytes = std::fs::read(&path).unwrap();
            spoil(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
        server.seen();
        assert_eq!(packages(&read(&archive, Some(cache.path())).await.unwrap()), ["one 2"]);
        assert_eq!(server.seen().len(), 2, "both are fetched anew");
        read(&archive, Some(cache.path())).await.unwrap();
        assert_eq!(server.seen(), ["GET dists/noble/InRelease 304"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_entries_are_removed_and_a_cache_that_cannot_be_written_only_warns() {
    let keys = Keys::with(SIGNER);
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(one(&Release::new("noble", BY), "1", &keys)).await;
    let archive = noble(&server.url, &keys.armored(BY));
    read(&archive, Some(cache.path())).await.unwrap();
    let old = cache.path().join(format!("{}.index", Digest::of("old").hex()));
    let other = cache.path().join("something else");
    let eight_days = std::time::SystemTime::now() - std::time::Duration::from_hours(8 * 24);
    for path in [&old, &other] {
        std::fs::write(path, "x").unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_modified(eight_days).unwrap();
    }
    read(&archive, Some(cache.path())).await.unwrap();
    assert!(!old.exists() && other.exists());

    let file = cache.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let (read, warned) = read_warned(&archive, Some(&file)).await;
    assert_eq!(packages(&read.unwrap()), ["one 1"]);
    assert!(warned[0].starts_with("indices are not kept for the next run"), "{warned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_one_after_the_other() {
    let keys = Keys::with(SIGNER);
    let files = one(&Release::new("noble", BY), "1", &keys);
    let good = Server::start(files.clone()).await;
    let empty = Server::start(Archive::default()).await;
    let behind = Server::start(one(&Release { day: -9, ..Release::new("noble", BY) }, "0", &keys)).await;
    let half = Server::start(files.without("Packages").without("by-hash")).await;
    let mut archive = noble(&good.url, &keys.armored(BY));
    archive.not_before.insert("noble".to_owned(), day(-5));
    for (first, said) in [
        ("http://127.0.0.1:9/archive".to_owned(), "refused the connection"),
        (empty.url.clone(), "does not have"),
        (behind.url.clone(), "the mirror is behind"),
    ] {
        archive.uris = vec![first.parse().unwrap(), good.url.parse().unwrap()];
        let (read, warned) = read_warned(&archive, None).await;
        assert_eq!(packages(&read.unwrap()), ["one 1"]);
        assert!(warned.len() == 1 && warned[0].contains(said), "{warned:?}");
    }
    // The release file from one, the index from the other: the digest says that they belong together.
    good.seen();
    archive.uris = vec![half.url.parse().unwrap(), good.url.parse().unwrap()];
    assert_eq!(packages(&read(&archive, None).await.unwrap()), ["one 1"]);
    assert_eq!(good.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_stumbles() {
    let keys = Keys::with(SIGNER);
    let files = one(&Release::new("noble", BY), "1", &keys);
    // Every other request is answered with 503.
    let fault: Fault = Box::new(|asked| (asked.before % 2 == 0).then(|| status(503, "")));
    let server = Server::faulty(files, fault).await;
    let (read, warned) = read_warned(&noble(&server.url, &keys.armored(BY)), None).await;
    assert_eq!(packages(&read.unwrap()), ["one 1"]);
    assert_eq!((server.seen().len(), warned.len()), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_valid_at_their_time() {
    let keys = Keys::with(SIGNER);
    let id = day(-25).strftime("%Y%m%dT%H%M%SZ").to_string();
    // It expired long ago, and the signature with it.
    let signing = Signing { day: -30, expires: Some(20), ..Signing::by(BY) };
    let then = Release { day: -30, valid_until: Some(-20), signing, ..Release::new("noble", BY) };
    let files = one(&then, "0.9", &keys);
    let server = Server::start(Archive::default()).await;
    let template = format!("{}/then/@SNAPSHOTID@/", server.url);
    let said = [("Snapshots", template.as_str())];
    let today = one(&Release { more: &said, ..Release::new("noble", BY) }, "1", &keys);
    server.change(|archive| {
        *archive = today;
        archive.0.extend(files.0.iter().map(|(path, bytes)| (format!("then/{id}/{path}"), bytes.clone())));
    });
    let mut archive = noble(&server.url, &keys.armored(BY));
    archive.snapshot = Some(id.clone());
    // As the release file of today says, or as the configuration says.
    for base in [server.url.clone(), template.clone()] {
        archive.uris = vec![base.parse().unwrap()];
        let read = read(&archive, None).await.unwrap();
        assert_eq!(packages(&read), ["one 0.9"]);
        assert_eq!(read.seen["ubuntu"].snapshot.as_deref(), Some(id.as_str()));
    }
    // Without one, an address of snapshots is not asked.
    archive.snapshot = None;
    archive.uris = vec![template.parse().unwrap(), server.url.parse().unwrap()];
    assert_eq!(packages(&read(&archive, None).await.unwrap()), ["one 1"]);

    let plain = Server::start(one(&Release::new("noble", BY), "1", &keys)).await;
    for (id, url, said) in [
        (id.as_str(), &plain.url, "does not say where its snapshots are"),
        ("20200101T000000Z", &server.url, "does not have"),
        ("yesterday", &server.url, "`yesterday` is no snapshot's time"),
    ] {
        archive.snapshot = Some(id.to_owned());
        archive.uris = vec![url.parse().unwrap()];
        let error = read(&archive, None).await.unwrap_err();
        assert!(all(&error).contains(said), "{}", all(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suite_that_is_not_automatic() {
    let keys = Keys::with(SIGNER);
    let fields = [("NotAutomatic", "yes"), ("ButAutomaticUpgrades", "yes")];
    for (more, priority) in [(&fields[..], 100), (&fields[..1], 1), (&[], 500)] {
        let server = Server::start(one(&Release { more, ..Release::new("noble", BY) }, "1", &keys)).await;
        let read = read(&noble(&server.url, &keys.armored(BY)), None).await.unwrap();
        assert_eq!(read.catalog.iter().next().unwrap().1.priority, priority);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_changes_between_two_requests() {
    let keys = Keys::with(SIGNER);
    let release = Release { by_hash: false, ..Release::new("noble", BY) };
    let (old, new) = (one(&release, "1", &keys), one(&release, "2", &keys));
    let server = Server::faulty(
        old,
        Box::new(move |asked| {
            // The release file was read; then the archive is updated.
            if asked.path.contains("Packages") {
                *asked.archive = new.clone();
            }
            None
        }),
    )
    .await;
    let read = read(&noble(&server.url, &keys.armored(BY)), None).await.unwrap();
    assert_eq!(packages(&read), ["one 2"]);
    let index = "GET dists/noble/main/binary-amd64/Packages.xz 200";
    assert_eq!(
        server.seen(),
        ["GET dists/noble/InRelease 200", index, "GET dists/noble/InRelease 200", index]
    );
}
