//! `build`: a host image from a lock.

use std::sync::Arc;

use super::{
    Context, args, carry,
    carry_out::{Goal, Run},
    inputs,
    inputs::Sources,
};
use crate::{
    build::root,
    error::{Error, Result},
    fleet::wire::Carries,
    host::{content::Content, provision, secrets::Frame},
    store::Store,
    system::files::{self, Root},
    ui::exit,
};

/// Runs `build`.
pub fn run(context: &Context, args: &args::Build) -> Result<u8> {
    let sources = Sources::read(context, args.image.as_deref())?;
    let (bundle, pinned) = sources.pinned(context)?;
    inputs::refuse_stale(&pinned, &pinned.name)?;
    if pinned.lock.packages.is_empty() {
        return Err(Error::usage(format!(
            "the lock of `{}` has no packages: an image is made of them",
            sources.shown
        ))
        .hint("lock them: leave `pin-packages` out of the profile, then `bedplate lock`"));
    }
    let mut content = Content::default();
    let kinds = Carries { packages: true, images: false };
    carry::gather(context, &pinned, sources.directory(), kinds, &mut content)?;
    drop(content);
    let store = Store::open(&context.store)?;
    let work = store.directory().join("build");
    files::make_private_dir(&work)?;
    let above = Root::open(&work)?;
    above.remove_tree("/tree")?;
    above.make_dir("/tree", 0o755, files::Owner::current())?;
    let tree = Arc::new(Root::open(&work.join("tree"))?);
    let progress = context.ui.progress();
    let program = root::this_program()?;
    let request = root::Request {
        packages: &pinned.lock.packages,
        store: &store,
        root: &tree,
        program: &program,
        architecture: "amd64",
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        progress: progress.as_ref(),
    };
    let mut built = context.run(root::make(&request))?;
    context.run(async {
        let held = provision::hold(&tree, "build")?;
        let frame = Frame::default();
        let run =
            Run::new(context, &tree, (&bundle, &pinned), &frame, carry::places(context), Goal::Provision);
        let plan = run.plan().await?;
        plan.refuse()?;
        run.apply(context, &held, &plan).await?;
        root::finish(&request, &mut built).await
    })?;
    for (what, took) in built.spent {
        context.ui.say(&format!("{:>8} ms  {what}", took.as_millis()));
    }
    Ok(exit::DONE)
}
