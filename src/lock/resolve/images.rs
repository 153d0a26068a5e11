//! Images: registries are asked only for what is new, changed, or asked for.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Request, Selection};
use crate::{
    digest::Digest,
    error::{Error, Result},
    lock::{ImageFacts, LockedImage, Verdict, VerdictOutcome, Wanted, reference, wanted},
    oci::{self, Client, Platform, Source},
    progress::{Progress, Unit},
};

/// An image whose reference names something else than when it was locked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// Its name in the lock.
    pub name: String,
    /// Its reference.
    pub reference: String,
    /// What the reference named when it was locked.
    pub from: Digest,
    /// What it names now.
    pub to: Digest,
}

/// What is done for each image.
struct Work<'a> {
    /// Images taken over from the old lock.
    kept: BTreeMap<String, &'a LockedImage>,
    /// Images whose reference is asked for again, with what is locked.
    asked: BTreeMap<String, &'a LockedImage>,
    /// Images that are resolved.
    resolved: BTreeMap<String, Wanted>,
}

/// Whether the images can be locked, and those to be updated are among them.
pub(super) fn check(request: &Request<'_>) -> Result<()> {
    sort(request, &wanted_images(request)?).map(drop)
}

/// The images of the lock. Their verdicts are still to be made.
pub(super) async fn locked_images(
    request: &Request<'_>,
    client: impl FnOnce() -> Result<Client>,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, LockedImage>> {
    let all = wanted_images(request)?;
    let mut work = sort(request, &all)?;
    let mut fresh = BTreeMap::new();
    if !work.asked.is_empty() || !work.resolved.is_empty() {
        let client = client()?;
        let mut errors = Vec::new();
        for (name, answer) in heads(request, &client, &work.asked, progress).await? {
            match answer {
                Ok(digest) if digest == work.asked[&name].named() => {
                    work.kept.insert(name.clone(), work.asked[&name]);
                }
                Ok(_) => {
                    work.resolved.insert(name.clone(), all[&name].clone());
                }
                Err(error) => errors.push(error),
            }
        }
        match resolve(request, &client, &work.resolved, progress).await {
            Ok(images) => fresh = images,
            Err(error) => errors.push(error),
        }
        if let Some(error) = Error::join(errors) {
            return Err(error);
        }
    }
    Ok(work.kept.into_iter().map(|(name, image)| (name, image.clone())).chain(fresh).collect())
}

/// What has moved of the images that `update` names and the old lock has, by name. One HEAD each; nothing is written.
///
/// # Errors
/// Every image that could not be asked for.
pub async fn moved(
    request: &Request<'_>,
    client: impl FnOnce() -> Result<Client>,
    progress: &dyn Progress,
) -> Result<Vec<Moved>> {
    let all = wanted_images(request)?;
    let work = sort(request, &all)?;
    if work.asked.is_empty() {
        return Ok(Vec::new());
    }
    let client = client()?;
    let mut moved = Vec::new();
    let mut errors = Vec::new();
    for (name, answer) in heads(request, &client, &work.asked, progress).await? {
        let locked = work.asked[&name];
        match answer {
            Ok(digest) if digest == locked.named() => {}
            Ok(digest) => moved.push(Moved {
                name,
                reference: locked.reference.clone(),
                from: locked.named(),
                to: digest,
            }),
            Err(error) => errors.push(error),
        }
    }
    Error::join(errors).map_or(Ok(moved), Err)
}

fn wanted_images(request: &Request<'_>) -> Result<BTreeMap<String, Wanted>> {
    wanted(request.profile, &request.deployments.values().collect::<Vec<_>>())
}

fn platform(request: &Request<'_>) -> Platform {
    Platform::linux(&request.profile.host.architecture)
}

/// Sorts the wanted images by what must be done for each.
fn sort<'a>(request: &Request<'a>, all: &BTreeMap<String, Wanted>) -> Result<Work<'a>> {
    if let Selection::Named(names) = &request.update.images {
        let errors = names.iter().filter(|name| !all.contains_key(*name)).map(|name| {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            Error::usage(format!("no image is named `{}`", name.escape_debug()))
                .hint(format!("the profile and its deployments have: {}", known.join(", ")))
        });
        if let Some(error) = Error::join(errors) {
            return Err(error);
        }
    }
    let platform = platform(request).to_string();
    let mut work = Work { kept: BTreeMap::new(), asked: BTreeMap::new(), resolved: BTreeMap::new() };
    for (name, wanted) in all {
        let fits = |image: &&LockedImage| image.reference == wanted.reference && image.platform == platform;
        let locked = request.old.and_then(|old| {
            // An image that was only given another name is still the same image.
            old.images.get(name).filter(fits).or_else(|| old.images.values().find(fits))
        });
        let selected = request.update.images.has(name);
        match locked {
            None => {
                work.resolved.insert(name.clone(), wanted.clone());
            }
            // What is named by digest cannot move.
            Some(image) if selected && !reference::is_pinned(&wanted.reference) => {
                work.asked.insert(name.clone(), image);
            }
            Some(image) => {
                work.kept.insert(name.clone(), image);
            }
        }
    }
    Ok(work)
}

