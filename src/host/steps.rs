//! One step at a time: each idempotent, each whole or not at all.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{
    apply::{Context, Work},
    boot_menu, content, generations,
    layout::BINARY,
    observe, packages, secrets,
};
use crate::{
    digest::Digest,
    docker::Docker,
    error::{Doing as _, Error, Result},
    lock::LockedImage,
    plan::Step,
    progress::Unit,
    system::{
        confine::{self, Done, Job, Orders},
        files::{self, Owner, Root},
        process::Command,
    },
};

/// How long a service may take to restart.
const RESTART: Duration = Duration::from_mins(3);
/// Largest `daemon.json`, in bytes.
const CONFIGURATION: u64 = 4 << 20;

pub(super) async fn carry_out(work: &mut Work<'_>, step: &Step) -> Result<()> {
    let root = work.context.root;
    match step {
        Step::RepairPackages { .. } => packages::repair(work).await?,
        Step::InstallPackages { changes, remove, .. } => packages::install(work, changes, remove).await?,
        Step::HoldPackages { hold, release } => {
            packages::hold(root, &work.context.pinned.profile.host.architecture, hold, release).await?;
        }
        Step::MakeDirectory { path, mode, owner } => {
            if let Some(owner) = owner_of(work, path, owner)? {
                root.make_dir(path, *mode, owner)?;
            }
        }
        Step::WriteFile { path, content, mode, owner, .. } => {
            if let Some(owner) = owner_of(work, path, owner)? {
                root.write(path, content, *mode, owner)?;
            }
        }
        Step::SetMode { path, to, .. } => root.set_mode(path, *to)?,
        Step::SetOwner { path, to, .. } => {
            if let Some(owner) = owner_of(work, path, to)? {
                root.set_owner(path, owner)?;
            }
        }
        Step::MakeLink { path, target, .. } => root.symlink(target, path)?,
        Step::RemoveFile { path } => drop(root.remove_file(path)?),
        Step::RemoveDirectory { path } => {
            if !root.remove_dir(path)? && root.exists(path)? {
                work.outcome.warnings.push(format!("`{path}` is not empty: left as it is"));
            }
        }
        Step::RestoreFile { path, digest, mode, uid, gid } => {
            restore(root, path, *digest, *mode, *uid, *gid)?;
        }
        Step::MergeDaemon { path, text, on, keep, .. } => merge(root, path, text.as_deref(), *on, *keep)?,
        Step::RestartDocker { .. } => restart_docker(work).await?,
        Step::AddGroup { name } => {
            if !observe::accounts(root)?.groups.contains_key(name) {
                account(work, name, "groupadd", &["--system", name]).await?;
            }
        }
        Step::AddUser { name } => {
            if !observe::accounts(root)?.users.contains_key(name) {
                account(work, name, "useradd", &["--create-home", "--shell", "/bin/bash", name]).await?;
            }
        }
        Step::JoinGroup { user, group } => {
            if work.unmade.contains(user) || work.unmade.contains(group) {
                work.outcome.deferred.push(format!("user {user}: group {group}"));
            } else {
                account(work, user, "usermod", &["--append", "--groups", group, user]).await?;
            }
        }
        Step::KeepSecret { name, credential, .. } => keep(work, name, credential.as_deref()).await?,
        Step::RestoreSecret { name, credential } => secrets::restore(root, name, credential).await?,
        Step::RemoveSecret { name } => secrets::remove(root, name)?,
        Step::PullImage { key, reference, download, tag } => {
            pull(work, key, reference, *download, tag).await?;
        }
        Step::LoadImage { key, reference, download, tag } => {
            load(work, key, reference, *download, tag).await?;
        }
        Step::TagImage { source, tag, .. } => docker(work).await?.tag(source, tag).await?,
        Step::InstallBinary { path, .. } => install(root, &work.context.look.program, path)?,
        Step::ReloadSystemd => {
            Command::new("systemctl").arg("daemon-reload").timeout(RESTART).check().await?;
        }
        Step::MakeBootMenu { kernel } => boot_menu::make(root, kernel.as_deref()).await?,
        Step::ApplySysctl => {
            Command::new("systemctl").args(["restart", "systemd-sysctl"]).timeout(RESTART).check().await?;
        }
    }
    Ok(())
}

