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
        ["engine_alone; deployment '$a extra_args: [\"--fail-with\", \"CUDA out of memory\"]'", ""],
    )
    .often(),
    Fault::new(
        Up,
        "the engine is killed while it loads",
        &["up.started"],
        &["the deployment"],
        [
            "engine_alone; deployment '$a extra_args: [\"--loading-seconds\", \"600\"]'; once_up try docker kill try",
            "settle",
        ],
    ),
    Fault::new(
        Up,
        "the engine never gets ready",
        &["up.serving"],
        &["the deployment"],
        ["engine_alone; deployment '$a extra_args: [\"--never-ready\"]'", ""],
    ),
    Fault::new(
        Up,
        "the engine serves another name",
        &["up.serving"],
        &["the deployment"],
        ["engine_alone; deployment '$a extra_args: [\"--served-model-name\", \"other\"]'", ""],
    ),
    Fault::new(
        Up,
        "the agent does not get ready",
        &["up.agent"],
        &["the deployment"],
        ["deployment '/host_port/a \\  environment:\\n    MINER_VLLM_BASE_URL: \"http://127.0.0.1:1\"'", ""],
    )
    // The engine has to serve first, which takes its time on a machine that is emulated.
    .by("up -f $lab/lab.yaml --timeout 90"),
    Fault::new(
        Up,
        "a further service ends at once",
        &["up.started"],
        &["the deployment"],
        ["engine_alone; further '[\"/bin/false\"]'", ""],
    ),
    Fault::new(
        Up,
        "a further service is killed at its memory limit",
        &["up.started"],
        &["the deployment"],
        [
            // The engine is not there before it: its end is what ends the wait.
            "engine_alone; deployment '$a extra_args: [\"--loading-seconds\", \"600\"]'; \
             further '[\"/bin/sh\", \"-c\", \"while grep -q max /sys/fs/cgroup/memory.max; do sleep 1; done; tail /dev/zero\"]'; \
             once_up try-further docker update --memory 32m --memory-swap 32m try-further",
            "settle",
        ],
    )
    .by("up -f $lab/lab.yaml --timeout 90"),
];
