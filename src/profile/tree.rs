//! One spanned tree for TOML and YAML, so that both have one decoder and one sort of error.

use std::ops::Range;

/// Longest input that is read, in bytes.
pub(crate) const MAX_INPUT: usize = 1 << 20;
/// Deepest nesting that is read.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most values a file may stand for once its aliases are filled in.
pub(crate) const MAX_NODES: usize = 50_000;

/// A byte range of the text.
pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Byte range in the text.
    pub(crate) span: Span,
    /// The value.
    pub(crate) value: Value,
}

/// A value of a configuration file.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A scalar: the text as written (without quotes), and what it stands for.
    Scalar {
        /// The text, quotes and escapes resolved.
        text: String,
        /// What it stands for.
        kind: Scalar,
    },
    /// A list.
    List(Vec<Node>),
    /// A table, in the order written.
    Table(Vec<Entry>),
}

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    /// A string.
    Text,
    /// An integer.
    Integer(i128),
    /// A number that is not an integer.
    Float(f64),
    /// A truth value.
    Boolean(bool),
    /// A date or time (TOML).
    Date,
    /// Nothing (YAML).
    Null,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) key_span: Span,
    /// The value.
    pub(crate) node: Node,
}

/// Why a text is no tree, and where.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) span: Span,
    pub(crate) hint: String,
}

impl Fault {
    /// What to write instead: the hint, or what was wanted in this place.
    pub(crate) fn advice(&self) -> String {
        if !self.hint.is_empty() {
            return self.hint.clone();
        }
        match self.label.strip_prefix("wanted ") {
            Some(wanted) => format!("write {wanted}"),
            None => "change what is marked".to_owned(),
        }
    }
}

impl Node {
    /// What the value is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { kind, .. } => match kind {
                Scalar::Text => "a string",
                Scalar::Integer(_) | Scalar::Float(_) => "a number",
                Scalar::Boolean(_) => "a boolean",
                Scalar::Date => "a date",
                Scalar::Null => "empty",
            },
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// Whether it is YAML's null.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar { kind: Scalar::Null, .. })
    }

    /// Values in this one, itself included.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Node::count).sum(),
            Value::Table(entries) => entries.iter().map(|entry| entry.node.count()).sum(),
        }
    }

    /// Levels below and including this one.
    pub(crate) fn height(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Node::height).max().unwrap_or(0),
            Value::Table(entries) => entries.iter().map(|entry| entry.node.height()).max().unwrap_or(0),
        }
    }
}

/// Refuses a text that is too long.
pub(crate) fn check_size(text: &str) -> Result<(), Fault> {
    if text.len() <= MAX_INPUT {
        return Ok(());
    }
    Err(Fault {
        message: format!("the file has {} bytes, more than the {MAX_INPUT} that are read", text.len()),
        label: String::new(),
        span: 0..0,
        hint: "a profile or deployment is a short text; was another file meant?".into(),
    })
}

/// Shifts nothing, but keeps a range within the text and on character boundaries.
pub(crate) fn clamp(text: &str, span: Span) -> Span {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}
