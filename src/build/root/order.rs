//! In which order packages are unpacked and configured: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::package::Package;

/// The packages in waves. All of a wave are unpacked, then its `preinst` scripts are run and what later waves
/// pre-depend on is configured.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// Packages, as indices into the list, dependencies before what depends on them; a cycle is entered at the name
    /// that sorts first.
    pub sorted: Vec<usize>,
    /// By package: where it stands in `sorted`.
    pub place: Vec<usize>,
    /// What every program of the tree needs to run: the essential packages and their dependencies.
    pub base: BTreeSet<usize>,
    /// What is unpacked after the base, in waves: a package with a `preinst` comes after what it pre-depends on.
    pub waves: Vec<Vec<usize>>,
}

/// Orders packages of a lock: sorted by name, each with the names it depends on.
pub fn order(packages: &[Package<'_>]) -> Order {
    let index = by_name(packages);
    let depends =
        |at: usize| packages[at].locked.depends.iter().filter_map(|name| index.get(name.as_str()).copied());
    let mut sorted = Vec::new();
    let mut seen = BTreeSet::new();
    // Debian's `base-passwd` makes the accounts that every other script may name, `base-files` the directories
    // (debootstrap configures them first as well).
    let first = ["base-passwd", "base-files"].iter().filter_map(|name| index.get(name).copied());
    for at in first.chain(0..packages.len()) {
        visit(at, &depends, &mut seen, &mut sorted);
    }
    let mut base = BTreeSet::new();
    let mut left: Vec<usize> = (0..packages.len()).filter(|at| packages[*at].essential).collect();
    while let Some(at) = left.pop() {
        if base.insert(at) {
            left.extend(depends(at));
        }
    }
    // A wave is one more than the highest wave of what is pre-depended on; without a script nothing is waited for.
    let mut wave_of: BTreeMap<usize, usize> = BTreeMap::new();
    for at in sorted.iter().copied().filter(|at| !base.contains(at)) {
        let wave = if packages[at].files.contains_key("preinst") {
            let before =
                packages[at].pre_depends.iter().filter_map(|name| wave_of.get(index.get(name.as_str())?));
            before.max().map_or(1, |wave| wave + 1)
        } else {
            0
        };
        wave_of.insert(at, wave);
    }
    let count = wave_of.values().max().map_or(0, |wave| wave + 1);
    let mut waves = vec![Vec::new(); count];
    for at in &sorted {
        if let Some(wave) = wave_of.get(at) {
            waves[*wave].push(*at);
        }
    }
    let mut place = vec![0; packages.len()];
    for (number, at) in sorted.iter().enumerate() {
        place[*at] = number;
    }
    Order { sorted, place, base, waves }
}

/// Where each name stands in the list.
pub fn by_name<'p>(packages: &'p [Package<'_>]) -> BTreeMap<&'p str, usize> {
    packages.iter().enumerate().map(|(at, package)| (package.locked.name.as_str(), at)).collect()
}

fn visit<I: Iterator<Item = usize>>(
    first: usize,
    depends: &impl Fn(usize) -> I,
    seen: &mut BTreeSet<usize>,
    sorted: &mut Vec<usize>,
) {
    // By hand, not by calls: a chain of dependencies may be long.
    let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
    let enter = |at: usize, seen: &mut BTreeSet<usize>| {
        seen.insert(at).then(|| {
            let mut next: Vec<usize> = depends(at).collect();
            next.reverse();
            (at, next)
        })
    };
    path.extend(enter(first, seen));
    while let Some((at, next)) = path.last_mut() {
        if let Some(below) = next.pop() {
            let entered = enter(below, seen);
            path.extend(entered);
        } else {
            sorted.push(*at);
            path.pop();
        }
    }
}
