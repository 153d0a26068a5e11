//! `secret`: keeps secrets on this host, and says which resolve.

use std::{io::Read as _, path::Path};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{Context, args, inputs::Sources, subject};
use crate::{
    error::{Doing as _, Error, Kind, Result},
    host::{
        layout,
        secrets::{self, Status},
    },
    profile::SecretSource,
    system::files::Root,
    ui::{Format, exit, table::table},
};

/// Size limit of a secret, in bytes: systemd's limit of a credential (systemd.exec(5)).
const LIMIT: u64 = 1 << 20;

/// Runs `secret`.
pub fn run(context: &Context, verb: &args::Secret) -> Result<u8> {
    match verb {
        args::Secret::Set { name } => set(context, name),
        args::Secret::List => list(context),
        args::Secret::Check { profile } => check(context, profile.as_deref()),
    }
}

fn set(context: &Context, name: &str) -> Result<u8> {
    let root = Root::open(Path::new("/"))?;
    let pinned = subject::current(&root)?.map(|(_, pinned)| pinned);
    let mut value = Zeroizing::new(String::new());
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        context.ui.say(&format!("the value of `{name}`, one line; it is not shown:"));
        unseen_line(&mut value)?;
    } else {
        std::io::stdin()
            .take(LIMIT + 1)
            .read_to_string(&mut value)
            .doing(|| "reading standard input failed")?;
    }
    if value.trim().is_empty() {
        return Err(Error::usage(format!("the value of `{name}` is empty"))
            .hint(format!("give it on standard input: `bedplate secret set {name} <FILE`")));
    }
    if value.len() as u64 > LIMIT {
        return Err(Error::usage(format!("the value of `{name}` is larger than {LIMIT} bytes")));
    }
    let value = SecretString::from(value.trim_end_matches(['\r', '\n']));
    let _lock = crate::system::files::HostLock::acquire(&root, layout::LOCK, "secret set")?;
    context.run(secrets::set(&root, pinned.as_ref().map(|pinned| &pinned.profile), name, &value))?;
    context.ui.say(&format!("stored `{name}`, encrypted to this host"));
    match pinned.as_ref().map(|pinned| pinned.profile.secrets.get(name)) {
        None | Some(Some(SecretSource::Credential(_))) => {}
        Some(None) => context.ui.warn(&format!("the profile of this host names no secret `{name}`")),
        Some(Some(_)) => context.ui.warn(&format!(
            "the profile takes `{name}` from elsewhere: the next `bedplate provision` that finds it there puts that value \
             back; write `{name} = {{ credential = \"{name}\" }}` in the profile to keep this one"
        )),
    }
    Ok(exit::DONE)
}

/// One line from the terminal, without echo (termios(3)).
fn unseen_line(into: &mut String) -> Result<()> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let input = std::io::stdin();
    let before = tcgetattr(&input).doing(|| "asking the terminal failed")?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &quiet).doing(|| "turning the terminal's echo off failed")?;
    let read = input.read_line(into);
    let restored = tcsetattr(&input, OptionalActions::Now, &before);
    read.doing(|| "reading the terminal failed")?;
    restored.doing(|| "turning the terminal's echo on failed")
}

fn list(context: &Context) -> Result<u8> {
    let root = Root::open(Path::new("/"))?;
    let Some((_, pinned)) = subject::current(&root)? else { return Err(subject::not_provisioned()) };
    print(context, &secrets::status(&root, &pinned.profile)?)?;
    Ok(exit::DONE)
}

/// On a provisioned host: what is there. Elsewhere: whether each source gives a value, without showing it.
fn check(context: &Context, named: Option<&str>) -> Result<u8> {
    let root = Root::open(Path::new("/"))?;
    let here = if named.is_none() { subject::current(&root)? } else { None };
    if let Some((_, pinned)) = here {
        let found = secrets::status(&root, &pinned.profile)?;
        if context.ui.format == Format::Text {
            print(context, &found)?;
        }
        let wrong: Vec<&str> =
            found.iter().filter(|one| !one.present || !one.shut).map(|one| one.name.as_str()).collect();
        return verdict(context, found.len(), &wrong);
    }
    let sources = Sources::read(context, named)?;
    let resolved = context
        .run(secrets::resolve(&sources.profile, &context.env, sources.directory()))
        .map_err(|error| error.with_kind(Kind::Check))?;
    for (name, why) in &resolved.absent {
        context.ui.warn(&format!("`{name}` resolves to nothing: {why}"));
    }
    let wrong: Vec<&str> = resolved.absent.iter().map(|(name, _)| name.as_str()).collect();
    verdict(context, sources.profile.secrets.len(), &wrong)
}

fn verdict(context: &Context, number: usize, wrong: &[&str]) -> Result<u8> {
    if context.ui.format == Format::Json {
        context.ui.json(&serde_json::json!({ "schema": 1, "secrets": number, "wrong": wrong }))?;
        return Ok(if wrong.is_empty() { exit::DONE } else { exit::CHECK });
    }
    if wrong.is_empty() {
        context.ui.say(&format!("{number} of {number} secrets are there"));
        Ok(exit::DONE)
    } else {
        context.ui.say(&format!("missing or open to others: {}", wrong.join(", ")));
        Ok(exit::CHECK)
    }
}

fn print(context: &Context, found: &[Status]) -> Result<()> {
    if context.ui.format == Format::Json {
        return context.ui.json(&found);
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows = found
        .iter()
        .map(|one| [one.name.clone(), yes(one.present), yes(one.shut), yes(one.kept), one.source.clone()]);
    context.ui.data(&table(["SECRET", "PRESENT", "SHUT", "KEPT OVER A BOOT", "FROM"], rows))
}
