//! Decompression of a member, measured.

use std::{
    cell::Cell,
    io::{self, BufReader, Read},
};

use super::{Limits, ar::Ar, refused};
use crate::error::{Error, Result};

/// Most memory a decompressor may want, in bytes; `xz -9` and `zstd --ultra -22` need half of it or less.
const MEMORY: u64 = 192 << 20;
/// Largest zstd window, as a power of two: 128 MiB, the most that dpkg's own settings give.
const WINDOW: u32 = 27;

/// Counts what comes out of a decompressor and stops a bomb.
pub(super) struct Meter {
    limits: Limits,
    packed: u64,
    unpacked: Cell<u64>,
    fault: Cell<Option<&'static str>>,
}

impl Meter {
    /// `packed`: bytes of the compressed member.
    pub(super) fn new(limits: Limits, packed: u64) -> Self {
        Self { limits, packed, unpacked: Cell::new(0), fault: Cell::new(None) }
    }

    /// Bytes that came out so far.
    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked.get()
    }

    /// Why the meter stopped the reading, if it did.
    pub(super) fn fault(&self, member: &str) -> Option<Error> {
        let limits = self.limits;
        Some(match self.fault.take()? {
            "size" => refused(format!(
                "its `{member}` unpacks to more than {} MiB, which looks like a bomb",
                limits.unpacked >> 20
            )),
            _ => refused(format!(
                "its `{member}` unpacks to more than {} times its {} bytes, which looks like a bomb",
                limits.ratio, self.packed
            )),
        })
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        let total = self.unpacked.get().saturating_add(bytes as u64);
        self.unpacked.set(total);
        let fault = if total > self.limits.unpacked {
            "size"
        } else if total > Limits::RATIO_FROM && total > self.packed.saturating_mul(self.limits.ratio) {
            "ratio"
        } else {
            return Ok(());
        };
        self.fault.set(Some(fault));
        Err(io::Error::other("larger than it may be"))
    }
}

struct Measured<'m, R> {
    reader: R,
    meter: &'m Meter,
}

impl<R: Read> Read for Measured<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.meter.count(read)?;
        Ok(read)
    }
}

/// The present member of `ar`, unpacked as the end of its name says: deb(5) knows gzip, xz, zstd and none, and
/// bzip2 and lzma of long ago.
pub(super) fn unpacked<'r, R: Read>(
    member: &str,
    ar: &'r mut Ar<R>,
    meter: &'r Meter,
) -> Result<impl Read + use<'r, R>> {
    let broken = |error: io::Error| Error::failed("setting up decompression failed").because(error);
    let input = BufReader::with_capacity(64 << 10, ar);
    let reader: Box<dyn Read + 'r> = match member.rsplit_once(".tar").map(|(_, end)| end) {
        Some("") => Box::new(input),
        Some(".gz") => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Some(".xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)
                .map_err(|error| broken(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Some(".zst") => {
            let mut decoder = zstd::Decoder::with_buffer(input).map_err(broken)?;
            decoder.window_log_max(WINDOW).map_err(broken)?;
            Box::new(decoder)
        }
        _ => {
            return Err(refused(format!("its `{member}` is compressed in a way that is not known here"))
                .hint("have it packed again with `dpkg-deb -Zxz`"));
        }
    };
    Ok(Measured { reader: BufReader::with_capacity(128 << 10, reader), meter })
}
