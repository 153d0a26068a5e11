//! Models on the host: the cache directory, and what of a model it holds already.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    basics::one_line,
    data::{Cache, Known, LocalModel},
    shape::Shape,
    tree::Tree,
};
use crate::{
    error::{Doing, Result},
    system::files::FileKind,
};

/// `config.json` and the index of a model's shards: the largest known index is a few MB.
const LIMIT: u64 = 32 << 20;
/// The largest `config.json` that is read: real ones have some kB, with lists of quantised layers some hundred.
pub(super) const CONFIGURATION: u64 = 4 << 20;
/// Endings of weight files (huggingface_hub, `constants.py`; GGUF).
const WEIGHTS: [&str; 4] = [".safetensors", ".bin", ".pt", ".gguf"];
/// Files with such an ending that an engine does not load (vLLM, `filter_files_not_needed_for_inference`).
const OTHER: [&str; 5] = ["training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"];
/// Indices of shards, by what an engine looks for first (transformers, `utils/__init__.py`).
pub(super) const INDICES: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

/// A model that was found on the host.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) local: LocalModel,
    pub(super) shape: Known<Shape>,
    pub(super) weights: Known<u64>,
}

/// `metadata.total_size` of an index of shards: bytes of all tensors (transformers, `save_pretrained`).
pub(super) fn total_size(index: &Value) -> Option<u64> {
    let size = index.pointer("/metadata/total_size")?;
    // Some writers made it a number with a fraction.
    let size = size.as_u64().or_else(|| format!("{:.0}", size.as_f64()?).parse().ok())?;
    (size > 0).then_some(size)
}

/// Bytes of the files that an engine loads, from the names and sizes of those at the top of a model: safetensors before
/// others, and one of the two forms where both are there (vLLM, `_prepare_weights`). `None`: no such file.
pub(super) fn loaded<'n>(files: impl Iterator<Item = (&'n str, u64)>) -> Option<u64> {
    let files: Vec<(&str, u64)> =
        files.filter(|(name, _)| !name.contains('/') && !OTHER.contains(name)).collect();
    WEIGHTS.iter().find_map(|ending| {
        let all = || files.iter().filter(|(name, _)| name.ends_with(ending));
        let usual = || all().filter(|(name, _)| !name.starts_with("consolidated"));
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0_u64, u64::saturating_add);
        let bytes = sum(&mut usual().map(|(_, size)| *size));
        let bytes = if bytes > 0 { bytes } else { sum(&mut all().map(|(_, size)| *size)) };
        (bytes > 0).then_some(bytes)
    })
}

/// Whether root can write into a cache directory. Permission bits do not stop root; a read-only file
/// system, a file in its place, a link or the attribute of chattr(1) does.
pub(super) fn cache(tree: &Tree, path: &str) -> Result<Cache> {
    if let Some(link) = tree.first_link(path)? {
        return Ok(Cache {
            exists: true,
            writable: false,
            why: Some(format!("`{link}` is a symbolic link")),
        });
    }
    let stat = tree.root().stat(path)?;
    let why = match stat {
        Some(stat) if stat.kind != FileKind::Directory => Some(format!("`{path}` is not a directory")),
        // What is not there yet is made in the nearest directory above.
        _ if tree.root().is_immutable(path)? => Some(format!(
            "`{path}`, or the directory it would be made in, is immutable (`lsattr -d`, `chattr -i`)"
        )),
        _ => read_only(tree, path)?.map(|at| format!("the file system at `{at}` is mounted read-only")),
    };
    Ok(Cache { exists: stat.is_some(), writable: why.is_none(), why })
}

/// The mount point `path` is on, where it is mounted read-only (proc_pid_mountinfo(5)).
fn read_only(tree: &Tree, path: &str) -> Result<Option<String>> {
    if !tree.root().is_host() {
        return Ok(None);
    }
    let table = tree.text("/proc/self/mountinfo", LIMIT)?.unwrap_or_default();
    Ok(read_only_mount(&table, path))
}

fn read_only_mount(table: &str, path: &str) -> Option<String> {
    let mut best: Option<(&str, bool)> = None;
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (Some(point), Some(options)) = (fields.get(4), fields.get(5)) else { continue };
        // Fields after the separator: type, source, options of the file system itself.
        let own = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 3));
        let inside =
            *point == "/" || path == *point || path.strip_prefix(point).is_some_and(|r| r.starts_with('/'));
        // Later lines lie on top of earlier ones.
        if inside && best.is_none_or(|(known, _)| point.len() >= known.len()) {
            let shut = |options: &str| options.split(',').any(|option| option == "ro");
            best = Some((point, shut(options) || own.is_some_and(|own| shut(own))));
        }
    }
    best.filter(|(_, shut)| *shut).map(|(point, _)| point.to_owned())
}

