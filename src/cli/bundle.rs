//! `bundle`: profile, lock, deployments and files as one archive.

use super::{Context, args, inputs::Sources, later};
use crate::{
    error::Result,
    system::files,
    ui::{Format, text},
};

/// Writes the bundle, the same bytes for the same content.
pub fn run(context: &Context, args: &args::Bundle) -> Result<()> {
    if args.with_packages || args.with_images {
        return later::refuse(
            "bundle --with-packages` and `--with-images",
            "without them, the bundle holds profile, lock, deployments and files",
        );
    }
    let sources = Sources::read(context, args.profile.as_deref())?;
    let (bundle, _) = sources.pinned(context)?;
    let tar = bundle.to_tar();
    files::write_output(&context.path(&args.output), &tar, 0o644)?;
    let digest = bundle.digest();
    if context.ui.format == Format::Json {
        return context.ui.json(&serde_json::json!({
            "schema": 1, "bundle": digest, "bytes": tar.len(), "file": args.output,
        }));
    }
    context.ui.data(&digest.to_string())?;
    context.ui.say(&format!("wrote {} into `{}`", text::bytes(tar.len() as u64), args.output.display()));
    Ok(())
}
