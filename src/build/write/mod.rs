//! What is made of a root tree. Each writer says what it wrote by digest and size, and gives the same bytes for the
//! same entries, whatever the machine and however many threads.
//!
//! | part | what it does |
//! |---|---|
//! | [`tar`] | one archive, plain or compressed |
//! | [`compress`] | gzip and zstd in several threads |
//! | [`layers`] | which entries go into which layer of an image |
//! | [`oci`] | an OCI image layout |
//! | [`disk`] | a disk that boots, as a raw image or in qcow2 |

pub mod compress;
pub mod disk;
pub mod layers;
pub mod oci;
pub mod tar;

#[cfg(test)]
pub(crate) mod sample;

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Hasher},
    error::{Error, Result},
};

/// Some content by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Content {
    /// Of all its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

/// A writer that knows what went through it.
struct Tally<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Tally<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(), size: 0 }
    }

    fn finish(self) -> (W, Content) {
        (self.inner, Content { digest: self.hasher.finish(), size: self.size })
    }
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A writer into what takes bytes and has our own errors; [`failed`] gives them back.
struct Through<'a>(&'a mut dyn FnMut(&[u8]) -> Result<()>);

impl Write for Through<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error of a writer: the one that came through it, or what the system says.
fn failed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::failed("writing an archive").because(error),
    }
}
