//! `boot`: what the boot unit runs. Secrets first, then the checks, then the deployments that were up, so that nothing
//! goes round the gate.

use std::sync::Arc;

use super::{Context, carry, provision, registries, report, subject, up};
use crate::{
    deploy::{self, Paths, state, state::WantedState},
    error::{Error, Result},
    fleet::wire::Options,
    host::{
        generations::Generation,
        secrets::{self, Frame},
    },
    lock::bundle::Pinned,
    profile,
    system::files::Root,
    ui::exit,
};

/// Runs `boot`. Exit code 3 where a check or a deployment failed: the unit then counts as failed.
pub fn run(context: &Context) -> Result<u8> {
    up::refuse_unprivileged()?;
    let root = subject::host_root()?;
    context.run(async {
        let Some((generation, pinned)) = subject::current(&root)? else {
            context.ui.say("this host is not provisioned: nothing to do");
            return Ok(exit::DONE);
        };
        let mut code = exit::DONE;
        let failed = |error: &Error| {
            context.ui.error(error);
            exit::of(error)
        };
        if !generation.record.deferred.is_empty() {
            // Made as a tree: what waited for the first boot is done now.
            if let Err(error) = first_boot(context, &root, &generation, &pinned).await {
                code = failed(&error);
            }
        }
        match secrets::restore_at_boot(&root).await {
            Ok(restored) => {
                // Whether one is missed is for `secret.present` to say.
                for error in &restored.failed {
                    context.ui.say(&format!("note: {}", error.message()));
                }
                context.ui.say(&format!("secrets on tmpfs: {}", restored.names.join(", ")));
            }
            Err(error) => code = failed(&error),
        }
        match provision::check(context, &root).await {
            Ok(found) => code = code.max(report::print(context, &found)?),
            Err(error) => code = failed(&error),
        }
        let paths = Paths::default();
        for (name, kept) in state::all(&root, &paths)? {
            match kept {
                Ok(kept) if kept.wanted == WantedState::Running => {}
                Ok(_) => continue,
                Err(error) => {
                    context.ui.error(&error);
                    code = exit::of(&error);
                    continue;
                }
            }
            // One that fails does not hold up the others.
            let result = Box::pin(async {
                let text =
                    state::deployment_text(&root, &paths, &name)?.ok_or_else(|| up::no_deployment(&name))?;
                let deployment = profile::deployment::parse(&name, &text)?.deployment;
                let options = deploy::Options::default();
                Box::pin(up::bring_up(context, &root, &text, &deployment, options, up::Start::AsNeeded)).await
            });
            match result.await {
                Ok(exit::DONE) => {}
                Ok(other) => code = other,
                Err(error) => code = failed(&error),
            }
        }
        Ok(code)
    })
}

/// Finishes what a tree's provisioning left for its first boot: images and secrets.
async fn first_boot(
    context: &Context,
    root: &Arc<Root>,
    generation: &Generation,
    pinned: &Pinned,
) -> Result<()> {
    let bundle = subject::bundle(root, generation.about.number)?;
    let options = Options { no_check: true, ..Options::default() };
    let frame = Frame { registries: registries::logins(context, &pinned.lock).await?, ..Frame::default() };
    provision::here(context, root, &bundle, pinned, frame, &options, &carry::places(context)).await.map(drop)
}
