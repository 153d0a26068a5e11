//! The driver's modules: built where the lock has none or the store has lost them.

use std::sync::Arc;

use super::{
    Context, build, carry,
    inputs::{self, Sources},
};
use crate::{
    build::{modules, root, work::Work},
    error::{Error, Result},
    host::content::Content,
    lock::{
        self, LockedModules,
        bundle::Pinned,
        modules::{self as locked, Workshop},
    },
    store::Store,
    system::{clock::Shifted, files},
};

/// Builds the modules of a profile's lock, and writes the package of them into the lock. Where the lock has it, the store
/// has it too afterwards. Says whether the lock was changed.
///
/// # Errors
/// There is no lock, a stale one, or one without a driver; the modules do not build; building them again gives another
/// package than the one that is locked; the lock cannot be written.
pub fn lock(context: &Context, sources: &Sources) -> Result<bool> {
    let (_, pinned) = sources.pinned(context)?;
    if pinned.lock.modules.is_some() {
        have(context, &pinned)?;
        return Ok(false);
    }
    let mut lock = pinned.lock.clone();
    let modules = make(context, &pinned)?;
    let name = modules.package.name.clone();
    lock.adopt(&pinned.profile, modules);
    let path = sources.lock_path();
    files::write_output(&path, lock::write(&lock).as_bytes(), 0o644)?;
    context.ui.say(&format!("locked {name} in {}", inputs::shown(context, &path)));
    Ok(true)
}

/// Has the locked package of modules in the store: builds it again where it is not.
///
/// # Errors
/// As [`lock`] has.
pub fn have(context: &Context, pinned: &Pinned) -> Result<()> {
    let Some(LockedModules { package, .. }) = &pinned.lock.modules else { return Ok(()) };
    if files::is_dir(&context.store) && Store::open(&context.store)?.has(&package.sha256, package.size)? {
        return Ok(());
    }
    let made = make(context, pinned)?.package;
    if made.sha256 == package.sha256 {
        return Ok(());
    }
    Err(Error::check(format!(
        "the modules were built anew and are not those of the lock: {} has {}, and the lock {}",
        made.name, made.sha256, package.sha256
    ))
    .hint("carry the locked package from where it was built (`bedplate bundle --with-packages`), and report it: the same inputs are to give the same bytes"))
}

/// Builds the modules, in a tree of their own in the store.
fn make(context: &Context, pinned: &Pinned) -> Result<LockedModules> {
    let profile = &pinned.profile;
    let inputs = locked::inputs(profile, &pinned.lock.packages, &pinned.lock.inputs);
    let workshop = Workshop::of(&pinned.lock.packages);
    let Some((workshop, inputs)) = workshop.zip(inputs) else {
        return Err(Error::usage("the lock has no driver whose modules are to be built")
            .hint("`[driver]` with a flavor and a version, then `bedplate lock`, brings one"));
    };
    build::become_root(context)?;
    carry::packages(context, profile, &workshop.packages, &mut Content::default())?;
    let driver = pinned.lock.set.as_ref().and_then(|set| set.driver.as_deref()).unwrap_or_default();
    context.ui.say(&format!(
        "building the modules of driver {driver} for kernel {}, once: this takes minutes",
        workshop.release
    ));
    let source = |path: &String| pinned.sources.get(path).cloned().unwrap_or_default();
    let recipe = modules::Recipe {
        inputs,
        patches: profile.driver.patches.iter().map(|path| (path.clone(), source(path))).collect(),
        signing: profile
            .driver
            .signing
            .as_ref()
            .map(|signing| (signing.key.clone().into(), source(&signing.certificate))),
        workshop: &workshop,
    };
    let store = Store::open(&context.store)?;
    let work = Work::begin(store.directory())?;
    let tree = Arc::new(work.tree()?);
    let program = root::this_program()?;
    let clock = Shifted::of(&context.env);
    let progress = context.ui.progress();
    let request = root::Request {
        packages: &workshop.packages,
        store: &store,
        root: &tree,
        program: &program,
        architecture: &profile.host.architecture,
        threads: build::threads(),
        clock: clock.as_ref(),
        stand_ins: &[],
        progress: progress.as_ref(),
    };
    let built = context.run(modules::build(&request, &recipe));
    work.clear()?;
    built
}
