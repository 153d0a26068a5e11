//! The decoder over the spanned tree: typed values out, every error collected with its place.

use std::{cell::RefCell, ops::RangeInclusive, sync::Arc};

use super::{
    secrets_like::{self, shown},
    tree::{Entry, Fault, Node, Scalar, Span, Value},
};
use crate::error::{Error, Result, Snippet};

/// Something worth a word that does not stop anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What is worth a word: lower case, no full stop.
    pub message: String,
    /// Where, when it stands in the file.
    pub snippet: Option<Snippet>,
    /// What to do about it.
    pub hint: String,
}

/// A string and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) span: Span,
}

/// Collects errors while a tree is read.
pub(crate) struct Decoder<'t> {
    path: &'t str,
    text: &'t str,
    /// YAML: numbers and booleans may be quoted, as the old tool allowed.
    lenient: bool,
    errors: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<(Fault, bool)>>,
    private: RefCell<Vec<Span>>,
}

impl<'t> Decoder<'t> {
    /// A decoder for one file. `lenient`: a quoted number or boolean counts as one.
    pub(crate) fn new(path: &'t str, text: &'t str, lenient: bool) -> Self {
        Self {
            path,
            text,
            lenient,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            private: RefCell::default(),
        }
    }

    /// Notes an error.
    pub(crate) fn error(
        &self,
        span: &Span,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.errors.borrow_mut().push(Fault {
            message: message.into(),
            label: label.into(),
            span: span.clone(),
            hint: hint.into(),
        });
    }

    /// Notes a warning; `span` where it stands in the file.
    pub(crate) fn warn(&self, span: Option<&Span>, message: impl Into<String>, hint: impl Into<String>) {
        let fault = Fault {
            message: message.into(),
            label: String::new(),
            span: span.cloned().unwrap_or(0..0),
            hint: hint.into(),
        };
        self.warnings.borrow_mut().push((fault, span.is_some()));
    }

    /// Hides a range in every snippet of this file.
    pub(crate) fn hide(&self, span: &Span) {
        self.private.borrow_mut().push(span.clone());
    }

    /// The line a range starts in, from 1.
    pub(crate) fn line(&self, span: &Span) -> usize {
        1 + self.text.get(..span.start).unwrap_or_default().matches('\n').count()
    }

    /// Whether an error was noted.
    pub(crate) fn failed(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// Whether an error was noted within a range.
    pub(crate) fn failed_within(&self, span: &Span) -> bool {
        self.errors.borrow().iter().any(|fault| fault.span.start >= span.start && fault.span.end <= span.end)
    }

    /// Takes over syntax errors.
    pub(crate) fn faults(&self, faults: Vec<Fault>) {
        self.errors.borrow_mut().extend(faults);
    }

    /// The value with its warnings, or all errors joined.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<(T, Vec<Warning>)> {
        let text: Arc<str> = secrets_like::masked(self.text, &self.private.borrow()).into();
        let snippet = |fault: &Fault| Snippet {
            path: self.path.to_owned(),
            text: Arc::clone(&text),
            span: fault.span.clone(),
            label: fault.label.clone(),
        };
        let mut faults = self.errors.into_inner();
        faults.sort_by_key(|fault| fault.span.start);
        let errors = faults.iter().map(|fault| {
            let error = Error::usage(format!("`{}`: {}", self.path, fault.message)).at(snippet(fault));
            error.hint(fault.advice())
        });
        if let Some(error) = Error::join(errors) {
            return Err(error);
        }
        let mut warnings = self.warnings.into_inner();
        warnings.sort_by_key(|(fault, placed)| (*placed, fault.span.start));
        let warnings = warnings
            .iter()
            .map(|(fault, placed)| Warning {
                message: fault.message.clone(),
                snippet: placed.then(|| snippet(fault)),
                hint: fault.hint.clone(),
            })
            .collect();
        let broken = || Error::usage(format!("`{}`: cannot be read", self.path));
        value.map(|value| (value, warnings)).ok_or_else(broken)
    }

