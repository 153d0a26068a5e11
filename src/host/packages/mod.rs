//! Packages: looked at in dpkg's database, brought to their locked versions by the host's own apt from local files.

mod apt;
mod dpkg;
mod failure;
mod local;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use url::Url;

pub use self::dpkg::read;
use super::apply::{Context, Work};
use crate::{
    apt::download,
    error::{Error, Result},
    lock::{LockedPackage, modules::BUILT},
    plan::{
        PackageChange, Plan, Step, Way,
        dpkg::{Packages, Want, key},
    },
    progress::Unit,
    store::{Store, fetch::Remote},
    system::{
        clock,
        files::{Owner, Root},
    },
};

/// Everything apt works with, gone again once it has worked.
const APT: &str = "/var/lib/bedplate/apt";
/// The local repository.
const REPOSITORY: &str = "/var/lib/bedplate/apt/repository";
/// Who asks for a restart of the host, and why (update-notifier's convention, which Debian's kernels follow).
const REBOOT: &str = "/run/reboot-required";
/// Says whether services may be started (invoke-rc.d(8)); there only while apt works in a tree.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n# bedplate: nothing is started in a tree\nexit 101\n";
/// How dpkg names a package's own version of a configuration file that it did not replace.
const DIST: &str = ".dpkg-dist";
/// Room that must stay free where packages are installed, in bytes.
const SPARE: u64 = 64 << 20;
/// The task's name in progress events.
const TASK: &str = "installing";

/// Where packages come from.
#[derive(Clone, Copy)]
pub struct Supply<'a> {
    /// The content store's directory.
    pub store: &'a Path,
    /// Base addresses of each archive, in the order they are asked; none where nothing may be fetched.
    pub places: &'a BTreeMap<String, Vec<Url>>,
    /// What they are asked with.
    pub remote: &'a dyn Remote,
}

/// The step that installs, if the plan has one.
fn installs(plan: &Plan) -> Option<(&[PackageChange], &[String])> {
    plan.steps.iter().find_map(|step| match step {
        Step::InstallPackages { changes, remove, .. } => Some((changes.as_slice(), remove.as_slice())),
        _ => None,
    })
}

/// Before anything on the host changes: has every package in the store, makes the local repository, and asks apt what
/// it would do with it, which must be what the plan says.
///
/// # Errors
/// A package cannot be had or is not what the lock says; there is no room; apt would do anything else.
pub(super) async fn ready(context: &Context<'_>, plan: &Plan) -> Result<()> {
    let root = context.root;
    let broken = broken(plan);
    let (changes, remove) = match installs(plan) {
        Some(both) => both,
        None if broken.is_some() => (&[][..], &[][..]),
        None => return clear(root),
    };
    let result = prepare(context, changes, remove, broken.unwrap_or_default()).await;
    if result.is_err() {
        // Nothing of a refused plan stays.
        let _ = clear(root);
    }
    result
}

/// Whether a killed run left what apt worked with.
pub(super) fn left_over(root: &Root) -> Result<bool> {
    root.exists(APT)
}

/// Removes what apt worked with, also what a killed run left of it.
pub(super) fn clear(root: &Root) -> Result<()> {
    root.remove_tree(APT)?;
    if !root.is_host() && is_ours(root) {
        root.remove_file(POLICY)?;
    }
    Ok(())
}

/// Whether the policy that is there is one that a run left.
fn is_ours(root: &Root) -> bool {
    root.read(POLICY, 1 << 16).ok().flatten().is_some_and(|text| text == POLICY_TEXT.as_bytes())
}

