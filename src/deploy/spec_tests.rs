use std::collections::BTreeSet;

use super::*;
use crate::{
    lock::{ImageFacts, Verdict, VerdictOutcome},
    profile::services::services,
};

const ENGINE: &str = "name: demo\nengine: vllm\nmodel: org/model\napi_key: secret:API\ngpu_ids: [0, 1]\n\
                      tensor_parallel: 2\n";

fn locked() -> LockedImage {
    LockedImage {
        reference: "docker.io/vllm/vllm-openai:v0.11.0".into(),
        platform: "linux/amd64".into(),
        index: None,
        manifest: Digest::of("manifest"),
        config: Digest::of("config"),
        download: 1,
        layers: Vec::new(),
        facts: ImageFacts {
            entrypoint: vec!["vllm".into(), "serve".into()],
            command: vec!["--help".into()],
            ..ImageFacts::default()
        },
        verdict: Verdict { outcome: VerdictOutcome::Unknown, because: String::new() },
    }
}

fn engine(text: &str) -> Service {
    let parsed = crate::profile::deployment::parse("demo.yaml", text).unwrap();
    services(&parsed.deployment).remove(0)
}

fn make(service: &Service, locked: &LockedImage, gpu_access: GpuAccess, generation: u64) -> Result<Spec> {
    let paths = Paths::default();
    let around = Surroundings { deployment: "demo", generation, gpu_access, paths: &paths };
    spec(service, Image { key: "vllm", locked, name: "vllm/vllm-openai@sha256:00" }, around)
}

#[test]
fn the_launcher_comes_before_the_images_entrypoint() {
    let spec = make(&engine(ENGINE), &locked(), GpuAccess::Cdi, 3).unwrap();
    let container = &spec.container;
    assert_eq!(container.entrypoint, ["/.bedplate/launch", "--", "vllm", "serve"]);
    assert_eq!(container.command[0], "org/model");
    assert_eq!(container.image, "vllm/vllm-openai@sha256:00");
    assert_eq!(container.network, "bedplate-demo");
    assert_eq!(container.aliases, ["demo"]);
    assert_eq!(container.ports[0].address.to_string(), "127.0.0.1");
    assert_eq!(container.labels[GENERATION], "3");
    assert_eq!(container.labels[SPEC], spec.digest.to_string());
    let mounts: BTreeSet<&str> = container.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert!(mounts.contains("/.bedplate/launch") && mounts.contains("/.bedplate/secrets"), "{mounts:?}");
    let text = serde_json::to_string(container).unwrap();
    assert!(!text.contains("VLLM_API_KEY"), "a secret's variable is no configuration: {text}");
}

#[test]
fn gpus_by_access() {
    let listed = engine(ENGINE);
    let all = engine(&ENGINE.replace("gpu_ids: [0, 1]\n", ""));
    let gpus = |service, access| make(service, &locked(), access, 1).map(|spec| spec.container.gpus);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let cdi = names(&["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
    assert_eq!(gpus(&listed, GpuAccess::Cdi).unwrap(), Some(Gpus::Cdi(cdi)));
    assert_eq!(gpus(&all, GpuAccess::Cdi).unwrap(), Some(Gpus::Cdi(names(&["nvidia.com/gpu=all"]))));
    assert_eq!(gpus(&listed, GpuAccess::NvidiaRuntime).unwrap(), Some(Gpus::Nvidia(names(&["0", "1"]))));
    assert_eq!(gpus(&all, GpuAccess::NvidiaRuntime).unwrap(), Some(Gpus::NvidiaAll));
    assert_eq!(gpus(&all, GpuAccess::None).unwrap(), None);
    assert!(gpus(&listed, GpuAccess::None).unwrap_err().hints()[0].contains("gpu-access"));
}

#[test]
fn the_digest_moves_with_what_the_container_is_made_of_and_nothing_else() {
    let service = engine(ENGINE);
    let digest = |service: &Service, locked: &LockedImage, generation| {
        make(service, locked, GpuAccess::Cdi, generation).unwrap().digest
    };
    let first = digest(&service, &locked(), 1);
    assert_eq!(first, digest(&service, &locked(), 2), "a new generation with the same content");
    let mut other = locked();
    other.config = Digest::of("another");
    assert_ne!(first, digest(&service, &other, 1));
    let mut changed = service.clone();
    changed.shm_size = Some(1);
    assert_ne!(first, digest(&changed, &locked(), 1));
    let mut changed = service.clone();
    changed.environment.insert("X".into(), "1".into());
    assert_ne!(first, digest(&changed, &locked(), 1));
}

#[test]
fn entrypoint_and_command_follow_composes_rules() {
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
    let cases = [
        (None, None, vec!["vllm", "serve"], vec!["--help"]),
        (None, words(&["x"]), vec!["vllm", "serve"], vec!["x"]),
        (words(&["sh"]), None, vec!["sh"], vec![]),
        (words(&["sh"]), words(&["-c"]), vec!["sh"], vec!["-c"]),
    ];
    for (entrypoint, command, wanted, arguments) in cases {
        let mut service = engine(ENGINE);
        (service.entrypoint, service.command) = (entrypoint, command);
        let container = make(&service, &locked(), GpuAccess::Cdi, 1).unwrap().container;
        assert_eq!(container.entrypoint[2..], wanted);
        assert_eq!(container.command, arguments);
    }
    let mut bare = locked();
    bare.facts = ImageFacts::default();
    let mut service = engine(ENGINE);
    service.command = None;
    let error = make(&service, &bare, GpuAccess::Cdi, 1).unwrap_err();
    assert!(error.message().contains("neither entrypoint nor command"), "{error}");
}
