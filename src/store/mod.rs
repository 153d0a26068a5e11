//! Content-addressed files on disk: `sha256/ab/abcdef…`, each named by its digest.
//!
//! Entries appear whole and are never changed, so that several processes may write at once. Content is
//! verified whenever it is read; an entry that does not match its name is moved aside and named.

pub mod fetch;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    digest::{Digest, Hasher},
    error::{Doing, Error, Result},
    system::{
        clock,
        files::{self, FileKind, Owner, Pending, Root, Space, make_private_dir},
    },
};

/// The directory of all entries.
const TOP: &str = "/sha256";
/// The directory of what is being fetched, each file named by the digest it shall have.
const PARTIAL: &str = "/partial";
/// How long an unfinished file that nobody goes on with is kept.
const KEPT: Duration = Duration::from_hours(24 * 14);
/// From so many files on, one flush of the file system costs less than one for each.
const MANY: usize = 8;
/// Mode of an entry: nobody writes to it, and only its owner reads it.
const MODE: u32 = 0o400;

/// A store in a directory.
#[derive(Debug)]
pub struct Store {
    root: Root,
}

impl Store {
    /// Opens the store in `dir`, making it (0700) where it is not there, and removes what killed
    /// writers left.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn open(dir: &Path) -> Result<Self> {
        make_private_dir(dir)?;
        let root = Root::open(dir)?;
        if root.stat(TOP)?.is_none() {
            root.make_dir(TOP, 0o700, Owner::current())?;
        }
        root.sweep(TOP)?;
        Ok(Self { root })
    }

    /// Where the content of this digest lies, or would lie.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.shown(&entry(digest))
    }

    /// True if there is an entry of this digest. Its content is not looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        Ok(self.root.stat(&entry(digest))?.is_some_and(|stat| stat.kind == FileKind::File))
    }

    /// Keeps `content`. What is there already is verified, and replaced if it is corrupt.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put(&self, content: &[u8]) -> Result<Digest> {
        let digest = Digest::of(content);
        let there = self.root.read(&entry(&digest), content.len() as u64);
        if !matches!(there, Ok(Some(there)) if there == content) {
            let mut writer = self.writer()?;
            writer.put(content)?;
            writer.finish(Some(digest))?;
        }
        Ok(digest)
    }

    /// Keeps all that `reader` gives, which must have the digest `expected` where one is given.
    ///
    /// # Errors
    /// The reader fails, the store cannot be written, or the digest is another: nothing is kept then.
    pub fn put_stream(&self, mut reader: impl Read, expected: Option<Digest>) -> Result<Digest> {
        let mut writer = self.writer()?;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return writer.finish(expected),
                Ok(count) => writer.put(&buffer[..count])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing(|| "reading what goes into the store"),
            }
        }
    }

    /// Begins an entry whose content comes piece by piece (a download).
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn writer(&self) -> Result<Writer<'_>> {
        let pending = self.root.create(&format!("{TOP}/new"), MODE, Owner::current())?;
        Ok(Writer { store: self, pending, hasher: Hasher::new(), size: 0 })
    }

    /// The content of this digest, verified.
    ///
    /// # Errors
    /// There is none, or it is corrupt.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        let content = self.root.read(&entry(digest), u64::MAX)?.ok_or_else(|| self.absent(digest))?;
        let actual = Digest::of(&content);
        if actual == *digest { Ok(content) } else { Err(self.corrupt(digest, &actual)) }
    }

    /// Whether the content of this digest is there, verified, in `size` bytes. What is there and is something else
    /// is moved aside.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has(&self, digest: &Digest, size: u64) -> Result<bool> {
        let Some(stat) = self.root.stat(&entry(digest))? else { return Ok(false) };
        if stat.kind == FileKind::File && stat.size == size && self.open_verified(digest).is_ok() {
            return Ok(true);
        }
        // Where it was moved aside already, there is nothing any more.
        if self.root.exists(&entry(digest))? {
            self.root.rename(&entry(digest), &format!("{}.corrupt", entry(digest)))?;
        }
        Ok(false)
    }

    /// The size of the entry of this digest, in bytes; `None` where there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let stat = self.root.stat(&entry(digest))?;
        Ok(stat.filter(|stat| stat.kind == FileKind::File).map(|stat| stat.size))
    }

    /// Room on the store's file system.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free_space(&self) -> Result<Space> {
        self.root.free_space(TOP)
    }

    /// The directory the store is in.
    pub fn directory(&self) -> &Path {
        self.root.path()
    }

    /// Begins the entry of this digest, or goes on where an earlier run stopped. `None`: another process is at it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn partial(&self, digest: &Digest) -> Result<Option<Partial>> {
        if self.root.stat(PARTIAL)?.is_none() {
            self.root.make_dir(PARTIAL, 0o700, Owner::current())?;
        }
        let file = self.root.partial(&format!("{PARTIAL}/{}", digest.hex()))?;
        Ok(file.map(|file| Partial { digest: *digest, file, hasher: Hasher::new(), hashed: 0 }))
    }

    /// Bytes that an earlier run fetched of this digest and that a next one goes on from.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn begun(&self, digest: &Digest) -> Result<u64> {
        let stat = self.root.stat(&format!("{PARTIAL}/{}", digest.hex()))?;
        Ok(stat.filter(|stat| stat.kind == FileKind::File).map_or(0, |stat| stat.size))
    }

    /// Makes entries of whole files. They are flushed first, all together, and then take their names: a power cut
    /// leaves each an entry or an unfinished file, never an entry with less in it. The names themselves need no
    /// flush: where one is lost, the unfinished file is there, and the next run makes an entry of it.
    ///
    /// # Errors
    /// A file is not whole, or the store cannot be written.
    pub fn adopt(&self, partials: Vec<Partial>) -> Result<()> {
        if partials.len() < MANY {
            partials.iter().try_for_each(|partial| partial.file.flush())?;
        } else {
            self.root.sync()?;
        }
        for partial in partials {
            if !partial.is_whole() {
                return Err(Error::failed(format!(
                    "`{}` does not have the content its name says",
                    partial.file.shown().display()
                )));
            }
            let path = entry(&partial.digest);
            self.make_shelf(&path)?;
            partial.file.rename(&self.root, &path, MODE)?;
        }
        Ok(())
    }

    /// Removes unfinished files that nobody went on with for two weeks.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn sweep_partials(&self) -> Result<()> {
        let now = clock::now();
        for found in self.root.list(PARTIAL)? {
            let path = format!("{PARTIAL}/{}", found.name);
            let Some(stat) = self.root.stat(&path)? else { continue };
            let age = now.duration_since(stat.modified).unsigned_abs();
            if stat.is_file()
                && age > KEPT
                && let Some(_held) = self.root.partial(&path)?
            {
                self.root.remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn make_shelf(&self, path: &str) -> Result<()> {
        let shelf = path.rsplit_once('/').map_or(TOP, |(shelf, _)| shelf);
        if self.root.stat(shelf)?.is_none() {
            self.root.make_dir(shelf, 0o700, Owner::current())?;
        }
        Ok(())
    }

    /// The content of this digest as an open file at its start, verified beforehand. For content too
    /// large for memory.
    ///
    /// # Errors
    /// There is none, or it is corrupt.
    pub fn open_verified(&self, digest: &Digest) -> Result<File> {
        let (mut file, _) = self.root.open_file(&entry(digest))?.ok_or_else(|| self.absent(digest))?;
        let reading = || format!("reading `{}`", self.path(digest).display());
        let (actual, _) = Digest::of_reader(&file).doing(reading)?;
        if actual != *digest {
            return Err(self.corrupt(digest, &actual));
        }
        file.seek(SeekFrom::Start(0)).doing(reading)?;
        Ok(file)
    }

    /// The content of this digest as an open file at its start, with its size. Not verified: for readers that hold it
    /// against its digest while it goes by. `None` where there is none.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_entry(&self, digest: &Digest) -> Result<Option<(File, u64)>> {
        Ok(self.root.open_file(&entry(digest))?.map(|(file, stat)| (file, stat.size)))
    }

    /// Removes an entry. False: there was none.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<bool> {
        self.root.remove_file(&entry(digest))
    }

    /// The digests of all entries, sorted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn digests(&self) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for shelf in self.root.list(TOP)?.iter().filter(|shelf| shelf.is_dir) {
            for file in self.root.list(&format!("{TOP}/{}", shelf.name))? {
                // What was moved aside is no entry.
                digests.extend(format!("sha256:{}", file.name).parse::<Digest>());
            }
        }
        digests.sort();
        Ok(digests)
    }

    fn absent(&self, digest: &Digest) -> Error {
        Error::failed(format!("`{digest}` is not in the store `{}`", self.root.path().display()))
    }

    /// Moves the entry aside, so that the next run fetches it anew, and says so.
    fn corrupt(&self, digest: &Digest, actual: &Digest) -> Error {
        let path = entry(digest);
        let aside = format!("{path}.corrupt");
        let error = Error::failed(format!(
            "`{}` is corrupt: its content has the digest `{actual}`",
            self.path(digest).display()
        ));
        match self.root.rename(&path, &aside) {
            Ok(()) => error.hint(format!(
                "it was moved to `{}`; run the command again to fetch it anew, and check the disk",
                self.root.shown(&aside).display()
            )),
            Err(_) => error.hint(format!("remove it: `rm {}`", self.path(digest).display())),
        }
    }
}

