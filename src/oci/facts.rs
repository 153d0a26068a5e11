//! What an image's configuration says about the image (OCI image specification, config.md).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::platform::Platform;

/// Facts read from an image's configuration, and nowhere else. Absent means unknown, never "fine".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFacts {
    /// `GOOS` the configuration names.
    pub os: String,
    /// `GOARCH` the configuration names.
    pub architecture: String,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// `CUDA_VERSION`.
    pub cuda: Option<String>,
    /// Every `NVIDIA_REQUIRE_*`: variable to requirement.
    pub require: BTreeMap<String, String>,
    /// `NVIDIA_DISABLE_REQUIRE` is true, as Go's `strconv.ParseBool` reads it, which the container
    /// toolkit uses.
    pub disable_require: bool,
    /// The entrypoint.
    pub entrypoint: Vec<String>,
    /// The command.
    pub command: Vec<String>,
    /// The user, as the configuration writes it; `None` where it names none (then it is root).
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Exposed ports, as `8000/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// The whole environment. Where a variable is set twice the last one counts.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made, as the configuration writes it (RFC 3339).
    pub created: Option<String>,
    /// The product's version: label `org.opencontainers.image.version`.
    pub version: Option<String>,
}

// Only what is read: a field of no use to us that a builder got wrong must not make an image unusable.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    created: Option<String>,
    config: Option<WireConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct WireConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    exposed_ports: Option<serde_json::Map<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, Option<String>>>,
}

impl ImageFacts {
    /// Reads the facts from a configuration blob.
    pub fn parse(config: &[u8]) -> Result<Self, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(config)?;
        let config = wire.config.unwrap_or_default();
        let env: BTreeMap<String, String> = config
            .env
            .unwrap_or_default()
            .iter()
            .map(|line| line.split_once('=').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let labels: BTreeMap<String, String> = config
            .labels
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, value.unwrap_or_default()))
            .collect();
        let set = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            os: wire.os,
            architecture: wire.architecture,
            variant: set(wire.variant),
            cuda: set(env.get("CUDA_VERSION").cloned()),
            require: env
                .iter()
                .filter(|(name, value)| name.starts_with("NVIDIA_REQUIRE_") && !value.is_empty())
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            disable_require: env
                .get("NVIDIA_DISABLE_REQUIRE")
                .is_some_and(|v| matches!(v.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")),
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            user: set(config.user),
            working_dir: set(config.working_dir),
            exposed_ports: config
                .exposed_ports
                .unwrap_or_default()
                .into_iter()
                .map(|(port, _)| port)
                .collect(),
            version: set(labels.get("org.opencontainers.image.version").cloned()),
            env,
            labels,
            created: set(wire.created),
        })
    }

    /// The platform the configuration names.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cuda_image() {
        let facts = ImageFacts::parse(
            br#"{"architecture":"amd64","os":"linux","created":"2025-10-02T03:04:05Z","config":{
                "Env":["PATH=/bin","CUDA_VERSION=12.4.1","CUDA_VERSION=12.8.1",
                  "NVIDIA_REQUIRE_CUDA=cuda>=12.8 brand=tesla,driver>=535","NVIDIA_REQUIRE_ARCH=arch>=8.0",
                  "NVIDIA_REQUIRE_EMPTY=","NVIDIA_DISABLE_REQUIRE=true","ODD"],
                "Entrypoint":["vllm","serve"],"Cmd":null,"User":"","ExposedPorts":{"8000/tcp":{}},
                "Labels":{"org.opencontainers.image.version":"0.11.0","odd":null}},
                "rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        assert_eq!(facts.cuda.as_deref(), Some("12.8.1"));
        let require: Vec<_> = facts.require.keys().map(String::as_str).collect();
        assert_eq!(require, ["NVIDIA_REQUIRE_ARCH", "NVIDIA_REQUIRE_CUDA"]);
        assert!(facts.disable_require);
        assert_eq!(facts.entrypoint, ["vllm", "serve"]);
        assert!(facts.command.is_empty());
        assert_eq!(facts.user, None);
        assert_eq!(facts.exposed_ports.iter().collect::<Vec<_>>(), ["8000/tcp"]);
        assert_eq!(facts.version.as_deref(), Some("0.11.0"));
        assert_eq!(facts.env["ODD"], "");
        assert_eq!(facts.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn absent_is_unknown() {
        let facts = ImageFacts::parse(br#"{"architecture":"amd64","os":"linux"}"#).unwrap();
        assert_eq!(facts.cuda, None);
        assert!(facts.require.is_empty() && !facts.disable_require && facts.user.is_none());
        for off in ["0", "false", "yes", ""] {
            let json = format!(r#"{{"config":{{"Env":["NVIDIA_DISABLE_REQUIRE={off}"]}}}}"#);
            assert!(!ImageFacts::parse(json.as_bytes()).unwrap().disable_require, "{off}");
        }
    }

    proptest! {
        #[test]
        fn hostile_json_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            field in "(os|config|created|variant)", value in "(1|null|\"x\"|\\[\\]|\\{\"Env\":[0-9]\\}|\\{\"Labels\":\\[\\]\\})",
        ) {
            let _ = ImageFacts::parse(&bytes);
            let _ = ImageFacts::parse(format!("{{\"{field}\":{value}}}").as_bytes());
        }
    }
}
