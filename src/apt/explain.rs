//! Why there is no closure, as chains that a person can follow.
//!
//! The solver only says that there is none. Here the same relations are followed by hand: first for what is missing,
//! then, if everything is there by itself, for what rules out what.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
};

use super::{
    PackageId,
    closure::{Root, Slot, Universe},
    relation::{Relation, show_any},
};
use crate::error::{Error, Kind};

/// Versions named at most where those that the archives have are listed.
const VERSIONS_SHOWN: usize = 4;

/// A root that cannot be had, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What cannot be had, as the profile wrote it: several roots that rule one another out are joined by `and`.
    pub asked: String,
    /// From the root to what is missing or in the way, one step a line.
    pub chain: Vec<String>,
    /// No archive has this name or this version.
    pub unknown: bool,
    /// Nothing of the profile leads to it: the archives are wrong by themselves.
    pub base: bool,
    /// Names that look like an unknown one.
    pub similar: Vec<String>,
}

/// No set of packages satisfies every relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsatisfied {
    /// One for each root that cannot be had.
    pub failures: Vec<Failure>,
}

impl fmt::Display for Unsatisfied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{} cannot be installed", failure.asked)?;
            for line in &failure.chain {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Unsatisfied {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let mut chain = failure.chain.into_iter().rev();
        let last = chain.next().map(Error::failed);
        let cause = last.map(|last| chain.fold(last, |cause, line| Error::failed(line).because(cause)));
        // What is asked for is not to be had, by its name or with the rest: the profile asks for something else.
        let kind = if failure.base { Kind::Failed } else { Kind::Usage };
        let mut error = Error::new(kind, format!("{} cannot be installed", failure.asked));
        if let Some(cause) = cause {
            error = error.because(cause);
        }
        match failure.similar.as_slice() {
            [] if failure.base => error
                .hint("the archives are broken or do not belong together: use another mirror, `--mirror URL`"),
            [] if failure.unknown => {
                error.hint("check the name, or add the archive that has it as `[[host.repository]]`")
            }
            [] => error.hint(
                "ask for something else: `packages`, `[kernel]`, `[driver]` and `[container]` of the profile say what is asked \
                 for, `[[host.repository]]` where it is looked for besides",
            ),
            similar => {
                let names: Vec<String> = similar.iter().map(|name| format!("`{name}`")).collect();
                error.hint(format!("the archives have {}", names.join(", ")))
            }
        }
    }
}

impl From<Unsatisfied> for Error {
    fn from(unsatisfied: Unsatisfied) -> Self {
        Error::join(unsatisfied.failures.into_iter().map(Error::from))
            .unwrap_or_else(|| Error::failed("the packages cannot be installed together"))
    }
}

/// Explains why the roots have no closure; `solvable` says whether some of them have one.
pub(super) fn explain(
    universe: &Universe<'_>,
    roots: &[Root],
    solvable: &dyn Fn(&[Root]) -> bool,
) -> Unsatisfied {
    if !solvable(&[]) {
        let asked = "what every host of the release has".to_owned();
        let chain = Search::new(universe, &[]).chain();
        let similar = Vec::new();
        return Unsatisfied { failures: vec![Failure { asked, chain, unknown: false, base: true, similar }] };
    }
    let mut failures: Vec<Failure> = Vec::new();
    for root in roots {
        if universe.root(root).is_empty() {
            failures.push(unknown(universe, root));
        } else if !solvable(std::slice::from_ref(root)) {
            failures.push(apart(universe, std::slice::from_ref(root)));
        }
    }
    if failures.is_empty() {
        // Each can be had, but not all: as few as still rule one another out.
        let mut few = roots.to_vec();
        let mut at = 0;
        while at < few.len() {
            let root = few.remove(at);
            if solvable(&few) {
                few.insert(at, root);
                at += 1;
            }
        }
        failures.push(apart(universe, &few));
    }
    failures.dedup();
    Unsatisfied { failures }
}

