//! The packages of several indices, side by side: the same name may be there in several versions.

use std::{collections::HashSet, sync::Arc};

use super::index::Index;
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// A package's place in its [`Catalog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub(super) u32);

/// `Multi-Arch` of a package (Debian's multi-arch specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MultiArch {
    /// Satisfies dependencies of its own architecture only.
    #[default]
    No,
    /// May be installed for several architectures at once.
    Same,
    /// Satisfies dependencies of every architecture.
    Foreign,
    /// Either, as the dependency asks for (`NAME:any`).
    Allowed,
}

/// One package of an index. Relations are the raw fields; empty where absent.
#[derive(Debug, Clone, Copy)]
pub struct Record<'c> {
    /// Name of the archive it is from.
    pub repository: &'c str,
    /// The suite (or path of a flat repository) it is from.
    pub suite: &'c str,
    /// How much its suite is preferred, as apt_preferences(5) counts: 500 for a suite of the distribution, 100
    /// for backports (`NotAutomatic` with `ButAutomaticUpgrades`), 1 for `NotAutomatic` alone.
    pub priority: u16,
    /// `Package`.
    pub name: &'c str,
    /// `Version`.
    pub version: &'c str,
    /// `Architecture`.
    pub architecture: &'c str,
    /// `Multi-Arch`.
    pub multi_arch: MultiArch,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Priority: required`.
    pub required: bool,
    /// `Source` without its version; the package's own name where absent.
    pub source: &'c str,
    /// `Pre-Depends`.
    pub pre_depends: &'c str,
    /// `Depends`.
    pub depends: &'c str,
    /// `Recommends`.
    pub recommends: &'c str,
    /// `Conflicts`.
    pub conflicts: &'c str,
    /// `Breaks`.
    pub breaks: &'c str,
    /// `Provides`.
    pub provides: &'c str,
    /// `Filename`: path below the archive's base address.
    pub path: &'c str,
    /// `Size`, in bytes.
    pub size: u64,
    /// `SHA256`.
    pub sha256: Digest,
}

/// The packages of several indices.
#[derive(Debug, Default)]
pub struct Catalog {
    tables: Vec<Table>,
    /// Every package, sorted by name; those of one name in the order of the indices.
    by_name: Vec<PackageId>,
    /// Provided names and who provides them: the packages in the same order as the places of the names.
    provided_at: Vec<(u32, u32)>,
    provided_by: Vec<PackageId>,
}

/// An index and where it is from.
#[derive(Debug)]
struct Table {
    repository: Arc<str>,
    suite: Arc<str>,
    priority: u16,
    index: Arc<Index>,
    /// Id of its first package.
    base: u32,
}

/// An index to be put into a catalog.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) repository: Arc<str>,
    pub(crate) suite: Arc<str>,
    pub(crate) priority: u16,
    pub(crate) index: Arc<Index>,
}

impl PackageId {
    /// Its number: from 0 on, below [`Catalog::len`] and a few more, as duplicates leave gaps.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Catalog {
    /// A catalog of indices given as text: `(repository, suite, priority, text)` each.
    ///
    /// # Errors
    /// An index is broken, or two packages of one repository have the same name, version and architecture but
    /// another content.
    pub fn from_texts(texts: &[(&str, &str, u16, &str)]) -> Result<Self> {
        let mut parts = Vec::new();
        for (repository, suite, priority, text) in texts {
            let place = format!("of `{repository}` `{suite}`");
            let index = Arc::new(Index::parse(&place, text.as_bytes())?);
            parts.push(Part {
                repository: (*repository).into(),
                suite: (*suite).into(),
                priority: *priority,
                index,
            });
        }
        Self::from_parts(parts)
    }

    /// A catalog of these indices, in their order.
    ///
    /// # Errors
    /// Two packages of one repository have the same name, version and architecture but another content.
    pub(crate) fn from_parts(parts: Vec<Part>) -> Result<Self> {
        let mut tables = Vec::with_capacity(parts.len());
        let mut base = 0_u32;
        for Part { repository, suite, priority, index } in parts {
            let next = u32::try_from(index.len()).ok().and_then(|count| base.checked_add(count));
            tables.push(Table { repository, suite, priority, index, base });
            base = next.ok_or_else(|| Error::failed("there are too many packages in the archives"))?;
        }
        let mut catalog = Self { tables, ..Self::default() };
        // Each table is sorted: a stable merge of runs.
        let mut by_name: Vec<PackageId> = (0..base).map(PackageId).collect();
        let names: Vec<&str> = catalog
            .tables
            .iter()
            .flat_map(|table| (0..table.index.len()).map(|at| table.index.name(at)))
            .collect();
        let name = |id: PackageId| names.get(id.index()).copied().unwrap_or_default();
        by_name.sort_by(|one, other| name(*one).cmp(name(*other)));
        catalog.drop_duplicates(&mut by_name, &names)?;
        drop(names);
        catalog.by_name = by_name;
        catalog.collect_provided();
        Ok(catalog)
    }

    /// Leaves one of each name, version and architecture: the first of the indices, which are in the order of
    /// their repositories. The same archive must not give two contents for it.
    fn drop_duplicates(&self, by_name: &mut Vec<PackageId>, names: &[&str]) -> Result<()> {
        let mut gone = Vec::new();
        for group in by_name.chunk_by(|one, other| names[one.index()] == names[other.index()]) {
            if group.len() == 1 {
                continue;
            }
            let records: Vec<Record<'_>> = group.iter().map(|id| self.get(*id)).collect();
            for (at, record) in records.iter().enumerate() {
                let Some(first) = records.iter().take(at).find(|first| {
                    first.version == record.version && first.architecture == record.architecture
                }) else {
                    continue;
                };
                if first.sha256 != record.sha256 && first.repository == record.repository {
                    return Err(Error::failed(format!(
                        "the archive `{}` has `{}` {} {} twice with different content: {} in suite `{}` and {} in \
                         suite `{}`",
                        record.repository,
                        record.name,
                        record.version,
                        record.architecture,
                        first.sha256,
                        first.suite,
                        record.sha256,
                        record.suite
                    ))
                    .hint("tell the archive's owner, or use another mirror"));
                }
                gone.push(group[at]);
            }
        }
        if !gone.is_empty() {
            gone.sort_unstable();
            by_name.retain(|id| gone.binary_search(id).is_err());
        }
        Ok(())
    }

    fn collect_provided(&mut self) {
        let mut all: Vec<(u32, u32)> = Vec::new();
        for (table, Table { index, .. }) in self.tables.iter().enumerate() {
            all.extend((0..index.provided_len()).map(|row| (table as u32, row as u32)));
        }
        let kept: HashSet<PackageId> = if self.by_name.len() == self.count() {
            HashSet::new()
        } else {
            self.by_name.iter().copied().collect()
        };
        let everything = kept.is_empty();
        let mut rows: Vec<(&str, (u32, u32), PackageId)> = all
            .into_iter()
            .map(|place| {
                let (name, id) = self.provided_row(place);
                (name, place, id)
            })
            .filter(|(_, _, id)| everything || kept.contains(id))
            .collect();
        rows.sort_by(|one, other| one.0.cmp(other.0));
        let (at, by) = rows.into_iter().map(|(_, place, id)| (place, id)).unzip();
        self.provided_at = at;
        self.provided_by = by;
    }

    fn provided_row(&self, (table, row): (u32, u32)) -> (&str, PackageId) {
        let Some(table) = self.tables.get(table as usize) else { return ("", PackageId(0)) };
        let (name, at) = table.index.provided(row as usize);
        (name, PackageId(table.base + at as u32))
    }

    /// Packages in all tables, duplicates counted.
    fn count(&self) -> usize {
        self.tables.iter().map(|table| table.index.len()).sum()
    }

    fn table(&self, id: PackageId) -> Option<(&Table, usize)> {
        let after = self.tables.partition_point(|table| table.base <= id.0);
        // An empty table shares its base with the next: the last that begins there is the one.
        let table = self.tables.get(after.checked_sub(1)?)?;
        Some((table, (id.0 - table.base) as usize))
    }

    fn name(&self, id: PackageId) -> &str {
        self.table(id).map_or("", |(table, at)| table.index.name(at))
    }

    /// The package of this id, which must be of this catalog.
    pub fn get(&self, id: PackageId) -> Record<'_> {
        static NONE: std::sync::LazyLock<Index> = std::sync::LazyLock::new(Index::default);
        match self.table(id) {
            Some((table, at)) => table.index.record(at, &table.repository, &table.suite, table.priority),
            None => NONE.record(0, "", "", 0),
        }
    }

    /// Every version of this name, in every architecture, in the order of the indices.
    pub fn named(&self, name: &str) -> &[PackageId] {
        let start = self.by_name.partition_point(|id| self.name(*id) < name);
        let rest = self.by_name.get(start..).unwrap_or_default();
        let end = rest.partition_point(|id| self.name(*id) == name);
        rest.get(..end).unwrap_or_default()
    }

    /// Every package whose `Provides` names this, with or without a version, in the order of the indices. A real
    /// package of that name is not among them unless it says so.
    pub fn providing(&self, name: &str) -> &[PackageId] {
        let start = self.provided_at.partition_point(|place| self.provided_row(*place).0 < name);
        let rest = self.provided_at.get(start..).unwrap_or_default();
        let end = rest.partition_point(|place| self.provided_row(*place).0 == name);
        self.provided_by.get(start..start + end).unwrap_or_default()
    }

    /// Every package, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (PackageId, Record<'_>)> {
        self.by_name.iter().map(|id| (*id, self.get(*id)))
    }

    /// Every name once, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name
            .chunk_by(|one, other| self.name(*one) == self.name(*other))
            .map(|group| self.name(group[0]))
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
