//! A disk: partition table, EFI system partition, root partition, each held against the record; then what is in them.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt as _,
};

use super::{
    Image, Read as Tree,
    contents::{Contents, Fault},
    ext4, fat, qcow2,
};
use crate::{
    build::{
        record::{self, Part},
        verify::{Finding, What},
        write::disk::{
            Layout, Sizes,
            ids::Ids,
            layout::{MIB, SECTOR},
        },
    },
    digest::Digest,
    error::{Doing, Result},
    profile::image_definition::Format,
    system::files::open_input,
};

/// What the parts of a disk are called.
const TABLE: &str = "partition table";
const ESP: &str = "EFI system partition";
const ROOT: &str = "root partition";
/// Where the magic numbers of file systems are, and what they are (Linux, `include/uapi/linux/magic.h`).
const EXT4_MAGIC: (u64, [u8; 2]) = (1024 + 56, 0xef53_u16.to_le_bytes());
const EROFS_MAGIC: (u64, [u8; 4]) = (1024, 0xe0f5_e1e2_u32.to_le_bytes());

/// The bytes of a disk.
pub(super) trait Source {
    /// How many.
    fn size(&self) -> u64;

    /// Fills the buffer with those from `at` on.
    ///
    /// # Errors
    /// There are not so many; damage; the file cannot be read.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

/// A raw disk. Keeps why its file could not be read: that is no damage of the disk.
pub(super) struct Raw {
    file: File,
    size: u64,
    fault: RefCell<Option<io::Error>>,
}

impl Raw {
    pub(super) fn new(file: File, size: u64) -> Self {
        Self { file, size, fault: RefCell::new(None) }
    }

    /// Fails with what could not be read of the file.
    pub(super) fn fault(&self) -> io::Result<()> {
        self.fault.take().map_or(Ok(()), Err)
    }
}

impl Source for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at).map_err(|error| {
            let kind = error.kind();
            if kind == io::ErrorKind::UnexpectedEof {
                return error;
            }
            self.fault.replace(Some(error));
            kind.into()
        })
    }
}

/// A part of a disk.
#[derive(Clone, Copy)]
pub(super) struct Range<'s> {
    source: &'s dyn Source,
    start: u64,
    size: u64,
    at: u64,
}

