//! qcow2, version 3, from a raw image (QEMU, docs/interop/qcow2.rst). Only what is not zero is kept, each cluster
//! compressed on its own where that helps.
//!
//! A new file has: the header; clusters of the disk; the tables that say where these are (L2, then L1); how often
//! each cluster of the file is used (refcount blocks, then their table). QEMU may write to it as to any other.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use super::{layout::SECTOR, sparse::pieces};
use crate::{
    error::{Doing, Error, Result},
    system::{
        files::{create_output, open_input},
        signals,
    },
};

/// Bits of a cluster's size: QEMU's own choice, 64 KiB.
pub(in crate::build) const CLUSTER_BITS: u32 = 16;
pub(in crate::build) const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of an L2 table: a cluster of 8 bytes each.
pub(in crate::build) const L2_ENTRIES: u64 = CLUSTER / 8;
/// Entries of a refcount block: a cluster of 2 bytes each.
const REFCOUNTS: u64 = CLUSTER / 2;
/// Used once: QEMU may write to it where it is.
const COPIED: u64 = 1 << 63;
pub(in crate::build) const COMPRESSED: u64 = 1 << 62;
/// How far the number of sectors stands to the left in the entry of a compressed cluster.
pub(in crate::build) const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
/// Bytes of the header, with the field for the kind of compression.
pub(in crate::build) const HEADER: u32 = 112;
/// The incompatible feature "compression type".
pub(in crate::build) const COMPRESSION_TYPE: u64 = 1 << 3;
const ZSTD: u8 = 1;
/// Clusters that are compressed at the same time: 8 MiB of them.
const BATCH: usize = 128;

/// How clusters are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// By zstd at its level 3, where that makes them smaller. QEMU 5.1 or later reads it.
    Zstd,
}

/// Writes the raw image `raw` as qcow2 to `to`, whole or not at all. The same image gives the same bytes, on any number
/// of processors. `raw` may not be written to meanwhile.
///
/// # Errors
/// `raw` cannot be read, is empty or no multiple of 512 bytes; `to` cannot be written.
pub fn convert(raw: &Path, to: &Path, compression: Compression) -> Result<()> {
    let (from, size) = open_input(raw)?;
    if size == 0 || size % SECTOR != 0 {
        return Err(Error::usage(format!("`{}` is no raw disk image", raw.display()))
            .hint("its size is a multiple of 512 bytes"));
    }
    let doing = || format!("writing `{}`", to.display());
    let mut output = create_output(to, 0o644)?;
    {
        let file = output.file()?;
        file.seek(SeekFrom::Start(CLUSTER)).doing(doing)?;
        let mut writer = Writer::new(file, size, compression);
        pieces(&from, CLUSTER as usize, |at, content| {
            signals::refuse_heard().map_err(std::io::Error::other)?;
            writer.take(at, content)
        })
        .doing(doing)?;
        writer.finish().doing(doing)?;
    }
    output.commit()
}

struct Writer<'a> {
    file: &'a mut File,
    /// Bytes of the disk.
    size: u64,
    compression: Compression,
    /// Entries of the L2 tables, for the whole disk.
    clusters: Vec<u64>,
    /// How often each cluster of the file is used.
    refcounts: Vec<u16>,
    /// Where the next content comes in the file.
    at: u64,
    /// Clusters that wait for being compressed: number and content.
    waiting: Vec<(usize, Vec<u8>)>,
}

impl<'a> Writer<'a> {
    fn new(file: &'a mut File, size: u64, compression: Compression) -> Self {
        let clusters = usize::try_from(size.div_ceil(CLUSTER)).unwrap_or(usize::MAX);
        Self {
            file,
            size,
            compression,
            clusters: vec![0; clusters],
            refcounts: vec![1],
            at: CLUSTER,
            waiting: Vec::new(),
        }
    }

