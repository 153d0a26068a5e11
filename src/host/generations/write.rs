//! Making generations: prepared whole, named in one step, committed in one step.

use std::collections::{BTreeMap, BTreeSet};

use super::{About, GENERATIONS, Generation, Generations, State, generation, to_json};
use crate::{
    digest::Digest,
    error::{Error, Result},
    host::{
        layout::{CURRENT, HOST_PROFILE, READINESS, REPORT, STATE},
        secrets,
    },
    plan::{Change, OwnedSecret, Plan, Record, SAVED},
    system::files::{Owner, Root},
};

/// Largest saved content, in bytes.
const LIMIT: u64 = 1 << 30;

/// What a new generation is made of.
pub(crate) struct Ready<'a> {
    pub(crate) profile: &'a str,
    pub(crate) lock: Digest,
    pub(crate) bundle: Digest,
    pub(crate) files: &'a BTreeMap<String, Vec<u8>>,
    pub(crate) created: jiff::Timestamp,
}

/// Writes the plan's generation down, durable, before anything on the host changes: a folder of its own
/// with what it will own and what was there before.
pub(crate) fn prepare(root: &Root, plan: &Plan, ready: &Ready) -> Result<()> {
    let owner = Owner::current();
    for folder in [STATE, GENERATIONS] {
        root.make_dir(folder, 0o700, owner)?;
    }
    let folder = generation(plan.generation);
    let there = root.stat(&folder)?.is_some();
    if plan.change == Change::Switch
        && (!there || Generations::new(root).state(plan.generation)? == State::Pending)
    {
        return Err(never_whole(plan.generation));
    }
    if there {
        save_contents(root, &plan.record, &folder)?;
        root.write(&format!("{folder}/record.json"), &to_json(&plan.record, "the record")?, 0o600, owner)?;
        if plan.change == Change::Switch {
            set_state(root, plan.generation, State::Switching)?;
        }
        return Ok(());
    }
    let fresh = format!("{GENERATIONS}/.new-{}", plan.generation);
    root.remove_tree(&fresh)?;
    root.make_dir(&fresh, 0o700, owner)?;
    let about = About {
        number: plan.generation,
        bundle: ready.bundle,
        profile: ready.profile.to_owned(),
        lock: ready.lock,
        created: ready.created,
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
    };
    for (name, content) in ready.files {
        if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(Error::failed(format!(
                "the bundle has a file with a bad name, `{}`",
                name.escape_debug()
            )));
        }
        let path = format!("{fresh}/bundle/{name}");
        if let Some((parent, _)) = path.rsplit_once('/') {
            root.make_dir(parent, 0o700, owner)?;
        }
        root.write(&path, content, 0o600, owner)?;
    }
    save_contents(root, &plan.record, &fresh)?;
    root.write(&format!("{fresh}/about.json"), &to_json(&about, "the generation")?, 0o600, owner)?;
    root.write(&format!("{fresh}/record.json"), &to_json(&plan.record, "the record")?, 0o600, owner)?;
    root.write(&format!("{fresh}/state"), b"pending\n", 0o600, owner)?;
    root.rename(&fresh, &folder)
}

/// A generation that nobody can go to.
pub(crate) fn never_whole(number: u64) -> Error {
    Error::failed(format!("generation {number} was never made whole"))
        .hint("finish it with `bedplate provision`, or choose another: `bedplate generations list`")
}

/// Forgets what was proved of the current generation and of `number`, durably: before anything on the host
/// changes, so that a change that is interrupted, or made without checks, leaves no proof of what was.
pub(crate) fn forget_readiness(root: &Root, number: u64) -> Result<()> {
    let current = Generations::new(root).current_number()?;
    for number in current.into_iter().filter(|current| *current != number).chain([number]) {
        let folder = generation(number);
        root.remove_tree(&format!("{folder}/{READINESS}"))?;
    }
    // Of the generation that is left the report stays: `rollback` wants one whose checks passed.
    root.remove_file(&format!("{}/{REPORT}", generation(number))).map(drop)
}

/// Notes in the current generation's record that secret `name` is kept as credential `id`.
pub(crate) fn note_credential(root: &Root, name: &str, id: &str, ours: bool) -> Result<()> {
    let Some(Generation { about, mut record, .. }) = Generations::new(root).current()? else { return Ok(()) };
    let noted = OwnedSecret { credential: Some(id.to_owned()), ours, wanted: true };
    if record.secrets.get(name) == Some(&noted) {
        return Ok(());
    }
    record.secrets.insert(name.to_owned(), noted);
    let path = format!("{}/record.json", generation(about.number));
    root.write(&path, &to_json(&record, "the record")?, 0o600, Owner::current())
}

/// The credentials that bedplate made for the secrets of `dropped` and that none of `kept` can need.
pub(crate) fn needless_credentials<'a>(
    dropped: impl IntoIterator<Item = &'a Record>,
    kept: impl IntoIterator<Item = &'a Record>,
) -> BTreeSet<String> {
    let needed: BTreeSet<&String> = kept
        .into_iter()
        .flat_map(|record| &record.secrets)
        .filter(|(_, owned)| owned.wanted)
        // A secret without one may have been given one since: by its name.
        .map(|(name, owned)| owned.credential.as_ref().unwrap_or(name))
        .collect();
    dropped
        .into_iter()
        .flat_map(|record| record.secrets.values())
        .filter(|owned| owned.ours)
        .filter_map(|owned| owned.credential.clone())
        .filter(|id| !needed.contains(id))
        .collect()
}

