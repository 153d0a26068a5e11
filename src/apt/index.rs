//! One index (`Packages`), read once and kept in a form that is ready for use: all texts in one block, and what
//! lies where in a table of fixed width. It is written to the cache as it is, so that a hot run decompresses and
//! parses nothing.

use super::{
    catalog::{MultiArch, Record},
    control::{self, Item},
};
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// Version of the kept form. Another one is made anew.
pub(crate) const FORMAT: u32 = 1;
const MAGIC: &[u8; 12] = b"bedplate-apt";
/// Texts of a record, in the order of [`Wanted`].
const TEXTS: usize = 11;
/// Bytes of an entry: where its texts begin, their lengths, size, digest, flags.
const ENTRY: usize = 4 + TEXTS * 4 + 8 + 32 + 4;
/// Bytes of a provided name: where it is in the texts, its length, its record.
const PROVIDED: usize = 12;
/// Bytes of the trailer: magic, format, records, provided names, length of the texts, digest.
const TRAILER: usize = 12 + 4 + 4 + 4 + 8 + 32;

const ESSENTIAL: u32 = 1;
const REQUIRED: u32 = 2;
const MULTI_ARCH: u32 = 4;

/// The packages of one index, sorted by name; those of one name in the order of the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    text: String,
    entries: Vec<u8>,
    provided: Vec<u8>,
}

/// Fields that are kept, in the order of their texts.
#[derive(Clone, Copy)]
enum Wanted {
    Name,
    Version,
    Architecture,
    Source,
    PreDepends,
    Depends,
    Recommends,
    Conflicts,
    Breaks,
    Provides,
    Path,
}

/// What a field is to a record.
enum Known {
    Text(Wanted),
    Size,
    Sha256,
    Weak,
    Essential,
    Priority,
    MultiArch,
}

/// By length first: of the twenty-odd fields of a stanza most are told apart by it.
fn known(name: &[u8]) -> Option<Known> {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match name.len() {
        4 if is(b"Size") => Some(Known::Size),
        4 if is(b"SHA1") => Some(Known::Weak),
        6 if is(b"SHA256") => Some(Known::Sha256),
        6 if is(b"MD5sum") => Some(Known::Weak),
        6 if is(b"Source") => Some(Known::Text(Wanted::Source)),
        6 if is(b"Breaks") => Some(Known::Text(Wanted::Breaks)),
        7 if is(b"Package") => Some(Known::Text(Wanted::Name)),
        7 if is(b"Version") => Some(Known::Text(Wanted::Version)),
        7 if is(b"Depends") => Some(Known::Text(Wanted::Depends)),
        8 if is(b"Filename") => Some(Known::Text(Wanted::Path)),
        8 if is(b"Provides") => Some(Known::Text(Wanted::Provides)),
        8 if is(b"Priority") => Some(Known::Priority),
        9 if is(b"Essential") => Some(Known::Essential),
        9 if is(b"Conflicts") => Some(Known::Text(Wanted::Conflicts)),
        10 if is(b"Multi-Arch") => Some(Known::MultiArch),
        10 if is(b"Recommends") => Some(Known::Text(Wanted::Recommends)),
        11 if is(b"Pre-Depends") => Some(Known::Text(Wanted::PreDepends)),
        12 if is(b"Architecture") => Some(Known::Text(Wanted::Architecture)),
        _ => None,
    }
}

/// A stanza's fields, as slices of the text.
#[derive(Default)]
struct Stanza<'t> {
    texts: [Option<&'t [u8]>; TEXTS],
    size: Option<&'t [u8]>,
    sha256: Option<&'t [u8]>,
    weak: bool,
    essential: bool,
    required: bool,
    multi_arch: MultiArch,
}

