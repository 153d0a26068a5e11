use super::*;
use crate::{
    digest::Digest,
    lock::{
        LockedImage, VerdictOutcome,
        tests::{example, image},
    },
};

fn one(old: LockedImage, new: LockedImage) -> Diff {
    let lock = |image| Lock { images: [("vllm".to_owned(), image)].into(), ..Lock::default() };
    diff(&lock(old), &lock(new))
}

#[test]
fn says_what_it_means() {
    let mut old = image("docker.io/vllm/vllm-openai:v0.11.0", "old");
    old.facts.cuda = Some("12.4.1".into());
    old.facts.entrypoint = vec!["python3".into()];
    old.verdict.outcome = VerdictOutcome::Refuse;
    old.verdict.because = "too old".into();
    let mut new = image("docker.io/vllm/vllm-openai:v0.12.0", "new");
    new.download += 1_200_000_000;
    new.verdict.outcome = VerdictOutcome::Native;
    let diff = one(old, new);
    let text = diff.text(false);
    assert!(
        text.starts_with(
            "~ image vllm: reference docker.io/vllm/vllm-openai:v0.11.0 → docker.io/vllm/vllm-openai:v0.12.0, \
             CUDA 12.4.1 → 12.8.1, driver wanted 550.54.14 → 570.26, verdict refuse → native, entrypoint changed, \
             +1.2 GB\n"
        ),
        "{text}"
    );
    let markdown = diff.markdown();
    assert!(markdown.contains("| refuse → **native**<br>CUDA 12.8 wants"), "{markdown}");
    assert!(markdown.lines().all(|line| line.is_empty() || (line.starts_with('|') && line.ends_with('|'))));
    let json = diff.json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["changed"], true);
    assert_eq!(json["images"][0]["details"][1]["what"], "cuda");
    assert_eq!(json["images"][0]["from"]["driver-wanted"], "550.54.14");
    assert_eq!(json["images"][0]["to"]["verdict"], "native");
}

#[test]
fn a_rebuild_is_told_apart() {
    let old = image("r.example/x:1", "old");
    let new = image("r.example/x:1", "new");
    assert_eq!(one(old.clone(), new).text(false), "~ image vllm: rebuilt, same facts\n");
    let mut index_only = old.clone();
    index_only.index = Some(Digest::of("another"));
    assert_eq!(one(old.clone(), index_only).text(false), "~ image vllm: new index, same image\n");
    let mut smaller = image("r.example/x:1", "small");
    smaller.download -= 500;
    smaller.facts.user = None;
    assert_eq!(one(old, smaller).text(false), "~ image vllm: user removed, -500 B\n");
}

