//! What may be chosen: the packages of a catalog by slot (a name for an architecture), and what satisfies what.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use crate::{
    apt::{
        Catalog, MultiArch, PackageId, Record,
        relation::{self, Relation},
        version,
    },
    error::{Doing, Result},
};

use super::{Constraint, Preferred, Root};

/// From this suite priority on a version is a candidate by itself (apt_preferences(5)).
pub(super) const AUTOMATIC: u16 = 500;

/// A name for an architecture: at most one of its versions is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::apt) struct Slot(pub(super) u32);

/// Place of an architecture among those in play; the native one, which `all` counts as, is 0.
type Architecture = usize;

/// Alternatives as they stand in a field, and what satisfies them, the most wanted first.
pub(in crate::apt) struct Group<'c> {
    pub(in crate::apt) alternatives: Vec<Relation<'c>>,
    pub(in crate::apt) ids: Vec<PackageId>,
}

/// What a package rules out: the relation that says so (none: the rules of multi-arch), and the packages it hits.
pub(in crate::apt) struct Exclusion<'c> {
    pub(in crate::apt) field: &'static str,
    pub(in crate::apt) relation: Option<Relation<'c>>,
    pub(in crate::apt) ids: Vec<PackageId>,
}

struct SlotData<'c> {
    name: &'c str,
    architecture: Architecture,
    candidates: Rc<[PackageId]>,
}

#[derive(Default)]
struct Slots<'c> {
    by_name: HashMap<(&'c str, Architecture), Slot>,
    of: HashMap<PackageId, Slot>,
    all: Vec<SlotData<'c>>,
}

pub(in crate::apt) struct Universe<'c> {
    pub(in crate::apt) catalog: &'c Catalog,
    architectures: Vec<&'c str>,
    preferred: HashSet<PackageId>,
    /// Versions of a low priority that are asked for.
    asked: HashSet<PackageId>,
    /// Whether versions of a low priority may be taken beside others of their name.
    low: bool,
    slots: RefCell<Slots<'c>>,
}

impl<'c> Universe<'c> {
    pub(in crate::apt) fn new(
        catalog: &'c Catalog,
        native: &'c str,
        roots: &'c [Root],
        preferred: &[Preferred],
        low: bool,
    ) -> Self {
        let mut architectures = vec![native];
        for root in roots {
            if let Some(architecture) = root.architecture.as_deref().filter(|a| *a != "all")
                && !architectures.contains(&architecture)
            {
                architectures.push(architecture);
            }
        }
        architectures[1..].sort_unstable();
        let found = preferred.iter().filter_map(|locked| find(catalog, locked)).collect();
        let mut universe = Self {
            catalog,
            architectures,
            preferred: found,
            asked: HashSet::new(),
            low,
            slots: RefCell::default(),
        };
        universe.asked = universe.asked_for(roots);
        universe
    }

    /// Versions that a root's constraint admits where none of a high priority is within it.
    fn asked_for(&self, roots: &[Root]) -> HashSet<PackageId> {
        let mut asked = HashSet::new();
        for root in roots {
            let Some(constraint) = &root.constraint else { continue };
            let architecture = self.root_architecture(root);
            let within: Vec<(PackageId, u16)> = self
                .catalog
                .named(&root.name)
                .iter()
                .map(|id| (*id, self.catalog.get(*id)))
                .filter(|(_, r)| self.architecture(r) == Some(architecture) && constraint.admits(r.version))
                .map(|(id, r)| (id, r.priority))
                .collect();
            if within.iter().all(|(_, priority)| *priority < AUTOMATIC) {
                asked.extend(within.into_iter().map(|(id, _)| id));
            }
        }
        asked
    }

    /// A root's architecture as a place among those in play.
    fn root_architecture(&self, root: &Root) -> Architecture {
        let named = root.architecture.as_deref();
        self.architectures.iter().position(|a| Some(*a) == named).unwrap_or(0)
    }

    fn architecture(&self, record: &Record<'_>) -> Option<Architecture> {
        if record.architecture == "all" {
            return Some(0);
        }
        self.architectures.iter().position(|a| *a == record.architecture)
    }

    /// Whether it is of, or counts as of, another architecture than the host's.
    pub(in crate::apt) fn is_foreign(&self, record: &Record<'_>) -> bool {
        self.architecture(record) != Some(0)
    }

    /// A package as the lock and messages name it.
    pub(in crate::apt) fn shown(&self, id: PackageId) -> String {
        let record = self.catalog.get(id);
        if self.is_foreign(&record) {
            format!("{}:{}", record.name, record.architecture)
        } else {
            record.name.to_owned()
        }
    }

