//! Rules of a profile that look at more than one value, and those about secrets.

use super::{
    Checks, Container, ContainerEngine, Driver, DriverFlavor, Gpu, GpuAccess, SecretSource,
    decode::{Decoder, Fields},
    forms,
    host_profile::Placed,
    secrets_like::{self, shown},
    tree::{Entry, Node, Value},
};

/// Refuses every string that looks like a token, wherever it stands. `hint` says what to write instead.
pub(crate) fn no_literal_secrets(d: &Decoder<'_>, node: &Node, path: &str, hint: &str) {
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                // Public keys are public, and long; `[secrets]` has its own rule.
                if entry.key == "authorized-keys" || path == "secrets" {
                    continue;
                }
                no_literal_secrets(d, &entry.node, &path, hint);
            }
        }
        Value::List(items) => items.iter().for_each(|item| no_literal_secrets(d, item, path, hint)),
        Value::Scalar { text, .. } => {
            // Digests and commits are common in tags and in configuration files: only known tokens count.
            let known_only =
                ["images.", "file.", "host.", "kernel.", "disk."].iter().any(|head| path.starts_with(head));
            let secret = if known_only {
                secrets_like::holds_known_token(text)
            } else {
                secrets_like::looks_secret(text)
            };
            if secret {
                d.hide(&node.span);
                d.error(
                    &node.span,
                    format!("`{}` holds what looks like a secret", shown(path)),
                    "hidden here",
                    hint,
                );
            }
        }
    }
}

/// `[checks]`.
pub(crate) fn checks(f: &mut Fields<'_, '_>) -> Checks {
    let mut checks = Checks::default();
    let Some(mut f) = f.fields("checks") else { return checks };
    let most = 1 << 30;
    if let Some(gib) = f.integer("disk-free-gib", 0..=most) {
        checks.disk_free_gib = gib;
    }
    if let Some(gib) = f.integer("memory-free-gib", 0..=most) {
        checks.memory_free_gib = gib;
    }
    if let Some(hours) = f.integer("readiness-hours", 1..=24 * 366) {
        checks.readiness_hours = hours;
    }
    checks.xid_hours = f.integer("xid-hours", 1..=24 * 366);
    for text in f.texts("resolve") {
        let good = text.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if !good {
            let message = format!("`{}` is not a host name", shown(&text.value));
            f.d.error(&text.span, message, "", "write the name alone, such as \"huggingface.co\"");
        }
        checks.resolve.push(text.value);
    }
    checks.clock_seconds = f.integer("clock-seconds", 1..=3600);
    checks.inodes_free_percent = f.integer("inodes-free-percent", 0..=99);
    checks.shm_gib = f.integer("shm-gib", 0..=most);
    checks.open_files = f.integer("open-files", 0..=most);
    checks.memlock_mib = f.integer("memlock-mib", 0..=most);
    if let Some(node) = f.get("leak-paths") {
        let paths = f.texts("leak-paths");
        if paths.is_empty() {
            let hint =
                "name directories or files; to leave the check out: `accept = { \"secret.leaks\" = \"…\" }`";
            f.d.error(&node.span, "`checks.leak-paths` names nothing", "empty", hint);
        }
        for path in &paths {
            if let Err((message, hint)) = forms::absolute_path(&path.value) {
                f.d.error(&path.span, message, "", hint);
            }
        }
        checks.leak_paths = Some(paths.into_iter().map(|path| path.value).collect());
    }
    if let Some(accept) = f.fields("accept") {
        for entry in accept.entries {
            let what = accept.at(&entry.key);
            let hint = "say why and until when, such as \"535 stays until the March window\"";
            match accept.d.any_text(&entry.node, &what) {
                Some(text) if text.value.trim().is_empty() => {
                    accept.d.error(&text.span, format!("`{what}` gives no reason"), "empty", hint);
                }
                Some(text) => {
                    checks.accept.insert(entry.key.clone(), text.value);
                }
                None => {}
            }
        }
    }
    f.finish(&[]);
    checks
}