    /// Takes some clusters of the disk, from the byte `at` on.
    fn take(&mut self, at: u64, content: &[u8]) -> Result<(), std::io::Error> {
        let first = usize::try_from(at / CLUSTER).unwrap_or(usize::MAX);
        for (number, cluster) in content.chunks(CLUSTER as usize).enumerate() {
            // The disk's last cluster may be a part of one.
            let mut whole = cluster.to_vec();
            whole.resize(CLUSTER as usize, 0);
            self.waiting.push((first + number, whole));
            if self.waiting.len() == BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), std::io::Error> {
        let waiting = std::mem::take(&mut self.waiting);
        let compressed = match self.compression {
            Compression::None => vec![None; waiting.len()],
            Compression::Zstd => compress(&waiting)?,
        };
        for ((number, content), smaller) in waiting.into_iter().zip(compressed) {
            self.clusters[number] = match smaller {
                Some(smaller) => {
                    let start = self.at;
                    self.put(&smaller)?;
                    let (first, last) = (start / SECTOR, (self.at - 1) / SECTOR);
                    self.count(first * SECTOR, (last + 1) * SECTOR);
                    COMPRESSED | ((last - first) << SECTORS_SHIFT) | start
                }
                None => self.cluster(&content)? | COPIED,
            };
        }
        Ok(())
    }

    /// Puts content at the start of a cluster of the file, and says where that is.
    fn cluster(&mut self, content: &[u8]) -> Result<u64, std::io::Error> {
        self.align()?;
        let start = self.at;
        self.put(content)?;
        self.align()?;
        self.count(start, self.at);
        Ok(start)
    }

    fn put(&mut self, content: &[u8]) -> Result<(), std::io::Error> {
        self.file.write_all(content)?;
        self.at += content.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> Result<(), std::io::Error> {
        let padding = self.at.next_multiple_of(CLUSTER) - self.at;
        self.put(&vec![0; usize::try_from(padding).unwrap_or_default()])
    }

    /// Counts a use of every cluster that has some of these bytes.
    fn count(&mut self, start: u64, end: u64) {
        let clusters = usize::try_from(end.div_ceil(CLUSTER)).unwrap_or(usize::MAX);
        if self.refcounts.len() < clusters {
            self.refcounts.resize(clusters, 0);
        }
        let first = usize::try_from(start / CLUSTER).unwrap_or(usize::MAX);
        for count in &mut self.refcounts[first..clusters] {
            *count = count.saturating_add(1);
        }
    }

    fn finish(mut self) -> Result<(), std::io::Error> {
        self.flush()?;
        let mut tables = Vec::new();
        for entries in std::mem::take(&mut self.clusters).chunks(L2_ENTRIES as usize) {
            let used = entries.iter().any(|entry| *entry != 0);
            tables.push(if used { self.cluster(&big_endian(entries))? | COPIED } else { 0 });
        }
        let l1 = self.cluster(&big_endian(&tables))?;

        // The blocks count themselves and their table too.
        self.align()?;
        let before = self.at / CLUSTER;
        let (mut blocks, mut table_clusters) = (0, 0);
        loop {
            let needs = (before + blocks + table_clusters).div_ceil(REFCOUNTS);
            let table_needs = needs.div_ceil(CLUSTER / 8);
            if (needs, table_needs) == (blocks, table_clusters) {
                break;
            }
            (blocks, table_clusters) = (needs, table_needs);
        }
        let start = self.at;
        self.count(start, start + (blocks + table_clusters) * CLUSTER);
        for block in std::mem::take(&mut self.refcounts).chunks(REFCOUNTS as usize) {
            let bytes: Vec<u8> = block.iter().flat_map(|count| count.to_be_bytes()).collect();
            self.put(&bytes)?;
            self.align()?;
        }
        let table: Vec<u64> = (0..blocks).map(|block| start + block * CLUSTER).collect();
        let refcount_table = self.at;
        self.put(&big_endian(&table))?;
        self.align()?;

        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend_from_slice(b"QFI\xfb");
        header.extend_from_slice(&3_u32.to_be_bytes());
        header.extend_from_slice(&[0; 12]); // no backing file
        header.extend_from_slice(&CLUSTER_BITS.to_be_bytes());
        header.extend_from_slice(&self.size.to_be_bytes());
        header.extend_from_slice(&[0; 4]); // not encrypted
        header.extend_from_slice(&(tables.len() as u32).to_be_bytes());
        header.extend_from_slice(&l1.to_be_bytes());
        header.extend_from_slice(&refcount_table.to_be_bytes());
        header.extend_from_slice(&(table_clusters as u32).to_be_bytes());
        header.extend_from_slice(&[0; 12]); // no snapshots
        let zstd = self.compression == Compression::Zstd;
        header.extend_from_slice(&if zstd { COMPRESSION_TYPE } else { 0 }.to_be_bytes());
        header.extend_from_slice(&[0; 16]); // no compatible and no autoclear features
        header.extend_from_slice(&4_u32.to_be_bytes()); // refcounts of 16 bits
        header.extend_from_slice(&HEADER.to_be_bytes());
        header.extend_from_slice(&[if zstd { ZSTD } else { 0 }, 0, 0, 0, 0, 0, 0, 0]);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header)
    }
}

/// Each cluster as one frame, `None` where that saves nothing; on all processors.
fn compress(clusters: &[(usize, Vec<u8>)]) -> Result<Vec<Option<Vec<u8>>>, std::io::Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let share = clusters.len().div_ceil(threads).max(1);
    let one = |(_, content): &(usize, Vec<u8>)| {
        let frame = zstd::bulk::compress(content, 3)?;
        Ok((frame.len() as u64 + SECTOR < CLUSTER).then_some(frame))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = clusters
            .chunks(share)
            .map(|share| {
                scope.spawn(move || share.iter().map(one).collect::<Result<Vec<_>, std::io::Error>>())
            })
            .collect();
        let mut all = Vec::with_capacity(clusters.len());
        for thread in running {
            let done = thread.join().map_err(|_| std::io::Error::other("a thread that compresses failed"))?;
            all.extend(done?);
        }
        Ok(all)
    })
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}
