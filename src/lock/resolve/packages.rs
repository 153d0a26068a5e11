//! Locked: from what a profile asks of its archives to the closure, locked, and the set it makes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Archives, Request, Selection, roots};
use crate::{
    apt::{
        Catalog, Record,
        archive::{self, Access, Seen},
        closure::{self, Ask, Closure, Preferred},
        version,
    },
    digest::Digest,
    error::{Error, Result},
    lock::{
        Lock, LockedPackage, LockedRepository, LockedSuite, PACKAGES, PackageSet, inputs, names,
        set::{self, Kernel},
        why,
    },
    progress::{Progress, Unit},
};

/// How often the closure is solved again so that parts of the driver which only others need come in its version.
const ROUNDS: usize = 4;
const TASK: &str = "solving packages";

/// What a lock says of packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Locked {
    pub(super) repositories: BTreeMap<String, LockedRepository>,
    pub(super) set: Option<PackageSet>,
    pub(super) packages: Vec<LockedPackage>,
}

/// A package whose version the archives have changed, or that came or went with such a change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MovedPackage {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// The locked version; `None`: it is not locked.
    pub from: Option<String>,
    /// The version that an update would lock; `None`: it would go.
    pub to: Option<String>,
}

/// What an update would change of the packages that it names. Archives are read; nothing is written.
///
/// # Errors
/// As locking has.
pub async fn moved_packages(
    request: &Request<'_>,
    archives: impl FnOnce() -> Result<Archives>,
    progress: &dyn Progress,
) -> Result<Vec<MovedPackage>> {
    let (Some(old), false) = (request.old, request.update.packages.is_none()) else { return Ok(Vec::new()) };
    check(request)?;
    let new = locked_packages(request, archives, progress).await?;
    // The same version with other bytes has moved as well.
    let versions = |packages: &[LockedPackage]| -> BTreeMap<(String, String), (String, Digest, u64)> {
        let entry = |p: &LockedPackage| {
            ((p.name.clone(), p.architecture.clone()), (p.version.clone(), p.sha256, p.size))
        };
        packages.iter().map(entry).collect()
    };
    let (before, after) = (versions(&old.packages), versions(&new.packages));
    let keys: BTreeSet<&(String, String)> = before.keys().chain(after.keys()).collect();
    Ok(keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| MovedPackage {
            name: key.0.clone(),
            architecture: key.1.clone(),
            from: before.get(key).map(|(version, ..)| version.clone()),
            to: after.get(key).map(|(version, ..)| version.clone()),
        })
        .collect())
}

/// Whether the packages to be updated are locked.
pub(super) fn check(request: &Request<'_>) -> Result<()> {
    let Selection::Named(wanted) = &request.update.packages else { return Ok(()) };
    if !request.profile.host.pin_packages {
        return Err(
            Error::usage("the profile pins no packages").hint("take `pin-packages = false` out of `[host]`")
        );
    }
    let none = Lock::default();
    let old = request.old.unwrap_or(&none);
    let unknown = wanted.iter().filter(|name| !old.packages.iter().any(|package| package.name == **name));
    Error::join(unknown.map(|name| {
        let error = Error::usage(format!("no package `{}` is in the lock", name.escape_debug()));
        let near = why::nearest(old, name);
        if near.is_empty() {
            error.hint("a plain `bedplate lock` locks what the profile asks for anew")
        } else {
            error.hint(format!("the lock has {}", near.join(", ")))
        }
    }))
    .map_or(Ok(()), Err)
}

/// What the lock says of packages: as it is where nothing else is asked for, else solved from the archives.
pub(super) async fn locked_packages(
    request: &Request<'_>,
    archives: impl FnOnce() -> Result<Archives>,
    progress: &dyn Progress,
) -> Result<Locked> {
    if !request.profile.host.pin_packages {
        return Ok(Locked::default());
    }
    if let Some(kept) = kept(request) {
        return Ok(kept);
    }
    let archives = archives()?;
    let architectures = architectures(request);
    let access = Access {
        transport: &archives.transport,
        cache: archives.cache.as_deref(),
        architectures: &architectures,
        now: archives.now,
    };
    let archive::Read { catalog, seen } = archive::read(&archives.list, &access, progress).await?;
    progress.started(TASK, None, Unit::None);
    let solved = solve(request, &catalog, progress)?;
    progress.finished(TASK, None);
    let set = solved.set(request, &catalog)?;
    Ok(Locked { repositories: repositories(seen), set: Some(set), packages: solved.packages })
}

