//! The canonical writer: the same lock always gives the same bytes.
//!
//! Tables are sorted by name, keys stand in one fixed order, a string is always a basic string, an absent value is
//! left out, and no line depends on anything but the lock.

use std::fmt::Write as _;

use toml_writer::{ToTomlKey as _, ToTomlValue as _, TomlKeyBuilder, TomlStringBuilder};

use super::{
    ImageFacts, Lock, LockedImage, LockedModules, LockedPackage, LockedRepository, PackageSet, REVISION,
    VERSION, wire::REQUIRE_CUDA,
};
use crate::digest::Digest;

const HEADER: &str = "# Written by `bedplate lock` from the profile of the same name. Not edited by hand.\n";

/// The canonical text of a lock. [`super::parse`] gives the same lock back.
pub fn write(lock: &Lock) -> String {
    let revision = if lock.modules.is_some() { REVISION } else { REVISION - 1 };
    let mut out = format!("{HEADER}version = {VERSION}\nrevision = {revision}\n\n[inputs]\n");
    for (name, digest) in &lock.inputs {
        line(&mut out, &key(name), &digest_text(digest));
    }
    for (name, image) in &lock.images {
        write_image(&mut out, &key(name), image);
    }
    for (name, repository) in &lock.repositories {
        write_repository(&mut out, &key(name), repository);
    }
    if let Some(set) = &lock.set {
        write_set(&mut out, set);
    }
    if let Some(modules) = &lock.modules {
        write_modules(&mut out, modules);
    }
    for package in &lock.packages {
        write_package(&mut out, package);
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
        list(out, name, words);
    }
    if let Some(user) = &facts.user {
        line(out, "user", &text(user));
    }
}

fn write_repository(out: &mut String, name: &str, repository: &LockedRepository) {
    // The suites' own tables say that it is there.
    if repository.snapshot.is_some() || repository.suites.is_empty() {
        let _ = writeln!(out, "\n[repository.{name}]");
    }
    if let Some(snapshot) = &repository.snapshot {
        line(out, "snapshot", &text(snapshot));
    }
    for (suite, verified) in &repository.suites {
        let _ = writeln!(out, "\n[repository.{name}.suite.{}]", key(suite));
        line(out, "release", &digest_text(&verified.release));
        line(out, "date", &text(&verified.date));
        list(out, "signed-by", &verified.signed_by);
    }
}

fn write_set(out: &mut String, set: &PackageSet) {
    out.push_str("\n[set]\n");
    let builds = set.builds.map(|builds| builds.name().to_owned());
    for (name, value) in [
        ("kernel", &set.kernel),
        ("driver", &set.driver),
        ("firmware", &set.firmware),
        ("fabric-manager", &set.fabric_manager),
        ("toolkit", &set.toolkit),
        ("engine", &set.engine),
        ("builds", &builds),
        ("because", &set.because),
    ] {
        if let Some(value) = value {
            line(out, name, &text(value));
        }
    }
}

fn write_package(out: &mut String, package: &LockedPackage) {
    out.push_str("\n[[package]]\n");
    line(out, "repository", &text(&package.repository));
    write_name(out, package);
    line(out, "path", &text(&package.path));
    list(out, "depends", &package.depends);
    list(out, "wanted-by", &package.wanted_by);
}

fn write_modules(out: &mut String, modules: &LockedModules) {
    out.push_str("\n[modules]\n");
    line(out, "inputs", &digest_text(&modules.inputs));
    write_name(out, &modules.package);
    list(out, "depends", &modules.package.depends);
}

fn write_name(out: &mut String, package: &LockedPackage) {
    line(out, "name", &text(&package.name));
    line(out, "version", &text(&package.version));
    line(out, "architecture", &text(&package.architecture));
    line(out, "sha256", &text(&package.sha256.hex()));
    line(out, "size", &package.size.to_string());
}

/// A list on one line; left out where it is empty.
fn list(out: &mut String, key: &str, values: &[String]) {
    if !values.is_empty() {
        let values: Vec<String> = values.iter().map(|value| text(value)).collect();
        line(out, key, &format!("[{}]", values.join(", ")));
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
