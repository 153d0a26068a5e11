//! One suite: its release file from the first mirror that has a good one, and the indices that it lists.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use url::Url;

use super::{
    Archive, Common, SNAPSHOT_ID, SeenSuite,
    cache::{Cache, Kept},
    choice::{self, Choice},
    unpack::{self, Form},
};
use crate::{
    apt::{
        catalog::Part,
        download::address,
        failure::{self, Failure, Why},
        index::Index,
        release::{Expected, Listed, Release},
        signature::{Keyring, Verified},
        transport::{Ask, Validators},
    },
    digest::Digest,
    error::{Error, Result},
};

/// The largest release file, in bytes; Debian's largest have a megabyte.
const LARGEST_RELEASE: u64 = 16 << 20;
/// The largest signature beside a release file, in bytes.
const LARGEST_SIGNATURE: u64 = 1 << 20;
/// How much larger than listed an index may come, so that one of the archive's next state is known for that.
const GROWN: u64 = 4 << 20;
/// How many indices of a suite are read at a time.
const INDICES: usize = 8;

/// A suite to be read.
pub(super) struct Suite<'a> {
    common: &'a Common<'a>,
    pub(super) archive: &'a Archive,
    pub(super) name: &'a str,
    keyring: Arc<Keyring>,
    /// The time it is to be valid at.
    at: Timestamp,
    /// Indices that were read, by the digest of their file: what an archive that changes meanwhile leaves as it is.
    known: Mutex<BTreeMap<Digest, Arc<Index>>>,
}

/// What came of it.
pub(super) struct SuiteRead {
    pub(super) seen: SeenSuite,
    pub(super) parts: Vec<Part>,
}

/// A release file that was found good.
struct Found {
    release: Release,
    verified: Verified,
    /// The mirrors to ask for indices: the one it is from first.
    bases: Vec<Url>,
}

/// Why a mirror's release file is not used.
enum Refused {
    /// Another mirror may have a good one.
    Here(Error),
    /// Nobody should go on.
    Everywhere(Error),
}

