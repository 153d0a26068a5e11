//! The command line: one file a verb, each flags → request → call → render.

pub mod archives;
pub mod args;
mod boot;
mod build;
mod bundle;
mod carry;
mod carry_out;
mod cause;
mod completions;
mod config;
mod confine;
mod context;
mod deployments;
mod doctor;
mod engine;
mod explain;
mod gate;
mod generations;
mod init;
mod inputs;
mod later;
mod lock;
mod modules;
mod provision;
mod receive;
mod registries;
mod render;
pub mod report;
mod runtime;
mod secret;
mod subject;
mod supply;
mod toolkit;
mod up;
mod verify;
mod watch;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use clap::Parser as _;
pub use context::Context;

use crate::{
    error::{Error, Result},
    ui::{Format, Ui, exit},
};

/// Runs one command and gives its exit code. `env` and `directory` are the process's: nothing
/// below reads either by itself.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    env: BTreeMap<String, String>,
    directory: PathBuf,
) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match args::Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data; a closed pipe is no reason to fail.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::DONE };
        }
    };
    let ui = Ui {
        format: match cli.global.format {
            args::FormatArg::Text => Format::Text,
            args::FormatArg::Json => Format::Json,
            args::FormatArg::Junit => Format::Junit,
            args::FormatArg::Html => Format::Html,
        },
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
        remote: cli.global.remote_progress,
    };
    log(ui.verbose);
    let named = cli.global.store.is_some();
    let context = Context::new(ui, env, directory, cli.global.store);
    match context.and_then(|context| verb(&context.started_with(&arguments, named), cli.verb)) {
        Ok(code) => code,
        Err(error) => {
            ui.error(&error);
            exit::of(&error)
        }
    }
}

fn verb(context: &Context, verb: args::Verb) -> Result<u8> {
    use args::{Toolkit, Verb};
    if let Some(format) = context.ui.format.of_checks_alone()
        && !matches!(
            verb,
            Verb::Doctor(_)
                | Verb::Toolkit(Toolkit::Verify(_))
                | Verb::Runtime(_)
                | Verb::Provision(_)
                | Verb::Up(_)
                | Verb::Receive(_)
        )
    {
        return Err(Error::usage(format!("`--format {format}` is for checks")).hint("use `--format json`"));
    }
    let done = |()| exit::DONE;
    match verb {
        Verb::Init(args) => init::run(context, &args).map(done),
        Verb::Lock(args) => lock::run(context, &args),
        Verb::Provision(args) => provision::run(context, &args),
        Verb::Doctor(args) => doctor::run(context, &args),
        Verb::Toolkit(Toolkit::Verify(args)) => toolkit::verify(context, &args),
        Verb::Toolkit(Toolkit::Install(args)) => toolkit::install(context, &args),
        Verb::Runtime(args::Runtime::Prepare(args)) => runtime::prepare(context, &args),
        Verb::Up(args) => up::run(context, &args),
        Verb::Status(args) => deployments::status(context, &args),
        Verb::Logs(args) => deployments::logs(context, &args).map(done),
        Verb::Stop(args) => deployments::stop(context, &args).map(done),
        Verb::Restart(args) => up::restart(context, &args),
        Verb::Rm(args) => deployments::rm(context, &args).map(done),
        Verb::List => deployments::list(context).map(done),
        Verb::Render(args) => render::run(context, &args).map(done),
        Verb::Generations(args) => generations::run(context, &args),
        Verb::Secret(args) => secret::run(context, &args),
        Verb::Bundle(args) => bundle::run(context, &args).map(done),
        Verb::Explain(args) => explain::run(context, &args).map(done),
        Verb::Completions(args) => completions::completions(context, &args).map(done),
        Verb::Man(args) => completions::man(context, &args).map(done),
        Verb::Boot => boot::run(context),
        Verb::Receive(args) => receive::run(context, &args),
        Verb::Build(args) => build::run(context, &args),
        Verb::Confine => confine::run(context),
        Verb::Verify(args) => verify::run(context, &args),
        Verb::Fleet(_) => {
            later::refuse("fleet", "provision hosts one by one: `bedplate provision --host USER@NAME`")
        }
    }
}

/// The log goes to standard error, from `-vv` on. Secrets are never logged: they have no `Debug`.
fn log(verbose: u8) {
    let level = match verbose {
        0 | 1 => return,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    // Headers of requests hold credentials: the HTTP libraries stay silent.
    let filter = tracing_subscriber::EnvFilter::new(format!("warn,bedplate={level}"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}
