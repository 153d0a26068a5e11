//! `lock`: pins every image of a profile, shows what that changes, or says what has moved.

use std::collections::BTreeSet;

use super::{
    Context,
    args::{self, DiffArg},
    inputs::{self, Sources},
    later, registries,
};
use crate::{
    error::{Error, Result},
    lock::{
        self, Freshness, Lock, VerdictOutcome,
        resolve::{self, Request, Update},
    },
    system::files,
    ui::{Format, exit, text},
};

/// Runs `lock`.
pub fn run(context: &Context, args: &args::Lock) -> Result<u8> {
    if args.why.is_some() || args.mirror.is_some() {
        return later::refuse(
            "lock --why` and `--mirror",
            "packages are not locked in this version: the lock holds images only",
        );
    }
    let sources = Sources::read(context, args.profile.as_deref())?;
    for warning in &sources.warnings {
        context.ui.warn_at(&warning.message, warning.snippet.as_ref(), &warning.hint);
    }
    let old = sources.lock(context)?.map(|(_, lock)| lock);
    let update = update(args)?;
    check_names(&update, &sources, old.as_ref())?;
    let file_name = sources.file_name();
    let request = Request {
        profile_file_name: &file_name,
        directory: sources.directory(),
        profile: &sources.profile,
        deployments: &sources.deployments,
        sources: &sources.files,
        old: old.as_ref(),
        update,
    };
    if args.check {
        check(context, args, &sources, &request)
    } else {
        write(context, args, &sources, &request)
    }
}

fn update(args: &args::Lock) -> Result<Update> {
    if args.update_all {
        return Ok(Update::All);
    }
    let mut images = BTreeSet::new();
    for what in &args.update {
        match what.split_once(':') {
            Some(("image", "*")) => return Ok(Update::All),
            Some(("image", name)) if !name.is_empty() => {
                images.insert(name.to_owned());
            }
            Some(("package", _)) => {
                return later::refuse("lock --update package:…", "packages are not locked in this version");
            }
            _ => {
                return Err(Error::usage(format!("`--update {what}` names nothing that can be updated"))
                    .hint("write `--update image:NAME`, or `--update-all`"));
            }
        }
    }
    Ok(if images.is_empty() { Update::None } else { Update::Images(images) })
}

fn check_names(update: &Update, sources: &Sources, old: Option<&Lock>) -> Result<()> {
    let Update::Images(names) = update else { return Ok(()) };
    let deployments: Vec<_> = sources.deployments.values().collect();
    let wanted = lock::wanted(&sources.profile, &deployments)?;
    for name in names {
        if !wanted.contains_key(name) && !old.is_some_and(|lock| lock.images.contains_key(name)) {
            let known: Vec<&str> = wanted.keys().map(String::as_str).collect();
            let error = Error::usage(format!("`{}` has no image `{name}`", sources.shown));
            return Err(if known.is_empty() {
                error.hint("it names no image at all: add one to `[images]`")
            } else {
                error.hint(format!("it has: {}", known.join(", ")))
            });
        }
    }
    Ok(())
}

