//! `build`: a host image from a lock.

mod again;
mod image;
mod push;

use std::{path::Path, sync::Arc};

use self::image::{Image, Report};
use super::{Context, args, carry, inputs::ImageSources, modules};
use crate::{
    build::{root, work::Work},
    error::{Error, Result},
    fleet::wire::Carries,
    host::content::Content,
    lock::{Lock, LockedPackage, bundle::Pinned},
    profile::image_definition::Part,
    store::Store,
    system::{files, namespace},
    ui::{Format, exit, text},
};

/// Runs `build`.
pub fn run(context: &Context, args: &args::Build) -> Result<u8> {
    let to = push::references(&args.push)?;
    let sources = ImageSources::read(context, args.image.as_deref())?;
    let (mut bundle, mut pinned) = sources.profile.pinned(context)?;
    refuse_unbuilt(&sources, &pinned.lock)?;
    push::refuse_without_layout(&sources, &to)?;
    if pinned.lock.packages.is_empty() {
        return Err(Error::usage(format!(
            "the lock of `{}` has no packages, and an image is made of them",
            sources.profile.shown
        ))
        .hint("lock it again: `bedplate lock`"));
    }
    if pinned.lock.lacks_modules() {
        modules::lock(context, &sources.profile)?;
        (bundle, pinned) = sources.profile.pinned(context)?;
    }
    let output = context.path(&args.output);
    let store = Store::open(&context.store)?;
    let image = Image {
        context,
        sources: &sources,
        bundle: &bundle,
        pinned: &pinned,
        store: &store,
        inputs: image::inputs(&sources, &bundle)?,
    };
    let layout = image.layout_in(&output);
    if !args.again && !args.verify_twice && image.is_built(&output) {
        context.ui.say("the image is there, made from the same definition, profile, lock and program; `--again` builds it anew");
        let pushed = push::push(context, &layout, &to)?;
        if context.ui.format == Format::Json {
            let mut report = serde_json::json!({ "schema": 1, "image": image.name(), "built": false });
            if !pushed.is_empty() {
                report["pushed"] = serde_json::json!(pushed);
            }
            context.ui.json(&report)?;
        } else {
            context.ui.data("nothing to do\n")?;
            push::tell(context, &pushed)?;
        }
        return Ok(exit::DONE);
    }
    become_root(context)?;
    // A long build is not begun for a registry that will not have it.
    push::knock(context, &to)?;
    fetch(context, &pinned, sources.profile.directory())?;
    files::make_dir(&output)?;
    let mut work = Work::begin(store.directory())?;
    let tree = Arc::new(work.tree()?);
    let (built, owned) = image.tree(&tree)?;
    let mut report = image.write(&tree, built, &owned, (&work, &output))?;
    if args.verify_twice {
        let progress = context.ui.progress();
        report.varied = context.run(again::compare(&image, &tree, &work, &report, progress.as_ref()))?;
        context.ui.say("built twice: the same bytes");
        if context.ui.verbose > 0 {
            context.ui.say(&format!("the second build had another {}", report.varied.join(", ")));
        }
    }
    if args.keep_tree {
        work.keep();
    } else {
        work.clear()?;
    }
    // Told in any case: a registry that fails takes nothing from what was built.
    let pushed = push::push(context, &layout, &to);
    if let Ok(pushed) = &pushed {
        report.pushed.clone_from(pushed);
    }
    tell(context, &report, args.explain)?;
    pushed.map(|_| exit::DONE)
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
    if let Some(package) = lock.host_packages().iter().find(foreign) {
        return no(
            &format!("packages of another architecture, such as {}:{}", package.name, package.architecture),
            "leave them out of the profile",
        );
    }
    Ok(())
}

/// Starts over as root of a user namespace where this is an ordinary user: packages' scripts are run as root, and files
/// given to users.
pub(super) fn become_root(context: &Context) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    context.run(namespace::refuse_unable())?;
    Err(namespace::become_root(&root::this_program()?, &context.arguments))
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
    push::tell(context, &report.pushed)?;
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
