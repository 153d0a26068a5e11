//! What is refused before anything changes.

use std::{fs, os::unix::fs::PermissionsExt};

use bedplate::{error::Error, lock::LockedPackage, plan::Goal};
use url::Url;

use super::guest::{Guest, entry};
use crate::apt::package::Package;

/// A refusal that left everything as it was.
fn refused(guest: &Guest, packages: Vec<LockedPackage>) -> Error {
    let before = guest.all();
    let error = guest.run(&guest.bundle(packages), Goal::Provision, None).unwrap_err();
    assert_eq!(guest.all(), before);
    assert!(!guest.at("/var/lib/bedplate/generations/1").exists(), "a generation was begun");
    guest.is_tidy();
    error
}

#[test]
fn a_conflict_with_what_is_not_locked() {
    let guest = Guest::new();
    guest.dpkg("-i", &[&Package::new("bp-mine", "1")]);
    let package = Package::new("bp-a", "1").field("Conflicts", "bp-mine");
    let error = refused(&guest, guest.locked(&[&package]));
    assert!(error.message().contains("cannot be there together with `bp-mine`"), "{error:?}");
    assert!(error.hints()[0].contains("apt-get remove bp-mine"));
}

#[test]
fn a_dependency_that_is_not_locked() {
    let guest = Guest::new();
    let error = refused(&guest, guest.locked(&[&Package::new("bp-a", "1").depends("bp-nowhere")]));
    assert!(format!("{error:?}").contains("bp-nowhere"), "{error:?}");
}

#[test]
fn a_package_that_is_not_what_the_lock_says() {
    let guest = Guest::new();
    let mut other = guest.locked(&[&Package::new("bp-a", "1")]);
    other[0].version = "2".to_owned();
    let error = refused(&guest, other);
    assert!(error.message().contains("its version is `1`"), "{error:?}");
    let mut other = guest.locked(&[&Package::new("bp-a", "1")]);
    other[0].name = "bp-b".to_owned();
    let error = refused(&guest, other);
    assert!(error.message().contains("its package is `bp-a`"), "{error:?}");
}

#[test]
fn other_bytes_of_the_same_size() {
    let mut guest = Guest::new();
    let package = Package::new("bp-a", "1");
    let locked = guest.locked(&[&package]);
    let path = guest.store().path(&locked[0].sha256);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let spoil = |path: &std::path::Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path, &bytes).unwrap();
    };
    spoil(&path);
    // Moved aside; and nobody has another.
    let error = refused(&guest, locked.clone());
    assert!(format!("{error:?}").contains("bp-a"), "{error:?}");
    // A mirror that has such bytes is no better.
    let served = tempfile::tempdir().unwrap();
    fs::write(served.path().join(&locked[0].path), &bytes).unwrap();
    let place = Url::from_directory_path(served.path()).unwrap();
    guest.places = [("test".to_owned(), vec![place])].into();
    let error = refused(&guest, locked.clone());
    assert!(format!("{error:?}").contains(&locked[0].sha256.hex()), "{error:?}");
    // One that has the right ones is.
    fs::write(served.path().join(&locked[0].path), package.deb()).unwrap();
    guest.run(&guest.bundle(locked), Goal::Provision, None).unwrap();
    assert_eq!(guest.state("bp-a"), "hi 1");
}

#[test]
fn no_space() {
    let guest = Guest::new();
    let error =
        refused(&guest, guest.locked(&[&Package::new("bp-a", "1").field("Installed-Size", "999999999999")]));
    assert!(error.message().contains("no space for the packages"), "{error:?}");
}

#[test]
fn names_that_are_options() {
    let guest = Guest::new();
    let mut odd = entry(&Package::new("bp-a", "1"));
    odd.version = "1 -oDir::Bin::dpkg=/bin/true".to_owned();
    // The lock itself may refuse it before.
    let bundle = guest.bundle(vec![odd]);
    assert!(guest.run(&bundle, Goal::Provision, None).is_err());
    assert_eq!(guest.state("bp-a"), "");
}
