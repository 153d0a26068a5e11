//! Two root trees side by side: what differs, where, and whose it is.
//!
//! Serves `build --verify-twice`, which compares what two builds made, and `verify`, which holds an image against one
//! built again. Contents are read as streams, several at once, and hashed only where they differ.

use std::{
    cmp::Ordering as Order,
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::Serialize;

use super::{
    owners::owners,
    tree::{Entry, Kind, Tree},
};
use crate::{
    digest::{Digest, Hasher},
    error::{Error, Result},
    system::files::{Owner, failure, format_mode},
};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// A file with a zero byte among so many first bytes is not text, as Git judges it.
const TEXT_JUDGED: u64 = 8000;
/// Most bytes of a differing line that are shown, and how many of them stand before the first that differs.
const SHOWN: usize = 160;
const SHOWN_BEFORE: u64 = 60;
/// Most bytes of an extended attribute that are shown.
const ATTRIBUTE_SHOWN: usize = 32;

/// Who writes paths that no package has, for a difference to point at: the start of a path, and the step.
const STEPS: [(&str, &str); 15] = [
    ("boot/initrd.img", "the initramfs (`update-initramfs`)"),
    ("etc/group", "accounts made by scripts of packages, or users of the profile"),
    ("etc/gshadow", "accounts made by scripts of packages, or users of the profile"),
    ("etc/ld.so.cache", "the linker's cache (`ldconfig`)"),
    ("etc/machine-id", "normalising"),
    ("etc/passwd", "accounts made by scripts of packages, or users of the profile"),
    ("etc/shadow", "accounts made by scripts of packages, or users of the profile"),
    ("etc/ssl/certs", "certificates (`update-ca-certificates`)"),
    ("etc/systemd/system", "units enabled by scripts of packages"),
    ("usr/lib/bedplate", "the image's record"),
    ("usr/lib/modules", "driver modules and their index (`depmod`)"),
    ("usr/lib/udev/hwdb.bin", "the hardware database (`systemd-hwdb`)"),
    ("var/cache/debconf", "debconf's database"),
    ("var/lib/dpkg", "dpkg's database"),
    ("var/log", "logs that normalising empties"),
];

/// One thing that differs at one path. Text form: one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The path as the image sees it, from `/` on.
    pub path: String,
    /// What differs.
    pub what: What,
    /// What it is in the first tree, as text; absent where nothing is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<String>,
    /// What it is in the second tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs: Option<String>,
    /// Of contents: where they part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The package that has the path in its list of files. Absent: none has, or it is a directory of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The step of a build that writes such a path, where no package has it and the step is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'static str>,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// What it is: a file, a directory, a link. Nothing else is compared then.
    Kind,
    /// Permission bits, four octal digits.
    Mode,
    /// User and group, as numbers.
    Owner,
    /// Time of the last change.
    Time,
    /// Bytes of a file.
    Size,
    /// Content of a file: digests.
    Content,
    /// What a link says, which file a hard link is a name of, which device.
    Target,
    /// Extended attributes: those that differ.
    Xattrs,
}

impl What {
    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Kind => "kind",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Time => "time",
            Self::Size => "size",
            Self::Content => "content",
            Self::Target => "target",
            Self::Xattrs => "xattrs",
        }
    }
}

/// Where two contents part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Offset of the first byte that differs, from 0 on; the shorter file's size where it is the start of the other.
    pub byte: u64,
    /// The line it is in, where both are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<Line>,
}

