//! `init --from`: an old deployment file made fit, by edits to its text, so that comments and order stay.

use std::fmt;

use super::{
    deployment, forms,
    forms::Reference,
    secrets_like,
    sidecars::{AGENT_SECRETS, MINER_HOME},
    tree::{Entry, Fault, Node, Scalar, Span, Value},
    tree_yaml,
};
use crate::error::{Error, Result};

/// The host directory that is given to an agent without one.
const AGENT_DIRECTORY: &str = "/data/minerhome";

/// A deployment file made fit.
#[derive(Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The new text. It parses, and holds no literal secret.
    pub text: String,
    /// What was changed, one line each; never a secret.
    pub changes: Vec<String>,
    /// Secrets that were taken out: name and value. Handle with care.
    pub secrets: Vec<(String, String)>,
}

impl fmt::Debug for Rewritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.secrets.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Rewritten")
            .field("changes", &self.changes)
            .field("secrets", &names)
            .finish_non_exhaustive()
    }
}

/// Moves literal secrets out, gives the agent's identity a directory, renames what has a new name.
///
/// Fails where the file is no YAML, or where what is left is refused: those errors say what to edit.
pub fn rewrite(path: &str, text: &str) -> Result<Rewritten> {
    let root = tree_yaml::read(text).map_err(|faults| unreadable(path, text, &faults))?;
    let mut work = Work { text, edits: Vec::new(), changes: Vec::new(), secrets: Vec::new() };
    if let Value::Table(entries) = &root.value {
        work.deployment(entries);
    }
    work.comments(&root);
    let Work { edits, changes, secrets, .. } = work;
    let text = apply(text, edits);
    deployment::parse(path, &text).map_err(|error| {
        error.hint("this must be changed by hand, then `bedplate init --from` once more; lines are those after the rewriting")
    })?;
    Ok(Rewritten { text, changes, secrets })
}

fn unreadable(path: &str, text: &str, faults: &[Fault]) -> Error {
    let d = super::decode::Decoder::new(path, text, true);
    d.faults(faults.to_vec());
    match d.finish::<()>(None) {
        Err(error) => error,
        Ok(_) => Error::usage(format!("`{path}` cannot be read")),
    }
}

struct Edit {
    span: Span,
    with: String,
}

/// Applies edits that do not overlap; of two that do, the first stays.
fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let mut out = String::with_capacity(text.len() + 256);
    let mut at = 0;
    let mut last = None;
    for edit in edits {
        if edit.span.start < at || last.as_ref() == Some(&edit.span) {
            continue;
        }
        out.push_str(text.get(at..edit.span.start).unwrap_or_default());
        out.push_str(&edit.with);
        at = edit.span.end;
        last = Some(edit.span);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

struct Work<'t> {
    text: &'t str,
    edits: Vec<Edit>,
    changes: Vec<String>,
    secrets: Vec<(String, String)>,
}

fn find<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Entry> {
    entries.iter().find(|entry| entry.key == key && !entry.node.is_null())
}

fn table(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Table(entries) => entries,
        _ => &[],
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, kind } if *kind != Scalar::Null => Some(text),
        _ => None,
    }
}

