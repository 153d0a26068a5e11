//! Docker's `daemon.json`, merged key by key: whose keys are whose is kept in the record.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::record::{OwnedKey, Record, push_last};
use crate::{
    error::{Error, Result},
    profile::{Container, GpuAccess},
};

/// Where the Docker daemon reads its configuration (dockerd(8), `--config-file`).
pub const PATH: &str = "/etc/docker/daemon.json";

/// One key that changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyChange {
    /// The key, outermost name first.
    pub key: Vec<String>,
    /// Its value now.
    pub from: Option<Value>,
    /// Its value then.
    pub to: Option<Value>,
}

/// What happens to the file.
#[derive(Debug, Default)]
pub(super) struct Merge {
    pub(super) changes: Vec<KeyChange>,
    /// The new text; `None` removes the file. Meaningless without changes.
    pub(super) text: Option<String>,
    pub(super) live_restore: bool,
    pub(super) warnings: Vec<String>,
}

/// The keys a profile wants, each with its value: leaves of the tree, by path.
pub(super) fn wanted(container: &Container) -> BTreeMap<Vec<String>, Value> {
    let mut keys = BTreeMap::new();
    leaves(&container.daemon, &mut Vec::new(), &mut keys);
    match container.gpu_access {
        // Docker 25 to 28 looks at CDI specifications only with this feature.
        GpuAccess::Cdi => drop(keys.insert(path(&["features", "cdi"]), Value::Bool(true))),
        // As `nvidia-ctk runtime configure --runtime=docker` writes it.
        GpuAccess::NvidiaRuntime => {
            keys.insert(path(&["runtimes", "nvidia", "args"]), Value::Array(Vec::new()));
            keys.insert(path(&["runtimes", "nvidia", "path"]), Value::from("nvidia-container-runtime"));
        }
        GpuAccess::None => {}
    }
    keys
}

/// The keys of `daemon.json` that a profile wants, by JSON pointer (RFC 6901), each with its value.
pub fn daemon_keys(container: &Container) -> BTreeMap<String, Value> {
    wanted(container).into_iter().map(|(key, value)| (pointer(&key), value)).collect()
}

/// Whether a key's value is as wanted: an empty table in the profile asks for an object, whatever is in it.
pub fn daemon_key_is(is: &Value, wanted: &Value) -> bool {
    is == wanted || matches!((is, wanted), (Value::Object(_), Value::Object(_)))
}

fn path(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn leaves(map: &Map<String, Value>, at: &mut Vec<String>, out: &mut BTreeMap<Vec<String>, Value>) {
    for (name, value) in map {
        at.push(name.clone());
        match value {
            Value::Object(inner) if !inner.is_empty() => leaves(inner, at, out),
            _ => drop(out.insert(at.clone(), value.clone())),
        }
        at.pop();
    }
}

/// RFC 6901, section 3.
fn pointer(key: &[String]) -> String {
    key.iter().fold(String::new(), |at, name| at + "/" + &name.replace('~', "~0").replace('/', "~1"))
}

fn parts(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

/// Merges `wanted` into `text`, takes away what only earlier generations wanted, and writes down in
/// `record` who owns what.
pub(super) fn merge(
    text: Option<&[u8]>,
    wanted: &BTreeMap<Vec<String>, Value>,
    prior: &Record,
    record: &mut Record,
) -> Result<Merge> {
    let mut out = Merge::default();
    let mut top = parse(text)?;
    record.daemon.clone_from(&prior.daemon);
    record.daemon_made.clone_from(&prior.daemon_made);
    for (place, owned) in &prior.daemon {
        let key = parts(place);
        if !wanted.contains_key(&key) {
            give_back(&mut top, &key, owned, &mut out);
        }
    }
    for (key, value) in wanted {
        take(&mut top, key, value, prior, record, &mut out)?;
    }
    let mut made: Vec<String> = prior.daemon_made.iter().filter(|made| !made.is_empty()).cloned().collect();
    made.sort_by_key(|made| std::cmp::Reverse(made.len()));
    for place in made {
        let key = parts(&place);
        if get(&top, &key).and_then(Value::as_object).is_some_and(Map::is_empty) && !wanted.contains_key(&key)
        {
            set(&mut top, &key, None);
        }
    }
    if text.is_none() && !top.is_empty() {
        record.daemon_made.insert(String::new());
    }
    out.live_restore = top.get("live-restore").and_then(Value::as_bool).unwrap_or(false);
    if !(top.is_empty() && prior.daemon_made.contains("")) {
        let pretty = serde_json::to_string_pretty(&top)
            .map_err(|error| Error::failed(format!("writing `{PATH}`")).because(error))?;
        out.text = Some(pretty + "\n");
    }
    Ok(out)
}

fn parse(text: Option<&[u8]>) -> Result<Map<String, Value>> {
    let Some(text) = text.filter(|text| !text.trim_ascii().is_empty()) else { return Ok(Map::new()) };
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::failed(format!("`{PATH}` holds no JSON object"))
            .hint(format!("mend it, or move it away: `mv {PATH} {PATH}.old`"))),
        Err(error) => Err(Error::failed(format!(
            "`{PATH}` is not valid JSON: line {}, column {}",
            error.line(),
            error.column()
        ))
        .hint(format!("mend it; `python3 -m json.tool {PATH}` checks it"))
        .because(error)),
    }
}

