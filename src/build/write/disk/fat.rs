//! A FAT32 file system, written once (Microsoft, "FAT: General Overview of On-Disk Format", version 1.03).
//!
//! Everything lies in one piece and in the order it is given in, so that it is a function of its content alone. Time
//! stamps are all 1980-01-01, the first that FAT knows: it has local time, and firmware reads none.

use std::io::{self, Seek, SeekFrom, Write};

use super::layout::SECTOR;

/// Sectors before the first table: boot sector, information, and copies of both.
const RESERVED: u64 = 32;
/// Where the copy of the boot sector is.
const BACKUP: u64 = 6;
/// Tables there are.
const TABLES: u64 = 2;
/// Fewest clusters of a FAT32 ("FAT Type Determination").
const LEAST: u64 = 65_525;
/// The first cluster of content, which the root directory has.
pub(in crate::build) const FIRST: u32 = 2;
/// The last cluster of a file says so in the table.
const END: u32 = 0x0fff_ffff;
/// Bytes of a directory's entry.
pub(in crate::build) const ENTRY: usize = 32;
/// 1980-01-01.
const DATE: u16 = (1 << 5) | 1;
/// UTF-16 units in an entry of a long name, and where these are in it.
pub(in crate::build) const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// Attributes: a directory, a file, the volume's label, a part of a long name.
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
pub(in crate::build) const LABEL: u8 = 0x08;
pub(in crate::build) const LONG: u8 = 0x0f;

/// Writes a file's content.
pub(super) type Content<'a> = Box<dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a>;

/// What has a name.
pub(super) enum Node<'a> {
    /// A directory, in the order it is to have.
    Directory(Vec<(String, Node<'a>)>),
    /// A file: its size in bytes, and what writes as many.
    File(u64, Content<'a>),
}

/// How a volume is divided.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    /// Sectors in all.
    sectors: u32,
    /// Sectors of a cluster.
    cluster: u64,
    /// Sectors of a table.
    table: u64,
    /// Clusters there are.
    clusters: u32,
}

impl Geometry {
    /// For a volume of `size` bytes: clusters of a page, or smaller ones where there would be too few.
    fn new(size: u64) -> io::Result<Self> {
        let fault = || io::Error::other("no FAT32 has this size");
        let sectors = u32::try_from(size / SECTOR).map_err(|_| fault())?;
        for cluster in [8, 4, 2, 1] {
            let content = u64::from(sectors).saturating_sub(RESERVED);
            // A sector of a table stands for 128 clusters.
            let table = content.div_ceil(128 * cluster + TABLES) + 1;
            let clusters = content.saturating_sub(TABLES * table) / cluster;
            if clusters >= LEAST {
                let clusters = u32::try_from(clusters).map_err(|_| fault())?;
                return Ok(Self { sectors, cluster, table, clusters });
            }
        }
        Err(fault())
    }

    fn bytes(&self) -> u64 {
        self.cluster * SECTOR
    }

    /// Where a cluster's content is, in bytes.
    fn place(&self, cluster: u32) -> u64 {
        (RESERVED + TABLES * self.table) * SECTOR + u64::from(cluster - FIRST) * self.bytes()
    }

    /// The boot sector ("Boot Sector and BPB").
    fn boot_sector(&self, volume: u32, label: [u8; 11]) -> Vec<u8> {
        let mut sector = vec![0; SECTOR as usize];
        let mut put = |at: usize, content: &[u8]| sector[at..at + content.len()].copy_from_slice(content);
        put(0, &[0xeb, 0x58, 0x90]);
        put(3, b"BEDPLATE");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[self.cluster as u8]);
        put(14, &(RESERVED as u16).to_le_bytes());
        put(16, &[TABLES as u8]);
        put(21, &[0xf8]); // a disk that is not removable
        put(24, &[63, 0, 255, 0]); // sectors and heads of a geometry that nothing has
        put(32, &self.sectors.to_le_bytes());
        put(36, &(self.table as u32).to_le_bytes());
        put(44, &FIRST.to_le_bytes());
        put(48, &1_u16.to_le_bytes());
        put(50, &(BACKUP as u16).to_le_bytes());
        put(64, &[0x80, 0, 0x29]);
        put(67, &volume.to_le_bytes());
        put(71, &label);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xaa]);
        sector
    }

    /// The information sector ("FAT32 FSInfo Structure").
    fn information(&self, next: u32) -> Vec<u8> {
        let mut sector = vec![0; SECTOR as usize];
        let free = self.clusters - (next - FIRST);
        for (at, value) in
            [(0, 0x4161_5252_u32), (484, 0x6141_7272), (488, free), (492, next), (508, 0xaa55_0000)]
        {
            sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        sector
    }
}

