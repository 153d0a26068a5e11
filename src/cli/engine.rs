//! Engines in their own images: loaded where every layer below lets them, on what a deployment gives them.

use std::{sync::Arc, time::Duration};

use super::{Context, subject};
use crate::{
    check::{
        self, Subject,
        report::{Layer, Report},
    },
    deploy::spec,
    docker::Docker,
    error::Result,
    host::{
        facts::{self, Facts},
        smoke::{
            Lab,
            engine::{self, EngineSmoke},
        },
    },
    profile::{
        Deployment,
        services::{Role, services},
    },
    progress::Unit,
    system::files::Root,
};

/// The check that decides.
const CHECK: &str = "runtime.smoke";
/// How long an engine may take to load. Importing vLLM or SGLang takes 10 to 60 s where the image's files were read before; the
/// first time some gigabytes of libraries come from the disk, at 20 MB/s and more; CUDA takes seconds for each GPU without
/// persistence.
const LIMIT: Duration = Duration::from_secs(300);

/// As [`subject::prove`], and where nothing below shuts the gate each deployment's engine is loaded in its image.
///
/// # Errors
/// Docker cannot be reached.
pub async fn prove(
    context: &Context,
    root: &Arc<Root>,
    subject: &mut Subject<'_>,
    sources: &facts::Sources,
    layers: &[Layer],
) -> Result<(Report, Facts)> {
    subject.wanted.engines = true;
    let (report, mut facts) = Box::pin(subject::prove(context, root, subject, sources, layers)).await?;
    if !report.is_unknown(CHECK) {
        return Ok((report, facts));
    }
    let docker = Docker::connect(&sources.docker_socket).await?;
    for deployment in &subject.deployments {
        let task = format!("{} of `{}` in its image", deployment.engine.name(), deployment.name);
        let progress = context.ui.progress();
        progress.started(&task, None, Unit::None);
        if let Some(loaded) = load(&docker, root, subject, deployment).await {
            facts.engines.insert(deployment.name.clone(), facts::known(loaded));
        }
        progress.finished(&task, None);
    }
    Ok((check::judge(layers, subject, &facts), facts))
}

/// Loads one deployment's engine; none where the lock has no image for it.
async fn load(
    docker: &Docker,
    root: &Root,
    subject: &Subject<'_>,
    deployment: &Deployment,
) -> Option<Result<EngineSmoke>> {
    let locked = subject.lock.as_ref()?;
    let wanted = subject.wanted.deployments.iter().find(|wanted| wanted.name == deployment.name)?;
    let key = wanted.services.iter().find(|service| service.role == Role::Engine)?.locked.as_deref()?;
    let (key, image) = locked.lock.images.get_key_value(key)?;
    let service = services(deployment).into_iter().find(|service| service.role == Role::Engine)?;
    let gpus = match spec::gpus(&service, subject.profile.container.gpu_access) {
        Ok(gpus) => gpus,
        Err(error) => return Some(Err(error)),
    };
    let lab = Lab { docker, root, key, image, gpus: gpus.as_ref(), place: engine::ON_HOST, limit: LIMIT };
    Some(engine::load(lab, deployment.engine, &service).await)
}
