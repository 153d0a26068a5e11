//! Content by digest into the store: in parallel, resumed, verified while it streams by.
//!
//! The digest is the judge. What an earlier run left is gone on from whichever place answers; where the whole then has
//! another digest, it is fetched once more from its first byte before the place is blamed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use url::Url;

use super::{Partial, Store};
use crate::{
    digest::Digest,
    error::{Error, Result},
    progress::{Progress, Unit},
};

/// How many files are fetched at once. More gain nothing on a fast line and are unkind to a mirror.
const PARALLEL: usize = 8;
/// How many files are held open until they become entries of the store: two descriptors each, and a process has at
/// least 1024 (getrlimit(2)).
const BATCH: usize = 128;
/// How often a body that breaks off is gone on with at one mirror without a byte more.
const BREAKS: u32 = 3;
/// How long the wait is before a body that broke off is gone on with; doubles each time.
const PAUSE: Duration = Duration::from_millis(300);
/// Room that must stay free on the store's file system, in bytes.
const SPARE: u64 = 16 << 20;
/// How often another process is looked at that fetches the same.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

/// Content to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// What it is, in messages: ``package `chrony` 4.6 (amd64)``.
    pub what: String,
    /// Where it may be had, in the order they are asked.
    pub places: Vec<Url>,
    /// What helps where none of them has it.
    pub hints: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Bytes that came over the network.
    pub bytes: u64,
    /// Files that were fetched.
    pub files: usize,
    /// Files that were in the store already.
    pub from_store: usize,
}

/// An answer whose body is still to be read.
pub struct Opened {
    /// The byte the body begins with: 0 where the server did not go on from where it was asked to.
    pub from: u64,
    /// Size of the whole file, where the server says it.
    pub total: Option<u64>,
    /// What names this version of the file at this server (`ETag`, else `Last-Modified`).
    pub validator: Option<String>,
    /// The body.
    pub body: BoxStream<'static, Result<Bytes>>,
}

/// Why nothing was opened.
#[derive(Debug)]
pub enum Refused {
    /// The server answers, and does not have it.
    Absent,
    /// The server cannot be reached or does not answer: nothing else need be asked of it.
    Unreachable(Error),
    /// Anything else.
    Other(Error),
}

/// Where content is read from.
pub trait Remote: Sync {
    /// Opens `wanted` at `place` from byte `from` on. `validator`: only if it is still that version there; else from
    /// its start.
    fn open<'a>(
        &'a self,
        wanted: &'a Wanted,
        place: &'a Url,
        from: u64,
        validator: Option<&'a str>,
    ) -> BoxFuture<'a, std::result::Result<Opened, Refused>>;
}

/// How a run goes about it.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    /// The task's name in progress events, and what is counted: `packages`.
    pub task: &'a str,
    /// Looks at content before it enters the store, on a thread of its own; an error keeps it out. It is given the
    /// digest it was fetched by.
    pub inspect: Option<fn(File, &Digest) -> Result<()>>,
}

/// One run.
struct Run<'a> {
    store: &'a Store,
    remote: &'a dyn Remote,
    progress: &'a dyn Progress,
    task: &'a str,
    /// Bytes there are of what is fetched.
    done: AtomicU64,
    /// Bytes that came over the network.
    came: AtomicU64,
    said: Mutex<Instant>,
    /// Hosts that could not be reached, and why: not asked again in this run.
    down: Mutex<BTreeMap<String, String>>,
}

/// Has all of it in the store. What was fetched is kept, also where other files fail.
///
/// # Errors
/// Too little room, said before anything is fetched; each file that could not be had, with all that was tried.
pub async fn fetch(
    store: &Store,
    wanted: &[Wanted],
    remote: &dyn Remote,
    manner: Manner<'_>,
    progress: &dyn Progress,
) -> Result<Fetched> {
    let (missing, from_store) = missing(store, wanted)?;
    if missing.is_empty() {
        return Ok(Fetched { from_store, ..Fetched::default() });
    }
    let total: u64 = missing.iter().map(|wanted| wanted.size).sum();
    let begun = begun(store, &missing)?;
    refuse_full(store, manner.task, total.saturating_sub(begun))?;
    progress.started(manner.task, Some(total), Unit::Bytes);
    let run = Run {
        store,
        remote,
        progress,
        task: manner.task,
        done: AtomicU64::new(0),
        came: AtomicU64::new(0),
        said: Mutex::new(Instant::now()),
        down: Mutex::default(),
    };
    let mut errors = Vec::new();
    let mut whole = Vec::new();
    let mut files = 0;
    {
        let run = &run;
        let fetched = stream::iter(missing.iter().map(|wanted| async move {
            let partial = run.one(wanted).await?;
            Ok((*wanted, partial))
        }))
        .buffer_unordered(PARALLEL);
        let looked = fetched
            .map(|fetched: Result<(&Wanted, Option<Partial>)>| async move {
                let (wanted, partial) = fetched?;
                match (partial, manner.inspect) {
                    (Some(partial), Some(inspect)) => look(partial, wanted, inspect).await.map(Some),
                    (partial, _) => Ok(partial),
                }
            })
            .buffer_unordered(std::thread::available_parallelism().map_or(2, usize::from));
        let mut looked = std::pin::pin!(looked);
        while let Some(result) = looked.next().await {
            match result {
                Ok(partial) => {
                    files += 1;
                    whole.extend(partial);
                }
                Err(error) => errors.push(error),
            }
            if whole.len() >= BATCH {
                store.adopt(std::mem::take(&mut whole))?;
            }
        }
    }
    store.adopt(whole)?;
    if let Some(error) = Error::join(errors) {
        return Err(error);
    }
    store.sweep_partials()?;
    progress.finished(manner.task, Some(&format!("{files} fetched")));
    Ok(Fetched { bytes: run.came.load(Ordering::Relaxed), files, from_store })
}

