//! What is checked: the current generation of this host, or a profile the user named.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;

use super::{Context, inputs, inputs::Sources};
use crate::{
    check::{self, Locked, Subject, report::Report},
    deploy::{Paths, spec::all_gpus, state, state::WantedState},
    digest::Digest,
    docker::Docker,
    error::{Error, Result},
    host::{
        cdi,
        facts::{self, Facts, Known, Wanted},
        generations::{Generation, Generations},
        provision, smoke,
    },
    lock::{
        self, Lock,
        bundle::{Bundle, Pinned},
    },
    plan::line_diff,
    profile::{Deployment, GpuAccess, Profile},
    progress::{Event, Unit},
    system::files::Root,
    ui::text,
};

/// The check that a container decides.
pub const SMOKE: &str = "toolkit.smoke";
/// How long the probe may take: a driver without persistence takes seconds for each of eight GPUs.
const SMOKE_LIMIT: Duration = Duration::from_secs(120);

/// A profile to judge by, with its lock and deployments, and the generation it is, if it is one.
pub struct Held {
    /// The profile.
    pub profile: Profile,
    /// Its lock, and why that is stale.
    pub lock: Option<(Lock, Option<String>)>,
    /// Its deployments.
    pub deployments: Vec<Deployment>,
    /// The generation and its lock's digest, where this is what the host has.
    pub generation: Option<(u64, Digest)>,
}

impl Held {
    /// The profile named; else the current generation's on a provisioned host; else the only one here.
    pub fn find(context: &Context, root: &Root, named: Option<&str>) -> Result<Self> {
        if named.is_none()
            && let Some((generation, pinned)) = current(root)?
        {
            return Ok(Self::of_generation(&generation, pinned));
        }
        let sources = Sources::read(context, named)?;
        let lock = sources.lock(context)?.map(|(_, lock)| {
            let deployments: Vec<_> = sources.deployments.values().collect();
            let inputs =
                lock::inputs(&sources.file_name(), &sources.profile, &sources.deployments, &sources.files);
            let stale = lock::wanted(&sources.profile, &deployments)
                .map(|wanted| why_stale(&lock::freshness(&lock, &inputs, &wanted)));
            stale.map(|stale| (lock, stale))
        });
        Ok(Self {
            lock: lock.transpose()?,
            profile: sources.profile,
            deployments: sources.deployments.into_values().collect(),
            generation: None,
        })
    }

    /// What a generation of this host holds.
    pub fn of_generation(generation: &Generation, pinned: Pinned) -> Self {
        let generation = Some((generation.about.number, pinned.lock_digest));
        Self { generation, ..Self::of_pinned(pinned) }
    }

    /// What a bundle holds, which may be no generation of this host.
    pub fn of_pinned(pinned: Pinned) -> Self {
        let stale = why_stale(&pinned.freshness);
        Self {
            generation: None,
            profile: pinned.profile,
            lock: Some((pinned.lock, stale)),
            deployments: pinned.deployments.into_values().collect(),
        }
    }

    /// The subject of checks: the host with all its deployments, or one deployment.
    pub fn subject<'a>(&'a self, context: &Context, only: Option<&'a Deployment>) -> Result<Subject<'a>> {
        let locked = self.lock.as_ref().map(|(lock, stale)| Locked { lock, stale: stale.clone() });
        let name = only.map_or("host", |deployment| deployment.name.as_str());
        let deployments =
            only.map_or_else(|| self.deployments.iter().collect(), |deployment| vec![deployment]);
        let mut subject = Subject::new(name, &self.profile, locked, deployments)?;
        if let Some(hub) = context.config.hub.as_deref().or_else(|| context.variable("HF_ENDPOINT")) {
            hub.clone_into(&mut subject.wanted.hub);
        }
        Ok(subject)
    }
}

