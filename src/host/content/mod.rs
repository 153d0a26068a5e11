//! Packages and images that travel: what a lock names, where its content is at hand, into a store and out of it.
//!
//! The digest is the judge everywhere: content is held against it whenever it goes by, and what the lock does not name is
//! not taken.

mod images;
mod keep;
mod lacking;
mod load;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

pub use images::{complete, fetch as fetch_images};
pub use keep::{into_store, receive};
pub use lacking::lacking;
pub use load::{Places, at_hand, drop_images, load};

use crate::{
    digest::{Digest, Hasher},
    error::{Doing as _, Error, Result},
    lock::{
        Lock, LockedImage,
        bundle::{
            Bundle,
            carried::{Blob, END, Reader},
        },
    },
    store::Store,
    system::files,
};

/// What a lock names: everything that may be carried along for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    packages: BTreeMap<Digest, u64>,
    images: BTreeSet<Digest>,
}

impl Named {
    /// What this lock names.
    pub fn of(lock: &Lock) -> Self {
        Self {
            packages: lock.host_packages().iter().map(|package| (package.sha256, package.size)).collect(),
            images: lock.images.values().flat_map(blobs_of).collect(),
        }
    }

    /// All its digests.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.packages.keys().chain(&self.images).copied().collect::<BTreeSet<_>>().into_iter()
    }

    /// Digests of packages.
    pub fn packages(&self) -> impl Iterator<Item = Digest> {
        self.packages.keys().copied()
    }

    /// Digests of what images are made of.
    pub fn images(&self) -> impl Iterator<Item = Digest> {
        self.images.iter().copied()
    }

    /// An error where the lock does not name this content.
    ///
    /// # Errors
    /// That, or it names it with another size.
    pub fn refuse_other(&self, blob: Blob) -> Result<()> {
        let Blob { digest, size } = blob;
        match self.packages.get(&digest) {
            Some(locked) if *locked != size => Err(Error::failed(format!(
                "the bundle carries `{digest}` with {size} bytes, its lock says {locked}"
            ))
            .hint("make it again with `bedplate bundle`")),
            None if !self.images.contains(&digest) => {
                Err(Error::failed(format!("the bundle carries `{digest}`, which its lock does not name"))
                    .hint("make it again with `bedplate bundle`"))
            }
            _ => Ok(()),
        }
    }
}

/// The content an image is made of: manifest, configuration, layers.
pub fn blobs_of(image: &LockedImage) -> impl Iterator<Item = Digest> {
    [image.manifest, image.config].into_iter().chain(image.layers.iter().copied())
}

/// Where one content is at hand.
#[derive(Debug, Clone)]
enum At {
    /// In an archive, from this byte on.
    Archive(Arc<File>, u64),
    /// In a store.
    Store(Arc<Store>),
}

/// Content at hand, by digest.
#[derive(Debug, Clone, Default)]
pub struct Content {
    held: BTreeMap<Digest, (u64, At)>,
}

/// Reads the bundle at `path`, and where in it the content lies that it carries. The content itself is not read.
///
/// # Errors
/// It is no bundle, is cut short, or carries what its lock does not name.
pub fn open_archive(path: &Path) -> Result<(Bundle, Content)> {
    let (file, _) = files::open_input(path)?;
    let file = Arc::new(file);
    let reading = || format!("reading `{}`", path.display());
    let (bundle, mut reader) = Reader::bundle(BufReader::new(Whole(file.clone(), 0))).doing(reading)?;
    let mut content = Content::default();
    while let Some(blob) = reader.next_blob().doing(reading)? {
        let at = reader.pass().doing(reading)?;
        content.held.insert(blob.digest, (blob.size, At::Archive(file.clone(), at)));
    }
    reader.finish().doing(reading)?;
    Ok((bundle, content))
}

impl Content {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// All of it, in the order of the digests.
    pub fn blobs(&self) -> impl Iterator<Item = Blob> {
        self.held.iter().map(|(digest, (size, _))| Blob { digest: *digest, size: *size })
    }

    /// Whether it holds this.
    pub fn has(&self, digest: &Digest) -> bool {
        self.held.contains_key(digest)
    }

    /// Adds what a store has.
    ///
    /// # Errors
    /// It has none of one of them, or cannot be read.
    pub fn add(&mut self, store: &Arc<Store>, digests: impl IntoIterator<Item = Digest>) -> Result<()> {
        for digest in digests {
            let size = store.size(&digest)?.ok_or_else(|| {
                Error::failed(format!("`{digest}` went away from the store while this run was at work"))
                    .hint("run the same command again")
            })?;
            self.held.entry(digest).or_insert((size, At::Store(store.clone())));
        }
        Ok(())
    }

