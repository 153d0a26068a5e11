//! Which group of layers each path of a tree belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{owners, write::layers::Group};
use crate::{digest::Digest, error::Result, lock::LockedPackage, system::files::Root};

/// The tree's content store.
const STORE: &str = "/var/lib/bedplate/store/sha256/";

/// Whose each path is.
#[derive(Debug, Default)]
pub struct Groups {
    by_path: HashMap<String, Group>,
    configuration: BTreeSet<String>,
    /// Names of files in the tree's store that container images are made of.
    images: BTreeSet<String>,
    newest: BTreeMap<Group, i64>,
}

impl Groups {
    /// Of a finished tree. `configuration`: paths, from `/`, of what the profile and the image definition say; `built`:
    /// when each package was built, by name; `images`: what container images are made of, by digest.
    ///
    /// # Errors
    /// dpkg's lists cannot be read.
    pub fn of(
        root: &Root,
        packages: &[LockedPackage],
        configuration: impl IntoIterator<Item = String>,
        built: &BTreeMap<String, i64>,
        images: impl IntoIterator<Item = Digest>,
    ) -> Result<Self> {
        let by_package = by_package(packages);
        let mut groups = Self {
            configuration: configuration.into_iter().collect(),
            images: images.into_iter().map(|digest| digest.hex()).collect(),
            ..Self::default()
        };
        let group_of = |name: &str| by_package.get(name).copied().unwrap_or(Group::Base);
        owners::each(root, &mut |name, path| {
            let group = group_of(name);
            let there = groups.by_path.entry(path.to_owned()).or_insert(group);
            *there = (*there).min(group);
        })?;
        for (name, time) in built {
            let newest = groups.newest.entry(group_of(name)).or_insert(*time);
            *newest = (*newest).max(*time);
        }
        // Their content has no time of its own, and must not move with a package. The oldest one hardly ever changes.
        groups.newest.extend(built.values().min().map(|oldest| (Group::Images, *oldest)));
        Ok(groups)
    }

    /// The group of a path relative to the top; `None`: nobody's.
    pub fn owner(&self, path: &str) -> Option<Group> {
        let full = format!("/{path}");
        if full == "/usr/local/bin/bedplate" {
            return Some(Group::Agent);
        }
        if let Some(name) = full.strip_prefix(STORE)
            && name.rsplit('/').next().is_some_and(|name| self.images.contains(name))
        {
            return Some(Group::Images);
        }
        let inside = |above: &str| {
            full.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if inside("/var/lib/bedplate") || self.configuration.contains(&full) {
            return Some(Group::Configuration);
        }
        self.by_path.get(path).copied()
    }

    /// When the newest package of each group was built, in seconds since 1970.
    pub fn newest(&self) -> &BTreeMap<Group, i64> {
        &self.newest
    }
}

/// Each package with the group it moves with: what only the kernel, the driver or the engine wants is of their group,
/// what anything else wants as well is the base's.
fn by_package(packages: &[LockedPackage]) -> HashMap<&str, Group> {
    let known: HashMap<&str, &LockedPackage> =
        packages.iter().map(|package| (package.name.as_str(), package)).collect();
    let closure = |fits: &dyn Fn(&str) -> bool| {
        let wants = |package: &&LockedPackage| package.wanted_by.iter().any(|word| fits(word));
        let mut left: Vec<&str> =
            packages.iter().filter(wants).map(|package| package.name.as_str()).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = left.pop() {
            if seen.insert(name) {
                left.extend(
                    known.get(name).into_iter().flat_map(|package| &package.depends).map(String::as_str),
                );
            }
        }
        seen
    };
    let base = closure(&|word| !matches!(word, "kernel" | "driver" | "container"));
    let groups = [("kernel", Group::Kernel), ("driver", Group::Driver), ("container", Group::Engine)];
    let mut found = HashMap::new();
    for (word, group) in groups {
        for name in closure(&|wanted| wanted == word).difference(&base) {
            found.entry(*name).or_insert(group);
        }
    }
    found
}