/// Takes away a key that is no longer wanted, unless someone else changed it since.
fn give_back(top: &mut Map<String, Value>, key: &[String], owned: &OwnedKey, out: &mut Merge) {
    let now = get(top, key).cloned();
    if now == owned.before {
        return;
    }
    match now {
        None => {}
        Some(now) if owned.written.contains(&now) => {
            set(top, key, owned.before.clone());
            out.changes.push(KeyChange { key: key.to_vec(), from: Some(now), to: owned.before.clone() });
        }
        Some(_) => out.warnings.push(format!(
            "`{}` in `{PATH}` was changed by hand: left as it is, and no longer managed",
            key.join(".")
        )),
    }
}

fn take(
    top: &mut Map<String, Value>,
    key: &[String],
    value: &Value,
    prior: &Record,
    record: &mut Record,
    out: &mut Merge,
) -> Result<()> {
    for depth in 1..key.len() {
        if get(top, &key[..depth]).is_some_and(|value| !value.is_object()) {
            return Err(Error::failed(format!(
                "`{PATH}`: `{}` is not an object, so `{}` cannot be set",
                key[..depth].join("."),
                key.join(".")
            ))
            .hint(format!("take `{}` out of `{PATH}`", key[..depth].join("."))));
        }
    }
    let now = get(top, key).cloned();
    if let (Some(Value::Object(now)), false) = (&now, value.is_object())
        && !now.is_empty()
    {
        return Err(Error::failed(format!(
            "`{PATH}`: `{}` is an object with keys of its own",
            key.join(".")
        ))
        .hint(format!("take it out of `{PATH}`, or name its keys in `[container.daemon]`")));
    }
    let enough = now.as_ref().is_some_and(|now| daemon_key_is(now, value));
    let place = pointer(key);
    let known = prior.daemon.get(&place);
    let owned = record.daemon.entry(place).or_insert_with(|| OwnedKey {
        before: now.clone(),
        written: Vec::new(),
        wanted: true,
    });
    owned.wanted = true;
    if enough {
        push_last(&mut owned.written, now.unwrap_or_else(|| value.clone()));
        return Ok(());
    }
    push_last(&mut owned.written, value.clone());
    if let (Some(known), Some(now)) = (known, &now)
        && !known.written.contains(now)
        && known.before.as_ref() != Some(now)
    {
        out.warnings.push(format!("`{}` in `{PATH}` was changed by hand to {now}", key.join(".")));
    }
    for depth in 1..key.len() {
        if get(top, &key[..depth]).is_none() {
            record.daemon_made.insert(pointer(&key[..depth]));
        }
    }
    set(top, key, Some(value.clone()));
    out.changes.push(KeyChange { key: key.to_vec(), from: now, to: Some(value.clone()) });
    Ok(())
}