/// Why an index was not read.
enum Problem {
    /// It is not there, or not as listed: the archive may have changed since its release file was read.
    Changed(Error),
    Other(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A file that came, to be kept once it is found good.
struct Came {
    url: Url,
    content: Vec<u8>,
    /// `None`: it was kept already.
    validators: Option<Validators>,
}

impl<'a> Suite<'a> {
    pub(super) fn new(
        common: &'a Common<'a>,
        archive: &'a Archive,
        name: &'a str,
        keyring: &Arc<Keyring>,
        at: Timestamp,
    ) -> Self {
        Self { common, archive, name, keyring: keyring.clone(), at, known: Mutex::default() }
    }

    /// Reads it. Where an index is not what the release file says, the release file is read once more: archives
    /// change.
    pub(super) async fn read(&self) -> Result<SuiteRead> {
        let first = self.release(false).await?;
        let error = match self.indices(&first).await {
            Ok(parts) => return Ok(done(first, parts)),
            Err(Problem::Other(error)) => return Err(error),
            Err(Problem::Changed(error)) => error,
        };
        let second = self.release(true).await?;
        if second.verified.text == first.verified.text {
            return Err(error);
        }
        match self.indices(&second).await {
            Ok(parts) => Ok(done(second, parts)),
            Err(Problem::Other(error)) => Err(error),
            Err(Problem::Changed(error)) => Err(Error::failed(format!(
                "the archive `{}` `{}` changes while it is read: its release file was read twice, and its indices \
                 are of another state each time",
                self.archive.name, self.name
            ))
            .because(error)
            .hint("wait until the mirror is up to date, some minutes, or use another: `--mirror URL`")),
        }
    }

    fn is_flat(&self) -> bool {
        self.name.ends_with('/')
    }

    /// The path of a file beside the release file.
    fn path(&self, file: &str) -> String {
        if self.is_flat() {
            format!("{}/{file}", self.name.trim_matches('/'))
        } else {
            format!("dists/{}/{file}", self.name)
        }
    }

    /// The release file of the first mirror that has a good one. `anew`: what was kept does not count.
    async fn release(&self, anew: bool) -> Result<Found> {
        let archive = self.archive;
        let bases: Vec<&Url> = archive
            .uris
            .iter()
            .filter(|base| archive.snapshot.is_some() || !base.path().contains(SNAPSHOT_ID))
            .collect();
        let mut refused: Vec<Error> = Vec::new();
        for (at, base) in bases.iter().enumerate() {
            match self.release_of(base, anew).await {
                Ok((base, release, verified)) => {
                    for error in refused {
                        self.common.progress.warning(&format!("{error}; another mirror has it"));
                    }
                    let mut of = vec![base];
                    if archive.snapshot.is_none() {
                        of.extend(
                            bases
                                .iter()
                                .enumerate()
                                .filter(|(other, _)| *other != at)
                                .map(|(_, base)| (*base).clone()),
                        );
                    }
                    return Ok(Found { release, verified, bases: of });
                }
                Err(Refused::Here(error)) => refused.push(error),
                Err(Refused::Everywhere(error)) => return Err(error),
            }
        }
        Err(Error::join(refused).unwrap_or_else(|| {
            Error::usage(format!("no mirror of the archive `{}` is known", archive.name)).hint(format!(
                "name one: `--mirror URL`, or `[archive.{}]` with `mirrors = [\"…\"]` in the configuration file",
                archive.name
            ))
        }))
    }

    /// The release file of this mirror, and the address that its indices are below.
    async fn release_of(&self, base: &Url, anew: bool) -> Result<(Url, Release, Verified), Refused> {
        let Some(id) = &self.archive.snapshot else {
            let (release, verified) = self.good(base, anew, None).await?;
            return Ok((base.clone(), release, verified));
        };
        let template = if base.path().contains(SNAPSHOT_ID) {
            base.to_string()
        } else {
            // The release file of today says where those of other days are.
            let (release, _) = self.good(base, anew, None).await?;
            release.snapshots.ok_or_else(|| {
                let name = &self.archive.name;
                Refused::Here(
                    Error::failed(format!("{} does not say where its snapshots are", self.place(base))).hint(format!(
                        "give the address of one that keeps them: `[archive.{name}]` with \
                         `snapshot = \"https://…/{SNAPSHOT_ID}/\"` in the configuration file; or go without `snapshot`"
                    )),
                )
            })?
        };
        let address = template.replace(SNAPSHOT_ID, id);
        let base: Url = address.parse().map_err(|error| {
            Refused::Here(Error::failed(format!("`{address}` is no address of a snapshot")).because(error))
        })?;
        let (release, verified) = self.good(&base, anew, Some(self.at)).await?;
        if release.date > self.at {
            return Err(Refused::Here(
                Error::failed(format!(
                    "{} is of {}, which is after the snapshot's time",
                    self.place(&base),
                    release.date
                ))
                .hint("check the address of the snapshots, or use another"),
            ));
        }
        Ok((base, release, verified))
    }

    /// How messages name the release file of a mirror.
    fn place(&self, base: &Url) -> String {
        format!("the release file of `{}` `{}` from `{}`", self.archive.name, self.name, failure::shown(base))
    }

    /// The release file below `base`, verified, and held against the suite and the clock, or the time of a
    /// snapshot.
    async fn good(
        &self,
        base: &Url,
        anew: bool,
        snapshot: Option<Timestamp>,
    ) -> Result<(Release, Verified), Refused> {
        let place = self.place(base);
        let (now, at) = (self.common.access.now, snapshot.unwrap_or(self.common.access.now));
        let verified = self.signed(base, &place, anew, at).await?;
        let release = Release::parse(&verified.text, &place).map_err(Refused::Everywhere)?;
        let expected = Expected {
            suite: (!self.is_flat()).then_some(self.name),
            now,
            at,
            not_before: self.archive.not_before.get(self.name).copied().filter(|_| snapshot.is_none()),
        };
        release.check(expected, &place).map_err(Refused::Here)?;
        Ok((release, verified))
    }

    /// `InRelease`, else `Release` with `Release.gpg`.
    async fn signed(&self, base: &Url, place: &str, anew: bool, at: Timestamp) -> Result<Verified, Refused> {
        let here = |failure: Failure| Refused::Here(failure.into());
        let keyring = self.keyring.clone();
        let placed = place.to_owned();
        let (came, verified) = match self.file(base, "InRelease", LARGEST_RELEASE, anew).await {
            Ok(came) => {
                let (came, verified) = blocking(move || {
                    let verified = keyring.inline(&came.content, &placed, at);
                    (came, verified)
                })
                .await
                .map_err(Refused::Everywhere)?;
                (vec![came], verified)
            }
            Err(failure) if failure.why == Why::Absent => {
                let came = self.file(base, "Release", LARGEST_RELEASE, anew).await.map_err(here)?;
                let beside = match self.file(base, "Release.gpg", LARGEST_SIGNATURE, anew).await {
                    Ok(beside) => Some(beside),
                    Err(failure) if failure.why == Why::Absent => None,
                    Err(failure) => return Err(here(failure)),
                };
                let (came, beside, verified) = blocking(move || {
                    let signature = beside.as_ref().map(|beside| beside.content.as_slice());
                    let verified =
                        keyring.detached(&came.content, signature.unwrap_or_default(), &placed, at);
                    (came, beside, verified)
                })
                .await
                .map_err(Refused::Everywhere)?;
                (std::iter::once(came).chain(beside).collect(), verified)
            }
            Err(failure) => return Err(here(failure)),
        };
        let verified = verified.map_err(Refused::Everywhere)?;
        for Came { url, content, validators } in came {
            if let Some(validators) = validators {
                self.common.cache.keep_file(&url, &Kept { validators, content });
            }
        }
        Ok(verified)
    }

    /// A file beside the release file, or the one that was kept where it is still the same.
    async fn file(&self, base: &Url, file: &str, limit: u64, anew: bool) -> Result<Came, Failure> {
        let url = locate(base, &self.path(file))?;
        let kept = if anew { None } else { self.common.cache.file(&url) };
        let what = format!("`{file}` of `{}` `{}`", self.archive.name, self.name);
        let unless = kept.as_ref().map(|kept| &kept.validators);
        let came = self.fetch(&url, Ask { what: &what, unless, ..Ask::default() }, limit).await?;
        match (came, kept) {
            (Some((content, validators)), _) => Ok(Came { url, content, validators: Some(validators) }),
            (None, Some(Kept { content, .. })) => Ok(Came { url, content, validators: None }),
            (None, None) => Err(Error::failed(format!(
                "`{}` says that {what} has not changed, which was not asked",
                failure::authority(&url)
            ))
            .hint("look at the mirror or a proxy in between")
            .into()),
        }
    }

    async fn fetch(
        &self,
        url: &Url,
        ask: Ask<'_>,
        limit: u64,
    ) -> Result<Option<(Vec<u8>, Validators)>, Failure> {
        let _turn = self.common.fetches.acquire().await;
        let waits = |silent: Option<Duration>| {
            let note = silent.map_or_else(String::new, |silent| {
                format!("waiting for {}, {} s", failure::authority(url), silent.as_secs())
            });
            self.common.told(Some(&note));
        };
        self.common.access.transport.whole(url, Ask { waits: Some(&waits), ..ask }, limit).await
    }

    /// Every index that is wanted of the release file, in order.
    async fn indices(&self, found: &Found) -> Result<Vec<Part>, Problem> {
        let wanted =
            choice::choose(self.archive, self.name, &found.release, self.common.access.architectures)?;
        let indices: Vec<Arc<Index>> = stream::iter(wanted.iter().map(|choice| self.index(found, choice)))
            .buffered(INDICES)
            .try_collect()
            .await?;
        let (repository, suite): (Arc<str>, Arc<str>) = (self.archive.name.as_str().into(), self.name.into());
        Ok(indices
            .into_iter()
            .map(|index| Part {
                repository: repository.clone(),
                suite: suite.clone(),
                priority: found.release.priority,
                index,
            })
            .collect())
    }

    /// One index: what was kept of any of its forms, else the first form that a mirror has.
    async fn index(&self, found: &Found, choice: &Choice) -> Result<Arc<Index>, Problem> {
        for (_, listed) in &choice.forms {
            if let Some(index) = self.kept(listed.digest).await? {
                return Ok(index);
            }
        }
        let mut absent = None;
        for (form, listed) in &choice.forms {
            match self.packed(found, choice, *form, *listed).await {
                Ok(packed) => return Ok(self.unpacked(choice, *form, *listed, packed).await?),
                Err(Lacking::Absent(error)) => {
                    absent.get_or_insert(error);
                }
                Err(Lacking::Other(error)) => return Err(Problem::Changed(error)),
                Err(Lacking::Failed(error)) => return Err(Problem::Other(error)),
            }
        }
        let error = Error::failed(format!(
            "{} is listed in its release file, and no mirror has it",
            self.index_place(choice, Form::Plain)
        ))
        .hint("the mirror is incomplete: use another, `--mirror URL`, or try again in some minutes");
        Err(Problem::Changed(match absent {
            Some(cause) => error.because(cause),
            None => error,
        }))
    }

    /// How messages name an index in one of its forms.
    fn index_place(&self, choice: &Choice, form: Form) -> String {
        format!("the index `{}{}` of `{}` `{}`", choice.path, form.end(), self.archive.name, self.name)
    }

    async fn kept(&self, digest: Digest) -> Result<Option<Arc<Index>>> {
        if let Some(index) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&digest) {
            return Ok(Some(index.clone()));
        }
        let cache = self.common.cache.clone();
        let index = blocking(move || cache.index(&digest).map(Arc::new)).await?;
        if let Some(index) = &index {
            self.remember(digest, index);
        }
        Ok(index)
    }

    fn remember(&self, digest: Digest, index: &Arc<Index>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, index.clone());
    }

