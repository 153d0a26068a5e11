//! The canonical writer: the same lock always gives the same bytes.
//!
//! Tables are sorted by name, keys stand in one fixed order, a string is always a basic string, an absent value is
//! left out, and no line depends on anything but the lock.

use std::fmt::Write as _;

use toml_writer::{ToTomlKey as _, ToTomlValue as _, TomlKeyBuilder, TomlStringBuilder};

use super::{ImageFacts, Lock, LockedImage, REVISION, VERSION, wire::REQUIRE_CUDA};
use crate::digest::Digest;

const HEADER: &str = "# Written by `bedplate lock` from the profile of the same name. Not edited by hand.\n";

/// The canonical text of a lock. [`super::parse`] gives the same lock back.
pub fn write(lock: &Lock) -> String {
    let mut out = format!("{HEADER}version = {VERSION}\nrevision = {REVISION}\n\n[inputs]\n");
    for (name, digest) in &lock.inputs {
        line(&mut out, &key(name), &digest_text(digest));
    }
    for (name, image) in &lock.images {
        write_image(&mut out, &key(name), image);
    }
    out
}

impl Lock {
    /// The digest of the canonical text: names this lock whatever its file's comments or line ends.
    pub fn digest(&self) -> Digest {
        Digest::of(write(self))
    }
}

fn write_image(out: &mut String, name: &str, image: &LockedImage) {
    let _ = writeln!(out, "\n[image.{name}]");
    line(out, "reference", &text(&image.reference));
    line(out, "platform", &text(&image.platform));
    if let Some(index) = &image.index {
        line(out, "index", &digest_text(index));
    }
    line(out, "manifest", &digest_text(&image.manifest));
    line(out, "config", &digest_text(&image.config));
    line(out, "download", &image.download.to_string());
    let layers: Vec<String> = image.layers.iter().map(digest_text).collect();
    if layers.is_empty() {
        line(out, "layers", "[]");
    } else {
        // One a line: a changed layer is one changed line in a review.
        line(out, "layers", &format!("[\n    {},\n]", layers.join(",\n    ")));
    }
    write_facts(out, name, &image.facts);
    let _ = writeln!(out, "\n[image.{name}.verdict]");
    line(out, "outcome", &text(image.verdict.outcome.name()));
    line(out, "because", &text(&image.verdict.because));
}

fn write_facts(out: &mut String, name: &str, facts: &ImageFacts) {
    let _ = writeln!(out, "\n[image.{name}.facts]");
    if let Some(cuda) = &facts.cuda {
        line(out, "cuda", &text(cuda));
    }
    match facts.require.get(REQUIRE_CUDA) {
        Some(require) if facts.require.len() == 1 => line(out, "require", &text(require)),
        _ if facts.require.is_empty() => {}
        _ => {
            let variables: Vec<String> = facts
                .require
                .iter()
                .map(|(name, value)| format!("{} = {}", key(name), text(value)))
                .collect();
            line(out, "require", &format!("{{ {} }}", variables.join(", ")));
        }
    }
    if facts.disable_require {
        line(out, "disable-require", "true");
    }
    for (name, words) in [("entrypoint", &facts.entrypoint), ("command", &facts.command)] {
        if !words.is_empty() {
            let words: Vec<String> = words.iter().map(|word| text(word)).collect();
            line(out, name, &format!("[{}]", words.join(", ")));
        }
    }
    if let Some(user) = &facts.user {
        line(out, "user", &text(user));
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key} = {value}");
}

fn key(name: &str) -> String {
    let builder = TomlKeyBuilder::new(name);
    builder.as_unquoted().unwrap_or_else(|| builder.as_basic()).to_toml_key()
}

fn text(value: &str) -> String {
    TomlStringBuilder::new(value).as_basic().to_toml_value()
}

fn digest_text(digest: &Digest) -> String {
    format!("\"{digest}\"")
}
