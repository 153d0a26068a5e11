//! Steps for all that is not a path: accounts, Docker's configuration, secrets, images, packages.

use std::collections::BTreeSet;

use super::{
    Deferred, Goal, Inputs, MODPROBE, Missing, Plan, UNIT,
    daemon::{self, PATH},
    packages,
    record::{Due, OwnedSecret, Record},
    state::{DockerState, Given, HostState, PathState, Target},
    step::{Step, image_tag},
    wanted::UNIT_ENABLED,
};
use crate::{
    error::{Error, Result},
    profile::SecretSource,
};

impl Plan {
    fn defer(&mut self, what: impl Into<String>, why: &str) {
        self.deferred.push(Deferred { what: what.into(), why: why.to_owned() });
    }

    fn lacks(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.missing.push(Missing { what: what.into(), hint: hint.into() });
    }
}

/// The group of Docker's socket: its package makes it.
const DOCKER_GROUP: &str = "docker";

/// `engine`: the container engine's package comes first.
pub(super) fn accounts(inputs: &Inputs, state: &HostState, engine: bool, plan: &mut Plan) -> Vec<Step> {
    let mut steps = Vec::new();
    let known = &state.accounts;
    let mut groups = BTreeSet::new();
    for user in &inputs.profile.users {
        for group in &user.groups {
            let comes = engine && group == DOCKER_GROUP;
            if !comes && !known.groups.contains_key(group) && groups.insert(group.clone()) {
                steps.push(Step::AddGroup { name: group.clone() });
                plan.record.accounts.insert(group.clone());
            }
        }
    }
    for user in &inputs.profile.users {
        let account = known.users.get(&user.name);
        if account.is_none() {
            steps.push(Step::AddUser { name: user.name.clone() });
            plan.record.accounts.insert(user.name.clone());
        }
        for name in &user.groups {
            let group = known.groups.get(name);
            let primary = account.zip(group).is_some_and(|(account, group)| account.gid == group.gid);
            if !primary && !group.is_some_and(|group| group.members.contains(&user.name)) {
                steps.push(Step::JoinGroup { user: user.name.clone(), group: name.clone() });
            }
        }
    }
    steps
}

/// Packages of a host whose packages are not locked, and kernel parameters: named where they are missing.
pub(super) fn packages(inputs: &Inputs, state: &HostState, plan: &mut Plan) {
    let profile = inputs.profile;
    let mut wanted: Vec<&str> = Vec::new();
    if !inputs.pins_packages() {
        wanted.extend(profile.host.packages.iter().map(String::as_str));
        wanted.extend(profile.kernel.package.as_deref());
    }
    if state.target == Target::Tree {
        for name in wanted {
            if !state.packages.as_ref().is_some_and(|packages| packages.has(name)) {
                plan.defer(format!("package {name}"), "packages are installed on the booted host");
            }
        }
        for parameter in &profile.kernel.parameters {
            plan.defer(format!("kernel parameter {parameter}"), "looked at on the booted host");
        }
        return;
    }
    match &state.packages {
        Some(installed) => {
            let missing: Vec<&str> = wanted.into_iter().filter(|name| !installed.has(name)).collect();
            for name in &missing {
                plan.lacks(
                    format!("package `{name}` is not installed"),
                    format!("install what is missing: `apt-get install {}`", missing.join(" ")),
                );
            }
        }
        None if wanted.is_empty() => {}
        None => plan.lacks(
            "packages are wanted, and the host has no package database at `/var/lib/dpkg/status`",
            "use a Debian or Ubuntu host",
        ),
    }
    let running: BTreeSet<&str> =
        state.kernel_command_line.as_deref().unwrap_or_default().split_whitespace().collect();
    for parameter in &profile.kernel.parameters {
        if !running.contains(parameter.as_str()) {
            plan.lacks(
                format!("the running kernel was started without `{parameter}`"),
                format!("add `{parameter}` to `GRUB_CMDLINE_LINUX` in `/etc/default/grub`, then `update-grub` and `reboot`"),
            );
        }
    }
}

/// Whether the profile wants keys in Docker's configuration.
pub(super) fn wants_daemon(inputs: &Inputs) -> bool {
    !daemon::wanted(&inputs.profile.container).is_empty()
}

