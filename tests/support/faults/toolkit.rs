//! Docker: whether it runs, and how it is set up.

use super::{Fault, Layer::Toolkit};

pub(super) const FAULTS: &[Fault] = &[
    Fault::new(
        Toolkit,
        "Docker is stopped",
        &["docker.daemon"],
        &["Docker"],
        ["systemctl stop docker.socket docker.service", "restart_docker"],
    ),
    Fault::new(
        Toolkit,
        "`daemon.json` is not JSON",
        &["docker.daemon"],
        &["daemon.json"],
        ["daemon_json '{\"live-restore\": true,}'", "daemon_json"],
    )
    .often(),
    Fault::new(
        Toolkit,
        "`daemon.json` is not JSON, and Docker was restarted",
        &["docker.daemon"],
        &["Docker", "daemon.json"],
        [
            "daemon_json '{\"live-restore\": true,}'; ! restart_docker 2>/dev/null",
            "daemon_json; restart_docker",
        ],
    ),
    Fault::new(
        Toolkit,
        "Docker's socket is gone",
        &["docker.daemon"],
        &["Docker"],
        ["mv /run/docker.sock /run/lab-docker.sock", "mv /run/lab-docker.sock /run/docker.sock"],
    ),
    Fault::new(
        Toolkit,
        "Docker hangs",
        &["docker.daemon"],
        &["Docker"],
        ["kill -STOP $(cat /run/docker.pid)", "kill -CONT $(cat /run/docker.pid)"],
    ),
    Fault::new(
        Toolkit,
        "Docker runs with another configuration than is written",
        &["docker.live-restore"],
        &["daemon.json"],
        ["daemon_json '{\"live-restore\": true}'", "daemon_json"],
    )
    .warns(),
    Fault::new(
        Toolkit,
        "Docker keeps its data where the snap package does",
        &["docker.daemon"],
        &["Docker", "daemon.json"],
        [
            "docker_with '{\"data-root\": \"/var/snap/docker/common/var-lib-docker\"}'",
            "docker_without; rm -rf /var/snap",
        ],
    ),
    Fault::new(
        Toolkit,
        "Docker's storage driver copies every layer",
        &["docker.storage"],
        &["Docker", "daemon.json"],
        ["docker_with '{\"storage-driver\": \"vfs\"}'", "docker_without"],
    ),
    Fault::new(
        Toolkit,
        "Docker's data lie in memory",
        &["docker.storage"],
        &["Docker", "daemon.json"],
        [
            "mkdir $kept/data; mount -t tmpfs -o size=4g tmpfs $kept/data; docker_with \"{\\\"data-root\\\": \\\"$kept/data\\\"}\"",
            "docker_without; umount $kept/data; rmdir $kept/data",
        ],
    ),
];
