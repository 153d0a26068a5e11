//! Archives, the set and packages in the lock file.
//!
//! Read by hand, not by serde: hundreds of packages, each value with its place, in one pass.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    super::{
        Builds, LockedModules, LockedPackage, LockedRepository, LockedSuite, PackageSet, modules::BUILT,
        names,
    },
    Wrong, unknown_in,
};
use crate::digest::Digest;

/// What a lock says of packages.
#[derive(Default)]
pub(super) struct Read {
    pub(super) repositories: BTreeMap<String, LockedRepository>,
    pub(super) set: Option<PackageSet>,
    pub(super) packages: Vec<LockedPackage>,
    pub(super) modules: Option<LockedModules>,
}

const REPOSITORY: &[&str] = &["snapshot", "suite"];
const SUITE: &[&str] = &["release", "date", "signed-by"];
const SET: &[&str] =
    &["kernel", "driver", "firmware", "fabric-manager", "toolkit", "engine", "builds", "because"];
const PACKAGE: &[&str] =
    &["repository", "name", "version", "architecture", "sha256", "size", "path", "depends", "wanted-by"];

const MODULES: &[&str] = &["inputs", "name", "version", "architecture", "sha256", "size", "depends"];

/// Words of `wanted-by`.
const WORDS: &[&str] = &["apt", "container", "driver", "essential", "kernel", "packages", "required"];

/// Takes what a lock says of packages out of it.
pub(super) fn read(root: &mut DeTable<'_>, strict: bool) -> Result<Read, Wrong> {
    let mut read = Read::default();
    if let Some(value) = root.remove("repository") {
        for (name, value) in table(&value, "repository")? {
            let table = Fields::of(value, "a repository", strict, REPOSITORY)?;
            if !names::is_repository(name.get_ref()) {
                return Err(wrong(name.span(), "a repository's name is letters, digits, `.`, `_` and `-`"));
            }
            read.repositories.insert(name.get_ref().to_string(), repository(&table)?);
        }
    }
    if let Some(value) = root.remove("set") {
        read.set = Some(set(&Fields::of(&value, "`set`", strict, SET)?)?);
    }
    if let Some(value) = root.remove("package") {
        let Some(list) = value.get_ref().as_array() else {
            return Err(wrong(value.span(), "packages are tables: `[[package]]`"));
        };
        read.packages.reserve(list.len());
        for value in list {
            let fields = Fields::of(value, "a package", strict, PACKAGE)?;
            let one = package(&fields, &read.repositories)?;
            if let Some(last) = read.packages.last() {
                order(last, &one, &fields)?;
            }
            read.packages.push(one);
        }
        dependencies(&read.packages, list.iter())?;
    }
    if let Some(value) = root.remove("modules") {
        let modules = modules(&Fields::of(&value, "`modules`", strict, MODULES)?)?;
        if let Some(package) = read.packages.iter().find(|package| package.name == modules.package.name) {
            return Err(wrong(value.span(), &format!("package `{}` is there twice", package.name)));
        }
        let with = [read.packages.as_slice(), std::slice::from_ref(&modules.package)].concat();
        dependencies(&with, std::iter::repeat_n(&value, with.len()))?;
        read.modules = Some(modules);
    }
    Ok(read)
}

fn repository(fields: &Fields<'_, '_>) -> Result<LockedRepository, Wrong> {
    let mut read = LockedRepository::default();
    if let Some((snapshot, span)) = fields.maybe("snapshot")? {
        if snapshot.is_empty() || !snapshot.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(wrong(span, "a snapshot is a time such as `20261121T091500Z`"));
        }
        read.snapshot = Some(snapshot.to_owned());
    }
    let Some(suites) = fields.table.get("suite") else { return Ok(read) };
    for (name, value) in table(suites, "suite")? {
        let fields = Fields::of(value, "a suite", fields.strict, SUITE)?;
        if !names::is_suite(name.get_ref()) {
            return Err(wrong(name.span(), "this is not the name of a suite"));
        }
        read.suites.insert(name.get_ref().to_string(), suite(&fields)?);
    }
    Ok(read)
}

