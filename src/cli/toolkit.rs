//! `toolkit`: layer 2, GPU access of containers: verified, or its packages installed.

use std::collections::BTreeMap;

use super::{
    Context, args, carry, gate, inputs, inputs::Sources, later, provision as verb, report, subject,
    subject::Held, supply::Supply,
};
use crate::{
    check::{report::Layer, up_to},
    error::Result,
    host::{
        provision::{self, Options},
        secrets::SecretValues,
    },
    plan::{self, Inputs},
    ui::{Format, exit, text},
};

/// Runs `toolkit verify`. Layer 1 is looked at too, since its failures would be blamed on this one.
pub fn verify(context: &Context, args: &args::ToolkitVerify) -> Result<u8> {
    let root = subject::host_root()?;
    let held = Held::find(context, &root, args.profile.as_deref())?;
    if (args.smoke_test || args.thorough) && held.profile.wants_gpus() {
        return later::refuse(
            "toolkit verify --smoke-test",
            "without it, daemon, wiring and CDI specification are checked: `bedplate toolkit verify`",
        );
    }
    let subject = held.subject(context, None)?;
    let sources = subject::sources(context, &root);
    let (found, facts) =
        context.run(async { Ok(subject::judge(&subject, &sources, &up_to(Layer::Toolkit)).await) })?;
    gate::save_host(&root, &held, &found, &facts)?;
    if args.smoke_test {
        context.ui.say("smoke test: does not apply, this host has no GPUs");
    }
    report::print_layer(context, &found, Layer::Toolkit)
}

/// Runs `toolkit install`: engine and toolkit of the lock, and Docker's configuration; no generation is made.
pub fn install(context: &Context, args: &args::ToolkitInstall) -> Result<u8> {
    verb::refuse_unprivileged(args.dry_run)?;
    let root = subject::host_root()?;
    let (bundle, pinned) = if args.profile.is_some() || Sources::any(context)? {
        Sources::read(context, args.profile.as_deref())?.pinned(context)?
    } else {
        let (generation, pinned) = subject::current(&root)?.ok_or_else(subject::not_provisioned)?;
        (subject::bundle(&root, generation.about.number)?, pinned)
    };
    inputs::refuse_stale(&pinned, &pinned.name)?;
    let inputs = Inputs::of(&pinned, bundle.digest());
    let look = Options {
        docker_socket: carry::docker_socket(context),
        content: carry::places(context),
        ..Options::default()
    };
    let none = SecretValues::new();
    context.run(async {
        let held = if args.dry_run { None } else { Some(provision::hold(&root, "toolkit install")?) };
        let state = provision::observe(&root, &inputs, &none, &look).await?;
        let plan = plan::toolkit(&inputs, &state)?;
        if context.ui.format == Format::Json {
            context.ui.json(&plan)?;
        } else if plan.is_empty() {
            context.ui.data("nothing to do\n")?;
        } else {
            context.ui.data(&plan.lines().iter().map(|line| format!("{line}\n")).collect::<String>())?;
        }
        plan.refuse()?;
        let Some(held) = held.filter(|_| !plan.is_empty()) else { return Ok(exit::DONE) };
        let progress = context.ui.progress();
        let supply = Supply::new(context, &pinned.profile)?;
        let outcome = provision::apply_alone(
            &plan,
            &provision::Context {
                root: &root,
                held: &held,
                pinned: &pinned,
                bundle: &bundle,
                secrets: &none,
                registries: &BTreeMap::new(),
                supply: supply.of(context),
                docker_socket: &look.docker_socket,
                content: &look.content,
                program: look.program.clone(),
                progress: progress.as_ref(),
            },
        )
        .await?;
        for warning in &outcome.warnings {
            context.ui.warn(warning);
        }
        context.ui.say(&format!("{} carried out", text::count(outcome.changed, "step")));
        if let Some(why) = outcome.reboot {
            context.ui.say(&format!("a reboot is needed: {why}"));
            return Ok(exit::REBOOT);
        }
        Ok(exit::DONE)
    })
}
