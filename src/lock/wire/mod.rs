//! The lock file as TOML: wire structs, strict reading, and errors with their place.

mod images;
mod packages;

use std::{collections::BTreeMap, ops::Range};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Lock, LockedImage, REVISION, VERSION};
use crate::{
    digest::Digest,
    error::{Error, Result, Snippet},
};

/// Largest lock file that is read, in bytes: some thousand times what a real one needs.
pub const MAX_SIZE: usize = 16 * 1024 * 1024;

/// The requirement variable nearly every CUDA image has; alone, it is written as a plain string.
pub(super) const REQUIRE_CUDA: &str = "NVIDIA_REQUIRE_CUDA";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WireLock {
    #[serde(default)]
    inputs: BTreeMap<String, Digest>,
    #[serde(default)]
    image: BTreeMap<String, images::WireImage>,
}

/// What is wrong with one value, and where.
struct Wrong {
    span: Range<usize>,
    label: String,
}

const TOP: &[&str] = &["version", "revision", "inputs", "image", "repository", "set", "modules", "package"];

/// Reads a lock. `path` is only for messages.
///
/// # Errors
/// Of kind usage: a lock of a newer version ("made by a newer bedplate"), or one that is broken, with the place. A
/// lock of the same version and a higher revision may hold keys unknown here; they are passed over.
pub fn parse(path: &str, text: &str) -> Result<Lock> {
    if text.len() > MAX_SIZE {
        return Err(Error::usage(format!(
            "`{path}` is broken: {} bytes, and a lock has at most {MAX_SIZE}",
            text.len()
        ))
        .hint(repair()));
    }
    let broken = |span: Option<Range<usize>>, label: &str| broken(path, text, span, label);
    if let Some(span) = conflict(text) {
        return Err(Error::usage(format!("`{path}` holds an unresolved merge conflict"))
            .at(Snippet { path: path.to_owned(), text: text.into(), span, label: "begins here".into() })
            .hint("take either side whole (`git checkout --ours` or `--theirs`), then run `bedplate lock`"));
    }
    let mut root = DeTable::parse(text).map_err(|error| broken(error.span(), error.message()))?;
    let version = header(root.get_ref(), "version").map_err(|(span, label)| broken(span, &label))?;
    let Some(version) = version else {
        return Err(broken(Some(0..0), "`version` is missing"));
    };
    if version > VERSION {
        return Err(Error::usage(format!(
            "`{path}` was made by a newer bedplate (lock version {version}, this one reads {VERSION})"
        ))
        .hint("use the bedplate that wrote it, or a newer one"));
    }
    if version < VERSION {
        let span = root.get_ref().get("version").map(Spanned::span);
        return Err(broken(span, "no lock has this version"));
    }
    let revision =
        header(root.get_ref(), "revision").map_err(|(span, label)| broken(span, &label))?.unwrap_or(0);
    // Only a higher revision may know more keys than this one.
    let strict = revision.cmp(&REVISION).is_le();
    let wrong = |wrong: Wrong| broken(Some(wrong.span), &wrong.label);
    if strict && let Some(unknown) = unknown_key(root.get_ref()) {
        return Err(wrong(unknown));
    }
    let packages = packages::read(root.get_mut(), strict).map_err(wrong)?;
    let wire = WireLock::deserialize(toml::Deserializer::from(root))
        .map_err(|error| broken(error.span(), error.message()))?;
    let images = wire
        .image
        .into_iter()
        .map(|(name, image)| Ok((name, LockedImage::try_from(image)?)))
        .collect::<Result<_, Wrong>>()
        .map_err(wrong)?;
    Ok(Lock {
        inputs: wire.inputs,
        images,
        repositories: packages.repositories,
        set: packages.set,
        packages: packages.packages,
        modules: packages.modules,
    })
}

/// The error for a lock that is not text. `path` is only for messages.
pub fn not_text(path: &str, why: &std::str::Utf8Error) -> Error {
    Error::usage(format!("`{path}` is broken: byte {} is not valid UTF-8", why.valid_up_to())).hint(repair())
}

/// The line a version control system begins a conflict with (git-merge(1), "How conflicts are presented").
fn conflict(text: &str) -> Option<Range<usize>> {
    let start = if text.starts_with(CONFLICT) { 0 } else { text.find(&format!("\n{CONFLICT}"))? + 1 };
    let line = text[start..].lines().next().unwrap_or_default().len();
    Some(start..start + line)
}

const CONFLICT: &str = "<<<<<<< ";

fn repair() -> String {
    "take it from version control again, or delete it and run `bedplate lock`".into()
}

fn broken(path: &str, text: &str, span: Option<Range<usize>>, label: &str) -> Error {
    let label = label.lines().next().unwrap_or_default().to_owned();
    let error = Error::usage(format!("`{path}` is broken: {label}")).hint(repair());
    let Some(span) = span else { return error };
    let end = span.end.min(text.len());
    let span = span.start.min(end)..end;
    error.at(Snippet { path: path.to_owned(), text: text.into(), span, label })
}

type Place = (Option<Range<usize>>, String);

fn header(root: &DeTable<'_>, key: &str) -> Result<Option<u32>, Place> {
    let Some(value) = root.get(key) else { return Ok(None) };
    value
        .get_ref()
        .as_integer()
        .and_then(|integer| u32::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok())
        .map(Some)
        .ok_or_else(|| (Some(value.span()), format!("`{key}` is a whole number")))
}

fn unknown_key(root: &DeTable<'_>) -> Option<Wrong> {
    unknown_in(root, TOP).or_else(|| images::unknown(table(root, "image")?))
}

fn table<'t, 'i>(parent: &'t DeTable<'i>, key: &str) -> Option<&'t DeTable<'i>> {
    parent.get(key).and_then(|value| DeValue::as_table(value.get_ref()))
}

fn unknown_in(table: &DeTable<'_>, known: &[&str]) -> Option<Wrong> {
    let (key, _) = table.iter().find(|(key, _)| !known.contains(&key.get_ref().as_ref()))?;
    Some(Wrong { span: key.span(), label: format!("unknown key `{}`", key.get_ref().escape_debug()) })
}