fn suite(fields: &Fields<'_, '_>) -> Result<LockedSuite, Wrong> {
    let (release, span) = fields.text("release")?;
    let release = release.parse::<Digest>().map_err(|error| wrong(span, error.message()))?;
    let (date, span) = fields.text("date")?;
    if !date.parse::<jiff::Timestamp>().is_ok_and(|read| read.to_string() == date) {
        return Err(wrong(span, "a date is RFC 3339 in UTC, such as `2026-11-21T09:15:00Z`"));
    }
    let signed_by = fields.texts("signed-by")?;
    for (key, span) in &signed_by {
        let hex = key.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        if !hex || !matches!(key.len(), 40 | 64) {
            return Err(wrong(span.clone(), "a fingerprint is 40 or 64 uppercase hexadecimal digits"));
        }
    }
    sorted(&signed_by)?;
    if signed_by.is_empty() {
        return Err(wrong(fields.span.clone(), "`signed-by` names no key"));
    }
    Ok(LockedSuite { release, date: date.to_owned(), signed_by: owned(&signed_by) })
}

fn set(fields: &Fields<'_, '_>) -> Result<PackageSet, Wrong> {
    let text = |key| Ok(fields.maybe(key)?.map(|(value, _)| value.to_owned()));
    let builds = match fields.maybe("builds")? {
        None => None,
        Some((word, span)) => {
            let all = [Builds::Yes, Builds::Patched, Builds::No, Builds::Untried];
            let found = all.into_iter().find(|builds| builds.name() == word);
            Some(found.ok_or_else(|| {
                wrong(span, "`builds` is `\"yes\"`, `\"patched\"`, `\"no\"` or `\"untried\"`")
            })?)
        }
    };
    Ok(PackageSet {
        kernel: text("kernel")?,
        driver: text("driver")?,
        firmware: text("firmware")?,
        fabric_manager: text("fabric-manager")?,
        toolkit: text("toolkit")?,
        engine: text("engine")?,
        builds,
        because: text("because")?,
    })
}

fn modules(fields: &Fields<'_, '_>) -> Result<LockedModules, Wrong> {
    let (inputs, span) = fields.text("inputs")?;
    let inputs = inputs.parse::<Digest>().map_err(|error| wrong(span, error.message()))?;
    let mut package = built(fields)?;
    BUILT.clone_into(&mut package.repository);
    package.path = package.file_name();
    package.wanted_by = vec!["driver".to_owned()];
    Ok(LockedModules { inputs, package })
}

fn package(
    fields: &Fields<'_, '_>,
    repositories: &BTreeMap<String, LockedRepository>,
) -> Result<LockedPackage, Wrong> {
    let (repository, span) = fields.text("repository")?;
    if !repositories.contains_key(repository) {
        return Err(wrong(span, &format!("the lock has no repository `{}`", repository.escape_debug())));
    }
    let path = fields.checked("path", names::is_path, "a path lies below the archive's base address")?;
    let wanted_by = fields.texts("wanted-by")?;
    sorted(&wanted_by)?;
    if let Some((word, span)) = wanted_by.iter().find(|(word, _)| fields.strict && !WORDS.contains(word)) {
        return Err(wrong(
            span.clone(),
            &format!("`{}` is not a reason: they are {}", word.escape_debug(), WORDS.join(", ")),
        ));
    }
    Ok(LockedPackage {
        repository: repository.to_owned(),
        path: path.to_owned(),
        wanted_by: owned(&wanted_by),
        ..built(fields)?
    })
}

/// What is said of a package, wherever it comes from.
fn built(fields: &Fields<'_, '_>) -> Result<LockedPackage, Wrong> {
    let name = fields.checked("name", names::is_package, "this is not the name of a package")?;
    let version = fields.checked("version", names::is_version, "this is not a version")?;
    let architecture =
        fields.checked("architecture", names::is_architecture, "this is not an architecture")?;
    let (sha256, span) = fields.text("sha256")?;
    let sha256 = format!("sha256:{sha256}")
        .parse::<Digest>()
        .map_err(|_| wrong(span, "`sha256` is 64 lowercase hexadecimal digits"))?;
    let size = fields.number("size")?;
    let depends = fields.texts("depends")?;
    sorted(&depends)?;
    Ok(LockedPackage {
        repository: String::new(),
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: architecture.to_owned(),
        sha256,
        size,
        path: String::new(),
        depends: owned(&depends),
        wanted_by: Vec::new(),
    })
}

/// Read stand in the order of their names, then architectures, each once.
fn order(last: &LockedPackage, one: &LockedPackage, fields: &Fields<'_, '_>) -> Result<(), Wrong> {
    let key = |package: &LockedPackage| (package.name.clone(), package.architecture.clone());
    if last.name < one.name {
        return Ok(());
    }
    let (_, span) = fields.text("name")?;
    match key(last).cmp(&key(one)) {
        std::cmp::Ordering::Less => Ok(()),
        std::cmp::Ordering::Equal => {
            Err(wrong(span, &format!("package `{}` {} is there twice", one.name, one.architecture)))
        }
        std::cmp::Ordering::Greater => {
            Err(wrong(span, &format!("packages are sorted: `{}` stands after `{}`", one.name, last.name)))
        }
    }
}

