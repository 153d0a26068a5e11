//! A bundle that carries content along: after its own files come `store/sha256/HEX`, in the order of their digests, each
//! in the same form. Such an archive is larger than memory; it is written and read as a stream.

use std::io::{Read, Seek};

use super::{BLOCK, Bundle, MAX_FILE, MAX_FILES, MAX_TOTAL, header, refused};
use crate::{
    digest::Digest,
    error::{Doing as _, Error, Result},
};

/// Where carried content lies in the archive.
const CONTENT: &str = "store/sha256/";
/// Two empty blocks end an archive (POSIX, pax, "ustar interchange format").
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// One carried content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
}

impl Blob {
    /// What comes before its bytes in the archive.
    pub fn head(&self) -> [u8; BLOCK] {
        header(&format!("{CONTENT}{}", self.digest.hex()), self.size)
    }

    /// What comes after its bytes in the archive.
    pub fn padding(&self) -> &'static [u8] {
        const NONE: [u8; BLOCK] = [0; BLOCK];
        &NONE[..(self.size.next_multiple_of(BLOCK as u64) - self.size) as usize]
    }

    /// What it takes in the archive, in bytes.
    pub fn archived(&self) -> u64 {
        BLOCK as u64 + self.size.next_multiple_of(BLOCK as u64)
    }
}

impl Bundle {
    /// The archive's own files, without its end: what carried content follows on.
    pub fn to_open_tar(&self) -> Vec<u8> {
        let mut tar = self.to_tar();
        tar.truncate(tar.len() - END.len());
        tar
    }
}

/// Reads an archive with carried content, from its start or from where the content begins. Safe on any bytes; the
/// content's digests are the caller's to verify.
pub struct Reader<R> {
    from: R,
    /// A block that was read and is not used up.
    ahead: Option<[u8; BLOCK]>,
    current: Option<Blob>,
    /// Bytes of the current content that are still to be read.
    left: u64,
    last: Option<Digest>,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the bundle itself, and stands before what it carries.
    ///
    /// # Errors
    /// As [`Bundle::from_tar`].
    pub fn bundle(from: R) -> Result<(Bundle, Self)> {
        let mut reader = Self::content(from);
        let mut bytes = Vec::new();
        loop {
            let block = reader.block()?;
            if block == [0; BLOCK] || block.starts_with(CONTENT.as_bytes()) {
                reader.ahead = Some(block);
                break;
            }
            let size = tar::Header::from_byte_slice(&block).entry_size().unwrap_or(u64::MAX);
            if size > MAX_FILE as u64
                || bytes.len() as u64 + size > (MAX_TOTAL + MAX_FILES * 2 * BLOCK) as u64
            {
                return Err(refused("it holds what is no file of a bundle, or is too large"));
            }
            bytes.extend_from_slice(&block);
            let padded = size.next_multiple_of(BLOCK as u64);
            let read = reader.from.by_ref().take(padded).read_to_end(&mut bytes).map_err(unreadable)?;
            if read as u64 != padded {
                return Err(cut());
            }
        }
        bytes.extend_from_slice(&END);
        Ok((Bundle::from_tar(&bytes)?, reader))
    }

    /// Begins where content begins: what comes after a bundle that was sent apart.
    pub fn content(from: R) -> Self {
        Self { from, ahead: None, current: None, left: 0, last: None, ended: false }
    }