impl Work<'_> {
    fn deployment(&mut self, entries: &[Entry]) {
        let mut key = None;
        if let Some(entry) = find(entries, "api_key")
            && let Some(value) = scalar(&entry.node)
            && !matches!(forms::reference(value), Reference::Secret(_))
            && !value.is_empty()
        {
            let name = self.take("API_KEY", value);
            self.replace(&entry.node.span, &format!("\"secret:{name}\""));
            self.moved("api_key", &name);
            key = Some(name);
        }
        if let Some(entry) = find(entries, "hf_token_env")
            && let Some(value) = scalar(&entry.node)
            && secrets_like::looks_secret(value)
        {
            let name = self.take("HF_TOKEN", value);
            self.replace(&entry.node.span, &name);
            self.moved("hf_token_env", &name);
        }
        if let Some(entry) = find(entries, "env") {
            self.environment(&entry.node, "env", &["HF_TOKEN", "VLLM_API_KEY"]);
        }
        if let Some(entry) = find(entries, "extra_args") {
            self.api_key_argument(entry, entries, key);
        }
        for section in ["dcgm_exporter", "metrics_collector", "miner_client", "custom_service"] {
            if let Some(entry) = find(entries, section) {
                self.service(&entry.node, section);
            }
        }
        for entry in find(entries, "extra_services").map_or(&[][..], |entry| table(&entry.node)) {
            self.service(&entry.node, &format!("extra_services.{}", secrets_like::shown(&entry.key)));
        }
        if let Some(old) = entries.iter().find(|entry| entry.key == "custom_service")
            && !entries.iter().any(|entry| entry.key == "miner_client")
        {
            self.replace(&old.key_span, "miner_client");
            self.changes.push("`custom_service` is now called `miner_client`".to_owned());
        }
        if let Some(agent) = find(entries, "miner_client").or_else(|| find(entries, "custom_service")) {
            self.identity(agent);
        }
    }

    fn replace(&mut self, span: &Span, with: &str) {
        self.edits.push(Edit { span: span.clone(), with: with.to_owned() });
    }

    fn moved(&mut self, what: &str, name: &str) {
        self.changes.push(format!("`{what}`: its value was moved out and is now the secret `{name}`"));
    }

    /// Keeps a secret under a name; another one where the name is taken by another value.
    fn take(&mut self, name: &str, value: &str) -> String {
        let mut free = name.to_owned();
        let mut number = 2;
        while let Some((_, known)) = self.secrets.iter().find(|(known, _)| *known == free) {
            if known == value {
                return free;
            }
            free = format!("{name}_{number}");
            number += 1;
        }
        self.secrets.push((free.clone(), value.to_owned()));
        free
    }

    fn service(&mut self, node: &Node, what: &str) {
        if let Some(entry) = find(table(node), "environment") {
            let secret = if what.contains("miner") || what.contains("custom") { AGENT_SECRETS } else { &[] };
            self.environment(&entry.node, &format!("{what}.environment"), secret);
        }
    }

    fn environment(&mut self, node: &Node, what: &str, secret: &[&str]) {
        let literal = |name: &str, value: &str| {
            forms::variable_name(name)
                && forms::reference(value) == Reference::Plain
                && (secret.contains(&name) && !value.is_empty()
                    || secrets_like::variable_is_secret(name, value))
        };
        match &node.value {
            Value::Table(entries) => {
                for entry in entries {
                    let number = !matches!(&entry.node.value, Value::Scalar { kind: Scalar::Text, .. });
                    if let Some(value) = scalar(&entry.node)
                        && (literal(&entry.key, value)
                            || number && secrets_like::name_says_secret(&entry.key))
                    {
                        let name = self.take(&entry.key, value);
                        self.replace(&entry.node.span, &format!("\"secret:{name}\""));
                        self.moved(&format!("{what}.{}", entry.key), &name);
                    }
                }
            }
            Value::List(items) => {
                for item in items {
                    if let Some((variable, value)) = scalar(item).and_then(|text| text.split_once('='))
                        && literal(variable, value)
                    {
                        let name = self.take(variable, value);
                        self.replace(&item.span, &format!("\"{variable}=secret:{name}\""));
                        self.moved(&format!("{what}.{variable}"), &name);
                    }
                }
            }
            Value::Scalar { .. } => {}
        }
    }

    /// Takes `--api-key KEY` out of the engine's arguments.
    fn api_key_argument(&mut self, entry: &Entry, entries: &[Entry], mut key: Option<String>) {
        let Value::List(items) = &entry.node.value else { return };
        let mut drop = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let Some(word) = scalar(item) else { continue };
            let value = if word == "--api-key" {
                let Some(value) = items.get(at + 1).and_then(scalar) else { continue };
                drop.extend([at, at + 1]);
                value
            } else if let Some(value) = word.strip_prefix("--api-key=") {
                drop.push(at);
                value
            } else {
                continue;
            };
            if key.is_none() && find(entries, "api_key").is_none() {
                let name = match forms::reference(value) {
                    Reference::Secret(name) => name,
                    _ => self.take("API_KEY", value),
                };
                let line = self.line_start(entry.key_span.start);
                self.replace(&(line..line), &format!("api_key: \"secret:{name}\"\n"));
                key = Some(name);
            }
            self.changes.push("`extra_args`: `--api-key` is now `api_key`, from a secret".to_owned());
        }
        self.drop_items(items, &drop);
    }

    fn line_start(&self, at: usize) -> usize {
        self.text.get(..at).and_then(|head| head.rfind('\n')).map_or(0, |end| end + 1)
    }

    /// Removes items of a list: whole lines of a block list, or from item to item of a flow list.
    fn drop_items(&mut self, items: &[Node], drop: &[usize]) {
        for at in drop {
            let Some(item) = items.get(*at) else { continue };
            let line = self.line_start(item.span.start);
            let head = self.text.get(line..item.span.start).unwrap_or_default();
            let span = if head.trim_start().trim_end() == "-" {
                let tail = self.text.get(item.span.end..).unwrap_or_default();
                line..item.span.end + tail.find('\n').map_or(tail.len(), |end| end + 1)
            } else {
                let next = items.get(at + 1).map(|next| next.span.start);
                let before = at.checked_sub(1).filter(|b| !drop.contains(b)).and_then(|b| items.get(b));
                match (next, before) {
                    (Some(next), _) => item.span.start..next,
                    (None, Some(before)) => before.span.end..item.span.end,
                    (None, None) => item.span.clone(),
                }
            };
            self.edits.push(Edit { span, with: String::new() });
        }
    }

    /// Gives the agent's identity a directory of the host.
    fn identity(&mut self, agent: &Entry) {
        let entries = table(&agent.node);
        let on = find(entries, "enabled").and_then(|entry| scalar(&entry.node)).unwrap_or_default();
        if !matches!(on.to_ascii_lowercase().as_str(), "true" | "yes" | "on") {
            return;
        }
        let environment = find(entries, "environment").map_or(&[][..], |entry| table(&entry.node));
        let home =
            find(environment, "MINER_HOME").and_then(|entry| scalar(&entry.node)).unwrap_or(MINER_HOME);
        let volumes = find(entries, "volumes");
        let items = match volumes.map(|entry| &entry.node.value) {
            Some(Value::List(items)) => items.as_slice(),
            _ => &[],
        };
        let covered = items.iter().any(|item| {
            let target = match scalar(item) {
                Some(text) => text.split(':').nth(1),
                None => find(table(item), "target").and_then(|entry| scalar(&entry.node)),
            };
            target.is_some_and(|target| forms::within(home, target.trim_end_matches('/')))
        });
        if covered {
            return;
        }
        let volume = format!("\"{AGENT_DIRECTORY}:{home}\"");
        let inserted = match (volumes, items.first()) {
            (Some(list), Some(first)) => self.insert_item(list, first, &volume),
            (Some(list), None) if matches!(list.node.value, Value::List(_)) => {
                self.replace(&list.node.span, &format!("[{volume}]"));
                true
            }
            (None, _) => self.insert_entry(agent, &format!("volumes: [{volume}]")),
            _ => false,
        };
        if inserted {
            self.changes.push(format!(
                "the agent keeps its identity on the host now: `{AGENT_DIRECTORY}`, mounted at `{home}`; in the profile it is a \
                 `[[mount]]` of mode \"0700\""
            ));
        }
    }

    fn insert_item(&mut self, list: &Entry, first: &Node, item: &str) -> bool {
        let line = self.line_start(first.span.start);
        let head = self.text.get(line..first.span.start).unwrap_or_default().to_owned();
        if head.trim() == "-" {
            self.replace(&(line..line), &format!("{head}{item}\n"));
            return true;
        }
        if self.text.get(list.node.span.clone()).is_some_and(|text| text.starts_with('[')) {
            let at = list.node.span.start + 1;
            self.replace(&(at..at), &format!("{item}, "));
            return true;
        }
        false
    }

    fn insert_entry(&mut self, parent: &Entry, entry: &str) -> bool {
        let Some(first) = table(&parent.node).first() else { return false };
        let line = self.line_start(first.key_span.start);
        let head = self.text.get(line..first.key_span.start).unwrap_or_default().to_owned();
        if self.text.get(parent.node.span.clone()).is_some_and(|text| text.starts_with('{')) {
            let at = parent.node.span.start + 1;
            self.replace(&(at..at), &format!("{entry}, "));
            return true;
        }
        if head.chars().all(|c| c == ' ') && !head.is_empty() {
            self.replace(&(line..line), &format!("{head}{entry}\n"));
            return true;
        }
        false
    }

    /// Takes tokens out of comments: what stands in no value.
    fn comments(&mut self, root: &Node) {
        let mut values = Vec::new();
        scalars(root, &mut values);
        for word in secrets_like::words(self.text) {
            let token = self.text.get(word.clone()).is_some_and(secrets_like::holds_known_token);
            if token && !values.iter().any(|span| span.start < word.end && word.start < span.end) {
                self.edits.push(Edit { span: word, with: "(removed)".to_owned() });
                self.changes.push(
                    "a token was removed from a comment: replace it, it has been on disk in clear".to_owned(),
                );
            }
        }
    }
}

fn scalars(node: &Node, spans: &mut Vec<Span>) {
    match &node.value {
        Value::Scalar { .. } => spans.push(node.span.clone()),
        Value::List(items) => items.iter().for_each(|item| scalars(item, spans)),
        Value::Table(entries) => {
            for entry in entries {
                spans.push(entry.key_span.clone());
                scalars(&entry.node, spans);
            }
        }
    }
}
