//! Whether the set says what follows from the rest of its lock.

use super::{built, facts, judge, kernel};
use crate::{
    digest::Digest,
    error::{Error, Result, Snippet},
    lock::{Builds, Lock, PackageSet, modules},
    profile::Profile,
};

/// A field of `[set]` that is not what follows from the rest of the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The table it is in.
    pub table: &'static str,
    /// Its key.
    pub field: &'static str,
    /// What the set says; `None`: nothing.
    pub said: Option<String>,
    /// What follows; `None`: it should not be there.
    pub follows: Option<String>,
    /// What it follows from, for people.
    from: &'static str,
}

/// What the set says that does not follow from the rest of the lock: somebody edited it.
///
/// - Kernel, driver, firmware, Fabric Manager, toolkit and engine follow from the packages alone, so they are held
///   against them always, whatever table the lock was made with.
/// - `builds` also follows from the profile's patches and the table of pairs. The lock has the digests of both. Where it
///   is `fresh` they are those of today, and there is one answer. Where it is not, the answer may be another for good
///   reasons (a table that grew says `yes` where an older one said `untried`), and nothing is held against it: a stale
///   lock is refused for being stale, and `bedplate lock` judges it anew.
/// - `because` is words for people, which name what the archives had that day. It decides nothing.
pub fn contradictions(profile: &Profile, lock: &Lock, fresh: bool) -> Vec<Contradiction> {
    let none = PackageSet::default();
    let said = lock.set.as_ref().unwrap_or(&none);
    let mut follows = facts(&lock.packages);
    if fresh {
        judge(&mut follows, profile, kernel(&lock.packages).as_ref(), None);
        if lock.modules.is_some() {
            built(&mut follows, profile);
        }
    } else {
        follows.builds = said.builds;
    }
    let builds = |set: &PackageSet| set.builds.map(Builds::name).map(str::to_owned);
    let packages = "by its packages";
    let said_modules = lock.modules.as_ref().map(|modules| modules.inputs);
    // Of a lock that is not fresh they may be of patches that were changed since.
    let made_of = said_modules.and_then(|said| {
        if fresh { modules::inputs(profile, &lock.packages, &lock.inputs) } else { Some(said) }
    });
    let modules = |inputs: Option<Digest>| inputs.map(|inputs| inputs.to_string());
    [
        ("kernel", said.kernel.clone(), follows.kernel.clone(), packages),
        ("driver", said.driver.clone(), follows.driver.clone(), packages),
        ("firmware", said.firmware.clone(), follows.firmware.clone(), packages),
        ("fabric-manager", said.fabric_manager.clone(), follows.fabric_manager.clone(), packages),
        ("toolkit", said.toolkit.clone(), follows.toolkit.clone(), packages),
        ("engine", said.engine.clone(), follows.engine.clone(), packages),
        ("builds", builds(said), builds(&follows), "by its packages, the profile and the table of pairs"),
        ("inputs", modules(said_modules), modules(made_of), "by its packages and the profile's patches"),
    ]
    .into_iter()
    .filter(|(_, said, follows, _)| said != follows)
    .map(|(field, said, follows, from)| {
        let table = if field == "inputs" { "modules" } else { "set" };
        Contradiction { table, field, said, follows, from }
    })
    .collect()
}

/// The error of kind usage for a lock that does not agree with itself, with the place of each field; `path` and `text`
/// are the lock's.
///
/// # Errors
/// There is a contradiction.
pub fn refuse(found: &[Contradiction], path: &str, text: &str) -> Result<()> {
    let errors = found.iter().map(|one| {
        let says = match &one.said {
            Some(said) => format!("`[{}]` has `{} = \"{}\"`", one.table, one.field, said.escape_debug()),
            None => format!("`[{}]` has no `{}`", one.table, one.field),
        };
        let follows = match &one.follows {
            Some(follows) => format!("it is \"{follows}\""),
            None => "there is none".to_owned(),
        };
        let error = Error::usage(format!(
            "`{path}` does not agree with itself: {says}, and {} {follows}",
            one.from
        ))
        .hint("a lock is not edited: run `bedplate lock`, which judges the set anew, and review what `--diff` shows");
        match place(text, one.table, one.field) {
            Some(span) => error.at(Snippet {
                path: path.to_owned(),
                text: text.into(),
                span,
                label: format!("{} {follows}", one.from),
            }),
            None => error,
        }
    });
    Error::join(errors).map_or(Ok(()), Err)
}

/// The line of a field in its table, else the table's own.
fn place(text: &str, table: &str, field: &str) -> Option<std::ops::Range<usize>> {
    let header = format!("[{table}]");
    let mut at = 0;
    let mut table = None;
    for line in text.split_inclusive('\n') {
        let span = at..at + line.trim_end().len();
        at += line.len();
        let line = line.trim();
        match &table {
            None if line == header => table = Some(span),
            Some(_) if line.starts_with('[') => break,
            Some(_) if line.split_once('=').is_some_and(|(key, _)| key.trim() == field) => return Some(span),
            _ => {}
        }
    }
    table
}