/// The first line that differs. Control characters are escaped, a long line is cut around what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number, from 1 on.
    pub number: u64,
    /// The line of the first tree.
    pub ours: String,
    /// The line of the second tree.
    pub theirs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` differs: {}", self.path.escape_debug(), self.what.name())?;
        match (&self.ours, &self.theirs) {
            (Some(ours), Some(theirs)) => write!(f, " {ours} and {theirs}")?,
            (Some(only), None) | (None, Some(only)) => write!(f, ", {only}")?,
            (None, None) => {}
        }
        match &self.place {
            Some(Place { line: Some(Line { number, ours, theirs }), .. }) => {
                write!(f, "; line {number} is `{ours}` and `{theirs}`")?;
            }
            Some(Place { byte, line: None }) => write!(f, "; from byte {byte} on")?,
            None => {}
        }
        match (&self.package, self.step) {
            (Some(package), _) => write!(f, "; package {package} has it"),
            (None, Some(step)) => write!(f, "; written by {step}"),
            (None, None) => write!(f, "; no package has it"),
        }
    }
}

/// What differs between two trees, in the order of paths. Contents are compared `threads` at once.
///
/// # Errors
/// A content or one of dpkg's lists cannot be read, or changed meanwhile.
pub fn compare(ours: &Tree, theirs: &Tree, threads: usize) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    let (mut left, mut right) = (ours.entries().iter().peekable(), theirs.entries().iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => Order::Less,
            (None, Some(_)) => Order::Greater,
            (Some(a), Some(b)) => a.path.as_bytes().cmp(b.path.as_bytes()),
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        match (a, b) {
            (Some(a), Some(b)) => {
                entries(a, b, &mut found);
                if matches!((&a.kind, &b.kind), (Kind::File { .. }, Kind::File { .. })) {
                    files.push((a, b));
                }
            }
            (Some(a), None) => found.push((&*a.path, What::Removed, Some(described(a)), None, None)),
            (None, Some(b)) => found.push((&*b.path, What::Added, None, Some(described(b)), None)),
            (None, None) => break,
        }
    }
    found.extend(contents(ours, theirs, &files, threads)?);
    found.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()).then(a.1.cmp(&b.1)));
    let paths: BTreeSet<&str> = found.iter().map(|found| found.0).collect();
    let mut packages = owners(theirs.root(), &paths)?;
    packages.extend(owners(ours.root(), &paths)?);
    Ok(found
        .into_iter()
        .map(|(path, what, ours, theirs, place)| {
            let package = packages.get(path).cloned();
            let step = if package.is_none() { step(path) } else { None };
            Difference { path: format!("/{path}"), what, ours, theirs, place, package, step }
        })
        .collect())
}

/// The error of `build --verify-twice`: the first difference, and how many more there are. `None`: none is there.
pub fn error(differences: &[Difference]) -> Option<Error> {
    let first = differences.first()?;
    let paths: BTreeSet<&str> = differences.iter().map(|difference| &*difference.path).collect();
    let more = match paths.len() - 1 {
        0 => String::new(),
        1 => "; one more path differs".to_owned(),
        more => format!("; {more} more paths differ"),
    };
    Some(Error::check(format!("two builds of the same lock are not the same: {first}{more}")))
}

/// Path, what, both values, and where contents part.
type Found<'t> = (&'t str, What, Option<String>, Option<String>, Option<Place>);

/// All but the contents of two entries of one path.
fn entries<'t>(a: &'t Entry, b: &Entry, found: &mut Vec<Found<'t>>) {
    let mut differ = |what: What, ours: String, theirs: String| {
        found.push((&*a.path, what, Some(ours), Some(theirs), None));
    };
    if std::mem::discriminant(&a.kind) != std::mem::discriminant(&b.kind) {
        differ(What::Kind, kind(&a.kind), kind(&b.kind));
        return;
    }
    match (&a.kind, &b.kind) {
        (Kind::File { size: ours }, Kind::File { size: theirs }) if ours != theirs => {
            differ(What::Size, ours.to_string(), theirs.to_string());
        }
        (Kind::Hard { to: ours }, Kind::Hard { to: theirs }) => {
            if ours != theirs {
                differ(
                    What::Target,
                    format!("`/{}`", ours.escape_debug()),
                    format!("`/{}`", theirs.escape_debug()),
                );
            }
            // The rest is the file's, and said of its first name.
            return;
        }
        (Kind::Link { target: ours }, Kind::Link { target: theirs }) if ours != theirs => {
            differ(
                What::Target,
                format!("`{}`", ours.escape_debug()),
                format!("`{}`", theirs.escape_debug()),
            );
        }
        (Kind::Character { device: ours }, Kind::Character { device: theirs })
        | (Kind::Block { device: ours }, Kind::Block { device: theirs })
            if ours != theirs =>
        {
            differ(What::Target, device(*ours), device(*theirs));
        }
        _ => {}
    }
    if a.mode != b.mode {
        differ(What::Mode, format_mode(a.mode), format_mode(b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        let owner = |entry: &Entry| Owner { uid: entry.uid, gid: entry.gid }.to_string();
        differ(What::Owner, owner(a), owner(b));
    }
    if a.modified != b.modified {
        differ(What::Time, time(a.modified), time(b.modified));
    }
    if a.xattrs != b.xattrs {
        differ(What::Xattrs, attributes(&a.xattrs, &b.xattrs), attributes(&b.xattrs, &a.xattrs));
    }
}

/// The files whose contents differ, in no order.
fn contents<'t>(
    ours: &Tree,
    theirs: &Tree,
    files: &[(&'t Entry, &'t Entry)],
    threads: usize,
) -> Result<Vec<Found<'t>>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Ok(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, files.len().max(1)) {
            scope.spawn(|| {
                let (mut first, mut second) = (ours.reader(), theirs.reader());
                while let Some((a, b)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let opened = first.open(a).and_then(|first| Ok((first, second.open(b)?)));
                    let result = opened.and_then(|opened| content(ours, theirs, (a, b), opened));
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *done, result) {
                        (Err(_), _) => break,
                        (Ok(_), Ok(None)) => {}
                        (Ok(found), Ok(Some(difference))) => found.push(difference),
                        (done, Err(error)) => {
                            *done = Err(error);
                            break;
                        }
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn content<'t>(
    ours: &Tree,
    theirs: &Tree,
    (a, b): (&'t Entry, &'t Entry),
    (mut first, mut second): (File, File),
) -> Result<Option<Found<'t>>> {
    let Some(byte) = first_difference(&mut first, &mut second)
        .map_err(|error| failure("comparing", &ours.root().shown(&a.path), error))?
    else {
        return Ok(None);
    };
    let ours =
        judged(&mut first, byte).map_err(|error| failure("reading", &ours.root().shown(&a.path), error))?;
    let theirs = judged(&mut second, byte)
        .map_err(|error| failure("reading", &theirs.root().shown(&b.path), error))?;
    let line = match (ours.line, theirs.line) {
        (Some((number, ours)), Some((_, theirs))) => Some(Line { number, ours, theirs }),
        _ => None,
    };
    let place = Place { byte, line };
    Ok(Some((
        &a.path,
        What::Content,
        Some(ours.digest.to_string()),
        Some(theirs.digest.to_string()),
        Some(place),
    )))
}

/// Offset of the first byte that differs; `None` where there is none.
fn first_difference(a: &mut File, b: &mut File) -> io::Result<Option<u64>> {
    let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0_u64;
    loop {
        let (m, n) = (fill(a, &mut ours)?, fill(b, &mut theirs)?);
        let both = m.min(n);
        if ours[..both] != theirs[..both] {
            let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
            return Ok(Some(at + same as u64));
        }
        at += both as u64;
        if m != n {
            return Ok(Some(at));
        }
        if m == 0 {
            return Ok(None);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A content that differs from another from some byte on.
struct Judged {
    digest: Digest,
    /// Number and text of the line with that byte, if it is text.
    line: Option<(u64, String)>,
}

fn judged(file: &mut File, byte: u64) -> io::Result<Judged> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let (mut at, mut number, mut start, mut is_text) = (0_u64, 1_u64, 0_u64, true);
    loop {
        let length = fill(file, &mut buffer)?;
        let read = &buffer[..length];
        if length == 0 {
            break;
        }
        hasher.update(read);
        let before = usize::try_from(byte.saturating_sub(at)).unwrap_or(usize::MAX).min(length);
        for newline in memchr::memchr_iter(b'\n', &read[..before]) {
            number += 1;
            start = at + newline as u64 + 1;
        }
        let judged = usize::try_from(TEXT_JUDGED.saturating_sub(at)).unwrap_or(usize::MAX).min(length);
        is_text &= memchr::memchr(0, &read[..judged]).is_none();
        at += length as u64;
    }
    let line = if is_text { excerpt(file, start, byte)?.map(|text| (number, text)) } else { None };
    Ok(Judged { digest: hasher.finish(), line })
}

/// The line that begins at `start`, around the byte `at`; `None` where it is not UTF-8.
fn excerpt(file: &mut File, start: u64, at: u64) -> io::Result<Option<String>> {
    let from = start.max(at.saturating_sub(SHOWN_BEFORE));
    file.seek(SeekFrom::Start(from))?;
    let mut buffer = [0; SHOWN];
    let length = fill(file, &mut buffer)?;
    let line = memchr::memchr(b'\n', &buffer[..length]);
    let mut bytes = &buffer[..line.unwrap_or(length)];
    if from > start {
        // The cut may lie within a character, of four bytes at most.
        let inside = bytes.iter().take(3).take_while(|byte| (0x80..0xc0).contains(*byte)).count();
        bytes = &bytes[inside..];
    }
    let cut = line.is_none() && length == SHOWN;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if cut && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return Ok(None),
    };
    let (before, after) = (if from > start { "…" } else { "" }, if cut { "…" } else { "" });
    Ok(Some(format!("{before}{}{after}", escaped(text))))
}

/// What could move a terminal's cursor, or hide, is escaped; quotes are not.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' => escaped.push(c),
            c => escaped.extend(c.escape_debug()),
        }
    }
    escaped
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Directory => "a directory".to_owned(),
        Kind::File { size } => format!("a file of {size} bytes"),
        Kind::Hard { to } => format!("a further name of `/{}`", to.escape_debug()),
        Kind::Link { target } => format!("a link to `{}`", target.escape_debug()),
        Kind::Character { device: at } => format!("character device {}", device(*at)),
        Kind::Block { device: at } => format!("block device {}", device(*at)),
        Kind::Fifo => "a FIFO".to_owned(),
    }
}

/// An entry that only one tree has.
fn described(entry: &Entry) -> String {
    let owner = Owner { uid: entry.uid, gid: entry.gid };
    format!("{}, {} {owner}", kind(&entry.kind), format_mode(entry.mode))
}

fn device((major, minor): (u32, u32)) -> String {
    format!("{major}:{minor}")
}

/// A time as RFC 3339 in UTC; what is no time of jiff's stays a number of seconds since 1970.
fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Attributes that are not the same in the other entry.
fn attributes(of: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>) -> String {
    let differ: Vec<String> = of
        .iter()
        .filter(|(name, value)| other.get(*name) != Some(value))
        .map(|(name, value)| {
            let shown = hex::encode(&value[..value.len().min(ATTRIBUTE_SHOWN)]);
            let more = if value.len() > ATTRIBUTE_SHOWN { "…" } else { "" };
            format!("{}=0x{shown}{more}", name.escape_debug())
        })
        .collect();
    if differ.is_empty() { "none".to_owned() } else { differ.join(" ") }
}

fn step(path: &str) -> Option<&'static str> {
    STEPS.iter().find(|(start, _)| path.starts_with(start)).map(|(_, step)| *step)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
