//! Images, access to the model, the cache.

use super::{Fault, Layer::Runtime};

pub(super) const FAULTS: &[Fault] = &[
    Fault::new(
        Runtime,
        "the engine's image is gone",
        &["image.present"],
        &["the engine's image", "Docker"],
        ["remove_engine", "engine_as_it_was"],
    ),
    Fault::new(
        Runtime,
        "the wrong image under the right name",
        &["image.present"],
        &["the engine's image", "Docker"],
        ["remove_engine; docker tag $(id exporter) $engine", "docker rmi $engine; engine_as_it_was"],
    )
    .often(),
    Fault::new(
        Runtime,
        "an image of another architecture under the right name",
        &["image.present"],
        &["the engine's image", "Docker"],
        [
            "remove_engine; docker pull -q --platform linux/arm64 $engine",
            "docker rmi $engine; engine_as_it_was",
        ],
    )
    .often(),
    Fault::new(
        Runtime,
        "an image that the lock does not have",
        &["image.locked"],
        &["the deployment"],
        ["deployment 's/agent:1.0/agent:1.1/'", ""],
    ),
    Fault::new(
        Runtime,
        "the profile was changed after it was locked",
        &["image.locked"],
        &["another profile"],
        ["sed -i 's/= 262144/= 524288/' $profile", "profile_as_it_was"],
    )
    .by("runtime prepare --engine vllm --profile $profile"),
    Fault::new(
        Runtime,
        "the lock is gone",
        &["image.locked"],
        &["another profile"],
        ["mv ${profile%.toml}.lock $kept/lock", "mv $kept/lock ${profile%.toml}.lock"],
    )
    .by("runtime prepare --engine vllm --profile $profile"),
    Fault::new(
        Runtime,
        "the model is gated, and there is no token",
        &["runtime.hf-token", "runtime.cache"],
        &["the deployment"],
        ["model lab/gated; mv $secrets/HF_TOKEN /run/lab-token", "mv /run/lab-token $secrets/HF_TOKEN"],
    )
    .often(),
    Fault::new(
        Runtime,
        "the licence of the model was not accepted",
        &["runtime.hf-token", "runtime.cache"],
        &["the deployment"],
        ["model lab/gated", ""],
    ),
    Fault::new(
        Runtime,
        "the hub refuses the token",
        &["runtime.hf-token", "runtime.cache"],
        &["the deployment"],
        ["model lab/refused", ""],
    ),
    Fault::new(
        Runtime,
        "the hub has no such model",
        &["runtime.hf-token", "runtime.cache"],
        &["the deployment"],
        ["model lab/none", ""],
    ),
    Fault::new(
        Runtime,
        "the hub is broken",
        &["runtime.hf-token", "runtime.cache"],
        &["the deployment"],
        ["model lab/broken", ""],
    ),
    Fault::new(
        Runtime,
        "the hub cannot be reached",
        &["runtime.hf-token", "runtime.cache"],
        &["the deployment"],
        ["model lab/open; hub_at 8098", "hub_at 8099"],
    ),
    Fault::new(
        Runtime,
        "the cache is mounted read-only",
        &["runtime.cache"],
        &["the cache"],
        [
            "mount --bind /data/huggingface /data/huggingface; mount -o remount,bind,ro /data/huggingface",
            "umount /data/huggingface",
        ],
    ),
    Fault::new(
        Runtime,
        "the cache is immutable",
        &["runtime.cache"],
        &["the cache"],
        ["immutable 16 /data/huggingface", "immutable 0 /data/huggingface"],
    ),
    Fault::new(
        Runtime,
        "a file stands in place of the cache",
        &["runtime.cache"],
        &["the deployment"],
        ["deployment '$a hf_cache: /data/lab-cache'; : >/data/lab-cache", "rm /data/lab-cache"],
    ),
    Fault::new(
        Runtime,
        "the cache is reached through a link",
        &["runtime.cache"],
        &["the deployment"],
        ["deployment '$a hf_cache: /data/lab-cache'; ln -s /root /data/lab-cache", "rm /data/lab-cache"],
    ),
    Fault::new(
        Runtime,
        "the model's directory is not there",
        &["runtime.cache"],
        &["the deployment"],
        ["model /root/.cache/huggingface/lab", ""],
    ),
    Fault::new(
        Runtime,
        "the model's directory has no weights",
        &["runtime.cache"],
        &["the deployment", "the cache"],
        [
            "model /root/.cache/huggingface/lab; mkdir /data/huggingface/lab; echo '{}' >/data/huggingface/lab/config.json",
            "rm -r /data/huggingface/lab",
        ],
    ),
];