/// A reference as `oci` takes it; a layout's directory relative to the profile's.
fn source(request: &Request<'_>, text: &str) -> Result<Source> {
    Ok(match text.parse()? {
        Source::Layout { dir, tag } => Source::Layout { dir: request.directory.join(dir), tag },
        registry @ Source::Registry(_) => registry,
    })
}

/// Counts what is done under one task.
struct Counted<'a> {
    progress: &'a dyn Progress,
    task: &'static str,
    done: AtomicU64,
}

impl<'a> Counted<'a> {
    fn new(progress: &'a dyn Progress, task: &'static str, total: usize) -> Self {
        progress.started(task, Some(total as u64), Unit::Items);
        Self { progress, task, done: AtomicU64::new(0) }
    }

    fn one(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.progress.advanced(self.task, done, None);
    }
}

/// Sources that several images share are asked for once.
fn unique<'n>(
    request: &Request<'_>,
    references: impl Iterator<Item = &'n str>,
) -> Result<(Vec<Source>, BTreeMap<&'n str, usize>)> {
    let mut sources = Vec::new();
    let mut places = BTreeMap::new();
    for reference in references {
        if !places.contains_key(reference) {
            places.insert(reference, sources.len());
            sources.push(source(request, reference)?);
        }
    }
    Ok((sources, places))
}

async fn heads(
    request: &Request<'_>,
    client: &Client,
    asked: &BTreeMap<String, &LockedImage>,
    progress: &dyn Progress,
) -> Result<Vec<(String, Result<Digest>)>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let (sources, places) = unique(request, asked.values().map(|image| image.reference.as_str()))?;
    let counted = Counted::new(progress, "asking what has moved", sources.len());
    let answers = client.head_many(&sources, |_, _| counted.one()).await;
    progress.finished(counted.task, None);
    let mut answers: Vec<_> = answers.into_iter().map(|answer| Shared(Some(answer))).collect();
    Ok(asked
        .iter()
        .filter_map(|(name, image)| {
            let place = *places.get(image.reference.as_str())?;
            Some((name.clone(), answers.get_mut(place)?.take()?))
        })
        .collect())
}

/// An answer may serve several images; an error is told once.
struct Shared<T>(Option<Result<T>>);

impl<T: Clone> Shared<T> {
    fn take(&mut self) -> Option<Result<T>> {
        match &self.0 {
            Some(Ok(value)) => Some(Ok(value.clone())),
            _ => self.0.take(),
        }
    }
}

async fn resolve(
    request: &Request<'_>,
    client: &Client,
    wanted: &BTreeMap<String, Wanted>,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, LockedImage>> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (sources, places) = unique(request, wanted.values().map(|wanted| wanted.reference.as_str()))?;
    let jobs: Vec<(Source, Platform)> =
        sources.into_iter().map(|source| (source, platform(request))).collect();
    let counted = Counted::new(progress, "resolving images", jobs.len());
    let answers = client.resolve_many(&jobs, |_, _| counted.one()).await;
    progress.finished(counted.task, None);
    let mut answers: Vec<_> = answers.into_iter().map(|answer| Shared(Some(answer))).collect();
    let mut images = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, wanted) in wanted {
        let answer = places
            .get(wanted.reference.as_str())
            .and_then(|place| answers.get_mut(*place))
            .and_then(Shared::take);
        match answer {
            Some(Ok(resolved)) => {
                images.insert(name.clone(), locked(wanted, resolved));
            }
            Some(Err(error)) => {
                let known = error.message().contains(&reference::without_tag(&wanted.reference));
                let which = format!("this is image `{name}`: `{}`", wanted.reference);
                errors.push(if known { error } else { error.hint(which) });
            }
            None => {}
        }
    }
    Error::join(errors).map_or(Ok(images), Err)
}

fn locked(wanted: &Wanted, resolved: oci::Resolved) -> LockedImage {
    let facts = ImageFacts {
        cuda: resolved.facts.cuda,
        require: resolved.facts.require,
        disable_require: resolved.facts.disable_require,
        entrypoint: resolved.facts.entrypoint,
        command: resolved.facts.command,
        user: resolved.facts.user,
    };
    LockedImage {
        reference: wanted.reference.clone(),
        platform: resolved.platform.to_string(),
        index: resolved.index,
        manifest: resolved.manifest,
        config: resolved.config,
        download: resolved.download,
        layers: resolved.layers,
        // Made for all images at once, when the driver is known.
        verdict: Verdict { outcome: VerdictOutcome::Unknown, because: String::new() },
        facts,
    }
}