    /// The next content, whose bytes this reader then gives. `None` at the end of the archive.
    ///
    /// # Errors
    /// It is cut short, or not in the one form such an archive has.
    pub fn next_blob(&mut self) -> Result<Option<Blob>> {
        if self.ended {
            return Ok(None);
        }
        if let Some(blob) = self.current.take() {
            let mut padding = [0; BLOCK];
            let padding = &mut padding[..blob.padding().len()];
            self.from.read_exact(padding).map_err(|_| cut())?;
            if self.left > 0 || padding.iter().any(|byte| *byte != 0) {
                return Err(refused("content was not read whole, or its padding is not empty"));
            }
        }
        let block = self.block()?;
        if block == [0; BLOCK] {
            if self.block()? != [0; BLOCK] {
                return Err(refused("it goes on after its end"));
            }
            self.ended = true;
            return Ok(None);
        }
        let digest = std::str::from_utf8(&block[..CONTENT.len() + 64])
            .ok()
            .and_then(|path| path.strip_prefix(CONTENT))
            .and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        let size = tar::Header::from_byte_slice(&block).entry_size();
        let (Some(digest), Ok(size)) = (digest, size) else {
            return Err(refused("it holds something besides its files and their content"));
        };
        let blob = Blob { digest, size };
        if blob.head() != block || size > MAX_BLOB {
            return Err(refused(format_args!("the header of `{digest}` is not as bedplate writes it")));
        }
        if self.last.is_some_and(|last| last >= digest) {
            return Err(refused("its content is not in order, or is there twice"));
        }
        (self.last, self.current, self.left) = (Some(digest), Some(blob), size);
        Ok(Some(blob))
    }

    /// An error where bytes follow the end.
    ///
    /// # Errors
    /// That.
    pub fn finish(mut self) -> Result<()> {
        let mut more = [0; 1];
        match self.from.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(refused("bytes follow its end")),
            Err(error) => Err(unreadable(error)),
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        if let Some(block) = self.ahead.take() {
            return Ok(block);
        }
        let mut block = [0; BLOCK];
        self.from.read_exact(&mut block).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => cut(),
            _ => unreadable(error),
        })?;
        Ok(block)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Passes the current content over without reading it, and says at which byte of the archive it begins. That the
    /// archive reaches so far shows when what follows is read.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub fn pass(&mut self) -> Result<u64> {
        let at = self.from.stream_position().map_err(unreadable)?;
        let left = i64::try_from(self.left).map_err(|_| refused("it holds content of an impossible size"))?;
        self.from.seek_relative(left).map_err(unreadable)?;
        self.left = 0;
        Ok(at)
    }
}

/// The current content's bytes.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it is cut short"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Largest carried content, in bytes: far above any layer, far below what a counter holds.
const MAX_BLOB: u64 = 1 << 44;

fn cut() -> Error {
    Error::failed("the bundle is cut short: it ends before its end")
        .hint("copy it again, or make it again with `bedplate bundle`")
}

fn unreadable(error: std::io::Error) -> Error {
    Err::<(), _>(error).doing(|| "reading the bundle failed").err().unwrap_or_else(cut)
}

