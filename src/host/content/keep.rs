//! Content into a store.

use std::{collections::BTreeSet, io::Read};

use super::{Content, Named, Verified};
use crate::{
    digest::Digest,
    error::{Doing as _, Result},
    lock::bundle::carried::{Blob, Reader},
    progress::{Progress, Unit},
    store::{Partial, Store, fetch::refuse_full},
};

/// So many files are held open until they become entries together.
const BATCH: usize = 64;
/// So many bytes at most wait for that: what a broken connection brought is not lost.
const WAITING: u64 = 256 << 20;
/// The task's name in progress events.
const TASK: &str = "content";

/// Puts what the store lacks of this content into it, and says how many bytes that were.
///
/// # Errors
/// Too little room, said before anything is written; content that is not what its digest says. What was put until
/// then stays.
pub fn into_store(content: &Content, store: &Store, progress: &dyn Progress) -> Result<u64> {
    let mut lacking = Vec::new();
    for blob in content.blobs() {
        if !store.has(&blob.digest, blob.size)? {
            lacking.push(blob);
        }
    }
    let total: u64 = lacking.iter().map(|blob| blob.size).sum();
    if lacking.is_empty() {
        return Ok(0);
    }
    refuse_full(store, "the bundle's content", total)?;
    progress.started(TASK, Some(total), Unit::Bytes);
    let mut keeper = Keeper::new(store);
    let mut done = 0;
    let kept = lacking.iter().try_for_each(|blob| {
        let reader = content.open(*blob)?;
        keeper.keep(*blob, reader, &mut |count| {
            done += count;
            progress.advanced(TASK, done, None);
        })
    });
    keeper.finish().and(kept)?;
    progress.finished(TASK, Some(&format!("{} files into the store", lacking.len())));
    Ok(total)
}

/// Puts all that comes into the store, until the archive ends. `length` is how many bytes there are to come.
///
/// # Errors
/// Too little room; the archive is cut short or hostile; content that the lock does not name, or that is not what its
/// digest says. What was put until then stays, so that less has to come the next time.
pub fn receive(from: impl Read, length: u64, store: &Store, named: &Named) -> Result<BTreeSet<Digest>> {
    refuse_full(store, "the content that comes", length)?;
    let mut reader = Reader::content(from.take(length));
    let mut keeper = Keeper::new(store);
    let mut came = BTreeSet::new();
    let kept = (|| {
        while let Some(blob) = reader.next_blob()? {
            named.refuse_other(blob)?;
            keeper.keep(blob, &mut reader, &mut |_| ())?;
            came.insert(blob.digest);
        }
        Ok(())
    })();
    keeper.finish().and(kept)?;
    reader.finish()?;
    Ok(came)
}

/// Makes entries of a store, several together.
struct Keeper<'a> {
    store: &'a Store,
    whole: Vec<Partial>,
    bytes: u64,
}

impl<'a> Keeper<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, whole: Vec::new(), bytes: 0 }
    }

    /// Keeps one content. `moved` hears of bytes as they go by.
    fn keep(&mut self, blob: Blob, from: impl Read, moved: &mut dyn FnMut(u64)) -> Result<()> {
        let mut reader = Verified::new(from, blob);
        let mut buffer = vec![0; 128 << 10];
        let reading = || format!("reading `{}`", blob.digest);
        let Some(mut partial) = self.store.partial(&blob.digest)? else {
            // Another process fetches it: written apart, whoever is first.
            let mut writer = self.store.writer()?;
            loop {
                let count = reader.read(&mut buffer).doing(reading)?;
                if count == 0 {
                    break;
                }
                writer.put(&buffer[..count])?;
                moved(count as u64);
            }
            reader.finish()?;
            return writer.finish(Some(blob.digest)).map(drop);
        };
        partial.restart()?;
        loop {
            let count = reader.read(&mut buffer).doing(reading)?;
            if count == 0 {
                break;
            }
            partial.put(&buffer[..count])?;
            moved(count as u64);
        }
        if let Err(error) = reader.finish() {
            partial.restart()?;
            return Err(error);
        }
        self.whole.push(partial);
        self.bytes += blob.size;
        if self.whole.len() >= BATCH || self.bytes >= WAITING { self.adopt() } else { Ok(()) }
    }

    fn adopt(&mut self) -> Result<()> {
        self.bytes = 0;
        self.store.adopt(std::mem::take(&mut self.whole))
    }

    fn finish(mut self) -> Result<()> {
        self.adopt()
    }
}
