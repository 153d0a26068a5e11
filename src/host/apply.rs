//! Carrying out a plan: generation written down, journal, steps, commit.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    content,
    generations::{self, Journal, Ready},
    observe::Options,
    packages::{self, Supply},
    steps,
};
use crate::{
    docker::{Credentials, Docker},
    error::{Doing as _, Error, Result},
    host::{layout, secrets::SecretValues},
    lock::bundle::{Bundle, Pinned},
    plan::{self, Plan, Record, Step},
    profile::{ContainerEngine, DriverFlavor, FileContent, GpuAccess},
    progress::{Event, Progress, Unit},
    system::{
        clock,
        files::{HostLock, Root},
    },
};

/// What a plan is carried out with.
pub struct Context<'a> {
    /// The host or tree.
    pub root: &'a Root,
    /// Proof that no other run changes it.
    pub held: &'a HostLock,
    /// The pinned profile.
    pub pinned: &'a Pinned,
    /// The bundle it came in.
    pub bundle: &'a Bundle,
    /// Secrets this run was given.
    pub secrets: &'a SecretValues,
    /// Registry credentials, by registry as references name it.
    pub registries: &'a BTreeMap<String, Credentials>,
    /// Where packages come from.
    pub supply: Supply<'a>,
    /// How the host was looked at: its Docker daemon, where content of images is, the program to install.
    pub look: &'a Options,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The generation that holds now.
    pub generation: u64,
    /// Steps that were carried out.
    pub changed: usize,
    /// What waits for the first boot, beyond what the plan said.
    pub deferred: Vec<String>,
    /// Worth saying.
    pub warnings: Vec<String>,
    /// Why a reboot is needed.
    pub reboot: Option<String>,
}

/// What steps learn from one another.
pub(super) struct Work<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) docker: Option<Docker>,
    pub(super) record: Record,
    pub(super) outcome: Outcome,
    /// The plan installs packages.
    pub(super) installs: bool,
    /// Packages were installed.
    pub(super) installed: bool,
    /// Accounts of a tree that could not be made.
    pub(super) unmade: BTreeSet<String>,
}

impl<'a> Work<'a> {
    fn new(context: &'a Context<'a>, plan: &Plan) -> Self {
        Self {
            context,
            docker: None,
            record: plan.record.clone(),
            outcome: Outcome {
                generation: plan.generation,
                warnings: plan.warnings.clone(),
                reboot: plan.reboot.clone(),
                ..Outcome::default()
            },
            installs: plan.steps.iter().any(|step| matches!(step, Step::InstallPackages { .. })),
            installed: false,
            unmade: BTreeSet::new(),
        }
    }
}

/// The task's name in progress events.
const TASK: &str = "provision";

/// Carries out the plan. An interruption anywhere, also a power cut, leaves the host such that the next run
/// goes on; nothing needs undoing by hand.
///
/// # Errors
/// The host lacks something the plan names; or the first step that failed, by name.
pub async fn apply(plan: &Plan, context: &Context<'_>) -> Result<Outcome> {
    plan.refuse()?;
    let root = context.root;
    let mut work = Work::new(context, plan);
    if plan.is_empty() {
        return Ok(work.outcome);
    }
    packages::ready(context, plan).await?;
    context.progress.started(TASK, Some(plan.steps.len() as u64), Unit::Items);
    let ready = Ready {
        profile: &context.pinned.name,
        lock: context.pinned.lock_digest,
        bundle: context.bundle.digest(),
        files: context.bundle.files(),
        created: context.look.dated.unwrap_or_else(clock::now),
    };
    generations::prepare(root, plan, &ready).doing(|| format!("preparing generation {}", plan.generation))?;
    said(context, plan, 0, "generation prepared");
    let mut journal = Journal::new(plan.generation, plan.change, plan.steps.len());
    journal.write(root)?;
    said(context, plan, 0, "journal written");
    generations::forget_readiness(root, plan.generation).doing(|| "forgetting what was proved before")?;
    said(context, plan, 0, "readiness forgotten");
    generations::tidy(root, plan.generation)?;
    if plan.finishes.is_some() {
        sweep(root, plan)?;
    }
    for (index, step) in plan.steps.iter().enumerate() {
        journal.done = index;
        journal.step = step.to_string();
        journal.write(root)?;
        said(context, plan, index, &journal.step);
        steps::carry_out(&mut work, step).await.map_err(|error| failed(plan, index, step, error))?;
        work.outcome.changed += 1;
    }
    packages::clear(root)?;
    said(context, plan, plan.steps.len(), "steps done");
    let mut record = work.record.clone().settled();
    record.deferred.extend(work.outcome.deferred.iter().cloned());
    generations::commit(root, plan.generation, &record, &realised(context, &record, plan.generation))
        .doing(|| format!("committing generation {}", plan.generation))?;
    said(context, plan, plan.steps.len(), "generation committed");
    Journal::remove(root)?;
    if root.is_host()
        && let Some(store) = &context.look.content.store
        && let Err(error) = content::drop_images(store, &context.pinned.lock)
    {
        // The host is what it should be; only room is wasted.
        work.outcome.warnings.push(format!("images that are in Docker now stay in the store: {error}"));
    }
    tracing::debug!("generation {} holds ({:?})", plan.generation, plan.change);
    // The verb says what came of it.
    context.progress.finished(TASK, Some(""));
    Ok(work.outcome)
}