async fn prepare(
    context: &Context<'_>,
    changes: &[PackageChange],
    remove: &[String],
    broken: &[String],
) -> Result<()> {
    let root = context.root;
    let native = context.pinned.profile.host.architecture.as_str();
    let packages = context.pinned.lock.host_packages();
    let all: BTreeMap<String, &LockedPackage> =
        packages.iter().map(|package| (key(&package.name, &package.architecture, native), package)).collect();
    let mut wanted: BTreeMap<&str, &LockedPackage> = BTreeMap::new();
    for change in changes {
        let package = all
            .get(&change.package)
            .ok_or_else(|| Error::failed(format!("the lock has no package `{}`", change.package)))?;
        sound(package)?;
        wanted.insert(&change.package, package);
    }
    // What is half installed may have to come again, and what needs it cannot come without it.
    let mut mended: BTreeMap<&str, &str> = BTreeMap::new();
    for key in broken.iter().filter(|key| !changes.iter().any(|change| change.package == **key)) {
        if let Some(package) = all.get(key) {
            sound(package)?;
            wanted.insert(key, package);
            mended.insert(key, &package.version);
        }
    }
    let store = Store::open(context.supply.store)?;
    let downloads: Vec<download::Wanted> =
        wanted.values().map(|package| wanted_of(context, package)).collect();
    download::fetch(&store, &downloads, context.supply.remote, context.progress).await?;
    let made = local::make(root, &store, &wanted)?;
    let host = dpkg::read(root)?.unwrap_or_default();
    refuse_full(root, &made, &host, native)?;
    apt::update(root).await?;
    if changes.is_empty() && remove.is_empty() {
        return Ok(());
    }
    let mut would = apt::simulate(root, &ask(changes, remove, &mended)).await?;
    would.install.retain(|package, version| mended.get(package.as_str()) != Some(&version.as_str()));
    compare(&would, changes, remove, &host.by_key(native).into_keys().collect())
}

fn wanted_of(context: &Context<'_>, package: &LockedPackage) -> download::Wanted {
    download::Wanted {
        sha256: package.sha256,
        size: package.size,
        path: package.path.clone(),
        uris: context.supply.places.get(&package.repository).cloned().unwrap_or_default(),
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        is_built: package.repository == BUILT,
    }
}

/// Names and versions go to apt as arguments: they must be nothing else (Debian Policy 5.6.1, 5.6.12).
fn sound(package: &LockedPackage) -> Result<()> {
    let all = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if all(&package.name, "+-.") && all(&package.version, "+-.:~") && all(&package.architecture, "-") {
        return Ok(());
    }
    Err(Error::failed(format!(
        "the lock has a package of no valid name, version or architecture: `{}` `{}` `{}`",
        package.name.escape_debug(),
        package.version.escape_debug(),
        package.architecture.escape_debug()
    ))
    .hint("make the lock anew: `bedplate lock --update-all`"))
}

/// An error where the packages would not fit.
fn refuse_full(root: &Root, made: &local::Made, host: &Packages, native: &str) -> Result<()> {
    let there = host.by_key(native);
    let grows: u64 = made
        .installed
        .iter()
        .map(|(key, size)| size.saturating_sub(there.get(key).map_or(0, |package| package.installed_size)))
        .sum::<u64>()
        .saturating_mul(1024);
    let free = root.free_space("/usr")?.bytes_free;
    if grows == 0 || free >= grows.saturating_add(SPARE) {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::failed(format!(
        "no space for the packages: they take {} MiB, and `{}` has {} MiB free",
        mib(grows),
        root.path().join("usr").display(),
        mib(free)
    ))
    .hint(format!("make room: `du -xh --max-depth=2 {} | sort -h | tail`", root.path().display())))
}

/// What the plan's repair names; `None` where nothing is to be repaired.
fn broken(plan: &Plan) -> Option<&[String]> {
    plan.steps.iter().find_map(|step| match step {
        Step::RepairPackages { packages } => Some(packages.as_slice()),
        _ => None,
    })
}

/// `mended`: what is half installed and goes on to the version it was to have.
fn ask(changes: &[PackageChange], remove: &[String], mended: &BTreeMap<&str, &str>) -> apt::Ask {
    let mut words: Vec<String> =
        changes.iter().map(|change| format!("{}={}", change.package, change.to)).collect();
    words.extend(mended.iter().map(|(package, version)| format!("{package}={version}")));
    words.extend(remove.iter().map(|package| format!("{package}-")));
    apt::Ask {
        words,
        removes: !remove.is_empty(),
        again: changes.iter().any(|change| change.way == Way::Again),
    }
}