    /// Opens a table; `what` is its key path, empty for the whole file.
    pub(crate) fn fields<'n>(&'n self, node: &'n Node, what: &str) -> Option<Fields<'n, 't>> {
        if let Value::Table(entries) = &node.value {
            Some(Fields { d: self, entries, known: Vec::new(), what: what.to_owned(), span: &node.span })
        } else {
            self.wanted(node, what, "a table", "");
            None
        }
    }

    /// Says that a value is of the wrong type.
    pub(crate) fn wanted(&self, node: &Node, what: &str, wanted: &str, hint: &str) {
        let subject = if what.is_empty() { "the file".to_owned() } else { format!("`{what}`") };
        let message = format!("{subject} is {}, wanted {wanted}", node.kind());
        self.error(&node.span, message, format!("wanted {wanted}"), hint);
    }

    /// A string that may be empty.
    pub(crate) fn any_text(&self, node: &Node, what: &str) -> Option<Text> {
        let Value::Scalar { text, kind } = &node.value else {
            self.wanted(node, what, "a string", "");
            return None;
        };
        if *kind != Scalar::Text {
            let key = what.rsplit('.').next().unwrap_or(what);
            let hint = if secrets_like::name_says_secret(key) {
                "put it in quotes".to_owned()
            } else {
                format!("put it in quotes: \"{}\"", shown(text).replace('"', "'"))
            };
            self.wanted(node, what, "a string", &hint);
            return None;
        }
        if text.contains('\0') {
            self.error(&node.span, format!("`{what}` holds a NUL character"), "", "remove it");
            return None;
        }
        Some(Text { value: text.clone(), span: node.span.clone() })
    }

    /// A string that is not empty.
    pub(crate) fn text(&self, node: &Node, what: &str) -> Option<Text> {
        let text = self.any_text(node, what)?;
        if text.value.trim().is_empty() {
            let hint = "give a value, or remove the line for the default";
            self.error(&node.span, format!("`{what}` is empty"), "empty", hint);
            return None;
        }
        Some(text)
    }

    /// A scalar as text: a string, a number or a boolean (where Compose allows each).
    pub(crate) fn scalar(&self, node: &Node, what: &str) -> Option<Text> {
        match &node.value {
            Value::Scalar { text, kind } if *kind != Scalar::Null => {
                Some(Text { value: text.clone(), span: node.span.clone() })
            }
            _ => {
                self.wanted(node, what, "a string", "");
                None
            }
        }
    }

    /// An integer within a range.
    pub(crate) fn integer(&self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = match &node.value {
            Value::Scalar { kind: Scalar::Integer(number), .. } => Some(*number),
            Value::Scalar { kind: Scalar::Text, text } if self.lenient => text.trim().parse().ok(),
            _ => None,
        };
        let (low, high) = (*range.start(), *range.end());
        let wanted = if high >= i64::MAX as u64 {
            format!("a whole number, {low} or more")
        } else {
            format!("a whole number from {low} to {high}")
        };
        let Some(number) = number else {
            self.wanted(node, what, &wanted, "");
            return None;
        };
        match u64::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let message = format!("`{what}` is {number}, wanted {wanted}");
                self.error(&node.span, message, format!("wanted {wanted}"), "");
                None
            }
        }
    }

    /// A boolean.
    pub(crate) fn boolean(&self, node: &Node, what: &str) -> Option<bool> {
        match &node.value {
            Value::Scalar { kind: Scalar::Boolean(value), .. } => return Some(*value),
            // YAML 1.1 spellings, which the old tool read as booleans.
            Value::Scalar { kind: Scalar::Text, text } if self.lenient => {
                match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" => return Some(true),
                    "false" | "no" | "off" => return Some(false),
                    _ => {}
                }
            }
            _ => {}
        }
        self.wanted(node, what, "`true` or `false`", "");
        None
    }

    /// The items of a list.
    pub(crate) fn list<'n>(&self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        if let Value::List(items) = &node.value {
            return Some(items);
        }
        self.wanted(node, what, "a list", "write it in brackets: `[…]`");
        None
    }

    /// A list of strings, none empty.
    pub(crate) fn texts(&self, node: &Node, what: &str) -> Option<Vec<Text>> {
        let items = self.list(node, what)?;
        let texts: Vec<Text> = items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| self.text(item, &format!("{what}[{at}]")))
            .collect();
        (texts.len() == items.len()).then_some(texts)
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&self, node: &Node, what: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let names: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let hint = nearest(&text.value, &names).map(|near| format!("did you mean `{near}`?"));
        let wanted = alternatives(&names);
        let message = format!("`{what}` is `{}`, wanted {wanted}", shown(&text.value));
        self.error(&node.span, message, format!("wanted {wanted}"), hint.unwrap_or_default());
        None
    }
}

/// A table that is being read: remembers which keys are known, so that the others can be refused.
pub(crate) struct Fields<'n, 't> {
    /// The decoder.
    pub(crate) d: &'n Decoder<'t>,
    /// The entries as written.
    pub(crate) entries: &'n [Entry],
    known: Vec<&'static str>,
    what: String,
    /// Where the table stands.
    pub(crate) span: &'n Span,
}

