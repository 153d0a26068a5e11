//! Checks on real sources: this machine, trees on disk, NVML through a stand-in library, a hub on loopback.

mod engine;
pub(crate) mod faults;
mod gpus;
mod host;
mod hub;
mod machine;
mod machines;
mod nvml;
mod smoke;
mod tree;

use bedplate::{
    check::report::{Finding, Layer, Outcome, Report},
    check::{Subject, judge},
    profile::{self, Deployment, Profile},
};

/// A profile of a host with GPUs.
pub(crate) const WITH_GPUS: &str = r#"
schema = 1
[host]
distribution = "debian"
release = "trixie"
architecture = "amd64"
pin-packages = false
[gpu]
model = "H100"
count = 8
[driver]
flavor = "open"
version = "550.163.01"
[container]
engine = "docker"
gpu-access = "cdi"
[images]
vllm = "vllm/vllm-openai:v0.11.0"
[[mount]]
path = "/data/minerhome"
mode = "0700"
owner = "root:root"
files = { "config.json" = "0600" }
[secrets]
HF_TOKEN = { env = "HF_TOKEN" }
"#;

pub(crate) const DEPLOYMENT: &str = "
name: tiny
engine: vllm
model: organisation/tiny
tensor_parallel: 2
";

pub(crate) fn profile() -> Profile {
    profile::parse("test.toml", WITH_GPUS).unwrap()
}

pub(crate) fn deployment() -> Deployment {
    profile::deployment::parse("tiny.yaml", DEPLOYMENT).unwrap().deployment
}

pub(crate) fn finding<'r>(report: &'r Report, id: &str) -> &'r Finding {
    report.findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("no `{id}`"))
}
