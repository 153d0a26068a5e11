//! Runs the probe in containers.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    IN_CONTAINER, PROGRAM, Ran, Reload, Smoke,
    container::{Lab, OUTPUT},
    reading,
};
use crate::{docker::NewContainer, error::Result, system::process::Command};

/// How long systemd may take to read its units anew, or to restart Docker: a stop waits for containers.
const SYSTEMD: Duration = Duration::from_secs(300);

/// Looks at GPUs from inside a new container.
///
/// # Errors
/// It could not be tried: the image is not on this host, the probe cannot be put there, or Docker cannot be asked.
pub async fn smoke(lab: Lab<'_>) -> Result<Smoke> {
    let wanted = lab.probe(&[]).await?;
    let ran = match lab.run(&wanted).await? {
        Ok(said) => match said.code {
            Some(code) => reading::ran(code, &said.out, &said.err),
            None => Ran::Hung(lab.limit.as_secs()),
        },
        Err(words) => reading::refused(&words),
    };
    Ok(Smoke { image: lab.key.to_owned(), ran })
}

/// Looks at GPUs from inside one container, has systemd read its units anew, and looks again.
///
/// # Errors
/// As [`smoke`]; systemd does not read them.
pub async fn reload(lab: Lab<'_>) -> Result<Reload> {
    let wanted = lab.probe(&["--hold"]).await?;
    let name = match lab.begin(&wanted).await? {
        Ok(name) => name,
        Err(words) => {
            let before = reading::refused(&words);
            return Ok(Reload { image: lab.key.to_owned(), after: before.clone(), before });
        }
    };
    let looked = async {
        let before = lab.again(&name).await?;
        Command::new("systemctl").arg("daemon-reload").timeout(SYSTEMD).check().await?;
        let after = lab.again(&name).await?;
        Ok(Reload { image: lab.key.to_owned(), before, after })
    }
    .await;
    lab.docker.remove_unstarted(&name).await?;
    looked
}

/// Restarts Docker.
///
/// # Errors
/// It does not come back.
pub async fn restart_engine() -> Result<()> {
    Command::new("systemctl")
        .args(["restart", "docker.service"])
        .timeout(SYSTEMD)
        .check()
        .await
        .map(drop)
        .map_err(|error| error.hint("see why: `journalctl -u docker -n 50`"))
}

impl Lab<'_> {
    async fn probe(&self, arguments: &[&str]) -> Result<NewContainer> {
        Ok(NewContainer {
            entrypoint: vec![IN_CONTAINER.to_owned()],
            command: arguments.iter().map(|&word| word.to_owned()).collect(),
            // Access to devices must not depend on the image's user: what is looked at is the way to the GPUs.
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            ..self.container(PROGRAM, IN_CONTAINER).await?
        })
    }

    /// Runs the probe once more in a container that runs.
    async fn again(&self, container: &str) -> Result<Ran> {
        let look = self.docker.exec(container, &[IN_CONTAINER], None);
        let Ok(output) = timeout(self.limit, look).await else {
            return Ok(Ran::Hung(self.limit.as_secs()));
        };
        let output = output?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(OUTPUT)]).into_owned();
        Ok(reading::ran(output.code, &text(&output.stdout), &text(&output.stderr)))
    }
}