impl<'n> Fields<'n, '_> {
    /// The path of a key, for messages.
    pub(crate) fn at(&self, key: &str) -> String {
        if self.what.is_empty() { key.to_owned() } else { format!("{}.{key}", self.what) }
    }

    /// The entry of a key, unless it is absent or null.
    pub(crate) fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.known.push(key);
        self.entries.iter().find(|entry| entry.key == key && !entry.node.is_null())
    }

    /// The value of a key, unless it is absent or null.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The value of a key that must be there.
    pub(crate) fn required(&mut self, key: &'static str, example: &str) -> Option<&'n Node> {
        let node = self.get(key);
        if node.is_none() {
            self.missing(key, example);
        }
        node
    }

    /// Says that a key is missing.
    pub(crate) fn missing(&self, key: &str, example: &str) {
        let start = self.entries.first().map_or(self.span.clone(), |entry| entry.key_span.clone());
        let message = format!("`{}` is missing", self.at(key));
        self.error(&start, message, format!("has no `{key}`"), format!("add `{example}`"));
    }

    fn error(&self, span: &Span, message: String, label: String, hint: String) {
        self.d.error(span, message, label, hint);
    }

    /// A string that is not empty.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<Text> {
        let what = self.at(key);
        self.get(key).and_then(|node| self.d.text(node, &what))
    }

    /// An integer within a range.
    pub(crate) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let what = self.at(key);
        self.get(key).and_then(|node| self.d.integer(node, &what, range))
    }

    /// A port.
    pub(crate) fn port(&mut self, key: &'static str) -> Option<u16> {
        self.integer(key, 1..=65535).and_then(|port| u16::try_from(port).ok())
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let what = self.at(key);
        self.get(key).and_then(|node| self.d.boolean(node, &what))
    }

    /// A list of strings; empty where absent.
    pub(crate) fn texts(&mut self, key: &'static str) -> Vec<Text> {
        let what = self.at(key);
        self.get(key).and_then(|node| self.d.texts(node, &what)).unwrap_or_default()
    }

    /// A list of words, each at most once, and where each stands. `None` where the key is absent or an item is wrong.
    pub(crate) fn choices<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<Vec<(T, Span)>> {
        let what = self.at(key);
        let node = self.get(key)?;
        let items = self.d.list(node, &what)?;
        let mut found: Vec<(T, Span)> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let Some(value) = self.d.choice(item, &format!("{what}[{at}]"), choices) else { continue };
            if found.iter().any(|(other, _)| *other == value) {
                let word = choices.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word);
                let message = format!("`{word}` is listed twice in `{what}`");
                self.d.error(&item.span, message, "again here", "keep one of them");
                continue;
            }
            found.push((value, item.span.clone()));
        }
        (found.len() == items.len()).then_some(found)
    }

    /// A list of strings without their places.
    pub(crate) fn strings(&mut self, key: &'static str) -> Vec<String> {
        self.texts(key).into_iter().map(|text| text.value).collect()
    }

    /// A table below this one.
    pub(crate) fn fields(&mut self, key: &'static str) -> Option<Fields<'n, 'n>>
    where
        Self: 'n,
    {
        let what = self.at(key);
        let node = self.get(key)?;
        let d: &'n Decoder<'_> = self.d;
        d.fields(node, &what)
    }

    /// Marks keys as known without reading them.
    pub(crate) fn allow(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Refuses every key that was not asked for. `refused` gives keys that are known and not carried
    /// out, with the reason.
    pub(crate) fn finish(self, refused: &[(&str, &str)]) {
        self.finish_with(refused, |_| false);
    }

    /// The same, with keys that are allowed by their form.
    pub(crate) fn finish_with(self, refused: &[(&str, &str)], allowed: impl Fn(&str) -> bool) {
        for entry in self.entries {
            if self.known.contains(&entry.key.as_str()) || allowed(&entry.key) {
                continue;
            }
            let path = self.at(&entry.key);
            if let Some((_, reason)) = refused.iter().find(|(key, _)| *key == entry.key) {
                let message = format!("`{path}` is not carried out: {reason}");
                self.d.error(&entry.key_span, message, "not carried out", "remove it");
                continue;
            }
            let hint = match nearest(&entry.key, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", list(&self.known)),
            };
            let place = if self.what.is_empty() { String::new() } else { format!(" in `{}`", self.what) };
            let message = format!("unknown key `{}`{place}", shown(&entry.key));
            self.d.error(&entry.key_span, message, "unknown key", hint);
        }
    }
}

fn list(names: &[&str]) -> String {
    let mut names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// "`a`, `b` or `c`".
pub(crate) fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, head)) => format!("{} or {last}", head.join(", ")),
        None => String::new(),
    }
}

/// The nearest known word, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |s: &str| s.to_ascii_lowercase().replace(['-', '_'], "");
    let word = plain(word);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&word, &plain(name)), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
