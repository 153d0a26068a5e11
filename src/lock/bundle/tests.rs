use proptest::prelude::*;

use super::*;
use crate::lock::{
    self,
    tests::{PROFILE as PROFILE_TEXT, image, profile},
};

fn inputs() -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        ("../deployments/a.yaml".to_owned(), b"name: a\n".to_vec()),
        ("../other/a.yaml".to_owned(), b"name: b\n".to_vec()),
        ("keys/strange näme|.asc".to_owned(), vec![0, 255, 10]),
        ("empty".to_owned(), Vec::new()),
    ])
}

fn bundle() -> Bundle {
    Bundle::assemble("host.toml", PROFILE_TEXT, "version = 1\n", inputs()).unwrap()
}

#[test]
fn the_archive_is_the_same_each_time_and_reads_back() {
    let tar = bundle().to_tar();
    assert_eq!(tar, bundle().to_tar());
    assert_eq!(tar.len() % 512, 0);
    let read = Bundle::from_tar(&tar).unwrap();
    assert_eq!(read, bundle());
    assert_eq!(read.digest(), Digest::of(&tar));
    assert_eq!(Bundle::from_files(read.files().clone()).unwrap(), bundle());
    assert_eq!(
        read.files().keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "index.json",
            "inputs/000-a.yaml",
            "inputs/001-a.yaml",
            "inputs/002-empty",
            "inputs/003-strange_n_me_.asc",
            "profile.lock",
            "profile.toml",
        ]
    );
    let mut archive = tar::Archive::new(tar.as_slice());
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap()), (0o644, 0, 0));
    }
}

#[test]
fn names_that_are_not_plain_are_refused() {
    for name in [
        "",
        ".toml",
        "host",
        "a/b.toml",
        "../x.toml",
        "..toml",
        "a\n.toml",
        &format!("{}.toml", "x".repeat(99)),
    ] {
        assert!(Bundle::assemble(name, "", "", BTreeMap::new()).is_err(), "{name:?}");
    }
}

/// An archive of these entries, with valid checksums.
fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn a_hostile_archive_is_refused() {
    use tar::EntryType;
    let good = bundle();
    let files: Vec<(&str, EntryType, &[u8])> = good
        .files()
        .iter()
        .map(|(path, content)| (path.as_str(), EntryType::Regular, content.as_slice()))
        .collect();
    assert_eq!(tar_of(&files), good.to_tar(), "the helper of this test writes the same");
    let with = |extra: (&'static str, EntryType, &'static [u8])| {
        let mut entries = files.clone();
        entries.push(extra);
        tar_of(&entries)
    };
    let mut reversed = files.clone();
    reversed.reverse();
    let mut trailing = good.to_tar();
    trailing.extend_from_slice(&[0; 512]);
    let mut padded = good.to_tar();
    let last = padded.len() - 1025;
    padded[last] = 1;
    for (what, bytes, why) in [
        ("nothing", Vec::new(), "missing"),
        ("a link", with(("link", EntryType::Symlink, b"")), "not a regular file"),
        ("a hard link", with(("link", EntryType::Link, b"")), "not a regular file"),
        ("a directory", with(("dir", EntryType::Directory, b"")), "not a regular file"),
        ("a device", with(("dev", EntryType::Char, b"")), "not a regular file"),
        ("a pax header", with(("pax", EntryType::XHeader, b"12 path=/x\n")), "not a regular file"),
        ("a long name", with(("././@LongLink", EntryType::GNULongName, b"x")), "not a regular file"),
        ("an absolute path", with(("/etc/passwd", EntryType::Regular, b"x")), "not plain"),
        ("a climbing path", with(("inputs/../../x", EntryType::Regular, b"x")), "not plain"),
        ("a dot", with(("./x", EntryType::Regular, b"x")), "not plain"),
        ("a duplicate", with(("profile.toml", EntryType::Regular, b"x")), "twice"),
        ("a file the index does not name", with(("inputs/999-x", EntryType::Regular, b"x")), "index"),
        ("a missing file", tar_of(&files[..files.len() - 1]), "missing"),
        ("another order", tar_of(&reversed), "order"),
        ("bytes after the end", trailing, "padding"),
        ("other padding", padded, "padding"),
    ] {
        let error = Bundle::from_tar(&bytes).expect_err(what);
        assert!(error.message().contains(why), "{what}: {error}");
    }
    let newer = good.files()["index.json"].clone();
    let newer = String::from_utf8(newer).unwrap().replace("\"version\": 1", "\"version\": 2");
    let mut files = good.files().clone();
    files.insert("index.json".into(), newer.into_bytes());
    assert!(Bundle::from_files(files).unwrap_err().message().contains("newer bedplate"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let _ = Bundle::from_tar(&bytes);
        let mut tar = bundle().to_tar();
        let end = cut.index(tar.len());
        let _ = Bundle::from_tar(&tar[..end]);
        let place = place.index(tar.len());
        let before = tar[place];
        tar[place] = byte;
        // Any one changed byte is another bundle or none.
        match Bundle::from_tar(&tar) {
            Ok(read) => prop_assert!(byte == before || read != bundle()),
            Err(_) => prop_assert!(byte != before),
        }
    }

    #[test]
    fn whatever_is_put_in_comes_out(
        inputs in proptest::collection::btree_map("[^\\x00]{1,80}", proptest::collection::vec(any::<u8>(), 0..600), 0..5)
    ) {
        let bundle = Bundle::assemble("x.toml", "a", "b", inputs).unwrap();
        prop_assert_eq!(Bundle::from_tar(&bundle.to_tar()).unwrap(), bundle);
    }
}

#[test]
fn opening_judges_the_lock() {
    let profile = profile();
    let wanted = lock::wanted(&profile, &[]).unwrap();
    let mut locked = Lock {
        inputs: lock::inputs("host.toml", &profile, &BTreeMap::new(), &BTreeMap::new()),
        images: wanted.iter().map(|(name, w)| (name.clone(), image(&w.reference, name))).collect(),
        ..Lock::default()
    };
    let open = |lock: &Lock| {
        Bundle::assemble("host.toml", PROFILE_TEXT, &lock::write(lock), BTreeMap::new())
            .unwrap()
            .open()
            .unwrap()
    };
    let pinned = open(&locked);
    assert_eq!(pinned.name, "host");
    assert_eq!(pinned.freshness, Freshness::Fresh);
    assert_eq!(pinned.lock_digest, locked.digest());
    locked.images.remove("vllm");
    assert!(open(&locked).freshness.to_string().contains("`vllm`"));
    let with_deployment =
        format!("{PROFILE_TEXT}\n[deploy]\ndeployments = [\"../deployments/qwen72b.yaml\"]\n");
    let lacking =
        Bundle::assemble("host.toml", &with_deployment, &lock::write(&locked), BTreeMap::new()).unwrap();
    assert!(lacking.open().unwrap_err().message().contains("lacks `../deployments/qwen72b.yaml`"));
}