    /// The slot a package is of, if its architecture is in play and it may be chosen.
    pub(in crate::apt) fn slot_of(&self, id: PackageId) -> Option<Slot> {
        if let Some(slot) = self.slots.borrow().of.get(&id) {
            return Some(*slot);
        }
        let record = self.catalog.get(id);
        let slot = self.slot(record.name, self.architecture(&record)?)?;
        self.candidates(slot).contains(&id).then_some(slot)
    }

    /// The slot of this name and architecture, if there is a package for it.
    fn slot(&self, name: &str, architecture: Architecture) -> Option<Slot> {
        if let Some(slot) = self.slots.borrow().by_name.get(&(name, architecture)) {
            return Some(*slot);
        }
        let mut found: Vec<(PackageId, Record<'c>)> = self
            .catalog
            .named(name)
            .iter()
            .map(|id| (*id, self.catalog.get(*id)))
            .filter(|(_, record)| self.architecture(record) == Some(architecture))
            .collect();
        let name = found.first()?.1.name;
        if !self.low && found.iter().any(|(_, record)| record.priority >= AUTOMATIC) {
            found.retain(|(id, record)| {
                record.priority >= AUTOMATIC || self.asked.contains(id) || self.preferred.contains(id)
            });
        }
        // As apt chooses its candidate: what is there already, then the suite's priority, then the newest.
        found.sort_by(|(a, one), (b, other)| {
            let locked = self.preferred.contains(b).cmp(&self.preferred.contains(a));
            locked
                .then_with(|| other.priority.cmp(&one.priority))
                .then_with(|| version::compare(other.version, one.version))
                .then_with(|| a.cmp(b))
        });
        let candidates: Rc<[PackageId]> = found.iter().map(|(id, _)| *id).collect();
        let mut slots = self.slots.borrow_mut();
        let slot = Slot(slots.all.len() as u32);
        slots.by_name.insert((name, architecture), slot);
        slots.of.extend(candidates.iter().map(|id| (*id, slot)));
        slots.all.push(SlotData { name, architecture, candidates });
        Some(slot)
    }

    /// Everything that may be chosen for a slot, the most wanted first.
    pub(in crate::apt) fn candidates(&self, slot: Slot) -> Rc<[PackageId]> {
        let slots = self.slots.borrow();
        slots.all.get(slot.0 as usize).map_or_else(|| Rc::from([]), |data| Rc::clone(&data.candidates))
    }

    /// How much a package is wanted within its slot; less is more.
    pub(in crate::apt) fn rank(&self, id: PackageId) -> usize {
        let Some(slot) = self.slot_of(id) else { return usize::MAX };
        self.candidates(slot).iter().position(|c| *c == id).unwrap_or(usize::MAX)
    }

    /// Everything that may be chosen for a name in its architectures; the native one first.
    fn named(&self, name: &str) -> Vec<PackageId> {
        (0..self.architectures.len())
            .filter_map(|architecture| self.slot(name, architecture))
            .flat_map(|slot| self.candidates(slot).to_vec())
            .collect()
    }

    /// What satisfies a root. Its name may be a virtual package; `Constraint` bounds real ones alone.
    pub(in crate::apt) fn root(&self, root: &Root) -> Vec<PackageId> {
        let architecture = self.root_architecture(root);
        let real = self.slot(&root.name, architecture).map(|slot| self.candidates(slot).to_vec());
        match (&root.constraint, real) {
            (None, Some(real)) => real,
            (Some(constraint), Some(real)) => {
                real.into_iter().filter(|id| constraint.admits(self.catalog.get(*id).version)).collect()
            }
            (Some(_), None) => Vec::new(),
            (None, None) => {
                let relation = Relation {
                    name: &root.name,
                    qualifier: None,
                    version: None,
                    architectures: Vec::new(),
                    profiles: Vec::new(),
                };
                self.satisfying(&relation, architecture)
            }
        }
    }

    /// What satisfies a relation of a package of this architecture, in the order apt would try.
    fn satisfying(&self, relation: &Relation<'_>, of: Architecture) -> Vec<PackageId> {
        let wanted = match relation.qualifier {
            None => Wanted::Own(of),
            Some("any") => Wanted::Any,
            Some("native") => Wanted::Exact(0),
            Some(name) => match self.architectures.iter().position(|a| *a == name) {
                Some(architecture) => Wanted::Exact(architecture),
                None => return Vec::new(),
            },
        };
        let mut ids: Vec<PackageId> = Vec::new();
        for id in self.named(relation.name) {
            let record = self.catalog.get(id);
            if self.architecture(&record).is_some_and(|a| wanted.met_by(a, record.multi_arch))
                && relation.admits(record.version)
            {
                ids.push(id);
            }
        }
        let mut providers: Vec<PackageId> = Vec::new();
        for id in self.providing(relation) {
            let record = self.catalog.get(id);
            let qualified = |q: &str| match wanted {
                Wanted::Own(a) | Wanted::Exact(a) => self.architectures.get(a) == Some(&q),
                Wanted::Any => q == "any",
            };
            let is_provided = provided(&record, relation).any(|provided| match provided.qualifier {
                Some(q) => qualified(q),
                None => self.architecture(&record).is_some_and(|a| wanted.met_by(a, record.multi_arch)),
            });
            if is_provided && !ids.contains(&id) {
                providers.push(id);
            }
        }
        // apt asks for essential, then native, then the higher `Priority`; where it goes by where its own cache has
        // the package, we go by name.
        providers.sort_by_cached_key(|id| {
            let record = self.catalog.get(*id);
            let foreign = self.architecture(&record) != Some(0);
            (!record.essential, foreign, !record.required, record.name, self.rank(*id))
        });
        ids.extend(providers);
        ids
    }

    /// Packages that may be chosen and whose `Provides` names what the relation names.
    fn providing(&self, relation: &Relation<'_>) -> Vec<PackageId> {
        let all = self.catalog.providing(relation.name).iter().copied();
        all.filter(|id| self.slot_of(*id).is_some()).collect()
    }

    /// What a package needs: its `Pre-Depends` and `Depends`.
    pub(in crate::apt) fn needs(&self, id: PackageId) -> Result<Vec<Group<'c>>> {
        let record = self.catalog.get(id);
        let mut groups = self.groups(&record, "Pre-Depends", record.pre_depends)?;
        groups.extend(self.groups(&record, "Depends", record.depends)?);
        Ok(groups)
    }