impl Index {
    /// Reads the text of an index. `place` names it in errors.
    ///
    /// # Errors
    /// What is no control data; a stanza without name, version, architecture, path, size or SHA-256, or with a bad
    /// one; a field that stands twice.
    pub(crate) fn parse(place: &str, text: &[u8]) -> Result<Self> {
        let mut making = Making { place, text: String::with_capacity(text.len() / 3), rows: Vec::new() };
        let mut reader = control::Reader::new(text);
        let mut stanza = Stanza::default();
        loop {
            match reader.next() {
                Err(bad) => {
                    return Err(broken(place, &format!("line {} is no control data: {}", bad.line, bad.why)));
                }
                Ok(None) => return Ok(making.finish()),
                Ok(Some(Item::End)) => making.add(&std::mem::take(&mut stanza))?,
                Ok(Some(Item::Field(name, value))) => {
                    let twice = match known(name) {
                        None => false,
                        Some(Known::Text(wanted)) => stanza.texts[wanted as usize].replace(value).is_some(),
                        Some(Known::Size) => stanza.size.replace(value).is_some(),
                        Some(Known::Sha256) => stanza.sha256.replace(value).is_some(),
                        Some(Known::Weak) => {
                            stanza.weak = true;
                            false
                        }
                        Some(Known::Essential) => {
                            stanza.essential = value.eq_ignore_ascii_case(b"yes");
                            false
                        }
                        Some(Known::Priority) => {
                            stanza.required = value.eq_ignore_ascii_case(b"required");
                            false
                        }
                        Some(Known::MultiArch) => {
                            stanza.multi_arch = match value {
                                b"same" => MultiArch::Same,
                                b"foreign" => MultiArch::Foreign,
                                b"allowed" => MultiArch::Allowed,
                                _ => MultiArch::No,
                            };
                            false
                        }
                    };
                    if twice {
                        let (package, field) = (shown(stanza.texts[0]), String::from_utf8_lossy(name));
                        return Err(broken(
                            place,
                            &format!("package `{package}` has the field `{field}` twice"),
                        ));
                    }
                }
            }
        }
    }

    /// How many packages there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// How many names are provided by them, repetitions counted.
    pub(crate) fn provided_len(&self) -> usize {
        self.provided.len() / PROVIDED
    }

    /// The name of the package at `at`.
    pub(crate) fn name(&self, at: usize) -> &str {
        let entry = self.entry(at);
        let start = number(entry, 0);
        self.text.get(start..start + number(entry, 4)).unwrap_or_default()
    }

    /// A provided name and the place of the package that provides it; sorted by name.
    pub(crate) fn provided(&self, at: usize) -> (&str, usize) {
        let row = self.provided.get(at * PROVIDED..(at + 1) * PROVIDED).unwrap_or_default();
        let start = number(row, 0);
        (self.text.get(start..start + number(row, 4)).unwrap_or_default(), number(row, 8))
    }

    fn entry(&self, at: usize) -> &[u8] {
        self.entries.get(at * ENTRY..(at + 1) * ENTRY).unwrap_or_default()
    }

    /// The package at `at`, of that repository and suite.
    pub(crate) fn record<'c>(
        &'c self,
        at: usize,
        repository: &'c str,
        suite: &'c str,
        priority: u16,
    ) -> Record<'c> {
        let entry = self.entry(at);
        let mut start = number(entry, 0);
        let mut texts = [""; TEXTS];
        for (index, text) in texts.iter_mut().enumerate() {
            let end = start + number(entry, 4 + index * 4);
            *text = self.text.get(start..end).unwrap_or_default();
            start = end;
        }
        let rest = entry.get(4 + TEXTS * 4..).unwrap_or_default();
        let size = rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let sha256 = rest.get(8..).and_then(<[u8]>::first_chunk).map_or([0; 32], |bytes| *bytes);
        let flags = number(rest, 40) as u32;
        let [
            name,
            version,
            architecture,
            source,
            pre_depends,
            depends,
            recommends,
            conflicts,
            breaks,
            provides,
            path,
        ] = texts;
        Record {
            repository,
            suite,
            priority,
            name,
            version,
            architecture,
            multi_arch: match flags / MULTI_ARCH {
                1 => MultiArch::Same,
                2 => MultiArch::Foreign,
                3 => MultiArch::Allowed,
                _ => MultiArch::No,
            },
            essential: flags & ESSENTIAL != 0,
            required: flags & REQUIRED != 0,
            source: if source.is_empty() { name } else { source },
            pre_depends,
            depends,
            recommends,
            conflicts,
            breaks,
            provides,
            path,
            size,
            sha256: Digest::from_bytes(sha256),
        }
    }

    /// The kept form.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(self.text.len() + self.entries.len() + self.provided.len() + TRAILER);
        bytes.extend_from_slice(self.text.as_bytes());
        bytes.extend_from_slice(&self.entries);
        bytes.extend_from_slice(&self.provided);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(self.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.provided_len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.text.len() as u64).to_le_bytes());
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// Reads the kept form. `None`: it is of another format, cut short or changed.
    pub(crate) fn from_bytes(mut bytes: Vec<u8>) -> Option<Self> {
        let body = bytes.len().checked_sub(TRAILER)?;
        let checked = bytes.len() - 32;
        if bytes.get(checked..)? != Digest::of(bytes.get(..checked)?).as_bytes() {
            return None;
        }
        let trailer = bytes.get(body..)?;
        if trailer.get(..12)? != MAGIC || number(trailer, 12) != FORMAT as usize {
            return None;
        }
        let entries = number(trailer, 16).checked_mul(ENTRY)?;
        let provided = number(trailer, 20).checked_mul(PROVIDED)?;
        let text = usize::try_from(u64::from_le_bytes(*trailer.get(24..)?.first_chunk()?)).ok()?;
        if text.checked_add(entries)?.checked_add(provided)? != body {
            return None;
        }
        bytes.truncate(body);
        let provided = bytes.split_off(text + entries);
        let entries = bytes.split_off(text);
        let index = Self { text: String::from_utf8(bytes).ok()?, entries, provided };
        index.is_whole().then_some(index)
    }

    /// Whether every place lies within the texts.
    fn is_whole(&self) -> bool {
        let count = self.len();
        self.entries.chunks_exact(ENTRY).all(|entry| {
            let lengths = (0..TEXTS).map(|index| number(entry, 4 + index * 4)).sum::<usize>();
            number(entry, 0) + lengths <= self.text.len()
        }) && self
            .provided
            .chunks_exact(PROVIDED)
            .all(|row| number(row, 0) + number(row, 4) <= self.text.len() && number(row, 8) < count)
    }
}

