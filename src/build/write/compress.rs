//! Compression whose result depends on the content alone: not on the number of threads, nor on the pieces the content
//! comes in, nor on the processor.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    num::NonZero,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use flate2::{Compress, Crc, FlushCompress, Status};
use zstd::zstd_safe::CParameter;

use super::failed;
use crate::error::Result;

/// How an archive is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As it is.
    None,
    /// gzip (RFC 1952): every container engine reads it.
    Gzip,
    /// zstd (RFC 8878): faster and smaller; Docker reads it from version 23 on.
    Zstd,
}

impl Compression {
    /// The end of a file name, after `.tar`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// Most threads: each of zstd's holds about 20 MiB, and reading the tree keeps no more of them busy.
const THREADS: u32 = 16;

/// zstd's own default: it writes faster than packages are unpacked. At this level no match finder is used whose choice
/// depends on the processor.
const ZSTD_LEVEL: i32 = 3;
/// Bytes each of zstd's jobs compresses: its default for the level's window of 2 MiB, stated so that it stays.
const ZSTD_JOB: u32 = 8 << 20;
/// How much of the job before a job may refer to, as zstd counts it: an eighth of the window, its default.
const ZSTD_OVERLAP: u32 = 6;

/// zlib's default.
const GZIP_LEVEL: u32 = 6;
/// Bytes that are compressed on their own. Smaller ones cost size: matches do not reach over the edge.
const GZIP_BLOCK: usize = 1 << 20;
/// Blocks each thread may be behind.
const GZIP_BEHIND: usize = 2;

/// A writer that compresses into another one. Only [`Compressor::finish`] ends what it wrote; nothing is to be flushed
/// before, as a flush leaves a mark in what is written.
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    None(W),
    Gzip(Gzip<W>),
    Zstd(Box<zstd::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    /// Compresses with this many threads, at most 16.
    ///
    /// # Errors
    /// No thread or memory is to be had, or `out` fails.
    pub fn new(compression: Compression, threads: NonZero<u32>, out: W) -> Result<Self> {
        let threads = threads.get().min(THREADS);
        let made = match compression {
            Compression::None => Ok(Inner::None(out)),
            Compression::Gzip => Gzip::new(threads, out).map(Inner::Gzip),
            Compression::Zstd => zstd_of(threads, out).map(|encoder| Inner::Zstd(Box::new(encoder))),
        };
        made.map(Self).map_err(failed)
    }

    /// Writes what is left and gives the writer below back.
    ///
    /// # Errors
    /// That writer's.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::None(out) => Ok(out),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::None(out) => out.write(bytes),
            Inner::Gzip(gzip) => gzip.take(bytes).map(|()| bytes.len()),
            Inner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Always with a worker: what one and many give is the same, and is not what none gives.
fn zstd_of<W: Write>(threads: u32, out: W) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
    encoder.set_parameter(CParameter::NbWorkers(threads))?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    encoder.set_parameter(CParameter::OverlapSizeLog(ZSTD_OVERLAP))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// One gzip member of blocks that are compressed apart and end at a byte's edge (RFC 1951, 3.2.4: an empty stored
/// block), so that they can be joined.
struct Gzip<W> {
    out: W,
    workers: Vec<Worker>,
    /// The worker that gets the next block.
    next: usize,
    /// Workers whose results are to be written, in order.
    behind: VecDeque<usize>,
    block: Vec<u8>,
    checksum: Crc,
}

/// A thread that compresses blocks in the order it gets them, and ends when nobody gives it any more.
struct Worker {
    blocks: Sender<Block>,
    results: Receiver<io::Result<Vec<u8>>>,
}

struct Block {
    content: Vec<u8>,
    last: bool,
}

impl Worker {
    fn start() -> io::Result<Self> {
        let (blocks, given) = channel::<Block>();
        let (done, results) = channel();
        thread::Builder::new().name("gzip".to_owned()).spawn(move || {
            for block in given {
                if done.send(deflate(&block)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { blocks, results })
    }
}

impl<W: Write> Gzip<W> {
    fn new(threads: u32, mut out: W) -> io::Result<Self> {
        let workers = (0..threads).map(|_| Worker::start()).collect::<io::Result<_>>()?;
        // RFC 1952, 2.3: deflate, no flags, no time, no hint about the level, an unknown file system.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
        let block = Vec::with_capacity(GZIP_BLOCK);
        Ok(Self { out, workers, next: 0, behind: VecDeque::new(), block, checksum: Crc::new() })
    }

    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(GZIP_BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == GZIP_BLOCK {
                self.give(false)?;
            }
        }
        Ok(())
    }

    /// Gives the block to a worker, and waits for an earlier one where too many are behind.
    fn give(&mut self, last: bool) -> io::Result<()> {
        while self.behind.len() >= self.workers.len() * GZIP_BEHIND {
            self.collect()?;
        }
        let content = mem::replace(&mut self.block, Vec::with_capacity(GZIP_BLOCK));
        self.workers[self.next].blocks.send(Block { content, last }).map_err(|_| gone())?;
        self.behind.push_back(self.next);
        self.next = (self.next + 1) % self.workers.len();
        Ok(())
    }

    /// Writes the earliest block that is not written; false where all are.
    fn collect(&mut self) -> io::Result<bool> {
        let Some(worker) = self.behind.pop_front() else { return Ok(false) };
        let block = self.workers[worker].results.recv().map_err(|_| gone())??;
        self.out.write_all(&block)?;
        Ok(true)
    }

    fn finish(mut self) -> io::Result<W> {
        self.give(true)?;
        while self.collect()? {}
        self.out.write_all(&self.checksum.sum().to_le_bytes())?;
        // The size modulo 2^32, which is what the checksum counts.
        self.out.write_all(&self.checksum.amount().to_le_bytes())?;
        Ok(self.out)
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that compresses ended")
}

fn deflate(block: &Block) -> io::Result<Vec<u8>> {
    let mut deflater = Compress::new(flate2::Compression::new(GZIP_LEVEL), false);
    let how = if block.last { FlushCompress::Finish } else { FlushCompress::Sync };
    // More than what cannot be compressed takes: one pass, as a rule.
    let mut out = Vec::with_capacity(block.content.len() + block.content.len() / 8 + 1024);
    loop {
        let taken = usize::try_from(deflater.total_in()).unwrap_or(usize::MAX).min(block.content.len());
        let status = deflater.compress_vec(&block.content[taken..], &mut out, how)?;
        let all = deflater.total_in() == block.content.len() as u64;
        match status {
            Status::StreamEnd => return Ok(out),
            Status::Ok | Status::BufError if !block.last && all && out.len() < out.capacity() => {
                return Ok(out);
            }
            Status::Ok | Status::BufError => out.reserve(64 << 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Content that compresses by about half, of any size.
    fn content(size: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_u32;
        let mut out = Vec::with_capacity(size);
        while out.len() < size {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let word = state.to_le_bytes();
            out.extend_from_slice(&word[..2]);
            out.extend_from_slice(b"the same words");
        }
        out.truncate(size);
        out
    }

    fn compressed(compression: Compression, threads: u32, pieces: usize, content: &[u8]) -> Vec<u8> {
        let mut writer = Compressor::new(compression, NonZero::new(threads).unwrap(), Vec::new()).unwrap();
        for piece in content.chunks(pieces) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn threads_and_pieces_change_nothing() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            // More than two of zstd's jobs.
            let content = content(20 << 20);
            let one = compressed(compression, 1, 256 << 10, &content);
            assert!(one.len() < content.len() * 3 / 4);
            for (threads, pieces) in [(2, 256 << 10), (4, 1000), (1, 512), (3, 20 << 20), (100, 77_777)] {
                let other = compressed(compression, threads, pieces, &content);
                assert!(one == other, "{compression:?}, {threads} threads, {pieces} bytes a piece");
            }
        }
    }

    #[test]
    fn others_read_it() {
        for size in [0, 1, GZIP_BLOCK - 1, GZIP_BLOCK, GZIP_BLOCK + 1, 3 * GZIP_BLOCK] {
            let content = content(size);
            let mut read = Vec::new();
            let gzip = compressed(Compression::Gzip, 2, 4096, &content);
            // One member only: not all readers go on after the first.
            let mut decoder = flate2::read::GzDecoder::new(gzip.as_slice());
            decoder.read_to_end(&mut read).unwrap();
            assert!(read == content, "{size}");
            let zst = compressed(Compression::Zstd, 2, 4096, &content);
            assert!(zstd::decode_all(zst.as_slice()).unwrap() == content, "{size}");
            assert!(compressed(Compression::None, 2, 4096, &content) == content, "{size}");
        }
    }

    #[test]
    fn noise_takes_no_more_room() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(3 << 20)
        .collect();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let out = compressed(compression, 2, 4096, &noise);
            assert!(out.len() < noise.len() + noise.len() / 500, "{compression:?}: {}", out.len());
        }
    }

    #[test]
    fn a_writer_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let threads = NonZero::new(2).unwrap();
        assert!(Compressor::new(Compression::Gzip, threads, Full).is_err());
        let mut writer = Compressor::new(Compression::Zstd, threads, Full).unwrap();
        let wrote = writer.write_all(&content(1 << 20));
        assert!(wrote.is_err() || writer.finish().is_err());
    }
}