/// Writes a volume of `size` bytes into `to`, which holds zeros: `root` is what its root directory has.
///
/// # Errors
/// The size is none that FAT32 has, the content does not fit ([`io::ErrorKind::StorageFull`]), or `to` fails.
pub(super) fn write<W: Write + Seek>(
    to: &mut W,
    size: u64,
    volume: u32,
    label: [u8; 11],
    root: Vec<(String, Node)>,
) -> io::Result<()> {
    let geometry = Geometry::new(size)?;
    let mut writer = Writer { to, geometry, chains: Vec::new() };
    let directory = Node::Directory(root);
    let at = writer.take(size_of(&directory)?)?;
    if let Node::Directory(children) = directory {
        writer.directory(at, None, children, Some(label))?;
    }
    writer.tables(volume, label)
}

struct Writer<'w, W> {
    to: &'w mut W,
    geometry: Geometry,
    /// Clusters of each file and directory, one after the other from the first on.
    chains: Vec<u32>,
}

impl<W: Write + Seek> Writer<'_, W> {
    /// Takes the next free clusters, enough for `size` bytes, and gives the first one; 0 for none.
    fn take(&mut self, size: u64) -> io::Result<u32> {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let count = u32::try_from(size.div_ceil(self.geometry.bytes())).map_err(|_| full())?;
        let first = self.next();
        if count > self.geometry.clusters - (first - FIRST) {
            return Err(full());
        }
        if count > 0 {
            self.chains.push(count);
        }
        Ok(if count == 0 { 0 } else { first })
    }

    /// The next free cluster.
    fn next(&self) -> u32 {
        FIRST + self.chains.iter().sum::<u32>()
    }

    /// Writes a directory to the clusters that it has, and all that is in it to the next ones. `parent`: the first
    /// cluster of the one above, `None` for the root.
    fn directory(
        &mut self,
        at: u32,
        parent: Option<u32>,
        children: Vec<(String, Node)>,
        label: Option<[u8; 11]>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        if let Some(label) = label {
            bytes.extend(entry(label, LABEL, 0, 0));
        }
        if let Some(parent) = parent {
            bytes.extend(entry(*b".          ", DIRECTORY, at, 0));
            // The root directory is told by 0.
            bytes.extend(entry(*b"..         ", DIRECTORY, if parent == FIRST { 0 } else { parent }, 0));
        }
        let mut places = Vec::new();
        for (number, (name, node)) in children.iter().enumerate() {
            let size = size_of(node)?;
            let first = self.take(size)?;
            let (attributes, size) = match node {
                Node::Directory(_) => (DIRECTORY, 0),
                Node::File(..) => (ARCHIVE, u32::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?),
            };
            let mut entries = entries_of(name, number)?;
            if let Some(last) = entries.last_mut() {
                *last = entry(short_of(last), attributes, first, size);
            }
            bytes.extend(entries.into_iter().flatten());
            places.push(first);
        }
        self.to.seek(SeekFrom::Start(self.geometry.place(at)))?;
        self.to.write_all(&bytes)?;
        for ((_, node), first) in children.into_iter().zip(places) {
            match node {
                Node::Directory(children) => self.directory(first, Some(at), children, None)?,
                Node::File(_, mut write) if first != 0 => {
                    self.to.seek(SeekFrom::Start(self.geometry.place(first)))?;
                    write(&mut *self.to)?;
                }
                Node::File(..) => {}
            }
        }
        Ok(())
    }

    fn tables(&mut self, volume: u32, label: [u8; 11]) -> io::Result<()> {
        // What the first two entries stand for: the kind of medium, and that all is well.
        let mut table = vec![0x0fff_fff8, END];
        for count in &self.chains {
            let first = table.len() as u32;
            table.extend((1..*count).map(|number| first + number));
            table.push(END);
        }
        let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        for number in 0..TABLES {
            self.to.seek(SeekFrom::Start((RESERVED + number * self.geometry.table) * SECTOR))?;
            self.to.write_all(&table)?;
        }
        for start in [0, BACKUP] {
            self.to.seek(SeekFrom::Start(start * SECTOR))?;
            self.to.write_all(&self.geometry.boot_sector(volume, label))?;
            self.to.write_all(&self.geometry.information(self.next()))?;
        }
        Ok(())
    }
}

/// Bytes of a node.
fn size_of(node: &Node) -> io::Result<u64> {
    Ok(match node {
        Node::File(size, _) => *size,
        Node::Directory(children) => {
            let mut entries = 2;
            for (number, (name, _)) in children.iter().enumerate() {
                entries += entries_of(name, number)?.len();
            }
            (entries * ENTRY) as u64
        }
    })
}

