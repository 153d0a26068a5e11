//! `boot`: what the boot unit runs. Secrets first, then the checks, then the deployments that were up, so that nothing
//! goes round the gate.

use super::{Context, provision, registries, report, subject, up};
use crate::{
    deploy::{self, Paths, state, state::WantedState},
    error::Result,
    fleet::wire::Options,
    host::secrets::{self, Frame},
    profile,
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
        if !generation.record.deferred.is_empty() {
            // Made as a tree: what waited for the first boot is done now.
            let bundle = subject::bundle(&root, generation.about.number)?;
            let options = Options { no_check: true, ..Options::default() };
            let frame =
                Frame { registries: registries::logins(context, &pinned.lock).await?, ..Frame::default() };
            provision::here(context, &root, &bundle, &pinned, frame, &options).await?;
        }
        let restored = secrets::restore_at_boot(&root).await?;
        for error in &restored.failed {
            context.ui.error(error);
        }
        context.ui.say(&format!("secrets on tmpfs: {}", restored.names.join(", ")));
        let found = provision::check(context, &root).await?;
        let mut code = report::print(context, &found)?;
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
            let result = async {
                let text =
                    state::deployment_text(&root, &paths, &name)?.ok_or_else(|| up::no_deployment(&name))?;
                let deployment = profile::deployment::parse(&name, &text)?.deployment;
                up::bring_up(context, &root, &text, &deployment, deploy::Options::default()).await
            };
            match result.await {
                Ok(exit::DONE) => {}
                Ok(failed) => code = failed,
                Err(error) => {
                    context.ui.error(&error);
                    code = exit::of(&error);
                }
            }
        }
        Ok(code)
    })
}
