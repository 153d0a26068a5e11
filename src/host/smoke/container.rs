//! A container of a smoke test: started, waited for, heard, removed.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use tokio::time::timeout;

use crate::{
    docker::{Docker, Gpus, LogsWanted, Mount, MountKind, NewContainer},
    error::{Error, Result},
    lock::LockedImage,
    system::files::{Owner, Root},
};

/// Beginning of their names; the id of the process that made them follows.
const NAME: &str = "bedplate-smoke-";
/// Label of the containers of smoke tests.
const LABEL: &str = "bedplate.smoke";
/// How much is kept of each stream, in bytes.
pub(super) const OUTPUT: usize = 64 << 10;
/// How much of both is read, in bytes.
const READ: usize = 16 << 20;
/// How long Docker may take to tell what a container said that does not end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a container said.
pub(super) struct Said {
    /// Its exit status; absent where it did not end in time.
    pub(super) code: Option<i64>,
    /// The beginning of its standard output.
    pub(super) out: String,
    /// The end of what was read of its standard error.
    pub(super) err: String,
}

/// Whether the process that made a container of this name is gone.
fn is_left(name: &str) -> bool {
    let pid = name.strip_prefix(NAME).and_then(|rest| Pid::from_raw(rest.parse().ok()?));
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

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
    /// Where the program is put: [`super::ON_HOST`], [`super::engine::ON_HOST`].
    pub place: &'a str,
    /// How long the program may take: without persistence the driver takes seconds for each GPU.
    pub limit: Duration,
}

impl Lab<'_> {
    /// What every container of a smoke test has: an image by digest, the GPUs, no network, and one program of ours, which is put
    /// on the host.
    ///
    /// # Errors
    /// The image is not on this host; the program cannot be put there.
    pub(super) async fn container(&self, program: &[u8], inside: &str) -> Result<NewContainer> {
        let Self { docker, root, key, image, place, .. } = *self;
        let found = docker
            .image_by_digest(&image.pull_reference(), &image.manifest, &image.config, image.index.as_ref())
            .await?;
        let Some((by_digest, _)) = found else {
            return Err(Error::failed(format!("image `{key}` is not on this host"))
                .hint("`bedplate provision` pulls what is locked"));
        };
        root.put_program(place, program, Owner::current())?;
        Ok(NewContainer {
            name: format!("{NAME}{}", std::process::id()),
            image: by_digest,
            labels: BTreeMap::from([(LABEL.to_owned(), key.to_owned())]),
            mounts: vec![Mount {
                source: place.to_owned(),
                target: inside.to_owned(),
                read_only: true,
                kind: MountKind::Bind,
            }],
            network: "none".to_owned(),
            gpus: self.gpus.cloned(),
            ..NewContainer::default()
        })
    }

    /// Makes and starts a container. `Err` within: Docker does not start it, in its words; nothing of it is left.
    ///
    /// # Errors
    /// Docker did not answer, so that nothing is known.
    pub(super) async fn begin(&self, wanted: &NewContainer) -> Result<std::result::Result<String, String>> {
        let docker = self.docker;
        let refused = |error: &Error| {
            let mut words = vec![error.message().to_owned()];
            words.extend(error.causes());
            words.join(": ")
        };
        // What an interrupted run left; one that another run has at work is not touched.
        if let Ok(left) = docker.list_by_label(LABEL).await {
            for old in left {
                if let Ok(Some(found)) = docker.inspect(&old.id).await
                    && (!found.state.running || old.name == wanted.name || is_left(&old.name))
                {
                    let _ = docker.remove_unstarted(&old.id).await;
                }
            }
        }
        let made = match docker.create(wanted).await {
            Ok(made) => made,
            Err(error) if docker.answers_after(&error).await => return Ok(Err(refused(&error))),
            Err(error) => return Err(error),
        };
        if let Err(error) = docker.start(&made).await {
            let _ = docker.remove_unstarted(&made).await;
            return if docker.answers_after(&error).await { Ok(Err(refused(&error))) } else { Err(error) };
        }
        Ok(Ok(made))
    }

    /// Starts a container, waits until it ends, and removes it. `Err` within: Docker did not start it, in its words.
    ///
    /// # Errors
    /// Docker cannot be asked, or does not remove it.
    pub(super) async fn run(&self, wanted: &NewContainer) -> Result<std::result::Result<Said, String>> {
        let Self { docker, limit, .. } = *self;
        let name = match self.begin(wanted).await? {
            Ok(name) => name,
            Err(words) => return Ok(Err(words)),
        };
        let said = until_it_ends(docker, &name, limit).await;
        let removed = docker.remove_unstarted(&name).await;
        let said = said?;
        // One that hangs in the driver cannot be removed; a later run tries again. That it hangs is what counts.
        if said.code.is_some() {
            removed?;
        }
        Ok(Ok(said))
    }
}

async fn until_it_ends(docker: &Docker, container: &str, limit: Duration) -> Result<Said> {
    if let Ok(ended) = timeout(limit, docker.wait(container)).await {
        let code = ended?;
        let (out, err) = heard(docker, container).await?;
        return Ok(Said { code: Some(code), out, err });
    }
    let (out, err) =
        timeout(PATIENCE, heard(docker, container)).await.unwrap_or_else(|_| Ok(<_>::default()))?;
    Ok(Said { code: None, out, err })
}

/// What a container said so far: the beginning of its output, the end of its complaints.
async fn heard(docker: &Docker, container: &str) -> Result<(String, String)> {
    let (mut out, mut err) = (String::new(), String::new());
    let mut read = 0;
    let mut lines = std::pin::pin!(docker.logs(container, LogsWanted::default()));
    while let Some(line) = lines.next().await {
        let line = line?;
        read += line.text.len() + 1;
        if line.stderr {
            err.push_str(&line.text);
            err.push('\n');
            if err.len() > 2 * OUTPUT {
                err = end_of(&err).to_owned();
            }
        } else if out.len() < OUTPUT {
            out.push_str(&line.text);
            out.push('\n');
        }
        if read > READ {
            break;
        }
    }
    Ok((out, end_of(&err).to_owned()))
}

fn end_of(text: &str) -> &str {
    let at = text.len().saturating_sub(OUTPUT);
    let at = (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(at..).unwrap_or_default()
}