fn why_stale(freshness: &lock::Freshness) -> Option<String> {
    let reasons: Vec<String> = freshness.reasons().iter().map(ToString::to_string).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// The current generation of a host, and what it pins. `None`: never provisioned, or not for this user to see.
pub fn current(root: &Root) -> Result<Option<(Generation, Pinned)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let generations = Generations::new(root);
    let Some(generation) = generations.current()? else { return Ok(None) };
    let pinned = pinned(root, generation.about.number)?;
    Ok(Some((generation, pinned)))
}

/// What generation `number` pins.
pub fn pinned(root: &Root, number: u64) -> Result<Pinned> {
    bundle(root, number)?.open()
}

/// The bundle generation `number` was made from.
pub fn bundle(root: &Root, number: u64) -> Result<Bundle> {
    Generations::new(root).bundle(number)
}

/// A deployment and its text.
pub type Named = (String, Deployment);

/// The deployment `name` of this host's current generation, with its text; and the names of all it has.
///
/// # Errors
/// The generation cannot be read.
pub fn deployment_of_generation(name: &str) -> Result<(Option<Named>, Vec<String>)> {
    let root = host_root()?;
    let Some((generation, pinned)) = current(&root)? else { return Ok((None, Vec::new())) };
    let known = pinned.deployments.values().map(|deployment| deployment.name.clone()).collect();
    let bundle = bundle(&root, generation.about.number)?;
    for (path, deployment) in pinned.deployments {
        if deployment.name == name
            && let Some(content) = bundle.input(&path)
        {
            return Ok((Some((inputs::text_of(&path, content)?.to_owned(), deployment)), known));
        }
    }
    Ok((None, known))
}

/// What differs between the deployments of two bundles, a line each, with the lines of their text below.
pub fn deployment_changes(old: &Bundle, new: &Bundle) -> Result<Vec<String>> {
    let (old_pinned, new_pinned) = (old.open()?, new.open()?);
    let mut lines = Vec::new();
    for (path, deployment) in &new_pinned.deployments {
        let name = &deployment.name;
        match old.input(path) {
            None => lines.push(format!("+ deployment {name}")),
            Some(was) => {
                let now = new.input(path).unwrap_or_default();
                if was != now {
                    lines
                        .push(format!("~ deployment {name}: live after `bedplate up -f {name}` on the host"));
                    lines.extend(line_diff(was, now).into_iter().map(|line| format!("    {line}")));
                }
            }
        }
    }
    for (path, deployment) in &old_pinned.deployments {
        if !new_pinned.deployments.contains_key(path) {
            lines.push(format!("- deployment {}", deployment.name));
        }
    }
    Ok(lines)
}

/// Deployments that run as another text than the current generation's made them: their names.
pub fn running_otherwise(root: &Root) -> Result<Vec<String>> {
    let Some((generation, pinned)) = current(root)? else { return Ok(Vec::new()) };
    let bundle = bundle(root, generation.about.number)?;
    let paths = Paths::default();
    let mut names = Vec::new();
    for (path, deployment) in pinned.deployments {
        let runs = matches!(
            state::load(root, &paths, &deployment.name),
            Ok(Some(state)) if state.wanted == WantedState::Running
        );
        let kept = state::deployment_text(root, &paths, &deployment.name)?;
        if runs && kept.is_some_and(|kept| Some(kept.as_bytes()) != bundle.input(&path)) {
            names.push(deployment.name);
        }
    }
    Ok(names)
}

/// What to do on a host without a generation.
pub fn not_provisioned() -> Error {
    if rustix::process::geteuid().is_root() {
        Error::failed("this machine is not provisioned")
            .hint("run `bedplate provision PROFILE` first; for another host: `ssh HOST bedplate …`")
    } else {
        Error::failed("only root can see what this host was provisioned with").hint("run it with `sudo`")
    }
}

/// Where facts of this host are looked for.
pub fn sources(context: &Context, root: &Arc<Root>) -> facts::Sources {
    let mut sources = facts::Sources::of(Arc::clone(root));
    if let Some(socket) = docker_socket(context) {
        sources.docker_socket = socket;
    }
    sources.nvml_library.clone_from(&context.config.nvml);
    let docker = context
        .variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| context.home().map(|home| home.join(".docker")));
    sources.docker_config = docker.map(|folder| folder.join("config.json").display().to_string());
    sources
}