/// One entry of `[secrets]`: where the value comes from, never the value.
pub(crate) fn secret(f: &Fields<'_, '_>, entry: &Entry) -> Option<SecretSource> {
    let name = &entry.key;
    let Value::Table(_) = entry.node.value else {
        f.d.hide(&entry.node.span);
        let message = format!("secret `{}` is written into the profile", shown(name));
        let hint = format!(
            "write where it comes from: `{name} = {{ env = \"{name}\" }}`, or `{{ file = \"/…\" }}`; if this was \
             its value, replace the token: it has been on disk in clear"
        );
        f.d.error(&entry.node.span, message, "hidden here", hint);
        return None;
    };
    let what = f.at(name);
    let mut table = f.d.fields(&entry.node, &what)?;
    let mut sources = Vec::new();
    if let Some(text) = table.text("env") {
        if !forms::variable_name(&text.value) || secrets_like::looks_secret(&text.value) {
            table.d.hide(&text.span);
            let hint = format!("write the variable's name: `{name} = {{ env = \"{name}\" }}`");
            table.d.error(&text.span, format!("`{what}.env` is not a variable's name"), "hidden here", hint);
        }
        sources.push(SecretSource::Env(text.value));
    }
    if let Some(text) = table.text("file") {
        // From the root, or relative to the profile as `init --from` writes it.
        let checked = if text.value.starts_with('/') { forms::absolute_path } else { forms::input_path };
        if let Err((message, hint)) = checked(&text.value) {
            let other =
                format!("write it from the root, `/…`, or relative to the profile, `../secrets/{name}`");
            table.d.error(&text.span, message, "", if text.value.starts_with('/') { hint } else { other });
        }
        sources.push(SecretSource::File(text.value));
    }
    if let Some(text) = table.text("credential") {
        if !forms::name(&text.value) {
            let hint = "letters, digits, `.`, `_` and `-`";
            table.d.error(&text.span, format!("`{what}.credential` is not a credential's name"), "", hint);
        }
        sources.push(SecretSource::Credential(text.value));
    }
    if let Some(text) = table.text("age") {
        if let Err((message, hint)) = forms::input_path(&text.value) {
            table.d.error(&text.span, message, "", hint);
        }
        sources.push(SecretSource::Age(text.value));
    }
    if let Some(node) = table.get("command") {
        if let Value::List(items) = &node.value {
            let words = table.d.texts(node, &format!("{what}.command"));
            if items.is_empty() {
                table.d.error(&node.span, format!("`{what}.command` is empty"), "", "name the program first");
            }
            for word in words.iter().flatten().filter(|word| secrets_like::holds_known_token(&word.value)) {
                table.d.hide(&word.span);
                let message = format!("`{what}.command` holds what looks like a secret");
                table.d.error(
                    &word.span,
                    message,
                    "hidden here",
                    "let the command find the value, not carry it",
                );
            }
            sources.extend(
                words.map(|words| SecretSource::Command(words.into_iter().map(|text| text.value).collect())),
            );
        } else {
            let hint = "write program and arguments apart: `command = [\"pass\", \"show\", \"hf\"]`; no shell is used";
            table.d.wanted(node, &format!("{what}.command"), "a list of strings", hint);
        }
    }
    for entry in table.entries {
        if ["value", "literal", "token", "password"].contains(&entry.key.as_str()) {
            table.d.hide(&entry.node.span);
        }
    }
    let given = table.entries.len();
    let span = table.span;
    if given == 0 {
        let hint = format!("write `{name} = {{ env = \"{name}\" }}`");
        table.d.error(span, format!("`{what}` does not say where it comes from"), "", hint);
    } else if sources.len() > 1 {
        table.d.error(span, format!("`{what}` has more than one source"), "", "keep one of them");
    }
    table.finish(&[
        ("value", "a profile never holds a secret's value"),
        ("literal", "a profile never holds a secret's value"),
    ]);
    sources.pop()
}