/// What apt would do must be what the plan says, no more and no less.
fn compare(
    would: &apt::Simulated,
    changes: &[PackageChange],
    remove: &[String],
    there: &BTreeSet<String>,
) -> Result<()> {
    let mut errors = Vec::new();
    let goes: Vec<&String> = would.remove.iter().filter(|package| !remove.contains(package)).collect();
    if !goes.is_empty() {
        let names = goes.iter().map(|package| format!("`{package}`")).collect::<Vec<_>>().join(", ");
        let plain = goes.iter().map(|package| package.as_str()).collect::<Vec<_>>().join(" ");
        errors.push(
            Error::failed(format!(
                "the locked packages cannot be there together with {names}: apt would remove it"
            ))
            .hint(format!("remove it yourself, if nobody needs it: `apt-get remove {plain}`"))
            .hint("or lock it with the rest: name it in `[host] packages`, then `bedplate lock`"),
        );
    }
    for (package, version) in &would.install {
        let planned = changes.iter().find(|change| change.package == *package);
        match planned {
            Some(change) if change.to == *version => {}
            Some(change) => errors.push(Error::failed(format!(
                "apt would bring package `{package}` to {version}, and {} is locked",
                change.to
            ))),
            None => errors.push(
                Error::failed(format!(
                    "apt would bring package `{package}` to {version}, which is not locked"
                ))
                .hint("something on the host asks for it: `apt-get check`"),
            ),
        }
    }
    for change in changes.iter().filter(|change| !would.install.contains_key(&change.package)) {
        errors.push(
            Error::failed(format!("apt would leave package `{}` out", change.package))
                .hint("see why: `apt-get check`, `dpkg --audit`"),
        );
    }
    for package in remove.iter().filter(|name| there.contains(*name) && !would.remove.contains(*name)) {
        errors.push(Error::failed(format!("apt would not remove package `{package}`")));
    }
    Error::join(errors).map_or(Ok(()), Err)
}

/// Finishes what dpkg was interrupted at.
pub(super) async fn repair(work: &mut Work<'_>) -> Result<()> {
    let root = work.context.root;
    let _quiet = Quiet::new(root)?;
    let Err(error) = apt::configure(root).await? else { return Ok(()) };
    if work.installs {
        // What it lacks comes with the next step.
        tracing::debug!("dpkg cannot finish yet: {}", error.message());
        return Ok(());
    }
    apt::install(root, &apt::Ask::default(), work.context.progress, TASK)
        .await
        .map_err(|_| error.hint("see what is broken: `dpkg --audit`; mend or remove that package"))
}

/// Has apt do what was planned, and looks whether it did.
pub(super) async fn install(work: &mut Work<'_>, changes: &[PackageChange], remove: &[String]) -> Result<()> {
    let context = work.context;
    let root = context.root;
    let quiet = Quiet::new(root)?;
    let since = clock::now();
    let native = context.pinned.profile.host.architecture.as_str();
    let kept = left_beside(root, native, changes)?;
    let asked = root.is_host() && root.exists(REBOOT)?;
    context.progress.started(TASK, Some(100), Unit::Items);
    apt::install(root, &ask(changes, remove, &BTreeMap::new()), context.progress, TASK).await.map_err(
        |error| match failure::modules(root, since) {
            Some((line, log)) => error
                .hint(format!("a kernel module did not build: {line}"))
                .hint(format!("all of it: `less {}`", log.display())),
            None => error,
        },
    )?;
    quiet.end()?;
    let host = dpkg::read(root)?.unwrap_or_default();
    for change in changes {
        let now = dpkg::find(&host, native, &change.package);
        if !now.is_some_and(|now| now.version == change.to && !now.broken()) {
            return Err(Error::failed(format!(
                "apt ended well, and package `{}` is not installed at {}",
                change.package, change.to
            ))
            .hint("see what apt did: `less /var/log/apt/term.log`"));
        }
    }
    for ((package, file), inode) in left_beside(root, native, changes)? {
        if kept.get(&(package.clone(), file.clone())) != Some(&inode) {
            work.outcome.warnings.push(format!(
                "`{file}` of package `{package}` was changed by hand and is kept; the package's own is `{file}{DIST}`"
            ));
        }
    }
    work.installed = true;
    if root.is_host() && !asked && root.exists(REBOOT)? && work.outcome.reboot.is_none() {
        let by = root.read_text(&format!("{REBOOT}.pkgs"), 1 << 20)?.unwrap_or_default();
        let by: BTreeSet<&str> = by.lines().filter(|line| !line.trim().is_empty()).collect();
        let by = by.into_iter().collect::<Vec<_>>().join(", ");
        work.outcome.reboot =
            Some(if by.is_empty() { "packages ask for it".to_owned() } else { format!("{by} ask for it") });
    }
    context.progress.finished(TASK, Some(""));
    Ok(())
}

