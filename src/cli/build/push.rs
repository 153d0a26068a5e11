//! `build --push`: what was built, into registries.

use std::path::Path;

use crate::{
    cli::{Context, inputs::ImageSources, registries},
    error::{Error, Result},
    oci::Reference,
    profile::image_definition::Format,
    ui::text,
};

/// The references of `--push`, read before anything is built.
///
/// # Errors
/// One is none, or names a digest.
pub(super) fn references(given: &[String]) -> Result<Vec<Reference>> {
    given.iter().map(|text| reference(text)).collect()
}

fn reference(text: &str) -> Result<Reference> {
    let reference: Reference = text.parse()?;
    if reference.digest().is_some() {
        return Err(Error::usage(format!(
            "`--push {reference}` names a digest, and that is the image's to decide"
        ))
        .hint(format!("write `{}:TAG`; the digest is printed", reference.name())));
    }
    Ok(reference)
}

/// An error where the definition makes nothing that a registry takes.
///
/// # Errors
/// That.
pub(super) fn refuse_without_layout(sources: &ImageSources, to: &[Reference]) -> Result<()> {
    if to.is_empty() || sources.definition.formats.contains(&Format::Oci) {
        return Ok(());
    }
    Err(Error::usage(format!("`--push` pushes an OCI image, and `{}` makes none", sources.shown))
        .hint("add \"oci\" to its `formats`"))
}

/// Asks every registry whether it would have the image.
///
/// # Errors
/// One cannot be reached, or does not take the login.
pub(super) fn knock(context: &Context, to: &[Reference]) -> Result<()> {
    if to.is_empty() {
        return Ok(());
    }
    let client = registries::client(context);
    context.run(async {
        for reference in to {
            client.knock(reference).await?;
        }
        Ok(())
    })
}

/// Pushes the image of the layout in `dir` to every one of these. Says by which digest it can be had there.
///
/// # Errors
/// A registry that does not take it. The layout stays.
pub(super) fn push(context: &Context, dir: &Path, to: &[Reference]) -> Result<Vec<String>> {
    if to.is_empty() {
        return Ok(Vec::new());
    }
    let client = registries::client(context);
    let progress = context.ui.progress();
    let pushed = context.run(async {
        let mut pushed = Vec::with_capacity(to.len());
        for (number, reference) in to.iter().enumerate() {
            let done = client.push(dir, reference, &to[..number], progress.as_ref()).await?;
            context.ui.say(&format!("pushed {reference}: {} sent", text::bytes(done.bytes)));
            pushed.push(done.reference);
        }
        Ok(pushed)
    });
    pushed.map_err(|error| {
        error.hint(format!(
            "what was built is in `{}`: the same command pushes it again, and builds nothing",
            dir.display()
        ))
    })
}

/// Prints where the image can be had, by digest.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn tell(context: &Context, pushed: &[String]) -> Result<()> {
    pushed.iter().try_for_each(|reference| context.ui.data(&format!("{reference}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Digest, error::Kind};

    #[test]
    fn a_reference_to_push_to_has_a_tag_and_no_digest() {
        let read = |text: &str| references(&[text.to_owned()]);
        assert_eq!(read("h.io/a:1").unwrap()[0].to_string(), "h.io/a:1");
        for bad in ["", "https://h.io/a:1", "h.io/A:1", &format!("h.io/a:1@{}", Digest::of("x"))] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{bad}");
            assert!(!error.hints().is_empty());
        }
    }
}