#[test]
fn added_removed_and_inputs() {
    let old = example();
    let mut new = example();
    let gone = new.images.remove("vllm").unwrap();
    new.images.insert("sglang".into(), gone);
    new.inputs.remove("cuda-drivers");
    new.inputs.insert("new.yaml".into(), Digest::of("new"));
    new.inputs.insert("h100-vllm.toml".into(), Digest::of("changed"));
    let text = diff(&old, &new).text(false);
    for line in [
        "+ image sglang: `docker.io/vllm/vllm-openai:v0.11.0`, CUDA 12.8.1, driver wanted 570.26, 9.9 GB, minor\n",
        "- image vllm: `docker.io/vllm/vllm-openai:v0.11.0`",
        "- input cuda-drivers\n",
        "+ input new.yaml\n",
        "~ input h100-vllm.toml\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(diff(&old, &old).is_empty());
    assert_eq!(diff(&old, &old).text(false), "");
    assert_eq!(diff(&old, &old).markdown(), "The lock does not change.\n");
    assert_eq!(diff(&old, &old).json()["changed"], false);
}

#[test]
fn what_a_registry_says_stays_in_its_cell() {
    let old = image("r.example/x:1", "old");
    let mut new = image("r.example/x:1", "new");
    new.facts.cuda = Some("12|<script>\n# x".into());
    let markdown = one(old, new).markdown();
    assert!(!markdown.contains("<script>"));
    assert_eq!(markdown.lines().count(), 3, "{markdown}");
}

fn driver_update() -> (Lock, Lock) {
    let old = crate::lock::package_tests::example();
    let mut new = old.clone();
    let set = new.set.as_mut().unwrap();
    set.driver = Some("570.124.06".into());
    set.builds = Some(crate::lock::Builds::Untried);
    set.because = Some("nobody is known to have built it".into());
    set.engine = None;
    let with = |lock: Lock, outcome: VerdictOutcome| {
        let mut lock = lock;
        for name in ["a", "b", "c"] {
            let mut image = image("r.example/x:1", name);
            image.verdict.outcome = outcome;
            lock.images.insert(name.to_owned(), image);
        }
        lock
    };
    let suite = new.repositories.get_mut("vendor").unwrap().suites.get_mut("/").unwrap();
    suite.signed_by = vec!["FEDCBA9876543210FEDCBA9876543210FEDCBA98".into()];
    suite.date = "2026-11-22T00:00:00Z".into();
    new.repositories.insert("debian-security".into(), crate::lock::LockedRepository::default());
    for package in &mut new.packages {
        match package.name.as_str() {
            "openssh-server" => {
                package.version = "1:10.0p1-7+deb13u1".into();
                package.repository = "debian-security".into();
                package.sha256 = Digest::of("new");
            }
            "docker.io" => {
                package.version = "28.0-1".into();
                package.sha256 = Digest::of("new");
            }
            "runc" => package.sha256 = Digest::of("other content"),
            // Another reason for a package is no change of it.
            "libc6" => package.wanted_by = vec!["essential".into()],
            _ => {}
        }
    }
    new.packages.retain(|package| package.name != "wine32");
    new.packages.push(crate::lock::set::tests::package("zstd", "1.5-1", &[], &["packages"]));
    (with(old, VerdictOutcome::Refuse), with(new, VerdictOutcome::Native))
}

#[test]
fn packages_are_grouped_by_what_matters() {
    let (old, new) = driver_update();
    let made = diff(&old, &new);
    let text = made.text(false);
    assert!(
        text.starts_with(
            "~ driver: 550.163.01 → 570.124.06 (three images go from refuse to native)\n\
             ~ builds: no → untried\n    nobody is known to have built it\n\
             - engine: docker.io 26.1.5+dfsg1-9\n\
             + repository debian-security\n\
             ~ repository vendor: / of 2026-11-21T09:15:00Z → 2026-11-22T00:00:00Z\n\
             ! repository vendor: / is SIGNED BY ANOTHER KEY: FEDCBA9876543210FEDCBA9876543210FEDCBA98\n    \
             no longer signed by 0123456789ABCDEF0123456789ABCDEF01234567\n"
        ),
        "{text}"
    );
    assert!(
        text.ends_with(
            "~ security fixes in 1 package\n    openssh-server 1:10.0p1-7 → 1:10.0p1-7+deb13u1\n\
             + 1 package more: zstd\n\
             - 1 package fewer: wine32\n\
             ~ other versions of 2 packages (`--verbose` lists them)\n"
        ),
        "{text}"
    );
    let all = made.text(true);
    assert!(all.contains("    docker.io 26.1.5+dfsg1-9 → 28.0-1\n"), "{all}");
    assert!(all.contains("    runc 1.1.15+ds1-2: the same version with OTHER CONTENT\n"), "{all}");
    let json = made.json();
    assert_eq!(json["set"][0]["what"], "driver");
    assert_eq!(json["verdicts"][0]["images"], json!(["a", "b", "c"]));
    assert_eq!(
        json["repositories"][1]["suites"][0]["new-keys"][0],
        "FEDCBA9876543210FEDCBA9876543210FEDCBA98"
    );
    let ssh = json["packages"].as_array().unwrap().iter().find(|p| p["name"] == "openssh-server").unwrap();
    assert_eq!((&ssh["security"], &ssh["to"]["version"]), (&json!(true), &json!("1:10.0p1-7+deb13u1")));
}

#[test]
fn what_is_not_named_is_counted_and_said_how_to_see() {
    let names: Vec<String> = (0..14).map(|at| format!("p{at:02}")).collect();
    let packages = names.iter().map(|name| crate::lock::set::tests::package(name, "1-1", &[], &[])).collect();
    let made = diff(&Lock::default(), &Lock { packages, ..Lock::default() });
    assert_eq!(
        made.text(false),
        format!("+ 14 packages more: {} and 2 more (`--verbose` lists them)\n", names[..12].join(", "))
    );
    assert_eq!(made.text(true), format!("+ 14 packages more: {}\n", names.join(", ")));
}

#[test]
fn a_reviewer_sees_a_new_key_first() {
    let (old, new) = driver_update();
    let markdown = diff(&old, &new).markdown();
    assert!(
        markdown.starts_with("> [!CAUTION]\n> `/` of `vendor` is signed by **another key**: `FEDC"),
        "{markdown}"
    );
    for line in [
        "| **driver** | `550.163.01` | `570.124.06` | three images go from refuse to native |",
        "| **engine** | `docker.io 26.1.5+dfsg1-9` | none |  |",
        "| `openssh-server` | `1:10.0p1-7` | `1:10.0p1-7+deb13u1` | `debian-security` |",
        "| `runc` | `1.1.15+ds1-2` | `1.1.15+ds1-2` **with other content** | `debian` |",
        "**More: 1 package**",
    ] {
        assert!(markdown.contains(line), "{line}\n{markdown}");
    }
    // A first lock says everything once, folded.
    let first = diff(&Lock::default(), &old);
    assert!(first.text(false).contains("    signed by 0123456789ABCDEF"), "{}", first.text(false));
    assert!(!first.markdown().contains("CAUTION"));
}
