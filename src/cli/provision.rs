//! `provision`: facts → plan → apply → check → readiness, here, in a tree, or on a host over SSH.

use std::{path::Path, sync::Arc};

use super::{
    Context, args, carry,
    carry::Given,
    carry_out::{self, Run},
    cause, gate, inputs,
    inputs::Sources,
    registries, report, subject,
    subject::Held,
};
use crate::{
    check::{
        report::{Layer, Report},
        up_to,
    },
    error::{Error, Result},
    fleet::{ssh, wire},
    host::{
        content::{Content, Places},
        generations::Generations,
        provision,
        secrets::{self, Frame},
    },
    lock::bundle::{Bundle, Pinned},
    plan::{Change, Plan},
    system::files::{self, Root},
    ui::{Format, exit, text},
};

/// Runs `provision`.
pub fn run(context: &Context, args: &args::Provision) -> Result<u8> {
    if let Some(format) = context.ui.format.of_checks_alone()
        && (args.root.is_some() || args.dry_run || args.no_check)
    {
        return Err(Error::usage(format!("`--format {format}` is for checks, and there are none to report"))
            .hint("use `--format json`"));
    }
    let mut options = wire::Options {
        dry_run: args.dry_run,
        reboot: args.reboot,
        no_check: args.no_check,
        allow: args.allow.clone(),
        carries: wire::Carries::default(),
    };
    if args.profile.is_none() && args.root.is_none() && args.host.is_none() && !Sources::any(context)? {
        return again(context, &options);
    }
    let mut given = Given::find(context, args.profile.as_deref())?;
    if let Some(destination) = &args.host {
        if args.carry {
            let all = wire::Carries { packages: true, images: true };
            if args.dry_run {
                options.carries = all;
            } else {
                carry::gather(context, &given.pinned, &given.directory, all, &mut given.content)?;
            }
        }
        if args.dry_run && !args.carry {
            options.carries = given.carries();
        }
        let frame = context.run(frame(context, &given.pinned, &given.directory))?;
        let Given { bundle, content, .. } = given;
        let request = wire::Request { options, bundle, frame, content: 0 };
        return context.run(remote(context, destination, request, content));
    }
    let root = Arc::new(if let Some(directory) = &args.root {
        subject::tree(context, directory)?
    } else {
        refuse_unprivileged(args.dry_run)?;
        Root::open(Path::new("/"))?
    });
    let places = given.put(context, &root, args.dry_run)?;
    context.run(async {
        let frame = if root.is_host() {
            frame(context, &given.pinned, &given.directory).await?
        } else {
            Frame::default()
        };
        here(context, &root, &given.bundle, &given.pinned, frame, &options, &places).await
    })
}

/// Without a profile, on a provisioned host: what its current generation says holds again.
fn again(context: &Context, options: &wire::Options) -> Result<u8> {
    let root = Arc::new(Root::open(Path::new("/"))?);
    let Some((generation, pinned)) = subject::current(&root)? else {
        return Err(Error::usage("there is no profile here, and this host has no generation")
            .hint("name a profile: `bedplate provision PROFILE`"));
    };
    let bundle = subject::bundle(&root, generation.about.number)?;
    let places = carry::places(context);
    context.run(here(context, &root, &bundle, &pinned, Frame::default(), options, &places))
}

pub(super) fn refuse_unprivileged(dry_run: bool) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let doing = if dry_run { "looking at" } else { "provisioning" };
    Err(Error::failed(format!("{doing} this host needs root")).hint(
        "run it with `sudo`, provision over SSH with `--host USER@NAME`, or prepare a tree with `--root DIR`",
    ))
}

/// Secrets and registry credentials of the operator's side.
async fn frame(context: &Context, pinned: &Pinned, directory: &Path) -> Result<Frame> {
    let resolved = secrets::resolve(&pinned.profile, &context.env, directory).await?;
    let needed = |name: &str| {
        pinned.deployments.values().any(|deployment| deployment.secrets().get(name) == Some(&true))
    };
    for (name, why) in resolved.absent.iter().filter(|(name, _)| needed(name)) {
        context.ui.say(&format!("secret `{name}` is not here: {why}; the host's own is kept, if it has one"));
    }
    Ok(Frame { secrets: resolved.values, registries: registries::logins(context, &pinned.lock).await? })
}

