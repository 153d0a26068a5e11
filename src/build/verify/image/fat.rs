//! A file on a FAT32 (Microsoft, "FAT: General Overview of On-Disk Format", version 1.03).

use std::io;

use super::disk::Range;
use crate::{
    build::write::disk::{
        fat::{ENTRY, FIRST, LABEL, LONG, UNITS},
        layout::SECTOR,
    },
    digest::{Digest, Hasher},
};

/// From this number on a cluster is the last one.
const END: u32 = 0x0fff_fff8;
/// Most clusters of a directory.
const DIRECTORY: usize = 1024;

/// A volume.
struct Volume<'r> {
    range: &'r Range<'r>,
    /// Bytes of a cluster.
    cluster: u64,
    /// Where the first table, and the first cluster, begin.
    table: u64,
    content: u64,
    /// Clusters there are.
    count: u64,
}

/// The digest and size of the file at `path`; `None`: it is not there.
///
/// # Errors
/// It is no FAT32, or broken; the disk cannot be read.
pub(super) fn content(range: &Range<'_>, path: &str) -> io::Result<Option<(Digest, u64)>> {
    let boot: [u8; 512] = range.array(0)?;
    let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let long = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);
    let (sector, per_cluster) = (short(11), u64::from(boot[13]));
    if sector != SECTOR || per_cluster == 0 || boot[82..87] != *b"FAT32" {
        return Err(damaged("its boot sector is none of a FAT32"));
    }
    let table = short(14) * sector;
    let content = table + u64::from(boot[16]) * u64::from(long(36)) * sector;
    let cluster = per_cluster * sector;
    let count = range.size().saturating_sub(content) / cluster;
    let volume = Volume { range, cluster, table, content, count };
    let mut at = (long(44), 0);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match volume.find(at.0, part)? {
            Some(found) => at = found,
            None => return Ok(None),
        }
    }
    volume.digest(at.0, at.1).map(Some)
}

impl Volume<'_> {
    /// Where a cluster lies.
    fn place(&self, cluster: u32) -> io::Result<u64> {
        let number = u64::from(cluster).checked_sub(u64::from(FIRST)).filter(|number| *number < self.count);
        number
            .map(|number| self.content + number * self.cluster)
            .ok_or_else(|| damaged("a cluster lies outside"))
    }

    /// The cluster after one; `None`: it is the last.
    fn next(&self, cluster: u32) -> io::Result<Option<u32>> {
        let next = u32::from_le_bytes(self.range.array(self.table + u64::from(cluster) * 4)?) & 0x0fff_ffff;
        Ok((next < END).then_some(next))
    }

    /// First cluster and size of what has a name in a directory.
    fn find(&self, directory: u32, name: &str) -> io::Result<Option<(u32, u32)>> {
        let mut content = Vec::new();
        let mut next = Some(directory);
        for _ in 0..DIRECTORY {
            let Some(cluster) = next else { break };
            let start = content.len();
            content.resize(start + usize::try_from(self.cluster).unwrap_or(0), 0);
            self.range.exact(&mut content[start..], self.place(cluster)?)?;
            next = self.next(cluster)?;
        }
        let (entries, _) = content.as_chunks::<ENTRY>();
        let mut long: Vec<u16> = Vec::new();
        for entry in entries {
            match (entry[0], entry[11]) {
                (0, _) => break,
                // Gone, or the volume's label.
                (0xe5, _) | (_, LABEL) => long.clear(),
                (_, LONG) => {
                    let units = UNITS.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
                    long.splice(..0, units.into_iter().filter(|unit| !matches!(unit, 0 | 0xffff)));
                }
                _ => {
                    let own = if long.is_empty() { short(entry) } else { String::from_utf16_lossy(&long) };
                    long.clear();
                    if own.eq_ignore_ascii_case(name) {
                        let cluster = u32::from_le_bytes([entry[26], entry[27], entry[20], entry[21]]);
                        return Ok(Some((
                            cluster,
                            u32::from_le_bytes([entry[28], entry[29], entry[30], entry[31]]),
                        )));
                    }
                }
            }
        }
        Ok(None)
    }

    fn digest(&self, first: u32, size: u32) -> io::Result<(Digest, u64)> {
        let (mut hasher, mut left, mut next) = (Hasher::new(), u64::from(size), Some(first));
        let mut buffer = vec![0; usize::try_from(self.cluster).unwrap_or(0)];
        while left > 0 {
            let cluster = next.ok_or_else(|| damaged("a file ends too early"))?;
            let count = left.min(self.cluster);
            let piece = &mut buffer[..usize::try_from(count).unwrap_or(0)];
            self.range.exact(piece, self.place(cluster)?)?;
            hasher.update(piece);
            left -= count;
            next = self.next(cluster)?;
        }
        Ok((hasher.finish(), u64::from(size)))
    }
}

/// A name of eight and three characters.
fn short(entry: &[u8; ENTRY]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (stem, extension) = (text(&entry[..8]), text(&entry[8..11]));
    if extension.is_empty() { stem } else { format!("{stem}.{extension}") }
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
