//! Sample files: one valid and one invalid file a rule, and properties over arbitrary text.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    deployment::{self, Engine},
    image_definition,
    rewrite::rewrite,
    services::{self, ImageChoice, Role, Service},
    template::{self, Template},
    tree_yaml,
};
use crate::error::{Error, Kind};

fn samples(kind: &str, extension: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(kind);
    let mut paths: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    paths.sort();
    assert!(paths.len() > 10, "{} holds too few samples", dir.display());
    paths
}

/// What a user is told: place, message and hints of every error.
fn told(error: &Error) -> String {
    let mut out = String::new();
    for error in std::iter::once(error).chain(error.related()) {
        assert_eq!(error.kind(), Kind::Usage);
        let snippet = error.snippet().expect("every error has a place");
        let head = &snippet.text[..snippet.span.start];
        let line = head.matches('\n').count() + 1;
        let column = head.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let _ = writeln!(out, "{line}:{column}: {}", error.message());
        for hint in error.hints() {
            let _ = writeln!(out, "    hint: {hint}");
        }
    }
    out
}

/// Every text an error can show, snippets included.
fn everything(error: &Error) -> String {
    let mut out = format!("{error:?}{}", told(error));
    for error in std::iter::once(error).chain(error.related()) {
        let snippet = error.snippet().unwrap();
        out.push_str(&snippet.text);
        out.push_str(&snippet.label);
    }
    out
}

/// Words that samples use as secrets: no message may hold one.
const SECRETS: &[&str] = &["hf_SampleToken0123456789", "sk-sample0123456789abcdef", "correct-horse-battery"];