/// Copies every saved content the record speaks of into the folder: from another generation, or from the
/// host itself, where it still lies.
fn save_contents(root: &Root, record: &Record, folder: &str) -> Result<()> {
    let saved = format!("{folder}/{SAVED}");
    for digest in record.saved() {
        let target = format!("{saved}/{}", digest.hex());
        if root.stat(&target)?.is_some() {
            continue;
        }
        root.make_dir(&saved, 0o700, Owner::current())?;
        let mut content = read_saved(root, digest)?;
        if content.is_none() {
            content = from_host(root, record, digest)?;
        }
        if let Some(content) = content {
            root.write(&target, &content, 0o600, Owner::current())?;
        } else {
            // It was lost earlier; what it would be needed for says so when it comes to that.
            tracing::warn!("the saved content {digest} is gone");
        }
    }
    Ok(())
}

/// A saved content, from whichever generation has it; verified.
pub(crate) fn read_saved(root: &Root, digest: Digest) -> Result<Option<Vec<u8>>> {
    for number in Generations::new(root).numbers()?.into_iter().rev() {
        let path = format!("{}/{SAVED}/{}", generation(number), digest.hex());
        if let Some(content) = root.read(&path, LIMIT)?
            && Digest::of(&content) == digest
        {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

fn from_host(root: &Root, record: &Record, digest: Digest) -> Result<Option<Vec<u8>>> {
    for path in record.paths.keys() {
        if root.stat(path)?.is_some_and(|stat| stat.is_file())
            && let Some(content) = root.read(path, LIMIT)?
            && Digest::of(&content) == digest
        {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

/// Tidies what earlier runs left: folders never named or half removed, generations never committed (all they
/// own is in the record of the one being made by now).
pub(crate) fn tidy(root: &Root, keep: u64) -> Result<()> {
    let generations = Generations::new(root);
    let current = generations.current_number()?;
    for number in generations.numbers()? {
        if number == keep {
            continue;
        }
        match generations.state(number)? {
            State::Committed => {}
            // Killed between the link, which commits, and what follows it.
            _ if Some(number) == current => {
                settle(root, number, &generations.load(number)?.record.settled())?;
            }
            State::Switching => set_state(root, number, State::Committed)?,
            State::Pending => drop_pending(root, number)?,
        }
    }
    sweep(root)
}

/// Removes a generation that was never made whole, with the credentials only it needs.
fn drop_pending(root: &Root, number: u64) -> Result<()> {
    let generations = Generations::new(root);
    let dropped = generations.load(number)?.record;
    let kept = generations
        .numbers()?
        .into_iter()
        .filter(|other| *other != number)
        .map(|other| generations.load(other).map(|generation| generation.record))
        .collect::<Result<Vec<Record>>>()?;
    for id in needless_credentials([&dropped], &kept) {
        secrets::remove_credential(root, &id)?;
    }
    remove(root, number)
}

/// Whether a killed run left something that [`sweep`] removes beside the generations.
pub(crate) fn left_over(root: &Root) -> Result<bool> {
    for folder in [STATE, GENERATIONS] {
        if root.stat(folder)?.is_some_and(|stat| stat.is_dir())
            && root.list(folder)?.iter().any(|entry| {
                [".new-", ".gone-", ".bedplate-"].iter().any(|start| entry.name.starts_with(start))
            })
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes folders that a killed run left without a name, and temporary files beside them.
pub(crate) fn sweep(root: &Root) -> Result<()> {
    for entry in root.list(GENERATIONS)? {
        if entry.is_dir && (entry.name.starts_with(".new-") || entry.name.starts_with(".gone-")) {
            root.remove_tree(&format!("{GENERATIONS}/{}", entry.name))?;
        }
    }
    for folder in [STATE, GENERATIONS] {
        root.sweep(folder)?;
    }
    for number in Generations::new(root).numbers()? {
        root.sweep(&generation(number))?;
        root.sweep(&format!("{}/{SAVED}", generation(number)))?;
    }
    Ok(())
}

/// Removes a generation: unnamed in one step first, so that no half of it is ever read.
pub(crate) fn remove(root: &Root, number: u64) -> Result<()> {
    let gone = format!("{GENERATIONS}/.gone-{number}");
    root.remove_tree(&gone)?;
    root.rename(&generation(number), &gone)?;
    root.remove_tree(&gone).map(drop)
}

pub(crate) fn set_state(root: &Root, number: u64, state: State) -> Result<()> {
    root.write(
        &format!("{}/state", generation(number)),
        format!("{state}\n").as_bytes(),
        0o600,
        Owner::current(),
    )
}

/// Makes the generation the current one. The link is the commit: before it the host counts as at the old
/// generation, after it at this one; what follows only takes the superset out of its record.
pub(crate) fn commit(root: &Root, number: u64, record: &Record, realised: &serde_json::Value) -> Result<()> {
    let folder = generation(number);
    let owner = Owner::current();
    root.write(
        &format!("{folder}/{HOST_PROFILE}"),
        &to_json(realised, "the realised profile")?,
        0o600,
        owner,
    )?;
    root.symlink(&format!("generations/{number}"), CURRENT)?;
    settle(root, number, record)
}

/// Takes out of a committed generation's record what was only there while its run was on its way.
fn settle(root: &Root, number: u64, record: &Record) -> Result<()> {
    let path = format!("{}/record.json", generation(number));
    root.write(&path, &to_json(record, "the record")?, 0o600, Owner::current())?;
    set_state(root, number, State::Committed)
}
