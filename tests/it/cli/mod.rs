//! The real binary on a command line, in a directory of its own: what it says, its exit code, what it leaves.

mod bundles;
mod carrying;
mod configuration;
pub(crate) mod disk;
mod good;
mod host;
mod init;
mod inputs;
mod kill;
mod locks;
mod profiles;
mod recorded;
mod registries;
mod secrets;
mod tree;
mod usage;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bedplate::digest::Digest;
use tempfile::TempDir;

/// What must never be printed: a value of a form that is known to be a token.
pub(crate) const TOKEN: &str = "hf_QzWx8EdCr5FvTgB2yHnUj7MiKoLpA9s4";

/// A directory with `profiles/`, `deployments/` and a home of its own.
pub(crate) struct Place {
    directory: TempDir,
}

/// What a run of the binary left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A profile of a host without GPUs, with these lines in `[images]` and this after it.
pub(crate) fn profile(images: &str, more: &str) -> String {
    format!(
        "schema = 1\n\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\narchitecture = \"amd64\"\n\
         pin-packages = false\n\n\
         [driver]\nflavor = \"none\"\n\n[container]\nengine = \"docker\"\ngpu-access = \"none\"\n\n\
         [images]\n{images}\n\n{more}\n"
    )
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for folder in ["profiles", "deployments", "home"] {
            fs::create_dir(place.at(folder)).unwrap();
        }
        place
    }

    /// One with the profile `p`, and a lock for it where it names no images.
    pub(crate) fn with(images: &str, more: &str) -> Self {
        let place = Self::new();
        place.put("profiles/p.toml", profile(images, more));
        if images.is_empty() {
            place.run(["lock", "p"]).exits(0);
        }
        place
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    pub(crate) fn put_private(&self, path: &str, content: &str) {
        self.put(path, content);
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.at(path)).unwrap().permissions().mode() & 0o7777
    }

    /// Replaces text in a file, which must hold it.
    pub(crate) fn edit(&self, path: &str, old: &str, new: &str) {
        let text = self.text(path);
        assert!(text.contains(old), "{path} has no {old:?}: {text}");
        fs::write(self.at(path), text.replacen(old, new, 1)).unwrap();
    }

    /// The user's configuration of bedplate.
    pub(crate) fn config(&self, text: &str) {
        self.put("home/.config/bedplate/config.toml", text);
    }

    /// The binary with these arguments, in this directory, with nothing but `HOME` and `PATH` in its environment.
    pub(crate) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bedplate"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("HOME", self.at("home"))
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        ran(&mut self.command(arguments))
    }

    /// Runs what must be refused: with this exit code, naming each of `says`, with a hint that holds `hint`,
    /// with nothing on standard output, and with every file as it was.
    pub(crate) fn refuses<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
        code: i32,
        says: &[&str],
        hint: &str,
    ) -> Ran {
        let before = self.snapshot();
        let ran = self.run(arguments);
        ran.is_refusal(code, says, hint);
        assert_eq!(steady(before), steady(self.snapshot()), "something changed: {ran:?}");
        ran
    }

    /// Every path below with its kind, mode, owner, time and content.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        snapshot(self.directory.path())
    }
}

/// Without the times of directories: a temporary file that came and went changes them.
fn steady(mut found: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for what in found.values_mut().filter(|what| what.starts_with("directory ")) {
        *what = what.rsplit_once(' ').unwrap().0.to_owned();
    }
    found
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        signal: output.status.signal(),
        out: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
        err: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(
            (self.code, self.signal),
            (Some(code), None),
            "{}\n--- standard output\n{}",
            self.err,
            self.out
        );
        assert!(!self.all().contains(TOKEN), "a secret was printed: {self:?}");
        assert!(!self.err.contains("panicked"), "{}", self.err);
        assert!(!self.all().contains('\u{1b}'), "styles where there is no terminal: {self:?}");
        self
    }

    /// Standard error holds `text`.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "{text:?} is not in:\n{}", self.err);
        self
    }

    /// Standard output holds `text`.
    #[track_caller]
    pub(crate) fn prints(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "{text:?} is not in:\n{}", self.out);
        self
    }

    #[track_caller]
    pub(crate) fn is_refusal(&self, code: i32, says: &[&str], hint: &str) {
        self.exits(code).says("error: ");
        for part in says {
            self.says(part);
        }
        let hints: Vec<&str> = self.err.lines().filter_map(|line| line.strip_prefix("hint: ")).collect();
        assert!(!hints.is_empty(), "there is no hint:\n{}", self.err);
        assert!(hints.iter().any(|line| line.contains(hint)), "no hint says {hint:?}:\n{}", self.err);
        assert_eq!(self.out, "", "standard output is data: {self:?}");
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}", self.out))
    }

    fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Every path below `top` with its kind, mode, owner, time and content.
pub(crate) fn snapshot(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_dir() {
                open.push(path.clone());
                "directory".to_owned()
            } else if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else if meta.file_type().is_fifo() {
                "fifo".to_owned()
            } else {
                Digest::of(fs::read(&path).unwrap()).to_string()
            };
            let name = path.strip_prefix(top).unwrap().display().to_string();
            found.insert(
                name,
                format!(
                    "{what} {:o} {}:{} {}.{:09}",
                    meta.mode() & 0o7777,
                    meta.uid(),
                    meta.gid(),
                    meta.mtime(),
                    meta.mtime_nsec()
                ),
            );
        }
    }
    found
}

/// The same numbers in every run (xorshift64*, Vigna 2016).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
