//! `up` and `restart`: layer 4. A deployment starts only on a fresh readiness of the layers below it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Context, args, gate, inputs, report, subject, subject::Held};
use crate::{
    check::{
        self,
        gate::{AGAIN, Decision, Now},
        readiness::{self, Binding},
        report::{Layer, Outcome, Report},
        up_to,
    },
    deploy::{self, Change, Done, Options, Paths, Wanted, life, state, up::Ended},
    docker::{DEFAULT_SOCKET, Docker},
    error::{Error, Result},
    host::{facts, provision, secrets},
    profile::{self, Deployment},
    system::{clock, files::Root},
    ui::{Format, exit, text},
};

/// Runs `up`.
pub fn run(context: &Context, args: &args::Up) -> Result<u8> {
    let (text, deployment) = inputs::deployment(context, &args.file)?;
    let options = Options { wait: !args.no_wait, timeout: Duration::from_secs(args.timeout) };
    let root = subject::host_root()?;
    context.run(bring_up(context, &root, &text, &deployment, options, Start::AsNeeded))
}

/// Runs `restart`: stops the deployment, and brings what is kept of it up again, through the gate.
pub fn restart(context: &Context, args: &args::Restart) -> Result<u8> {
    let root = subject::host_root()?;
    let paths = Paths::default();
    refuse_unprivileged()?;
    let text = state::deployment_text(&root, &paths, &args.name)?.ok_or_else(|| no_deployment(&args.name))?;
    let deployment =
        profile::deployment::parse(&format!("{} (kept on this host)", args.name), &text)?.deployment;
    let options = Options { wait: true, timeout: Duration::from_secs(args.timeout) };
    context.run(bring_up(context, &root, &text, &deployment, options, Start::Anew))
}

/// What becomes of containers that run already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Those that are as wanted run on.
    AsNeeded,
    /// All are stopped first, once the gate is open.
    Anew,
}

/// There is no deployment of this name here.
pub fn no_deployment(name: &str) -> Error {
    Error::usage(format!("there is no deployment `{name}` on this host"))
        .hint("see which there are: `bedplate list`")
}

/// Deployments are root's.
pub fn refuse_unprivileged() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::failed("deployments of this host are for root alone").hint("run it with `sudo`"))
}

/// The container engine of this host.
pub async fn docker(context: &Context) -> Result<Docker> {
    Docker::connect(&subject::docker_socket(context).unwrap_or_else(|| DEFAULT_SOCKET.to_owned())).await
}

/// Asks the gate, starts, waits, and judges all four layers.
pub async fn bring_up(
    context: &Context,
    root: &Arc<Root>,
    text: &str,
    deployment: &Deployment,
    options: Options,
    start: Start,
) -> Result<u8> {
    refuse_unprivileged()?;
    let Some((generation, pinned)) = subject::current(root)? else { return Err(subject::not_provisioned()) };
    let number = generation.about.number;
    let held = Held::of_generation(&generation, pinned);
    let sources = subject::sources(context, root);
    let (decision, below) = ask_gate(context, root, &held, deployment, &sources).await?;
    if !decision.is_open() {
        let mut subject = held.subject(context, Some(deployment))?;
        subject.gate = Some(&decision);
        let shut = check::judge_only(&["up.readiness"], &subject, &facts::Facts::default());
        let mut found = below;
        // Where a check below says why, the gate need not say it again.
        let cause =
            found.findings.iter().find(|finding| finding.shuts_gate()).map(|finding| finding.id.clone());
        found.findings.extend(shut.findings.into_iter().map(|mut finding| {
            if let Some(cause) = &cause {
                finding.outcome = Outcome::Skipped;
                finding.because = format!("skipped: {cause} failed, and nothing was started");
                finding.evidence.clear();
                finding.next = None;
            }
            finding
        }));
        report::print(context, &found)?;
        return Ok(exit::CHECK);
    }
    let values = secret_values(root, deployment)?;
    let docker = docker(context).await?;
    let progress = context.ui.progress();
    let paths = Paths::default();
    let with = deploy::Context { docker: &docker, root, paths: &paths, progress: progress.as_ref() };
    let (Some((lock, _)), name) = (held.lock.as_ref(), deployment.name.as_str()) else {
        return Err(subject::not_provisioned());
    };
    let wanted =
        Wanted { deployment, text, profile: &held.profile, lock, generation: number, secrets: &values };
    if start == Start::Anew {
        life::stop_containers(with, name).await?;
    }
    let done = deploy::up(with, wanted, options).await?;
    say_changes(context, name, &done);
    let seen = seen_after(context, &held, deployment, &sources, &done).await?;
    finish(context, &held, deployment, &decision, below, &done, &seen)
}

