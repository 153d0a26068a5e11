//! Why a pull failed: what its words stand for, told apart by facts of this host.

use std::sync::Arc;

use super::{Context, subject, subject::Held};
use crate::{
    check::diagnosis::{self, Seen},
    error::Error,
    lock::bundle::Pinned,
    system::files::Root,
};

/// What Docker's errors of a pull begin with; other steps say themselves what they lack.
const PULL: &str = "pulling `";

/// The error of a step; of a pull with the cause that evidence shows, or what would decide between those that remain. Facts are
/// gathered only for words that are known.
pub async fn named(context: &Context, root: &Arc<Root>, pinned: &Pinned, error: Error) -> Error {
    let mut lines = vec![error.message().to_owned()];
    lines.extend(error.causes());
    let seen = Seen { lines: &lines, ..Seen::default() };
    let pulls = lines.iter().any(|line| line.starts_with(PULL));
    if !root.is_host() || !pulls || diagnosis::symptom(&seen).is_none() {
        return error;
    }
    let held = Held::of_pinned(pinned.clone());
    // Without a subject the error alone must do.
    let Ok(subject) = held.subject(context, None) else { return error };
    let facts = subject::gather(context, &subject.wanted, &subject::sources(context, root)).await;
    let Some(found) = diagnosis::diagnose(&subject, &facts, seen) else { return error };
    let error = error.hint(format!("{} (`bedplate explain {}`)", found.says(), found.symptom));
    match found.next() {
        Some(next) => error.hint(next),
        None => error,
    }
}
