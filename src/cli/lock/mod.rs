//! `lock`: pins every image and package of a profile, shows what that changes, says what has moved, or why a package is
//! there.

mod check;

use std::collections::BTreeSet;

use super::{
    Context, archives,
    args::{self, DiffArg},
    inputs::{self, Sources},
    modules, registries,
};
use crate::{
    error::{Error, Result, Snippet},
    lock::{
        self, Builds, Lock, VerdictOutcome,
        resolve::{self, Archives, Request, Selection, Update},
        why,
    },
    profile::GpuAccess,
    progress::Progress,
    system::{clock, files},
    ui::{Format, exit, text},
};

/// Runs `lock`.
pub fn run(context: &Context, args: &args::Lock) -> Result<u8> {
    let sources = Sources::read(context, args.profile.as_deref())?;
    if let Some(name) = &args.why {
        return tell_why(context, &sources, name);
    }
    for warning in &sources.warnings {
        context.ui.warn_at(&warning.message, warning.snippet.as_ref(), &warning.hint);
    }
    archives::warn_of_unused(context, &sources.profile);
    let old = sources.lock(context)?.map(|(_, lock)| lock);
    let update = update(args)?;
    check_names(&update, &sources, old.as_ref())?;
    let file_name = sources.file_name();
    let request = Request {
        profile_file_name: &file_name,
        directory: sources.directory(),
        profile: &sources.profile,
        deployments: &sources.deployments,
        sources: &sources.files,
        old: old.as_ref(),
        update,
    };
    if args.check {
        return check::check(context, args, &sources, &request);
    }
    let code = write(context, args, &sources, &request)?;
    if args.modules && code == exit::DONE {
        modules::lock(context, &sources)?;
    }
    Ok(code)
}

/// `--why`: from the lock alone.
fn tell_why(context: &Context, sources: &Sources, name: &str) -> Result<u8> {
    let Some((_, lock)) = sources.lock(context)? else { return Err(no_lock(sources)) };
    let found = why::why(&lock, name)?;
    if context.ui.format == Format::Json {
        context.ui.json(&why::json(&found))?;
    } else {
        context.ui.data(&why::text(&found, context.ui.verbose > 0))?;
    }
    Ok(exit::DONE)
}

fn no_lock(sources: &Sources) -> Error {
    let shown = &sources.shown;
    Error::stale(format!("`{shown}` has no lock")).hint(format!("run `bedplate lock {shown}`"))
}

fn update(args: &args::Lock) -> Result<Update> {
    if args.update_all {
        return Ok(Update::all());
    }
    let mut images = BTreeSet::new();
    let mut packages = BTreeSet::new();
    let (mut all_images, mut all_packages) = (false, false);
    for what in &args.update {
        match what.split_once(':') {
            Some(("image", "*")) => all_images = true,
            Some(("package", "*")) => all_packages = true,
            Some(("image", name)) if !name.is_empty() => {
                images.insert(name.to_owned());
            }
            Some(("package", name)) if !name.is_empty() => {
                packages.insert(name.to_owned());
            }
            _ => {
                return Err(Error::usage(format!("`--update {what}` names nothing that can be updated"))
                    .hint("write `--update image:NAME`, `--update package:NAME`, or `--update-all`"));
            }
        }
    }
    let selection = |all: bool, names: BTreeSet<String>| {
        if all {
            Selection::All
        } else if names.is_empty() {
            Selection::None
        } else {
            Selection::Named(names)
        }
    };
    Ok(Update { images: selection(all_images, images), packages: selection(all_packages, packages) })
}

fn check_names(update: &Update, sources: &Sources, old: Option<&Lock>) -> Result<()> {
    let Selection::Named(names) = &update.images else { return Ok(()) };
    let deployments: Vec<_> = sources.deployments.values().collect();
    let wanted = lock::wanted(&sources.profile, &deployments)?;
    for name in names {
        if !wanted.contains_key(name) && !old.is_some_and(|lock| lock.images.contains_key(name)) {
            let known: Vec<&str> = wanted.keys().map(String::as_str).collect();
            let error = Error::usage(format!("`{}` has no image `{name}`", sources.shown));
            return Err(if known.is_empty() {
                error.hint("it names no image at all: add one to `[images]`")
            } else {
                error.hint(format!("it has: {}", known.join(", ")))
            });
        }
    }
    Ok(())
}

/// The archives of the profile, made when one must be asked.
fn archives_of(
    context: &Context,
    args: &args::Lock,
    sources: &Sources,
    old: Option<&Lock>,
) -> Result<Archives> {
    let mirror = args.mirror.as_deref();
    Ok(Archives {
        list: archives::archives(context, &sources.profile, &sources.files, mirror, old)?,
        transport: archives::transport(context),
        cache: Some(archives::cache(context)),
        now: clock::now(),
    })
}

/// Resolves what is new, changed or to be updated.
fn resolved(
    context: &Context,
    args: &args::Lock,
    sources: &Sources,
    request: &Request<'_>,
    progress: &dyn Progress,
) -> Result<Lock> {
    context.run(resolve::lock(
        request,
        || Ok(registries::client(context)),
        || archives_of(context, args, sources, request.old),
        progress,
    ))
}