/// The container engine's socket, where it is not the usual one.
pub fn docker_socket(context: &Context) -> Option<String> {
    let by_variable = || context.variable("DOCKER_HOST")?.strip_prefix("unix://").map(str::to_owned);
    context.config.docker_socket.clone().or_else(by_variable)
}

/// The tree that `--root` names.
///
/// # Errors
/// It cannot be opened, is this host itself, or is a directory of something else.
pub fn tree(context: &Context, directory: &Path) -> Result<Root> {
    let tree = Root::open(&context.path(directory))?;
    let shown = directory.display();
    if tree.is_host() {
        return Err(Error::usage(format!("`--root {shown}` is this host itself")).hint("leave `--root` out"));
    }
    if !provision::looks_like_tree(&tree)? {
        return Err(Error::usage(format!(
            "`--root {shown}` is no root tree: it is not empty, and has no `etc`"
        ))
        .hint("name the directory that is the tree's `/`, or an empty one: `mkdir DIR`"));
    }
    Ok(tree)
}

/// The host's own tree.
pub fn host_root() -> Result<Arc<Root>> {
    Root::open(Path::new("/")).map(Arc::new)
}

/// How long facts are gathered before it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Gathers facts. Where that takes longer than a moment, it says what has not answered yet.
pub async fn gather(context: &Context, wanted: &Wanted, sources: &facts::Sources) -> Facts {
    const TASK: &str = "checks";
    let progress = context.ui.progress();
    let said = Cell::new(false);
    let telling = async {
        sleep(PATIENCE).await;
        progress.started(TASK, None, Unit::None);
        said.set(true);
        let mut before = Vec::new();
        loop {
            let now = sources.awaited.names();
            if now != before {
                let note = format!("waiting for {}", now.join(", "));
                let (task, note) = (TASK.into(), Some(note.into()));
                progress.event(Event::Advanced { task, done: 0, total: None, note });
                before = now;
            }
            sleep(PATIENCE / 10).await;
        }
    };
    let facts = tokio::select! {
        facts = Box::pin(facts::gather(wanted, sources)) => facts,
        never = telling => match never {},
    };
    if said.get() {
        progress.finished(TASK, Some(""));
    }
    facts
}

/// Gathers what a subject needs, and judges these layers.
pub async fn judge(
    context: &Context,
    subject: &Subject<'_>,
    sources: &facts::Sources,
    layers: &[check::report::Layer],
) -> (Report, Facts) {
    let facts = gather(context, &subject.wanted, sources).await;
    (check::judge(layers, subject, &facts), facts)
}

/// As [`judge`], with a container that sees the GPUs where everything below lets one start. `thorough`: and again after a
/// daemon-reload and a restart of Docker.
///
/// # Errors
/// Docker would be restarted, and containers run that would end with it.
pub async fn prove(
    context: &Context,
    root: &Root,
    subject: &mut Subject<'_>,
    sources: &facts::Sources,
    layers: &[check::report::Layer],
) -> Result<(Report, Facts)> {
    subject.wanted.smoke = true;
    let (report, mut facts) = judge(context, subject, sources, layers).await;
    let due = report.is_unknown(SMOKE);
    let Some((locked, gpus)) =
        subject.lock.as_ref().zip(all_gpus(subject.profile.container.gpu_access)).filter(|_| due)
    else {
        return Ok((report, facts));
    };
    let Some((key, image)) = smoke::image(locked.lock) else { return Ok((report, facts)) };
    let docker = Docker::connect(&sources.docker_socket).await?;
    let progress = context.ui.progress();
    let lab = smoke::Lab {
        docker: &docker,
        root,
        key,
        image,
        gpus: Some(&gpus),
        place: smoke::ON_HOST,
        limit: SMOKE_LIMIT,
    };
    let mut reloaded = Known::default();
    if subject.wanted.thorough {
        refuse_to_end_containers(&facts, &docker).await?;
        progress.started("GPUs after a daemon-reload", None, Unit::None);
        reloaded = facts::known(smoke::reload(lab).await);
        progress.finished("GPUs after a daemon-reload", None);
        progress.started("restart Docker", None, Unit::None);
        smoke::restart_engine().await?;
        progress.finished("restart Docker", None);
        facts = gather(context, &subject.wanted, sources).await;
    }
    let task = format!("GPUs in a container of `{key}`");
    progress.started(&task, None, Unit::None);
    let docker = Docker::connect(&sources.docker_socket).await?;
    facts.smoke = facts::known(smoke::smoke(smoke::Lab { docker: &docker, ..lab }).await);
    facts.smoke_reload = reloaded;
    progress.finished(&task, None);
    Ok((check::judge(layers, subject, &facts), facts))
}