fn get<'a>(top: &'a Map<String, Value>, key: &[String]) -> Option<&'a Value> {
    let (first, rest) = key.split_first()?;
    rest.iter().try_fold(top.get(first)?, |at, name| at.as_object()?.get(name))
}

fn set(top: &mut Map<String, Value>, key: &[String], value: Option<Value>) {
    let Some((last, above)) = key.split_last() else { return };
    let mut at = top;
    for name in above {
        if value.is_none() && !at.get(name).is_some_and(Value::is_object) {
            return;
        }
        let next = at.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(next) = next else { return };
        at = next;
    }
    match value {
        Some(value) => drop(at.insert(last.clone(), value)),
        // The order of the others is kept.
        None => drop(at.shift_remove(last)),
    }
}

/// The keys of `daemon_made`, for tests.
#[cfg(test)]
pub(super) fn made(record: &Record) -> &std::collections::BTreeSet<String> {
    &record.daemon_made
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(value: Value) -> BTreeMap<Vec<String>, Value> {
        let mut out = BTreeMap::new();
        leaves(value.as_object().unwrap(), &mut Vec::new(), &mut out);
        out
    }

    fn run(text: Option<&str>, value: Value, prior: &Record) -> (Merge, Record) {
        let mut record = Record::default();
        let merge = merge(text.map(str::as_bytes), &keys(value), prior, &mut record).unwrap();
        (merge, record.settled())
    }

    #[test]
    fn merges_and_gives_back() {
        let original = r#"{"log-driver": "journald", "live-restore": false, "features": {"buildkit": true}}"#;
        let (first, record) = run(
            Some(original),
            json!({"live-restore": true, "features": {"cdi": true}, "a": {"b": {"c": 1}}}),
            &Record::default(),
        );
        let shown: Vec<String> = first.changes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a.b.c: 1 (new)", "features.cdi: true (new)", "live-restore: false → true"]);
        assert!(first.live_restore);
        assert_eq!(made(&record).iter().collect::<Vec<_>>(), ["/a", "/a/b"]);
        let text = first.text.unwrap();
        let (again, _) = run(
            Some(&text),
            json!({"live-restore": true, "features": {"cdi": true}, "a": {"b": {"c": 1}}}),
            &Record::merged(Some(&record), []),
        );
        assert!(again.changes.is_empty());
        let (back, _) = run(Some(&text), json!({}), &Record::merged(Some(&record), []));
        let back: Value = serde_json::from_str(&back.text.unwrap()).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(original).unwrap());
    }

    #[test]
    fn a_file_bedplate_made_goes_when_it_is_empty() {
        let (first, record) = run(None, json!({"x": null}), &Record::default());
        let (gone, _) = run(Some(&first.text.unwrap()), json!({}), &Record::merged(Some(&record), []));
        assert_eq!((gone.changes.len(), gone.text), (1, None));
        let stored: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(stored, record);
    }

    #[test]
    fn what_was_changed_by_hand_is_said() {
        let (_, record) = run(None, json!({"mtu": 1400}), &Record::default());
        let prior = Record::merged(Some(&record), []);
        let (kept, _) = run(Some(r#"{"mtu": 9000}"#), json!({"mtu": 1400}), &prior);
        assert_eq!((kept.warnings.len(), kept.changes.len()), (1, 1));
        let (left, _) = run(Some(r#"{"mtu": 9000}"#), json!({}), &prior);
        assert_eq!((left.warnings.len(), left.changes.len()), (1, 0));
    }

    #[test]
    fn refuses_what_it_cannot_merge() {
        for (text, wanted, part) in [
            ("{\n  \"a\": ]", json!({}), "line 2, column 8"),
            ("[]", json!({}), "no JSON object"),
            (r#"{"features": true}"#, json!({"features": {"cdi": true}}), "is not an object"),
            (r#"{"runtimes": {"x": 1}}"#, json!({"runtimes": 1}), "keys of its own"),
        ] {
            let error =
                merge(Some(text.as_bytes()), &keys(wanted), &Record::default(), &mut Record::default());
            let error = error.unwrap_err();
            assert!(error.message().contains(part), "{error:?}");
            assert!(!error.hints().is_empty());
        }
    }
}