/// The old lock's packages, where the same is asked of the archives as then. What they make as a set is not taken from
/// the lock: somebody may have edited it.
fn kept(request: &Request<'_>) -> Option<Locked> {
    let old = request.old.filter(|old| !old.packages.is_empty() && request.update.packages.is_none())?;
    let inputs = inputs(request.profile_file_name, request.profile, request.deployments, request.sources);
    if old.inputs.get(PACKAGES) != inputs.get(PACKAGES) {
        return None;
    }
    let set = Some(set::again(request.profile, &old.packages, old.set.as_ref()));
    Some(Locked { repositories: old.repositories.clone(), set, packages: old.packages.clone() })
}

/// The host's architecture, then those that packages are asked for by name.
fn architectures(request: &Request<'_>) -> Vec<String> {
    let host = &request.profile.host;
    let foreign: BTreeSet<&str> = host
        .packages
        .iter()
        .filter_map(|name| Some(name.split_once(':')?.1))
        .filter(|architecture| !matches!(*architecture, "all" | "any") && *architecture != host.architecture)
        .collect();
    std::iter::once(host.architecture.clone()).chain(foreign.into_iter().map(str::to_owned)).collect()
}

/// A closure, locked.
struct Solved {
    packages: Vec<LockedPackage>,
    /// Source packages, in the same order.
    sources: Vec<String>,
}

impl Solved {
    fn set(&self, request: &Request<'_>, catalog: &Catalog) -> Result<PackageSet> {
        let native = &request.profile.host.architecture;
        let kernels: Vec<Kernel> = catalog
            .iter()
            .filter(|(_, record)| record.architecture == native)
            .filter_map(|(_, record)| Kernel::of(record.name, record.version))
            .collect();
        let set = set::set(request.profile, &self.packages, &self.sources, Some(&kernels))?;
        match &request.profile.kernel.package {
            Some(named) if set.kernel.is_none() => {
                Err(Error::usage(format!("`{named}`, the `[kernel] package`, brings no kernel"))
                    .hint("name a kernel's package, such as `linux-image-amd64` or `linux-image-generic`"))
            }
            _ => Ok(set),
        }
    }
}

fn solve(request: &Request<'_>, catalog: &Catalog, progress: &dyn Progress) -> Result<Solved> {
    let host = &request.profile.host;
    let locked = preferred(request, catalog);
    let roots::Roots { roots, driver } = roots::roots(request.profile, catalog, &locked)?;
    // What is locked of another driver would only be in the way.
    let is_other = |one: &Preferred| {
        let other = driver.as_ref().is_some_and(|driver| version::upstream(&one.version) != driver);
        other && source(catalog, one).is_some_and(|source| set::is_driver_part(&one.name, source))
    };
    let mut preferred: Vec<Preferred> = locked.into_iter().filter(|one| !is_other(one)).collect();
    let mut closure;
    let mut round = 0;
    loop {
        let ask = Ask {
            catalog,
            architecture: &host.architecture,
            roots: &roots,
            preferred: &preferred,
            recommends: host.recommends,
        };
        closure = closure::solve(&ask)?;
        round += 1;
        let more = driver.as_ref().map(|driver| siblings(catalog, &closure, driver)).unwrap_or_default();
        let more: Vec<Preferred> = more.into_iter().filter(|one| !preferred.contains(one)).collect();
        if more.is_empty() || round == ROUNDS {
            break;
        }
        preferred.extend(more);
    }
    if !closure.vanished.is_empty() {
        let count = closure.vanished.len();
        let some = closure.vanished.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let more = if count > 3 { ", …" } else { "" };
        progress.note(&format!("no longer in the archives, of what was locked: {some}{more} ({count})"));
    }
    locked_closure(catalog, closure)
}

