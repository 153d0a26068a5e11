//! One symptom in a container's last lines: what it means, which layer is to blame, and one fix.

use super::report::Layer;

/// What a line in a log means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symptom {
    /// What stands in the log.
    pub text: &'static str,
    /// Who is to blame.
    pub layer: Layer,
    /// What it means.
    pub means: &'static str,
    /// What to do.
    pub next: &'static str,
}

/// Symptoms, most telling first. From the catalogue of checks, "Diagnosis".
const SYMPTOMS: &[Symptom] = &[
    Symptom {
        text: "Driver/library version mismatch",
        layer: Layer::Doctor,
        means: "the driver was upgraded under the loaded module",
        next: "reboot the host, then `bedplate doctor`",
    },
    Symptom {
        text: "could not select device driver",
        layer: Layer::Toolkit,
        means: "Docker has no way to give GPUs to containers",
        next: "`bedplate toolkit verify`",
    },
    Symptom {
        text: "unresolvable CDI devices",
        layer: Layer::Toolkit,
        means: "the CDI specification does not have the GPUs asked for",
        next: "`bedplate toolkit verify`",
    },
    Symptom {
        text: "unsatisfied condition: cuda",
        layer: Layer::Runtime,
        means: "the image wants a newer driver",
        next: "`bedplate runtime prepare` says which clause decides",
    },
    Symptom {
        text: "no kernel image is available",
        layer: Layer::Runtime,
        means: "the image was built for other GPUs",
        next: "lock an image built for this GPU's compute capability",
    },
    Symptom {
        text: "unsupported toolchain",
        layer: Layer::Runtime,
        means: "the image holds PTX newer than the driver",
        next: "lock an image of an older CUDA release, or a newer driver",
    },
    Symptom {
        text: "CUDA out of memory",
        layer: Layer::Up,
        means: "the GPU's memory does not hold the model, or another process has it",
        next: "`nvidia-smi` shows who has the memory; else raise `tensor_parallel` or lower `max_model_len`",
    },
    Symptom {
        text: "torch.OutOfMemoryError",
        layer: Layer::Up,
        means: "the GPU's memory does not hold the model, or another process has it",
        next: "`nvidia-smi` shows who has the memory; else raise `tensor_parallel` or lower `max_model_len`",
    },
    Symptom {
        text: "GatedRepoError",
        layer: Layer::Runtime,
        means: "the model's licence was not accepted with this token",
        next: "`bedplate runtime prepare --require-hf-token`",
    },
    Symptom {
        text: "401 Client Error",
        layer: Layer::Runtime,
        means: "the hub wants a valid token",
        next: "`bedplate runtime prepare --require-hf-token`",
    },
    Symptom {
        text: "403 Client Error",
        layer: Layer::Runtime,
        means: "the token has no access to the model",
        next: "`bedplate runtime prepare --require-hf-token`",
    },
    Symptom {
        text: "No space left on device",
        layer: Layer::Doctor,
        means: "a file system is full",
        next: "`bedplate doctor` says which, and how much is wanted",
    },
    Symptom {
        text: "error 804",
        layer: Layer::Doctor,
        means: "forward compatibility on a GPU that has none, or user space upgraded under the loaded module",
        next: "`bedplate doctor`; after an upgrade, reboot",
    },
    Symptom {
        text: "error 803",
        layer: Layer::Runtime,
        means: "compatibility libraries in the image shadow a driver that is new enough",
        next: "lock an image without `cuda-compat`, or remove `LD_LIBRARY_PATH` from the deployment's `env`",
    },
    Symptom {
        text: "error 802",
        layer: Layer::Doctor,
        means: "the GPUs' fabric is not up: Fabric Manager is absent, of another version, or not done",
        next: "`systemctl status nvidia-fabricmanager`",
    },
    Symptom {
        text: "Address already in use",
        layer: Layer::Doctor,
        means: "another program has the port",
        next: "`bedplate doctor` names it",
    },
];

/// The symptom in these lines, the most telling first.
pub fn find<'l>(lines: impl IntoIterator<Item = &'l String>) -> Option<&'static Symptom> {
    let lines: Vec<String> = lines.into_iter().map(|line| line.to_lowercase()).collect();
    SYMPTOMS.iter().find(|symptom| lines.iter().any(|line| line.contains(&symptom.text.to_lowercase())))
}

/// A layer as people call it.
pub fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::Doctor => "the host (`doctor`)",
        Layer::Toolkit => "GPU access (`toolkit`)",
        Layer::Runtime => "the engine image (`runtime`)",
        Layer::Up => "the deployment (`up`)",
    }
}
