//! `build`: a host image from a lock.

mod again;
mod image;

use std::{path::Path, sync::Arc};

use self::image::{Image, Report};
use super::{Context, args, carry, inputs::ImageSources};
use crate::{
    build::work::Work,
    error::{Error, Result},
    fleet::wire::Carries,
    host::content::Content,
    lock::{Lock, LockedPackage, bundle::Pinned},
    profile::{DriverFlavor, image_definition::Part},
    store::Store,
    system::files,
    ui::{Format, exit, text},
};

/// Runs `build`.
pub fn run(context: &Context, args: &args::Build) -> Result<u8> {
    let sources = ImageSources::read(context, args.image.as_deref())?;
    let (bundle, pinned) = sources.profile.pinned(context)?;
    refuse_unbuilt(&sources, &pinned.lock)?;
    if pinned.lock.packages.is_empty() {
        return Err(Error::usage(format!(
            "the lock of `{}` has no packages, and an image is made of them",
            sources.profile.shown
        ))
        .hint("lock it again: `bedplate lock`"));
    }
    let output = context.path(&args.output);
    let store = Store::open(&context.store)?;
    let (inputs, program) = image::inputs(&sources, &bundle)?;
    let image = Image {
        context,
        sources: &sources,
        bundle: &bundle,
        pinned: &pinned,
        store: &store,
        inputs,
        program,
    };
    if !args.again && !args.verify_twice && image.is_built(&output) {
        if context.ui.format == Format::Json {
            context.ui.json(&serde_json::json!({ "schema": 1, "image": image.name(), "built": false }))?;
        } else {
            context.ui.data("nothing to do\n")?;
        }
        context.ui.say("the image is there, made from the same definition, profile, lock and program; `--again` builds it anew");
        return Ok(exit::DONE);
    }
    refuse_unprivileged()?;
    fetch(context, &pinned, sources.profile.directory())?;
    files::make_dir(&output)?;
    let mut work = Work::begin(store.directory())?;
    let tree = Arc::new(work.tree()?);
    let (built, owned) = image.tree(&tree)?;
    let report = image.write(&tree, built, &owned, (&work, &output))?;
    if args.verify_twice {
        let progress = context.ui.progress();
        context.run(again::compare(&image, &tree, &work, &report, progress.as_ref()))?;
        context.ui.say("built twice: the same bytes");
    }
    if args.keep_tree {
        work.keep();
    } else {
        work.clear()?;
    }
    tell(context, &report, args.explain)?;
    Ok(exit::DONE)
}

/// How many threads there is use for.
pub(super) fn threads() -> usize {
    image::threads().get() as usize
}

/// What this version cannot do of a definition.
fn refuse_unbuilt(sources: &ImageSources, lock: &Lock) -> Result<()> {
    let definition = &sources.definition;
    let no = |what: &str, instead: &str| {
        Err(Error::usage(format!("`{}`: not in this version yet: {what}", sources.shown))
            .hint(instead.to_owned()))
    };
    if definition.include.contains(&Part::Images) {
        return no("`images` among `include`", "leave it out: images are pulled by digest at the first boot");
    }
    let always = [Part::Packages, Part::Files, Part::Users];
    if let Some(part) = always.iter().find(|part| !definition.include.contains(part)) {
        return no(&format!("`include` without `{}`", part.name()), "add it");
    }
    if definition.include.contains(&Part::Bedplate) != definition.include.contains(&Part::Profile) {
        return no("`include` with one of `bedplate` and `profile`", "name both, or neither");
    }
    let own = sources.profile.profile.host.architecture.as_str();
    let foreign = |package: &&LockedPackage| ![own, "all"].contains(&package.architecture.as_str());
    if let Some(package) = lock.packages.iter().find(foreign) {
        return no(
            &format!("packages of another architecture, such as {}:{}", package.name, package.architecture),
            "leave them out of the profile",
        );
    }
    if definition.signing.is_some() {
        return no("`[signing]`, since there are no modules to sign", "remove it");
    }
    if sources.profile.profile.driver.flavor != DriverFlavor::None {
        return no("images with a driver", "provision such a host: `bedplate provision`");
    }
    Ok(())
}

fn refuse_unprivileged() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::failed("building an image needs root in this version: packages' scripts are run as root, confined")
        .hint("run it with `sudo`, or where user namespaces are allowed: `unshare --map-root-user --map-auto bedplate build …`"))
}

/// Has every package of the lock in the store.
fn fetch(context: &Context, pinned: &Pinned, directory: &Path) -> Result<()> {
    let kinds = Carries { packages: true, images: false };
    carry::gather(context, pinned, directory, kinds, &mut Content::default())
}

fn tell(context: &Context, report: &Report, explain: bool) -> Result<()> {
    if context.ui.format == Format::Json {
        return context.ui.json(report);
    }
    for piece in report.parts.values() {
        context.ui.data(&format!("{}  {}\n", piece.digest, piece.path.display()))?;
    }
    if explain {
        for (what, took) in &report.spent {
            context.ui.data(&format!("{took:>8} ms  {what}\n"))?;
        }
        for piece in report.parts.values() {
            for (group, digest, bytes) in &piece.layers {
                context.ui.data(&format!(
                    "{:>11}  layer {group}  {}\n",
                    text::bytes(*bytes),
                    digest.short()
                ))?;
            }
        }
    }
    Ok(())
}
