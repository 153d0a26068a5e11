//! What `init` writes: a profile and a deployment to start from, both with remarks, both of which parse.

use std::fmt::Write as _;

use super::{
    Deployment, SecretSource,
    deployment::Engine,
    services::{Role, services},
};

/// What the operator asked `init` for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Name of the profile and the deployment.
    pub name: String,
    /// The engine.
    pub engine: Engine,
    /// The model: a Hugging Face id, or a path.
    pub model: String,
    /// GPUs to shard over.
    pub tensor_parallel: u32,
    /// API port.
    pub port: u16,
    /// The deployment's path relative to the profile.
    pub deployment_path: String,
    /// Secrets and where they come from.
    pub secrets: Vec<(String, SecretSource)>,
    /// Directories of state besides the model cache: private ones, of an agent, with their identity file.
    pub agent_state: Vec<String>,
    /// The model cache.
    pub cache: String,
    /// Whether the deployment names its engine's image itself.
    pub names_image: bool,
}

impl Template {
    /// What a new deployment of this name starts with.
    pub fn new(name: String, engine: Engine, model: String, deployment_path: String) -> Self {
        Self {
            name,
            engine,
            model,
            tensor_parallel: 1,
            port: 8000,
            deployment_path,
            secrets: vec![("HF_TOKEN".to_owned(), SecretSource::Env("HF_TOKEN".to_owned()))],
            agent_state: Vec::new(),
            cache: "/data/huggingface".to_owned(),
            names_image: false,
        }
    }

    /// What a deployment there is needs of a profile. `moved`: secrets taken out of it, and where they are now.
    pub fn of(deployment: &Deployment, deployment_path: String, moved: &[(String, SecretSource)]) -> Self {
        let source = |name: &String| {
            let moved = moved.iter().find(|(moved, _)| moved == name);
            moved.map_or_else(|| SecretSource::Env(name.clone()), |(_, source)| source.clone())
        };
        let agents = services(deployment).into_iter().filter(|service| service.role == Role::Agent);
        Self {
            tensor_parallel: deployment.tensor_parallel,
            port: deployment.port,
            secrets: deployment.secrets().keys().map(|name| (name.clone(), source(name))).collect(),
            agent_state: agents
                .flat_map(|agent| agent.volumes)
                .filter(|volume| volume.source.starts_with('/') && !volume.read_only)
                .map(|volume| volume.source)
                .collect(),
            cache: deployment.hf_cache.clone(),
            names_image: deployment.image.is_some(),
            ..Self::new(deployment.name.clone(), deployment.engine, deployment.model.clone(), deployment_path)
        }
    }
}

fn secret_lines(template: &Template) -> String {
    let mut lines = String::new();
    for (name, source) in &template.secrets {
        let source = match source {
            SecretSource::Env(variable) => format!("env = {}", quoted(variable)),
            SecretSource::File(path) => format!("file = {}", quoted(path)),
            SecretSource::Credential(id) => format!("credential = {}", quoted(id)),
            SecretSource::Age(path) => format!("age = {}", quoted(path)),
            SecretSource::Command(argv) => {
                let argv: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
                format!("command = [{}]", argv.join(", "))
            }
        };
        let _ = writeln!(lines, "{name} = {{ {source} }}");
    }
    lines
}

fn agent_mounts(template: &Template) -> String {
    if template.agent_state.is_empty() {
        return "# With a node agent: its identity is private.\n# [[mount]]\n# path = \"/data/minerhome\"\n\
                # mode = \"0700\"\n# files = { \"config.json\" = \"0600\" }\n"
            .to_owned();
    }
    let mut text = "# The node agent's identity: private keys in clear.\n".to_owned();
    for path in &template.agent_state {
        let _ = write!(
            text,
            "[[mount]]\npath = {}\nmode = \"0700\"\nfiles = {{ \"config.json\" = \"0600\" }}\n",
            quoted(path)
        );
    }
    text
}

/// A string as JSON writes it, which TOML basic strings and YAML read the same.
fn quoted(text: &str) -> String {
    // TOML wants DEL escaped, which JSON does not ask for.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The engine image a new profile starts with.
fn image(engine: Engine) -> &'static str {
    match engine {
        Engine::Vllm => "vllm/vllm-openai:v0.11.0",
        Engine::Sglang => "lmsysorg/sglang:v0.5.4",
    }
}

/// A new profile.
pub fn profile(template: &Template) -> String {
    let description =
        quoted(&format!("Debian 13 host serving {} with {}", template.model, template.engine.name()));
    let own_image = if template.names_image {
        "# The engine's image is the one the deployment names; the lock pins it too.\n".to_owned()
    } else {
        format!("{} = \"{}\"\n", template.engine.name(), image(template.engine))
    };
    let count = template.tensor_parallel.clamp(1, 64);
    let (agents, secrets, cache) = (agent_mounts(template), secret_lines(template), quoted(&template.cache));
    let deployment = quoted(&template.deployment_path);
    format!(
        r#"# The host this deployment runs on. `bedplate lock` pins it, `bedplate provision` makes it.
schema = 1
description = {description}

[host]
distribution = "debian"
release = "trixie"
architecture = "amd64"
packages = []                    # a host needs a time service: "chrony", where none runs yet

[gpu]
# What images are judged against when no GPU is at hand; name yours.
model = "H100"
count = {count}

[driver]
flavor = "open"                  # open | proprietary | none (a host without GPUs)
version = "550.163.01"           # exact, or a branch such as "550"

[container]
engine = "docker"
gpu-access = "cdi"               # cdi | nvidia-runtime | none

[images]
# Every image this host may start. A tag names a version; the lock holds its digest.
{own_image}smoke = "nvidia/cuda:12.8.1-base-ubuntu24.04"

[[mount]]
# Directories that hold state: bedplate sets owner and mode, and never writes into them.
path = {cache}
mode = "0755"
owner = "root:root"

{agents}
[checks]
disk-free-gib = 50

[secrets]
# Where secrets come from, never their values: env | file | credential | age | command.
{secrets}
[deploy]
deployments = [{deployment}]
"#
    )
}

/// A new deployment.
pub fn deployment(template: &Template) -> String {
    format!(
        r"# One model served by one engine. `bedplate up -f` starts it.
name: {}
engine: {}
model: {}
# The image is the profile's `[images] {}`; name another one with `image:`.

port: {}                         # published on 127.0.0.1
tensor_parallel: {}
gpu_ids: all

# true runs code from the model's repository; some models need it.
trust_remote_code: false
# max_model_len: 32768

hf_cache: /data/huggingface
shm_size: 16g

# Secrets are named, never written here:
# api_key: secret:API_KEY          # needed before `publish: 0.0.0.0`

# dcgm_exporter:
#   enabled: true
#   image: nvcr.io/nvidia/k8s/dcgm-exporter:4.4.1-4.5.2-ubuntu22.04
",
        quoted(&template.name),
        template.engine.name(),
        quoted(&template.model),
        template.engine.name(),
        template.port,
        template.tensor_parallel,
    )
}
