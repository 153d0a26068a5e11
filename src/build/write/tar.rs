//! A root tree as a tar archive, in POSIX's pax format (IEEE Std 1003.1, `pax`, "pax Interchange Format"): the ustar
//! header where a value fits, a record of an extended header where it does not.
//!
//! Every field is written here, from the entry alone: no user names, no clock, no order but that of the paths. Extended
//! attributes are records `SCHILY.xattr.NAME`, as star began and GNU tar, bsdtar, Docker and containerd read them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read, Write},
    num::NonZero,
    path::Path,
};

use ::tar::{EntryType, Header, UstarHeader};

use super::{
    Content, Tally, Through,
    compress::{Compression, Compressor},
    failed,
};
use crate::{
    build::tree::{Entry, Kind, Tree},
    error::{Doing, Error, Result},
    system::{files, signals},
};

/// Bytes of a block: headers are one, contents are filled up to whole ones.
const BLOCK: usize = 512;
/// Bytes that are read and written at once.
const BUFFER: usize = 256 << 10;
/// The name of an extended header, which only readers that do not know such headers show.
const EXTENDED: &str = "././@PaxHeader";

/// An archive that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// The tar archive itself.
    pub content: Content,
    /// The same as it is stored: compressed, or no other.
    pub stored: Content,
}

/// Writes the whole tree to the file `path`, whole or not at all; what was there is replaced. A new file gets 0644 less
/// the umask. What killed processes left beside it is removed.
///
/// # Errors
/// The tree changed or holds what tar cannot, or the file cannot be written; what was there before is then unchanged.
pub fn save(tree: &Tree, path: &Path, compression: Compression, threads: NonZero<u32>) -> Result<Archive> {
    let mut output = files::create_output(path, 0o644)?;
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::Root::open(beside)?.sweep("/")?;
    let archive = pack(tree, tree.entries(), None, compression, threads, &mut |bytes| output.put(bytes))?;
    output.commit()?;
    Ok(archive)
}

/// Writes these entries of the tree through `put`, piece by piece. For `latest` see [`write`].
///
/// # Errors
/// As [`write`]; those of `put` as they are.
pub(super) fn pack<'a>(
    tree: &Tree,
    entries: impl IntoIterator<Item = &'a Entry, IntoIter: Clone>,
    latest: Option<i64>,
    compression: Compression,
    threads: NonZero<u32>,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Archive> {
    let out = Through(put);
    if compression == Compression::None {
        let (_, content) = write(tree, entries, latest, out)?;
        return Ok(Archive { content, stored: content });
    }
    let compressor = Compressor::new(compression, threads, Tally::new(out))?;
    let (compressor, content) = write(tree, entries, latest, compressor)?;
    let (_, stored) = compressor.finish().map_err(failed)?.finish();
    Ok(Archive { content, stored })
}

/// Writes a tar archive of these entries, whose order is that of their paths' bytes, and gives the writer back with what
/// it got. Contents are read from the tree one after the other; a piece of 256 KiB is held at most.
///
/// `latest`: times after this one are written as this one, in seconds since 1970.
///
/// # Errors
/// An entry is out of order or twice, a path leads out of the tree, a hard link stands before its file or without it, an
/// attribute's name or a device's number has no form in tar, a file is not what its entry says, or `out` fails.
pub fn write<'a, W: Write>(
    tree: &Tree,
    entries: impl IntoIterator<Item = &'a Entry, IntoIter: Clone>,
    latest: Option<i64>,
    out: W,
) -> Result<(W, Content)> {
    let entries = entries.into_iter();
    let mut firsts = firsts(entries.clone());
    let mut out = BufWriter::with_capacity(BUFFER, Tally::new(out));
    let mut buffer = vec![0; BUFFER];
    let mut last: Option<&str> = None;
    let mut reader = tree.reader();
    for entry in entries {
        if last.is_some_and(|last| last.as_bytes() >= entry.path.as_bytes()) {
            return Err(refused(entry, "it is there twice, or out of order"));
        }
        last = Some(&entry.path);
        signals::refuse_heard()?;
        match &entry.kind {
            Kind::Hard { to } if firsts.get(to.as_str()) != Some(&true) => {
                return Err(refused(entry, &format!("it is a hard link to `/{to}`, no file before it")));
            }
            Kind::File { .. } => {
                if let Some(seen) = firsts.get_mut(entry.path.as_str()) {
                    *seen = true;
                }
            }
            _ => {}
        }
        out.write_all(&header(entry, latest)?).map_err(failed)?;
        if let Kind::File { size } = entry.kind
            && size > 0
        {
            copy(reader.open(entry)?, entry, size, &mut buffer, &mut out)?;
        }
    }
    // The end: two blocks of zeros.
    out.write_all(&[0; 2 * BLOCK]).map_err(failed)?;
    let tally = out.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(tally.finish())
}