/// The ids of `user:group` now that earlier steps made accounts. `None`: in a tree where the account could not
/// be made, so that the path waits for the first boot.
fn owner_of(work: &mut Work, path: &str, owner: &str) -> Result<Option<Owner>> {
    if let Some((uid, gid)) = observe::accounts(work.context.root)?.resolve(owner) {
        return Ok(Some(Owner { uid, gid }));
    }
    if owner.split(':').any(|name| work.unmade.contains(name)) {
        work.record.paths.remove(path);
        work.outcome.deferred.push(format!("{path}: `{owner}` is not there yet"));
        return Ok(None);
    }
    Err(Error::failed(format!("there is no user and group `{owner}`")).hint("add them with `[[user]]`"))
}

fn restore(root: &Root, path: &str, digest: Digest, mode: u32, uid: u32, gid: u32) -> Result<()> {
    let content = generations::read_saved(root, digest)?.ok_or_else(|| {
        Error::failed(format!("what was at `{path}` before bedplate is no longer kept"))
            .hint(format!("remove the file yourself: `rm {path}`; then it counts as given up"))
    })?;
    root.write(path, &content, mode, Owner { uid, gid })
}

fn merge(
    root: &Root,
    path: &str,
    text: Option<&str>,
    on: Option<Digest>,
    keep: Option<(u32, u32, u32)>,
) -> Result<()> {
    let now = root.read(path, CONFIGURATION)?.map(Digest::of);
    if now != on {
        return Err(Error::failed(format!("`{path}` was changed while this run was at work"))
            .hint("run the same command again"));
    }
    let Some(text) = text else { return root.remove_file(path).map(drop) };
    let (mode, uid, gid) = keep.unwrap_or((0o644, 0, 0));
    root.write(path, text.as_bytes(), mode, Owner { uid, gid })
}

async fn restart_docker(work: &mut Work<'_>) -> Result<()> {
    work.docker = None;
    // Earlier failed starts count against the unit's limit, and it would not be tried again.
    Command::new("systemctl").args(["reset-failed", "docker.service"]).timeout(RESTART).run().await?;
    Command::new("systemctl").args(["restart", "docker.service"]).timeout(RESTART).check().await.map_err(
        |error| {
            error.hint("see why: `journalctl -u docker -n 50`; a key under `[container.daemon]` may be wrong")
        },
    )?;
    docker(work).await.map(drop)
}

/// The daemon, connected to when it is first needed.
async fn docker<'w>(work: &'w mut Work<'_>) -> Result<&'w Docker> {
    if work.docker.is_none() {
        let socket = &work.context.look.docker_socket;
        work.docker = Some(match Docker::connect(socket).await {
            // A package that was installed just now starts its daemon, unless the host forbids it.
            Err(_) if work.installed => {
                Command::new("systemctl").args(["start", "docker.service"]).timeout(RESTART).check().await?;
                Docker::connect(socket).await?
            }
            connected => connected?,
        });
    }
    work.docker.as_ref().ok_or_else(|| Error::failed("the Docker daemon went away"))
}

/// Runs one of the shadow tools; in a tree, where it may not work without root or its libraries, what it
/// would make waits for the first boot.
async fn account(work: &mut Work<'_>, name: &str, program: &str, arguments: &[&str]) -> Result<()> {
    let root = work.context.root;
    let ran = match work.context.look.dated {
        Some(dated) if !root.is_host() && root.exists(&format!("/usr/sbin/{program}"))? => {
            account_as_the_tree_does(work, dated, program, arguments).await
        }
        _ => {
            let mut command = Command::new(program).timeout(RESTART).package("passwd");
            if !root.is_host() {
                command = command.args(["--root", &root.path().to_string_lossy()]);
            }
            command.args(arguments.iter().copied()).check().await.map(drop)
        }
    };
    match ran {
        Ok(()) => Ok(()),
        Err(error) if !root.is_host() => {
            work.unmade.insert(name.to_owned());
            work.record.accounts.remove(name);
            work.outcome.deferred.push(format!("{program} {name}"));
            work.outcome.warnings.push(format!("`{name}` waits for the first boot: {}", error.message()));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Runs the tree's own tool, confined: other releases of it write other files (shadow 4.13 makes an entry of
/// `/var/log/lastlog`), and the tree is to be the same on every machine. The day that an account is made on is `dated`
/// (shadow, `gettime`).
async fn account_as_the_tree_does(
    work: &Work<'_>,
    dated: jiff::Timestamp,
    program: &str,
    arguments: &[&str],
) -> Result<()> {
    let mut words = vec![format!("/usr/sbin/{program}")];
    words.extend(arguments.iter().map(|&word| word.to_owned()));
    let job = Job {
        what: words.join(" "),
        arguments: words,
        environment: BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), dated.as_second().to_string())]),
    };
    let context = work.context;
    let root = context.root.path().to_path_buf();
    let orders = Orders { root, stand_ins: BTreeMap::new(), jobs: vec![job], clock: None };
    let output = confine::room(&confine::this_program()?, &orders)?.timeout(RESTART).run().await?;
    let done = output.text().lines().next().and_then(|line| serde_json::from_str::<Done>(line).ok());
    if done.is_some_and(|done| done.code == Some(0)) {
        return Ok(());
    }
    Err(Error::failed(format!("`{program}` of the tree failed: {}", output.stderr_tail.trim())))
}

