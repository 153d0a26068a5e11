//! The import rule of the crate documentation, over the `use` lines and paths of every source file.

use std::path::{Path, PathBuf};

/// Module, and what it may import besides itself and the foundation.
const RULES: &[(&str, &[&str])] = &[
    ("digest", &[]),
    ("error", &[]),
    ("progress", &[]),
    ("reference", &[]),
    ("version", &[]),
    // pure
    ("profile", &[]),
    ("lock", &["profile"]),
    ("plan", &["profile", "lock"]),
    // adaptors
    ("system", &[]),
    ("store", &["system"]),
    ("oci", &["system", "store"]),
    ("apt", &["system", "store"]),
    ("docker", &["system", "store"]),
    ("gpu", &["system", "store"]),
    // features
    ("build", &["profile", "lock", "plan", "oci", "apt", "store", "system"]),
    ("host", &["profile", "lock", "plan", "oci", "apt", "docker", "gpu", "store", "system"]),
    ("check", &["host", "profile", "lock", "plan", "oci", "apt", "docker", "gpu", "store", "system"]),
    ("deploy", &["check", "host", "profile", "lock", "plan", "oci", "apt", "docker", "store", "system"]),
    (
        "fleet",
        &["check", "deploy", "host", "profile", "lock", "plan", "oci", "apt", "docker", "store", "system"],
    ),
    // porch
    ("ui", &[]),
    (
        "cli",
        &[
            "ui", "fleet", "deploy", "check", "build", "host", "profile", "lock", "plan", "oci", "apt",
            "docker", "gpu", "store", "system",
        ],
    ),
];

const FOUNDATION: &[&str] = &["error", "digest", "progress", "reference", "version"];

/// Files that may import more than their module: `lock/resolve.rs` drives the registry client.
const EXCEPTIONS: &[(&str, &[&str])] =
    &[("src/lock/resolve.rs", &["oci", "apt"]), ("src/lock/resolve/", &["oci", "apt"])];

#[test]
fn imports_point_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    assert!(files.len() > 20, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let shown = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let Some(module) = module_of(&shown) else { continue };
        let (_, allowed) = RULES
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("`{shown}`: module `{module}` has no rule here"));
        let text = std::fs::read_to_string(&file).unwrap();
        for imported in imports(&text) {
            let excepted = EXCEPTIONS
                .iter()
                .any(|(path, more)| shown.starts_with(path) && more.contains(&imported.as_str()));
            if imported != module
                && !FOUNDATION.contains(&imported.as_str())
                && !allowed.contains(&imported.as_str())
                && !excepted
            {
                wrong.push(format!("{shown}: `{module}` imports `{imported}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_do_no_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for module in ["profile", "lock", "plan"] {
        collect(&root.join("src").join(module), &mut files);
    }
    for file in files {
        let shown = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if EXCEPTIONS.iter().any(|(path, _)| shown.starts_with(path)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        if shown.ends_with("tests.rs") {
            continue;
        }
        for banned in
            ["std::fs", "std::env::var", "std::process", "std::net::Tcp", "SystemTime::now", "Timestamp::now"]
        {
            assert!(!code.contains(banned), "`{shown}` is pure, and has `{banned}`");
        }
    }
}

#[test]
fn the_rule_sees_every_form_of_import() {
    let text = "use crate::{\n    error::Error,\n    lock::{self, Lock},\n    oci,\n};\nuse crate::ui::Ui;\nfn f() { crate::host::x(); }";
    assert_eq!(imports(text), ["error", "lock", "oci", "ui", "host"]);
}

fn module_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    match rest.split_once('/') {
        // Programs of their own (build.rs), with no crate to import from.
        Some(("launch" | "probe", _)) => None,
        Some((module, _)) => Some(module),
        None if rest == "lib.rs" || rest == "main.rs" => None,
        None => rest.strip_suffix(".rs"),
    }
}

/// First path parts after `crate::`, in `use` groups and in plain paths.
fn imports(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            let mut taken = false;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        if !name.is_empty() && !taken {
                            found.push(std::mem::take(&mut name));
                        }
                        name.clear();
                        taken = false;
                        continue;
                    }
                    _ => {}
                }
                if depth == 0 && !taken {
                    if c.is_alphanumeric() || c == '_' {
                        name.push(c);
                    } else if !name.is_empty() {
                        found.push(std::mem::take(&mut name));
                        taken = true;
                    }
                }
            }
            if !name.is_empty() && !taken {
                found.push(name);
            }
        } else {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // Macros and items at the root (`crate::Thing`) are no modules.
            if name.starts_with(|c: char| c.is_lowercase()) {
                found.push(name);
            }
        }
    }
    found
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}
