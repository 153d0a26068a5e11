//! `doctor`: layer 1, the host.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Context, args, inputs, report, subject, subject::Held, watch};
use crate::{
    check::{self, Subject, report::Layer},
    error::Result,
    host::{
        facts::record::{self, Words},
        generations::Generations,
        provision,
    },
    profile::Deployment,
    system::files::{self, Root},
};

/// Runs `doctor`.
pub fn run(context: &Context, args: &args::Doctor) -> Result<u8> {
    let root = subject::host_root()?;
    if args.facts.is_none()
        && let Some(left) = provision::interrupted(&root).unwrap_or_default()
    {
        context.ui.warn(&format!("a run was interrupted: {left}; `bedplate provision` goes on with it"));
    }
    let sources = subject::sources(context, &root);
    if args.watch {
        return watch::run(context, args, &sources);
    }
    let held = Held::find(context, &root, args.profile.as_deref())?;
    let named = args.file.as_deref().map(|file| inputs::deployment(context, file)).transpose()?;
    let subject = of_host(context, &held, named.as_ref().map(|(_, deployment)| deployment))?;
    if let Some(file) = &args.facts {
        return judge(context, &subject, file);
    }
    let (found, facts) =
        context.run(async { Ok(subject::judge(context, &subject, &sources, &[Layer::Doctor]).await) })?;
    if let Some(file) = &args.record {
        let host = rustix::system::uname();
        let text = record::write(&facts, &Words::of(&subject.wanted), &host.nodename().to_string_lossy())?;
        files::write_private(&context.path(file), text.as_bytes())?;
        context.ui.say(&format!(
            "facts written to `{}`: read it before you send it; `bedplate doctor PROFILE --facts FILE` judges it",
            file.display()
        ));
    }
    report::print_layer(context, &found, Layer::Doctor)
}

/// The subject: the host with its deployments, or with the one that was named.
pub fn of_host<'a>(context: &Context, held: &'a Held, named: Option<&'a Deployment>) -> Result<Subject<'a>> {
    let mut subject = held.subject(context, named)?;
    "host".clone_into(&mut subject.name);
    Ok(subject)
}

/// The files that the subject is read from, whether they are there or not. What a generation was made from is part of
/// it, and does not change.
///
/// # Errors
/// The profile, or what it names, cannot be read.
pub fn inputs_of(context: &Context, args: &args::Doctor, root: &Root) -> Result<BTreeSet<PathBuf>> {
    let mut found: BTreeSet<PathBuf> = args.file.iter().map(|file| context.path(file)).collect();
    // As in `Held::find`: on a provisioned host the generation, where root asks and names nothing else.
    let of_generation = args.profile.is_none() && rustix::process::geteuid().is_root();
    if of_generation && Generations::new(root).current_number()?.is_some() {
        return Ok(found);
    }
    let sources = inputs::Sources::read(context, args.profile.as_deref())?;
    found.extend(sources.files.keys().map(|named| sources.directory().join(named)));
    found.extend([sources.lock_path(), sources.path]);
    Ok(found)
}

/// Judges a file of facts instead of this host.
fn judge(context: &Context, subject: &Subject<'_>, file: &Path) -> Result<u8> {
    let text = files::read_input(&context.path(file), record::LIMIT)?;
    let shown = file.display().to_string();
    let recorded = record::read(&text, &Words::of(&subject.wanted), &shown)?;
    if !recorded.same {
        context.ui.warn(&format!(
            "`{shown}` was recorded for another profile, lock or deployment: what that did not ask for is unknown here"
        ));
    }
    report::print(context, &check::judge(&[Layer::Doctor], subject, &recorded.facts))
}
