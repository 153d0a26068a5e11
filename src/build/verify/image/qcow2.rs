//! The disk in a qcow2 as `build` writes it (QEMU, docs/interop/qcow2.rst): version 3, clusters of 64 KiB, plain or of
//! zstd, no backing file, no snapshots, nothing encrypted.

use std::{cell::RefCell, io};

use super::disk::Source;
use crate::build::write::disk::{
    layout::SECTOR,
    qcow2::{CLUSTER, CLUSTER_BITS, COMPRESSED, COMPRESSION_TYPE, HEADER, L2_ENTRIES, SECTORS_SHIFT},
};

/// Where a cluster or table is, in an entry: bits 9 to 55.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
/// Largest disk: that of an image definition.
const LARGEST: u64 = 16 << 40;

/// A disk in a qcow2.
pub(super) struct Disk<'f> {
    file: &'f dyn Source,
    size: u64,
    l1: Vec<u64>,
    held: RefCell<Held>,
}

/// What was read last.
struct Held {
    /// Number of an L2 table, and its entries.
    table: Option<(u64, Vec<u64>)>,
    /// Number of a cluster of the disk, and its content.
    cluster: Option<u64>,
    content: Vec<u8>,
}

impl<'f> Disk<'f> {
    /// Reads the header and the first table.
    ///
    /// # Errors
    /// It is none that `build` writes; the file cannot be read.
    pub(super) fn open(file: &'f dyn Source) -> io::Result<Self> {
        let mut header = [0; HEADER as usize];
        file.read_at(&mut header, 0)?;
        let short =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| (u64::from(short(at)) << 32) | u64::from(short(at + 4));
        let size = long(24);
        let clusters = size.div_ceil(CLUSTER);
        let fits = header.starts_with(b"QFI\xfb")
            && short(4) == 3
            && long(8) == 0
            && short(20) == CLUSTER_BITS
            && short(32) == 0
            && size <= LARGEST
            && u64::from(short(36)) == clusters.div_ceil(L2_ENTRIES)
            && long(72) & !COMPRESSION_TYPE == 0;
        if !fits {
            return Err(damaged("its header is none of a qcow2 that bedplate writes"));
        }
        let l1 = entries(file, long(40), u64::from(short(36)))?;
        let held = Held { table: None, cluster: None, content: vec![0; CLUSTER as usize] };
        Ok(Self { file, size, l1, held: RefCell::new(held) })
    }

    /// Has the content of a cluster of the disk at hand.
    fn load(&self, held: &mut Held, number: u64) -> io::Result<()> {
        if held.cluster == Some(number) {
            return Ok(());
        }
        held.cluster = None;
        let (above, below) = (number / L2_ENTRIES, number % L2_ENTRIES);
        if held.table.as_ref().is_none_or(|(at, _)| *at != above) {
            let place =
                usize::try_from(above).ok().and_then(|above| self.l1.get(above)).copied().unwrap_or(0)
                    & PLACE;
            let table = if place == 0 { Vec::new() } else { entries(self.file, place, L2_ENTRIES)? };
            held.table = Some((above, table));
        }
        let entry = held
            .table
            .as_ref()
            .and_then(|(_, table)| table.get(usize::try_from(below).ok()?))
            .copied()
            .unwrap_or(0);
        if entry & COMPRESSED != 0 {
            let rest = entry & !(COMPRESSED | (1 << 63));
            let place = rest & ((1 << SECTORS_SHIFT) - 1);
            let sectors = (rest >> SECTORS_SHIFT) + 1;
            let end = (place / SECTOR + sectors) * SECTOR;
            let end = end.min(self.file.size());
            let length = end.checked_sub(place).filter(|length| *length <= 2 * CLUSTER);
            let length = length.ok_or_else(|| damaged("a compressed cluster lies outside the file"))?;
            let mut packed = vec![0; usize::try_from(length).unwrap_or(0)];
            self.file.read_at(&mut packed, place)?;
            unpack(&packed, &mut held.content)?;
        } else if entry & PLACE == 0 || entry & 1 == 1 {
            held.content.fill(0);
        } else {
            self.file.read_at(&mut held.content, entry & PLACE)?;
        }
        held.cluster = Some(number);
        Ok(())
    }
}

impl Source for Disk<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if at.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut held = self.held.borrow_mut();
        let (mut at, mut left) = (at, buffer);
        while !left.is_empty() {
            self.load(&mut held, at / CLUSTER)?;
            let from = usize::try_from(at % CLUSTER).unwrap_or(0);
            let count = (CLUSTER as usize - from).min(left.len());
            let (now, rest) = left.split_at_mut(count);
            now.copy_from_slice(&held.content[from..from + count]);
            at += count as u64;
            left = rest;
        }
        Ok(())
    }
}

/// A frame of zstd that gives one cluster; what follows it in its last sector is passed over.
fn unpack(packed: &[u8], content: &mut [u8]) -> io::Result<()> {
    let frame = zstd::zstd_safe::find_frame_compressed_size(packed)
        .map_err(|_| damaged("a compressed cluster cannot be unpacked"))?;
    let count = zstd::bulk::decompress_to_buffer(&packed[..frame.min(packed.len())], content)
        .map_err(|_| damaged("a compressed cluster cannot be unpacked"))?;
    if count == content.len() { Ok(()) } else { Err(damaged("a compressed cluster is too small")) }
}

fn entries(file: &dyn Source, place: u64, count: u64) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; usize::try_from(count * 8).map_err(|_| damaged("a table is too large"))?];
    file.read_at(&mut bytes, place)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_be_bytes(*word)).collect())
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