/// Provisions the host or tree beneath `root`, then checks it. `places`: where content is looked for.
pub async fn here(
    context: &Context,
    root: &Arc<Root>,
    bundle: &Bundle,
    pinned: &Pinned,
    mut frame: Frame,
    options: &wire::Options,
    places: &Places,
) -> Result<u8> {
    inputs::refuse_stale(pinned, &pinned.name)?;
    if root.is_host() {
        secrets::add_from_host(root, &pinned.profile, &mut frame.secrets)?;
    }
    let goal = carry_out::Goal::Provision;
    let run =
        Run::new(context, root, (bundle, pinned), &frame, places.clone(), goal).allowing(&options.allow);
    // Looked at first without holding the host: where nothing is to do, nothing is touched.
    let mut plan = run.plan().await?;
    let deployments = match Generations::new(root).current_number()? {
        Some(number) if options.dry_run && plan.change == Change::New => {
            subject::deployment_changes(&subject::bundle(root, number)?, bundle)?
        }
        _ => Vec::new(),
    };
    if options.dry_run {
        print_plan(context, &plan, &deployments)?;
        carry_out::say_unasked(context, &plan);
        plan.refuse()?;
        return Ok(exit::DONE);
    }
    let mut changed = 0;
    let mut reboot = None;
    if plan.is_empty() {
        provision::refuse_held(root)?;
        reboot.clone_from(&plan.reboot);
        if context.ui.format == Format::Text {
            context.ui.data("nothing to do\n")?;
        }
    } else {
        plan.refuse()?;
        let held = provision::hold(root, "provision")?;
        // Another run may have come between.
        plan = run.plan().await?;
        if let Some(left) = &plan.finishes {
            context.ui.say(&format!("going on where an interrupted run stopped: {left}"));
        }
        let outcome = match run.apply(context, &held, &plan).await {
            Ok(outcome) => outcome,
            Err(error) => return Err(cause::named(context, root, pinned, error).await),
        };
        changed = outcome.changed;
        reboot = outcome.reboot;
    }
    if !root.is_host() || options.no_check {
        return finish(context, &plan, changed, None, None, options).await;
    }
    if plan.is_empty() && Generations::new(root).is_ready(plan.generation) == Some(true) {
        // What was proved stays proved; `up` looks whether it is still fresh.
        return finish(context, &plan, changed, None, None, options).await;
    }
    let report = if reboot.is_some() { None } else { Some(check(context, root).await?) };
    finish(context, &plan, changed, report, reboot, options).await
}

/// Layers 1 and 2, and layer 3 for each deployment of the profile; keeps what they prove.
pub async fn check(context: &Context, root: &Arc<Root>) -> Result<Report> {
    let Some((generation, pinned)) = subject::current(root)? else { return Err(subject::not_provisioned()) };
    let held = Held::of_generation(&generation, pinned);
    let sources = subject::sources(context, root);
    let lock = held.lock.as_ref().map(|(lock, _)| lock);
    if let Err(error) = subject::refresh_cdi(context, root, &held.profile, lock, &sources).await {
        // The checks say what follows from it.
        context.ui.warn(&format!("no CDI specification was written: {error}"));
    }
    let mut subject = held.subject(context, None)?;
    let layers = up_to(Layer::Toolkit);
    let (mut all, facts) = Box::pin(subject::prove(context, root, &mut subject, &sources, &layers)).await?;
    gate::save_host(root, &held, &all, &facts)?;
    for deployment in &held.deployments {
        let subject = held.subject(context, Some(deployment))?;
        let (found, facts) = subject::judge(context, &subject, &sources, &up_to(Layer::Runtime)).await;
        gate::save_deployment(root, &held, deployment, &found, &facts)?;
        let several = held.deployments.len() > 1;
        all.findings.extend(
            found.findings.into_iter().filter(|finding| finding.layer == Layer::Runtime).map(
                |mut finding| {
                    if several {
                        let whose = |says: &mut String| says.insert_str(0, &format!("{}: ", deployment.name));
                        whose(&mut finding.because);
                        finding.ahead.as_mut().map(|ahead| &mut ahead.because).map(whose);
                    }
                    finding
                },
            ),
        );
    }
    Generations::new(root).keep_report(generation.about.number, &report::json(&all))?;
    Ok(all)
}

