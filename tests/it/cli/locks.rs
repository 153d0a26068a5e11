//! Locks that are newer, broken, stale or not there.

use super::{Place, Random, profile};
use crate::support::{
    faulty::{Content, Faulty},
    image::ImageSpec,
};

/// A profile `p` with one locked image; the registry is gone.
async fn locked() -> Place {
    let server =
        Faulty::start(Content::image("a", "1", &ImageSpec::default().build()), Box::new(|_, _| None)).await;
    let place = Place::with(&format!("vllm = \"{}/a:1\"", server.host), "");
    place.run(["lock", "p"]).exits(0).says("locked 1 image");
    place
}

const READERS: [&[&str]; 4] = [
    &["lock", "p"],
    &["lock", "p", "--check"],
    &["provision", "p", "--root", "home"],
    &["bundle", "p", "-o", "x.tar"],
];

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_lock_is_not_called_broken() {
    let place = locked().await;
    place.edit("profiles/p.lock", "version = 1", "version = 2");
    for verb in READERS {
        let ran = place.refuses(verb.iter().copied(), 2, &["p.lock`", "newer bedplate"], "newer");
        assert!(!ran.err.contains("broken"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_revision_is_read() {
    let place = locked().await;
    place.edit("profiles/p.lock", "revision = 0", "revision = 7\nadded-later = true");
    place.run(["lock", "p", "--check"]).exits(0);
    // The same key without the higher revision is an error.
    place.edit("profiles/p.lock", "revision = 7", "revision = 0");
    place.refuses(["lock", "p", "--check"], 2, &["broken", "added-later"], "version control");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_lock_is_left_as_it_is() {
    let place = locked().await;
    let good = place.text("profiles/p.lock");
    let conflict = good.replacen("[inputs]", "<<<<<<< HEAD\n[inputs]\n=======\n>>>>>>> other", 1);
    for (text, says, hint) in [
        (conflict, "unresolved merge conflict", "git checkout"),
        (String::new(), "`version` is missing", "version control"),
        (good.replacen("sha256:", "sha256:zz", 1), "broken", "version control"),
        (good.replacen("sha256:", "md5:", 1), "broken", "version control"),
        (good.replacen("platform", "platfrom", 1), "broken", "version control"),
        (good.replacen("version = 1", "version = 0", 1), "broken", "version control"),
        (good.replacen("version = 1", "version = \"1\"", 1), "broken", "version control"),
        (format!("{good}\n[image.evil]\nreference = \"x\"\n"), "broken", "version control"),
        ("not a lock at all".into(), "broken", "version control"),
    ] {
        assert_ne!(text, good);
        place.put("profiles/p.lock", &text);
        for verb in READERS {
            place.refuses(verb.iter().copied(), 2, &["profiles/p.lock`", says], hint);
        }
    }
    let mut random = Random(7);
    for _ in 0..20 {
        let bytes: Vec<u8> = (0..64).flat_map(|_| random.next().to_le_bytes()).collect();
        place.put("profiles/p.lock", bytes);
        place.refuses(["lock", "p"], 2, &["profiles/p.lock` is broken"], "version control");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_cut_anywhere_is_broken_or_stale() {
    let place = locked().await;
    let good = place.text("profiles/p.lock");
    let step = good.len() / 40;
    for cut in (0..good.len() - 1).step_by(step.max(1)) {
        place.put("profiles/p.lock", &good[..cut]);
        let ran = place.run(["provision", "p", "--root", "home"]);
        assert!(matches!(ran.code, Some(2 | 4)), "cut at {cut} of {}: {ran:?}", good.len());
        ran.says("error: ").says("hint: ");
    }
    assert!(std::fs::read_dir(place.at("home")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_lock_names_what_changed() {
    let place = locked().await;
    place.edit("profiles/p.toml", "[host]", "# a remark\n[host]");
    place.run(["lock", "p", "--check"]).exits(0);
    place.put("deployments/d.yaml", "name: d\nengine: vllm\nmodel: a/b\n");
    place.edit(
        "profiles/p.toml",
        "[images]",
        "[deploy]\ndeployments = [\"../deployments/d.yaml\"]\n[images]",
    );
    let stale = ["`p.toml` changed since it was locked", "`../deployments/d.yaml` is new"];
    for verb in [&["provision", "p", "--root", "home"][..], &["bundle", "p", "-o", "x.tar"]] {
        place.refuses(verb.iter().copied(), 4, &stale, "bedplate lock profiles/p.toml");
    }
    place.refuses(["provision", "p", "--root", "home", "--dry-run"], 4, &stale, "bedplate lock");
    let before = place.snapshot();
    let ran = place.run(["lock", "p", "--check"]);
    ran.exits(4).says("`p.toml` changed").says("hint: run `bedplate lock profiles/p.toml`");
    let ran = place.run(["lock", "p", "--check", "--format", "json"]);
    let json = ran.exits(4).json();
    assert_eq!(json["fresh"], false);
    assert_eq!(json["reasons"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(before, place.snapshot());
}

#[test]
fn no_lock() {
    let place = Place::new();
    place.put("profiles/p.toml", profile("", ""));
    for verb in &READERS[1..] {
        place.refuses(
            verb.iter().copied(),
            4,
            &["`profiles/p.toml` has no lock"],
            "bedplate lock profiles/p.toml",
        );
    }
}