/// Mounts that overlap, files inside mounts, files given twice.
pub(crate) fn places(d: &Decoder<'_>, mounts: &[Placed], files: &[Placed]) {
    for (at, second) in mounts.iter().enumerate() {
        for first in mounts.iter().take(at) {
            let (a, b) = (&first.path.value, &second.path.value);
            if forms::within(a, b) || forms::within(b, a) {
                let line = d.line(&first.path.span);
                let message = format!("mounts `{b}` and `{a}` (line {line}) overlap");
                let hint =
                    "a directory has one owner and one mode: keep one mount, or move one beside the other";
                d.error(&second.path.span, message, format!("overlaps `{a}`"), hint);
            }
        }
    }
    for file in files {
        if let Some(mount) = mounts.iter().find(|mount| forms::within(&file.path.value, &mount.path.value)) {
            let message = format!(
                "file `{}` lies in the mount `{}` (line {})",
                file.path.value,
                mount.path.value,
                d.line(&mount.path.span)
            );
            let hint = "a mount holds state, which is never written: put configuration elsewhere";
            d.error(&file.path.span, message, "inside a mount", hint);
        }
    }
    twice(d, "file", files);
    for (at, second) in files.iter().enumerate() {
        for first in files.iter().take(at) {
            let (a, b) = (&first.path.value, &second.path.value);
            if a != b && (forms::within(a, b) || forms::within(b, a)) {
                let message = format!("`{a}` and `{b}` cannot both be files");
                d.error(
                    &second.path.span,
                    message,
                    "one lies in the other",
                    "a path is a file or a directory",
                );
            }
        }
    }
}

/// Refuses the same name or path twice.
pub(crate) fn twice(d: &Decoder<'_>, kind: &str, places: &[Placed]) {
    for (at, second) in places.iter().enumerate() {
        if let Some(first) = places.iter().take(at).find(|first| first.path.value == second.path.value) {
            let line = d.line(&first.path.span);
            let message =
                format!("{kind} `{}` is given twice (first in line {line})", shown(&second.path.value));
            d.error(&second.path.span, message, "again here", "keep one of them");
        }
    }
}

/// Driver, GPU access and `[gpu]` must fit together.
pub(crate) fn gpu_access(
    d: &Decoder<'_>,
    root: &Node,
    driver: &Driver,
    container: &Container,
    gpu: Option<&Gpu>,
) {
    if driver.flavor != DriverFlavor::None {
        return;
    }
    if container.gpu_access != GpuAccess::None
        && let Some(node) = find(root, &["container", "gpu-access"])
    {
        let hint = "set `gpu-access = \"none\"`, or `[driver] flavor = \"open\"` with a version";
        d.error(&node.span, "containers are given GPUs on a host without a driver", "no driver", hint);
    }
    if gpu.is_some()
        && let Some(node) = find(root, &["driver", "flavor"])
    {
        let hint = "remove `[gpu]`, or set `flavor = \"open\"` with a version";
        d.error(&node.span, "`[gpu]` is given, but `driver.flavor` is \"none\"", "no driver", hint);
    }
}

/// Without a container engine nothing can be asked of one.
pub(crate) fn engine(d: &Decoder<'_>, root: &Node, container: &Container) {
    if container.engine != ContainerEngine::None {
        return;
    }
    let asked: [(&[&str], &str); 4] = [
        (&["container", "daemon"], "`[container.daemon]`"),
        (&["images"], "`[images]`"),
        (&["deploy", "deployments"], "`deploy.deployments`"),
        (&["container", "gpu-access"], "`container.gpu-access`"),
    ];
    for (path, what) in asked {
        let Some(node) = find(root, path) else { continue };
        let nothing = match &node.value {
            Value::Table(entries) => entries.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Scalar { .. } => container.gpu_access == GpuAccess::None,
        };
        if !nothing {
            let message = format!("{what} is given, but `container.engine` is \"none\"");
            d.error(&node.span, message, "no engine", "remove it, or set `engine = \"docker\"`");
        }
    }
}

/// Keys of `daemon.json` that bedplate itself decides, or that open the host.
pub(crate) fn daemon(f: &Fields<'_, '_>) {
    for entry in f.entries {
        let path = f.at(&entry.key);
        let refused = match entry.key.as_str() {
            "hosts" => Some((
                "the Docker API would listen where anyone who reaches it is root",
                "reach it over SSH instead",
            )),
            "runtimes" | "default-runtime" => {
                Some(("GPU access decides it", "set `[container] gpu-access = \"nvidia-runtime\"`"))
            }
            _ => None,
        };
        if let Some((why, hint)) = refused {
            f.d.error(&entry.key_span, format!("`{path}` cannot be set: {why}"), "refused", hint);
        }
    }
}

fn find<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    let Some((key, rest)) = path.split_first() else { return Some(node) };
    let Value::Table(entries) = &node.value else { return None };
    find(&entries.iter().find(|entry| entry.key == *key)?.node, rest)
}