fn apart(universe: &Universe<'_>, roots: &[Root]) -> Failure {
    let mut shown: Vec<String> = roots.iter().map(|root| format!("`{}`", root.shown)).collect();
    shown.dedup();
    let asked = match shown.as_slice() {
        [one] => one.clone(),
        _ => format!("{} together", shown.join(" and ")),
    };
    let chain = Search::new(universe, roots).chain();
    Failure { asked, chain, unknown: false, base: false, similar: Vec::new() }
}

fn unknown(universe: &Universe<'_>, root: &Root) -> Failure {
    let relation = bare(&root.name);
    let chain = vec![there_is(universe, &relation)];
    let mut similar = Vec::new();
    if universe.catalog.named(&root.name).is_empty() {
        let mut near: Vec<(f64, &str)> = universe
            .catalog
            .names()
            .map(|name| (strsim::jaro_winkler(name, &root.name), name))
            .filter(|(likeness, _)| *likeness > 0.9)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        similar = near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect();
    }
    Failure { asked: format!("`{}`", root.shown), chain, unknown: true, base: false, similar }
}

fn bare(name: &str) -> Relation<'_> {
    Relation { name, qualifier: None, version: None, architectures: Vec::new(), profiles: Vec::new() }
}

/// What the archives have of a name.
fn there_is(universe: &Universe<'_>, relation: &Relation<'_>) -> String {
    let name = relation.name;
    let catalog = universe.catalog;
    let mut have: Vec<String> = Vec::new();
    for id in catalog.named(name) {
        let record = catalog.get(*id);
        let place = if universe.is_foreign(&record) {
            format!("{} ({}, {})", record.version, record.suite, record.architecture)
        } else {
            format!("{} ({})", record.version, record.suite)
        };
        if !have.contains(&place) {
            have.push(place);
        }
    }
    let more = have.len().saturating_sub(VERSIONS_SHOWN);
    have.truncate(VERSIONS_SHOWN);
    if more > 0 {
        have.push(format!("{more} more"));
    }
    match (have.is_empty(), relation.version.is_some(), catalog.providing(name)) {
        (false, ..) => format!("the archives have `{name}` {}", have.join(", ")),
        (true, true, [first, ..]) => {
            let provider = catalog.get(*first);
            format!(
                "`{name}` is a virtual package: the archives have `{}` {}, which provides it as `{}`",
                provider.name, provider.version, provider.provides
            )
        }
        (true, false, [_, ..]) => {
            format!("`{name}` is a virtual package that no package of this host's kind provides")
        }
        (true, _, []) => format!("no archive has `{name}`"),
    }
}

/// A need that is followed: who has it, in what words, and what would do.
struct Need {
    of: Option<PackageId>,
    text: String,
    alternatives: Vec<String>,
    ids: Vec<PackageId>,
}

/// Why a package cannot be had by itself.
struct Bad {
    /// Found in this round: its causes were found in earlier ones.
    need: usize,
}

struct Search<'u, 'c> {
    universe: &'u Universe<'c>,
    roots: Vec<Need>,
    /// The needs of every package within reach, or what is wrong with one of its fields.
    needs: HashMap<PackageId, Result<Vec<Need>, String>>,
    bad: HashMap<PackageId, Bad>,
}

impl<'u, 'c> Search<'u, 'c> {
    fn new(universe: &'u Universe<'c>, roots: &[Root]) -> Self {
        let asked = roots.iter().map(|root| Need {
            of: None,
            text: root.shown.clone(),
            alternatives: vec![root.name.clone()],
            ids: universe.root(root),
        });
        let base = universe.base().into_iter().map(|(ids, _)| {
            let name = ids.first().map_or("", |id| universe.catalog.get(*id).name).to_owned();
            Need { of: None, text: name.clone(), alternatives: vec![name], ids }
        });
        // What was asked for comes first, so that chains begin there.
        let mut search =
            Self { universe, roots: asked.chain(base).collect(), needs: HashMap::new(), bad: HashMap::new() };
        search.reach();
        search.find_bad();
        search
    }

    fn reach(&mut self) {
        let mut queue: VecDeque<PackageId> = self.roots.iter().flat_map(|need| need.ids.clone()).collect();
        while let Some(id) = queue.pop_front() {
            if self.needs.contains_key(&id) {
                continue;
            }
            let read = self.read(id);
            if let Ok(needs) = &read {
                queue.extend(needs.iter().flat_map(|need| need.ids.iter().copied()));
            }
            self.needs.insert(id, read);
        }
    }

