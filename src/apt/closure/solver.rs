//! The universe put before `resolvo`: slots are its names, relations become lists of what satisfies them.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt::Display,
};

use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Problem, Requirement, SolvableId, Solver, SolverCache, StringId,
    UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
};

use super::{Root, Slot, Universe};
use crate::apt::PackageId;

/// The solver's name of a slot. Its names are dense: slots have the even ones, stand-ins the odd ones.
fn slot_name(slot: Slot) -> NameId {
    NameId::from_raw(slot.0 * 2)
}

/// The solver's name of the stand-in for "not this recommended package".
fn stand_in_name(number: u32) -> NameId {
    NameId::from_raw(number * 2 + 1)
}

/// The closure of the roots and the base, in the order of the catalog; `None` if there is none.
pub(super) fn solve(universe: &Universe<'_>, roots: &[Root], recommends: bool) -> Option<Vec<PackageId>> {
    let provider = Provider::new(universe, recommends);
    let mut requirements = Vec::new();
    let wanted = universe.base().into_iter().map(|(ids, _)| ids);
    for ids in wanted.chain(roots.iter().map(|root| universe.root(root))) {
        requirements.push(provider.requirement(&ids)?);
    }
    let mut solver = Solver::new(provider);
    match solver.solve(Problem::new().requirements(requirements)) {
        Ok(chosen) => {
            let first_stand_in = solver.provider().first_stand_in;
            let mut ids: Vec<PackageId> = chosen
                .into_iter()
                .map(SolvableId::into_raw)
                .filter(|raw| *raw < first_stand_in)
                .map(PackageId)
                .collect();
            ids.sort_unstable();
            Some(ids)
        }
        // Nothing here cancels.
        Err(UnsolvableOrCancelled::Unsolvable(_) | UnsolvableOrCancelled::Cancelled(_)) => None,
    }
}

/// Packages of one name: `only` these of its candidates, or all but these.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set {
    name: NameId,
    ids: Vec<u32>,
    only: bool,
}

#[derive(Default)]
struct Sets {
    all: Vec<Set>,
    known: HashMap<Set, VersionSetId>,
    unions: Vec<Vec<VersionSetId>>,
    known_unions: HashMap<Vec<VersionSetId>, VersionSetUnionId>,
}

struct Provider<'u, 'c> {
    universe: &'u Universe<'c>,
    recommends: bool,
    sets: RefCell<Sets>,
    first_stand_in: u32,
    stand_ins: Cell<u32>,
}

impl<'u, 'c> Provider<'u, 'c> {
    fn new(universe: &'u Universe<'c>, recommends: bool) -> Self {
        let last = universe.catalog.iter().map(|(id, _)| id.0).max();
        Self {
            universe,
            recommends,
            sets: RefCell::default(),
            first_stand_in: last.map_or(0, |id| id + 1),
            stand_ins: Cell::new(0),
        }
    }

    fn set(&self, set: Set) -> VersionSetId {
        let mut sets = self.sets.borrow_mut();
        if let Some(id) = sets.known.get(&set) {
            return *id;
        }
        let id = VersionSetId(sets.all.len() as u32);
        sets.all.push(set.clone());
        sets.known.insert(set, id);
        id
    }

    /// One set a slot, in the order in which the slots come.
    fn by_slot(&self, ids: &[PackageId], only: bool) -> Vec<VersionSetId> {
        let mut slots: Vec<(Slot, Vec<u32>)> = Vec::new();
        for id in ids {
            let Some(slot) = self.universe.slot_of(*id) else { continue };
            match slots.iter_mut().find(|(known, _)| *known == slot) {
                Some((_, ids)) => ids.push(id.0),
                None => slots.push((slot, vec![id.0])),
            }
        }
        slots
            .into_iter()
            .map(|(slot, mut ids)| {
                ids.sort_unstable();
                self.set(Set { name: slot_name(slot), ids, only })
            })
            .collect()
    }

    /// Any of these packages; `None` if there are none.
    fn requirement(&self, ids: &[PackageId]) -> Option<ConditionalRequirement> {
        self.any_of(self.by_slot(ids, true))
    }

