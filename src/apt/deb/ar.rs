//! The outer archive of a `.deb`: ar(5) in the one form that deb(5) allows.

use std::io::{self, ErrorKind, Read};

use super::{damaged, refused, shown};
use crate::error::{Error, Result};

/// The members of an archive, one after the other. Reading from it reads the present member.
pub(super) struct Ar<R> {
    reader: R,
    /// Bytes of the present member that were not read yet.
    left: u64,
    /// Whether a byte of padding follows the present member.
    padded: bool,
    name: String,
    fault: Option<Error>,
}

const MAGIC: &[u8] = b"!<arch>\n";

impl<R: Read> Ar<R> {
    pub(super) fn open(reader: R) -> Result<Self> {
        let mut ar = Self { reader, left: 0, padded: false, name: String::new(), fault: None };
        let mut magic = [0; MAGIC.len()];
        let read = ar.fill(&mut magic)?;
        if read == 0 {
            return Err(damaged("it is empty"));
        }
        if magic != *MAGIC {
            return Err(refused("it does not begin as an `ar` archive"));
        }
        Ok(ar)
    }

    /// Goes to the next member and returns its name, or `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<String>> {
        if io::copy(self, &mut io::sink()).is_err() {
            return Err(self.fault().unwrap_or_else(|| damaged("it cannot be read")));
        }
        if self.padded {
            self.fill(&mut [0])?;
        }
        let mut header = [0; 60];
        match self.fill(&mut header)? {
            0 => return Ok(None),
            60 => {}
            _ => return Err(damaged("it is cut short between two members")),
        }
        if header[58..] != *b"`\n" {
            return Err(refused("a member of its `ar` archive has no proper header"));
        }
        let name = trimmed(&header[..16]);
        // GNU ar ends names with a slash; its long names begin with one, and dpkg does not know them.
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+".contains(byte);
        if name.is_empty() || !name.iter().all(plain) {
            return Err(refused(format!("a member of its `ar` archive is named `{}`", shown(name))));
        }
        self.name = String::from_utf8_lossy(name).into_owned();
        let size = trimmed(&header[48..58]);
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_digit);
        let size = digits.then(|| String::from_utf8_lossy(size).parse::<u64>().ok()).flatten();
        self.left = size.ok_or_else(|| refused(format!("its `{}` has no proper size", self.name)))?;
        self.padded = self.left % 2 == 1;
        Ok(Some(self.name.clone()))
    }

    /// Bytes of the present member that were not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The whole of the present member, which may have at most `limit` bytes.
    pub(super) fn read_small(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.left > limit {
            return Err(refused(format!("its `{}` is larger than {limit} bytes", self.name)));
        }
        let mut bytes = Vec::new();
        match self.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.fault().unwrap_or_else(|| damaged("it cannot be read").because(error))),
        }
    }

    /// Why reading failed, if it did: the file is cut short, or cannot be read.
    pub(super) fn fault(&mut self) -> Option<Error> {
        self.fault.take()
    }

    /// Fills the buffer as far as the file goes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(filled)
    }
}

impl<R: Read> Read for Ar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.reader.read(&mut buffer[..most]) {
            Ok(0) => {
                self.fault = Some(damaged(format!("it is cut short within `{}`", self.name)));
                Err(ErrorKind::UnexpectedEof.into())
            }
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.fault = Some(unreadable(error));
                Err(kind.into())
            }
        }
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::failed("reading the package failed").because(error)
}

fn trimmed(field: &[u8]) -> &[u8] {
    let end = field.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &field[..end]
}