/// An entry being written. Dropped before [`Writer::finish`], it leaves nothing.
pub struct Writer<'a> {
    store: &'a Store,
    pending: Pending,
    hasher: Hasher,
    size: u64,
}

impl Writer<'_> {
    /// Adds content.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put(&mut self, content: &[u8]) -> Result<()> {
        self.pending.put(content)?;
        self.hasher.update(content);
        self.size += content.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the entry, under the digest of its content.
    ///
    /// # Errors
    /// The digest is not `expected`, or the store cannot be written: nothing is kept then.
    pub fn finish(self, expected: Option<Digest>) -> Result<Digest> {
        let actual = self.hasher.finish();
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(Error::failed(format!(
                "content has the digest `{actual}`, not `{expected}` as it should"
            )));
        }
        let path = entry(&actual);
        self.store.make_shelf(&path)?;
        self.pending.commit_at(&self.store.root, &path)?;
        Ok(actual)
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, content: &[u8]) -> std::io::Result<usize> {
        let count = self.pending.write(content)?;
        self.hasher.update(&content[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.pending.flush()
    }
}

/// An entry that is fetched over several runs, held by this process alone. Dropped, it stays for the next run.
pub struct Partial {
    digest: Digest,
    file: files::Partial,
    hasher: Hasher,
    /// Bytes the hasher has seen: all of the file, once [`Partial::catch_up`] ran.
    hashed: u64,
}

impl Partial {
    /// The digest it shall have.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes there are.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Reads what an earlier run left, so that the digest of the whole can be told. What is longer than `size`
    /// bytes is thrown away.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn catch_up(&mut self, size: u64) -> Result<()> {
        if self.file.size() > size {
            return self.restart();
        }
        if self.file.size() > 0 {
            let mut hasher = Hasher::new();
            self.file.each(|piece| hasher.update(piece))?;
            self.hasher = hasher;
            self.hashed = self.file.size();
        }
        Ok(())
    }

    /// Adds content.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put(&mut self, content: &[u8]) -> Result<()> {
        self.file.put(content)?;
        self.hasher.update(content);
        self.hashed += content.len() as u64;
        Ok(())
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn restart(&mut self) -> Result<()> {
        self.hasher = Hasher::new();
        self.hashed = 0;
        self.file.restart()
    }

    /// The digest of what is there.
    pub fn actual(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Whether it has the content its name says.
    pub fn is_whole(&self) -> bool {
        self.hashed == self.file.size() && self.actual() == self.digest
    }

    /// What is there, from its start.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn reader(&self) -> Result<File> {
        self.file.reader()
    }
}

/// The path of an entry within the store.
fn entry(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{TOP}/{}/{hex}", &hex[..2])
}

#[cfg(test)]
mod tests;
