//! `doctor`: layer 1, the host.

use std::path::Path;

use super::{Context, args, inputs, report, subject, subject::Held, watch};
use crate::{
    check::{self, Subject, report::Layer},
    error::Result,
    host::{
        facts::record::{self, Words},
        provision,
    },
    system::files,
};

/// Runs `doctor`.
pub fn run(context: &Context, args: &args::Doctor) -> Result<u8> {
    let root = subject::host_root()?;
    if args.facts.is_none()
        && let Some(left) = provision::interrupted(&root).unwrap_or_default()
    {
        context.ui.warn(&format!("a run was interrupted: {left}; `bedplate provision` goes on with it"));
    }
    let held = Held::find(context, &root, args.profile.as_deref())?;
    let named = args.file.as_deref().map(|file| inputs::deployment(context, file)).transpose()?;
    let mut subject = held.subject(context, named.as_ref().map(|(_, deployment)| deployment))?;
    "host".clone_into(&mut subject.name);
    if let Some(file) = &args.facts {
        return judge(context, &subject, file);
    }
    let sources = subject::sources(context, &root);
    if args.watch {
        return watch::run(context, &subject, &sources, args.interval);
    }
    let (found, facts) =
        context.run(async { Ok(subject::judge(&subject, &sources, &[Layer::Doctor]).await) })?;
    if let Some(file) = &args.record {
        let host = rustix::system::uname();
        let text = record::write(&facts, &Words::of(&subject.wanted), &host.nodename().to_string_lossy())?;
        files::write_private(&context.path(file), text.as_bytes())?;
        context.ui.say(&format!(
            "facts written to `{}`: read it before you send it; `bedplate doctor PROFILE --facts FILE` judges it",
            file.display()
        ));
    }
    report::print(context, &found)
}

/// Judges a file of facts instead of this host.
fn judge(context: &Context, subject: &Subject<'_>, file: &Path) -> Result<u8> {
    let text = files::read_input(&context.path(file), record::LIMIT)?;
    let shown = file.display().to_string();
    let recorded = record::read(&text, &Words::of(&subject.wanted), &shown)?;
    if !recorded.same {
        context.ui.warn(&format!(
            "`{shown}` was recorded for another profile, lock or deployment: what that did not ask for is unknown here"
        ));
    }
    report::print(context, &check::judge(&[Layer::Doctor], subject, &recorded.facts))
}
