//! What `init` writes: a profile and a deployment to start from, both with remarks, both of which parse.

use super::deployment::Engine;

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
    let (engine, image, count) =
        (template.engine.name(), image(template.engine), template.tensor_parallel.clamp(1, 64));
    let deployment = quoted(&template.deployment_path);
    format!(
        r#"# The host this deployment runs on. `bedplate lock` pins it, `bedplate provision` makes it.
schema = 1
description = {description}

[host]
distribution = "debian"
release = "trixie"
architecture = "amd64"
packages = []

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
{engine} = "{image}"
smoke = "nvidia/cuda:12.8.1-base-ubuntu24.04"

[[mount]]
# Directories that hold state: bedplate sets owner and mode, and never writes into them.
path = "/data/huggingface"
mode = "0755"
owner = "root:root"

# With a node agent: its identity is private.
# [[mount]]
# path = "/data/minerhome"
# mode = "0700"
# files = {{ "config.json" = "0600" }}

[checks]
disk-free-gib = 50

[secrets]
# Where secrets come from, never their values: env | file | credential | age | command.
HF_TOKEN = {{ env = "HF_TOKEN" }}

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