/// What hard links lead to; false, until the file itself went by.
fn firsts<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeMap<&'a str, bool> {
    let hard = |entry: &'a Entry| match &entry.kind {
        Kind::Hard { to } => Some((to.as_str(), false)),
        _ => None,
    };
    entries.filter_map(hard).collect()
}

fn copy(mut file: File, entry: &Entry, size: u64, buffer: &mut [u8], out: &mut impl Write) -> Result<()> {
    let mut left = size;
    loop {
        // One byte more than there should be, to see the end.
        let most = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(buffer.len());
        let count = match file.read(&mut buffer[..most]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).doing(|| format!("reading `/{}` of the root tree", entry.path)),
        };
        match (count, left.checked_sub(count as u64)) {
            (0, _) if left == 0 => break,
            (0, _) | (_, None) => {
                return Err(Error::failed(format!("reading `/{}` of the root tree: it changed", entry.path)));
            }
            (_, Some(rest)) => left = rest,
        }
        signals::refuse_heard()?;
        out.write_all(&buffer[..count]).map_err(failed)?;
    }
    let past = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if past > 0 {
        out.write_all(&[0; BLOCK][past..]).map_err(failed)?;
    }
    Ok(())
}

fn refused(entry: &Entry, why: &str) -> Error {
    Error::failed(format!("writing `/{}` into an archive: {why}", entry.path.escape_debug()))
}

/// The blocks that stand before an entry's content: an extended header where one is needed, and the entry's own.
///
/// # Errors
/// The entry has no form in tar.
fn header(entry: &Entry, latest: Option<i64>) -> Result<Vec<u8>> {
    check_path(entry, &entry.path, "path")?;
    let mut header = Header::new_ustar();
    let mut records = Records::default();
    let fields = ustar(&mut header).ok_or_else(|| refused(entry, "no header can be made"))?;
    let kind = match &entry.kind {
        Kind::Directory => EntryType::Directory,
        Kind::File { .. } => EntryType::Regular,
        Kind::Hard { .. } => EntryType::Link,
        Kind::Link { .. } => EntryType::Symlink,
        Kind::Character { .. } => EntryType::Char,
        Kind::Block { .. } => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
    };
    fields.typeflag = [kind.as_byte()];
    let name = match (entry.path.as_str(), kind) {
        ("", _) => "./".to_owned(),
        (path, EntryType::Directory) => format!("{path}/"),
        (path, _) => path.to_owned(),
    };
    records.text("path", &name, &mut fields.name);
    let target = match &entry.kind {
        Kind::Link { target } if target.is_empty() || target.contains('\0') => {
            return Err(refused(entry, "it links to no path"));
        }
        Kind::Link { target } => target,
        Kind::Hard { to } => {
            check_path(entry, to, "hard link")?;
            to
        }
        _ => "",
    };
    records.text("linkpath", target, &mut fields.linkname);
    number(&mut fields.mode, u64::from(entry.mode & 0o7777));
    records.number("uid", i64::from(entry.uid), &mut fields.uid);
    records.number("gid", i64::from(entry.gid), &mut fields.gid);
    let size = if let Kind::File { size } = entry.kind { size } else { 0 };
    let size = i64::try_from(size).map_err(|_| refused(entry, "it is larger than any file"))?;
    records.number("size", size, &mut fields.size);
    let modified = latest.map_or(entry.modified, |latest| latest.min(entry.modified));
    records.number("mtime", modified, &mut fields.mtime);
    let (major, minor) = match entry.kind {
        Kind::Character { device } | Kind::Block { device } => device,
        _ => (0, 0),
    };
    // Linux has 12 bits for one and 20 for the other; there is no record for more.
    if !number(&mut fields.dev_major, major.into()) || !number(&mut fields.dev_minor, minor.into()) {
        return Err(refused(entry, &format!("its device number {major}:{minor} is none of Linux")));
    }
    // A further name of a file is the same inode: what it has was set with the first.
    if !matches!(entry.kind, Kind::Hard { .. }) {
        for (name, value) in &entry.xattrs {
            if name.is_empty() || name.contains(['=', '\0']) {
                let name = name.escape_debug();
                return Err(refused(entry, &format!("its attribute `{name}` has no name that tar can hold")));
            }
            records.0.insert((true, format!("SCHILY.xattr.{name}")), value.clone());
        }
    }
    header.set_cksum();
    let mut out = records.blocks().ok_or_else(|| refused(entry, "no header can be made"))?;
    out.extend_from_slice(header.as_bytes());
    Ok(out)
}

