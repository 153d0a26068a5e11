//! Runs the probe in containers.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{IN_CONTAINER, PROGRAM, Ran, Reload, Smoke, reading};
use crate::{
    docker::{Docker, Gpus, LogsWanted, Mount, MountKind, NewContainer},
    error::{Error, Result},
    lock::LockedImage,
    system::{
        files::{Owner, Root},
        process::Command,
    },
};

/// Label of the containers of smoke tests.
const LABEL: &str = "bedplate.smoke";
/// How long systemd may take to read its units anew, or to restart Docker: a stop waits for containers.
const SYSTEMD: Duration = Duration::from_secs(300);
/// How much output is read, in bytes.
const OUTPUT: usize = 64 << 10;

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
    let container = lab.container(&[]).await?;
    let ran = match lab.begin(&container).await {
        Ok(name) => {
            let ran = lab.until_it_ends(&name).await;
            lab.docker.remove_unstarted(&name).await?;
            ran?
        }
        Err(ran) => ran,
    };
    Ok(Smoke { image: lab.key.to_owned(), ran })
}

/// Looks at GPUs from inside one container, has systemd read its units anew, and looks again.
///
/// # Errors
/// As [`smoke`]; systemd does not read them.
pub async fn reload(lab: Lab<'_>) -> Result<Reload> {
    let container = lab.container(&["--hold"]).await?;
    let name = match lab.begin(&container).await {
        Ok(name) => name,
        Err(before) => {
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
        let found = docker
            .image_by_digest(&image.pull_reference(), &image.manifest, &image.config, image.index.as_ref())
            .await?;
        let Some((by_digest, _)) = found else {
            return Err(Error::failed(format!("image `{key}` is not on this host"))
                .hint("`bedplate provision` pulls what is locked"));
        };
        root.put_program(place, PROGRAM, Owner::current())?;
        Ok(NewContainer {
            name: format!("bedplate-smoke-{}", std::process::id()),
            image: by_digest,
            entrypoint: vec![IN_CONTAINER.to_owned()],
            command: arguments.iter().map(|&word| word.to_owned()).collect(),
            labels: BTreeMap::from([(LABEL.to_owned(), key.to_owned())]),
            // Access to devices must not depend on the image's user: what is looked at is the way to the GPUs.
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            mounts: vec![Mount {
                source: place.to_owned(),
                target: IN_CONTAINER.to_owned(),
                read_only: true,
                kind: MountKind::Bind,
            }],
            network: "none".to_owned(),
            gpus: self.gpus.cloned(),
            ..NewContainer::default()
        })
    }

    /// Makes and starts a container. `Err`: Docker did not start it, and nothing of it is left.
    async fn begin(&self, wanted: &NewContainer) -> std::result::Result<String, Ran> {
        let refused = |error: &Error| {
            let mut words = vec![error.message().to_owned()];
            words.extend(error.causes());
            reading::refused(&words.join(": "))
        };
        // What an interrupted run left; one that another run has at work is not touched.
        if let Ok(left) = self.docker.list_by_label(LABEL).await {
            for old in left {
                if let Ok(Some(found)) = self.docker.inspect(&old.id).await
                    && (!found.state.running || old.name == wanted.name)
                {
                    let _ = self.docker.remove_unstarted(&old.id).await;
                }
            }
        }
        let made = self.docker.create(wanted).await.map_err(|error| refused(&error))?;
        if let Err(error) = self.docker.start(&made).await {
            let ran = refused(&error);
            let _ = self.docker.remove_unstarted(&made).await;
            return Err(ran);
        }
        Ok(made)
    }

    /// Waits until a container ends, and reads what it said.
    async fn until_it_ends(&self, container: &str) -> Result<Ran> {
        let Ok(ended) = timeout(self.limit, self.docker.wait(container)).await else {
            return Ok(Ran::Hung(self.limit.as_secs()));
        };
        let code = ended?;
        let (mut said, mut complained) = (String::new(), String::new());
        let mut lines = std::pin::pin!(self.docker.logs(container, LogsWanted::default()));
        while let Some(line) = lines.next().await {
            let line = line?;
            let into = if line.stderr { &mut complained } else { &mut said };
            if into.len() < OUTPUT {
                into.push_str(&line.text);
                into.push('\n');
            }
        }
        Ok(reading::ran(code, &said, &complained))
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
