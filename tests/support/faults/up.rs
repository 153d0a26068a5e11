//! What shows only once a deployment is started.

use super::{Fault, Layer::Up};

pub(super) const FAULTS: &[Fault] = &[
    Fault::new(
        Up,
        "a run that changes the host was interrupted",
        &["up.readiness"],
        &["the journal"],
        ["echo '{}' >/var/lib/bedplate/journal", "rm /var/lib/bedplate/journal"],
    ),
    Fault::new(
        Up,
        "the engine ends while it loads",
        &["up.started"],
        &["the deployment"],
        ["deployment '$a extra_args: [\"--fail-with\", \"CUDA out of memory\"]'", "remove_lab"],
    )
    .often(),
    Fault::new(
        Up,
        "the engine is killed while it loads",
        &["up.started"],
        &["the deployment"],
        [
            "deployment '$a extra_args: [\"--loading-seconds\", \"600\"]'; once_up lab docker kill lab",
            "settle; remove_lab",
        ],
    ),
    Fault::new(
        Up,
        "the engine never gets ready",
        &["up.serving", "up.agent"],
        &["the deployment"],
        ["deployment '$a extra_args: [\"--never-ready\"]'", "remove_lab"],
    ),
    Fault::new(
        Up,
        "the engine serves another name",
        &["up.serving"],
        &["the deployment"],
        ["deployment '$a extra_args: [\"--served-model-name\", \"other\"]'", "remove_lab"],
    ),
    Fault::new(
        Up,
        "the agent does not get ready",
        &["up.agent"],
        &["the deployment"],
        [
            "deployment '/host_port/a \\  environment:\\n    MINER_VLLM_BASE_URL: \"http://127.0.0.1:1\"'",
            "remove_lab",
        ],
    ),
    Fault::new(
        Up,
        "a further service ends at once",
        &["up.started"],
        &["the deployment"],
        ["further '[\"/bin/false\"]'", "remove_lab"],
    ),
    Fault::new(
        Up,
        "a further service is killed at its memory limit",
        &["up.started"],
        &["the deployment"],
        [
            "further '[\"/bin/sh\", \"-c\", \"sleep 5; tail /dev/zero\"]'; \
             once_up lab-further docker update --memory 32m --memory-swap 32m lab-further",
            "settle; remove_lab",
        ],
    ),
];
