//! `generations`: lists, compares and switches what was applied.

use std::{path::Path, sync::Arc};

use super::{
    Context, args, carry,
    carry_out::{Goal, Run},
    provision as verb, subject,
};
use crate::{
    error::{Error, Result},
    fleet::wire,
    host::{
        generations::{Generations, gc},
        provision,
        secrets::Frame,
    },
    store::Store,
    system::files::{self, Root},
    ui::{Format, exit, table::table, text},
};

/// Runs `generations`.
pub fn run(context: &Context, verb: &args::Generations) -> Result<u8> {
    match verb {
        args::Generations::List { root } => list(context, &*looked_at(context, root.as_deref())?),
        args::Generations::Diff { a, b, root } => {
            diff(context, &*looked_at(context, root.as_deref())?, *a, *b)
        }
        args::Generations::Switch { number, allow } => {
            return context.run(switch(context, &own()?, *number, allow));
        }
        args::Generations::Rollback { allow } => {
            let root = own()?;
            let number = provision::previous(&root)?;
            return context.run(switch(context, &root, number, allow));
        }
        args::Generations::Gc { keep } => context.run(collect(context, &*own()?, *keep)),
    }
    .map(|()| exit::DONE)
}

/// This host.
fn own() -> Result<Arc<Root>> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::failed("generations are for root alone").hint("run it with `sudo`"));
    }
    subject::host_root()
}

/// This host, or the tree in `directory`.
fn looked_at(context: &Context, directory: Option<&Path>) -> Result<Arc<Root>> {
    match directory {
        Some(directory) => subject::tree(context, directory).map(Arc::new),
        None => own(),
    }
}

fn list(context: &Context, root: &Root) -> Result<()> {
    let generations = Generations::new(root);
    let listed = generations.list()?;
    if context.ui.format == Format::Json {
        return context.ui.json(&listed);
    }
    if let Some(left) = provision::interrupted(root)? {
        let again = if root.is_host() { String::new() } else { format!(" --root {}", root.path().display()) };
        context
            .ui
            .warn(&format!("a run was interrupted: {left}; `bedplate provision{again}` goes on with it"));
    }
    if listed.is_empty() {
        let what = if root.is_host() { "host" } else { "tree" };
        context.ui.say(&format!("no generations: this {what} was never provisioned"));
        return Ok(());
    }
    let rows = listed.iter().map(|one| {
        let state = match (&one.unreadable, one.state) {
            (Some(why), _) => format!("unreadable: {why}"),
            (None, Some(state)) => state.to_string(),
            (None, None) => "unknown".to_owned(),
        };
        let ready =
            generations.is_ready(one.number).map_or("unknown", |ready| if ready { "yes" } else { "no" });
        let about = one.about.as_ref();
        [
            format!("{}{}", if one.current { "* " } else { "  " }, one.number),
            about.map_or_else(String::new, |about| about.created.strftime("%F %T UTC").to_string()),
            about.map_or_else(String::new, |about| about.profile.clone()),
            about.map_or_else(String::new, |about| about.lock.short()),
            state,
            ready.to_owned(),
        ]
    });
    context.ui.data(&table(["NUMBER", "MADE", "PROFILE", "LOCK", "STATE", "CHECKS PASSED"], rows))
}

fn diff(context: &Context, root: &Root, a: u64, b: u64) -> Result<()> {
    let mut lines = Generations::new(root).diff(a, b)?;
    lines.extend(subject::deployment_changes(&subject::bundle(root, a)?, &subject::bundle(root, b)?)?);
    if context.ui.format == Format::Json {
        return context
            .ui
            .json(&serde_json::json!({ "schema": 1, "from": a, "to": b, "differences": lines }));
    }
    if lines.is_empty() {
        context.ui.say(&format!("generations {a} and {b} do not differ"));
        return Ok(());
    }
    context.ui.data(&lines.join("\n"))
}

/// Goes to another generation from what the host has: no network, no operator.
async fn switch(context: &Context, root: &Arc<Root>, number: u64, allow: &[String]) -> Result<u8> {
    let held = provision::hold(root, "generations switch")?;
    let bundle = provision::switch_to(root, number)?;
    let pinned = bundle.open()?;
    let frame = Frame::default();
    let (places, goal) = (carry::places(context), Goal::Switch(number));
    let run = Run::new(context, root, (&bundle, &pinned), &frame, places, goal).allowing(allow);
    let plan = run.plan().await?;
    if plan.is_empty() {
        context.ui.say(&format!("generation {number} is current, and nothing is to do"));
        drop(held);
        let found = verb::check(context, root).await?;
        return verb::finish(context, &plan, 0, Some(found), None, &wire::Options::default()).await;
    }
    let outcome = run.apply(context, &held, &plan).await?;
    drop(held);
    // After a reboot the boot unit makes the checks.
    let found = if outcome.reboot.is_some() { None } else { Some(verb::check(context, root).await?) };
    verb::finish(context, &plan, outcome.changed, found, outcome.reboot, &wire::Options::default()).await
}

async fn collect(context: &Context, root: &Root, keep: u64) -> Result<()> {
    let held = provision::hold(root, "generations gc")?;
    let socket = carry::docker_socket(context);
    let docker = crate::docker::Docker::connect(&socket).await;
    let docker = match docker {
        Ok(docker) => Some(docker),
        Err(error) => {
            context.ui.warn(&format!("image tags stay: {}", error.message()));
            None
        }
    };
    let store = if files::is_dir(&context.store) { Some(Store::open(&context.store)?) } else { None };
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let removed = gc(root, keep, docker.as_ref(), store.as_ref()).await?;
    drop(held);
    if context.ui.format == Format::Json {
        return context.ui.json(&serde_json::json!({
            "schema": 1, "generations": removed.generations, "tags": removed.tags,
            "credentials": removed.credentials, "packages": removed.packages,
        }));
    }
    context.ui.say(&format!(
        "removed {}, {}, {} and {}",
        text::count(removed.generations.len(), "generation"),
        text::count(removed.tags.len(), "image tag"),
        text::count(removed.credentials.len(), "stored secret"),
        text::count(removed.packages, "stored package")
    ));
    Ok(())
}
