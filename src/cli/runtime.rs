//! `runtime prepare`: layer 3, the engine image.

use super::{
    Context,
    args::{self, EngineArg},
    engine, gate, report, subject,
    subject::Held,
};
use crate::{
    check::{report::Layer, up_to},
    error::{Error, Result},
    profile::deployment::Engine,
};

/// Runs `runtime prepare`. The layers below are looked at too.
pub fn prepare(context: &Context, args: &args::RuntimePrepare) -> Result<u8> {
    let root = subject::host_root()?;
    let held = Held::find(context, &root, args.profile.as_deref())?;
    let wanted = match args.engine {
        EngineArg::Vllm => Engine::Vllm,
        EngineArg::Sglang => Engine::Sglang,
    };
    let (_, deployment) =
        subject::deployment(context, &held, args.file.as_deref(), |deployment| deployment.engine == wanted)?;
    if deployment.engine != wanted {
        return Err(Error::usage(format!(
            "deployment `{}` is for {}, not {}",
            deployment.name,
            deployment.engine.name(),
            wanted.name()
        ))
        .hint(format!("write `--engine {}`", deployment.engine.name())));
    }
    let mut subject = held.subject(context, Some(&deployment))?;
    subject.wanted.hf_token = args.require_hf_token;
    let sources = subject::sources(context, &root);
    let layers = up_to(Layer::Runtime);
    let (found, facts) = context.run(async {
        if args.smoke_test {
            return Box::pin(engine::prove(context, &root, &mut subject, &sources, &layers)).await;
        }
        Ok(subject::judge(context, &subject, &sources, &layers).await)
    })?;
    gate::save_deployment(&root, &held, &deployment, &found, &facts)?;
    if args.smoke_test && !held.profile.wants_gpus() {
        context.ui.say("smoke test: does not apply, this host has no GPUs; `bedplate up` starts the engine");
    }
    report::print_layer(context, &found, Layer::Runtime)
}