    /// The file of one form, as the release file has it: by its digest, where that is offered, then by name; from
    /// the release file's mirror, then from the others.
    async fn packed(
        &self,
        found: &Found,
        choice: &Choice,
        form: Form,
        listed: Listed,
    ) -> Result<Vec<u8>, Lacking> {
        let what = self.index_place(choice, form);
        if listed.size > if form == Form::Plain { unpack::LARGEST } else { unpack::LARGEST_PACKED } {
            return Err(Lacking::Failed(
                Error::failed(format!("{what} is too large: {} bytes by its release file", listed.size))
                    .hint("check that the address is that of an archive"),
            ));
        }
        let name = format!("{}{}", choice.path, form.end());
        let mut paths = vec![self.path(&name)];
        if found.release.by_hash {
            let folder =
                choice.path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            paths.insert(0, self.path(&format!("{folder}by-hash/SHA256/{}", listed.digest.hex())));
        }
        let mut lacking: Option<Lacking> = None;
        for base in &found.bases {
            let mut silent = false;
            for path in &paths {
                // A mirror that does not answer for one name does not for another.
                if silent {
                    break;
                }
                let url = locate(base, path).map_err(Lacking::Failed)?;
                let ask = Ask { what: &what, ..Ask::default() };
                let this = match self.fetch(&url, ask, listed.size.saturating_add(GROWN)).await {
                    Ok(came) => {
                        let (content, _) = came.unwrap_or_default();
                        match differs(&what, &url, &content, listed) {
                            None => return Ok(content),
                            Some(error) => Lacking::Other(error),
                        }
                    }
                    Err(failure) if failure.why == Why::Absent => Lacking::Absent(failure.into()),
                    Err(failure) => {
                        silent = matches!(failure.why, Why::Unreachable | Why::Slow);
                        Lacking::Failed(failure.into())
                    }
                };
                if lacking.as_ref().is_none_or(|before| before.weight() < this.weight()) {
                    lacking = Some(this);
                }
            }
        }
        Err(lacking
            .unwrap_or_else(|| Lacking::Failed(Error::failed(format!("no mirror was asked for {what}")))))
    }

