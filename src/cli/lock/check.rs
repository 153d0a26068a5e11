//! `lock --check`: whether the lock matches its inputs; with `--update`, whether something has moved.

use std::sync::Arc;

use super::{archives_of, no_lock, print_diff, refuse, resolved};
use crate::{
    cli::{
        Context, args,
        inputs::{self, Sources},
        registries,
    },
    error::Result,
    lock::{
        self,
        resolve::{self, Moved, MovedPackage, Request},
        set,
    },
    progress::Silent,
    ui::{Format, exit},
};

/// How many moved packages are named; the rest is counted.
const SOME: usize = 20;

/// Runs `lock --check`. Writes nothing.
pub(super) fn check(
    context: &Context,
    args: &args::Lock,
    sources: &Sources,
    request: &Request<'_>,
) -> Result<u8> {
    let shown = &sources.shown;
    let Some(old) = request.old else { return Err(no_lock(sources)) };
    let deployments: Vec<_> = sources.deployments.values().collect();
    let wanted = lock::wanted(&sources.profile, &deployments)?;
    let inputs = lock::inputs(&sources.file_name(), &sources.profile, &sources.deployments, &sources.files);
    let freshness = lock::freshness(old, &inputs, &wanted);
    let contradictions = set::contradictions(&sources.profile, old, freshness.is_fresh());
    if !contradictions.is_empty() {
        let text = sources.lock(context)?.map(|(text, _)| text).unwrap_or_default();
        set::refuse(&contradictions, &inputs::shown(context, &sources.lock_path()), &text)?;
    }
    let (moved, packages) = moved(context, args, sources, request)?;
    let nothing_moved = moved.is_empty() && packages.is_empty();
    let reasons: Vec<String> = freshness.reasons().iter().map(ToString::to_string).collect();
    if context.ui.format == Format::Json {
        context.ui.json(&serde_json::json!({
            "schema": 1, "profile": shown, "fresh": freshness.is_fresh(), "reasons": reasons, "moved": moved,
            "moved-packages": packages,
        }))?;
    } else {
        for reason in &reasons {
            context.ui.say(&format!("stale: {reason}"));
        }
        // A diff says it too, and more.
        if args.diff.is_none() {
            say_moved(context, &moved, &packages);
        }
    }
    let refused = refuse(context, old);
    if args.diff.is_some() && (!nothing_moved || !freshness.is_fresh()) {
        // Where the archives were asked just now, what that said is not said again.
        let progress = if request.update.is_none() { context.ui.progress() } else { Arc::new(Silent) };
        let new = resolved(context, args, sources, request, progress.as_ref())?;
        print_diff(context, args, old, &new)?;
    }
    if !freshness.is_fresh() || !nothing_moved {
        let again = if nothing_moved { String::new() } else { update_flags(args) };
        context.ui.say(&format!("hint: run `bedplate lock {shown}{again}`"));
        return Ok(exit::STALE);
    }
    context.ui.say(&format!("{} is up to date", inputs::shown(context, &sources.lock_path())));
    Ok(if refused { exit::CHECK } else { exit::DONE })
}

fn moved(
    context: &Context,
    args: &args::Lock,
    sources: &Sources,
    request: &Request<'_>,
) -> Result<(Vec<Moved>, Vec<MovedPackage>)> {
    if request.update.is_none() {
        return Ok((Vec::new(), Vec::new()));
    }
    let progress = context.ui.progress();
    context.run(async {
        let images = resolve::moved(request, || Ok(registries::client(context)), progress.as_ref()).await?;
        let archives = || archives_of(context, args, sources, request.old);
        let packages = resolve::moved_packages(request, archives, progress.as_ref()).await?;
        Ok((images, packages))
    })
}

fn say_moved(context: &Context, images: &[Moved], packages: &[MovedPackage]) {
    for moved in images {
        context.ui.say(&format!(
            "moved: {} ({}): {} → {}",
            moved.name,
            moved.reference,
            moved.from.short(),
            moved.to.short()
        ));
    }
    let some = if context.ui.verbose > 0 { packages.len() } else { SOME };
    for moved in packages.iter().take(some) {
        let (from, to) = (moved.from.as_deref().unwrap_or("none"), moved.to.as_deref().unwrap_or("none"));
        context.ui.say(&format!("moved: package {}: {from} → {to}", moved.name));
    }
    if packages.len() > some {
        context.ui.say(&format!("moved: {} more packages (`--verbose` lists them)", packages.len() - some));
    }
}

fn update_flags(args: &args::Lock) -> String {
    if args.update_all {
        " --update-all".to_owned()
    } else {
        args.update.iter().fold(String::new(), |all, what| all + " --update " + what)
    }
}
