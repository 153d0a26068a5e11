//! Who needs whom among locked packages.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::LockedPackage;

/// Locked packages and what leads to each.
pub(super) struct Graph<'l> {
    packages: &'l [LockedPackage],
    /// Places of the packages that depend on each.
    needed_by: Vec<Vec<usize>>,
}

impl<'l> Graph<'l> {
    pub(super) fn of(packages: &'l [LockedPackage]) -> Self {
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, package) in packages.iter().enumerate() {
            by_name.entry(&package.name).or_default().push(at);
        }
        // What is written as `NAME:ARCHITECTURE` is of another architecture than the host's.
        let foreign: BTreeSet<&str> = packages
            .iter()
            .flat_map(|package| &package.depends)
            .filter_map(|needed| Some(needed.split_once(':')?.1))
            .collect();
        let mut needed_by = vec![Vec::new(); packages.len()];
        for (at, package) in packages.iter().enumerate() {
            for needed in &package.depends {
                let (name, architecture) = match needed.split_once(':') {
                    Some((name, architecture)) => (name, Some(architecture)),
                    None => (needed.as_str(), None),
                };
                let all = by_name.get(name).map(Vec::as_slice).unwrap_or_default();
                let fits = |to: &&usize| match architecture {
                    Some(architecture) => packages[**to].architecture == architecture,
                    None => all.len() == 1 || !foreign.contains(packages[**to].architecture.as_str()),
                };
                for to in all.iter().filter(fits) {
                    needed_by[*to].push(at);
                }
            }
        }
        Self { packages, needed_by }
    }

    /// The packages that depend on this one, in their order.
    pub(super) fn needed_by(&self, at: usize) -> impl Iterator<Item = &'l LockedPackage> {
        self.needed_by[at].iter().map(|from| &self.packages[*from])
    }

    /// From each package that was asked for to this one, the shortest way: itself alone, where it was. The shortest
    /// first, then by name.
    pub(super) fn chains(&self, to: usize) -> Vec<Vec<&'l LockedPackage>> {
        let mut next: HashMap<usize, usize> = HashMap::from([(to, to)]);
        let mut open = VecDeque::from([to]);
        let mut chains = Vec::new();
        while let Some(at) = open.pop_front() {
            if !self.packages[at].wanted_by.is_empty() {
                let mut chain = vec![&self.packages[at]];
                let mut here = at;
                while here != to {
                    here = next[&here];
                    chain.push(&self.packages[here]);
                }
                chains.push(chain);
            }
            for from in &self.needed_by[at] {
                if !next.contains_key(from) {
                    next.insert(*from, at);
                    open.push_back(*from);
                }
            }
        }
        chains
    }
}

/// A chain as one line, with the reason for its first package: `packages: openssh-server → libssl3t64`.
pub(super) fn line(chain: &[&LockedPackage]) -> String {
    let words = chain.first().map(|first| first.wanted_by.join(", ")).unwrap_or_default();
    let names: Vec<&str> = chain.iter().map(|package| package.name.as_str()).collect();
    format!("{words}: {}", names.join(" → "))
}
