//! YAML to the spanned tree: one document, aliases filled in within bounds, merge keys carried out.

use std::{borrow::Cow, collections::BTreeMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::tree::{Entry, Fault, MAX_DEPTH, MAX_NODES, Node, Scalar, Span, Value, check_size, clamp};

/// Reads one YAML document.
pub(crate) fn read(text: &str) -> Result<Node, Vec<Fault>> {
    check_size(text).map_err(|fault| vec![fault])?;
    // The parser counts characters, not bytes.
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let body = text.get(mark..).unwrap_or_default();
    let offsets = Offsets::new(body, mark);
    let mut builder = Builder { text, open: Vec::new(), anchors: BTreeMap::new(), nodes: 0, root: None };
    let mut documents = 0;
    for event in Parser::new_from_str(body) {
        let (event, at) = event.map_err(|error| {
            let start = offsets.byte(error.marker().index());
            vec![syntax(text, error.info(), start)]
        })?;
        let span = offsets.byte(at.start.index())..offsets.byte(at.end.index());
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                return Err(vec![fault(
                    clamp(text, span),
                    "the file holds more than one document",
                    "a second one starts here",
                    "keep one deployment a file",
                )]);
            }
        }
        builder.event(event, clamp(text, span)).map_err(|fault| vec![fault])?;
    }
    builder.root.ok_or_else(|| {
        vec![fault(0..0, "the file is empty", "", "`bedplate init NAME` writes one to start from")]
    })
}

fn fault(span: Span, message: &str, label: &str, hint: &str) -> Fault {
    Fault { message: message.into(), label: label.into(), span, hint: hint.into() }
}

fn syntax(text: &str, info: &str, start: usize) -> Fault {
    let span = clamp(text, start..start + 1);
    let head = text.get(..span.end).unwrap_or_default();
    let line = head.rsplit('\n').next().unwrap_or_default();
    let hint = if line.trim_start_matches(' ').starts_with('\t') || info.contains("tab") {
        "indent with spaces; YAML does not allow tabs"
    } else if info.contains("unknown anchor") {
        "an alias (`*name`) needs an anchor (`&name`) before it; a plain `*` must be quoted"
    } else {
        "write `key: value`, nested by two spaces; quote a value that holds `: `, ` #`, `[` or `{`"
    };
    fault(span, &format!("not valid YAML: {info}"), "here", hint)
}

/// From character to byte offsets.
struct Offsets {
    bytes: Vec<usize>,
    end: usize,
}

impl Offsets {
    fn new(body: &str, mark: usize) -> Self {
        Self { bytes: body.char_indices().map(|(at, _)| at + mark).collect(), end: body.len() + mark }
    }

    fn byte(&self, index: usize) -> usize {
        self.bytes.get(index).copied().unwrap_or(self.end)
    }
}

struct Open {
    anchor: usize,
    span: Span,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Table(Vec<Entry>, Option<(String, Span)>),
}

