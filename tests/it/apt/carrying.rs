//! Locked packages in a bundle: fetched once from a mirror, then carried.

use std::collections::BTreeSet;

use bedplate::host::content::{self, Named};

use super::locking::{Made, packages};

const NO_MIRROR: &str = "http://127.0.0.1:1/nothing";

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_carries_the_locked_packages() {
    let made = Made::new("", packages(&["550.200.01"], &["6.12.117"]), Vec::new()).await;
    made.run(&[]).exits(0);
    let bundle = |name: &str, store: &str| {
        made.place.run(["bundle", "gpu", "--with-packages", "-o", name, "--store", store])
    };
    bundle("one.tar", "store").exits(0).prints("sha256:");
    let bytes = std::fs::read(made.place.at("one.tar")).unwrap();
    let (_, carried) = content::open_archive(&made.place.at("one.tar")).unwrap();
    let lock = made.lock();
    let want: BTreeSet<_> = lock.packages.iter().map(|package| package.sha256).collect();
    assert!(want.len() > 10);
    assert!(carried.blobs().map(|blob| blob.digest).eq(want.iter().copied()));
    carried.refuse_other(&Named::of(&lock)).unwrap();

    // Once they are in the store no mirror is asked; another store needs one, and says what to do.
    made.debian.seen();
    made.mirrors(NO_MIRROR, NO_MIRROR);
    bundle("two.tar", "store").exits(0);
    assert_eq!(std::fs::read(made.place.at("two.tar")).unwrap(), bytes);
    assert!(made.debian.seen().is_empty());
    bundle("three.tar", "other").is_refusal(1, &["package `", "cannot be had"], "--with-packages");
    assert!(!made.place.at("three.tar").exists());

    // Into a store from the archive alone.
    let store = bedplate::store::Store::open(&made.place.at("new")).unwrap();
    content::into_store(&carried, &store, &bedplate::progress::Silent).unwrap();
    for package in &lock.packages {
        assert!(store.has(&package.sha256, package.size).unwrap(), "{}", package.name);
    }
}
