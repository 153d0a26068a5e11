//! Steps for files, directories and links: take over, repair, give back.

use std::collections::BTreeSet;

use super::{
    record::{Before, OwnedKind, OwnedPath, Record, push_last},
    state::{HostState, PathState, Target},
    step::{Step, Was, ancestors, left_in},
    text,
    wanted::{Group, WantedKind, WantedPath, WantedPaths},
};
use crate::{digest::Digest, error::Error};

/// What planning the paths came to.
#[derive(Default)]
pub(super) struct Paths {
    pub(super) kernel: Vec<Step>,
    pub(super) files: Vec<Step>,
    pub(super) boot: Vec<Step>,
    pub(super) removals: Vec<Step>,
    pub(super) warnings: Vec<String>,
    pub(super) errors: Vec<Error>,
    pub(super) deferred: Vec<(String, String)>,
}

pub(super) struct Planner<'a> {
    pub(super) state: &'a HostState,
    pub(super) wanted: &'a WantedPaths,
    pub(super) prior: &'a Record,
    /// Names of accounts and groups that this plan makes.
    pub(super) coming: &'a BTreeSet<String>,
    pub(super) record: &'a mut Record,
    pub(super) out: Paths,
    done: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        state: &'a HostState,
        wanted: &'a WantedPaths,
        prior: &'a Record,
        coming: &'a BTreeSet<String>,
        record: &'a mut Record,
    ) -> Self {
        record.paths.clone_from(&prior.paths);
        let (out, done, refused) = (Paths::default(), BTreeSet::new(), BTreeSet::new());
        Self { state, wanted, prior, coming, record, out, done, refused }
    }

    /// Makes, and owns while it is wanted, the directory of a file that is not written whole.
    pub(super) fn folder_of(&mut self, path: &str) {
        if self.above(path) {
            self.parents(path, Group::Kernel);
        }
    }

    /// All steps; `gone` are files that other steps remove.
    pub(super) fn run(mut self, gone: BTreeSet<String>) -> Paths {
        let mut order: Vec<(&String, &WantedPath)> = self.wanted.paths.iter().collect();
        order.sort_by_key(|(path, wanted)| (wanted.group, *path));
        for (path, wanted) in order {
            self.want(path, wanted);
        }
        self.give_back(gone);
        self.out
    }

    fn push(&mut self, group: Group, step: Step) {
        match group {
            Group::Kernel => self.out.kernel.push(step),
            Group::Files => self.out.files.push(step),
            Group::Boot => self.out.boot.push(step),
        }
    }

    /// What lies at `path`. A path nobody could look at, for something above it is no directory, is
    /// refused by [`Self::above`] before this matters.
    fn at(&self, path: &str) -> &'a PathState {
        self.state.paths.get(path).unwrap_or(&PathState::Absent)
    }

    fn refuse(&mut self, path: &str, error: Error) {
        if self.refused.insert(path.to_owned()) {
            self.out.errors.push(error);
        }
    }

    /// Whether `path` can be reached through directories alone.
    fn above(&mut self, path: &str) -> bool {
        for above in ancestors(path) {
            match self.at(above) {
                PathState::Link { target } => {
                    self.refuse(
                        above,
                        Error::failed(format!("`{path}` goes through the link `{above}` → `{target}`"))
                            .hint(format!("name the real path in the profile, or replace the link: `readlink -f {above}`")),
                    );
                    return false;
                }
                PathState::File { .. } | PathState::Other => {
                    self.refuse(
                        above,
                        Error::failed(format!("`{above}` is not a directory, and `{path}` needs one there"))
                            .hint(format!("move it away: `mv {above} {above}.old`")),
                    );
                    return false;
                }
                PathState::Absent | PathState::Directory { .. } => {}
            }
        }
        true
    }

    fn want(&mut self, path: &str, wanted: &WantedPath) {
        if !self.done.insert(path.to_owned()) || !self.above(path) {
            return;
        }
        if self.state.accounts.resolve(&wanted.owner).is_none()
            && !wanted.owner.split(':').all(|name| self.comes(name))
        {
            let why = format!("`{}` is not there", wanted.owner);
            if self.state.target == Target::Tree {
                self.out.deferred.push((path.to_owned(), why));
            } else {
                self.refuse(
                    path,
                    Error::failed(format!(
                        "`{path}` shall belong to `{}`, and there is no such user or group",
                        wanted.owner
                    ))
                    .hint("add a `[[user]]` to the profile, or install the package that brings it"),
                );
            }
            return;
        }
        if !matches!(wanted.kind, WantedKind::ModeOnly) {
            self.parents(path, wanted.group);
        }
        match &wanted.kind {
            WantedKind::Mount => self.directory(path, wanted),
            WantedKind::File(content) => self.file(path, wanted, content),
            WantedKind::ModeOnly => self.mode_only(path, wanted),
            WantedKind::Link(target) => self.link(path, wanted, target),
        }
    }

    fn comes(&self, name: &str) -> bool {
        let accounts = &self.state.accounts;
        name.parse::<u32>().is_ok()
            || self.coming.contains(name)
            || accounts.users.contains_key(name)
            || accounts.groups.contains_key(name)
    }

    /// Makes the directories above `path` that are missing, and keeps those bedplate made.
    fn parents(&mut self, path: &str, group: Group) {
        for above in ancestors(path) {
            if let Some(wanted) = self.wanted.paths.get(above) {
                self.want(above, wanted);
                continue;
            }
            if self.wanted.homes.contains(above) || !self.done.insert(above.to_owned()) {
                continue;
            }
            let ours = self.prior.paths.get(above).is_some_and(|owned| owned.kind == OwnedKind::Directory);
            let absent = *self.at(above) == PathState::Absent;
            if absent {
                let (mode, owner) = self
                    .wanted
                    .missing_directories
                    .get(above)
                    .cloned()
                    .unwrap_or_else(|| (0o755, "root:root".to_owned()));
                self.push(group, Step::MakeDirectory { path: above.to_owned(), mode, owner });
            }
            if absent || ours {
                self.own(above, OwnedKind::Directory, Before::Absent, None);
            }
        }
    }

    /// Writes down that `path` is owned; what was there before stays as first seen.
    fn own(&mut self, path: &str, kind: OwnedKind, before: Before, written: Option<Digest>) {
        let owned = self.record.paths.entry(path.to_owned()).or_insert_with(|| OwnedPath {
            kind,
            before,
            written: Vec::new(),
            by_hand: BTreeSet::new(),
            wanted: true,
        });
        owned.kind = kind;
        owned.wanted = true;
        if let Some(digest) = written {
            push_last(&mut owned.written, digest);
        }
    }

    fn wrong_kind(&mut self, path: &str, wanted: &str) {
        let error = match self.at(path) {
            PathState::Link { target } => {
                Error::failed(format!("`{path}` is a link to `{target}`, where {wanted} shall be"))
                    .hint(format!("put what it points to in its place: `mv -T {target} {path}` (`rm {path}` where nothing of it is needed); or name the real path in the profile"))
            }
            PathState::Directory { .. } => {
                Error::failed(format!("`{path}` is a directory, where {wanted} shall be"))
                    .hint(format!("move it away: `mv {path} {path}.old`"))
            }
            _ => Error::failed(format!("`{path}` is there, and is not {wanted}"))
                .hint(format!("move it away: `mv {path} {path}.old`")),
        };
        self.refuse(path, error);
    }

    /// Steps that set mode and owner of something that is there.
    fn adjust(&mut self, path: &str, wanted: &WantedPath, mode: u32, uid: u32, gid: u32) {
        if mode != wanted.mode {
            self.push(wanted.group, Step::SetMode { path: path.to_owned(), from: mode, to: wanted.mode });
        }
        if self.state.accounts.resolve(&wanted.owner) != Some((uid, gid)) {
            let from = self.state.accounts.names(uid, gid);
            self.push(wanted.group, Step::SetOwner { path: path.to_owned(), from, to: wanted.owner.clone() });
        }
    }

    fn directory(&mut self, path: &str, wanted: &WantedPath) {
        match self.at(path) {
            PathState::Absent => {
                let (mode, owner) = (wanted.mode, wanted.owner.clone());
                self.push(wanted.group, Step::MakeDirectory { path: path.to_owned(), mode, owner });
                self.own(path, OwnedKind::Mount, Before::Absent, None);
            }
            PathState::Directory { mode, uid, gid, .. } => {
                self.adjust(path, wanted, *mode, *uid, *gid);
                self.own(path, OwnedKind::Mount, Before::Directory, None);
            }
            _ => self.wrong_kind(path, "a directory"),
        }
    }

    fn file(&mut self, path: &str, wanted: &WantedPath, content: &[u8]) {
        let digest = Digest::of(content);
        let known = self.prior.paths.get(path);
        let (was, old, before) = match self.at(path) {
            PathState::Absent => (Was::Absent, Some(&[][..]), Before::Absent),
            PathState::File { digest: now, content: old, mode, uid, gid } => {
                let before = Before::File { digest: *now, mode: *mode, uid: *uid, gid: *gid };
                if *now == digest {
                    self.adjust(path, wanted, *mode, *uid, *gid);
                    return self.own(path, OwnedKind::File, before, Some(digest));
                }
                let was = match known {
                    None => Was::Foreign,
                    Some(owned) if owned.written.contains(now) => Was::Known,
                    Some(OwnedPath { before: Before::File { digest, .. }, .. }) if digest == now => {
                        Was::Known
                    }
                    Some(_) => Was::ByHand,
                };
                (was, old.as_deref(), before)
            }
            _ => return self.wrong_kind(path, "a file"),
        };
        let now = match &before {
            Before::File { digest, .. } => Some(*digest),
            _ => None,
        };
        self.own(path, OwnedKind::File, before, Some(digest));
        if let (Was::ByHand, Some(now), Some(owned)) = (was, now, self.record.paths.get_mut(path)) {
            owned.by_hand.insert(now);
            self.out.warnings.push(format!(
                "`{path}` was changed by hand; that version is kept as `{}/{}` of the generation",
                super::SAVED,
                now.hex()
            ));
        }
        // What only its owner may read is not for the screen either.
        let private = wanted.mode.trailing_zeros() >= 6;
        let diff = match old {
            Some(old) if !private => text::diff(old, content),
            _ => Vec::new(),
        };
        self.push(
            wanted.group,
            Step::WriteFile {
                path: path.to_owned(),
                content: content.to_vec(),
                digest,
                mode: wanted.mode,
                owner: wanted.owner.clone(),
                was,
                diff,
            },
        );
    }

    fn mode_only(&mut self, path: &str, wanted: &WantedPath) {
        match self.at(path) {
            PathState::Absent => {}
            PathState::File { mode, .. } => {
                if *mode != wanted.mode {
                    let step = Step::SetMode { path: path.to_owned(), from: *mode, to: wanted.mode };
                    self.push(wanted.group, step);
                }
            }
            _ => self.wrong_kind(path, "a private file"),
        }
    }

    fn link(&mut self, path: &str, wanted: &WantedPath, target: &str) {
        let (from, before) = match self.at(path) {
            PathState::Absent => (None, Before::Absent),
            PathState::Link { target: now } => (Some(now.clone()), Before::Link { target: now.clone() }),
            _ => return self.wrong_kind(path, "a link"),
        };
        self.own(path, OwnedKind::Link, before, Some(Digest::of(target)));
        if from.as_deref() != Some(target) {
            let target = target.to_owned();
            self.push(wanted.group, Step::MakeLink { path: path.to_owned(), target, from });
        }
    }

    /// Undoes what earlier generations made and this one does not want.
    fn give_back(&mut self, mut gone: BTreeSet<String>) {
        for (path, owned) in self.prior.paths.iter().rev() {
            if self.record.paths.get(path).is_some_and(|owned| owned.wanted) {
                continue;
            }
            if ancestors(path).iter().any(|above| {
                matches!(self.at(above), PathState::Link { .. } | PathState::File { .. } | PathState::Other)
            }) {
                self.out
                    .warnings
                    .push(format!("`{path}` can only be reached through a link now: left as it is"));
                continue;
            }
            if self.wanted.paths.contains_key(path) {
                continue; // refused or deferred
            }
            let before = self.out.removals.len();
            match owned.kind {
                OwnedKind::File => self.give_back_file(path, owned),
                OwnedKind::Link => self.give_back_link(path, owned),
                OwnedKind::Mount => {
                    if *self.at(path) != PathState::Absent {
                        self.out.warnings.push(format!(
                            "`{path}` is no longer in the profile; it holds state and stays as it is"
                        ));
                    }
                }
                OwnedKind::Directory => {
                    if let PathState::Directory { names: Some(names), .. } = self.at(path) {
                        if left_in(path, names, &gone) == 0 {
                            self.out.removals.push(Step::RemoveDirectory { path: path.clone() });
                        } else {
                            self.out.warnings.push(format!("`{path}` is not empty: left as it is"));
                        }
                    }
                }
            }
            if let Some(Step::RemoveFile { path } | Step::RemoveDirectory { path }) =
                self.out.removals[before..].last()
            {
                gone.insert(path.clone());
            }
        }
    }

    fn give_back_file(&mut self, path: &str, owned: &OwnedPath) {
        let PathState::File { digest: now, mode, uid, gid, .. } = self.at(path) else {
            if *self.at(path) != PathState::Absent {
                self.out.warnings.push(format!("`{path}` is no file any more: left as it is"));
            }
            return;
        };
        let path = path.to_owned();
        match &owned.before {
            Before::File { digest, mode: old_mode, uid: old_uid, gid: old_gid } => {
                if digest == now {
                    // Not written yet, put back already, or taken over as it was.
                    if owned.written.contains(now) && (mode, uid, gid) != (old_mode, old_uid, old_gid) {
                        let (digest, mode, uid, gid) = (*digest, *old_mode, *old_uid, *old_gid);
                        self.out.removals.push(Step::RestoreFile { path, digest, mode, uid, gid });
                    }
                } else if owned.written.contains(now) {
                    let (digest, mode, uid, gid) = (*digest, *old_mode, *old_uid, *old_gid);
                    self.out.removals.push(Step::RestoreFile { path, digest, mode, uid, gid });
                } else {
                    self.left(&path);
                }
            }
            _ if owned.written.contains(now) => self.out.removals.push(Step::RemoveFile { path }),
            _ => self.left(&path),
        }
    }

    fn give_back_link(&mut self, path: &str, owned: &OwnedPath) {
        let PathState::Link { target: now } = self.at(path) else { return };
        let path = path.to_owned();
        if !owned.written.contains(&Digest::of(now)) {
            if owned.before != (Before::Link { target: now.clone() }) {
                self.left(&path);
            }
            return;
        }
        match &owned.before {
            Before::Link { target } if target == now => {}
            Before::Link { target } => {
                let step = Step::MakeLink { path, target: target.clone(), from: Some(now.clone()) };
                self.out.removals.push(step);
            }
            _ => self.out.removals.push(Step::RemoveFile { path }),
        }
    }

    fn left(&mut self, path: &str) {
        self.out.warnings.push(format!(
            "`{path}` is no longer in the profile and was changed by hand: left as it is, and no longer managed"
        ));
    }
}