/// An entry with its short name ("Directory Structure").
fn entry(name: [u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(&name);
    entry[11] = attributes;
    let [low, lower, high, higher] = cluster.to_le_bytes();
    entry[20..22].copy_from_slice(&[high, higher]);
    entry[26..28].copy_from_slice(&[low, lower]);
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[28..32].copy_from_slice(&size.to_le_bytes());
    entry
}

fn short_of(entry: &[u8; ENTRY]) -> [u8; 11] {
    let mut name = [0; 11];
    name.copy_from_slice(&entry[..11]);
    name
}

/// The entries of a name, the `number`th of its directory: those of a long name, then the short one, with nothing but
/// its name.
fn entries_of(name: &str, number: usize) -> io::Result<Vec<[u8; ENTRY]>> {
    if name.is_empty() || name.len() > 255 || !name.bytes().all(plain) {
        return Err(io::Error::other(format!("`{name}` is not written as a name of FAT here")));
    }
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let is_short = stem.len() <= 8 && extension.len() <= 3 && name.bytes().all(short_byte);
    let stem = if is_short { stem.to_owned() } else { alias(stem, number) };
    let mut short = [b' '; 11];
    for (place, byte) in short[..8].iter_mut().zip(stem.bytes()) {
        *place = byte;
    }
    for (place, byte) in short[8..].iter_mut().zip(extension.bytes().filter(u8::is_ascii_alphanumeric)) {
        *place = byte.to_ascii_uppercase();
    }
    let mut entries = if is_short { Vec::new() } else { long(name, &short) };
    entries.push(entry(short, ARCHIVE, 0, 0));
    Ok(entries)
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-')
}

fn short_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'.'
}

/// The stem of a short name for a long one ("The Basis-Name Generation Algorithm"); numbers tell those of a directory
/// apart.
fn alias(stem: &str, number: usize) -> String {
    let tail = format!("~{}", number + 1);
    let letters = stem.chars().filter(char::is_ascii_alphanumeric).take(8_usize.saturating_sub(tail.len()));
    letters.map(|letter| letter.to_ascii_uppercase()).chain(tail.chars()).collect()
}

/// The entries of a long name, its end first ("Long File Name Implementation").
fn long(name: &str, short: &[u8; 11]) -> Vec<[u8; ENTRY]> {
    let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let parts: Vec<&[u16]> = units.chunks(UNITS.len()).collect();
    let mut entries = Vec::new();
    for (number, part) in parts.iter().enumerate().rev() {
        let mut entry = [0; ENTRY];
        let last = if number + 1 == parts.len() { 0x40 } else { 0 };
        entry[0] = last | (number as u8 + 1);
        entry[11] = LONG;
        entry[13] = sum;
        for (place, at) in UNITS.into_iter().enumerate() {
            // A zero ends the name, and nothing is after it.
            let unit = part.get(place).copied().unwrap_or(if place == part.len() { 0 } else { 0xffff });
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entries.push(entry);
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn clusters_are_enough_for_fat32_at_every_size() {
        for (mib, bytes) in [(34, 512), (48, 512), (100, 1024), (256, 2048), (260, 4096), (4096, 4096)] {
            let geometry = Geometry::new(mib << 20).unwrap();
            assert_eq!(geometry.bytes(), bytes, "{mib} MiB");
            assert!(u64::from(geometry.clusters) >= LEAST);
            assert!((u64::from(geometry.clusters) + 2) * 4 <= geometry.table * SECTOR);
            assert!(geometry.place(FIRST + geometry.clusters) <= mib << 20);
        }
        assert!(Geometry::new(32 << 20).is_err());
    }

    #[test]
    fn a_directory_may_have_many_clusters_and_files_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(40 << 20).unwrap();
        let size = |number: u64| number * 700;
        let children = (0..60)
            .map(|number| {
                let content = vec![number as u8; size(number) as usize];
                let node = Node::File(size(number), Box::new(move |to| to.write_all(&content)));
                (format!("a-long-name-of-file-number-{number}.txt"), node)
            })
            .collect();
        let root = vec![
            ("DIR".to_owned(), Node::Directory(children)),
            ("empty.d".to_owned(), Node::Directory(Vec::new())),
        ];
        write(&mut file.as_file(), 40 << 20, 0x1234_5678, *b"EFI        ", root).unwrap();
        let path = file.path().to_str().unwrap();
        let checked = Command::new("/sbin/fsck.fat").args(["-n", "-V", path]).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{said}");
        assert!(said.contains("63 files"), "{said}");
        let copied =
            Command::new("mtype").args(["-i", path, "::/dir/a-long-name-of-file-number-41.txt"]).output();
        assert_eq!(copied.unwrap().stdout, vec![41; 41 * 700]);
    }

    #[test]
    fn what_does_not_fit_says_so() {
        let mut to = io::Cursor::new(Vec::new());
        let root = vec![("A".to_owned(), Node::File(40 << 20, Box::new(|_| Ok(()))))];
        let error = write(&mut to, 40 << 20, 0, *b"EFI        ", root).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
