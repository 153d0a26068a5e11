use super::{
    tests::{Model, inputs, profile},
    *,
};
use crate::lock::{ImageFacts, LockedImage, Verdict, VerdictOutcome};

#[test]
fn an_image_at_hand_is_loaded_without_a_network() {
    let image = |reference: &str| LockedImage {
        reference: reference.to_owned(),
        platform: "linux/amd64".into(),
        index: None,
        manifest: Digest::of("manifest"),
        config: Digest::of("config"),
        download: 5,
        layers: vec![Digest::of("layer")],
        facts: ImageFacts::default(),
        verdict: Verdict { outcome: VerdictOutcome::NotApplicable, because: String::new() },
    };
    let images = [("a", "registry.example/a:1"), ("b", "oci:layout:1")];
    let lock = Lock {
        images: images.iter().map(|(key, reference)| ((*key).to_owned(), image(reference))).collect(),
        ..Lock::default()
    };
    let wanted = profile("");
    let mut state = Model::new([]).observed();
    state.docker = DockerState::Running;
    let lines = |state: &HostState, goal: Goal| {
        let plan = make(&inputs(&wanted, &lock), state, goal).unwrap();
        let lines: Vec<String> =
            plan.steps.iter().map(ToString::to_string).filter(|line| line.starts_with("+ image")).collect();
        (lines, plan.missing)
    };
    let (steps, missing) = lines(&state, Goal::Provision);
    assert_eq!(steps, [format!("+ image a registry.example/a@{} (5 B)", Digest::of("manifest"))]);
    assert!(missing[0].what.contains("`oci:layout:1`") && missing[0].hint.contains("--with-images"));
    for (key, _) in images {
        state.images.insert(key.to_owned(), ImageState { at_hand: true, ..ImageState::default() });
    }
    let all = [
        format!("+ image a registry.example/a@{} (at hand, 5 B)", Digest::of("manifest")),
        format!("+ image b oci:layout@{} (at hand, 5 B)", Digest::of("manifest")),
    ];
    // Going back loads, too: that needs no network.
    for goal in [Goal::Provision, Goal::Switch(1)] {
        let (steps, missing) = lines(&state, goal);
        assert_eq!((steps.as_slice(), missing.len()), (all.as_slice(), 0));
    }
    // What Docker has is not loaded again.
    for (key, _) in images {
        state.images.get_mut(key).unwrap().present = Some("sha256:x".to_owned());
    }
    let (steps, _) = lines(&state, Goal::Provision);
    assert!(steps.iter().all(|line| line.starts_with("+ image tag ")), "{steps:?}");
}
