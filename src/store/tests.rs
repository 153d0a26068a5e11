#![allow(clippy::disallowed_methods)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a/store")).unwrap();
    (dir, store)
}

#[test]
fn content_comes_back_under_its_digest() {
    let (dir, store) = store();
    let digest = store.put(b"hello").unwrap();
    assert_eq!(digest, Digest::of(b"hello"));
    assert_eq!(store.put(b"hello").unwrap(), digest);
    assert!(store.contains(&digest).unwrap());
    assert_eq!(store.get(&digest).unwrap(), b"hello");
    let path = store.path(&digest);
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), digest.hex());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o400);
    for above in ["a/store", "a/store/sha256"] {
        assert_eq!(dir.path().join(above).metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert_eq!(store.digests().unwrap(), [digest]);
    assert!(store.remove(&digest).unwrap());
    assert!(!store.contains(&digest).unwrap() && !store.remove(&digest).unwrap());
    assert!(store.get(&digest).unwrap_err().message().contains("is not in the store"));
}

#[test]
fn streams_are_held_to_their_digest() {
    let (dir, store) = store();
    let content = vec![7; 300_000];
    let digest = store.put_stream(&content[..], Some(Digest::of(&content))).unwrap();
    let mut back = Vec::new();
    store.open_verified(&digest).unwrap().read_to_end(&mut back).unwrap();
    assert!(back == content);
    let error = store.put_stream(&b"other"[..], Some(digest)).unwrap_err();
    assert!(error.message().contains(&digest.to_string()), "{error}");
    assert!(error.message().contains(&Digest::of(b"other").to_string()), "{error}");
    drop(store.writer().unwrap());
    // One shelf, and no temporary file.
    assert_eq!(std::fs::read_dir(dir.path().join("a/store/sha256")).unwrap().count(), 1);
}

#[test]
fn a_corrupt_entry_is_named_moved_aside_and_replaced() {
    let (_dir, store) = store();
    let digest = store.put(b"right").unwrap();
    let path = store.path(&digest);
    for large in [false, true] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"wrong").unwrap();
        let error =
            if large { store.open_verified(&digest).unwrap_err() } else { store.get(&digest).unwrap_err() };
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        assert!(!store.contains(&digest).unwrap());
        assert_eq!(std::fs::read(path.with_extension("corrupt")).unwrap(), b"wrong");
        assert_eq!(store.digests().unwrap(), []);
        store.put(b"right").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"right");
    }
    // A put over a corrupt entry mends it too.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, b"wrong").unwrap();
    store.put(b"right").unwrap();
    assert_eq!(store.get(&digest).unwrap(), b"right");
}

#[test]
fn many_writers_at_once() {
    let (dir, _) = store();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let path = dir.path().join("a/store");
            scope.spawn(move || {
                let store = Store::open(&path).unwrap();
                for index in 0..20 {
                    let content = format!("content {}", (index + thread) % 20);
                    let digest = store.put(content.as_bytes()).unwrap();
                    assert_eq!(store.get(&digest).unwrap(), content.as_bytes());
                }
            });
        }
    });
    assert_eq!(Store::open(&dir.path().join("a/store")).unwrap().digests().unwrap().len(), 20);
}

#[test]
fn leftovers_of_a_killed_writer_are_swept() {
    let (dir, _) = store();
    // Process ids end at 2^22 (proc(5), `pid_max`).
    let leftover = dir.path().join("a/store/sha256/.bedplate-4194305-0");
    std::fs::write(&leftover, b"half").unwrap();
    Store::open(&dir.path().join("a/store")).unwrap();
    assert!(!leftover.exists());
}