/// What the gate says, and the report of the layers below it: made now where the kept one is not fresh.
async fn ask_gate(
    context: &Context,
    root: &Arc<Root>,
    held: &Held,
    deployment: &Deployment,
    sources: &facts::Sources,
) -> Result<(Decision, Report)> {
    let Some((number, lock)) = held.generation else { return Err(subject::not_provisioned()) };
    let subject = held.subject(context, Some(deployment))?;
    let (mut again, facts) = {
        let facts = subject::gather(context, &subject.wanted, sources).await;
        (check::judge_only(&AGAIN, &subject, &facts), facts)
    };
    let now = |facts: &facts::Facts| Now {
        host: Binding::of(number, lock, None, facts),
        deployment: Binding::of(number, lock, Some(subject::deployment_digest(deployment)), facts),
        at: clock::now(),
        hours: held.profile.checks.readiness_hours,
    };
    let load = || -> Result<_> {
        Ok((readiness::load(root, number, None)?, readiness::load(root, number, Some(&deployment.name))?))
    };
    let (mut host, mut of_deployment) = load()?;
    let mut seen = now(&facts);
    if let Some(why) = check::gate::stale(host.as_ref(), of_deployment.as_ref(), &seen) {
        context.ui.say(&format!("{why}: running the layers"));
        // The host's readiness is about all it should serve, the deployment's about this one.
        let mut whole = held.subject(context, None)?;
        let layers = up_to(Layer::Toolkit);
        let (found, host_facts) =
            Box::pin(subject::prove(context, root, &mut whole, sources, &layers)).await?;
        gate::save_host(root, held, &found, &host_facts)?;
        let facts = subject::gather(context, &subject.wanted, sources).await;
        let found = check::judge(&up_to(Layer::Runtime), &subject, &facts);
        gate::save_deployment(root, held, deployment, &found, &facts)?;
        again = check::judge_only(&AGAIN, &subject, &facts);
        seen = now(&facts);
        (host, of_deployment) = load()?;
    }
    let decision = match provision::interrupted(root)? {
        Some(left) => Decision::Shut {
            because: format!("a run that changes this host was interrupted: {left}"),
            next: "finish it: `bedplate provision`".to_owned(),
        },
        None => check::gate::decide(host.as_ref(), of_deployment.as_ref(), &seen, &again),
    };
    let mut report = of_deployment.map_or_else(Report::default, |readiness| readiness.report);
    // What was looked at just now stands in place of what was kept.
    for finding in again.findings {
        match report.findings.iter_mut().find(|kept| kept.id == finding.id) {
            Some(kept) => *kept = finding,
            None => report.findings.push(finding),
        }
    }
    deployment.name.clone_into(&mut report.subject);
    // The container that sees the GPUs is the host's matter.
    if let Some(smoke) = host
        .as_ref()
        .and_then(|host| host.report.findings.iter().find(|finding| finding.id == subject::SMOKE))
        && let Some(kept) = report.findings.iter_mut().find(|finding| finding.id == subject::SMOKE)
    {
        kept.clone_from(smoke);
    }
    if let Some(host) = host.filter(|host| !host.report.opens_gate()) {
        for finding in host.report.findings.into_iter().filter(check::report::Finding::shuts_gate) {
            match report.findings.iter_mut().find(|kept| kept.id == finding.id) {
                Some(kept) if !kept.shuts_gate() => *kept = finding,
                _ => {}
            }
        }
    }
    Ok((decision, report))
}

fn secret_values(root: &Root, deployment: &Deployment) -> Result<BTreeMap<String, secrecy::SecretString>> {
    let mut values = BTreeMap::new();
    for name in deployment.secrets().into_keys() {
        if let Some(value) = secrets::read(root, &name)? {
            values.insert(name, value);
        }
    }
    Ok(values)
}

fn say_changes(context: &Context, name: &str, done: &Done) {
    if done.unchanged() {
        context.ui.say(&format!(
            "{name}: nothing to do, {} run as wanted",
            text::count(done.changes.len(), "container")
        ));
        return;
    }
    for (service, change) in &done.changes {
        let word = match change {
            Change::Kept => continue,
            Change::Created => "created",
            Change::Replaced => "replaced",
            Change::Started => "started",
            Change::Restarted => "restarted, a secret changed",
            Change::Removed => "removed",
        };
        context.ui.say(&format!("{name}: {service} {word}"));
    }
}

/// The host after a start that went wrong, for telling causes apart; after one that went well nothing is looked at.
async fn seen_after(
    context: &Context,
    held: &Held,
    deployment: &Deployment,
    sources: &facts::Sources,
    done: &Done,
) -> Result<facts::Facts> {
    if matches!(done.ended, Ended::NotWaited | Ended::Serving) {
        return Ok(facts::Facts::default());
    }
    let subject = held.subject(context, Some(deployment))?;
    Ok(facts::gather(&subject.wanted, sources).await)
}

fn finish(
    context: &Context,
    held: &Held,
    deployment: &Deployment,
    decision: &Decision,
    below: Report,
    done: &Done,
    seen: &facts::Facts,
) -> Result<u8> {
    if matches!(done.ended, Ended::NotWaited) {
        match context.ui.format {
            Format::Text => {}
            Format::Json => context.ui.json(&serde_json::json!({
                "schema": 1, "deployment": deployment.name, "started": true, "waited": false,
            }))?,
            // Nothing was looked at after the start.
            Format::Junit | Format::Html => _ = report::print(context, &below)?,
        }
        context.ui.say(&format!(
            "started, not waited for: see `bedplate status {}`, and `bedplate up` again for the checks of layer 4",
            deployment.name
        ));
        return Ok(exit::DONE);
    }
    let mut subject = held.subject(context, Some(deployment))?;
    subject.gate = Some(decision);
    subject.observed = Some(&done.observed);
    let ids: Vec<&str> =
        check::registry().iter().filter(|check| check.layer == Layer::Up).map(|check| check.id).collect();
    let up = check::judge_only(&ids, &subject, seen);
    let mut found = below;
    found.findings.extend(up.findings);
    let code = if context.ui.format == Format::Text && context.ui.verbose == 0 {
        report::print_layer(context, &found, Layer::Up)?
    } else {
        report::print(context, &found)?
    };
    if code == exit::DONE {
        context.ui.say(&format!(
            "{} serves `{}` on {}:{}",
            deployment.name, deployment.model, deployment.publish, deployment.port
        ));
    }
    Ok(code)
}
