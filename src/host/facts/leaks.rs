//! Tokens in files that people write by hand: deployment and Compose files, `.env`, shell profiles. Bounded in depth,
//! number and size; links are not followed, other file systems not entered. A token itself is never kept.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{basics::one_line, tree::Tree};
use crate::{
    error::Result,
    profile::secrets_like,
    system::files::{FileKind, Stat},
};

/// How deep below a named directory files are looked at.
const DEPTH: usize = 4;
/// How many names are looked at below each named directory.
const NAMES: usize = 100_000;
/// How many files are read below each named directory.
const FILES: u64 = 5_000;
/// The largest file that is read, in bytes: what people write by hand is smaller.
const SIZE: u64 = 256 << 10;
/// How many findings are kept.
const FOUND: usize = 50;

/// Directories that programs fill and nobody writes by hand.
const PASSED_OVER: &[&str] = &[
    ".cache",
    ".cargo",
    ".git",
    ".local",
    ".npm",
    ".nvm",
    ".pyenv",
    ".rustup",
    ".venv",
    "__pycache__",
    "node_modules",
    "site-packages",
    "snap",
    "target",
    "venv",
];
/// Files that a shell reads at its start (bash(1), zsh(1), dash(1)).
const PROFILES: &[&str] = &[
    ".bash_aliases",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".profile",
    ".zlogin",
    ".zprofile",
    ".zshenv",
    ".zshrc",
];

/// What was found where tokens do not belong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Leaks {
    /// The directories and files that were named.
    pub asked: Vec<String>,
    /// How many of them are there.
    pub places: u64,
    /// How many files were read.
    pub files: u64,
    /// What looks like a secret: at most fifty.
    pub found: Vec<Leak>,
    /// What could not be looked at: path and why.
    pub unseen: Vec<String>,
    /// Named places below which there is more than is looked at.
    pub unfinished: Vec<String>,
}

/// A line that holds what looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// The file.
    pub path: String,
    /// Its line, from 1.
    pub line: u64,
    /// What stands there, without its value.
    pub what: String,
}

/// Looks through these directories and files.
pub(super) fn leaks(tree: &Tree, paths: &[String]) -> Leaks {
    let mut search = Search { tree, found: Leaks { asked: paths.to_vec(), ..Leaks::default() } };
    for path in paths {
        let stat = search.stat(path);
        search.found.places += u64::from(stat.is_some());
        match stat {
            Some(stat) if stat.is_dir() => {
                let whole = search.directory(path, stat.device);
                search.found.unfinished.extend((!whole).then(|| path.clone()));
            }
            Some(stat) if stat.is_file() => search.file(path, &stat, true),
            Some(stat) if stat.kind == FileKind::Link => {
                search.found.unseen.push(format!("`{path}` is a link, which is not followed"));
            }
            _ => {}
        }
    }
    search.found
}

struct Search<'t> {
    tree: &'t Tree,
    found: Leaks,
}

impl Search<'_> {
    fn stat(&mut self, path: &str) -> Option<Stat> {
        let stat = self.tree.root().stat(path);
        self.seen(path, stat).flatten()
    }

    /// What was read, or a note that it could not be.
    fn seen<T>(&mut self, path: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if self.found.unseen.len() < FOUND {
                    self.found.unseen.push(format!("`{path}`: {}", one_line(&error)));
                }
                None
            }
        }
    }

    /// Looks through a directory, what is near its top first. `false`: there is more than is looked at.
    fn directory(&mut self, top: &str, device: u64) -> bool {
        let last = self.found.files + FILES;
        let mut names = 0;
        let mut waiting = VecDeque::from([(top.trim_end_matches('/').to_owned(), 0)]);
        while let Some((path, depth)) = waiting.pop_front() {
            let listed = self.tree.root().list(&path);
            let Some(entries) = self.seen(&path, listed) else { continue };
            for entry in entries {
                names += 1;
                if names > NAMES || self.found.files >= last || self.found.found.len() >= FOUND {
                    return false;
                }
                let name = entry.name.as_str();
                let below = format!("{path}/{name}");
                if entry.is_dir {
                    if depth == DEPTH || PASSED_OVER.contains(&name) {
                        continue;
                    }
                    let stat = self.stat(&below);
                    if stat.is_some_and(|stat| stat.is_dir() && stat.device == device) {
                        waiting.push_back((below, depth + 1));
                    }
                } else if by_hand(&path, name)
                    && let Some(stat) = self.stat(&below)
                {
                    self.file(&below, &stat, false);
                }
            }
        }
        true
    }

    /// `named`: by the profile, so whatever it is called.
    fn file(&mut self, path: &str, stat: &Stat, named: bool) {
        if stat.kind != FileKind::File {
            return;
        }
        if stat.size > SIZE {
            if named {
                self.found.unfinished.push(path.to_owned());
            }
            return;
        }
        let read = self.tree.root().read(path, SIZE);
        // Gone since it was listed: nothing leaks from it.
        let Some(Some(content)) = self.seen(path, read) else { return };
        self.found.files += 1;
        let text = String::from_utf8_lossy(&content);
        for (at, line) in text.lines().enumerate() {
            if self.found.found.len() >= FOUND {
                return;
            }
            if let Some(what) = secret_in(line) {
                self.found.found.push(Leak { path: path.to_owned(), line: at as u64 + 1, what });
            }
        }
    }
}

