use proptest::prelude::*;

use super::*;

const GOOD: &str = "Package: a\nVersion: 1:2.0~rc1-1+b1\nArchitecture: amd64\nFilename: ./pool/a.deb\nSize: 10\n\
                    SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF\nMD5sum: 0\n";

#[test]
fn bad_stanzas_are_named() {
    Index::parse("of `x`", GOOD.as_bytes()).unwrap();
    for (from, to, says) in [
        ("Package: a\n", "", "has no `Package`"),
        ("Package: a\n", "Package: ../a\n", "no good name"),
        ("Version: 1:2.0~rc1-1+b1\n", "", "package `a` has no `Version`"),
        ("1:2.0~rc1-1+b1", "1 2", "bad `Version` `1 2`: ` ` may not"),
        ("1:2.0~rc1-1+b1", "x:1", "epoch"),
        ("1:2.0~rc1-1+b1", "1-", "revision is empty"),
        ("1:2.0~rc1-1+b1", "~1", "begins with no letter or digit"),
        ("Architecture: amd64\n", "", "no `Architecture`"),
        ("amd64", "AMD/64", "bad `Architecture`"),
        ("Filename: ./pool/a.deb\n", "", "no `Filename`"),
        ("./pool/a.deb", "/etc/passwd", "leads out of the archive"),
        ("./pool/a.deb", "pool/../../a.deb", "leads out of the archive"),
        ("Size: 10\n", "", "no `Size`"),
        ("Size: 10", "Size: -1", "`Size` that is no number"),
        ("Size: 10", "Size: 99999999999999999999", "`Size` that is no number"),
        ("SHA256: ", "SHA1: ", "only weak hashes"),
        ("SHA256: 01", "SHA256: ", "64 hexadecimal digits"),
        ("MD5sum: 0\n", "Size: 10\n", "`Size` twice"),
        ("MD5sum: 0\n", "nonsense\n", "line 7 is no control data"),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        let error = Index::parse("of `x`", text.as_bytes()).unwrap_err();
        assert!(error.message().contains(says), "{error}: {says}");
        assert!(error.message().contains("the index of `x` is broken"), "{error}");
    }
    let none = GOOD.replace("SHA256: ", "X: ").replace("MD5sum", "Y");
    assert!(Index::parse("", none.as_bytes()).unwrap_err().message().contains("no `SHA256`"));
}

#[test]
fn the_kept_form_is_the_same_or_nothing() {
    let text =
        format!("{GOOD}Provides: p\nDepends: ü (= 1)\n\n{}", GOOD.replace("Package: a", "Package: 0b"));
    let index = Index::parse("", text.as_bytes()).unwrap();
    let bytes = index.to_bytes();
    let again = Index::from_bytes(bytes.clone()).unwrap();
    assert_eq!((again.len(), again.provided_len()), (2, 1));
    assert_eq!((again.name(0), again.name(1)), ("0b", "a"));
    assert_eq!(again.provided(0), ("p", 1));
    let record = again.record(1, "r", "s", 1);
    assert_eq!((record.depends, record.path, record.version), ("ü (= 1)", "pool/a.deb", "1:2.0~rc1-1+b1"));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Index::from_bytes(changed).is_none(), "byte {at}");
        assert!(Index::from_bytes(bytes[..at].to_vec()).is_none(), "cut at {at}");
    }
}

/// Places that lead out of the texts, with a right checksum: the work of a broken writer.
#[test]
fn a_form_that_does_not_fit_is_nothing() {
    let index = Index::parse("", GOOD.as_bytes()).unwrap();
    let far = Index { entries: vec![0xff; ENTRY], ..index.clone() };
    assert!(Index::from_bytes(far.to_bytes()).is_none());
    let far = Index { provided: vec![0xff; PROVIDED], ..index };
    assert!(Index::from_bytes(far.to_bytes()).is_none());
}

proptest! {
    #[test]
    fn never_panics(text in "((Package|Version|Architecture|Filename|Size|SHA256|Provides|Depends): ?[a-z0-9,:.()\n ]{0,12}\n){0,20}") {
        let _ = Index::parse("", text.as_bytes());
        let _ = Index::from_bytes(text.into_bytes());
    }

    #[test]
    fn what_is_written_is_read(names in proptest::collection::vec("[a-z][a-z0-9+.-]{0,6}", 0..20), provides in "[a-z]{1,3}(, [a-z]{1,3}){0,4}") {
        let text: String = names.iter().map(|name| {
            GOOD.replace("Package: a", &format!("Package: {name}")) + &format!("Provides: {provides}\n\n")
        }).collect();
        let index = Index::from_bytes(Index::parse("", text.as_bytes()).unwrap().to_bytes()).unwrap();
        prop_assert_eq!(index.len(), names.len());
        let mut sorted = names.clone();
        sorted.sort();
        for (at, name) in sorted.iter().enumerate() {
            prop_assert_eq!(index.name(at), name.as_str());
            prop_assert_eq!(index.record(at, "", "", 0).provides, provides.as_str());
        }
        let different: std::collections::BTreeSet<&str> = provides.split(", ").collect();
        prop_assert_eq!(index.provided_len(), names.len() * different.len());
    }
}