/// Locked versions that are kept where they can be: all but those to be updated, and with those the packages of the
/// same source packages, and with one part of the driver the others.
fn preferred(request: &Request<'_>, catalog: &Catalog) -> Vec<Preferred> {
    let Some(old) = request.old else { return Vec::new() };
    let all = old.packages.iter().map(|package| Preferred {
        name: package.name.clone(),
        architecture: package.architecture.clone(),
        version: package.version.clone(),
    });
    match &request.update.packages {
        Selection::All => Vec::new(),
        Selection::None => all.collect(),
        Selection::Named(names) => {
            let all: Vec<Preferred> = all.collect();
            let sources: Vec<Option<&str>> = all.iter().map(|one| source(catalog, one)).collect();
            let of = || all.iter().zip(&sources);
            let dropped: BTreeSet<&str> =
                of().filter(|(one, _)| names.contains(&one.name)).filter_map(|(_, source)| *source).collect();
            let part = |one: &Preferred, source: Option<&str>| {
                set::is_driver_part(&one.name, source.unwrap_or_default())
            };
            let driver = of().any(|(one, source)| names.contains(&one.name) && part(one, *source));
            let goes = |one: &Preferred, source: Option<&str>| {
                names.contains(&one.name)
                    || source.is_some_and(|source| dropped.contains(source))
                    || (driver && part(one, source))
            };
            of().filter(|(one, source)| !goes(one, **source)).map(|(one, _)| one.clone()).collect()
        }
    }
}

/// The source package of a locked one: of its version, else of any that the archives have.
fn source<'c>(catalog: &'c Catalog, one: &Preferred) -> Option<&'c str> {
    let records = || catalog.named(&one.name).iter().map(|id| catalog.get(*id));
    records().find(|record| record.version == one.version).or_else(|| records().next()).map(|r| r.source)
}

/// Chosen parts of the driver that are of another upstream version, as the archives have them in the driver's.
fn siblings(catalog: &Catalog, closure: &Closure, driver: &str) -> Vec<Preferred> {
    let odd = |record: &Record<'_>| {
        set::is_driver_part(record.name, record.source) && version::upstream(record.version) != driver
    };
    closure
        .packages
        .iter()
        .map(|chosen| catalog.get(chosen.id))
        .filter(odd)
        .filter_map(|record| {
            let of_driver = catalog
                .named(record.name)
                .iter()
                .map(|id| catalog.get(*id))
                .filter(|one| one.architecture == record.architecture)
                .filter(|one| version::upstream(one.version) == driver);
            of_driver.max_by(|one, other| {
                one.priority.cmp(&other.priority).then_with(|| version::compare(one.version, other.version))
            })
        })
        .map(|record| Preferred {
            name: record.name.to_owned(),
            architecture: record.architecture.to_owned(),
            version: record.version.to_owned(),
        })
        .collect()
}

/// A closure as the lock has it. What an archive says is held against what a lock may say.
fn locked_closure(catalog: &Catalog, closure: Closure) -> Result<Solved> {
    let mut solved = Solved { packages: Vec::new(), sources: Vec::new() };
    for chosen in closure.packages {
        let record = catalog.get(chosen.id);
        let refuse = |what: &str, value: &str| {
            Err(Error::failed(format!(
                "the archive `{}` has `{}` with {what} that cannot be locked: `{}`",
                record.repository,
                record.name.escape_debug(),
                value.escape_debug()
            ))
            .hint("tell the archive's owner, or use another mirror"))
        };
        if !names::is_package(record.name) {
            return refuse("a name", record.name);
        }
        if !names::is_version(record.version) {
            return refuse("a version", record.version);
        }
        if !names::is_architecture(record.architecture) {
            return refuse("an architecture", record.architecture);
        }
        if !names::is_path(record.path) {
            return refuse("a path", record.path);
        }
        solved.sources.push(record.source.to_owned());
        solved.packages.push(LockedPackage {
            repository: record.repository.to_owned(),
            name: record.name.to_owned(),
            version: record.version.to_owned(),
            architecture: record.architecture.to_owned(),
            sha256: record.sha256,
            size: record.size,
            path: record.path.to_owned(),
            depends: chosen.depends,
            wanted_by: chosen.wanted_by,
        });
    }
    Ok(solved)
}

/// What was verified, as the lock has it: every archive of the profile, whether or not a package came from it.
fn repositories(seen: BTreeMap<String, Seen>) -> BTreeMap<String, LockedRepository> {
    seen.into_iter()
        .map(|(name, seen)| {
            let suites = seen.suites.into_iter().map(|(name, suite)| {
                let locked =
                    LockedSuite { release: suite.release, date: suite.date, signed_by: suite.signed_by };
                (name, locked)
            });
            (name, LockedRepository { snapshot: seen.snapshot, suites: suites.collect() })
        })
        .collect()
}