/// Whether a file that begins so is a bundle and no profile.
pub fn begins_bundle(start: &[u8]) -> bool {
    // A tar header: the name first, and `ustar` at its byte 257.
    start.starts_with(b"index.json\0") && start.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn bundle() -> Bundle {
        let inputs = BTreeMap::from([("keys/a.asc".to_owned(), b"key".to_vec())]);
        Bundle::assemble("host.toml", "schema = 1\n", "version = 1\n", inputs).unwrap()
    }

    fn archive(blobs: &[&[u8]]) -> Vec<u8> {
        let mut sorted: Vec<(Digest, &[u8])> = blobs.iter().map(|blob| (Digest::of(blob), *blob)).collect();
        sorted.sort();
        let mut out = bundle().to_open_tar();
        for (digest, content) in sorted {
            let blob = Blob { digest, size: content.len() as u64 };
            out.extend_from_slice(&blob.head());
            out.extend_from_slice(content);
            out.extend_from_slice(blob.padding());
        }
        out.extend_from_slice(&END);
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (found, mut reader) = Reader::bundle(bytes)?;
        assert_eq!(found, bundle());
        let mut all = Vec::new();
        while let Some(blob) = reader.next_blob()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).map_err(unreadable)?;
            assert_eq!(content.len() as u64, blob.size);
            all.push(content);
        }
        reader.finish()?;
        Ok(all)
    }

    #[test]
    fn content_comes_back_in_order() {
        let large = vec![7; 3000];
        let mut want = vec![b"".to_vec(), b"abc".to_vec(), large.clone(), vec![1; 512]];
        want.sort_by_key(|blob| Digest::of(blob));
        assert_eq!(read(&archive(&[b"", b"abc", &large, &[1; 512]])).unwrap(), want);
        assert_eq!(read(&archive(&[])).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(archive(&[]), bundle().to_tar());
        assert!(begins_bundle(&archive(&[b"x"])));
        assert!(!begins_bundle(b"schema = 1\n"));
        // Other tools read it too.
        let bytes = archive(&[b"abc"]);
        let mut paths = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            paths.push(entry.unwrap().path().unwrap().display().to_string());
        }
        assert_eq!(paths.last().unwrap(), &format!("store/sha256/{}", Digest::of(b"abc").hex()));
    }

    #[test]
    fn an_archive_cut_anywhere_is_refused() {
        let whole = archive(&[b"abc", &[9; 700]]);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        read(&whole).unwrap();
    }

    #[test]
    fn content_that_is_passed_over_is_where_it_is_said_to_be() {
        let whole = archive(&[b"abc", &[9; 700], b""]);
        let places = |bytes: &[u8]| -> Result<Vec<(Blob, u64)>> {
            let (_, mut reader) = Reader::bundle(std::io::Cursor::new(bytes))?;
            let mut places = Vec::new();
            while let Some(blob) = reader.next_blob()? {
                places.push((blob, reader.pass()?));
            }
            reader.finish()?;
            Ok(places)
        };
        let found = places(&whole).unwrap();
        assert_eq!(found.len(), 3);
        for (blob, at) in found {
            let at = usize::try_from(at).unwrap();
            let content = &whole[at..at + usize::try_from(blob.size).unwrap()];
            assert_eq!(Digest::of(content), blob.digest);
        }
        for end in 0..whole.len() {
            assert!(places(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn sizes_beyond_octal_are_written() {
        let blob = Blob { digest: Digest::of("x"), size: 20 << 30 };
        assert_eq!(tar::Header::from_byte_slice(&blob.head()).entry_size().unwrap(), 20 << 30);
    }

    #[test]
    fn other_forms_are_refused() {
        let whole = archive(&[b"abc", b"def"]);
        let start = whole.len() - END.len() - 2 * 1024;
        let says = |bytes: &[u8]| read(bytes).unwrap_err().message().to_owned();
        let mut swapped = whole[..start].to_vec();
        swapped.extend_from_slice(&whole[start + 1024..start + 2048]);
        swapped.extend_from_slice(&whole[start..start + 1024]);
        swapped.extend_from_slice(&END);
        assert!(says(&swapped).contains("not in order"));
        let mut twice = whole[..start + 1024].to_vec();
        twice.extend_from_slice(&whole[start..start + 1024]);
        twice.extend_from_slice(&END);
        assert!(says(&twice).contains("twice"));
        let mut after = whole.clone();
        after.push(0);
        assert!(says(&after).contains("follow"));
        let mut padded = whole.clone();
        padded[start + 512 + 3] = 1;
        assert!(says(&padded).contains("padding"));
        let mut mode = whole.clone();
        mode[start + 105] = b'7';
        assert!(says(&mode).contains("header"));
        let mut link = whole.clone();
        link[start + 156] = b'2';
        assert!(says(&link).contains("header"));
        let mut path = whole.clone();
        path[start..start + 16].copy_from_slice(b"store/sha256/../");
        assert!(says(&path).contains("besides"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(at in 0_usize..6000, with in any::<u8>(), junk in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut bytes = archive(&[b"abc", &[9; 700]]);
            let at = at % bytes.len();
            bytes[at] = with;
            if let Ok((_, mut reader)) = Reader::bundle(bytes.as_slice()) {
                while let Ok(Some(_)) = reader.next_blob() {
                    let _ = std::io::copy(&mut reader, &mut std::io::sink());
                }
            }
            let _ = Reader::bundle(junk.as_slice());
        }
    }
}
