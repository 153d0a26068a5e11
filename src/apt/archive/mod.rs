//! From an archive's address to a verified [`Catalog`]: its release files, held against the keyring and the clock,
//! then the indices that they list, by their digests. What was read once is kept and read again without the network.
//!
//! | module | what lives there |
//! |---|---|
//! | `suite` | one suite: its release file from the first mirror that has it, its indices |
//! | `choice` | which indices of a release file are read, and in which form |
//! | `unpack` | compressed indices, bounded |
//! | `cache` | what is kept between two runs |

mod cache;
mod choice;
mod suite;
mod unpack;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt, stream};
use jiff::{Timestamp, civil::DateTime, tz::Offset};
use tokio::sync::Semaphore;
use url::Url;

use self::{
    cache::Cache,
    suite::{Suite, SuiteRead},
};
use super::{Catalog, signature::Keyring, transport::Transport};
use crate::{
    digest::Digest,
    error::{Error, Result},
    progress::{Event, Progress, Unit},
};

/// What stands for the snapshot's time in an address.
pub const SNAPSHOT_ID: &str = "@SNAPSHOTID@";
/// The task as progress shows it.
const TASK: &str = "suites of the archives";
/// How many suites are read at a time.
const SUITES: usize = 16;
/// How many files are fetched at a time.
const FETCHES: usize = 8;

/// An archive to be read.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its name in locks and messages.
    pub name: String,
    /// Base addresses of its mirrors, in the order they are asked. One with `@SNAPSHOTID@` in it is asked for
    /// snapshots only.
    pub uris: Vec<Url>,
    /// Suites; of a flat repository paths that end in `/`.
    pub suites: Vec<String>,
    /// Components; none for a flat repository.
    pub components: Vec<String>,
    /// What its release files are verified with.
    pub keyring: KeyringFile,
    /// The time it is wanted as of, such as `20261121T091500Z`.
    pub snapshot: Option<String>,
    /// Dates that were verified before, by suite: an older release file is of a mirror that is behind.
    pub not_before: BTreeMap<String, Timestamp>,
}

/// A keyring as a file, and how messages name it.
#[derive(Debug, Clone)]
pub struct KeyringFile {
    /// How messages name it.
    pub shown: String,
    /// Certificates, binary or armored.
    pub bytes: Vec<u8>,
}

/// What archives are read with.
pub struct Access<'a> {
    /// Connections to mirrors.
    pub transport: &'a Transport,
    /// Where release files and indices are kept between two runs.
    pub cache: Option<&'a Path>,
    /// Debian's names of the architectures, the host's own first: others are read where an archive has them.
    pub architectures: &'a [String],
    /// The clock.
    pub now: Timestamp,
}

/// What was verified of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The snapshot that was asked for.
    pub snapshot: Option<String>,
    /// Its suites (or paths of a flat repository), by name.
    pub suites: BTreeMap<String, SeenSuite>,
}

/// What was verified of a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSuite {
    /// Digest of the release file's signed text.
    pub release: Digest,
    /// Its `Date`, as RFC 3339 in UTC.
    pub date: String,
    /// Fingerprints of the primary keys whose signatures are good, uppercase hexadecimal, sorted.
    pub signed_by: Vec<String>,
}

/// The packages of the archives, and what was verified on the way to them.
#[derive(Debug)]
pub struct Read {
    /// Every package, in the order of archives, suites, components and architectures.
    pub catalog: Catalog,
    /// By the archive's name.
    pub seen: BTreeMap<String, Seen>,
}

/// What all suites share.
struct Common<'a> {
    access: &'a Access<'a>,
    cache: Arc<Cache>,
    progress: &'a dyn Progress,
    /// How many files may be fetched at once.
    fetches: Semaphore,
    /// How many indices may be unpacked at once: each takes a hundred megabytes for a moment.
    unpacks: Semaphore,
    /// How many suites are read.
    done: AtomicU64,
}

impl Common<'_> {
    /// Says where reading stands. `note`: what it is doing; empty: nothing in particular any more.
    fn told(&self, note: Option<&str>) {
        let done = self.done.load(Ordering::Relaxed);
        self.progress.event(Event::Advanced {
            task: TASK.into(),
            done,
            total: None,
            note: note.map(Into::into),
        });
    }
}

/// Reads the archives, all suites at once. Mirrors that cannot be reached, that do not have a file or that are
/// behind are passed over with a warning; a signature that is not good is an error at once.
///
/// # Errors
/// Each names archive and suite: no mirror has it; its signature, date or name is not good; a component, index or
/// SHA-256 is missing; an index is not what the release file says, or is broken.
pub async fn read(archives: &[Archive], access: &Access<'_>, progress: &dyn Progress) -> Result<Read> {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let common = Common {
        access,
        cache: Arc::new(Cache::open(access.cache)),
        progress,
        fetches: Semaphore::new(FETCHES),
        unpacks: Semaphore::new(processors.clamp(1, 4)),
        done: AtomicU64::new(0),
    };
    let mut suites = Vec::new();
    for archive in archives {
        let keyring = Arc::new(Keyring::parse(&archive.keyring.bytes, &archive.keyring.shown)?);
        let at = match &archive.snapshot {
            Some(id) => snapshot_time(id)?,
            None => access.now,
        };
        suites.extend(archive.suites.iter().map(|name| Suite::new(&common, archive, name, &keyring, at)));
    }
    progress.started(TASK, Some(suites.len() as u64), Unit::Items);
    let read: Vec<Result<SuiteRead>> = stream::iter(suites.iter().map(|suite| async {
        let read = suite.read().await;
        common.done.fetch_add(1, Ordering::Relaxed);
        common.told(None);
        read
    }))
    .buffered(SUITES)
    .collect()
    .await;
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let (mut parts, mut errors) = (Vec::new(), Vec::new());
    for (suite, read) in suites.iter().zip(read) {
        match read {
            Ok(read) => {
                let archive = seen.entry(suite.archive.name.clone()).or_default();
                archive.snapshot.clone_from(&suite.archive.snapshot);
                archive.suites.insert(suite.name.to_owned(), read.seen);
                parts.extend(read.parts);
            }
            Err(error) => errors.push(error),
        }
    }
    common.cache.finish(progress);
    // Where nothing answers, each suite says the same.
    errors.dedup_by(|one, other| one.message() == other.message());
    if let Some(error) = Error::join(errors) {
        return Err(error);
    }
    let catalog = Catalog::from_parts(parts)?;
    progress.finished(TASK, Some(&format!("{} packages in {}", catalog.len(), suites.len())));
    Ok(Read { catalog, seen })
}

/// The time that a snapshot's name says.
///
/// # Errors
/// It is no such name.
pub fn snapshot_time(id: &str) -> Result<Timestamp> {
    DateTime::strptime("%Y%m%dT%H%M%SZ", id)
        .ok()
        .filter(|_| id.len() == 16)
        .and_then(|time| Offset::UTC.to_timestamp(time).ok())
        .ok_or_else(|| {
            Error::usage(format!("`{}` is no snapshot's time", id.escape_debug()))
                .hint("write it in UTC as archives do: `20261121T091500Z`")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_snapshots() {
        assert_eq!(snapshot_time("20261121T091500Z").unwrap(), "2026-11-21T09:15:00Z".parse().unwrap());
        for bad in
            ["", "20261121", "20261121T0915Z", "20261321T091500Z", "20261121T091500", "2026-11-21T09:15:00Z"]
        {
            assert!(snapshot_time(bad).is_err(), "{bad}");
        }
    }
}