impl<'s> Range<'s> {
    pub(super) fn new(source: &'s dyn Source, (start, size): (u64, u64)) -> Self {
        Self { source, start, size, at: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills the buffer with the bytes from `at` on.
    pub(super) fn exact(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read_at(buffer, self.start + at)
    }

    /// `N` bytes from `at` on.
    pub(super) fn array<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.exact(&mut bytes, at).map(|()| bytes)
    }
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left =
            self.size.saturating_sub(self.at).min(self.source.size().saturating_sub(self.start + self.at));
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.source.read_at(&mut buffer[..count], self.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Verifies the disk of `image`.
///
/// # Errors
/// The file cannot be read.
pub(super) fn verify(image: &mut Image<'_>, format: Format) -> Result<Option<Tree>> {
    let path = image.path;
    let doing = || format!("reading `{}`", path.display());
    let (mut file, size) = open_input(path)?;
    if let Some(expected) = image.recorded_file() {
        let (digest, size) = Digest::of_reader(&file).doing(doing)?;
        let name = image.name.file.clone();
        if image.part(&name, expected, Part { digest, size }) {
            // Every byte is as it was written: there is nothing to look for.
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).doing(doing)?;
    }
    let raw = Raw::new(file, size);
    let found = if format == Format::Qcow2 {
        match qcow2::Disk::open(&raw) {
            Ok(disk) => inside(image, &disk),
            Err(error) => {
                raw.fault().doing(doing)?;
                let name = image.name.file.clone();
                return image.fault(&name, Some(error.into())).map(|()| None);
            }
        }
    } else {
        inside(image, &raw)
    };
    raw.fault().doing(doing)?;
    found
}

/// What is wrong within a disk.
fn inside(image: &mut Image<'_>, source: &dyn Source) -> Result<Option<Tree>> {
    let recorded = image.beside.as_ref().and_then(|record| Some((record.parts.as_ref()?.disk?, record.lock)));
    let sizes = match &recorded {
        Some((disk, _)) => Some(Sizes { esp: disk.esp.size / MIB, root: disk.root.size / MIB }),
        None => sizes(source),
    };
    let Some(layout) = sizes.and_then(|sizes| Layout::new(sizes).ok()) else {
        let finding = Finding::new(What::Damaged, None).of(TABLE);
        image.findings.push(finding.found("it does not have an EFI system partition and a root partition"));
        return Ok(None);
    };
    if source.size() != layout.size {
        let finding = Finding::new(What::Damaged, None).of(&image.name.file);
        image.findings.push(finding.found(format!(
            "the disk has {} bytes, its partitions and tables want {}",
            source.size(),
            layout.size
        )));
    }
    let root = Range::new(source, layout.root);
    let is_ext4 = root.array(EXT4_MAGIC.0).is_ok_and(|bytes| bytes == EXT4_MAGIC.1);
    let is_erofs = root.array(EROFS_MAGIC.0).is_ok_and(|bytes| bytes == EROFS_MAGIC.1);
    let Some((disk, lock)) = recorded else {
        return without_record(image, source, &layout, is_erofs);
    };
    table(image, source, &layout, &lock, is_erofs)?;
    if !partition(image, source, ESP, layout.esp, disk.esp) {
        kernel(image, source, &layout, disk.kernel);
    }
    if partition(image, source, ROOT, layout.root, disk.root) {
        return Ok(None);
    }
    if is_ext4 { tree(image, root) } else { Ok(None) }
}

/// A disk that has no record beside it: its tree says what it was made from.
fn without_record(
    image: &mut Image<'_>,
    source: &dyn Source,
    layout: &Layout,
    is_erofs: bool,
) -> Result<Option<Tree>> {
    let finding = Finding::new(What::NoRecord, None).of(ESP);
    image.findings.push(finding);
    if is_erofs {
        let finding = Finding::new(What::Refused, None).of(ROOT);
        image
            .findings
            .push(finding.found("it is an erofs, which is not read here: put the record beside the image"));
        return Ok(None);
    }
    let read = tree(image, Range::new(source, layout.root))?;
    let text = read
        .as_ref()
        .and_then(|read| read.contents.root().read_text(record::IN_TREE, record::MAX_SIZE).ok()?);
    if let Some(record) = text.and_then(|text| record::parse(record::IN_TREE, &text).ok()) {
        table(image, source, layout, &record.lock, is_erofs)?;
    }
    Ok(read)
}

/// The sizes that the first two entries of the table say (UEFI 2.10, table 5.6).
fn sizes(source: &dyn Source) -> Option<Sizes> {
    let entry = |number: u64| {
        let mut entry = [0; 128];
        source.read_at(&mut entry, 2 * SECTOR + number * 128).ok()?;
        let sector = |at: usize| Some(u64::from_le_bytes(entry[at..at + 8].try_into().ok()?));
        let sectors = sector(40)?.checked_sub(sector(32)?)?.checked_add(1)?;
        Some(sectors / (MIB / SECTOR))
    };
    Some(Sizes { esp: entry(0)?, root: entry(1)? })
}

/// Holds both copies of the partition table against the one that the lock gives.
fn table(
    image: &mut Image<'_>,
    source: &dyn Source,
    layout: &Layout,
    lock: &Digest,
    read_only: bool,
) -> Result<()> {
    let doing = || "making a partition table to compare with";
    let made = tempfile::tempfile().doing(doing)?;
    made.set_len(layout.size).doing(doing)?;
    layout.write(&made, &Ids::new(lock), read_only)?;
    image.counts.parts += 1;
    for start in [0, layout.size - MIB] {
        let (mut ours, mut theirs) = (vec![0; MIB as usize], vec![0; MIB as usize]);
        made.read_exact_at(&mut ours, start).doing(doing)?;
        let read = Range::new(source, (start, MIB)).read(&mut theirs);
        let length = match read {
            Ok(length) => length,
            Err(error) => return image.fault(TABLE, Some(error.into())),
        };
        let same = ours.iter().zip(&theirs[..length]).take_while(|(a, b)| a == b).count();
        if same < ours.len() {
            let finding = Finding::new(What::Damaged, None).of(TABLE);
            let at = start + same as u64;
            image
                .findings
                .push(finding.found(format!("byte {at} of the disk is not what sizes and lock give")));
        }
    }
    Ok(())
}

/// Holds a partition against its record. False: it is another, or cannot be read.
fn partition(
    image: &mut Image<'_>,
    source: &dyn Source,
    name: &str,
    range: (u64, u64),
    expected: Part,
) -> bool {
    match Digest::of_reader(Range::new(source, range)) {
        Ok((digest, size)) => image.part(name, expected, Part { digest, size }),
        Err(error) => {
            image.counts.parts += 1;
            // A fault of the file itself is told by who opened it.
            let _ = image.fault(name, Some(error.into()));
            false
        }
    }
}

/// Whether it is the kernel that differs on an EFI system partition.
fn kernel(image: &mut Image<'_>, source: &dyn Source, layout: &Layout, expected: Part) {
    let path = format!("/EFI/Linux/{}.efi", image.name.stem);
    let found = fat::content(&Range::new(source, layout.esp), &path);
    image.counts.parts += 1;
    let finding = |what| Finding::new(what, None).of(ESP).at(&path);
    match found {
        Ok(Some((digest, size))) if Part { digest, size } == expected => {}
        Ok(Some((digest, _))) => {
            let finding = finding(What::Part).expected(expected.digest.to_string());
            image.findings.push(finding.found(digest.to_string()));
        }
        Ok(None) => image.findings.push(finding(What::Missing)),
        Err(error) => image.findings.push(finding(What::Damaged).found(error.to_string())),
    }
}

/// The tree on an ext4.
fn tree(image: &mut Image<'_>, root: Range<'_>) -> Result<Option<Tree>> {
    let mut contents = Contents::new()?;
    let fault = match ext4::read(root, &mut contents) {
        Ok(()) => None,
        Err(Fault::Read(error)) => Some(Fault::Damaged(format!("its file system cannot be read: {error}"))),
        Err(other) => Some(other),
    };
    let whole = fault.is_none();
    image.fault(ROOT, fault)?;
    Ok(Some(Tree { contents, whole }))
}
