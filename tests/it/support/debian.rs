//! Trees of Debian, made by mmdebstrap from the machine's own archive.

use std::{path::Path, process::Command};

/// Makes `root` in `dir`: that release with apt and these packages besides, as apt is set up here.
pub(crate) fn tree(release: &str, include: &[&str], dir: &Path) {
    let (main, security) = crate::apt::oracle::mirrors();
    let keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let sources =
        format!("deb {keyring} {main} {release} main\ndeb {keyring} {security} {release}-security main\n");
    std::fs::write(dir.join("sources.list"), sources).unwrap();
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=apt", "--mode=root", "--architectures=amd64"]);
    if !include.is_empty() {
        command.arg(format!("--include={}", include.join(",")));
    }
    for option in ["path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*", "force-unsafe-io"] {
        command.arg(format!("--dpkgopt={option}"));
    }
    // A proxy, or a frozen archive whose dates have passed.
    let dump = Command::new("apt-config").arg("dump").output().unwrap();
    for line in String::from_utf8_lossy(&dump.stdout).lines() {
        let kept = ["Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Retries"];
        if kept.iter().any(|start| line.starts_with(start)) {
            command.arg(format!("--aptopt={line}"));
        }
    }
    command.arg(release).arg(dir.join("root")).arg(dir.join("sources.list"));
    let output = command.output().expect("mmdebstrap is installed");
    assert!(output.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&output.stderr));
}