/// Whether people write a file of this name by hand, and put tokens into it.
fn by_hand(directory: &str, name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    // Those show what belongs into another file.
    if [".example", ".sample", ".template", ".dist"].iter().any(|end| lower.ends_with(end)) {
        return false;
    }
    let end = lower.rsplit_once('.').map(|(_, end)| end);
    PROFILES.contains(&name)
        || lower.starts_with(".env")
        || matches!(end, Some("env" | "yaml" | "yml"))
        || directory.ends_with("/profile.d") && end == Some("sh")
}

/// What of a line looks like a secret, without its value.
fn secret_in(line: &str) -> Option<String> {
    if line.contains("PRIVATE KEY-----") {
        return Some("a private key".to_owned());
    }
    let bare = line.trim().trim_start_matches(['-', '#', ' ']).trim_start();
    let bare = bare.strip_prefix("export ").unwrap_or(bare).trim_start();
    let (name, value) = bare.split_once(['=', ':']).unwrap_or(("", ""));
    let name = name.trim().trim_matches(['"', '\'']);
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if is_name && !line.trim_start().starts_with('#') {
        let value = value.trim();
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        // `${NAME}` and `secret:NAME` say where it comes from.
        let refers = value.starts_with(['$', '`', '<', '&', '*', '{', '[']) || value.starts_with("secret:");
        let variable = name.replace('-', "_");
        if !refers && secrets_like::variable_is_secret(&variable, value) && says_so(&variable, value) {
            return Some(format!("the value of `{name}`"));
        }
    }
    secrets_like::holds_issued_token(line).then(|| "a token".to_owned())
}

/// A long random word is a secret where the name says so; else it may be a digest or a name. A type (OpenAPI's
/// `access_token: string`) is none.
fn says_so(name: &str, value: &str) -> bool {
    let is_type = ["string", "integer", "number", "boolean"].contains(&value);
    secrets_like::holds_issued_token(value) || !is_type && secrets_like::name_says_secret(name)
}

#[cfg(test)]
mod tests {
    use super::{by_hand, secret_in};

    #[test]
    fn a_secret_is_named_and_never_shown() {
        for (line, what) in [
            ("export HF_TOKEN=hf_abcdefghijKLMNOPqrst", "the value of `HF_TOKEN`"),
            ("  - MINER_TOKEN: \"correct-horse-battery\"", "the value of `MINER_TOKEN`"),
            ("      - API_KEY=s3cretvalue", "the value of `API_KEY`"),
            ("extra_args: [--key, sk-abcdef0123456789ABCD]", "a token"),
            ("# old: ghp_0123456789abcdefghijABCDEFGHIJ012345", "a token"),
            ("hub: hf_QzWx8EdCr5FvTgB2yHnUj7MiKoLpA9s4", "the value of `hub`"),
            ("- AKIAIOSFODNN7EXAMPLE", "a token"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ] {
            assert_eq!(secret_in(line).as_deref(), Some(what), "{line}");
        }
        for line in [
            "export HF_TOKEN=${HF_TOKEN}",
            "HF_TOKEN: secret:HF_TOKEN",
            "API_KEY=$(cat /run/secrets/key)",
            "# API_KEY=changeme",
            "TOKENIZERS_PARALLELISM=false",
            "image: vllm/vllm-openai@sha256:9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015",
            "api_key_file: /run/secrets/key",
            "model: hf_llama2_7b",
            "task: hf_dataset_v2_filtered_english",
            "region: ASIA-PACIFIC-REGION",
            "zone: ASIAPACIFICREGION1",
            "access_token: string",
            "class: sk-button-primary-Large-1",
            "PATH=$PATH:/opt/bin",
            "",
        ] {
            assert_eq!(secret_in(line), None, "{line}");
        }
    }

    #[test]
    fn files_are_chosen_by_name() {
        for name in [".env", ".env.local", "prod.env", "compose.yaml", "qwen72b.yml", ".bashrc", ".profile"] {
            assert!(by_hand("/home/miner", name), "{name}");
        }
        for name in [".env.example", "notes.txt", "x.json", "model.safetensors", "run.sh"] {
            assert!(!by_hand("/home/miner", name), "{name}");
        }
        assert!(by_hand("/etc/profile.d", "proxy.sh"));
    }
}
