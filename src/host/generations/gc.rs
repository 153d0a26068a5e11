//! Removing old generations.

use std::collections::BTreeSet;

use super::{Generations, write};
use crate::{
    digest::Digest,
    docker::Docker,
    error::{Error, Result},
    host::secrets,
    plan::Record,
    store::Store,
    system::files::Root,
};

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Generations.
    pub generations: Vec<u64>,
    /// Image tags; an image whose last name went is gone with it.
    pub tags: Vec<String>,
    /// Credentials that bedplate made for secrets no generation names any more.
    pub credentials: Vec<String>,
    /// Packages in the store that no generation's lock names any more.
    pub packages: usize,
}

/// Removes all generations but the current one, the one before it, and the newest `keep` beside those, with the
/// image tags, the secrets' credentials and the packages in the store that only they need. Call it under the host's
/// lock.
///
/// # Errors
/// One generation that cannot be read stops it before anything is removed: what it needs is not known. Also
/// an interrupted run, whose generation may be needed to go on.
pub async fn gc(
    root: &Root,
    keep: usize,
    docker: Option<&Docker>,
    store: Option<&Store>,
) -> Result<Collected> {
    let generations = Generations::new(root);
    let Some(current) = generations.current_number()? else { return Ok(Collected::default()) };
    if !generations.interrupted(Some(current))?.is_empty() || super::Journal::read(root)?.is_some() {
        return Err(Error::failed("a run was interrupted, and its generation may be needed")
            .hint("finish it first: `bedplate provision`"));
    }
    let numbers = generations.numbers()?;
    let loaded: Vec<(u64, Record)> = numbers
        .iter()
        .map(|number| Ok((*number, generations.load(*number)?.record)))
        .collect::<Result<_>>()?;
    let before = numbers.iter().rev().find(|number| **number < current).copied();
    let mut others: Vec<u64> =
        numbers.into_iter().filter(|number| *number != current && Some(*number) != before).collect();
    let drop_to = others.len().saturating_sub(keep);
    others.truncate(drop_to);

    let needless = needless_packages(generations, &loaded, &others)?;
    let kept_tags: Vec<&String> = loaded
        .iter()
        .filter(|(number, _)| !others.contains(number))
        .flat_map(|(_, record)| record.images.values())
        .collect();
    let mut collected = Collected::default();
    for (number, record) in loaded.iter().filter(|(number, _)| others.contains(number)) {
        for tag in record.images.values().filter(|tag| !kept_tags.contains(tag)) {
            if let Some(docker) = docker {
                docker.untag(tag).await?;
                collected.tags.push(tag.clone());
            }
        }
        // Before the generation: a later run would not know of them.
        let dropped = [record];
        let kept = loaded
            .iter()
            .filter(|(other, _)| !others.contains(other) || other > number)
            .map(|(_, record)| record);
        for id in write::needless_credentials(dropped, kept) {
            secrets::remove_credential(root, &id)?;
            collected.credentials.push(id);
        }
        write::remove(root, *number)?;
        collected.generations.push(*number);
    }
    // After the generations: one that is listed has its packages.
    for digest in needless {
        if let Some(store) = store
            && store.remove(&digest)?
        {
            collected.packages += 1;
        }
    }
    write::sweep(root)?;
    Ok(collected)
}

/// Packages that the locks of the generations to be dropped name, and no other generation's.
fn needless_packages(
    generations: Generations<'_>,
    loaded: &[(u64, Record)],
    dropped: &[u64],
) -> Result<BTreeSet<Digest>> {
    if dropped.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (mut kept, mut needless) = (BTreeSet::new(), BTreeSet::new());
    for (number, _) in loaded {
        let lock = generations.bundle(*number)?.open()?.lock;
        let packages = lock.host_packages();
        let named = packages.iter().map(|package| package.sha256);
        if dropped.contains(number) { needless.extend(named) } else { kept.extend(named) }
    }
    Ok(needless.difference(&kept).copied().collect())
}