    /// Unpacks and reads an index, and keeps it.
    async fn unpacked(
        &self,
        choice: &Choice,
        form: Form,
        listed: Listed,
        packed: Vec<u8>,
    ) -> Result<Arc<Index>> {
        let _turn = self.common.unpacks.acquire().await;
        let what = self.index_place(choice, form);
        let place = format!("of `{}` `{}` `{}`", self.archive.name, self.name, choice.path);
        let size = choice.size.filter(|_| form != Form::Plain);
        let cache: Arc<Cache> = self.common.cache.clone();
        let index = blocking(move || -> Result<Arc<Index>> {
            let text = content(&what, form, packed, size)?;
            let index = Index::parse(&place, &text)?;
            drop(text);
            cache.keep_index(&listed.digest, &index);
            Ok(Arc::new(index))
        })
        .await??;
        self.remember(listed.digest, &index);
        Ok(index)
    }
}

/// What is told of a suite whose indices were read.
fn done(found: Found, parts: Vec<Part>) -> SuiteRead {
    let seen = SeenSuite {
        release: Digest::of(&found.verified.text),
        date: found.release.date.to_string(),
        signed_by: found.verified.signed_by,
    };
    SuiteRead { seen, parts }
}

/// Why no mirror gave a file as it is listed.
enum Lacking {
    Absent(Error),
    Failed(Error),
    /// There is another one.
    Other(Error),
}