    fn any_of(&self, sets: Vec<VersionSetId>) -> Option<ConditionalRequirement> {
        let requirement = match sets.as_slice() {
            [] => return None,
            [one] => Requirement::Single(*one),
            _ => {
                let mut known = self.sets.borrow_mut();
                let id = if let Some(id) = known.known_unions.get(&sets) {
                    *id
                } else {
                    let id = VersionSetUnionId(known.unions.len() as u32);
                    known.unions.push(sets.clone());
                    known.known_unions.insert(sets, id);
                    id
                };
                Requirement::Union(id)
            }
        };
        Some(ConditionalRequirement { condition: None, requirement })
    }

    /// Any of these packages, or, as the last choice, nothing: a stand-in of its own.
    fn if_possible(&self, ids: &[PackageId]) -> Option<ConditionalRequirement> {
        let mut sets = self.by_slot(ids, true);
        if sets.is_empty() {
            return None;
        }
        let number = self.stand_ins.replace(self.stand_ins.get() + 1);
        let ids = vec![self.first_stand_in + number];
        sets.push(self.set(Set { name: stand_in_name(number), ids, only: true }));
        self.any_of(sets)
    }

    /// What a package needs and rules out; `None` if it cannot be had at all: a field cannot be read, or nothing
    /// satisfies one of its relations.
    fn known(&self, id: PackageId) -> Option<KnownDependencies> {
        let mut known = KnownDependencies::default();
        for group in self.universe.needs(id).ok()? {
            if !group.ids.contains(&id) {
                known.requirements.push(self.requirement(&group.ids)?);
            }
        }
        if self.recommends {
            for group in self.universe.recommends(id).ok()? {
                if !group.ids.contains(&id) {
                    known.requirements.extend(self.if_possible(&group.ids));
                }
            }
        }
        for exclusion in self.universe.excludes(id).ok()? {
            known.constrains.extend(self.by_slot(&exclusion.ids, false));
        }
        Some(known)
    }

    fn with_set<T>(&self, id: VersionSetId, read: impl FnOnce(&Set) -> T) -> Option<T> {
        self.sets.borrow().all.get(id.0 as usize).map(read)
    }
}

impl Interner for Provider<'_, '_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        let id = PackageId(solvable.into_raw());
        if id.0 >= self.first_stand_in { "nothing".to_owned() } else { self.universe.shown(id) }
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.universe.slot_name(Slot(name.into_raw() / 2))
    }

    fn display_version_set(&self, _: VersionSetId) -> impl Display + '_ {
        ""
    }

    fn display_string(&self, _: StringId) -> impl Display + '_ {
        "cannot be had"
    }

    fn version_set_name(&self, set: VersionSetId) -> NameId {
        // Every set is one that was given out.
        self.with_set(set, |set| set.name).unwrap_or_else(|| slot_name(Slot(0)))
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        let raw = solvable.into_raw();
        if raw >= self.first_stand_in {
            return stand_in_name(raw - self.first_stand_in);
        }
        // The solver knows candidates alone, and each has a slot.
        slot_name(self.universe.slot_of(PackageId(raw)).unwrap_or(Slot(0)))
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.sets.borrow().unions.get(union.0 as usize).cloned().unwrap_or_default().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        // Conditions are never made.
        Condition::Requirement(VersionSetId(0))
    }
}

impl DependencyProvider for Provider<'_, '_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let within = |set: &Set| {
            let holds = |c: &SolvableId| set.ids.binary_search(&c.into_raw()).is_ok() == set.only;
            candidates.iter().copied().filter(|c| holds(c) != inverse).collect()
        };
        self.with_set(set, within).unwrap_or_default()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates<SolvableId>> {
        let raw = name.into_raw();
        let candidates = if raw % 2 == 1 {
            vec![SolvableId::from_raw(self.first_stand_in + raw / 2)]
        } else {
            self.universe.candidates(Slot(raw / 2)).iter().map(|id| SolvableId::from_raw(id.0)).collect()
        };
        Some(Candidates { candidates, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        solvables.sort_by_cached_key(|solvable| self.universe.rank(PackageId(solvable.into_raw())));
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let raw = solvable.into_raw();
        if raw >= self.first_stand_in {
            return Dependencies::Known(KnownDependencies::default());
        }
        self.known(PackageId(raw)).map_or(Dependencies::Unknown(StringId(0)), Dependencies::Known)
    }
}