/// Docker's configuration, and whether the daemon answers.
pub(super) fn docker(
    inputs: &Inputs,
    state: &HostState,
    engine: bool,
    prior: &Record,
    plan: &mut Plan,
) -> Result<Vec<Step>> {
    let wanted = daemon::wanted(&inputs.profile.container);
    if wanted.is_empty() && prior.daemon.is_empty() {
        away(state, engine, prior, &[], plan);
        return Ok(Vec::new());
    }
    let (text, on, keep) = match state.paths.get(PATH) {
        None | Some(PathState::Absent) => (None, None, None),
        Some(PathState::File { content: Some(content), digest, mode, uid, gid }) => {
            (Some(content.as_slice()), Some(*digest), Some((*mode, *uid, *gid)))
        }
        Some(PathState::File { .. }) => {
            return Err(Error::failed(format!("`{PATH}` is too large to be Docker's configuration"))
                .hint(format!("look at it, or move it away: `mv {PATH} {PATH}.old`")));
        }
        Some(PathState::Link { target }) => {
            return Err(Error::failed(format!("`{PATH}` is a link to `{target}`"))
                .hint(format!("replace it by the file itself: `cp --remove-destination {target} {PATH}`")));
        }
        Some(_) => {
            return Err(Error::failed(format!("`{PATH}` is not a file"))
                .hint(format!("move it away: `mv {PATH} {PATH}.old`")));
        }
    };
    let merge = daemon::merge(text, &wanted, prior, &mut plan.record)?;
    plan.warnings.extend(merge.warnings);
    let mut steps = Vec::new();
    if !merge.changes.is_empty() {
        plan.record.due.insert(Due::RestartDocker);
        let path = PATH.to_owned();
        steps.push(Step::MergeDaemon { path, changes: merge.changes, text: merge.text, on, keep });
    }
    if plan.record.due.contains(&Due::RestartDocker) && state.target == Target::Host {
        steps.push(Step::RestartDocker { live_restore: merge.live_restore });
    }
    away(state, engine, prior, &steps, plan);
    Ok(steps)
}

/// Docker is not there. Where an earlier run touched its configuration, that may be why, and the restart of
/// this plan may be the cure: then the plan goes ahead.
fn away(state: &HostState, engine: bool, prior: &Record, steps: &[Step], plan: &mut Plan) {
    let DockerState::Away { why, hint } = &state.docker else { return };
    // The packages come first, and with them the daemon.
    if engine {
        return;
    }
    let touched = prior.due.contains(&Due::RestartDocker) || !prior.daemon.is_empty();
    if touched && steps.iter().any(|step| matches!(step, Step::RestartDocker { .. })) {
        plan.warnings.push(format!("{why}; its configuration is mended first"));
    } else {
        plan.lacks(why.clone(), hint.clone());
    }
}

pub(super) fn secrets(inputs: &Inputs, state: &HostState, prior: &Record, plan: &mut Plan) -> Vec<Step> {
    let mut steps = Vec::new();
    plan.record.secrets.clone_from(&prior.secrets);
    for (name, source) in &inputs.profile.secrets {
        if state.target == Target::Tree {
            plan.defer(format!("secret {name}"), "secrets are never put into a tree");
            continue;
        }
        let now = state.secrets.get(name).copied().unwrap_or_default();
        let (id, stored) = match source {
            SecretSource::Credential(id) => (id.clone(), true),
            _ => (name.clone(), false),
        };
        let kept_before = prior.secrets.get(name);
        // A host that failed to keep it once is not asked again for the same value.
        let kept =
            now.credential || !now.can_keep || kept_before.is_some_and(|kept| kept.credential.is_none());
        let may_keep = now.can_keep && !stored;
        let credential = (may_keep || now.credential).then(|| id.clone());
        let mut owned = OwnedSecret { credential, ours: !stored, wanted: true };
        match now.given {
            Given::Same if stored || kept => {
                if !now.credential {
                    owned.credential = None;
                }
            }
            Given::Same | Given::Differs if !stored => {
                let credential = may_keep.then(|| id.clone());
                let replaces = now.present && now.given == Given::Differs;
                steps.push(Step::KeepSecret { name: name.clone(), replaces, credential });
            }
            _ if now.present => {
                if !now.credential {
                    owned.credential = None;
                }
            }
            _ if now.credential => {
                steps.push(Step::RestoreSecret { name: name.clone(), credential: id.clone() });
            }
            _ => {
                owned.credential = None;
                let how = match source {
                    SecretSource::Env(variable) => {
                        format!("set `{variable}` for the next `bedplate provision`")
                    }
                    SecretSource::File(path) => format!("put it into `{path}` (mode 0600)"),
                    SecretSource::Credential(_) => format!("store it: `bedplate secret set {name}`"),
                    SecretSource::Age(_) | SecretSource::Command(_) => {
                        "run `bedplate provision` where its source can be read".to_owned()
                    }
                };
                if inputs.deployments.is_empty() || inputs.needs_secret(name) {
                    plan.warnings.push(format!("secret `{name}` has no value: {how}"));
                }
            }
        }
        if now.present && !stored && !now.can_keep {
            plan.warnings.push(format!(
                "secret `{name}` must be given again after a reboot: the host has no `systemd-creds`"
            ));
        }
        plan.record.secrets.insert(name.clone(), owned);
    }
    for name in prior.secrets.keys() {
        if inputs.profile.secrets.contains_key(name) || state.target == Target::Tree {
            continue;
        }
        if state.secrets.get(name).is_some_and(|now| now.present) {
            steps.push(Step::RemoveSecret { name: name.clone() });
        }
    }
    steps
}