    /// What a package recommends.
    pub(in crate::apt) fn recommends(&self, id: PackageId) -> Result<Vec<Group<'c>>> {
        let record = self.catalog.get(id);
        self.groups(&record, "Recommends", record.recommends)
    }

    fn groups(&self, record: &Record<'c>, field: &str, text: &'c str) -> Result<Vec<Group<'c>>> {
        let own = self.architecture(record).unwrap_or(0);
        let mut groups = Vec::new();
        for mut alternatives in read(record, field, text)? {
            let before = alternatives.len();
            alternatives.retain(|one| one.applies(self.architectures[own]));
            if alternatives.is_empty() && before > 0 {
                continue;
            }
            let mut ids = Vec::new();
            for one in &alternatives {
                for id in self.satisfying(one, own) {
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
            }
            // What is locked already is taken before what would be new, as apt does with what is installed.
            ids.sort_by_key(|id| Reverse(self.preferred.contains(id)));
            groups.push(Group { alternatives, ids });
        }
        Ok(groups)
    }

    /// What a package rules out: `Conflicts`, `Breaks`, and what multi-arch rules out by itself. Never a package of
    /// its own name by a relation (dpkg: "conflicts and provides the same").
    pub(in crate::apt) fn excludes(&self, id: PackageId) -> Result<Vec<Exclusion<'c>>> {
        let record = self.catalog.get(id);
        let own = self.architecture(&record).unwrap_or(0);
        let mut exclusions = Vec::new();
        for (field, text) in [("Conflicts", record.conflicts), ("Breaks", record.breaks)] {
            for relation in read(&record, field, text)?.into_iter().flatten() {
                if relation.name == record.name || !relation.applies(self.architectures[own]) {
                    continue;
                }
                let ids = self.hit(&record, &relation);
                if !ids.is_empty() {
                    exclusions.push(Exclusion { field, relation: Some(relation), ids });
                }
            }
        }
        if self.architectures.len() > 1 {
            let same = record.multi_arch == MultiArch::Same;
            let ids: Vec<PackageId> = self
                .named(record.name)
                .into_iter()
                .map(|other| (other, self.catalog.get(other)))
                .filter(|(_, other)| self.architecture(other) != Some(own))
                .filter(|(_, other)| {
                    !(same && other.multi_arch == MultiArch::Same && other.version == record.version)
                })
                .map(|(other, _)| other)
                .collect();
            if !ids.is_empty() {
                exclusions.push(Exclusion { field: "Multi-Arch", relation: None, ids });
            }
        }
        // Read so that a broken field is found with the package that has it.
        read(&record, "Provides", record.provides)?;
        Ok(exclusions)
    }

    /// What a negative relation hits: of every architecture where it names none (deb-conflicts in multi-arch).
    fn hit(&self, record: &Record<'c>, relation: &Relation<'_>) -> Vec<PackageId> {
        let architecture_met = |other: &Record<'_>| match relation.qualifier {
            None | Some("any") => true,
            Some("native") => self.architecture(other) == Some(0),
            Some(name) => self.architecture(other).is_some_and(|a| self.architectures[a] == name),
        };
        let mut ids = Vec::new();
        for id in self.named(relation.name) {
            let other = self.catalog.get(id);
            if architecture_met(&other) && relation.admits(other.version) {
                ids.push(id);
            }
        }
        for id in self.providing(relation) {
            let other = self.catalog.get(id);
            if other.name != record.name
                && architecture_met(&other)
                && provided(&other, relation).next().is_some()
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
        ids
    }

    /// Roots of every host: names of essential, then of required packages, each once; `apt`, if there is one.
    pub(in crate::apt) fn base(&self) -> Vec<(Vec<PackageId>, &'static str)> {
        let mut names: Vec<(&'c str, &'static str)> = Vec::new();
        for (_, record) in self.catalog.iter() {
            if self.architecture(&record) == Some(0) {
                for (marked, word) in [(record.essential, "essential"), (record.required, "required")] {
                    if marked && names.last() != Some(&(record.name, word)) {
                        names.push((record.name, word));
                    }
                }
            }
        }
        names.push(("apt", "apt"));
        let mut base: Vec<(Vec<PackageId>, &'static str)> = Vec::new();
        for (name, word) in names {
            let Some(slot) = self.slot(name, 0) else { continue };
            let ids = self.candidates(slot).to_vec();
            // The version that would be chosen says whether it is essential, not any other.
            let record = ids.first().map(|id| self.catalog.get(*id));
            let is_so = record.is_some_and(|record| match word {
                "essential" => record.essential,
                "required" => record.required,
                _ => true,
            });
            if is_so && !base.iter().any(|(known, w)| *w == word && *known == ids) {
                base.push((ids, word));
            }
        }
        base
    }

    /// Names of slots, for the solver's own trace.
    pub(in crate::apt) fn slot_name(&self, slot: Slot) -> String {
        let slots = self.slots.borrow();
        slots.all.get(slot.0 as usize).map_or_else(String::new, |data| {
            format!("{}:{}", data.name, self.architectures.get(data.architecture).unwrap_or(&""))
        })
    }
}