/// The number of 32 bits at `at`.
fn number(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

fn shown(name: Option<&[u8]>) -> String {
    name.map_or_else(|| "?".to_owned(), |name| String::from_utf8_lossy(name).escape_debug().to_string())
}

fn broken(place: &str, why: &str) -> Error {
    Error::failed(format!("the index {place} is broken: {why}"))
        .hint("tell the archive's owner, or use another mirror")
}

/// A record while the index is read.
struct Row {
    start: u32,
    lengths: [u32; TEXTS],
    size: u64,
    sha256: [u8; 32],
    flags: u32,
}

struct Making<'p> {
    place: &'p str,
    text: String,
    rows: Vec<Row>,
}

impl Making<'_> {
    fn add(&mut self, stanza: &Stanza<'_>) -> Result<()> {
        let name = stanza.texts[Wanted::Name as usize];
        let bad = |why: &str| broken(self.place, &format!("package `{}` {why}", shown(name)));
        let Some(name) = name else {
            return Err(broken(
                self.place,
                &format!("its stanza number {} has no `Package`", self.rows.len() + 1),
            ));
        };
        let good = name.first().is_some_and(u8::is_ascii_alphanumeric)
            && name.iter().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(b));
        if !good {
            return Err(bad("has no good name in its `Package`"));
        }
        for (wanted, field) in
            [(Wanted::Version, "Version"), (Wanted::Architecture, "Architecture"), (Wanted::Path, "Filename")]
        {
            if stanza.texts[wanted as usize].is_none_or(<[u8]>::is_empty) {
                return Err(bad(&format!("has no `{field}`")));
            }
        }
        let version = stanza.texts[Wanted::Version as usize].unwrap_or_default();
        if let Err(why) = check_version(version) {
            let version = String::from_utf8_lossy(version);
            return Err(bad(&format!("has the bad `Version` `{}`: {why}", version.escape_debug())));
        }
        let architecture = stanza.texts[Wanted::Architecture as usize].unwrap_or_default();
        if !architecture.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
            return Err(bad("has a bad `Architecture`"));
        }
        let path = stanza.texts[Wanted::Path as usize].unwrap_or_default();
        let Some(path) = good_path(path) else {
            let path = String::from_utf8_lossy(path);
            return Err(bad(&format!(
                "has a `Filename` that leads out of the archive: `{}`",
                path.escape_debug()
            )));
        };
        let size = stanza.size.ok_or_else(|| bad("has no `Size`"))?;
        let size = std::str::from_utf8(size)
            .ok()
            .filter(|size| size.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|size| size.parse::<u64>().ok())
            .ok_or_else(|| bad("has a `Size` that is no number"))?;
        let Some(digits) = stanza.sha256 else {
            return Err(bad(if stanza.weak {
                "has only weak hashes (MD5, SHA-1), and no `SHA256`"
            } else {
                "has no `SHA256`"
            }));
        };
        let sha256 = sha256(digits).ok_or_else(|| bad("has a `SHA256` that is not 64 hexadecimal digits"))?;
        let multi_arch = match stanza.multi_arch {
            MultiArch::No => 0,
            MultiArch::Same => 1,
            MultiArch::Foreign => 2,
            MultiArch::Allowed => 3,
        };
        let mut row = Row {
            start: self.text.len() as u32,
            lengths: [0; TEXTS],
            size,
            sha256,
            flags: u32::from(stanza.essential) * ESSENTIAL
                + u32::from(stanza.required) * REQUIRED
                + multi_arch * MULTI_ARCH,
        };
        for (index, value) in stanza.texts.iter().enumerate() {
            let before = self.text.len();
            let Some(value) = value else { continue };
            if index == Wanted::Path as usize {
                self.text.push_str(path);
            } else if index == Wanted::Source as usize {
                // `Source: NAME (VERSION)`; the package's own name is not kept twice.
                let end = value.iter().position(|b| matches!(b, b' ' | b'(' | b'\t')).unwrap_or(value.len());
                let source = value.get(..end).filter(|source| *source != name).unwrap_or_default();
                self.text.push_str(std::str::from_utf8(source).unwrap_or_default());
            } else {
                let value = control::folded(value).ok_or_else(|| bad("has a field that is not UTF-8"))?;
                self.text.push_str(&value);
            }
            row.lengths[index] = (self.text.len() - before) as u32;
        }
        if self.text.len() > u32::MAX as usize {
            return Err(broken(self.place, "it is too large"));
        }
        self.rows.push(row);
        Ok(())
    }

    fn finish(self) -> Index {
        let Self { text, mut rows, .. } = self;
        let name = |row: &Row| {
            let start = row.start as usize;
            text.get(start..start + row.lengths[0] as usize).unwrap_or_default()
        };
        // Stable, so that of one name the file's order stays.
        rows.sort_by(|one, other| name(one).cmp(name(other)));
        let mut entries = Vec::with_capacity(rows.len() * ENTRY);
        let mut provided: Vec<(&str, u32, u32)> = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            entries.extend_from_slice(&row.start.to_le_bytes());
            for length in row.lengths {
                entries.extend_from_slice(&length.to_le_bytes());
            }
            entries.extend_from_slice(&row.size.to_le_bytes());
            entries.extend_from_slice(&row.sha256);
            entries.extend_from_slice(&row.flags.to_le_bytes());
            let before: u32 = row.lengths.iter().take(Wanted::Provides as usize).sum();
            let start = (row.start + before) as usize;
            let end = start + row.lengths[Wanted::Provides as usize] as usize;
            let mut from = start;
            for part in text.get(start..end).unwrap_or_default().split(',') {
                let skipped = part.len() - part.trim_start().len();
                let part_start = from + skipped;
                from += part.len() + 1;
                let part = part.trim_start();
                let end = part.find([' ', '(', ':', '\t']).unwrap_or(part.len());
                if let Some(provided_name) = part.get(..end).filter(|name| !name.is_empty()) {
                    provided.push((provided_name, part_start as u32, at as u32));
                }
            }
        }
        provided.sort_by(|one, other| one.0.cmp(other.0));
        // `a (= 1), a (= 2)`: the package provides the name once.
        provided.dedup_by(|one, other| one.0 == other.0 && one.2 == other.2);
        let mut rows = Vec::with_capacity(provided.len() * PROVIDED);
        for (name, start, at) in provided {
            for number in [start, name.len() as u32, at] {
                rows.extend_from_slice(&number.to_le_bytes());
            }
        }
        Index { entries, provided: rows, text }
    }
}