pub(super) fn images(
    inputs: &Inputs,
    state: &HostState,
    goal: Goal,
    prior: &Record,
    plan: &mut Plan,
) -> Vec<Step> {
    let mut steps = Vec::new();
    plan.record.images.clone_from(&prior.images);
    plan.record.images.retain(|key, _| inputs.lock.images.contains_key(key));
    for (key, image) in &inputs.lock.images {
        let tag = image_tag(key, plan.generation);
        if state.target == Target::Tree {
            plan.defer(format!("image {key}"), "images are pulled on the booted host");
            continue;
        }
        plan.record.images.insert(key.clone(), tag.clone());
        let now = state.images.get(key);
        match now.and_then(|now| now.present.clone()) {
            Some(_) if now.is_some_and(|now| now.tags.contains(&tag)) => {}
            Some(source) => steps.push(Step::TagImage { key: key.clone(), source, tag }),
            None if now.is_some_and(|now| now.at_hand) => {
                let (key, download) = (key.clone(), image.download);
                steps.push(Step::LoadImage { key, reference: image.pull_reference(), download, tag });
            }
            // Not known while Docker is away: pulling what is there costs next to nothing.
            None if goal != Goal::Provision && state.docker != DockerState::Running => {
                steps.push(Step::TagImage { key: key.clone(), source: image.pull_reference(), tag });
            }
            None if image.is_layout() => plan.lacks(
                format!(
                    "image `{key}` comes from the layout `{}`, and neither it nor its content is on the host",
                    image.reference
                ),
                "take it along from where the layout is: `bedplate bundle --with-images -o FILE`, then `bedplate provision FILE`; or `--host USER@NAME --carry`",
            ),
            None => match goal {
                Goal::Switch(to) => plan.lacks(
                    format!(
                        "image `{key}` ({}) of generation {to} is no longer on the host",
                        image.reference
                    ),
                    "provision with that generation's profile and lock, which pulls it",
                ),
                Goal::Provision => {
                    let (key, download) = (key.clone(), image.download);
                    steps.push(Step::PullImage { key, reference: image.pull_reference(), download, tag });
                }
            },
        }
    }
    steps
}

/// What must happen because of steps of this run, or of one that was interrupted before it got there.
pub(super) fn follow_up(state: &HostState, plan: &mut Plan) {
    for step in &plan.steps {
        let Some(path) = step.path() else { continue };
        if path == UNIT || path == UNIT_ENABLED {
            plan.record.due.insert(Due::ReloadSystemd);
        }
        if path.starts_with("/etc/sysctl.d/") {
            plan.record.due.insert(Due::ApplySysctl);
        }
    }
    if state.target == Target::Tree {
        plan.record.due.clear();
        plan.record.deferred = plan.deferred.iter().map(|deferred| deferred.what.clone()).collect();
        return;
    }
    if plan.record.due.contains(&Due::ReloadSystemd) {
        plan.steps.push(Step::ReloadSystemd);
    }
    if plan.record.due.contains(&Due::ApplySysctl) {
        plan.steps.push(Step::ApplySysctl);
    }
}

/// What runs is not what is locked; or a loaded module keeps the options it was loaded with.
pub(super) fn reboot(inputs: &Inputs, state: &HostState, plan: &mut Plan) {
    plan.reboot = packages::reboot(inputs, state);
    if plan.reboot.is_some() {
        return;
    }
    if state.target == Target::Tree || !plan.steps.iter().any(|step| step.path() == Some(MODPROBE)) {
        return;
    }
    let kernel = &inputs.profile.kernel;
    // The kernel writes dashes of a module's name as underscores.
    let loaded = kernel
        .blacklist
        .iter()
        .chain(kernel.options.keys())
        .find(|module| state.modules.contains(&module.replace('-', "_")));
    if let Some(module) = loaded {
        plan.reboot = Some(format!("module `{module}` is loaded, and its configuration changed"));
    }
}