/// The fields of a header whose bytes are all zero but for the magic, the version and the numbers.
fn ustar(header: &mut Header) -> Option<&mut UstarHeader> {
    // The version as `tar` writes it is that of the standard: `ustar`, zero, `00`.
    let fields = header.as_ustar_mut()?;
    for field in [&mut fields.uname, &mut fields.gname] {
        field.fill(0);
    }
    fields.prefix.fill(0);
    Some(fields)
}

/// Paths of the tree stay in it: no part of them is `..`, and they begin at its top.
fn check_path(entry: &Entry, path: &str, what: &str) -> Result<()> {
    let wrong = |part: &str| matches!(part, "" | "." | "..");
    let top = path.is_empty() && entry.kind == Kind::Directory;
    if path.contains('\0') || (!top && path.split('/').any(wrong)) {
        return Err(refused(entry, &format!("its {what} `{}` is not plain", path.escape_debug())));
    }
    Ok(())
}

/// Writes a number as ustar has it: octal digits that fill the field but for its last byte, which is zero. False, and all
/// zeros, where it has too many digits.
fn number(field: &mut [u8], value: u64) -> bool {
    let Some((end, digits)) = field.split_last_mut() else { return false };
    *end = 0;
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    if rest != 0 {
        digits.fill(b'0');
    }
    rest == 0
}

/// The records of an extended header by keyword: what the fields of a header cannot hold. Those of the standard stand
/// before the attributes (true), whose values may hold line ends, at which some readers get lost.
#[derive(Default)]
struct Records(BTreeMap<(bool, String), Vec<u8>>);

impl Records {
    /// Puts text into its field, and also into a record where it is too long, or not in the portable character set, in
    /// which the fields are; the field then holds what fits.
    fn text(&mut self, keyword: &str, text: &str, field: &mut [u8]) {
        let fits = text.len().min(field.len());
        field.fill(0);
        field[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        if fits < text.len() || !text.is_ascii() {
            self.0.insert((false, keyword.to_owned()), text.as_bytes().to_vec());
        }
    }

    /// Puts a number into its field, or into a record.
    fn number(&mut self, keyword: &str, value: i64, field: &mut [u8]) {
        let plain = u64::try_from(value).ok();
        if !number(field, plain.unwrap_or(0)) || plain.is_none() {
            self.0.insert((false, keyword.to_owned()), value.to_string().into_bytes());
        }
    }

    /// The header and its records, in whole blocks; nothing where there are none. `None`: they have no size.
    fn blocks(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return Some(Vec::new());
        }
        let records: Vec<u8> =
            self.0.iter().flat_map(|((_, keyword), value)| record(keyword, value)).collect();
        let mut header = Header::new_ustar();
        let fields = ustar(&mut header)?;
        fields.name[..EXTENDED.len()].copy_from_slice(EXTENDED.as_bytes());
        fields.typeflag = [EntryType::XHeader.as_byte()];
        number(&mut fields.mode, 0o644);
        for field in [&mut fields.uid, &mut fields.gid, &mut fields.dev_major, &mut fields.dev_minor] {
            number(field, 0);
        }
        number(&mut fields.mtime, 0);
        if !number(&mut fields.size, records.len() as u64) {
            return None;
        }
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        Some(out)
    }
}

/// A record: its own length in decimal, a blank, the keyword, `=`, the value, a line end.
fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
    let rest = 1 + keyword.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut out = format!("{length} {keyword}=").into_bytes();
    out.extend_from_slice(value);
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests;