/// What a package depends on is in the lock.
fn dependencies<'t, 'i: 't>(
    packages: &[LockedPackage],
    tables: impl Iterator<Item = &'t Spanned<DeValue<'i>>>,
) -> Result<(), Wrong> {
    let names: HashSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let foreign: HashSet<(&str, &str)> =
        packages.iter().map(|p| (p.name.as_str(), p.architecture.as_str())).collect();
    let known = |needed: &str| match needed.split_once(':') {
        None => names.contains(needed),
        Some(both) => foreign.contains(&both),
    };
    for (package, table) in packages.iter().zip(tables) {
        let Some(at) = package.depends.iter().position(|needed| !known(needed)) else { continue };
        let list = table.get_ref().get("depends").and_then(|list| list.get_ref().as_array());
        let span = list.and_then(|list| list.get(at)).map_or_else(|| table.span(), Spanned::span);
        return Err(wrong(
            span,
            &format!(
                "the lock has no package `{}`, which `{}` depends on",
                package.depends[at].escape_debug(),
                package.name
            ),
        ));
    }
    Ok(())
}

fn wrong(span: Range<usize>, label: &str) -> Wrong {
    Wrong { span, label: label.to_owned() }
}

fn owned(texts: &[(&str, Range<usize>)]) -> Vec<String> {
    texts.iter().map(|(text, _)| (*text).to_owned()).collect()
}

fn sorted(texts: &[(&str, Range<usize>)]) -> Result<(), Wrong> {
    match texts.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        Some(pair) => Err(wrong(pair[1].1.clone(), "the list is sorted, and nothing in it is there twice")),
        None => Ok(()),
    }
}

type Table<'i> = DeTable<'i>;
type Entry<'t, 'i> = (&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>);

fn table<'t, 'i>(
    value: &'t Spanned<DeValue<'i>>,
    what: &str,
) -> Result<impl Iterator<Item = Entry<'t, 'i>>, Wrong> {
    match value.get_ref().as_table() {
        Some(table) => Ok(table.iter()),
        None => Err(wrong(value.span(), &format!("`{what}` is a table"))),
    }
}

/// The keys of one table.
struct Fields<'t, 'i> {
    table: &'t Table<'i>,
    span: Range<usize>,
    what: &'static str,
    strict: bool,
}

impl<'t, 'i> Fields<'t, 'i> {
    fn of(
        value: &'t Spanned<DeValue<'i>>,
        what: &'static str,
        strict: bool,
        known: &[&str],
    ) -> Result<Self, Wrong> {
        let Some(table) = value.get_ref().as_table() else {
            return Err(wrong(value.span(), &format!("{what} is a table")));
        };
        match unknown_in(table, known) {
            Some(unknown) if strict => Err(unknown),
            _ => Ok(Self { table, span: value.span(), what, strict }),
        }
    }

    fn maybe(&self, key: &str) -> Result<Option<(&'t str, Range<usize>)>, Wrong> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some((text, value.span()))),
            None => Err(wrong(value.span(), &format!("`{key}` is a string"))),
        }
    }

    fn text(&self, key: &str) -> Result<(&'t str, Range<usize>), Wrong> {
        self.maybe(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Wrong {
        wrong(self.span.clone(), &format!("{} has no `{key}`", self.what))
    }

    fn checked(&self, key: &str, good: fn(&str) -> bool, label: &str) -> Result<&'t str, Wrong> {
        let (text, span) = self.text(key)?;
        if good(text) { Ok(text) } else { Err(wrong(span, label)) }
    }

    fn texts(&self, key: &str) -> Result<Vec<(&'t str, Range<usize>)>, Wrong> {
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let Some(list) = value.get_ref().as_array() else {
            return Err(wrong(value.span(), &format!("`{key}` is a list of strings")));
        };
        list.iter()
            .map(|value| match value.get_ref().as_str() {
                Some(text) => Ok((text, value.span())),
                None => Err(wrong(value.span(), &format!("`{key}` is a list of strings"))),
            })
            .collect()
    }

    fn number(&self, key: &str) -> Result<u64, Wrong> {
        let value = self.table.get(key).ok_or_else(|| self.missing(key))?;
        let number = value.get_ref().as_integer().filter(|integer| integer.radix() == 10);
        number
            .and_then(|integer| integer.as_str().replace('_', "").parse::<i64>().ok())
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| wrong(value.span(), &format!("`{key}` is a whole number of bytes")))
    }
}