async fn keep(work: &mut Work<'_>, name: &str, credential: Option<&str>) -> Result<()> {
    let context = work.context;
    let value = context
        .secrets
        .get(name)
        .ok_or_else(|| Error::failed(format!("the value of secret `{name}` was not given to this run")))?;
    let mut kept = credential.map(str::to_owned);
    // The credential first: a value on tmpfs then says that its credential is right.
    if let Some(id) = credential
        && let Err(error) = secrets::keep(context.root, id, value).await
    {
        kept = None;
        secrets::remove_credential(context.root, id)?;
        secrets::remove(context.root, name)?;
        work.outcome.warnings.push(format!(
            "secret `{name}` must be given again after a reboot: {}: {}",
            error.message(),
            error.causes().join(": ")
        ));
    }
    if let Some(owned) = work.record.secrets.get_mut(name) {
        owned.credential = kept;
    }
    secrets::put(context.root, name, value)
}

async fn pull(work: &mut Work<'_>, key: &str, reference: &str, download: u64, tag: &str) -> Result<()> {
    let context = work.context;
    let image = locked(context, key)?;
    let registry = reference.split('/').next().unwrap_or_default();
    let credentials = context.registries.get(registry);
    let task = format!("image {key}");
    context.progress.started(&task, Some(download), Unit::Bytes);
    let progress = context.progress;
    let docker = docker(work).await?;
    docker.pull(reference, credentials, |done, total| progress.advanced(&task, done, Some(total))).await?;
    named(docker, image, reference, tag, "pulled").await?;
    progress.finished(&task, Some(reference));
    Ok(())
}

async fn load(work: &mut Work<'_>, key: &str, reference: &str, download: u64, tag: &str) -> Result<()> {
    let context = work.context;
    let image = locked(context, key)?;
    let task = format!("image {key}");
    context.progress.started(&task, Some(download), Unit::Bytes);
    let progress = context.progress;
    let docker = docker(work).await?;
    // The archive has a few headers more.
    let told = |done: u64| progress.advanced(&task, done.min(download), None);
    content::load(docker, image, tag, &context.look.content, told).await?;
    named(docker, image, reference, tag, "loaded").await?;
    progress.finished(&task, Some(&format!("{reference} loaded")));
    Ok(())
}

fn locked<'a>(context: &Context<'a>, key: &str) -> Result<&'a LockedImage> {
    let image = context.pinned.lock.images.get(key);
    image.ok_or_else(|| Error::failed(format!("the lock has no image `{key}`")))
}

/// Gives the locked image its tag, however it came there: by its id, which is a digest of content.
async fn named(docker: &Docker, image: &LockedImage, reference: &str, tag: &str, came: &str) -> Result<()> {
    let found = docker
        .image_by_digest(reference, &image.manifest, &image.config, image.index.as_ref())
        .await?
        .ok_or_else(|| Error::failed(format!("Docker {came} `{reference}` and does not have it")))?;
    docker.tag(&found.0, tag).await
}

fn install(root: &Root, program: &Path, path: &str) -> Result<()> {
    if let Some((folder, _)) = BINARY.rsplit_once('/')
        && root.stat(folder)?.is_none()
    {
        root.make_dir(folder, 0o755, Owner::ROOT)?;
    }
    let (mut file, _) = files::open_input(program).doing(|| "opening the running program")?;
    root.write_from(path, &mut file, 0o755, Owner::ROOT).map(drop)
}
