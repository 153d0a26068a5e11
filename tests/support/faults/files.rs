//! Private files, secrets, and tokens where they do not belong.

use super::{Fault, Layer::Doctor};

pub(super) const FAULTS: &[Fault] = &[
    Fault::new(
        Doctor,
        "the identity file can be read by others",
        &["secret.modes"],
        &["the identity file"],
        ["chmod 0644 $identity", "chmod 0600 $identity"],
    )
    .often(),
    Fault::new(
        Doctor,
        "a link stands in place of the identity file",
        &["secret.modes"],
        &["the identity file"],
        ["mv $identity $kept/identity; ln -s $kept/identity $identity", "mv -T $kept/identity $identity"],
    )
    .often(),
    Fault::new(
        Doctor,
        "the identity file belongs to another user",
        &["secret.modes"],
        &["the identity file"],
        ["chown nobody $identity", "chown root $identity"],
    ),
    Fault::new(
        Doctor,
        "the identity's directory can be read by others",
        &["secret.modes"],
        &["the identity's directory"],
        ["chmod 0755 /data/minerhome", "chmod 0700 /data/minerhome"],
    ),
    Fault::new(
        Doctor,
        "the identity's directory belongs to another user",
        &["secret.modes"],
        &["the identity's directory"],
        ["chown operator:operator /data/minerhome", "chown root:root /data/minerhome"],
    ),
    Fault::new(
        Doctor,
        "anyone may write into the directory above the identity's",
        &["secret.modes"],
        &["/data"],
        ["chmod 0777 /data", "chmod 0755 /data"],
    ),
    Fault::new(
        Doctor,
        "the directory above the identity's belongs to another user",
        &["secret.modes"],
        &["/data"],
        ["chown operator /data", "chown root /data"],
    ),
    Fault::new(
        Doctor,
        "a mount of the profile is gone",
        &["secret.modes"],
        &["the cache"],
        ["mv /data/huggingface /data/away", "mv /data/away /data/huggingface"],
    ),
    Fault::new(
        Doctor,
        "a mount of the profile is reached through a link",
        &["secret.modes"],
        &["the cache"],
        [
            "mv /data/huggingface /data/away; ln -s away /data/huggingface",
            "rm /data/huggingface; mv /data/away /data/huggingface",
        ],
    ),
    Fault::new(
        Doctor,
        "a secret can be read by others",
        &["secret.modes"],
        &["the agent's token"],
        ["chmod 0444 $secrets/MINER_TOKEN", "chmod 0400 $secrets/MINER_TOKEN"],
    ),
    Fault::new(
        Doctor,
        "the directory of secrets is open to others",
        &["secret.modes"],
        &["the directory of secrets"],
        ["chmod 0755 $secrets", "chmod 0700 $secrets"],
    ),
    Fault::new(
        Doctor,
        "a link stands in place of a secret",
        &["secret.modes"],
        &["the agent's token"],
        [
            // Never on a disk.
            "mv $secrets/MINER_TOKEN /run/lab-secret; ln -s /run/lab-secret $secrets/MINER_TOKEN",
            "mv -T /run/lab-secret $secrets/MINER_TOKEN",
        ],
    ),
    Fault::new(
        Doctor,
        "a secret is gone",
        &["secret.present"],
        &["the API key"],
        ["mv $secrets/ENGINE_API_KEY /run/lab-key", "mv /run/lab-key $secrets/ENGINE_API_KEY"],
    )
    .often(),
    Fault::new(
        Doctor,
        "a secret is empty",
        &["secret.present"],
        &["the API key"],
        [
            "mv $secrets/ENGINE_API_KEY /run/lab-key; install -m 0400 /dev/null $secrets/ENGINE_API_KEY",
            "mv /run/lab-key $secrets/ENGINE_API_KEY",
        ],
    ),
    Fault::new(
        Doctor,
        "registry passwords can be read by others",
        &["secret.modes"],
        &["Docker's client configuration"],
        [
            "mkdir -p /root/.docker; echo '{}' >/root/.docker/config.json; chmod 0644 /root/.docker/config.json",
            "rm -r /root/.docker",
        ],
    ),
    Fault::new(
        Doctor,
        "a registry password in clear",
        &["secret.modes"],
        &["Docker's client configuration"],
        [
            "mkdir -p /root/.docker; \
             echo '{\"auths\": {\"registry.example\": {\"auth\": \"dTpw\"}}}' >/root/.docker/config.json; \
             chmod 0600 /root/.docker/config.json",
            "rm -r /root/.docker",
        ],
    )
    .warns(),
    Fault::new(
        Doctor,
        "a token in a YAML file",
        &["secret.leaks"],
        &["YAML below /root"],
        [
            "mkdir -p /root/old; printf 'name: old\\nenv:\\n  HF_TOKEN: %s\\n' $token >/root/old/qwen72b.yaml",
            "rm -r /root/old",
        ],
    )
    .often(),
    Fault::new(
        Doctor,
        "a token in a `.env` file",
        &["secret.leaks"],
        &["the operator's `.env`"],
        [
            "mkdir /home/operator/stack; echo \"HF_TOKEN=$token\" >/home/operator/stack/.env",
            "rm -r /home/operator/stack",
        ],
    ),
    Fault::new(
        Doctor,
        "a token in a shell's profile",
        &["secret.leaks"],
        &["the operator's profile"],
        [
            "cp -p /home/operator/.profile $kept/profile; echo \"export HF_TOKEN=$token\" >>/home/operator/.profile",
            "mv $kept/profile /home/operator/.profile",
        ],
    ),
];
