//! The tree on an ext4 (Linux, Documentation/filesystems/ext4), as far as `build` writes one: extents, no inline data,
//! no encryption, and a journal that has nothing to replay. Checksums of its metadata are not asked: what differs there
//! shows in what is read.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use super::{
    contents::{Contents, Fault, Put, shown},
    disk::Range,
};

/// Where the superblock is.
const SUPERBLOCK: u64 = 1024;
/// Incompatible features that are understood: types in directories, extents, 64 bits, flexible groups.
const UNDERSTOOD: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// The journal has something to replay.
const RECOVER: u32 = 0x4;
/// The inode's blocks are a tree of extents.
const EXTENTS: u32 = 0x8_0000;
/// The top directory's inode.
const TOP: u32 = 2;
/// Most levels of an extent tree.
const DEPTH: u16 = 5;
/// Most extents of a file: far above those of a file written once.
const MOST_EXTENTS: usize = 1 << 20;
/// Largest directory, in bytes.
const DIRECTORY: u64 = 64 << 20;
/// Longest link that is not in its inode.
const LINK: u64 = 4096;

/// A file system.
struct Volume<'s> {
    range: Range<'s>,
    block: u64,
    inodes: u32,
    per_group: u32,
    inode_size: u64,
    descriptors: u64,
    descriptor_size: u64,
}

/// What is known of a file.
struct Inode {
    mode: u16,
    links: u16,
    size: u64,
    flags: u32,
    /// The root of its extents, or a short link's target.
    data: [u8; 60],
}

/// A run of blocks: the first in the file, how many, the first on disk (`None`: zeros).
type Extent = (u64, u64, Option<u64>);

/// Reads a whole tree into `contents`.
///
/// # Errors
/// Where and why reading stopped.
pub(super) fn read(range: Range<'_>, contents: &mut Contents) -> Result<(), Fault> {
    let volume = Volume::open(range)?;
    let mut first: HashMap<u32, String> = HashMap::new();
    let mut todo = vec![(String::new(), TOP)];
    while let Some((path, number)) = todo.pop() {
        let inode = volume.inode(number)?;
        let within = |fault: Fault| match fault {
            Fault::Damaged(why) => Fault::Damaged(format!("{why}, at `/{}`", shown(&path))),
            other => other,
        };
        match inode.mode >> 12 {
            4 => {
                if first.insert(number, path.clone()).is_some() {
                    return Err(Fault::Refused(format!(
                        "`/{}` is a directory that is there twice",
                        shown(&path)
                    )));
                }
                contents.put(&path, Put::Directory, &mut io::empty())?;
                for (name, child) in volume.children(&inode).map_err(within)? {
                    let below = if path.is_empty() { name } else { format!("{path}/{name}") };
                    todo.push((below, child));
                }
            }
            8 => {
                if let Some(to) = first.get(&number) {
                    contents.put(&path, Put::Hard(to.clone()), &mut io::empty())?;
                    continue;
                }
                let mut content = volume.open_file(&inode).map_err(within)?;
                contents.put(&path, Put::File(inode.size), &mut content).map_err(within)?;
                if inode.links > 1 {
                    first.insert(number, path);
                }
            }
            10 => {
                let target = volume.target(&inode).map_err(within)?;
                contents.put(&path, Put::Link(target), &mut io::empty())?;
            }
            1 | 2 | 6 | 12 => contents.put(&path, Put::Other, &mut io::empty())?,
            _ => return Err(Fault::Damaged(format!("`/{}` is of no kind", shown(&path)))),
        }
    }
    Ok(())
}

impl<'s> Volume<'s> {
    fn open(range: Range<'s>) -> Result<Self, Fault> {
        let superblock: [u8; 1024] = range.array(SUPERBLOCK)?;
        let features = long(&superblock, 0x60);
        if features & RECOVER != 0 {
            return Err(Fault::Refused("it was mounted, and its journal has yet to be replayed".to_owned()));
        }
        let block = 1024_u64.checked_shl(long(&superblock, 0x18)).unwrap_or(0);
        let descriptor_size = if features & 0x80 == 0 { 32 } else { u64::from(short(&superblock, 0xfe)) };
        let volume = Self {
            range,
            block,
            inodes: long(&superblock, 0),
            per_group: long(&superblock, 0x28),
            inode_size: u64::from(short(&superblock, 0x58)),
            descriptors: (u64::from(long(&superblock, 0x14)) + 1).saturating_mul(block),
            descriptor_size,
        };
        let fits = (1024..=65_536).contains(&block)
            && volume.per_group > 0
            && (128..=block).contains(&volume.inode_size)
            && (32..=1024).contains(&descriptor_size)
            && features & !UNDERSTOOD == 0;
        if fits { Ok(volume) } else { Err(Fault::Refused("it is no ext4 that bedplate writes".to_owned())) }
    }

    fn inode(&self, number: u32) -> Result<Inode, Fault> {
        let broken = || Fault::Damaged(format!("there is no inode {number}"));
        let index = number.checked_sub(1).filter(|_| number <= self.inodes).ok_or_else(broken)?;
        let descriptor = self.descriptors + u64::from(index / self.per_group) * self.descriptor_size;
        let mut group = [0; 64];
        let length = usize::try_from(self.descriptor_size.min(64)).unwrap_or(64);
        self.range.exact(&mut group[..length], descriptor)?;
        let table = u64::from(long(&group, 8)) | (u64::from(long(&group, 0x28)) << 32);
        let place = table
            .checked_mul(self.block)
            .and_then(|table| table.checked_add(u64::from(index % self.per_group) * self.inode_size));
        let bytes: [u8; 128] = self.range.array(place.ok_or_else(broken)?)?;
        let mut data = [0; 60];
        data.copy_from_slice(&bytes[0x28..0x64]);
        Ok(Inode {
            mode: short(&bytes, 0),
            links: short(&bytes, 0x1a),
            size: u64::from(long(&bytes, 4)) | (u64::from(long(&bytes, 0x6c)) << 32),
            flags: long(&bytes, 0x20),
            data,
        })
    }

