//! Wires the process: arguments, environment, logging, exit code. Everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    ExitCode::from(bedplate::cli::run(std::env::args_os(), env, directory))
}