fn check_invalid(kind: &str, extension: &str, parse: impl Fn(&str, &str) -> Option<Error>) {
    let write = std::env::var_os("BEDPLATE_WRITE_SAMPLES").is_some();
    for path in samples(kind, extension) {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let error = parse(name, &text).unwrap_or_else(|| panic!("{name} is accepted"));
        let seen = everything(&error);
        for secret in SECRETS {
            assert!(!seen.contains(secret), "{name}: the error shows a secret");
        }
        let expected = path.with_extension("expected");
        if write {
            fs::write(&expected, told(&error)).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(told(&error), wanted, "{name}: set BEDPLATE_WRITE_SAMPLES=1 to write what is told now");
    }
}

/// Valid and invalid samples of one kind of TOML file; `parse` gives what is wrong with one.
fn check_toml(kind: &str, parse: impl Fn(&str, &str) -> Option<Error>) {
    for path in samples(&format!("{kind}/valid"), "toml") {
        let text = fs::read_to_string(&path).unwrap();
        if let Some(error) = parse("sample", &text) {
            panic!("{}:\n{}", path.display(), told(&error));
        }
    }
    check_invalid(&format!("{kind}/invalid"), "toml", parse);
    pairs(kind, "toml");
}

#[test]
fn profile_samples() {
    check_toml("profile", |name, text| super::parse(name, text).err());
}

#[test]
fn image_samples() {
    check_toml("image", |name, text| image_definition::parse(name, text).err());
}

#[test]
fn deployment_samples() {
    for path in samples("deployment/valid", "yaml") {
        let text = fs::read_to_string(&path).unwrap();
        match deployment::parse("sample", &text) {
            Err(error) => panic!("{}:\n{}", path.display(), told(&error)),
            Ok(parsed) => {
                assert_rendered(&parsed.deployment);
                let again = rewrite("sample", &text).unwrap();
                assert!(again.secrets.is_empty(), "{}: nothing is to be moved", path.display());
            }
        }
    }
    check_invalid("deployment/invalid", "yaml", |name, text| deployment::parse(name, text).err());
    pairs("deployment", "yaml");
}

/// Each rule has both samples.
fn pairs(kind: &str, extension: &str) {
    let stems = |side: &str| -> BTreeSet<String> {
        samples(&format!("{kind}/{side}"), extension)
            .iter()
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let (valid, invalid) = (stems("valid"), stems("invalid"));
    let missing: Vec<_> = invalid.difference(&valid).collect();
    assert!(missing.is_empty(), "invalid samples without a valid one: {missing:?}");
}

fn assert_rendered(deployment: &deployment::Deployment) {
    let text = services::render(deployment);
    if let Err(faults) = tree_yaml::read(&text) {
        panic!("{faults:?}\n{text}");
    }
}

fn operator_file() -> deployment::Parsed {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/deployment/valid/qwen72b.yaml");
    deployment::parse("qwen72b.yaml", &fs::read_to_string(path).unwrap()).unwrap()
}

fn service(services: &[Service], role: Role) -> &Service {
    services.iter().find(|service| service.role == role).unwrap()
}

#[test]
fn an_operators_file_becomes_its_services() {
    let parsed = operator_file();
    let all = services::services(&parsed.deployment);
    let names: Vec<&str> = all.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["qwen72b", "dcgm-exporter", "miner-client", "metrics-collector", "redis"]);
    let engine = service(&all, Role::Engine);
    assert_eq!(
        engine.command.as_ref().unwrap().join(" "),
        "Qwen/Qwen2.5-72B-Instruct --host 0.0.0.0 --port 8000 --tensor-parallel-size 4 --trust-remote-code \
         --dtype bfloat16 --max-model-len 32768 --gpu-memory-utilization 0.92"
    );
    assert_eq!(engine.entrypoint, None);
    assert_eq!(engine.secrets["VLLM_API_KEY"].secret, "QWEN_API_KEY");
    assert!(!engine.secrets["HF_TOKEN"].required);
    assert_eq!(engine.environment["HF_HOME"], "/root/.cache/huggingface");
    assert_eq!(engine.shm_size, Some(16 << 30));
    assert_eq!(engine.ports.iter().next().unwrap().address.to_string(), "127.0.0.1");
    let exporter = service(&all, Role::Exporter);
    assert_eq!(exporter.container_name, "qwen72b-dcgm-exporter");
    assert_eq!(exporter.cap_add, ["SYS_ADMIN"]);
    let agent = service(&all, Role::Agent);
    assert_eq!(
        agent.environment["MINER_HTTP_HOST"], "0.0.0.0",
        "published, so it listens beyond its loopback"
    );
    assert_eq!(agent.environment["MINER_VLLM_BASE_URL"], "http://qwen72b:8000");
    assert_eq!(agent.environment["MINER_DCGM_METRICS_URL"], "http://dcgm-exporter:9400/metrics");
    assert_eq!(agent.secrets["MINER_VLLM_API_KEY"].secret, "QWEN_API_KEY");
    assert!(!agent.secrets["MINER_API_KEY"].required);
    let needs: Vec<&str> = agent.depends_on.iter().map(String::as_str).collect();
    assert_eq!(needs, ["dcgm-exporter", "qwen72b"]);
    let secrets = parsed.deployment.secrets();
    assert!(secrets["QWEN_API_KEY"]);
    assert!(secrets["MINER_TOKEN"], "the file names it");
    assert!(!secrets["HF_TOKEN"]);
    assert!(parsed.deployment.images().contains(&ImageChoice::Reference("redis:7.4".into())));
}

#[test]
fn sglang_reads_its_key_from_a_file() {
    let text = "name: a\nengine: sglang\nmodel: m/n\napi_key: secret:KEY\ntrust_remote_code: false\nmax_model_len: 9\n";
    let parsed = deployment::parse("a", text).unwrap();
    assert!(parsed.warnings.is_empty());
    let all = services::services(&parsed.deployment);
    let engine = all.first().unwrap();
    assert_eq!(engine.entrypoint.as_ref().unwrap().join(" "), "python -m sglang.launch_server");
    assert_eq!(
        engine.command.as_ref().unwrap().join(" "),
        "--host 0.0.0.0 --port 8000 --model-path m/n --tp 1 --dtype bfloat16 --context-length 9 \
         --config /run/bedplate/sglang.yaml"
    );
    let file = &engine.secret_files["/run/bedplate/sglang.yaml"];
    assert_eq!(file.content("a\"b\\c"), "api-key: \"a\\\"b\\\\c\"\n");
    assert_eq!(engine.image, ImageChoice::Named("sglang".into()));
    assert!(parsed.deployment.secrets()["KEY"]);
}

#[test]
fn an_agent_without_a_published_port_stays_on_its_loopback() {
    let text = "name: a\nengine: vllm\nmodel: m\nminer_client:\n  enabled: true\n  image: x/agent:1\n  public_ip: 203.0.113.7\n  volumes: ['/data/m:/root/.miner']\n";
    let all = services::services(&deployment::parse("a", text).unwrap().deployment);
    let agent = service(&all, Role::Agent);
    assert_eq!(agent.environment["MINER_HTTP_HOST"], "127.0.0.1");
    assert!(agent.ports.is_empty());
    let public = format!("{text}  host_port: '0.0.0.0:8080'\n");
    let parsed = deployment::parse("a", &public).unwrap();
    let all = services::services(&parsed.deployment);
    assert!(service(&all, Role::Agent).secrets["MINER_API_KEY"].required);
    assert!(parsed.warnings.iter().any(|warning| warning.message.contains("public address")));
}

#[test]
fn rewriting_moves_secrets_and_keeps_the_rest() {
    let text = "\
# our big model
name: qwen72b   # do not rename
engine: vllm
model: Qwen/Qwen2.5-72B-Instruct
api_key: correct-horse-battery
extra_args:
  - --max-num-seqs
  - \"64\"
env:
  WANDB_API_KEY: 'hf_SampleToken0123456789'
  NCCL_DEBUG: INFO
custom_service:  # the agent
  enabled: true
  image: registry.example/miner-agent:0.3.1
  public_ip: 203.0.113.7
  environment:
    MINER_TOKEN: correct-horse-battery # old: hf_SampleToken0123456789
extra_services:
  side:
    image: redis:7.4
    environment:
      - PASSWORD=correct-horse-battery
";
    let done = rewrite("q.yaml", text).unwrap();
    for secret in SECRETS {
        assert!(!done.text.contains(secret), "{}", done.text);
        assert!(!format!("{done:?}").contains(secret));
    }
    assert!(done.text.contains("name: qwen72b   # do not rename\n"));
    assert!(done.text.contains("api_key: \"secret:API_KEY\"\n"));
    assert!(done.text.contains("miner_client:  # the agent\n"));
    assert!(done.text.contains("  volumes: [\"/data/minerhome:/root/.miner\"]\n"));
    assert!(done.text.contains("      - \"PASSWORD=secret:PASSWORD\"\n"));
    let names: Vec<&str> = done.secrets.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["API_KEY", "WANDB_API_KEY", "MINER_TOKEN", "PASSWORD"]);
    assert_eq!(done.changes.len(), 7, "{:?}", done.changes);
    let again = rewrite("q.yaml", &done.text).unwrap();
    assert_eq!((again.text, again.changes.len()), (done.text, 0));
}

