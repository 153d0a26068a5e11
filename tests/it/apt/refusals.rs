//! Archives that are not as they should be: each is refused, with its own message.

use axum::{body::Body, http::Response};
use bedplate::{apt::archive, error::Error};
use jiff::Timestamp;

use super::{
    archive::{Archive, Form, Release},
    fixtures::{BY, SIGNER},
    keys::{Keys, Signing},
    library::{all, flat, noble, packages, read, read_noted},
    package::{Package, xz},
    server::{Fault, Server},
};
use crate::support::faulty::{silent, stalls, status, with};

const INDEX: &str = "dists/noble/main/binary-amd64/Packages";

/// A suite `noble` of these packages.
fn made(release: &Release<'_>, packages: &[Package], keys: &Keys) -> Archive {
    let mut archive = Archive::default();
    archive.suite(release, &[("main", packages)], keys);
    archive
}

fn one() -> Vec<Package> {
    vec![Package::new("one", "1")]
}

/// One whose index is asked for by name.
fn by_name() -> Release<'static> {
    Release { by_hash: false, compressions: &[".xz"], ..Release::new("noble", BY) }
}

async fn refused(files: Archive, key: &[u8]) -> Error {
    let server = Server::start(files).await;
    read(&noble(&server.url, key), None).await.unwrap_err()
}

/// The error says each of these, and names archive and suite.
fn holds(error: &Error, said: &[&str]) {
    let text = all(error);
    assert!(text.contains("`ubuntu`") && text.contains("`noble`"), "names archive and suite:\n{text}");
    assert!(text.contains("hint: "), "says what to do:\n{text}");
    for said in said {
        assert!(text.contains(said), "no {said:?} in:\n{text}");
    }
}

