//! Runs the probe in containers.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    IN_CONTAINER, PROGRAM, Ran, Reload, Smoke,
    container::{self, OUTPUT},
    reading,
};
use crate::{
    docker::{Docker, Gpus, NewContainer},
    error::Result,
    lock::LockedImage,
    system::{
        files::{Owner, Root},
        process::Command,
    },
};

/// How long systemd may take to read its units anew, or to restart Docker: a stop waits for containers.
const SYSTEMD: Duration = Duration::from_secs(300);

/// Where and with what a smoke test runs.
#[derive(Clone, Copy)]
pub struct Lab<'a> {
    /// The container engine.
    pub docker: &'a Docker,
    /// The host.
    pub root: &'a Root,
    /// The lock's name for the image.
    pub key: &'a str,
    /// The image.
    pub image: &'a LockedImage,
    /// How GPUs are asked for; none to look without.
    pub gpus: Option<&'a Gpus>,
    /// Where the probe is put: [`super::ON_HOST`].
    pub place: &'a str,
    /// How long the probe may take: without persistence the driver takes seconds for each GPU.
    pub limit: Duration,
}

/// Looks at GPUs from inside a new container.
///
/// # Errors
/// It could not be tried: the image is not on this host, the probe cannot be put there, or Docker cannot be asked.
pub async fn smoke(lab: Lab<'_>) -> Result<Smoke> {
    let wanted = lab.container(&[]).await?;
    let ran = match container::run(lab.docker, &wanted, lab.limit).await? {
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
    let wanted = lab.container(&["--hold"]).await?;
    let name = match container::begin(lab.docker, &wanted).await? {
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
    async fn container(&self, arguments: &[&str]) -> Result<NewContainer> {
        let Self { docker, root, image, key, place, .. } = *self;
        let base = container::base(docker, (key, image), (place, IN_CONTAINER)).await?;
        root.put_program(place, PROGRAM, Owner::current())?;
        Ok(NewContainer {
            entrypoint: vec![IN_CONTAINER.to_owned()],
            command: arguments.iter().map(|&word| word.to_owned()).collect(),
            // Access to devices must not depend on the image's user: what is looked at is the way to the GPUs.
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            gpus: self.gpus.cloned(),
            ..base
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