/// Carries out the steps of a plan that makes no generation, such as [`plan::toolkit`]'s.
///
/// # Errors
/// As [`apply`].
pub async fn apply_alone(plan: &Plan, context: &Context<'_>) -> Result<Outcome> {
    plan.refuse()?;
    let mut work = Work::new(context, plan);
    packages::ready(context, plan).await?;
    for (index, step) in plan.steps.iter().enumerate() {
        tracing::debug!("{step}");
        steps::carry_out(&mut work, step).await.map_err(|error| failed(plan, index, step, error))?;
        work.outcome.changed += 1;
    }
    packages::clear(context.root)?;
    Ok(work.outcome)
}

/// Says what is being done now, at the task itself: no line of its own.
fn said(context: &Context, plan: &Plan, done: usize, note: &str) {
    tracing::debug!("{note}");
    context.progress.event(Event::Advanced {
        task: TASK.into(),
        done: done as u64,
        total: Some(plan.steps.len() as u64),
        note: Some(note.into()),
    });
}

fn failed(plan: &Plan, index: usize, step: &Step, error: Error) -> Error {
    let message = format!("step {} of {} failed: `{step}`", index + 1, plan.steps.len());
    Err::<(), _>(error)
        .doing(|| message)
        .err()
        .unwrap_or_else(|| Error::failed("a step failed"))
        .hint("mend the cause, then run the same command again: it goes on from here")
}

/// Removes temporary files a killed run left beside paths it was writing.
fn sweep(root: &Root, plan: &Plan) -> Result<()> {
    let mut folders: BTreeSet<&str> = BTreeSet::new();
    let paths = plan.record.paths.keys().map(String::as_str);
    for path in paths.chain([layout::BINARY, crate::plan::DAEMON]) {
        folders.extend(path.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty()));
    }
    folders.extend([layout::CREDENTIALS, layout::SECRETS]);
    for folder in folders {
        // What cannot be listed any more (a link now, a file now) was said by the plan.
        if root.stat(folder).ok().flatten().is_some_and(|stat| stat.is_dir()) {
            root.sweep(folder)?;
        }
    }
    Ok(())
}

/// The profile as this generation realised it, for people, `diff` and inventories.
fn realised(context: &Context, record: &Record, generation: u64) -> serde_json::Value {
    use serde_json::json;
    let profile = &context.pinned.profile;
    let files: serde_json::Map<String, serde_json::Value> = profile
        .files
        .iter()
        .filter_map(|file| {
            let owned = record.paths.get(&file.path)?;
            let source = match &file.content {
                FileContent::Inline(_) => "profile",
                FileContent::Source(path) => path,
            };
            let value = json!({
                "content": owned.written.last(), "mode": format!("{:04o}", file.mode),
                "owner": file.owner, "source": source,
            });
            Some((file.path.clone(), value))
        })
        .collect();
    let others: serde_json::Map<String, serde_json::Value> = record
        .paths
        .iter()
        .filter(|(path, _)| !files.contains_key(*path) && !profile.mounts.iter().any(|m| m.path == **path))
        .map(|(path, owned)| (path.clone(), json!(owned.written.last())))
        .collect();
    let mounts: serde_json::Map<String, serde_json::Value> = profile
        .mounts
        .iter()
        .map(|mount| {
            let files: serde_json::Map<String, serde_json::Value> =
                mount.files.iter().map(|(name, mode)| (name.clone(), json!(format!("{mode:04o}")))).collect();
            let value = json!({"mode": format!("{:04o}", mount.mode), "owner": mount.owner, "files": files});
            (mount.path.clone(), value)
        })
        .collect();
    let images: serde_json::Map<String, serde_json::Value> = context
        .pinned
        .lock
        .images
        .iter()
        .map(|(key, image)| {
            let value = json!({
                "reference": image.reference, "manifest": image.manifest, "config": image.config,
                "tag": record.images.get(key),
            });
            (key.clone(), value)
        })
        .collect();
    let daemon: serde_json::Map<String, serde_json::Value> =
        record.daemon.iter().map(|(key, owned)| (key.clone(), json!(owned.written.last()))).collect();
    let flavor = match profile.driver.flavor {
        DriverFlavor::Open => "open",
        DriverFlavor::Proprietary => "proprietary",
        DriverFlavor::None => "none",
    };
    let engine = match profile.container.engine {
        ContainerEngine::Docker => "docker",
        ContainerEngine::None => "none",
    };
    let access = match profile.container.gpu_access {
        GpuAccess::Cdi => "cdi",
        GpuAccess::NvidiaRuntime => "nvidia-runtime",
        GpuAccess::None => "none",
    };
    let pinned = profile.host.pin_packages && !context.pinned.lock.packages.is_empty();
    let packages = if pinned {
        let versions: serde_json::Map<String, serde_json::Value> = context
            .pinned
            .lock
            .host_packages()
            .iter()
            .map(|package| {
                let name = plan::dpkg::key(&package.name, &package.architecture, &profile.host.architecture);
                (name, json!(package.version))
            })
            .collect();
        json!(versions)
    } else {
        json!(profile.host.packages)
    };
    json!({
        "generation": generation,
        "profile": context.pinned.name,
        "distribution": {"id": profile.host.distribution.id(), "release": profile.host.release},
        "driver": {"flavor": flavor, "version": profile.driver.version},
        "container": {"engine": engine, "gpu-access": access},
        "packages": packages,
        "kernel": {"package": profile.kernel.package, "parameters": profile.kernel.parameters},
        "mounts": mounts,
        "files": files,
        "managed": others,
        "docker": daemon,
        "users": profile.users.iter().map(|user| user.name.clone()).collect::<Vec<_>>(),
        "secrets": record.secrets.keys().collect::<Vec<_>>(),
        "images": images,
        "deferred": record.deferred,
    })
}