/// What the store lacks, each digest once; and how many it has. Each is read whole, by several threads.
fn missing<'w>(store: &Store, wanted: &'w [Wanted]) -> Result<(Vec<&'w Wanted>, usize)> {
    let mut seen = BTreeSet::new();
    let distinct: Vec<&Wanted> = wanted.iter().filter(|wanted| seen.insert(wanted.digest)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let there = std::thread::scope(|scope| {
        let each = distinct.len().div_ceil(threads).max(1);
        let running: Vec<_> = distinct
            .chunks(each)
            .map(|part| {
                scope.spawn(move || {
                    part.iter().map(|wanted| store.has(&wanted.digest, wanted.size)).collect::<Vec<_>>()
                })
            })
            .collect();
        let ended = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| vec![Err(Error::failed("looking into the store failed"))])
        });
        ended.flatten().collect::<Result<Vec<bool>>>()
    })?;
    let missing: Vec<&Wanted> =
        distinct.iter().zip(&there).filter(|(_, there)| !**there).map(|(wanted, _)| *wanted).collect();
    let from_store = there.iter().filter(|there| **there).count();
    Ok((missing, from_store))
}

/// Bytes of these that an earlier run left.
fn begun(store: &Store, missing: &[&Wanted]) -> Result<u64> {
    missing.iter().try_fold(0, |sum, wanted| Ok(sum + store.begun(&wanted.digest)?.min(wanted.size)))
}

/// An error where the store has no room for `needed` more bytes of `what`.
///
/// # Errors
/// That, or the file system does not say.
pub fn refuse_full(store: &Store, what: &str, needed: u64) -> Result<()> {
    let free = store.free_space()?.bytes_free;
    if needed.saturating_add(SPARE) <= free {
        return Ok(());
    }
    let directory = store.directory().display();
    Err(Error::failed(format!(
        "{what}: {needed} bytes are needed, and the store `{directory}` has room for {} bytes",
        free.saturating_sub(SPARE)
    ))
    .hint(format!("make room there (`df -h {directory}`), or name another place with `--store DIR`")))
}

/// Looks at content on a thread of its own: unpacking it may take longer than fetching it.
async fn look(
    partial: Partial,
    wanted: &Wanted,
    inspect: fn(File, &Digest) -> Result<()>,
) -> Result<Partial> {
    let digest = wanted.digest;
    let looked = tokio::task::spawn_blocking(move || inspect(partial.reader()?, &digest).map(|()| partial));
    looked.await.map_err(|error| Error::failed("looking at it failed").because(error)).flatten().map_err(
        |error| {
            let why = said(&error);
            error
                .hints()
                .into_iter()
                .map(str::to_owned)
                .fold(Error::failed(format!("{} is refused: {why}", wanted.what)), Error::hint)
        },
    )
}

/// What came of asking one address.
enum Ended {
    Whole,
    /// Not from here.
    No(String),
}