/// A model in the hub's cache (huggingface_hub, "Understand caching": `hub/models--ORG--NAME/snapshots/REV`).
pub(super) fn in_cache(tree: &Tree, cache: &str, model: &str) -> Result<Option<Found>> {
    let place = format!("{}/hub/models--{}", cache.trim_end_matches('/'), model.replace('/', "--"));
    let revision = match tree.text(&format!("{place}/refs/main"), LIMIT)? {
        Some(revision) => revision.trim().to_owned(),
        None => match tree.list(&format!("{place}/snapshots"))?.as_slice() {
            [only] => only.name.clone(),
            _ => return Ok(None),
        },
    };
    if revision.is_empty() || revision.contains('/') {
        return Ok(None);
    }
    in_directory(tree, &format!("{place}/snapshots/{revision}"))
}

/// A model in a directory: `config.json` beside its weights.
pub(super) fn in_directory(tree: &Tree, path: &str) -> Result<Option<Found>> {
    let entries = tree.list(path)?;
    if entries.is_empty() {
        return Ok(None);
    }
    let mut model = LocalModel { path: path.to_owned(), ..LocalModel::default() };
    let mut there = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        if !WEIGHTS.iter().any(|ending| entry.name.ends_with(ending)) {
            continue;
        }
        // A link whose target is gone is a download that was cut short.
        if let Some(stat) =
            tree.stat(&format!("{path}/{}", entry.name))?.filter(crate::system::files::Stat::is_file)
        {
            model.weights = model.weights.saturating_add(stat.size);
            model.largest = model.largest.max(stat.size);
            there.insert(entry.name.clone(), stat.size);
        }
    }
    let mut expected = BTreeSet::new();
    let mut indexed = None;
    for entry in entries.iter().filter(|entry| entry.name.ends_with(".index.json")) {
        let index = format!("{path}/{}", entry.name);
        let Some(content) = tree.read(&index, LIMIT)? else { continue };
        let value: Value = serde_json::from_slice(&content).doing(|| format!("reading `{index}` as JSON"))?;
        let map = value.get("weight_map").and_then(Value::as_object);
        let shards: BTreeSet<String> =
            map.into_iter().flatten().filter_map(|(_, shard)| shard.as_str().map(str::to_owned)).collect();
        // Some models come in two forms, of which one was fetched: that one counts.
        if expected.is_empty() || shards.iter().all(|shard| there.contains_key(shard)) {
            expected = shards;
            indexed = total_size(&value);
        }
    }
    let configuration = tree.stat(&format!("{path}/config.json"))?.is_some_and(|stat| stat.is_file());
    model.complete =
        configuration && !there.is_empty() && expected.iter().all(|shard| there.contains_key(shard));
    let shape = shape(tree, &format!("{path}/config.json"));
    let sizes = there.iter().map(|(name, size)| (name.as_str(), *size));
    let weights = match indexed.or_else(|| loaded(sizes).filter(|_| model.complete)) {
        Some(weights) => Known::Ok(weights),
        None => Known::unknown(format!("the weights in `{path}` are not whole")),
    };
    Ok(Some(Found { local: model, shape, weights }))
}

/// What a `config.json` on the host says of the model's layers.
fn shape(tree: &Tree, path: &str) -> Known<Shape> {
    match tree.read(path, CONFIGURATION) {
        Ok(Some(content)) => Shape::read(&content).map_or_else(Known::unknown, Known::Ok),
        Ok(None) => Known::unknown(format!("there is no `{path}`")),
        Err(error) => Known::unknown(one_line(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let table = "1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                     2 1 8:2 / /data ro,relatime - ext4 /dev/sdb1 rw\n\
                     3 2 8:3 / /data/huggingface rw,relatime - ext4 /dev/sdc1 rw\n\
                     4 1 8:4 / /srv rw,relatime - ext4 /dev/sdd1 ro,errors=remount-ro\n";
        assert_eq!(read_only_mount(table, "/var/lib"), None);
        assert_eq!(read_only_mount(table, "/data/other").as_deref(), Some("/data"));
        assert_eq!(read_only_mount(table, "/data/huggingface/hub"), None);
        assert_eq!(read_only_mount(table, "/database"), None);
        assert_eq!(read_only_mount(table, "/srv/x").as_deref(), Some("/srv"));
        assert_eq!(read_only_mount("", "/x"), None);
    }
}