/// What dpkg left beside configuration files that someone changed: the inode of each, by package and file. dpkg gives
/// it the time that its maker gave it, so that only the inode tells a new one.
fn left_beside(
    root: &Root,
    native: &str,
    changes: &[PackageChange],
) -> Result<BTreeMap<(String, String), u64>> {
    let host = dpkg::read(root)?.unwrap_or_default();
    let mut found = BTreeMap::new();
    for change in changes {
        let conffiles = dpkg::find(&host, native, &change.package).map(|now| now.conffiles.as_slice());
        for file in conffiles.unwrap_or_default() {
            // One that cannot be looked at (beneath a link) says nothing.
            if let Ok(Some(stat)) = root.stat(&format!("{}{DIST}", file.path)) {
                found.insert((change.package.clone(), file.path.clone()), stat.inode);
            }
        }
    }
    Ok(found)
}

/// Sets and lifts holds. A package that is not there any more needs none.
pub(super) async fn hold(root: &Root, native: &str, hold: &[String], release: &[String]) -> Result<()> {
    let host = dpkg::read(root)?.unwrap_or_default();
    let mut lines = String::new();
    for (names, word) in [(hold, "hold"), (release, "install")] {
        for package in names.iter().filter_map(|name| dpkg::find(&host, native, name)) {
            if (package.want == Want::Hold) != (word == "hold") {
                lines.push_str(&format!("{}:{} {word}\n", package.name, package.architecture));
            }
        }
    }
    if lines.is_empty() { Ok(()) } else { apt::select(root, &lines).await }
}

/// While it is there, nothing that is installed into a tree is started.
struct Quiet<'a> {
    root: &'a Root,
    ours: bool,
}

impl<'a> Quiet<'a> {
    fn new(root: &'a Root) -> Result<Self> {
        let there = root.stat(POLICY)?.is_some();
        // A killed run may have left ours; someone else's says what shall be.
        let left = there && is_ours(root);
        let ours = !root.is_host() && (!there || left);
        if ours && !left {
            root.write(POLICY, POLICY_TEXT.as_bytes(), 0o755, Owner::current())?;
        }
        Ok(Self { root, ours })
    }

    fn end(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        if std::mem::take(&mut self.ours) {
            self.root.remove_file(POLICY)?;
        }
        Ok(())
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Where it fails the next run does it.
        let _ = self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(package: &str, to: &str) -> PackageChange {
        PackageChange { package: package.into(), from: None, to: to.into(), way: Way::Install }
    }

    fn would(install: &[(&str, &str)], remove: &[&str]) -> apt::Simulated {
        apt::Simulated {
            install: install.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn apt_must_do_what_is_planned() {
        let changes = [change("a", "1"), change("lib:i386", "2")];
        let there: BTreeSet<String> = ["old".to_owned()].into();
        let gone = ["old".to_owned()];
        let good = would(&[("a", "1"), ("lib:i386", "2")], &["old"]);
        assert!(compare(&good, &changes, &gone, &there).is_ok());
        for (would, part) in [
            (would(&[("a", "1"), ("lib:i386", "2")], &["old", "mine"]), "together with `mine`"),
            (would(&[("a", "3"), ("lib:i386", "2")], &["old"]), "`a` to 3, and 1 is locked"),
            (would(&[("a", "1"), ("lib:i386", "2"), ("x", "1")], &["old"]), "`x` to 1, which is not locked"),
            (would(&[("a", "1")], &["old"]), "leave package `lib:i386` out"),
            (would(&[("a", "1"), ("lib:i386", "2")], &[]), "not remove package `old`"),
        ] {
            let error = compare(&would, &changes, &gone, &there).unwrap_err();
            assert!(error.message().contains(part), "{error:?}");
        }
    }

    #[test]
    fn nothing_but_names_reaches_apt() {
        let package = |name: &str, version: &str| LockedPackage {
            repository: "debian".into(),
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256: crate::digest::Digest::of("x"),
            size: 1,
            path: "a.deb".into(),
            depends: Vec::new(),
            wanted_by: Vec::new(),
        };
        assert!(sound(&package("libstdc++6", "1:2.0~rc1+b1-3")).is_ok());
        for (name, version) in
            [("-oX=1", "1"), ("a", "1 b"), ("", "1"), ("a", ""), ("a/../b", "1"), ("a-=", "1")]
        {
            assert!(sound(&package(name, version)).is_err(), "{name} {version}");
        }
    }
}
