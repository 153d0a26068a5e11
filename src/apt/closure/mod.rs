//! From names to the full set of packages that a fresh host needs, as apt would put it together.
//!
//! The rules are those of Debian Policy 7 (relations), apt_preferences(5) (which version) and the multi-arch
//! specification; where several packages satisfy a relation, the order is apt's. `resolvo` finds the set; what it
//! cannot find, `explain` explains.

mod solver;
mod universe;

use std::collections::{BTreeSet, HashSet};

pub(super) use universe::{Slot, Universe};

pub use super::explain::{Failure, Unsatisfied};
use super::{Catalog, PackageId};
use crate::error::Result;

/// A package that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name; a virtual package's where only one package provides it.
    pub name: String,
    /// Its architecture; `None`: the host's.
    pub architecture: Option<String>,
    /// Which of its versions will do; `None`: any.
    pub constraint: Option<Constraint>,
    /// The word in `wanted-by`, such as `packages` or `driver`.
    pub because: String,
    /// As the profile wrote it, for messages.
    pub shown: String,
}

/// Which versions will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// This Debian version.
    Exact(String),
    /// This upstream version: `550.163.01`.
    Upstream(String),
    /// Upstream versions of this branch: `550`.
    Branch(String),
    /// This Debian version or an earlier one.
    NotLater(String),
}

/// A package that is locked: its version is taken where it can be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preferred {
    /// Its name.
    pub name: String,
    /// Its architecture as the lock has it, `all` included.
    pub architecture: String,
    /// Its version.
    pub version: String,
}

/// What a closure is asked of.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The packages there are.
    pub catalog: &'a Catalog,
    /// Debian's name of the host's architecture.
    pub architecture: &'a str,
    /// What is asked for. Essential and required packages and apt are added.
    pub roots: &'a [Root],
    /// What is locked.
    pub preferred: &'a [Preferred],
    /// Whether recommended packages are taken along where they can be had.
    pub recommends: bool,
}

/// A package of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The package.
    pub id: PackageId,
    /// Names of the chosen packages that satisfy its `Pre-Depends` and `Depends`, sorted; `NAME:ARCHITECTURE` for
    /// those of another architecture than the host's. Recommended ones are among them where they are asked for.
    pub depends: Vec<String>,
    /// Words of the roots it was asked for by, sorted; empty where only others need it.
    pub wanted_by: Vec<String>,
}

/// Everything that the roots need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closure {
    /// Its packages, sorted by name, then architecture.
    pub packages: Vec<Chosen>,
    /// Locked packages whose locked version is in no index any more, as `NAME=VERSION`, sorted.
    pub vanished: Vec<String>,
}

/// Finds the closure: the same for the same question.
///
/// Versions are chosen as apt_preferences(5) says: the locked one, the highest suite priority, the newest. A version of
/// a priority below 500 is taken only if a root's constraint asks for it, if its name has no other, or if there is
/// no closure without it.
///
/// # Errors
/// No set of packages satisfies every relation: one chain of reasons for each root that cannot be had.
pub fn solve(ask: &Ask<'_>) -> Result<Closure, Unsatisfied> {
    let mut universe = universe(ask, false);
    let mut found = solver::solve(&universe, ask.roots, ask.recommends);
    if found.is_none() && ask.catalog.iter().any(|(_, record)| record.priority < universe::AUTOMATIC) {
        universe = self::universe(ask, true);
        found = solver::solve(&universe, ask.roots, ask.recommends);
    }
    let Some(chosen) = found else {
        let solvable = |roots: &[Root]| solver::solve(&universe, roots, false).is_some();
        return Err(super::explain::explain(&universe, ask.roots, &solvable));
    };
    let mut vanished: Vec<String> = ask
        .preferred
        .iter()
        .filter(|locked| universe::find(ask.catalog, locked).is_none())
        .map(|locked| format!("{}={}", locked.name, locked.version))
        .collect();
    vanished.sort_unstable();
    Ok(Closure { packages: described(&universe, ask, &chosen), vanished })
}

fn universe<'a>(ask: &Ask<'a>, low: bool) -> Universe<'a> {
    Universe::new(ask.catalog, ask.architecture, ask.roots, ask.preferred, low)
}

/// The chosen packages with what they depend on and who wants them.
fn described(universe: &Universe<'_>, ask: &Ask<'_>, chosen: &[PackageId]) -> Vec<Chosen> {
    let set: HashSet<PackageId> = chosen.iter().copied().collect();
    let mut wanted: Vec<(Vec<PackageId>, &str)> = universe.base();
    wanted.extend(ask.roots.iter().map(|root| (universe.root(root), root.because.as_str())));
    let mut packages: Vec<Chosen> = chosen
        .iter()
        .map(|id| {
            // What is chosen was read without error.
            let mut groups = universe.needs(*id).unwrap_or_default();
            if ask.recommends {
                groups.extend(universe.recommends(*id).unwrap_or_default());
            }
            let needs = groups.iter().flat_map(|group| &group.ids);
            let depends: BTreeSet<String> = needs
                .filter(|needed| *needed != id && set.contains(needed))
                .map(|needed| universe.shown(*needed))
                .collect();
            let words: BTreeSet<&str> =
                wanted.iter().filter(|(ids, _)| ids.contains(id)).map(|(_, word)| *word).collect();
            Chosen {
                id: *id,
                depends: depends.into_iter().collect(),
                wanted_by: words.into_iter().map(str::to_owned).collect(),
            }
        })
        .collect();
    packages.sort_by_cached_key(|package| {
        let record = ask.catalog.get(package.id);
        (record.name.to_owned(), record.architecture.to_owned())
    });
    packages
}

#[cfg(test)]
mod tests;