#[test]
fn rewriting_takes_the_key_out_of_the_arguments() {
    for (text, wanted) in [
        (
            "name: a\nengine: vllm\nmodel: m\nextra_args: [--a, --api-key, sk-sample0123456789abcdef, --b]\n",
            "name: a\nengine: vllm\nmodel: m\napi_key: \"secret:API_KEY\"\nextra_args: [--a, --b]\n",
        ),
        (
            "name: a\nengine: vllm\nmodel: m\nextra_args:\n  - --a\n  - --api-key=sk-sample0123456789abcdef\n",
            "name: a\nengine: vllm\nmodel: m\napi_key: \"secret:API_KEY\"\nextra_args:\n  - --a\n",
        ),
    ] {
        let done = rewrite("a.yaml", text).unwrap();
        assert_eq!(done.text, wanted);
        assert_eq!(done.secrets, [("API_KEY".to_owned(), "sk-sample0123456789abcdef".to_owned())]);
    }
}

#[test]
fn what_rewriting_cannot_mend_is_said() {
    let text = "name: a\nengine: vlm\nmodel: m\napi_key: correct-horse-battery\n";
    let error = rewrite("a.yaml", text).unwrap_err();
    assert!(error.message().contains("`engine` is `vlm`"));
    assert!(error.hints().iter().any(|hint| hint.contains("by hand")));
    assert!(!everything(&error).contains("correct-horse"));
}

