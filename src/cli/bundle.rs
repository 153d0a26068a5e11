//! `bundle`: profile, lock, deployments and files as one archive, with packages and images where they are asked for.

use super::{Context, args, carry, inputs::Sources};
use crate::{
    error::{Error, Result},
    fleet::wire::Carries,
    host::content::{self, Content},
    lock::bundle::Bundle,
    progress::Unit,
    system::files,
    ui::{Format, text},
};

/// The task's name in progress events.
const TASK: &str = "bundle";

/// Writes the bundle, the same bytes for the same content.
pub fn run(context: &Context, args: &args::Bundle) -> Result<()> {
    let sources = Sources::read(context, args.profile.as_deref())?;
    let (bundle, pinned) = sources.pinned(context)?;
    let kinds = Carries { packages: args.with_packages, images: args.with_images };
    for (asked, none, what) in [
        (kinds.packages, pinned.lock.packages.is_empty(), "packages"),
        (kinds.images, pinned.lock.images.is_empty(), "images"),
    ] {
        if asked && none {
            context.ui.say(&format!("the lock of `{}` has no {what}: none are carried along", sources.shown));
        }
    }
    let mut content = Content::default();
    carry::gather(context, &pinned, sources.directory(), kinds, &mut content)?;
    let bytes = write(context, &bundle, &content, args)?;
    let digest = bundle.digest();
    if context.ui.format == Format::Json {
        return context.ui.json(&serde_json::json!({
            "schema": 1, "bundle": digest, "bytes": bytes, "file": args.output,
            "carried": { "files": content.blobs().count(), "bytes": content.size() },
        }));
    }
    context.ui.data(&digest.to_string())?;
    context.ui.say(&format!("wrote {} into `{}`", text::bytes(bytes), args.output.display()));
    Ok(())
}

/// Writes the archive beside its place, and gives it its name when it is whole. Says its size.
fn write(context: &Context, bundle: &Bundle, content: &Content, args: &args::Bundle) -> Result<u64> {
    let path = context.path(&args.output);
    let length = bundle.to_open_tar().len() as u64 + content.archived();
    let mut output = files::create_output(&path, 0o644)?;
    let is_file = !files::is_there(&path) || path.is_file();
    if is_file && files::room_for(&path)? < length {
        return Err(Error::failed(format!(
            "no space left for `{}`: it would have {length} bytes",
            args.output.display()
        ))
        .hint(format!(
            "make room there (`df -h {}`), or name a place on another file system with `-o FILE`",
            path.parent().unwrap_or(&path).display()
        )));
    }
    let progress = context.ui.progress();
    if !content.is_empty() {
        progress.started(TASK, Some(content.size()), Unit::Bytes);
    }
    content::write_archive(bundle, content, &mut |piece| output.put(piece), |done| {
        progress.advanced(TASK, done, None);
    })?;
    output.commit()?;
    if !content.is_empty() {
        // The verb says what came of it.
        progress.finished(TASK, Some(""));
    }
    Ok(length)
}