/// An archive whose release file was rewritten before it was signed.
fn rewritten(release: &Release<'_>, keys: &Keys, rewrite: impl Fn(String) -> String) -> Archive {
    let plain = Release { form: Form::None, ..release.clone() };
    let mut archive = made(&plain, &one(), keys);
    let text = String::from_utf8(archive.0.remove("dists/noble/Release").unwrap()).unwrap();
    let new = rewrite(text.clone());
    assert_ne!(text, new);
    archive.sign("dists/noble", &new, release, keys);
    archive
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures() {
    let keys = Keys::with(SIGNER);
    let (other, old) = ("Other <other@example.org>", "Old <old@example.org>");
    keys.make(other);
    keys.make_as(old, "ed25519", -100, "10d");
    let by_old = [old];
    let key = keys.armored(BY);
    let fingerprint = keys.fingerprint(SIGNER);
    for form in [Form::Inline, Form::Apart] {
        let release = Release { form, ..Release::new("noble", BY) };
        let file = if form == Form::Inline { "dists/noble/InRelease" } else { "dists/noble/Release" };

        let error = refused(made(&release, &one(), &keys), &keys.armored(&[other])).await;
        holds(&error, &[&fingerprint, "which is not in the keyring `archive.gpg`"]);

        let mut changed = made(&release, &one(), &keys);
        changed.edit(file, "Label: Test", "Label: Tent");
        holds(&refused(changed, &key).await, &["is bad: the content is not what was signed"]);

        let signing = Signing { day: -95, ..Signing::by(&by_old) };
        let error =
            refused(made(&Release { signing, ..release.clone() }, &one(), &keys), &keys.armored(&[old]))
                .await;
        holds(&error, &[&keys.fingerprint(old), "which expired at"]);

        let signing = Signing { day: -10, expires: Some(5), ..Signing::by(BY) };
        let error = refused(made(&Release { signing, ..release.clone() }, &one(), &keys), &key).await;
        holds(&error, &["the signature of", "expired at"]);

        let signing = Signing { day: 3, ..Signing::by(BY) };
        let error = refused(made(&Release { signing, ..release.clone() }, &one(), &keys), &key).await;
        holds(&error, &["which is in the future: the clock says", "timedatectl"]);
    }
    let error =
        refused(made(&Release { form: Form::None, ..Release::new("noble", BY) }, &one(), &keys), &key).await;
    holds(&error, &["is not signed"]);
    let mut bare = made(&Release::new("noble", BY), &one(), &keys);
    bare.0.insert("dists/noble/InRelease".to_owned(), b"Suite: noble\n".to_vec());
    holds(&refused(bare, &key).await, &["is not signed"]);

    let signed = made(&Release::new("noble", BY), &one(), &keys);
    keys.revoke(SIGNER);
    holds(&refused(signed, &keys.armored(BY)).await, &[&fingerprint, "which was revoked by its owner"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_signature_is_not_passed_over_for_another_mirror() {
    let keys = Keys::with(SIGNER);
    let mut changed = made(&by_name(), &one(), &keys);
    changed.edit("dists/noble/InRelease", "Label: Test", "Label: Tent");
    let (bad, good) = (Server::start(changed).await, Server::start(made(&by_name(), &one(), &keys)).await);
    let mut archive = noble(&bad.url, &keys.armored(BY));
    archive.uris.push(good.url.parse().unwrap());
    let error = read(&archive, None).await.unwrap_err();
    holds(&error, &["is bad", &format!("from `{}`", bad.url)]);
    assert!(good.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn keyrings_that_are_none() {
    let keys = Keys::with(SIGNER);
    let server = Server::start(made(&by_name(), &one(), &keys)).await;
    for bytes in [&b""[..], b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nzzzz\n-----END"] {
        let error = read(&noble(&server.url, bytes), None).await.unwrap_err();
        assert!(all(&error).contains("`archive.gpg` holds no OpenPGP certificate"), "{}", all(&error));
    }
    assert!(server.seen().is_empty(), "nothing is asked for without a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_and_names() {
    let keys = Keys::with(SIGNER);
    let key = keys.armored(BY);
    let release = Release::new("noble", BY);
    for (release, said) in [
        (Release { day: -10, valid_until: Some(-3), ..release.clone() }, "expired: it was valid until"),
        (Release { day: 2, ..release.clone() }, "is from the future: it was made at"),
    ] {
        holds(&refused(made(&release, &one(), &keys), &key).await, &[said]);
    }
    let mut archive = Archive::default();
    archive.suite(&Release::new("jammy", BY), &[("main", &one())], &keys);
    let renamed =
        archive.0.into_iter().map(|(path, bytes)| (path.replace("jammy", "noble"), bytes)).collect();
    holds(&refused(Archive(renamed), &key).await, &["is of another suite: it says `jammy`", "not `noble`"]);

    let server = Server::start(made(&release, &one(), &keys)).await;
    let mut archive = noble(&server.url, &key);
    archive.not_before.insert("noble".to_owned(), Timestamp::now());
    let error = read(&archive, None).await.unwrap_err();
    holds(&error, &["the mirror is behind", "was verified before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_file_does_not_have() {
    let keys = Keys::with(SIGNER);
    let key = keys.armored(BY);
    let release = Release::new("noble", BY);
    for (hashes, said) in [
        (
            &["MD5Sum", "SHA1"][..],
            "gives only weak hashes (MD5, SHA-1) for its index `main/binary-amd64/Packages`",
        ),
        (&[], "lists no index with its SHA-256"),
    ] {
        holds(&refused(made(&Release { hashes, ..release.clone() }, &one(), &keys), &key).await, &[said]);
    }
    let moved = rewritten(&release, &keys, |text| text.replace("main/binary-amd64/", "main/binary-mips/"));
    holds(&refused(moved, &key).await, &["lists no index `main/binary-amd64/Packages`"]);
    let arm =
        rewritten(&release, &keys, |text| text.replace("Architectures: amd64", "Architectures: arm64 all"));
    holds(&refused(arm, &key).await, &["has no packages for `amd64`: it has `arm64`, `all`"]);
    let undated = rewritten(&release, &keys, |text| text.replace("\nDate:", "\nDated:"));
    holds(&refused(undated, &key).await, &["is broken: it has no `Date`"]);

    let server = Server::start(made(&release, &one(), &keys)).await;
    let mut archive = noble(&server.url, &key);
    archive.components.push("universe".to_owned());
    holds(&read(&archive, None).await.unwrap_err(), &["has no component `universe`: it has `main`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn indices_that_are_not_as_listed() {
    let keys = Keys::with(SIGNER);
    let key = keys.armored(BY);
    let good = made(&by_name(), &one(), &keys);
    let index = format!("{INDEX}.xz");

    let mut other = good.clone();
    *other.0.get_mut(&index).unwrap().last_mut().unwrap() ^= 1;
    holds(&refused(other, &key).await, &["is not what its release file says: its digest is `sha256:"]);

    let mut short = good.clone();
    let bytes = short.0.get_mut(&index).unwrap();
    bytes.truncate(bytes.len() - 10);
    holds(&refused(short, &key).await, &["is cut short: it has", "bytes its release file says"]);

    let gone = good.clone().without("Packages");
    let error = refused(gone, &key).await;
    holds(&error, &["is listed in its release file, and no mirror has it", "answers 404"]);

    // What the release file says of an index is believed of its size too.
    let plain = good.0[&index].len();
    let huge =
        rewritten(&by_name(), &keys, |text| text.replace(&format!(" {plain} main"), " 999999999999 main"));
    holds(&refused(huge, &key).await, &["is too large: 999999999999 bytes by its release file"]);

    // Packs more than it says: a bomb.
    let text = vec![b' '; 8 << 20];
    let bomb = xz(&text);
    let digest = bedplate::digest::Digest::of(&bomb).hex();
    let before = bedplate::digest::Digest::of(&good.0[&index]).hex();
    let mut bombed = rewritten(&by_name(), &keys, |release| {
        release.replace(&format!("{before} {plain} "), &format!("{digest} {} ", bomb.len()))
    });
    bombed.0.insert(index.clone(), bomb);
    holds(&refused(bombed, &key).await, &["unpacks to more than the", "bytes it may have"]);

    // A good digest of something that is not packed at all.
    let page = b"<html>log in first</html>".to_vec();
    let digest = bedplate::digest::Digest::of(&page).hex();
    let mut paged = rewritten(&by_name(), &keys, |release| {
        release.replace(&format!("{before} {plain} "), &format!("{digest} {} ", page.len()))
    });
    paged.0.insert(index, page);
    holds(&refused(paged, &key).await, &["does not unpack"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn indices_that_are_broken() {
    let keys = Keys::with(SIGNER);
    let key = keys.armored(BY);
    for (packages, said) in [
        (
            vec![Package::new("two", "1"), Package::new("two", "1").file("./usr/share/two/more", "x")],
            &["has `two` 1 amd64 twice with different content"][..],
        ),
        (vec![Package::new("two", "1_0")], &["the index of `ubuntu` `noble`", "has the bad `Version` `1_0`"]),
        (
            vec![Package::new("two", "1").lie("SHA256", None)],
            &["has only weak hashes (MD5, SHA-1), and no `SHA256`"],
        ),
        (
            vec![Package::new("two", "1").lie("Filename", Some("../../etc/passwd"))],
            &["that leads out of the archive"],
        ),
        (vec![Package::new("two", "1").lie("Size", Some("many"))], &["has a `Size` that is no number"]),
        (vec![Package::new("two", "1").lie("Version", Some("2"))], &["has the field `Version` twice"]),
    ] {
        holds(&refused(made(&by_name(), &packages, &keys), &key).await, said);
    }
}

/// Each time the release file was read, the index is of the next version.
fn changing() -> (Archive, Fault, Keys) {
    let keys = Keys::with(SIGNER);
    let of = |version: usize| made(&by_name(), &[Package::new("one", &version.to_string())], &keys);
    let versions: Vec<Archive> = (0..4).map(of).collect();
    let first = versions[0].clone();
    let mut now = 0;
    let fault: Fault = Box::new(move |asked| {
        if asked.path.ends_with("InRelease") {
            let release = versions[now].0[asked.path].clone();
            now += 1;
            *asked.archive = versions[now].clone();
            return Some(Response::new(Body::from(release)));
        }
        None
    });
    (first, fault, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_never_stands_still() {
    let (archive, fault, keys) = changing();
    let server = Server::faulty(archive, fault).await;
    let error = read(&noble(&server.url, &keys.armored(BY)), None).await.unwrap_err();
    holds(&error, &["changes while it is read", "is not what its release file says"]);
    let asked = server.seen().iter().filter(|line| line.contains("InRelease")).count();
    assert_eq!(asked, 2, "the release file is read once more, and not again");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects() {
    let keys = Keys::with(SIGNER);
    let files = made(&by_name(), &one(), &keys);
    let elsewhere = Server::start(files.clone()).await;
    let to = |target: String| -> Fault {
        Box::new(move |asked| Some(with(status(302, ""), "location", &target.replace("PATH", asked.path))))
    };
    // What is elsewhere is signed as well.
    let server = Server::faulty(files.clone(), to(format!("{}/PATH", elsewhere.url))).await;
    let found = read(&noble(&server.url, &keys.armored(BY)), None).await.unwrap();
    assert_eq!(packages(&found), ["one 1"]);
    for (target, said) in
        [("file:///etc/passwd", "redirects to what is no web address"), ("/archive/again", "redirects")]
    {
        let server = Server::faulty(files.clone(), to(target.to_owned())).await;
        holds(&read(&noble(&server.url, &keys.armored(BY)), None).await.unwrap_err(), &[said]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_send_too_much_or_nothing() {
    let keys = Keys::with(SIGNER);
    let key = keys.armored(BY);
    let files = made(&by_name(), &one(), &keys);
    let endless = |name: &'static str| -> Fault {
        Box::new(move |asked| {
            let piece = || Ok::<_, std::io::Error>(vec![b'x'; 1 << 20]);
            let body = || Body::from_stream(futures_util::stream::repeat_with(piece));
            asked.path.ends_with(name).then(|| Response::new(body()))
        })
    };
    for (name, said) in [("InRelease", "is too large: more than"), ("Packages.xz", "is too large: more than")]
    {
        let server = Server::faulty(files.clone(), endless(name)).await;
        holds(&read(&noble(&server.url, &key), None).await.unwrap_err(), &[said]);
    }
    let stalling: Fault = Box::new(|asked| {
        let bytes = asked.archive.0.get(asked.path)?;
        asked.path.contains("Packages").then(|| stalls(bytes))
    });
    let server = Server::faulty(files.clone(), stalling).await;
    let error = read(&noble(&server.url, &key), None).await.unwrap_err();
    holds(
        &error,
        &["stopped sending in the middle of the index `main/binary-amd64/Packages.xz` of `ubuntu`"],
    );

    let (_listener, address) = silent();
    let (read_of_it, notes) = read_noted(&noble(&format!("http://{address}/archive"), &key)).await;
    holds(&read_of_it.unwrap_err(), &["did not answer in time", &format!("look at the load of `{address}`")]);
    let waiting = format!("waiting for {address}, ");
    assert!(notes.iter().any(|note| note.starts_with(&waiting)), "{notes:?}");
    assert_eq!(notes.last().map(String::as_str), Some(""), "and waits no longer: {notes:?}");

    let broken: Fault = Box::new(|_| Some(status(503, "")));
    let server = Server::faulty(files, broken).await;
    holds(&read(&noble(&server.url, &key), None).await.unwrap_err(), &["answered 503"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_nothing() {
    let keys = Keys::with(SIGNER);
    let key = keys.armored(BY);
    let empty = Server::start(Archive::default()).await;
    let error = read(&noble(&empty.url, &key), None).await.unwrap_err();
    holds(&error, &["does not have `Release` of `ubuntu` `noble`"]);
    let error = read(&flat(&empty.url, &key), None).await.unwrap_err();
    assert!(all(&error).contains("does not have `Release` of `vendor` `/`"), "{}", all(&error));

    let mut archive = noble(&empty.url, &key);
    archive.uris.clear();
    let error = read(&archive, None).await.unwrap_err();
    assert!(all(&error).contains("no mirror of the archive `ubuntu` is known"), "{}", all(&error));
    assert!(all(&error).contains("--mirror URL"), "{}", all(&error));
    for url in ["ftp://m.example/debian", "mailto:a@b"] {
        let archive = archive::Archive { uris: vec![url.parse().unwrap()], ..noble(&empty.url, &key) };
        let error = read(&archive, None).await.unwrap_err();
        assert!(all(&error).contains("http"), "{}", all(&error));
    }
}
