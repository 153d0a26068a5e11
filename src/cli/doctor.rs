//! `doctor`: layer 1, the host.

use super::{Context, args, inputs, later, report, subject, subject::Held};
use crate::{check::report::Layer, error::Result, host::provision};

/// Runs `doctor`.
pub fn run(context: &Context, args: &args::Doctor) -> Result<u8> {
    if args.watch || args.record.is_some() || args.facts.is_some() {
        return later::refuse(
            "doctor --watch`, `--record` and `--facts",
            "run `bedplate doctor --format json` for a record of what was found",
        );
    }
    let root = subject::host_root()?;
    if let Some(left) = provision::interrupted(&root).unwrap_or_default() {
        context.ui.warn(&format!("a run was interrupted: {left}; `bedplate provision` goes on with it"));
    }
    let held = Held::find(context, &root, args.profile.as_deref())?;
    let named = args.file.as_deref().map(|file| inputs::deployment(context, file)).transpose()?;
    let mut subject = held.subject(context, named.as_ref().map(|(_, deployment)| deployment))?;
    "host".clone_into(&mut subject.name);
    let sources = subject::sources(context, &root);
    let (found, _) = context.run(async { Ok(subject::judge(&subject, &sources, &[Layer::Doctor]).await) })?;
    report::print(context, &found)
}
