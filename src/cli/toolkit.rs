//! `toolkit`: layer 2, GPU access of containers: verified, or its packages installed.

use super::{
    Context, args, carry,
    carry_out::{self, Goal, Run},
    gate, inputs,
    inputs::Sources,
    provision as verb, report, subject,
    subject::Held,
};
use crate::{
    check::{report::Layer, up_to},
    error::Result,
    host::{provision, secrets::Frame},
    ui::{Format, exit},
};

/// Runs `toolkit verify`. Layer 1 is looked at too, since its failures would be blamed on this one.
pub fn verify(context: &Context, args: &args::ToolkitVerify) -> Result<u8> {
    let root = subject::host_root()?;
    let held = Held::find(context, &root, args.profile.as_deref())?;
    let sources = subject::sources(context, &root);
    let mut subject = held.subject(context, None)?;
    subject.wanted.thorough = args.thorough;
    let layers = up_to(Layer::Toolkit);
    let (found, facts) = context.run(async {
        if args.smoke_test || args.thorough {
            return Box::pin(subject::prove(context, &root, &mut subject, &sources, &layers)).await;
        }
        Ok(subject::judge(context, &subject, &sources, &layers).await)
    })?;
    gate::save_host(&root, &held, &found, &facts)?;
    if args.smoke_test && !held.profile.wants_gpus() {
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
    let frame = Frame::default();
    let run = Run::new(context, &root, (&bundle, &pinned), &frame, carry::places(context), Goal::Toolkit);
    context.run(async {
        let held = if args.dry_run { None } else { Some(provision::hold(&root, "toolkit install")?) };
        let plan = run.plan().await?;
        if context.ui.format == Format::Json {
            context.ui.json(&plan)?;
        } else if plan.is_empty() {
            context.ui.data("nothing to do\n")?;
        } else {
            context.ui.data(&plan.lines().iter().map(|line| format!("{line}\n")).collect::<String>())?;
        }
        if args.dry_run {
            carry_out::say_unasked(context, &plan);
        }
        plan.refuse()?;
        let Some(held) = held else { return Ok(exit::DONE) };
        if !plan.is_empty()
            && let Some(why) = run.apply(context, &held, &plan).await?.reboot
        {
            context.ui.say(&format!("a reboot is needed: {why}; after it the CDI specification is made"));
            return Ok(exit::REBOOT);
        }
        let sources = subject::sources(context, &root);
        subject::refresh_cdi(context, &root, &pinned.profile, Some(&pinned.lock), &sources).await?;
        Ok(exit::DONE)
    })
}