impl Run<'_> {
    /// Fetches one file. `None`: another process put it into the store meanwhile.
    async fn one(&self, wanted: &Wanted) -> Result<Option<Partial>> {
        let Some(mut partial) = self.hold(wanted).await? else {
            self.advance(wanted.size);
            return Ok(None);
        };
        if partial.size() > 0 {
            let size = wanted.size;
            let caught_up = tokio::task::spawn_blocking(move || partial.catch_up(size).map(|()| partial));
            partial = caught_up
                .await
                .map_err(|error| Error::failed("reading an unfinished file failed").because(error))??;
            self.advance(partial.size());
        }
        if partial.size() == wanted.size {
            if partial.is_whole() {
                return Ok(Some(partial));
            }
            self.restart(&mut partial)?;
        }
        let mut tried = Vec::new();
        for place in &wanted.places {
            let host = place.origin().ascii_serialization();
            if let Some(why) = self.lock_down().get(&host) {
                tried.push(format!("`{}`: {why}", shown(place)));
                continue;
            }
            match self.from(place, &host, wanted, &mut partial).await? {
                Ended::Whole => return Ok(Some(partial)),
                Ended::No(why) => tried.push(format!("`{}`: {why}", shown(place))),
            }
        }
        Err(gave_up(wanted, &tried))
    }

    /// Holds the unfinished file, once no other process does.
    async fn hold(&self, wanted: &Wanted) -> Result<Option<Partial>> {
        let mut waited = false;
        loop {
            if let Some(partial) = self.store.partial(&wanted.digest)? {
                // The other process may have ended with it in the store.
                if waited && self.store.has(&wanted.digest, wanted.size)? {
                    return Ok(None);
                }
                return Ok(Some(partial));
            }
            if !waited {
                self.progress.note(&format!("another process fetches {}: waiting", wanted.what));
            }
            waited = true;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Fetches from one address, going on where a body breaks off. Errors are this machine's own: they end the run.
    async fn from(&self, place: &Url, host: &str, wanted: &Wanted, partial: &mut Partial) -> Result<Ended> {
        let mut validator: Option<String> = None;
        let mut breaks = 0;
        // What came from elsewhere is in it: another digest does not tell whose fault it is.
        let mut mixed = partial.size() > 0;
        loop {
            let from = partial.size();
            let opened = match self.remote.open(wanted, place, from, validator.as_deref()).await {
                Ok(opened) => opened,
                Err(Refused::Absent) => return Ok(Ended::No("it is not there (404)".to_owned())),
                Err(Refused::Unreachable(error)) => {
                    let why = said(&error);
                    self.lock_down().insert(host.to_owned(), why.clone());
                    return Ok(Ended::No(why));
                }
                Err(Refused::Other(error)) => return Ok(Ended::No(said(&error))),
            };
            if opened.from != from {
                if opened.from != 0 {
                    return Ok(Ended::No(format!("it answers from byte {} on, not {from}", opened.from)));
                }
                self.restart(partial)?;
                mixed = false;
            }
            if let Some(total) = opened.total.filter(|total| *total != wanted.size) {
                return Ok(Ended::No(format!("it has {total} bytes there, the lock says {}", wanted.size)));
            }
            validator = opened.validator;
            let before = partial.size();
            let broken = self.read(opened.body, wanted, partial).await?;
            if let Some(Broken::TooLong) = broken {
                self.restart(partial)?;
                return Ok(Ended::No(format!("it is longer than the {} bytes of the lock", wanted.size)));
            }
            if partial.size() == wanted.size {
                let actual = partial.actual();
                if actual == wanted.digest {
                    return Ok(Ended::Whole);
                }
                self.restart(partial)?;
                if mixed {
                    (mixed, validator) = (false, None);
                    continue;
                }
                return Ok(Ended::No(format!(
                    "its content has the digest `{actual}`, the lock says `{}`",
                    wanted.digest
                )));
            }
            breaks = if partial.size() > before { 1 } else { breaks + 1 };
            if breaks > BREAKS {
                let why = match broken {
                    Some(Broken::Error(error)) => said(&error),
                    _ => "it ends early".to_owned(),
                };
                return Ok(Ended::No(format!("{why}, {} of {} bytes", partial.size(), wanted.size)));
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(breaks - 1)).await;
        }
    }

    /// Reads a body to its end. Errors are this machine's own.
    async fn read(
        &self,
        mut body: BoxStream<'static, Result<Bytes>>,
        wanted: &Wanted,
        partial: &mut Partial,
    ) -> Result<Option<Broken>> {
        while let Some(piece) = body.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Ok(Some(Broken::Error(error))),
            };
            if partial.size() + piece.len() as u64 > wanted.size {
                return Ok(Some(Broken::TooLong));
            }
            partial.put(&piece)?;
            self.came.fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.advance(piece.len() as u64);
        }
        Ok(None)
    }

    fn restart(&self, partial: &mut Partial) -> Result<()> {
        self.done.fetch_sub(partial.size(), Ordering::Relaxed);
        partial.restart()
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut last = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= TELL {
            *last = Instant::now();
            self.progress.advanced(self.task, done, None);
        }
    }

    fn lock_down(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a body did not end as it should.
enum Broken {
    Error(Error),
    TooLong,
}

/// An address without a login that may be in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

/// An error in one line.
fn said(error: &Error) -> String {
    std::iter::once(error.message().to_owned()).chain(error.causes()).collect::<Vec<_>>().join(": ")
}

fn gave_up(wanted: &Wanted, tried: &[String]) -> Error {
    let tried = if tried.is_empty() { "no place to ask is known".to_owned() } else { tried.join("; ") };
    let error = Error::failed(format!("{} cannot be had: {tried}", wanted.what));
    wanted.hints.iter().cloned().fold(error, Error::hint)
}
