//! Verbs that belong to a later part say so.

use crate::error::{Error, Result};

/// An error with exit code 2 that says what is not built, and what to do instead.
pub fn refuse<T>(verb: &str, instead: &str) -> Result<T> {
    Err(Error::usage(format!("`bedplate {verb}` is not built yet in this version")).hint(instead.to_owned()))
}