/// Makes the lock, and writes it where it differs.
fn write(context: &Context, args: &args::Lock, sources: &Sources, request: &Request<'_>) -> Result<u8> {
    let new = resolved(context, args, sources, request, context.ui.progress().as_ref())?;
    let path = sources.lock_path();
    let shown = inputs::shown(context, &path);
    let written = lock::write(&new);
    let same = request.old.is_some_and(|old| lock::write(old) == written);
    if !same {
        files::write_output(&path, written.as_bytes(), 0o644)?;
    }
    let empty = Lock::default();
    print_diff(context, args, request.old.unwrap_or(&empty), &new)?;
    warn_of_toolkit(context, sources, &new);
    if context.ui.format == Format::Json && args.diff.is_none() {
        context.ui.json(&serde_json::json!({
            "schema": 1, "profile": sources.shown, "lock": shown, "digest": new.digest(),
            "changed": !same, "images": new.images.len(), "packages": new.packages.len(),
            "set": new.set.as_ref().map(set_json),
        }))?;
    }
    let mut what = text::count(new.images.len(), "image");
    if !new.packages.is_empty() {
        what += &format!(", {}", text::count(new.packages.len(), "package"));
    }
    if same {
        context.ui.say(&format!("{shown} is up to date: {what}"));
    } else {
        let images: u64 = new.images.values().map(|image| image.download).sum();
        let packages: u64 = new.packages.iter().map(|package| package.size).sum();
        let size = text::bytes(images.saturating_add(packages));
        context.ui.say(&format!("locked {what}, {size} to download, in {shown}"));
        if let Some(set) = set_line(&new) {
            context.ui.say(&set);
        }
    }
    Ok(if refuse(context, &new) { exit::CHECK } else { exit::DONE })
}

/// Warns where containers are to reach GPUs by what no archive of the profile has.
fn warn_of_toolkit(context: &Context, sources: &Sources, lock: &Lock) {
    let access = sources.profile.container.gpu_access;
    let there = lock.set.as_ref().is_some_and(|set| set.toolkit.is_some());
    if access == GpuAccess::None || there || lock.packages.is_empty() {
        return;
    }
    let place = Snippet::find(&sources.shown, &sources.text.as_str().into(), "gpu-access");
    context.ui.warn_at(
        "containers reach GPUs by `nvidia-container-toolkit`, which none of the profile's archives has: it is not locked",
        place.as_ref(),
        "add NVIDIA's archive, https://nvidia.github.io/libnvidia-container/stable/deb/amd64, as `[[host.repository]]` \
         (guide: `02-profile.md`, `[host]`), or see to it yourself on each host",
    );
}

fn set_json(set: &lock::PackageSet) -> serde_json::Value {
    serde_json::json!({
        "kernel": set.kernel, "driver": set.driver, "firmware": set.firmware,
        "fabric-manager": set.fabric_manager, "toolkit": set.toolkit, "engine": set.engine,
        "builds": set.builds.map(Builds::name), "because": set.because,
    })
}

/// The set as one line.
fn set_line(lock: &Lock) -> Option<String> {
    let set = lock.set.as_ref()?;
    let parts: Vec<String> = [
        ("kernel", &set.kernel),
        ("driver", &set.driver),
        ("Fabric Manager", &set.fabric_manager),
        ("toolkit", &set.toolkit),
        ("engine", &set.engine),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("{name} {}", value.as_deref()?)))
    .collect();
    (!parts.is_empty()).then(|| format!("set: {}", parts.join(", ")))
}

fn print_diff(context: &Context, args: &args::Lock, old: &Lock, new: &Lock) -> Result<()> {
    let Some(form) = args.diff else { return Ok(()) };
    let diff = lock::diff(old, new);
    match form {
        DiffArg::Text => context.ui.data(&diff.text(context.ui.verbose > 0)),
        DiffArg::Markdown => context.ui.data(&diff.markdown()),
        DiffArg::Json => context.ui.json(&diff.json()),
    }
}

/// Whether an image cannot run on the profile's driver or GPUs, or the driver does not build for the kernel; says
/// which, and what is unknown.
fn refuse(context: &Context, lock: &Lock) -> bool {
    let mut refused = false;
    for (name, image) in &lock.images {
        match image.verdict.outcome {
            VerdictOutcome::Refuse => {
                refused = true;
                context.ui.warn(&format!("image `{name}` is refused: {}", image.verdict.because));
            }
            VerdictOutcome::Unknown if context.ui.verbose > 0 => {
                context.ui.say(&format!("image `{name}`: verdict unknown: {}", image.verdict.because));
            }
            _ => {}
        }
    }
    let Some(set) = &lock.set else { return refused };
    let because = set.because.as_deref().unwrap_or_default();
    match set.builds {
        Some(Builds::No) => {
            refused = true;
            let error = Error::check(format!("the set is refused: {because}"))
                .hint("name a kernel that builds in `[kernel] package`, or another `[driver] version`");
            context.ui.error(&error);
        }
        Some(_) if lock.lacks_modules() => context.ui.warn_at(
            because,
            None,
            "`bedplate lock --modules` builds them, once, and locks the package of them: no host compiles any",
        ),
        Some(Builds::Untried | Builds::Yes | Builds::Patched) | None => {}
    }
    refused
}
