//! A stored archive, plain or compressed: its digest, its content's digest, and what its members are.

use std::{
    fs::File,
    io::{self, BufReader, Read},
};

use super::{
    contents::{Contents, Fault},
    members,
};
use crate::{
    build::write::{Content, compress::Compression},
    digest::Hasher,
};

/// Most bytes that come out for each that goes in, once there are many. Trees have 3 to 4.
const RATIO: u64 = 400;
/// Below so many bytes the ratio does not matter.
const RATIO_FROM: u64 = 64 << 20;
/// Largest window of zstd that is read, as a power of two: that of the level archives are written with is 2 MiB.
const WINDOW: u32 = 27;

/// What was read.
pub(super) struct Archived {
    /// The file as it is stored, read to its end.
    pub(super) stored: Content,
    /// The archive in it; `None` where reading stopped before its end.
    pub(super) unpacked: Option<Content>,
    /// Why it did.
    pub(super) fault: Option<Fault>,
}

/// How a file is compressed, by its first bytes.
pub(super) fn compression(first: &[u8]) -> Compression {
    match first {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x1f, 0x8b, ..] => Compression::Gzip,
        _ => Compression::None,
    }
}

/// Reads a file that holds an archive, into `contents`.
///
/// # Errors
/// The file itself cannot be read.
pub(super) fn read(file: File, compression: Compression, contents: &mut Contents) -> io::Result<Archived> {
    let bound = file.metadata()?.len().saturating_mul(RATIO).max(RATIO_FROM);
    let mut stored = Tallied::new(file);
    let (unpacked, fault) = {
        let input = BufReader::with_capacity(128 << 10, &mut stored);
        match compression {
            Compression::None => through(input, u64::MAX, contents),
            Compression::Gzip => through(flate2::bufread::MultiGzDecoder::new(input), bound, contents),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input)?;
                decoder.window_log_max(WINDOW)?;
                through(decoder, bound, contents)
            }
        }
    };
    if let Some(fault) = stored.fault.take() {
        return Err(fault);
    }
    io::copy(&mut stored, &mut io::sink())?;
    // A bomb's size says nothing of where it stopped.
    let fault = match fault {
        Some(Fault::Read(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
            Some(Fault::Refused(format!("it unpacks to more than {RATIO} times its size, as a bomb does")))
        }
        other => other,
    };
    Ok(Archived { stored: stored.content(), unpacked, fault })
}

/// Reads an archive to its end.
fn through(reader: impl Read, bound: u64, contents: &mut Contents) -> (Option<Content>, Option<Fault>) {
    let mut reader = Tallied::new(reader);
    reader.bound = bound;
    match members::read(&mut reader, contents) {
        Ok(()) => (Some(reader.content()), None),
        Err(fault) => (None, Some(fault)),
    }
}

/// A reader that knows what came through it, and why it failed.
struct Tallied<R> {
    reader: R,
    hasher: Hasher,
    size: u64,
    /// Most bytes that may come.
    bound: u64,
    fault: Option<io::Error>,
}

impl<R: Read> Tallied<R> {
    fn new(reader: R) -> Self {
        Self { reader, hasher: Hasher::new(), size: 0, bound: u64::MAX, fault: None }
    }

    fn content(self) -> Content {
        Content { digest: self.hasher.finish(), size: self.size }
    }
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.reader.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let again = io::Error::new(error.kind(), error.to_string());
                self.fault = Some(error);
                return Err(again);
            }
        };
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        if self.size > self.bound {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(count)
    }
}
