//! Recorded exceptions: `[checks] accept`, id to reason.

use super::registry::registry;
use crate::{
    error::{Error, Result},
    profile::Profile,
};

/// Refuses exceptions for checks that do not exist, and reasons that say nothing.
///
/// # Errors
/// A usage error for each, with the nearest id there is.
pub fn validate(profile: &Profile) -> Result<()> {
    let errors = profile.checks.accept.iter().filter_map(|(id, reason)| {
        if !is_id(id) {
            return Some(unknown_id(id, "`[checks] accept` names a check that does not exist:"));
        }
        reason.trim().is_empty().then(|| {
            Error::usage(format!("`[checks] accept` gives no reason for `{id}`"))
                .hint(format!("write why it may stay: `accept = {{ \"{id}\" = \"…\" }}`"))
        })
    });
    Error::join(errors).map_or(Ok(()), Err)
}

/// Whether there is a check with this id.
pub(super) fn is_id(id: &str) -> bool {
    registry().iter().any(|check| check.id == id)
}

/// The error for an id that is none, naming the nearest one.
pub(super) fn unknown_id(id: &str, what: &str) -> Error {
    unknown(id, what, registry().iter().map(|check| check.id))
}

/// The error for an id that is none of these, naming the nearest one.
pub(super) fn unknown(id: &str, what: &str, ids: impl Iterator<Item = &'static str>) -> Error {
    let nearest = ids
        .map(|known| (strsim::damerau_levenshtein(known, id), known))
        .min()
        .filter(|(distance, _)| *distance <= id.chars().count().max(4) / 2);
    let error = Error::usage(format!("{what} `{}`", id.escape_debug()));
    match nearest {
        Some((_, known)) => error.hint(format!("did you mean `{known}`?")),
        None => error.hint("`bedplate explain` lists every check"),
    }
}
