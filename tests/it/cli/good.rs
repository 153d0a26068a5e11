//! What works, from the outside: locks, diffs, bundles, and everything that is printed for others to read.

use serde_json::Value;

use super::{Place, profile, snapshot};
use crate::support::{
    image::ImageSpec,
    registry::{Kind, Registry},
};

async fn registry() -> (Registry, Place) {
    let registry = Registry::start(Kind::Plain).await;
    registry.push_image("a:1", &ImageSpec::default()).await;
    registry.push_index("b:1", &[ImageSpec::default()]).await;
    let images = format!("a = \"{0}/a:1\"\nb = \"{0}/b:1\"", registry.host);
    let place = Place::new();
    place.config("retries = 0\ntimeout-seconds = 5\n");
    place.put("profiles/p.toml", profile(&images, ""));
    (registry, place)
}

/// As the first one, with another entrypoint.
fn moved() -> ImageSpec {
    ImageSpec { entrypoint: vec!["/elsewhere".into()], ..ImageSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_lock_touches_no_network() {
    let (registry, place) = registry().await;
    place.run(["lock", "p"]).exits(0).says("locked 2 images");
    drop(registry);
    let before = place.snapshot();
    place.run(["lock", "p"]).exits(0).says("up to date: 2 images");
    place.run(["lock", "p", "--check"]).exits(0).says("up to date");
    assert_eq!(before, place.snapshot());
    // What does need it fails.
    place.refuses(["lock", "p", "--update-all"], 1, &["refused the connection"], "registry runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved() {
    let (registry, place) = registry().await;
    place.run(["lock", "p"]).exits(0);
    let old = place.text("profiles/p.lock");
    place.run(["lock", "p", "--check", "--update-all"]).exits(0);
    let new = registry.push_image("a:1", &moved()).await;
    place.run(["lock", "p"]).exits(0).says("up to date");

    let before = place.snapshot();
    let ran = place.run(["lock", "p", "--check", "--update-all"]);
    ran.exits(4).says("moved: a (").says("hint: run `bedplate lock profiles/p.toml --update-all`");
    let json = place.run(["lock", "p", "--check", "--update-all", "--format", "json"]).exits(4).json();
    assert_eq!(json["moved"][0]["name"], "a", "{json}");
    place.run(["lock", "p", "--check", "--update", "image:b"]).exits(0);
    place
        .run(["lock", "p", "--check", "--update", "image:a", "--diff"])
        .exits(4)
        .prints("entrypoint changed");
    assert_eq!(before, place.snapshot(), "`--check` writes nothing");

    let ran = place.run(["lock", "p", "--update", "image:b"]);
    ran.exits(0).says("up to date");
    let ran = place.run(["lock", "p", "--update", "image:a", "--diff", "markdown"]);
    ran.exits(0).prints("entrypoint changed").prints("| ");
    let now = place.text("profiles/p.lock");
    assert!(now.contains(&new.manifest.digest.to_string()) && now != old);
    place.run(["lock", "p", "--check", "--update-all"]).exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn diffs_in_every_form() {
    let (registry, place) = registry().await;
    for (form, json) in [("text", false), ("markdown", false), ("json", true)] {
        let _ = std::fs::remove_file(place.at("profiles/p.lock"));
        let ran = place.run(["lock", "p", "--diff", form]);
        ran.exits(0).prints("a");
        assert_eq!(json, serde_json::from_str::<Value>(&ran.out).is_ok(), "{}", ran.out);
    }
    // Nothing changed is said too, and stays parseable.
    place.run(["lock", "p", "--diff", "json"]).exits(0).json();
    registry.push_image("a:1", &moved()).await;
    let ran = place.run(["lock", "p", "--update-all", "--diff"]);
    ran.exits(0).prints("entrypoint changed");
    let summary = place.run(["lock", "p", "--format", "json"]).exits(0).json();
    assert_eq!((&summary["changed"], &summary["images"]), (&false.into(), &2.into()), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_run_here_is_locked_and_refused() {
    let (registry, place) = registry().await;
    let cuda = vec!["PATH=/bin".to_owned(), "CUDA_VERSION=12.8.1".to_owned()];
    registry.push_image("a:1", &ImageSpec { env: cuda, ..ImageSpec::default() }).await;
    place.run(["lock", "p"]).exits(3).says("image `a` is refused: ").says("12.8.1");
    assert!(place.text("profiles/p.lock").contains("outcome = \"refuse\""));
    place.run(["lock", "p"]).exits(3).says("up to date");
    place.run(["lock", "p", "--check"]).exits(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_are_the_same_bytes() {
    let (_registry, place) = registry().await;
    place.put("deployments/d.yaml", "name: d\nengine: vllm\nmodel: a/b\n");
    place.edit(
        "profiles/p.toml",
        "[images]\na =",
        "[deploy]\ndeployments = [\"../deployments/d.yaml\"]\n\n[images]\nvllm =",
    );
    place.run(["lock", "p"]).exits(0);
    let one = place.run(["bundle", "p", "-o", "one.tar"]);
    one.exits(0).prints("sha256:");
    // Times and modes of the sources are not part of it.
    let text = place.text("profiles/p.toml");
    place.put("profiles/p.toml", &text);
    std::fs::set_permissions(
        place.at("profiles/p.lock"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let two = place.run(["bundle", "p", "-o", "two.tar", "--format", "json"]);
    let json = two.exits(0).json();
    let (one_tar, two_tar) =
        (std::fs::read(place.at("one.tar")).unwrap(), std::fs::read(place.at("two.tar")).unwrap());
    assert_eq!(one_tar, two_tar);
    assert_eq!(json["bundle"], one.out.trim());
    assert_eq!(json["bytes"], one_tar.len());
}

#[test]
fn render_is_compose() {
    let place = Place::new();
    place.put("d.yaml", "name: d\nengine: vllm\nmodel: a/b\nport: 8123\nhf_token_env: HF_TOKEN\n");
    place.run(["render", "-f", "d.yaml"]).exits(0).prints("services:").prints("8123").prints("HF_TOKEN");
}

#[test]
fn completions_know_the_verbs() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = place.run(["completions", shell]);
        ran.exits(0);
        for word in ["provision", "doctor", "update-all"] {
            ran.prints(word);
        }
        assert!(!ran.out.contains("receive"), "{shell}: what is hidden is hidden");
        assert_eq!(ran.err, "");
    }
    // What bash is given, bash can read.
    place.put("c.bash", place.run(["completions", "bash"]).out);
    let checked = std::process::Command::new("bash").arg("-n").arg(place.at("c.bash")).status().unwrap();
    assert!(checked.success());
}

#[test]
fn a_manual_page_for_every_verb() {
    let place = Place::new();
    place.run(["man", "--output", "man"]).exits(0).says("pages into `man`");
    let pages = snapshot(&place.at("man"));
    for page in
        ["bedplate.1", "bedplate-lock.1", "bedplate-toolkit-verify.1", "bedplate-generations-switch.1"]
    {
        assert!(pages.contains_key(page), "{page} is not in {:?}", pages.keys());
        assert!(place.text(&format!("man/{page}")).contains(".TH"), "{page}");
    }
    assert!(!pages.keys().any(|page| page.contains("receive") || page.contains("boot")), "{pages:?}");
    place.run(["man"]).exits(0).prints(".TH");
}

#[test]
fn every_check_explains_itself() {
    let place = Place::new();
    let list = place.run(["explain"]);
    let json = place.run(["explain", "--format", "json"]).exits(0).json();
    assert_eq!(json.as_array().unwrap().len(), bedplate::check::registry().len());
    for check in bedplate::check::registry() {
        list.exits(0).prints(check.id);
        let ran = place.run(["explain", check.id]);
        ran.exits(0).prints(check.id).prints("looks at").prints("matters").prints("mend");
        let json = place.run(["explain", check.id, "--format", "json"]).exits(0).json();
        for key in ["what", "why", "mend"] {
            assert!(json[key].as_str().is_some_and(|text| text.len() > 10), "{json}");
        }
    }
}

#[test]
fn every_symptom_explains_itself() {
    let place = Place::new();
    let list = place.run(["explain"]);
    for symptom in bedplate::check::diagnosis::symptoms() {
        list.exits(0).prints(symptom.id);
        let ran = place.run(["explain", symptom.id]);
        ran.exits(0).prints(symptom.looks);
        let json = place.run(["explain", symptom.id, "--format", "json"]).exits(0).json();
        for (cause, shown) in symptom.causes.iter().zip(json["causes"].as_array().unwrap()) {
            ran.prints(cause.means).prints(cause.decides).prints(cause.fix);
            assert_eq!(shown["means"], cause.means);
            assert!(shown["repair"].is_string() && shown["layer"].is_string(), "{shown}");
        }
    }
}

#[test]
fn quiet_is_quiet() {
    let place = Place::with("", "");
    let ran = place.run(["lock", "p", "-q"]);
    ran.exits(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
}
