//! `[[mount]]`, `[[file]]` and `[[user]]` of a profile, and the rules for paths, modes and owners.

use std::collections::BTreeMap;

use super::{
    FileContent, ManagedFile, Mount, User,
    decode::{Decoder, Fields, Text},
    forms,
    host_profile::check,
    secrets_like,
    tree::{Node, Scalar, Span, Value},
};

/// A `mode` key.
fn mode(f: &mut Fields<'_, '_>, key: &'static str, example: &str) -> Option<(u32, Span)> {
    let node = f.get(key)?;
    mode_of(f.d, node, &f.at(key), example)
}

/// Permission bits of a value.
fn mode_of(d: &Decoder<'_>, node: &Node, what: &str, example: &str) -> Option<(u32, Span)> {
    if let Value::Scalar { kind: Scalar::Integer(_), .. } = node.value {
        d.wanted(node, what, "four octal digits in quotes", &format!("write it like \"{example}\""));
        return None;
    }
    let text = d.text(node, what)?;
    match forms::mode(&text.value) {
        Ok(mode) => Some((mode, text.span)),
        Err((message, hint)) => {
            d.error(&text.span, message, "", hint);
            None
        }
    }
}

/// A path that bedplate manages, held against `rule`.
fn path_by(f: &mut Fields<'_, '_>, rule: fn(&str) -> Result<(), forms::Wrong>) -> Option<Text> {
    let node = f.required("path", "path = \"/…\"")?;
    let path = f.d.text(node, &f.at("path"))?;
    check(f.d, &path.span, rule(&path.value)).then_some(path)
}

/// An owner, `root:root` unless said.
fn owner(f: &mut Fields<'_, '_>) -> String {
    let Some(text) = f.text("owner") else { return "root:root".into() };
    check(f.d, &text.span, forms::owner(&text.value));
    text.value
}

pub(crate) fn mount(mut f: Fields<'_, '_>) -> (Option<Mount>, Option<Text>) {
    let path = path_by(&mut f, forms::mount_path);
    if f.get("mode").is_none() {
        f.missing("mode", "mode = \"0700\"");
    }
    let mode = mode(&mut f, "mode", "0700");
    let owner = owner(&mut f);
    let mut files = BTreeMap::new();
    if let Some(table) = f.fields("files") {
        for entry in table.entries {
            let plain = format!("/{}", entry.key);
            if entry.key.is_empty() || forms::absolute_path(&plain).is_err() {
                let hint = "write the path from the mount down, such as \"config.json\"";
                table.d.error(
                    &entry.key_span,
                    "a private file must be named by its path within the mount",
                    "",
                    hint,
                );
            }
            if let Some((bits, span)) = mode_of(table.d, &entry.node, &table.at(&entry.key), "0600") {
                if bits & !0o600 != 0 {
                    let message = format!("mode `{bits:04o}` of a private file is wider than 0600");
                    table.d.error(&span, message, "readable by others", "write \"0600\"");
                }
                files.insert(entry.key.clone(), bits);
            }
        }
    }
    if let Some((bits, span)) = &mode {
        let private = !files.is_empty();
        let widest = if private { 0o700 } else { 0o755 };
        if bits & !widest != 0 {
            let why =
                if private { "a directory that holds private files" } else { "a directory that holds state" };
            let message = format!("mode `{bits:04o}` of {why} is wider than {widest:04o}");
            let hint = format!("write \"{:04o}\"", bits & widest);
            f.d.error(span, message, "too wide", hint);
        }
    }
    f.finish(&[]);
    let value = match (&path, mode) {
        (Some(path), Some((mode, _))) => Some(Mount { path: path.value.clone(), mode, owner, files }),
        _ => None,
    };
    (value, path)
}

pub(crate) fn file(mut f: Fields<'_, '_>) -> (Option<ManagedFile>, Option<Text>) {
    let path = path_by(&mut f, forms::managed_path);
    let inline = f.get("content").and_then(|node| f.d.any_text(node, &f.at("content")));
    let source = f.text("source");
    if let Some(source) = &source {
        check(f.d, &source.span, forms::input_path(&source.value));
    }
    let content = match (inline, source) {
        (Some(inline), None) => Some(FileContent::Inline(inline.value)),
        (None, Some(source)) => Some(FileContent::Source(source.value)),
        (Some(_), Some(source)) => {
            f.d.error(
                &source.span,
                "a file has both `content` and `source`",
                "and a source",
                "keep one of them",
            );
            None
        }
        (None, None) => {
            if !f.entries.iter().any(|entry| entry.key == "content" || entry.key == "source") {
                f.missing("content", "content = \"…\"` or `source = \"files/…\"");
            }
            None
        }
    };
    let mode = match mode(&mut f, "mode", "0644") {
        Some((bits, span)) => {
            if bits & !0o755 != 0 {
                let message = format!("mode `{bits:04o}` of a configuration file is wider than 0755");
                f.d.error(&span, message, "too wide", format!("write \"{:04o}\"", bits & 0o755));
            }
            bits
        }
        None => 0o644,
    };
    let owner = owner(&mut f);
    f.finish(&[]);
    let value = match (&path, content) {
        (Some(path), Some(content)) => Some(ManagedFile { path: path.value.clone(), content, mode, owner }),
        _ => None,
    };
    (value, path)
}

pub(crate) fn user(mut f: Fields<'_, '_>) -> (Option<User>, Option<Text>) {
    let name = f.required("name", "name = \"operator\"").and_then(|node| f.d.text(node, &f.at("name")));
    let groups = f.texts("groups");
    for text in name.iter().chain(&groups) {
        if !forms::account_name(&text.value) {
            let message = format!("`{}` is not an account name", secrets_like::shown(&text.value));
            f.d.error(&text.span, message, "", "lower case letters, digits, `_` and `-`; at most 32 of them");
        }
    }
    let keys = f.texts("authorized-keys");
    for key in &keys {
        let kinds = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
        if key.value.lines().count() != 1
            || !key.value.split(' ').any(|word| kinds.iter().any(|kind| word.starts_with(kind)))
        {
            let hint = "paste one line of the `.pub` file, such as `ssh-ed25519 AAAA… name`";
            f.d.error(&key.span, "this is not a public key", "", hint);
        }
    }
    f.finish(&[]);
    let value = name.as_ref().map(|name| User {
        name: name.value.clone(),
        groups: groups.into_iter().map(|text| text.value).collect(),
        authorized_keys: keys.into_iter().map(|text| text.value).collect(),
    });
    (value, name)
}
