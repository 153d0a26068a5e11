//! TOML to the spanned tree.

use toml::de::{DeTable, DeValue};

use super::tree::{Entry, Fault, MAX_DEPTH, Node, Scalar, Span, Value, check_size, clamp};

/// Reads a TOML document. Of several syntax errors the first is given.
pub(crate) fn read(text: &str) -> Result<Node, Vec<Fault>> {
    check_size(text).map_err(|fault| vec![fault])?;
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut faults: Vec<Fault> = errors
            .iter()
            .map(|error| Fault {
                message: format!("not valid TOML: {}", plain(error.message())),
                label: "here".into(),
                span: clamp(text, error.span().unwrap_or(0..0)),
                hint: "write `key = value`, with strings in quotes and tables as `[name]`".into(),
            })
            .collect();
        faults.sort_by_key(|fault| fault.span.start);
        // What follows the first is mostly the parser finding its way back.
        faults.truncate(1);
        return Err(faults);
    }
    let span = 0..text.len();
    table_node(text, table.into_inner(), span, 1).map_err(|fault| vec![fault])
}

/// The parser's message on one line.
fn plain(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table_node(text: &str, table: DeTable<'_>, span: Span, depth: usize) -> Result<Node, Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault {
            message: format!("tables and lists are nested deeper than {MAX_DEPTH}"),
            label: "too deep".into(),
            span,
            hint: "no profile needs that many levels; was another file meant?".into(),
        });
    }
    let mut entries = Vec::new();
    for (key, value) in table {
        let key_span = clamp(text, key.span());
        let value_span = clamp(text, value.span());
        let node = node(text, value.into_inner(), value_span, depth + 1)?;
        entries.push(Entry { key: key.into_inner().into_owned(), key_span, node });
    }
    entries.sort_by_key(|entry: &Entry| entry.key_span.start);
    Ok(Node { span, value: Value::Table(entries) })
}

fn node(text: &str, value: DeValue<'_>, span: Span, depth: usize) -> Result<Node, Fault> {
    let value = match value {
        DeValue::String(string) => Value::Scalar { text: string.into_owned(), kind: Scalar::Text },
        DeValue::Integer(integer) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix());
            let kind = number.map_or(Scalar::Float(f64::INFINITY), Scalar::Integer);
            Value::Scalar { text: text.get(span.clone()).unwrap_or_default().to_owned(), kind }
        }
        DeValue::Float(float) => Value::Scalar {
            text: float.as_str().to_owned(),
            kind: Scalar::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        },
        DeValue::Boolean(boolean) => {
            Value::Scalar { text: boolean.to_string(), kind: Scalar::Boolean(boolean) }
        }
        DeValue::Datetime(date) => Value::Scalar { text: date.to_string(), kind: Scalar::Date },
        DeValue::Array(items) => {
            let mut nodes = Vec::new();
            for item in items {
                let item_span = clamp(text, item.span());
                nodes.push(node(text, item.into_inner(), item_span, depth + 1)?);
            }
            Value::List(nodes)
        }
        DeValue::Table(table) => return table_node(text, table, span, depth),
    };
    Ok(Node { span, value })
}