#[test]
fn what_is_risky_is_worth_a_word() {
    let text = "name: a\nengine: vllm\nmodel: m\nhost: 127.0.0.1\ncustom_service: {image: 'x:1'}\nextra_args: [--port=1]\n\
                extra_services:\n  x:\n    image: y:1\n    volumes: ['/var/run/docker.sock:/s']\n    ports: ['0.0.0.0:5:5']\n    \
                depends_on: {a: {condition: service_healthy}}\n";
    let parsed = deployment::parse("a", text).unwrap();
    let told: Vec<&str> = parsed.warnings.iter().map(|warning| warning.message.as_str()).collect();
    for wanted in [
        "own loopback",
        "trust_remote_code",
        "`port` decides",
        "old name",
        "not enabled",
        "Docker socket",
        "public address",
        "start only",
    ] {
        assert!(told.iter().any(|message| message.contains(wanted)), "{wanted}: {told:?}");
    }
    assert_eq!(told.len(), 8);
    assert!(parsed.warnings.iter().filter(|warning| warning.snippet.is_some()).count() == 7);
}

#[test]
fn bombs_and_knots_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let _ = writeln!(bomb, "a{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 9].join(", "));
    }
    for (text, wanted) in [
        (bomb.as_str(), "too large"),
        ("a: &a [*a]\n", "inside the value"),
        (&format!("a: {}{}\n", "[".repeat(80), "]".repeat(80)), "deeper than"),
        ("name: a\nname: b\n", "given twice"),
        ("name: a\n---\nname: b\n", "more than one document"),
        ("name:\n\t- a\n", "not valid YAML"),
        ("", "empty"),
    ] {
        let error = deployment::parse("x", text).unwrap_err();
        assert!(error.message().contains(wanted), "{text:.40}: {error}");
    }
    // Deep enough to overflow the stack of a parser that calls itself.
    for (open, close) in [("[", "]"), ("{a = ", "}"), ("{a: ", "}"), ("- ", "")] {
        let deep = format!("a = {}{}\n", open.repeat(100_000), close.repeat(100_000));
        assert!(super::parse("x", &deep).is_err());
        assert!(deployment::parse("x", &deep.replacen("a = ", "", 1)).is_err());
        assert!(deployment::parse("x", &open.repeat(200_000)).is_err());
    }
    for line in [format!("a{} = 1\n", ".a".repeat(200_000)), format!("[a{}]\n", ".a".repeat(200_000))] {
        assert!(super::parse("x", &line).is_err());
    }
    let long = format!("# {}\n", "x".repeat(2 << 20));
    assert!(deployment::parse("x", &long).unwrap_err().message().contains("more than"));
    assert!(super::parse("x", &long).unwrap_err().message().contains("more than"));
}

#[test]
fn places_count_bytes_where_the_parser_counts_characters() {
    let text = "# ümläut → 🦀\nname: é\nengine: vlm\n";
    let error = deployment::parse("x", text).unwrap_err();
    let all: Vec<&Error> = std::iter::once(&error).chain(error.related()).collect();
    let snippet = all.iter().find(|e| e.message().contains("engine")).unwrap().snippet().unwrap();
    assert_eq!(&text[snippet.span.clone()], "vlm");
}

#[test]
fn merge_keys_and_anchors_work() {
    let text = "name: a\nengine: vllm\nmodel: m\ntrust_remote_code: off\nport: \"8001\"\nextra_services:\n  x: &base\n    image: redis:7\n    environment: &env {A: \"1\", B: 2}\n  y:\n    <<: *base\n    environment: {<<: *env, A: \"3\"}\n";
    let parsed = deployment::parse("x", text).unwrap();
    let y = &parsed.deployment.extra_services["y"].common;
    assert_eq!(y.image.as_deref(), Some("redis:7"));
    assert_eq!((y.environment["A"].as_str(), y.environment["B"].as_str()), ("3", "2"));
    assert_eq!(parsed.deployment.port, 8001);
    assert!(!parsed.deployment.trust_remote_code);
}

#[test]
fn input_paths_are_all_that_a_profile_reads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/profile/valid/everything.toml");
    let profile = super::parse("everything.toml", &fs::read_to_string(path).unwrap()).unwrap();
    let paths: Vec<&str> = profile.input_paths().into_iter().collect();
    assert_eq!(
        paths,
        [
            "../deployments/qwen72b.yaml",
            "files/limits.conf",
            "keys/nvidia-container-toolkit.asc",
            "patches/pci-resize-resource.patch"
        ]
    );
    assert_eq!(profile.container.daemon["log-opts"]["max-size"], "10m");
}

