//! A part of a disk image as a file of its own, and copies that keep holes.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use rustix::{fs::SeekFrom as Find, io::Errno};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// The bytes of an image from `start` on, `size` of them: a partition.
pub(super) struct Window<'a> {
    file: &'a File,
    start: u64,
    size: u64,
    at: u64,
}

impl<'a> Window<'a> {
    /// `start` and `size` in bytes; the file has at least as many.
    pub(super) fn new(file: &'a File, start: u64, size: u64) -> Self {
        Self { file, start, size, at: 0 }
    }

    /// As many of `wanted` bytes as there are from here to the end.
    fn left(&self, wanted: usize) -> usize {
        let left = self.size.saturating_sub(self.at);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.left(buffer.len());
        let read = self.file.read_at(&mut buffer[..count], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let count = self.left(content.len());
        let written = self.file.write_at(&content[..count], self.start + self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Gives each piece of `file` that may hold something but zeros to `take`, with its place. Pieces begin at multiples
/// of `unit`, a power of two, and end at one or at the end of the file; a unit of zeros alone is never given.
pub(super) fn pieces<E: From<io::Error>>(
    file: &File,
    unit: usize,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let size = file.metadata()?.len();
    let mut buffer = vec![0; PIECE.max(unit)];
    let step = buffer.len() as u64;
    let mut at = 0;
    while at < size {
        // Whole pieces only, so that it does not matter where the file system keeps its holes.
        at = match rustix::fs::seek(file, Find::Data(at)) {
            Ok(data) => data - data % step,
            Err(Errno::NXIO) => break,
            // No holes on this file system.
            Err(Errno::INVAL | Errno::NOTSUP) => at,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let count = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..count];
        file.read_exact_at(piece, at)?;
        for run in runs(piece, unit) {
            take(at + run.start as u64, &piece[run])?;
        }
        at += count as u64;
    }
    Ok(())
}

/// Where in `piece` units follow one another that are not all zeros.
fn runs(piece: &[u8], unit: usize) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (number, content) in piece.chunks(unit).enumerate() {
        if is_zero(content) {
            continue;
        }
        let start = number * unit;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += content.len(),
            _ => runs.push(start..start + content.len()),
        }
    }
    runs
}

/// True for zeros alone.
pub(super) fn is_zero(content: &[u8]) -> bool {
    let (words, rest) = content.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Copies `from` into the bytes of `to` that begin at `start`; what is zero is left a hole.
pub(super) fn copy(from: &File, to: &File, start: u64) -> io::Result<()> {
    pieces(from, 4096, |at, content| to.write_all_at(content, start + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_zeros_out_wherever_the_holes_are() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * (PIECE as u64) + 5000).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(&[0; 9000], 20_000).unwrap();
        file.write_all_at(b"middle", PIECE as u64 + 8190).unwrap();
        file.write_all_at(b"end", 3 * (PIECE as u64) + 4997).unwrap();
        let mut found = Vec::new();
        pieces::<io::Error>(&file, 4096, |at, content| {
            found.push((at, content.len()));
            Ok(())
        })
        .unwrap();
        let piece = PIECE as u64;
        assert_eq!(found, [(0, 4096), (piece + 4096, 8192), (3 * piece + 4096, 904)]);
        let copied = tempfile::tempfile().unwrap();
        copy(&file, &copied, 512).unwrap();
        let mut text = [0; 6];
        copied.read_exact_at(&mut text, 512 + PIECE as u64 + 8190).unwrap();
        assert_eq!(&text, b"middle");
    }

    #[test]
    fn a_window_ends_where_its_partition_does() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let mut window = Window::new(&file, 10, 5);
        assert!(window.write_all(b"123456").is_err());
        assert_eq!(window.seek(SeekFrom::End(-2)).unwrap(), 3);
        let mut text = String::new();
        window.read_to_string(&mut text).unwrap();
        assert_eq!(text, "45");
    }
}
