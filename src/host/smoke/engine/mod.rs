//! An engine in its own image: a script of ours, run by the image's Python, imports `torch` and the engine and calculates on
//! each GPU (`load.py`).

mod reading;

use serde::{Deserialize, Serialize};

use super::Lab;
use crate::{
    docker::NewContainer,
    error::Result,
    lock::LockedImage,
    profile::{deployment::Engine, services::Service},
};

/// The script.
pub const SCRIPT: &str = include_str!("load.py");
/// Where it lies on the host.
pub const ON_HOST: &str = "/run/bedplate/exec/engine-smoke.py";
/// Where a container has it.
pub const IN_CONTAINER: &str = "/.bedplate/engine-smoke.py";
/// What images of vLLM call their Python, where its program is not named.
const PYTHON: &str = "python3";

/// What a deployment's engine came to in its own image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSmoke {
    /// The lock's name for the image.
    pub image: String,
    /// What came of it.
    pub ran: Ran,
}

/// What came of the script in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ran {
    /// Docker did not start the container, in its words.
    Refused(String),
    /// The image has no such program.
    NoPython {
        /// Its name.
        program: String,
        /// Whether the engine is started by it.
        starts: bool,
        /// Docker's words.
        words: String,
    },
    /// It ended without an answer that can be read.
    Ended {
        /// Its exit status.
        code: i64,
        /// The step it was at; absent where the script was not begun.
        at: Option<String>,
        /// Its last line.
        words: String,
    },
    /// It did not end in time.
    Hung {
        /// After so many seconds.
        seconds: u64,
        /// The step it was at; absent where the script was not begun.
        at: Option<String>,
    },
    /// What it saw.
    Saw(Seen),
}

/// What the script saw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// Version of Python.
    pub python: Option<String>,
    /// Version of `torch`; absent where it was not imported.
    pub torch: Option<String>,
    /// The CUDA release `torch` was built for; absent where it was built for none.
    pub cuda: Option<String>,
    /// What `torch` was compiled for: `sm_90`, `compute_90`.
    pub architectures: Vec<String>,
    /// How many devices CUDA counts; absent where it did not start.
    pub count: Option<u32>,
    /// The devices.
    pub devices: Vec<Used>,
    /// Version of the engine; absent where it was not imported.
    pub version: Option<String>,
    /// The modules that were imported.
    pub modules: Vec<String>,
    /// Kinds of parts that the engine has, none of whose names is in this version: `compiled code`, `server`.
    pub missing: Vec<String>,
    /// What failed, but for single devices, in the order it was tried.
    pub faults: Vec<Complaint>,
}

/// A device that was calculated on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Used {
    /// CUDA's index.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
    /// Compute capability.
    pub capability: Option<(u32, u32)>,
    /// Whether the result was right; absent where there is none.
    pub right: Option<bool>,
    /// What failed.
    pub fault: Option<Complaint>,
}

/// An exception.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Complaint {
    /// The step: `import torch`, `CUDA`, `GPU 0`, `import vllm`.
    pub at: String,
    /// Its type, such as `ImportError`.
    pub kind: String,
    /// Its words.
    pub words: String,
}

/// Loads an engine in a new container of its image, and calculates on each GPU. `service`: the engine's in its deployment.
///
/// # Errors
/// It could not be tried: the image is not on this host, the script cannot be put there, or Docker cannot be asked.
pub async fn load(lab: Lab<'_>, engine: Engine, service: &Service) -> Result<EngineSmoke> {
    let named = python(service, lab.image);
    let python = named.unwrap_or(PYTHON);
    let wanted = NewContainer {
        entrypoint: vec![python.to_owned()],
        command: vec![IN_CONTAINER.to_owned(), engine.name().to_owned()],
        environment: service.environment.clone(),
        user: service.user.clone(),
        working_dir: service.working_dir.clone(),
        cap_add: service.cap_add.clone(),
        cap_drop: service.cap_drop.clone(),
        shm_size: service.shm_size,
        ..lab.container(SCRIPT.as_bytes(), IN_CONTAINER).await?
    };
    let ran = match lab.run(&wanted).await? {
        Ok(said) => reading::ran(&said, lab.limit),
        Err(words) => reading::refused(python, named.is_some(), &words),
    };
    Ok(EngineSmoke { image: lab.key.to_owned(), ran })
}

/// The Python that starts the engine, where the entrypoint names one.
fn python<'a>(service: &'a Service, image: &'a LockedImage) -> Option<&'a str> {
    let entrypoint = service.entrypoint.as_ref().unwrap_or(&image.facts.entrypoint);
    entrypoint.first().map(String::as_str).filter(|word| {
        let name = word.rsplit('/').next().unwrap_or_default();
        let version = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || c == '.');
        name.strip_prefix("python").is_some_and(version)
    })
}