    fn read(&self, id: PackageId) -> Result<Vec<Need>, String> {
        let said = |error: Error| {
            let causes: Vec<String> = error.causes();
            format!("{}: {}", error.message(), causes.join(": "))
        };
        self.universe.excludes(id).map_err(said)?;
        let groups = self.universe.needs(id).map_err(said)?;
        Ok(groups
            .into_iter()
            .map(|group| Need {
                of: Some(id),
                text: show_any(&group.alternatives),
                alternatives: group
                    .alternatives
                    .iter()
                    .map(|relation| there_is(self.universe, relation))
                    .collect(),
                ids: group.ids,
            })
            .collect())
    }

    /// Packages that cannot be had whatever else is chosen, in rounds: each by causes of an earlier round.
    fn find_bad(&mut self) {
        loop {
            let mut found: Vec<(PackageId, Bad)> = Vec::new();
            for (id, needs) in &self.needs {
                if self.bad.contains_key(id) {
                    continue;
                }
                let Ok(needs) = needs else {
                    found.push((*id, Bad { need: usize::MAX }));
                    continue;
                };
                let hopeless = |need: &Need| need.ids.iter().all(|id| self.bad.contains_key(id));
                if let Some(need) = needs.iter().position(hopeless) {
                    found.push((*id, Bad { need }));
                }
            }
            if found.is_empty() {
                return;
            }
            self.bad.extend(found);
        }
    }

    fn package(&self, id: PackageId) -> String {
        format!("`{}` {}", self.universe.shown(id), self.universe.catalog.get(id).version)
    }

    fn chain(&self) -> Vec<String> {
        for root in &self.roots {
            if let Some(first) =
                root.ids.first().filter(|_| root.ids.iter().all(|id| self.bad.contains_key(id)))
            {
                return self.missing(*first);
            }
        }
        Clash::new(self).find()
    }

    /// From a package that cannot be had down to what is missing.
    fn missing(&self, from: PackageId) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = Some(from);
        while let Some(id) = next.take() {
            match (self.needs.get(&id), self.bad.get(&id)) {
                (Some(Err(broken)), _) => lines.push(broken.clone()),
                (Some(Ok(needs)), Some(bad)) => {
                    let Some(need) = needs.get(bad.need) else { break };
                    lines.push(format!("{} needs `{}`", self.package(id), need.text));
                    match need.ids.first() {
                        Some(first) => next = Some(*first),
                        None => lines.extend(need.alternatives.iter().cloned()),
                    }
                }
                _ => {}
            }
        }
        lines
    }
}

/// Why a package that can be had by itself is ruled out.
enum Out {
    /// Another package excludes it, in these words.
    By(PackageId, String),
    /// Another version of it is needed.
    Version(PackageId),
}

/// Follows what must be there until something is ruled out. Where there is a choice it takes what is most wanted, so
/// that the chain is one of several; what it says is true of that choice.
struct Clash<'s, 'u, 'c> {
    search: &'s Search<'u, 'c>,
    chosen: HashMap<Slot, PackageId>,
    /// Who needed it, in what words.
    parents: HashMap<PackageId, Option<(PackageId, String)>>,
    out: HashMap<PackageId, Out>,
}

impl<'s, 'u, 'c> Clash<'s, 'u, 'c> {
    fn new(search: &'s Search<'u, 'c>) -> Self {
        Self { search, chosen: HashMap::new(), parents: HashMap::new(), out: HashMap::new() }
    }

