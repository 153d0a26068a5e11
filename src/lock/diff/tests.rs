use super::*;
use crate::{
    digest::Digest,
    lock::tests::{example, image},
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