impl Lacking {
    /// The more telling, the higher.
    fn weight(&self) -> u8 {
        match self {
            Self::Absent(_) => 0,
            Self::Failed(_) => 1,
            Self::Other(_) => 2,
        }
    }
}

/// What is wrong with a file that should be as it is listed.
fn differs(what: &str, url: &Url, content: &[u8], listed: Listed) -> Option<Error> {
    let (size, from) = (content.len() as u64, failure::authority(url));
    let hint =
        "the mirror is being updated, or broken: try again in some minutes, or use another, `--mirror URL`";
    if size < listed.size {
        let text = format!(
            "{what} from `{from}` is cut short: it has {size} of the {} bytes its release file says",
            listed.size
        );
        return Some(Error::failed(text).hint(hint));
    }
    let digest = Digest::of(content);
    (digest != listed.digest).then(|| {
        Error::failed(format!(
            "{what} from `{from}` is not what its release file says: its digest is `{digest}`, not `{}`",
            listed.digest
        ))
        .hint(hint)
    })
}

/// The text of an index. `size`: what its release file says that it has.
fn content(what: &str, form: Form, packed: Vec<u8>, size: Option<u64>) -> Result<Vec<u8>> {
    let limit = size.unwrap_or(unpack::LARGEST).min(unpack::LARGEST);
    // What is promised is not reserved at once: it may be a lie.
    let expected = limit.min(packed.len() as u64 * 8) as usize;
    let text = unpack::unpack(form, packed, limit, expected).map_err(|error| {
        Error::failed(format!("{what} does not unpack"))
            .because(error)
            .hint("tell the archive's owner, or use another mirror")
    })?;
    let got = text.len() as u64;
    let wrong = match size {
        _ if got > limit => Some(format!("more than the {limit} bytes it may have")),
        Some(size) if got != size => Some(format!("{got} bytes, and not the {size} its release file says")),
        _ => None,
    };
    match wrong {
        Some(wrong) => Err(Error::failed(format!("{what} unpacks to {wrong}"))
            .hint("tell the archive's owner, or use another mirror")),
        None => Ok(text),
    }
}

fn locate(base: &Url, path: &str) -> Result<Url> {
    address(base, path).ok_or_else(|| {
        Error::usage(format!("`{}` is no address of an archive", failure::shown(base)))
            .hint("give an address that begins with `https://`, `http://` or `file:///`")
    })
}

/// Work that takes the processor for long, apart from the network's.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::failed("reading an archive broke off").because(error))
}
