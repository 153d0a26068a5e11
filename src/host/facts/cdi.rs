//! Container Device Interface specifications (CNCF CDI `SPEC.md`): what they name, and whether it is there.

use std::collections::BTreeSet;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::Value;

use super::{data::CdiSpec, gpu::is_version, tree::Tree};
use crate::{digest::Digest, error::Result};

/// A specification for eight GPUs is below 100 kB.
const LIMIT: u64 = 4 << 20;

/// Directories the specification gives (`SPEC.md`, "CDI JSON Specification": `/etc/cdi`, `/var/run/cdi`).
pub(super) const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Every specification in the two directories. A broken one is in the list, with what is wrong.
pub(in crate::host) fn specs(tree: &Tree) -> Result<Vec<CdiSpec>> {
    let mut specs = Vec::new();
    for directory in DIRECTORIES {
        for entry in tree.list(directory)? {
            // Endings as the specification writes them: another spelling is not read by the engines either.
            let ending = entry.name.rsplit_once('.').map(|(_, ending)| ending);
            let yaml = matches!(ending, Some("yaml" | "yml"));
            if entry.is_dir || !(yaml || ending == Some("json")) {
                continue;
            }
            let path = format!("{directory}/{}", entry.name);
            let Some(content) = tree.read(&path, LIMIT)? else { continue };
            specs.push(read(tree, path, &content, yaml));
        }
    }
    Ok(specs)
}

fn read(tree: &Tree, path: String, content: &[u8], yaml: bool) -> CdiSpec {
    let mut spec = CdiSpec {
        path,
        digest: Digest::of(content),
        kind: None,
        devices: BTreeSet::new(),
        versions: BTreeSet::new(),
        missing: BTreeSet::new(),
        broken: None,
    };
    let parsed =
        if yaml { parse_yaml(content) } else { serde_json::from_slice(content).map_err(|e| e.to_string()) };
    let value = match parsed {
        Ok(value) => value,
        Err(why) => {
            spec.broken = Some(why);
            return spec;
        }
    };
    spec.kind = value.get("kind").and_then(Value::as_str).map(str::to_owned);
    if spec.kind.is_none() {
        spec.broken = Some("it has no `kind`".to_owned());
    }
    let devices = || value.get("devices").and_then(Value::as_array).into_iter().flatten();
    for device in devices() {
        if let Some(name) = device.get("name").and_then(Value::as_str) {
            spec.devices.insert(name.to_owned());
        }
    }
    let edits = devices().chain([&value]).filter_map(|part| part.get("containerEdits"));
    for path in edits.flat_map(host_paths) {
        if let Some((_, version)) = path.rsplit_once(".so.").filter(|(_, version)| is_version(version)) {
            // `libnvidia-egl-wayland.so.1.1.13` has a version of its own; the driver's has three digits first.
            if version.split('.').next().is_some_and(|major| major.len() >= 3) {
                spec.versions.insert(version.to_owned());
            }
        }
        // Looking may fail where this user may not look; only "nothing there" counts as missing.
        if matches!(tree.stat(path), Ok(None)) {
            spec.missing.insert(path.to_owned());
        }
    }
    spec
}

/// Host paths of `containerEdits`: device nodes, mounts and hooks.
fn host_paths(edits: &Value) -> impl Iterator<Item = &str> {
    let list = |key: &str| edits.get(key).and_then(Value::as_array).into_iter().flatten();
    list("deviceNodes")
        .map(|entry| entry.get("hostPath").or_else(|| entry.get("path")))
        .chain(list("mounts").map(|entry| entry.get("hostPath")))
        .chain(list("hooks").map(|entry| entry.get("path")))
        .filter_map(|value| value.and_then(Value::as_str))
        .filter(|path| path.starts_with('/'))
}

fn parse_yaml(content: &[u8]) -> std::result::Result<Value, String> {
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    documents.first().map_or_else(|| Err("it is empty".to_owned()), |document| Ok(to_json(document, 0)))
}

/// YAML as JSON. Only names and strings matter here; what is deeper than any specification becomes null.
fn to_json(yaml: &Yaml<'_>, depth: usize) -> Value {
    if depth > 32 {
        return Value::Null;
    }
    match yaml {
        Yaml::Value(Scalar::String(text)) => Value::String(text.to_string()),
        Yaml::Value(Scalar::Integer(number)) => Value::from(*number),
        Yaml::Value(Scalar::Boolean(value)) => Value::Bool(*value),
        Yaml::Sequence(items) => items.iter().map(|item| to_json(item, depth + 1)).collect(),
        Yaml::Mapping(entries) => entries
            .iter()
            .filter_map(|(key, value)| Some((key.as_str()?.to_owned(), to_json(value, depth + 1))))
            .collect(),
        _ => Value::Null,
    }
}
