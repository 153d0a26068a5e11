//! Facts as a file that can be sent to others: what tells who and where a host is, is left out (`docs/decisions/recorded-facts.md`).

mod scrub;
#[cfg(test)]
mod tests;
mod words;

use serde_json::{Map, Value, json};

use self::scrub::Scrub;
pub use self::words::Words;
use super::data::Facts;
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// Version of the form. Another one is refused.
pub const SCHEMA: u64 = 1;
/// The largest file that is read, in bytes. A host with eight GPUs takes about 20 kB.
pub const LIMIT: u64 = 16 << 20;

/// What was read from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The facts.
    pub facts: Facts,
    /// Whether they were gathered for the same profile, lock and deployments: else some of what is asked for was not
    /// looked at, and names stay hidden.
    pub same: bool,
}

/// The text of a file. `host` is the host's own name, which is left out as well.
///
/// # Errors
/// None that a host can cause.
pub fn write(facts: &Facts, words: &Words, host: &str) -> Result<String> {
    let failed = |error| Error::failed("writing the facts as JSON failed").because(error);
    let mut value = serde_json::to_value(facts).map_err(failed)?;
    Scrub::new(words, host).all(&mut value);
    let file = json!({
        "schema": SCHEMA,
        "bedplate": env!("CARGO_PKG_VERSION"),
        "words": words.digest(),
        "asked": words.asked(),
        "facts": value,
    });
    Ok(serde_json::to_string_pretty(&file).map_err(failed)? + "\n")
}

/// Reads a file. `shown` is its name in messages.
///
/// # Errors
/// Usage errors: it is not JSON, not such a file, of another schema, or holds facts that this version does not know.
pub fn read(text: &[u8], words: &Words, shown: &str) -> Result<Recorded> {
    let doing = format!("reading `{shown}`");
    let again = "record it again: `bedplate doctor --record FILE`";
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        Error::usage(format!("{doing}: it is not JSON, or was cut short: {error}")).hint(again)
    })?;
    let Value::Object(mut file) = value else { return Err(not_facts(&doing, "it is not an object")) };
    match file.get("schema").and_then(Value::as_u64) {
        Some(SCHEMA) => {}
        Some(newer) if newer > SCHEMA => {
            return Err(Error::usage(format!(
                "{doing}: it has schema {newer}, made by a newer bedplate; this one reads {SCHEMA}"
            ))
            .hint("use that version to judge it"));
        }
        _ => return Err(not_facts(&doing, "it has no `schema`")),
    }
    let Some(mut facts) = file.remove("facts").filter(Value::is_object) else {
        return Err(not_facts(&doing, "it has no `facts`"));
    };
    words.restore(&mut facts, is_of(&file, "words", &words.digest()));
    let same = is_of(&file, "asked", words.asked());
    let facts = serde_json::from_value(facts).map_err(|error| {
        let by = file.get("bedplate").and_then(Value::as_str).unwrap_or("another version");
        Error::usage(format!("{doing}: this version does not know such facts: {error}")).hint(format!(
            "it was made by bedplate {}: judge it with that version, or {again}",
            by.escape_debug()
        ))
    })?;
    Ok(Recorded { facts, same })
}

fn is_of(file: &Map<String, Value>, key: &str, digest: &Digest) -> bool {
    file.get(key).and_then(Value::as_str) == Some(&digest.to_string())
}

fn not_facts(doing: &str, why: &str) -> Error {
    Error::usage(format!("{doing}: it holds no facts: {why}"))
        .hint("name a file that `bedplate doctor --record FILE` wrote")
}