    fn find(mut self) -> Vec<String> {
        let search = self.search;
        let mut open: VecDeque<&'s Need> = search.roots.iter().collect();
        let mut choices: VecDeque<&'s Need> = VecDeque::new();
        loop {
            let (need, forced) = match (open.pop_front(), choices.is_empty()) {
                (Some(need), _) => (need, false),
                (None, false) => match self.most_bound(&mut choices) {
                    Some(need) => (need, true),
                    None => break,
                },
                (None, true) => break,
            };
            if need.ids.iter().any(|id| self.parents.contains_key(id)) {
                continue;
            }
            let able: Vec<PackageId> = need.ids.iter().copied().filter(|id| self.is_able(*id)).collect();
            match able.as_slice() {
                [] => return self.dead_end(need),
                [id, rest @ ..] if forced || rest.is_empty() => {
                    if let Some(lines) = self.choose(*id, need) {
                        return lines;
                    }
                    if let Some(Ok(needs)) = search.needs.get(id) {
                        open.extend(needs);
                    }
                    // What was a choice may be none any more.
                    open.extend(choices.drain(..));
                }
                _ => choices.push_back(need),
            }
        }
        vec!["the packages that they need rule one another out".to_owned()]
    }

    fn is_able(&self, id: PackageId) -> bool {
        !self.search.bad.contains_key(&id)
            && !self.out.contains_key(&id)
            && self
                .search
                .universe
                .slot_of(id)
                .is_some_and(|slot| self.chosen.get(&slot).is_none_or(|chosen| *chosen == id))
    }

    /// The choice between versions of one name before others: it is the narrower one.
    fn most_bound(&self, choices: &mut VecDeque<&'s Need>) -> Option<&'s Need> {
        let slots = |need: &Need| {
            let able = need.ids.iter().filter(|id| self.is_able(**id));
            able.filter_map(|id| self.search.universe.slot_of(*id)).collect::<HashSet<_>>().len()
        };
        let at = choices.iter().position(|need| slots(need) <= 1).unwrap_or(0);
        choices.remove(at)
    }

    /// Takes a package; lines if what it rules out is there already.
    fn choose(&mut self, id: PackageId, need: &Need) -> Option<Vec<String>> {
        let universe = self.search.universe;
        self.parents.insert(id, need.of.map(|of| (of, need.text.clone())));
        if let Some(slot) = universe.slot_of(id) {
            self.chosen.insert(slot, id);
            for other in universe.candidates(slot).iter().filter(|other| **other != id) {
                self.out.entry(*other).or_insert(Out::Version(id));
            }
        }
        for exclusion in universe.excludes(id).unwrap_or_default() {
            let words = match &exclusion.relation {
                Some(relation) => format!("`{}: {relation}`", exclusion.field),
                None => format!("`{}`", exclusion.field),
            };
            for hit in exclusion.ids {
                if self.parents.contains_key(&hit) {
                    let mut lines = self.way_to(id);
                    lines.push(format!(
                        "{} cannot be beside {}: {words}",
                        self.search.package(id),
                        self.search.package(hit)
                    ));
                    lines.extend(self.way_to(hit));
                    return Some(lines);
                }
                self.out.entry(hit).or_insert_with(|| Out::By(id, words.clone()));
            }
        }
        None
    }

    /// Nothing that a need could be met with is left.
    fn dead_end(&self, need: &Need) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(of) = need.of {
            lines.extend(self.way_to(of));
            lines.push(format!("{} needs `{}`", self.search.package(of), need.text));
        }
        // What was ruled out says more than what is missing, and what another package rules out more than a version.
        let weight = |id: &PackageId| match self.out.get(id) {
            Some(Out::By(..)) => 0,
            Some(Out::Version(_)) => 1,
            None => 2,
        };
        let Some(told) = need.ids.iter().min_by_key(|id| weight(id)) else {
            lines.extend(need.alternatives.iter().cloned());
            return lines;
        };
        match self.out.get(told) {
            Some(Out::By(other, words)) => {
                lines.push(format!(
                    "{} cannot be beside {}: {words}",
                    self.search.package(*other),
                    self.search.package(*told)
                ));
                lines.extend(self.way_to(*other));
            }
            Some(Out::Version(other)) => {
                lines.push(format!("{} is there already", self.search.package(*other)));
                lines.extend(self.way_to(*other));
            }
            None => lines.extend(self.search.missing(*told)),
        }
        lines
    }

    /// From a root down to a package, without the package's own line.
    fn way_to(&self, id: PackageId) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = id;
        while let Some(Some((parent, words))) = self.parents.get(&next) {
            lines.push(format!("{} needs `{words}`", self.search.package(*parent)));
            next = *parent;
        }
        lines.reverse();
        lines
    }
}
