//! `completions` and `man`: made from the same definitions as `--help`.

use clap::CommandFactory as _;

use super::{Context, args};
use crate::{
    error::{Doing as _, Result},
    system::files,
};

/// Writes a completion script to standard output.
pub fn completions(context: &Context, args: &args::Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(), "bedplate", &mut script);
    context.ui.data(&String::from_utf8_lossy(&script))
}

/// The command line without what is hidden: completion scripts would offer it.
fn shown() -> clap::Command {
    let all = args::Cli::command();
    clap::Command::new("bedplate")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().filter(|argument| !argument.is_hide_set()).cloned())
        .subcommands(all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned())
        .disable_help_subcommand(true)
}

/// Writes the manual: the main page to standard output, or one page a verb into a directory.
pub fn man(context: &Context, args: &args::Man) -> Result<()> {
    let mut command = args::Cli::command();
    command.build();
    let Some(output) = &args.output else {
        return context.ui.data(&String::from_utf8_lossy(&page(command)?));
    };
    let directory = context.path(output);
    files::make_dir(&directory)?;
    let mut written = 0;
    let mut open = vec![("bedplate".to_owned(), command)];
    while let Some((name, command)) = open.pop() {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            open.push((format!("{name}-{}", verb.get_name()), verb.clone()));
        }
        files::write_output(&directory.join(format!("{name}.1")), &page(command)?, 0o644)?;
        written += 1;
    }
    context.ui.say(&format!("wrote {written} pages into `{}`", output.display()));
    Ok(())
}

fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).doing(|| "rendering the manual failed")?;
    Ok(page)
}