/// Writes the CDI specification of the host's GPUs, where its containers get them by one and the vendor's toolkit, which would
/// write it, is neither locked nor installed.
///
/// # Errors
/// It cannot be made or written.
pub async fn refresh_cdi(
    context: &Context,
    root: &Arc<Root>,
    profile: &Profile,
    lock: Option<&Lock>,
    sources: &facts::Sources,
) -> Result<()> {
    let toolkit = lock.and_then(|lock| lock.set.as_ref()?.toolkit.as_deref());
    if profile.container.gpu_access != GpuAccess::Cdi || !profile.wants_gpus() || toolkit.is_some() {
        return Ok(());
    }
    let facts = gather(context, &Wanted::of_profile(profile), sources).await;
    match cdi::refresh(root, &facts)? {
        cdi::Written::New(gpus, driver) => context.ui.say(&format!(
            "`{}`: the CDI specification of {} with driver {driver}",
            cdi::PATH,
            text::count(gpus, "GPU")
        )),
        cdi::Written::Waits(why) => {
            context.ui.say(&format!("the CDI specification waits: {why} (`bedplate doctor`)"));
        }
        cdi::Written::Unchanged | cdi::Written::Vendors => {}
    }
    Ok(())
}

/// A restart of Docker ends every container, unless it has live-restore.
async fn refuse_to_end_containers(facts: &Facts, docker: &Docker) -> Result<()> {
    if facts.engine.ok().is_some_and(|engine| engine.live_restore) {
        return Ok(());
    }
    let running = docker.reachable().await?;
    let Some(first) = running.first().map(|container| &container.name) else { return Ok(()) };
    Err(Error::usage(format!(
        "`--thorough` restarts Docker, which would end {}: `{first}`{}",
        text::count(running.len(), "running container"),
        if running.len() > 1 { ", …" } else { "" }
    ))
    .hint("stop them first (`bedplate stop NAME`), or leave `--thorough` out"))
}

/// The deployment the user named, else the only one of the profile that `fits`.
pub fn deployment(
    context: &Context,
    held: &Held,
    file: Option<&Path>,
    fits: impl Fn(&Deployment) -> bool,
) -> Result<(String, Deployment)> {
    if let Some(file) = file {
        return inputs::deployment(context, file);
    }
    let found: Vec<&Deployment> = held.deployments.iter().filter(|deployment| fits(deployment)).collect();
    match found.as_slice() {
        [only] => Ok((only.name.clone(), (*only).clone())),
        [] => Err(Error::usage("the profile has no such deployment").hint("name one with `-f DEPLOYMENT`")),
        several => {
            let names: Vec<&str> = several.iter().map(|deployment| deployment.name.as_str()).collect();
            Err(Error::usage("the profile has several such deployments")
                .hint(format!("name the file of one with `-f`: {}", names.join(", "))))
        }
    }
}

/// The digest a readiness is bound to: of the deployment as it would be carried out, so that a comment
/// changes nothing.
pub fn deployment_digest(deployment: &Deployment) -> Digest {
    Digest::of(format!("{deployment:?}"))
}