/// Debian Policy 5.6.12: what may stand in a version.
fn check_version(version: &[u8]) -> std::result::Result<(), String> {
    let rest = match version.iter().position(|b| *b == b':') {
        Some(colon) => {
            let (epoch, rest) = version.split_at(colon);
            if epoch.is_empty() || epoch.len() > 9 || !epoch.iter().all(u8::is_ascii_digit) {
                return Err("its epoch is no number".to_owned());
            }
            rest.get(1..).unwrap_or_default()
        }
        None => version,
    };
    let (upstream, revision) = match rest.iter().rposition(|b| *b == b'-') {
        Some(dash) => (rest.get(..dash).unwrap_or_default(), rest.get(dash + 1..)),
        None => (rest, None),
    };
    if !upstream.first().is_some_and(u8::is_ascii_alphanumeric) {
        return Err("its upstream part begins with no letter or digit".to_owned());
    }
    if revision.is_some_and(<[u8]>::is_empty) {
        return Err("its revision is empty".to_owned());
    }
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b".+-:~".contains(b);
    match rest.iter().find(|b| !fits(b)) {
        Some(bad) => Err(format!("`{}` may not stand in it", char::from(*bad).escape_debug())),
        None => Ok(()),
    }
}

/// A path below the archive's base, without a leading `./`. `None`: it leads elsewhere.
fn good_path(path: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.trim_start_matches("./");
    let good = !path.is_empty()
        && !path.starts_with('/')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path.chars().all(|c| !c.is_control() && c != '\\');
    good.then_some(path)
}

/// The bytes of 64 hexadecimal digits.
pub(crate) fn sha256(digits: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