proptest! {
    #[test]
    fn templates_parse(
        name in "[a-z][a-z0-9-]{0,20}",
        model in "[A-Za-z0-9][A-Za-z0-9._/\"\\\\é-]{0,30}",
        sglang in any::<bool>(),
        tensor_parallel in 1u32..16,
        port in 1u16..,
    ) {
        let engine = if sglang { Engine::Sglang } else { Engine::Vllm };
        let template = Template { tensor_parallel, port, ..Template::new(name, engine, model.clone(), "../d.yaml".into()) };
        let parsed = deployment::parse("d.yaml", &template::deployment(&template)).unwrap().deployment;
        prop_assert_eq!(&parsed.model, &model);
        prop_assert_eq!((parsed.port, parsed.tensor_parallel), (port, tensor_parallel));
        let profile = super::parse("p.toml", &template::profile(&template)).unwrap();
        prop_assert!(profile.images.contains_key(engine.name()));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*", yaml in "([a-z_]{1,8}: ?|- |[\\[{&*!'\"|>#\t é\u{85}\u{feff}-]|\n| {2}|[0-9]){0,60}") {
        let _ = super::parse("x", &text);
        let _ = image_definition::parse("x", &text);
        let _ = deployment::parse("x", &text);
        let _ = super::parse("x", &yaml);
        let _ = deployment::parse("x", &yaml);
        let _ = rewrite("x", &yaml);
    }

    #[test]
    fn broken_samples_never_panic(cut in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), c in any::<char>()) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
        for file in ["profile/valid/everything.toml", "image/valid/everything.toml", "deployment/valid/qwen72b.yaml"] {
            let mut text: Vec<char> = fs::read_to_string(dir.join(file)).unwrap().chars().collect();
            text.insert(cut.index(text.len()), c);
            text.remove(other.index(text.len()));
            let text: String = text.into_iter().collect();
            if file.ends_with(".toml") {
                let _ = super::parse("x", &text);
                let _ = image_definition::parse("x", &text);
            } else {
                let _ = deployment::parse("x", &text).map(|parsed| assert_rendered(&parsed.deployment));
                if let Ok(done) = rewrite("x", &text) {
                    prop_assert!(deployment::parse("x", &done.text).is_ok());
                }
            }
        }
    }

    #[test]
    fn whatever_is_in_the_environment_renders(value in any::<String>(), argument in any::<String>()) {
        let mut deployment = operator_file().deployment;
        deployment.env.insert("X".into(), value.clone());
        deployment.extra_args.push(argument);
        let text = services::render(&deployment);
        let node = tree_yaml::read(&text).map_err(|faults| TestCaseError::fail(format!("{faults:?}")))?;
        let shown = format!("{node:?}");
        let wanted = format!("{:?}", value.replace('$', "$$"));
        prop_assert!(shown.contains(&wanted), "{}", text);
    }
}

#[test]
fn shipped_examples_parse() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (dir, extension) in [("profiles", "toml"), ("images", "toml"), ("deployments", "yaml")] {
        let mut seen = 0;
        for entry in fs::read_dir(root.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|found| found != extension) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let failed = match dir {
                "profiles" => super::parse("example", &text).err(),
                "images" => image_definition::parse("example", &text).err(),
                _ => deployment::parse("example", &text).err(),
            };
            assert!(failed.is_none(), "{}:\n{}", path.display(), told(&failed.unwrap()));
            seen += 1;
        }
        assert!(seen >= 2, "{dir} holds examples");
    }
}

#[test]
fn shipped_images_fit_their_profiles() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let shown = path.display().to_string();
        let definition = image_definition::parse(&shown, &fs::read_to_string(&path).unwrap()).unwrap();
        let profile =
            super::parse(&definition.profile, &fs::read_to_string(dir.join(&definition.profile)).unwrap());
        definition.check(&shown, &profile.unwrap(), &definition.profile).unwrap();
    }
}
