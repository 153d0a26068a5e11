//! Why a package is in the lock: from the lock alone.

use serde_json::{Value, json};

use super::{
    Lock, LockedPackage,
    graph::{self, Graph},
};
use crate::error::{Error, Result};

/// Version of the JSON form of a [`Why`].
const SCHEMA: u32 = 1;
/// Reasons in the order in which they are told: what somebody asked for, then what every host has.
const ORDER: &[&str] = &["packages", "driver", "kernel", "container", "apt", "essential", "required"];

/// How many packages that depend on one are named where not all are asked for.
const SOME: usize = 5;
/// A part of a name that has this many letters tells something.
const SHORTEST_PART: usize = 3;

/// Why a package is in the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The package.
    pub package: LockedPackage,
    /// From each package that was asked for to this one, the shortest way; what somebody asked for first.
    pub chains: Vec<Vec<LockedPackage>>,
    /// Names of the packages that depend on it.
    pub needed_by: Vec<String>,
}

/// Why the packages of this name are in the lock, one for each architecture. `name` may be `NAME:ARCHITECTURE`.
///
/// # Errors
/// The lock has no packages, or none of that name: the nearest are named.
pub fn why(lock: &Lock, name: &str) -> Result<Vec<Why>> {
    let (bare, architecture) = match name.split_once(':') {
        Some((bare, architecture)) => (bare, Some(architecture)),
        None => (name, None),
    };
    let graph = Graph::of(&lock.packages);
    let found: Vec<Why> = lock
        .packages
        .iter()
        .enumerate()
        .filter(|(_, package)| {
            package.name == bare && architecture.is_none_or(|wanted| package.architecture == wanted)
        })
        .map(|(at, package)| {
            let mut chains = graph.chains(at);
            chains.sort_by_key(|chain| (rank(chain), chain.len()));
            Why {
                package: package.clone(),
                chains: chains.into_iter().map(|chain| chain.into_iter().cloned().collect()).collect(),
                needed_by: graph.needed_by(at).map(|package| package.name.clone()).collect(),
            }
        })
        .collect();
    if found.is_empty() { Err(unknown(lock, name, bare)) } else { Ok(found) }
}

fn rank(chain: &[&LockedPackage]) -> usize {
    let words = chain.first().map(|first| first.wanted_by.as_slice()).unwrap_or_default();
    let place = |word: &String| ORDER.iter().position(|known| known == word).unwrap_or(ORDER.len());
    words.iter().map(place).min().unwrap_or(ORDER.len())
}

fn unknown(lock: &Lock, name: &str, bare: &str) -> Error {
    if lock.packages.is_empty() {
        return Error::usage("no packages are locked")
            .hint("the profile has `pin-packages = false`, or it was never locked: run `bedplate lock`");
    }
    let error = Error::usage(format!("no package `{}` is in the lock", name.escape_debug()));
    let near = nearest(lock, bare);
    if near.is_empty() {
        error.hint("no name in the lock is like it: look for one with `grep '^name = ' NAME.lock`")
    } else {
        error.hint(format!("the lock has {}", near.join(", ")))
    }
}

/// Names of locked packages that are most like this one, or have it in them, in backticks.
pub(super) fn nearest(lock: &Lock, name: &str) -> Vec<String> {
    let within = |package: &LockedPackage| name.len() >= SHORTEST_PART && package.name.contains(name);
    let mut near: Vec<(f64, &str)> = lock
        .packages
        .iter()
        .map(|package| {
            let likeness = strsim::jaro_winkler(&package.name, name);
            (if within(package) { likeness + 1.0 } else { likeness }, package.name.as_str())
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| format!("`{name}`")).collect()
}

/// Lines for people: of each package the first chain, and how many more there are. `every`: all of them.
pub fn text(all: &[Why], every: bool) -> String {
    let mut out = String::new();
    for why in all {
        let Why { package, chains, needed_by } = why;
        out += &format!(
            "{} {} ({}, from {})\n",
            package.name, package.version, package.architecture, package.repository
        );
        let shown = if every { chains.len() } else { 1 };
        for chain in chains.iter().take(shown) {
            out += &format!("  {}\n", graph::line(&chain.iter().collect::<Vec<_>>()));
        }
        let count = match needed_by.len() {
            0 => continue,
            1 => "1 package depends".to_owned(),
            count => format!("{count} packages depend"),
        };
        let more = chains.len().saturating_sub(shown);
        if more == 0 && (every || needed_by.len() <= SOME) {
            out += &format!("  {count} on it: {}\n", needed_by.join(", "));
            continue;
        }
        let ways = match more {
            0 => String::new(),
            1 => "1 more package that was asked for leads to it; ".to_owned(),
            more => format!("{more} more packages that were asked for lead to it; "),
        };
        out += &format!("  {ways}{count} on it (`--verbose` lists them)\n");
    }
    out
}

/// The same for machines.
pub fn json(all: &[Why]) -> Value {
    let packages: Vec<Value> = all
        .iter()
        .map(|why| {
            let chains: Vec<Value> = why
                .chains
                .iter()
                .map(|chain| {
                    let names: Vec<&str> = chain.iter().map(|package| package.name.as_str()).collect();
                    json!({ "wanted-by": chain.first().map(|first| &first.wanted_by), "chain": names })
                })
                .collect();
            json!({
                "repository": why.package.repository,
                "name": why.package.name,
                "version": why.package.version,
                "architecture": why.package.architecture,
                "wanted-by": why.package.wanted_by,
                "chains": chains,
                "needed-by": why.needed_by,
            })
        })
        .collect();
    json!({ "schema": SCHEMA, "packages": packages })
}