/// `--check`: whether the lock matches its inputs; with `--update`, whether something has moved.
fn check(context: &Context, args: &args::Lock, sources: &Sources, request: &Request<'_>) -> Result<u8> {
    let shown = &sources.shown;
    let Some(old) = request.old else {
        return Err(
            Error::stale(format!("`{shown}` has no lock")).hint(format!("run `bedplate lock {shown}`"))
        );
    };
    let deployments: Vec<_> = sources.deployments.values().collect();
    let wanted = lock::wanted(&sources.profile, &deployments)?;
    let inputs = lock::inputs(&sources.file_name(), &sources.profile, &sources.deployments, &sources.files);
    let freshness = lock::freshness(old, &inputs, &wanted);
    let moved = if request.update == Update::None {
        Vec::new()
    } else {
        let progress = context.ui.progress();
        context.run(resolve::moved(request, || Ok(registries::client(context)), progress.as_ref()))?
    };
    let reasons: Vec<String> = freshness.reasons().iter().map(ToString::to_string).collect();
    if context.ui.format == Format::Json {
        context.ui.json(&serde_json::json!({
            "schema": 1, "profile": shown, "fresh": freshness.is_fresh(), "reasons": reasons, "moved": moved,
        }))?;
    } else {
        for reason in &reasons {
            context.ui.say(&format!("stale: {reason}"));
        }
        for moved in &moved {
            context.ui.say(&format!(
                "moved: {} ({}): {} → {}",
                moved.name,
                moved.reference,
                moved.from.short(),
                moved.to.short()
            ));
        }
    }
    let refused = refuse(context, old);
    if args.diff.is_some() && (!moved.is_empty() || !freshness.is_fresh()) {
        let progress = context.ui.progress();
        let new =
            context.run(resolve::lock(request, || Ok(registries::client(context)), progress.as_ref()))?;
        print_diff(context, args, old, &new)?;
    }
    if !matches!(freshness, Freshness::Fresh) || !moved.is_empty() {
        let again = if moved.is_empty() { String::new() } else { update_flags(args) };
        context.ui.say(&format!("hint: run `bedplate lock {shown}{again}`"));
        return Ok(exit::STALE);
    }
    context.ui.say(&format!("{} is up to date", inputs::shown(context, &sources.lock_path())));
    Ok(if refused { exit::CHECK } else { exit::DONE })
}

fn update_flags(args: &args::Lock) -> String {
    if args.update_all {
        " --update-all".to_owned()
    } else {
        args.update.iter().fold(String::new(), |all, what| all + " --update " + what)
    }
}

/// Resolves what is new, changed or to be updated, and writes the lock where it differs.
fn write(context: &Context, args: &args::Lock, sources: &Sources, request: &Request<'_>) -> Result<u8> {
    let progress = context.ui.progress();
    let new = context.run(resolve::lock(request, || Ok(registries::client(context)), progress.as_ref()))?;
    let path = sources.lock_path();
    let shown = inputs::shown(context, &path);
    let written = lock::write(&new);
    let same = request.old.is_some_and(|old| lock::write(old) == written);
    if !same {
        files::write_output(&path, written.as_bytes(), 0o644)?;
    }
    let empty = Lock::default();
    print_diff(context, args, request.old.unwrap_or(&empty), &new)?;
    if context.ui.format == Format::Json && args.diff.is_none() {
        context.ui.json(&serde_json::json!({
            "schema": 1, "profile": sources.shown, "lock": shown, "digest": new.digest(),
            "changed": !same, "images": new.images.len(),
        }))?;
    }
    let images = text::count(new.images.len(), "image");
    if same {
        context.ui.say(&format!("{shown} is up to date: {images}"));
    } else {
        let size: u64 = new.images.values().map(|image| image.download).sum();
        context.ui.say(&format!("locked {images}, {} to download, in {shown}", text::bytes(size)));
    }
    Ok(if refuse(context, &new) { exit::CHECK } else { exit::DONE })
}

fn print_diff(context: &Context, args: &args::Lock, old: &Lock, new: &Lock) -> Result<()> {
    let Some(form) = args.diff else { return Ok(()) };
    let diff = lock::diff(old, new);
    match form {
        DiffArg::Text => context.ui.data(&diff.text()),
        DiffArg::Markdown => context.ui.data(&diff.markdown()),
        DiffArg::Json => context.ui.json(&diff.json()),
    }
}

/// Whether an image cannot run on the profile's driver or GPUs; says which, and what is unknown.
fn refuse(context: &Context, lock: &Lock) -> bool {
    let mut refused = false;
    for (name, image) in &lock.images {
        match image.verdict.outcome {
            VerdictOutcome::Refuse => {
                refused = true;
                context.ui.warn(&format!("image `{name}` is refused: {}", image.verdict.because));
            }
            VerdictOutcome::Unknown if context.ui.verbose > 0 => {
                context.ui.say(&format!("image `{name}`: verdict unknown: {}", image.verdict.because));
            }
            _ => {}
        }
    }
    refused
}