struct Builder<'t> {
    text: &'t str,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = Self::scalar_kind(&text, style, tag.as_deref(), &span)?;
                let span = self.trimmed(span);
                let node = Node { span, value: Value::Scalar { text: text.into_owned(), kind } };
                self.add(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                Self::no_tag(tag.as_ref(), &span)?;
                self.push(anchor, span, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                Self::no_tag(tag.as_ref(), &span)?;
                self.push(anchor, span, Content::Table(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let span = self.trimmed(open.span.start..span.end.max(open.span.start));
                let value = match open.content {
                    Content::List(items) => Value::List(items),
                    Content::Table(entries, _) => Value::Table(merged(entries)?),
                };
                self.add(Node { span, value }, open.anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, count, height)) = self.anchors.get(&anchor) else {
                    return Err(fault(
                        span,
                        "an alias stands inside the value it names",
                        "names itself",
                        "write the value out instead",
                    ));
                };
                if self.nodes + count > MAX_NODES {
                    return Err(fault(
                        span,
                        "aliases make the file too large",
                        "filled in here",
                        "write the values out instead",
                    ));
                }
                if self.open.len() + height > MAX_DEPTH {
                    return Err(too_deep(span));
                }
                self.nodes += count;
                let mut node = node.clone();
                node.span = span;
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, anchor: usize, span: Span, content: Content) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.open.push(Open { anchor, span, content });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(fault(
                node.span,
                "the file holds too many values",
                "",
                "a deployment is a short text; was another file meant?",
            ));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), node.count(), node.height()));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Table(entries, key) => {
                if let Some((key, key_span)) = key.take() {
                    entries.push(Entry { key, key_span, node });
                } else {
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(fault(
                            node.span,
                            "a key must be a plain word",
                            "not a word",
                            "a value that starts with `{` or `[` must be quoted",
                        ));
                    };
                    if text != "<<" && entries.iter().any(|entry| entry.key == text) {
                        return Err(fault(
                            node.span,
                            &format!("`{}` is given twice", super::secrets_like::shown(&text)),
                            "again here",
                            "keep one of them",
                        ));
                    }
                    *key = Some((text, node.span));
                }
            }
        }
        Ok(())
    }

    fn trimmed(&self, span: Span) -> Span {
        let text = self.text.get(span.clone()).unwrap_or_default();
        span.start..span.start + text.trim_end().len()
    }

    fn no_tag(tag: Option<&Cow<'_, Tag>>, span: &Span) -> Result<(), Fault> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && ["map", "seq"].contains(&tag.suffix.as_str())) => {
                Err(fault(
                    span.clone(),
                    "YAML tags are not read",
                    "tagged",
                    "remove the `!…` before the value",
                ))
            }
            _ => Ok(()),
        }
    }

    fn scalar_kind(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Scalar, Fault> {
        if let Some(tag) = tag {
            if tag.is_yaml_core_schema() && tag.suffix == "str" {
                return Ok(Scalar::Text);
            }
            if !tag.is_yaml_core_schema() || !["int", "bool", "float", "null"].contains(&tag.suffix.as_str())
            {
                return Err(fault(
                    span.clone(),
                    "YAML tags are not read",
                    "tagged",
                    "remove the `!…` before the value",
                ));
            }
        }
        Ok(if style == ScalarStyle::Plain { plain(text) } else { Scalar::Text })
    }
}

fn too_deep(span: Span) -> Fault {
    fault(
        span,
        &format!("tables and lists are nested deeper than {MAX_DEPTH}"),
        "too deep",
        "no deployment needs that many levels; was another file meant?",
    )
}

/// Resolves a plain scalar by YAML 1.2's core schema (section 10.3.2).
fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Boolean(true),
        "false" | "False" | "FALSE" => return Scalar::Boolean(false),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return i128::from_str_radix(digits, 16).map_or(Scalar::Text, Scalar::Integer);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i128::from_str_radix(digits, 8).map_or(Scalar::Text, Scalar::Integer);
    }
    if let Ok(number) = text.parse::<i128>() {
        return Scalar::Integer(number);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    if numeric { text.parse().map_or(Scalar::Text, Scalar::Float) } else { Scalar::Text }
}

/// Carries out merge keys (`<<`): keys of the merged tables that the table itself does not have.
fn merged(entries: Vec<Entry>) -> Result<Vec<Entry>, Fault> {
    if !entries.iter().any(|entry| entry.key == "<<") {
        return Ok(entries);
    }
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    for merge in merges {
        let tables = match merge.node.value {
            Value::List(items) => items,
            _ => vec![merge.node],
        };
        for table in tables {
            let Value::Table(inner) = table.value else {
                return Err(fault(table.span, "`<<` merges tables only", "not a table", ""));
            };
            for entry in inner {
                if !own.iter().any(|known| known.key == entry.key) {
                    own.push(entry);
                }
            }
        }
    }
    Ok(own)
}