    /// The runs of a file's blocks, in its order.
    fn extents(&self, inode: &Inode) -> Result<Vec<Extent>, Fault> {
        if inode.flags & EXTENTS == 0 {
            return if inode.size == 0 { Ok(Vec::new()) } else { Err(damaged("a file without extents")) };
        }
        let mut extents = Vec::new();
        let mut todo = vec![(inode.data.to_vec(), None)];
        while let Some((node, level)) = todo.pop() {
            let (count, depth) = (usize::from(short(&node, 2)), short(&node, 6));
            if short(&node, 0) != 0xf30a || depth > DEPTH || level.is_some_and(|level| level != depth) {
                return Err(damaged("a broken tree of extents"));
            }
            let entries = node.get(12..12 + count * 12).ok_or_else(|| damaged("a broken tree of extents"))?;
            for entry in entries.chunks(12).rev() {
                let place = if depth == 0 {
                    u64::from(long(entry, 8)) | (u64::from(short(entry, 6)) << 32)
                } else {
                    u64::from(long(entry, 4)) | (u64::from(short(entry, 8)) << 32)
                };
                if depth == 0 {
                    let length = u64::from(short(entry, 4));
                    // Above this it is allocated and not written: zeros.
                    let extent =
                        if length > 0x8000 { (length - 0x8000, None) } else { (length, Some(place)) };
                    extents.push((u64::from(long(entry, 0)), extent.0, extent.1));
                } else {
                    let mut below = vec![0; usize::try_from(self.block).unwrap_or(0)];
                    self.range.exact(&mut below, place.saturating_mul(self.block))?;
                    todo.push((below, Some(depth - 1)));
                }
                if extents.len() + todo.len() > MOST_EXTENTS {
                    return Err(damaged("too many extents"));
                }
            }
        }
        extents.sort_unstable();
        Ok(extents)
    }

    fn open_file(&self, inode: &Inode) -> Result<Content<'_>, Fault> {
        Ok(Content { volume: self, extents: self.extents(inode)?, size: inode.size, at: 0 })
    }

    /// Names in a directory, in its order, with their inodes.
    fn children(&self, inode: &Inode) -> Result<Vec<(String, u32)>, Fault> {
        if inode.size > DIRECTORY {
            return Err(damaged("a directory that is too large"));
        }
        let mut content = Vec::new();
        self.open_file(inode)?.read_to_end(&mut content)?;
        let mut children = Vec::new();
        for block in content.chunks(usize::try_from(self.block).unwrap_or(usize::MAX)) {
            let mut rest = block;
            while rest.len() >= 8 {
                let (number, length, name) =
                    (long(rest, 0), usize::from(short(rest, 4)), usize::from(rest[6]));
                if length < 8 || length > rest.len() || name + 8 > length {
                    return Err(damaged("a broken directory"));
                }
                let name = &rest[8..8 + name];
                if number != 0 && !matches!(name, b"." | b"..") {
                    let name = std::str::from_utf8(name).map_err(|_| damaged("a name that is not UTF-8"))?;
                    if name.is_empty() || name.contains('/') {
                        return Err(damaged("a name that is none"));
                    }
                    children.push((name.to_owned(), number));
                }
                rest = &rest[length..];
            }
        }
        Ok(children)
    }

    fn target(&self, inode: &Inode) -> Result<String, Fault> {
        if inode.size > LINK {
            return Err(damaged("a link that is too long"));
        }
        let mut bytes = Vec::new();
        if inode.flags & EXTENTS == 0 && inode.size < 60 {
            bytes.extend_from_slice(&inode.data[..usize::try_from(inode.size).unwrap_or(0)]);
        } else {
            self.open_file(inode)?.read_to_end(&mut bytes)?;
        }
        String::from_utf8(bytes).map_err(|_| damaged("a link that is not UTF-8"))
    }
}

/// A file's content, holes as zeros.
struct Content<'v> {
    volume: &'v Volume<'v>,
    /// In the file's order.
    extents: Vec<Extent>,
    size: u64,
    at: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at).min(buffer.len() as u64);
        if left == 0 {
            return Ok(0);
        }
        let block = self.at / self.volume.block;
        let next = self.extents.partition_point(|(first, count, _)| first + count <= block);
        let (until, place) = match self.extents.get(next) {
            Some((first, count, place)) if *first <= block => {
                let within = self.at - first * self.volume.block;
                let start = place.map(|place| place.saturating_mul(self.volume.block).saturating_add(within));
                ((first + count) * self.volume.block, start)
            }
            Some((first, ..)) => (first * self.volume.block, None),
            None => (self.size, None),
        };
        let count = left.min(until.saturating_sub(self.at));
        let piece = &mut buffer[..usize::try_from(count).unwrap_or(0)];
        match place {
            Some(place) => self.volume.range.exact(piece, place)?,
            None => piece.fill(0),
        }
        self.at += count;
        Ok(piece.len())
    }
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(short(bytes, at)) | (u32::from(short(bytes, at + 2)) << 16)
}

fn damaged(what: &str) -> Fault {
    Fault::Damaged(format!("its file system has {what}"))
}
