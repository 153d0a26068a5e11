//! A diff as tables for the reviewer of a pull request.

use std::fmt::Write as _;

use super::{Change, Diff, ImageChange, PackageChange, text};

/// One line when nothing changed.
pub(super) fn markdown(diff: &Diff) -> String {
    if diff.is_empty() {
        return "The lock does not change.\n".to_owned();
    }
    let mut parts = Vec::new();
    parts.push(keys(diff));
    parts.push(set(diff));
    parts.push(images(&diff.images));
    packages(diff, &mut parts);
    parts.push(repositories(diff));
    parts.push(inputs(diff));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// A new key is the first thing to be seen.
fn keys(diff: &Diff) -> String {
    let mut out = String::new();
    for repository in &diff.repositories {
        for suite in repository.suites.iter().filter(|suite| suite.change == Change::Changed) {
            for key in &suite.new_keys {
                let _ = writeln!(
                    out,
                    "> [!CAUTION]\n> {} of {} is signed by **another key**: {}{}\n",
                    code(&suite.name),
                    code(&repository.name),
                    code(key),
                    match suite.gone_keys.as_slice() {
                        [] => String::new(),
                        gone => format!(
                            ", no longer by {}",
                            gone.iter().map(|key| code(key)).collect::<Vec<_>>().join(", ")
                        ),
                    }
                );
            }
        }
    }
    out.trim_end_matches('\n').to_owned() + if out.is_empty() { "" } else { "\n" }
}

fn set(diff: &Diff) -> String {
    if diff.set.is_empty() {
        return String::new();
    }
    let mut out = "| set | from | to | what it means |\n|---|---|---|---|\n".to_owned();
    for part in &diff.set {
        let side = |side: &Option<String>| side.as_deref().map_or_else(|| "none".to_owned(), code);
        let meaning = if part.what == "driver" {
            text::verdicts(&diff.verdicts)
        } else {
            part.because.clone().unwrap_or_default()
        };
        let _ = writeln!(
            out,
            "| **{}** | {} | {} | {} |",
            part.what,
            side(&part.from),
            side(&part.to),
            cell(&meaning)
        );
    }
    out
}

fn images(images: &[ImageChange]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let mut out =
        "| image | change | what changes | verdict | manifest |\n|---|---|---|---|---|\n".to_owned();
    for image in images {
        let verdict = match (&image.from, &image.to) {
            (Some(from), Some(to)) if from.verdict.outcome != to.verdict.outcome => {
                format!("{} → **{}**", from.verdict.outcome.name(), to.verdict.outcome.name())
            }
            (_, Some(image)) | (Some(image), None) => image.verdict.outcome.name().to_owned(),
            (None, None) => String::new(),
        };
        let because = image.because().map(|b| format!("<br>{}", cell(b))).unwrap_or_default();
        let manifest = match (&image.from, &image.to) {
            (Some(from), Some(to)) if from.manifest == to.manifest => code(&to.manifest.short()),
            (from, to) => [from, to]
                .into_iter()
                .flatten()
                .map(|image| code(&image.manifest.short()))
                .collect::<Vec<_>>()
                .join(" → "),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {verdict}{because} | {manifest} |",
            code(&image.name),
            image.change.word(),
            cell(&image.line()),
        );
    }
    out
}

/// Security fixes in sight, what comes and goes as a line, the rest folded.
fn packages(diff: &Diff, parts: &mut Vec<String>) {
    let (security, others): (Vec<_>, Vec<_>) = diff.packages.iter().partition(|change| change.is_security());
    if !security.is_empty() {
        parts.push(table("security fix", &security));
    }
    for (kind, word) in [(Change::Added, "More"), (Change::Removed, "Fewer")] {
        let changes: Vec<&PackageChange> =
            others.iter().copied().filter(|change| change.change() == kind).collect();
        if !changes.is_empty() {
            let names: Vec<String> = changes.iter().map(|change| code(change.name())).collect();
            let count = text::count(changes.len());
            parts.push(folded(&format!("{word}: {count}"), &(names.join(", ") + "\n"), changes.len()));
        }
    }
    let rest: Vec<&PackageChange> =
        others.iter().copied().filter(|change| change.change() == Change::Changed).collect();
    if !rest.is_empty() {
        let other = if security.is_empty() { "" } else { "other " };
        let title = format!("{} in {other}versions", text::count(rest.len()));
        parts.push(folded(&title, &table("package", &rest), rest.len()));
    }
}

fn table(title: &str, changes: &[&PackageChange]) -> String {
    let mut out = format!("| {title} | from | to | archive |\n|---|---|---|---|\n");
    for change in changes {
        let (Some(from), Some(to)) = (&change.from, &change.to) else { continue };
        let other = if change.is_same_version() { " **with other content**" } else { "" };
        let _ = writeln!(
            out,
            "| {} | {} | {}{other} | {} |",
            code(change.name()),
            code(&from.version),
            code(&to.version),
            code(&to.repository)
        );
    }
    out
}

/// What is long stays closed until somebody opens it.
fn folded(title: &str, content: &str, length: usize) -> String {
    if length <= 12 {
        return format!("**{title}**\n\n{content}");
    }
    format!("<details><summary>{title}</summary>\n\n{content}\n</details>\n")
}

fn repositories(diff: &Diff) -> String {
    if diff.repositories.is_empty() {
        return String::new();
    }
    let mut out = "| archive | suite | change | from | to |\n|---|---|---|---|---|\n".to_owned();
    for repository in &diff.repositories {
        let name = code(&repository.name);
        let word = |text: &Option<String>| text.as_deref().map_or_else(String::new, code);
        if repository.snapshot.0 != repository.snapshot.1 {
            let (from, to) = (word(&repository.snapshot.0), word(&repository.snapshot.1));
            let _ = writeln!(out, "| {name} | | snapshot | {from} | {to} |");
        }
        for suite in &repository.suites {
            let (from, to) = (word(&suite.date.0), word(&suite.date.1));
            let _ =
                writeln!(out, "| {name} | {} | {} | {from} | {to} |", code(&suite.name), suite.change.word());
        }
    }
    out
}

fn inputs(diff: &Diff) -> String {
    if diff.inputs.is_empty() {
        return String::new();
    }
    let mut out = "| input | change |\n|---|---|\n".to_owned();
    for input in &diff.inputs {
        let _ = writeln!(out, "| {} | {} |", code(&input.name), input.change.word());
    }
    out
}

/// Text within a cell of a Markdown table. What comes from a registry or an archive must not break out of it.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' => out.push_str("\\|"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A code span within a cell.
fn code(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c == '`' || c.is_control() { ' ' } else { c }).collect();
    format!("`{}`", plain.replace('|', "\\|"))
}