    /// Keeps only these.
    pub fn only(&mut self, wanted: &BTreeSet<Digest>) {
        self.held.retain(|digest, _| wanted.contains(digest));
    }

    /// An error where the lock does not name something of it.
    ///
    /// # Errors
    /// That.
    pub fn refuse_other(&self, named: &Named) -> Result<()> {
        self.blobs().try_for_each(|blob| named.refuse_other(blob))
    }

    /// What [`Content::write`] writes, in bytes.
    pub fn archived(&self) -> u64 {
        self.blobs().map(|blob| blob.archived()).sum::<u64>() + END.len() as u64
    }

    /// Its bytes together.
    pub fn size(&self) -> u64 {
        self.held.values().map(|(size, _)| size).sum()
    }

    /// Writes all of it as an archive holds it, with the archive's end. Each is held against its digest while it goes
    /// by. `done` hears how many bytes went out.
    ///
    /// # Errors
    /// One is not what its digest says, is gone, or `out` takes no more: what was written is the caller's to throw away.
    pub fn write(&self, out: &mut dyn FnMut(&[u8]) -> Result<()>, mut done: impl FnMut(u64)) -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        let mut total = 0;
        for blob in self.blobs() {
            out(&blob.head())?;
            let mut reader = Verified::new(self.open(blob)?, blob);
            loop {
                let count = reader.read(&mut buffer).doing(|| format!("reading `{}`", blob.digest))?;
                if count == 0 {
                    break;
                }
                out(&buffer[..count])?;
                total += count as u64;
                done(total);
            }
            reader.finish()?;
            out(blob.padding())?;
        }
        out(&END)
    }

    /// One content, from its start. Not verified yet.
    fn open(&self, blob: Blob) -> Result<Box<dyn Read + Send>> {
        let gone = || {
            Error::failed(format!("`{}` is no longer at hand", blob.digest))
                .hint("run the same command again")
        };
        match self.held.get(&blob.digest).map(|(_, at)| at) {
            Some(At::Archive(file, at)) => Ok(Box::new(Whole(file.clone(), *at).take(blob.size))),
            Some(At::Store(store)) => {
                let (file, _) = store.open_entry(&blob.digest)?.ok_or_else(gone)?;
                Ok(Box::new(file))
            }
            None => Err(gone()),
        }
    }
}

/// A file read from a byte on, without moving the position others read it at.
struct Whole(Arc<File>, u64);

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_at(buffer, self.1)?;
        self.1 += count as u64;
        Ok(count)
    }
}

impl io::Seek for Whole {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let target = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::Current(by) => self.1.checked_add_signed(by),
            io::SeekFrom::End(by) => self.0.metadata()?.len().checked_add_signed(by),
        };
        self.1 = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.1)
    }
}

/// A reader that remembers what went by.
struct Verified<R> {
    inner: R,
    blob: Blob,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> Verified<R> {
    fn new(inner: R, blob: Blob) -> Self {
        Self { inner, blob, hasher: Hasher::new(), count: 0 }
    }

    fn finish(self) -> Result<()> {
        let Blob { digest, size } = self.blob;
        if self.count != size {
            return Err(Error::failed(format!(
                "`{digest}` has {} bytes, and should have {size}",
                self.count
            ))
            .hint("run the same command again; if it comes back, check the disk"));
        }
        let actual = self.hasher.finish();
        if actual != digest {
            return Err(other(&digest, &actual));
        }
        Ok(())
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    let count = read?;
                    self.count += count as u64;
                    if self.count > self.blob.size {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "it is longer than it should be",
                        ));
                    }
                    self.hasher.update(&buffer[..count]);
                    return Ok(count);
                }
            }
        }
    }
}

/// Content that is not what its digest says.
fn other(digest: &Digest, actual: &Digest) -> Error {
    Error::failed(format!("the content that is named `{digest}` has the digest `{actual}`"))
        .hint("it is damaged: copy the bundle again, or make it again with `bedplate bundle`")
}

/// Writes the bundle with its content. `done` hears how many bytes of content went out.
///
/// # Errors
/// As [`Content::write`].
pub fn write_archive(
    bundle: &Bundle,
    content: &Content,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
    done: impl FnMut(u64),
) -> Result<()> {
    out(&bundle.to_open_tar())?;
    content.write(out, done)
}
