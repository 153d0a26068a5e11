//! `toolkit verify`: layer 2, GPU access of containers.

use super::{Context, args, gate, later, report, subject, subject::Held};
use crate::{
    check::{report::Layer, up_to},
    error::Result,
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
