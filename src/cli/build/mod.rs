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
    host::content::{Content, Named},
    lock::{Lock, LockedPackage, bundle::Pinned},
    profile::image_definition::{Disk, Part},
    store::Store,
    system::{files, namespace, signals},
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
    let (inputs, program) = image::inputs(&sources, &bundle)?;
    let mut image = Image {
        context,
        sources: &sources,
        bundle: &bundle,
        pinned: &pinned,
        store: &store,
        inputs,
        program,
        images: Content::default(),
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
    signals::watch()?;
    let mut report = match made(&mut image, args, &output) {
        Ok(report) => report,
        // Whatever it was that broke off.
        Err(error) => return Err(signals::refuse_heard().err().unwrap_or(error)),
    };
    // Told in any case: a registry that fails takes nothing from what was built.
    let pushed = push::push(context, &layout, &to);
    if let Ok(pushed) = &pushed {
        report.pushed.clone_from(pushed);
    }
    tell(context, &report, args.explain)?;
    pushed.map(|_| exit::DONE)
}

/// Makes the image: fetches what it is made of, builds its tree, writes every form of it.
fn made(image: &mut Image<'_>, args: &args::Build, output: &Path) -> Result<Report> {
    let Image { context, sources, pinned, store, .. } = *image;
    let disk = sources.definition.disk.as_ref();
    let packages = pinned.lock.host_packages().iter().map(|package| package.size).sum();
    refuse_small_disk(&sources.shown, disk, packages, least(sources, &pinned.lock))?;
    image.images = fetch(context, pinned, sources)?;
    refuse_small_disk(&sources.shown, disk, packages, image.images.size())?;
    files::make_dir(output)?;
    let mut work = Work::begin(store.directory())?;
    let tree = Arc::new(work.tree()?);
    let (built, owned) = image.tree(&tree, &work, args.again)?;
    let mut report = image.write(&tree, built, &owned, (&work, output))?;
    if args.verify_twice {
        let progress = context.ui.progress();
        report.varied = context.run(again::compare(image, &tree, &work, &report, progress.as_ref()))?;
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
    Ok(report)
}

/// How many threads there is use for.
pub(super) fn threads() -> usize {
    image::threads().get() as usize
}

/// What this version cannot do of a definition.
fn refuse_unbuilt(sources: &ImageSources, lock: &Lock) -> Result<()> {
    let no = |what: &str, instead: &str| {
        Err(Error::usage(format!("`{}`: not in this version yet: {what}", sources.shown))
            .hint(instead.to_owned()))
    };
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

/// Has every package of the lock in the store, and what its images are made of, where they are baked in: that is given.
fn fetch(context: &Context, pinned: &Pinned, sources: &ImageSources) -> Result<Content> {
    let kinds = Carries { packages: true, images: sources.definition.include.contains(&Part::Images) };
    let mut content = Content::default();
    carry::gather(context, pinned, sources.profile.directory(), kinds, &mut content)?;
    content.only(&Named::of(&pinned.lock).images().filter(|_| kinds.images).collect());
    Ok(content)
}

/// What the images that are baked in take at least, in bytes, before they are fetched: they may share layers.
fn least(sources: &ImageSources, lock: &Lock) -> u64 {
    let baked_in = sources.definition.include.contains(&Part::Images);
    lock.images.values().filter(|_| baked_in).map(|image| image.download).max().unwrap_or(0)
}

/// An error where the root partition is smaller than what is known to go into it: packages as they are fetched, which is
/// less than they take, and container images.
fn refuse_small_disk(shown: &str, disk: Option<&Disk>, packages: u64, images: u64) -> Result<()> {
    let Some(disk) = disk else { return Ok(()) };
    let room = (disk.size_mib - disk.esp_mib) << 20;
    if packages + images <= room {
        return Ok(());
    }
    // Packages unpacked, and images once more in Docker.
    let wanted = disk.esp_mib + ((4 * packages + 3 * images) >> 20) + 1;
    Err(Error::usage(format!(
        "`{}` has {} for the root partition, too few: its packages take more than {}, its container images {}",
        shown,
        text::bytes(room),
        text::bytes(packages),
        text::bytes(images)
    ))
    .hint(format!("set `size-mib` of `[disk]` to {wanted} or more: Docker has the images once more when it has unpacked them")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::image_definition::RootFileSystem;

    #[test]
    fn a_disk_that_cannot_hold_its_images_is_refused_before_anything_is_built() {
        let disk =
            Disk { size_mib: 4096, esp_mib: 512, root: RootFileSystem::Ext4, kernel_parameters: Vec::new() };
        let refused = |images: u64| refuse_small_disk("x", Some(&disk), 200 << 20, images << 20);
        refused(3384).unwrap();
        let error = refused(3385).unwrap_err();
        for words in ["`x` has 3.8 GB for the root", "more than 209.7 MB", "its container images 3.5 GB"] {
            assert!(error.message().contains(words), "{words}: {error:?}");
        }
        assert!(error.hints()[0].contains("`size-mib` of `[disk]` to 11468 or more"), "{error:?}");
        refuse_small_disk("x", None, u64::MAX, 0).unwrap();
    }
}