/// What a relation asks of a package's architecture.
enum Wanted {
    /// The depending package's own, or a package that serves all.
    Own(Architecture),
    /// `:any`.
    Any,
    /// `:ARCHITECTURE`.
    Exact(Architecture),
}

impl Wanted {
    fn met_by(&self, architecture: Architecture, multi_arch: MultiArch) -> bool {
        match self {
            Self::Own(own) => architecture == *own || multi_arch == MultiArch::Foreign,
            Self::Any => multi_arch == MultiArch::Allowed,
            Self::Exact(exact) => architecture == *exact,
        }
    }
}

/// The package of the catalog that a locked one is.
pub(super) fn find(catalog: &Catalog, locked: &Preferred) -> Option<PackageId> {
    catalog.named(&locked.name).iter().copied().find(|id| {
        let record = catalog.get(*id);
        record.architecture == locked.architecture && record.version == locked.version
    })
}

/// The entries of a package's `Provides` that meet a relation's name and version.
fn provided<'c, 'r>(
    record: &Record<'c>,
    relation: &'r Relation<'_>,
) -> impl Iterator<Item = Relation<'c>> + use<'c, 'r> {
    // A field that cannot be read provides nothing here; who chooses the package is told.
    let all = relation::parse(record.provides).unwrap_or_default();
    all.into_iter().flatten().filter(move |provided| {
        provided.name == relation.name
            && match (relation.version, provided.version) {
                (None, _) => true,
                (Some(_), Some((relation::Operator::Equal, version))) => relation.admits(version),
                (Some(_), _) => false,
            }
    })
}

/// A field of a package, read; the error names package and field.
fn read<'c>(record: &Record<'c>, field: &str, text: &'c str) -> Result<Vec<Vec<Relation<'c>>>> {
    relation::parse(text).doing(|| {
        format!(
            "reading `{field}` of `{}` {} in suite `{}` of `{}`",
            record.name, record.version, record.suite, record.repository
        )
    })
}

impl Constraint {
    /// Whether a version is within it.
    pub fn admits(&self, candidate: &str) -> bool {
        let upstream = version::upstream(candidate);
        match self {
            Self::Exact(wanted) => version::compare(candidate, wanted).is_eq(),
            Self::Upstream(wanted) => upstream == wanted,
            Self::Branch(branch) => upstream
                .strip_prefix(branch.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
            Self::NotLater(bound) => version::compare(candidate, bound).is_le(),
        }
    }
}