/// Prints what a run came to, and gives its exit code.
pub async fn finish(
    context: &Context,
    plan: &Plan,
    changed: usize,
    report: Option<Report>,
    reboot: Option<String>,
    options: &wire::Options,
) -> Result<u8> {
    if report.is_some() {
        for name in subject::running_otherwise(&*subject::host_root()?)? {
            context.ui.say(&format!(
                "`{name}` still runs as it was brought up before: `bedplate up -f {name}` makes this one live"
            ));
        }
    }
    let ready = report.as_ref().is_none_or(Report::opens_gate);
    match (context.ui.format, &report) {
        (Format::Json, _) => context.ui.json(&serde_json::json!({
            "schema": 1, "generation": plan.generation, "changed": changed, "reboot": reboot,
            "deferred": plan.deferred, "report": report.as_ref().map(report::json),
        }))?,
        (_, Some(report)) => {
            report::print(context, report)?;
        }
        _ => {}
    }
    if let Some(why) = reboot {
        context.ui.say(&format!("a reboot is needed: {why}; after it the checks run by themselves"));
        if options.reboot {
            provision::schedule_reboot().await?;
        }
        return Ok(exit::REBOOT);
    }
    Ok(if ready { exit::DONE } else { exit::CHECK })
}

fn print_plan(context: &Context, plan: &Plan, deployments: &[String]) -> Result<()> {
    if context.ui.format == Format::Json {
        return context.ui.json(plan);
    }
    for warning in &plan.warnings {
        context.ui.warn(warning);
    }
    if plan.is_empty() {
        return context.ui.data("nothing to do\n");
    }
    let lines: String = deployments.iter().chain(&plan.lines()).map(|line| format!("{line}\n")).collect();
    context.ui.data(&lines)?;
    carry_out::say_unlocked(context, plan);
    if let Some(why) = &plan.reboot {
        context.ui.say(&format!("a reboot would be needed: {why}"));
    }
    let does = match plan.change {
        Change::New => "make",
        Change::Repair => "mend",
        Change::Switch => "go to",
    };
    context.ui.say(&format!(
        "would {does} generation {}: {}; nothing was changed",
        plan.generation,
        text::count(plan.steps.len(), "step")
    ));
    Ok(())
}

/// Provisions a host over SSH: the binary and the bundle go there, secrets and content on standard input.
async fn remote(
    context: &Context,
    destination: &str,
    mut request: wire::Request,
    mut content: Content,
) -> Result<u8> {
    let control = tempfile::Builder::new()
        .prefix("bedplate-")
        // Short, since a socket's path has at most 107 bytes (unix(7)).
        .tempdir_in("/tmp")
        .map_err(|error| Error::failed("making a directory for the connection failed").because(error))?;
    let config = context.variable("BEDPLATE_SSH_CONFIG").map(|path| context.path(Path::new(path)));
    let progress = context.ui.progress();
    let host = ssh::Host::connect(destination, config, control.path().to_owned()).await?;
    let program = files::read_input(Path::new("/proc/self/exe"), 1 << 30)?;
    let installed = host.install(&program, request.options.dry_run).await?;
    if installed.copied && !request.options.dry_run {
        context.ui.say(&format!("copied bedplate to {destination}: {}", text::bytes(program.len() as u64)));
    }
    let dry_run = request.options.dry_run;
    if !content.is_empty() && !dry_run {
        let bundle = &request.bundle;
        carry::leave_out_what_is_there(context, &host, &installed, bundle, &mut content, progress.as_ref())
            .await?;
    }
    // A dry run sends nothing.
    let sends = !content.is_empty() && !dry_run;
    request.content = if sends { content.archived() } else { 0 };
    let mut arguments = String::from("receive --remote-progress");
    match context.ui.format {
        Format::Text => {}
        Format::Json => arguments.push_str(" --format json"),
        Format::Junit => arguments.push_str(" --format junit"),
        Format::Html => arguments.push_str(" --format html"),
    }
    if context.ui.quiet {
        arguments.push_str(" -q");
    }
    for _ in 0..context.ui.verbose {
        arguments.push_str(" -v");
    }
    let bytes = request.to_bytes()?;
    let pieces = sends.then(|| carry::pieces(content, progress.clone()));
    let result = host
        .bedplate(
            &installed,
            &arguments,
            &bytes,
            pieces,
            |out| context.ui.data(out),
            |line| crate::ui::progress::relay(line, progress.as_ref()),
        )
        .await;
    host.close().await;
    result
}
