//! Verbs that belong to a later part say so.

use crate::error::{Error, Result};

/// An error with exit code 2 that says what is not built, and what to do instead.
pub fn refuse<T>(verb: &str, instead: &str) -> Result<T> {
    Err(Error::usage(format!("not in this version yet: `bedplate {verb}`")).hint(instead.to_owned()))
}
