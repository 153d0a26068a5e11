//! `status`, `logs`, `stop`, `rm`, `list`: the life of deployments on this host.

use futures_util::TryStreamExt as _;

use super::{
    Context, args, subject,
    up::{docker, refuse_unprivileged},
};
use crate::{
    deploy::{
        self, Paths,
        life::{self, Status},
        state::WantedState,
    },
    error::Result,
    ui::{Format, exit, table::table, text},
};

/// Runs `work` with what every verb of a deployment works with.
fn with<T>(context: &Context, work: impl AsyncFnOnce(deploy::Context<'_>) -> Result<T>) -> Result<T> {
    refuse_unprivileged()?;
    let root = subject::host_root()?;
    let paths = Paths::default();
    let progress = context.ui.progress();
    context.run(async {
        let docker = docker(context).await?;
        work(deploy::Context { docker: &docker, root: &root, paths: &paths, progress: progress.as_ref() })
            .await
    })
}

/// Runs `status`: exit code 3 where a deployment that should run does not, 4 where one drifted.
pub fn status(context: &Context, args: &args::Name) -> Result<u8> {
    let found = with(context, async |deploy| match &args.name {
        Some(name) => Ok(vec![life::status(deploy, name).await?]),
        None => life::list(deploy).await,
    })?;
    if context.ui.format == Format::Json {
        context.ui.json(&found)?;
    } else if found.is_empty() {
        context.ui.say("no deployments on this host");
    } else {
        for status in &found {
            context.ui.data(&one(status))?;
        }
    }
    Ok(if found.iter().any(Status::is_down) {
        exit::CHECK
    } else if found.iter().any(|status| !status.drift.is_empty()) {
        exit::STALE
    } else {
        exit::DONE
    })
}

fn one(status: &Status) -> String {
    let health = match status.healthy {
        Some(true) => ", healthy",
        Some(false) => ", NOT healthy",
        None => "",
    };
    let up = status.wanted == Some(WantedState::Running) && !status.is_down();
    // `status.since` is the last `up`, which may have changed nothing. The engine's service has the deployment's name.
    let engine = status.services.iter().find(|service| service.service == status.name);
    let since = engine
        .and_then(|engine| engine.since.as_deref())
        .filter(|_| up)
        .map_or_else(String::new, |since| format!(", up since {}", text::moment(since)));
    let generation = status.generation.map_or_else(String::new, |number| format!(", generation {number}"));
    let mut text = format!("{}: {}{health}{generation}{since}\n", status.name, word(status));
    let rows = status.services.iter().map(|service| {
        [
            service.service.clone(),
            service.container.clone(),
            match service.exit_code {
                Some(code) => format!("{} ({code})", service.state),
                None => service.state.clone(),
            },
            service.health.unwrap_or("-").to_owned(),
            service.restarts.to_string(),
            service.since.as_deref().map(text::moment).unwrap_or_default(),
        ]
    });
    text.push_str(&table(["SERVICE", "CONTAINER", "STATE", "HEALTH", "RESTARTS", "SINCE"], rows));
    if status.wanted == Some(WantedState::Running) && status.is_down() {
        text.push_str(&format!(
            "next: `bedplate logs {0}`, then `bedplate restart {0}`; just after a boot: `journalctl -fu bedplate-boot`\n",
            status.name
        ));
    }
    for drift in &status.drift {
        text.push_str(&format!("drift: {drift}\n"));
    }
    text
}

fn word(status: &Status) -> &'static str {
    match status.wanted {
        Some(WantedState::Running) if status.is_down() => "DOWN",
        Some(WantedState::Running) => "runs",
        Some(WantedState::Stopped) => "stopped",
        None => "not kept here, only its containers are",
    }
}

/// Runs `list`.
pub fn list(context: &Context) -> Result<()> {
    let found = with(context, life::list)?;
    if context.ui.format == Format::Json {
        return context.ui.json(&found);
    }
    if found.is_empty() {
        context.ui.say("no deployments on this host");
        return Ok(());
    }
    let rows = found.iter().map(|status| {
        let running = status.services.iter().filter(|service| service.state == "running").count();
        [
            status.name.clone(),
            word(status).to_owned(),
            format!("{running} of {}", text::count(status.services.len(), "container")),
            match status.healthy {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            }
            .to_owned(),
            status.generation.map_or_else(|| "-".to_owned(), |number| number.to_string()),
        ]
    });
    context.ui.data(&table(["NAME", "WANTED", "RUNNING", "HEALTHY", "GENERATION"], rows))
}

/// Runs `logs`: lines of all containers, each with its service before it.
pub fn logs(context: &Context, args: &args::Logs) -> Result<()> {
    with(context, async |deploy| {
        let lines = life::logs(deploy, &args.name, args.follow, Some(args.tail as usize)).await?;
        let mut lines = std::pin::pin!(lines);
        while let Some(line) = lines.try_next().await? {
            if args.service.as_ref().is_some_and(|service| *service != line.service) {
                continue;
            }
            if context.ui.format == Format::Json {
                let value = serde_json::json!({
                    "service": line.service, "stderr": line.stderr, "text": line.text,
                });
                context.ui.data(&value.to_string())?;
            } else {
                context.ui.data(&format!("{} | {}", line.service, line.text))?;
            }
        }
        Ok(())
    })
}

/// Runs `stop`.
pub fn stop(context: &Context, args: &args::Named) -> Result<()> {
    let stopped = with(context, async |deploy| life::stop(deploy, &args.name).await)?;
    context.ui.say(&format!("{}: stopped {}", args.name, text::count(stopped.len(), "container")));
    Ok(())
}

/// Runs `rm`.
pub fn rm(context: &Context, args: &args::Rm) -> Result<()> {
    with(context, async |deploy| life::remove(deploy, &args.name, args.purge).await)?;
    let kept = if args.purge {
        "directories of state stay"
    } else {
        "its file stays on this host: `--purge` removes that too"
    };
    context.ui.say(&format!("{}: removed; {kept}", args.name));
    Ok(())
}
