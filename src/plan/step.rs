//! One step of a plan: plain data, one line for people.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use serde_json::Value;

use super::daemon::KeyChange;
use crate::digest::Digest;

/// What happens to a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PackageChange {
    /// As apt names it: `NAME`, or `NAME:ARCHITECTURE` for a foreign one.
    pub package: String,
    /// Its version now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its version then.
    pub to: String,
    /// Which way.
    pub way: Way,
}

/// Which way a package goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// It comes.
    Install,
    /// To a newer version.
    Up,
    /// To an older version.
    Down,
    /// It is broken, and comes again.
    Again,
}

impl fmt::Display for PackageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, from, to, way } = self;
        match (way, from) {
            (Way::Up, Some(from)) => write!(f, "↑ {package} {from} → {to}"),
            (Way::Down, Some(from)) => write!(f, "↓ {package} {from} → {to}"),
            (Way::Again, _) => write!(f, "~ {package} {to} (broken; again)"),
            _ => write!(f, "+ {package} {to}"),
        }
    }
}

/// One idempotent change of the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// Finishes what dpkg was interrupted at.
    RepairPackages {
        /// The packages it was at, as apt names them.
        packages: Vec<String>,
    },
    /// Has the host's apt bring packages to their locked versions, from local files alone.
    InstallPackages {
        /// What comes and what changes.
        changes: Vec<PackageChange>,
        /// What goes.
        remove: Vec<String>,
        /// Bytes of the packages.
        size: u64,
        /// A line for each.
        #[serde(skip)]
        lines: Vec<String>,
    },
    /// Holds packages, so that nothing else moves them, and lets go of those that are no longer locked.
    HoldPackages {
        /// To hold.
        hold: Vec<String>,
        /// To let go of.
        release: Vec<String>,
    },
    /// Makes a directory.
    MakeDirectory {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// `user:group`.
        owner: String,
    },
    /// Writes a configuration file, whole, with mode and owner.
    WriteFile {
        /// Where.
        path: String,
        /// What; not part of the printed plan.
        #[serde(skip)]
        content: Vec<u8>,
        /// Its digest.
        digest: Digest,
        /// Permission bits.
        mode: u32,
        /// `user:group`.
        owner: String,
        /// What was there.
        was: Was,
        /// Unified diff of the content; empty for a private file.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        diff: Vec<String>,
    },
    /// Changes permission bits.
    SetMode {
        /// Of what.
        path: String,
        /// As they are.
        from: u32,
        /// As they shall be.
        to: u32,
    },
    /// Changes the owner.
    SetOwner {
        /// Of what.
        path: String,
        /// As it is.
        from: String,
        /// As it shall be.
        to: String,
    },
    /// Makes a symbolic link, or points it elsewhere.
    MakeLink {
        /// Where.
        path: String,
        /// Where it points to.
        target: String,
        /// Where it pointed to.
        from: Option<String>,
    },
    /// Removes a file or link that is no longer wanted.
    RemoveFile {
        /// Where.
        path: String,
    },
    /// Puts back what was there before bedplate.
    RestoreFile {
        /// Where.
        path: String,
        /// Digest of the saved content.
        digest: Digest,
        /// Permission bits.
        mode: u32,
        /// Owning user.
        uid: u32,
        /// Owning group.
        gid: u32,
    },
    /// Removes a directory that bedplate made and nothing is in any more.
    RemoveDirectory {
        /// Where.
        path: String,
    },
    /// Merges keys into Docker's configuration.
    MergeDaemon {
        /// The configuration file.
        path: String,
        /// What changes, key by key.
        changes: Vec<KeyChange>,
        /// The whole new text; `None` removes the file that bedplate made.
        #[serde(skip)]
        text: Option<String>,
        /// Digest of the text the change was planned on; `None` where there was no file.
        on: Option<Digest>,
        /// Permission bits and ids the file keeps.
        #[serde(skip)]
        keep: Option<(u32, u32, u32)>,
    },
    /// Restarts the Docker daemon, which reads its configuration only when it starts.
    RestartDocker {
        /// Whether containers go on meanwhile.
        live_restore: bool,
    },
    /// Makes a system group.
    AddGroup {
        /// Its name.
        name: String,
    },
    /// Makes an account with a home directory and a group of its own.
    AddUser {
        /// Its name.
        name: String,
    },
    /// Puts an account into a group.
    JoinGroup {
        /// The account.
        user: String,
        /// The group.
        group: String,
    },
    /// Puts a secret on tmpfs and keeps it over a reboot.
    KeepSecret {
        /// Its name.
        name: String,
        /// Whether another value is on the host.
        replaces: bool,
        /// Name of the systemd credential it is kept as; `None` where the host cannot.
        credential: Option<String>,
    },
    /// Puts a secret on tmpfs from its systemd credential.
    RestoreSecret {
        /// Its name.
        name: String,
        /// The credential.
        credential: String,
    },
    /// Removes a secret that is no longer wanted from tmpfs. Its credential stays as long as a generation
    /// names it, for a rollback; `generations gc` removes it then.
    RemoveSecret {
        /// Its name.
        name: String,
    },
    /// Pulls an image by digest, and tags it.
    PullImage {
        /// Lock key.
        key: String,
        /// `registry/repository@sha256:…`.
        reference: String,
        /// Bytes to fetch at most.
        download: u64,
        /// `bedplate/KEY:gN`.
        tag: String,
    },
    /// Loads an image from the store, or from its layout on this machine, and tags it.
    LoadImage {
        /// Lock key.
        key: String,
        /// `registry/repository@sha256:…`, or `oci:DIR@sha256:…`.
        reference: String,
        /// Bytes of its content.
        download: u64,
        /// `bedplate/KEY:gN`.
        tag: String,
    },
    /// Tags an image that is there.
    TagImage {
        /// Lock key.
        key: String,
        /// What it is known as.
        source: String,
        /// `bedplate/KEY:gN`.
        tag: String,
    },
    /// Copies the running program to its place.
    InstallBinary {
        /// Where.
        path: String,
        /// Whether another version is there.
        replaces: bool,
    },
    /// Has systemd read its units again.
    ReloadSystemd,
    /// Gives the kernel the settings of sysctl.d(5).
    ApplySysctl,
    /// Has GRUB's menu made anew.
    MakeBootMenu {
        /// The kernel that it shall start; `None`: whichever is the newest.
        kernel: Option<String>,
    },
}

/// What was at the path of a file to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Was {
    /// Nothing.
    Absent,
    /// What bedplate wrote earlier, or what was there before it.
    Known,
    /// A file of someone else: kept, and put back when bedplate gives the path up.
    Foreign,
    /// Bedplate's file, changed by hand since: that version is kept.
    ByHand,
}

impl Step {
    /// Lines below the step's own, such as a file's diff.
    pub fn detail(&self) -> &[String] {
        match self {
            Self::WriteFile { diff, .. } => diff,
            Self::InstallPackages { lines, .. } => lines,
            _ => &[],
        }
    }

    /// The path this step makes, changes or removes.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::MakeDirectory { path, .. }
            | Self::WriteFile { path, .. }
            | Self::SetMode { path, .. }
            | Self::SetOwner { path, .. }
            | Self::MakeLink { path, .. }
            | Self::RemoveFile { path }
            | Self::RestoreFile { path, .. }
            | Self::RemoveDirectory { path }
            | Self::MergeDaemon { path, .. }
            | Self::InstallBinary { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RepairPackages { packages } if packages.is_empty() => {
                write!(f, "! finish what dpkg was interrupted at")
            }
            Self::RepairPackages { packages } => write!(f, "! finish half-installed {}", packages.join(", ")),
            Self::InstallPackages { changes, remove, size, .. } => {
                write!(f, "~ packages: {} ({})", counted(changes, remove), bytes(*size))
            }
            Self::HoldPackages { hold, release } => {
                let some = |count: usize| format!("{count} package{}", if count == 1 { "" } else { "s" });
                match (hold.len(), release.len()) {
                    (held, 0) => write!(f, "! hold {}", some(held)),
                    (0, released) => write!(f, "! let go of {}", some(released)),
                    (held, released) => write!(f, "! hold {}, let go of {released}", some(held)),
                }
            }
            Self::MakeDirectory { path, mode, owner } => write!(f, "+ directory {path} {mode:04o} {owner}"),
            Self::WriteFile { path, mode, owner, was, .. } => match was {
                Was::Absent => write!(f, "+ file {path} {mode:04o} {owner}"),
                Was::Known => write!(f, "~ file {path} {mode:04o} {owner}"),
                Was::Foreign => write!(f, "~ file {path} {mode:04o} {owner} (was there before; kept)"),
                Was::ByHand => {
                    write!(f, "~ file {path} {mode:04o} {owner} (changed by hand; that version is kept)")
                }
            },
            Self::SetMode { path, from, to } => write!(f, "~ mode {path} {from:04o} → {to:04o}"),
            Self::SetOwner { path, from, to } => write!(f, "~ owner {path} {from} → {to}"),
            Self::MakeLink { path, target, from: None } => write!(f, "+ link {path} → {target}"),
            Self::MakeLink { path, target, from: Some(from) } => {
                write!(f, "~ link {path} → {target} (was {from})")
            }
            Self::RemoveFile { path } => write!(f, "- file {path}"),
            Self::RestoreFile { path, mode, .. } => {
                write!(f, "~ file {path} {mode:04o} (back to what was there before bedplate)")
            }
            Self::RemoveDirectory { path } => write!(f, "- directory {path}"),
            Self::MergeDaemon { path, changes, text, .. } => {
                let shown: Vec<String> = changes.iter().map(ToString::to_string).collect();
                let mark = if text.is_some() { "~" } else { "-" };
                write!(f, "{mark} {path}: {}", shown.join(", "))
            }
            Self::RestartDocker { live_restore: true } => {
                write!(f, "! restart docker (containers go on: live-restore)")
            }
            Self::RestartDocker { live_restore: false } => {
                write!(f, "! restart docker (its containers stop: live-restore is off)")
            }
            Self::AddGroup { name } => write!(f, "+ group {name}"),
            Self::AddUser { name } => write!(f, "+ user {name}"),
            Self::JoinGroup { user, group } => write!(f, "~ user {user}: joins group {group}"),
            Self::KeepSecret { name, replaces, credential } => {
                let mark = if *replaces { "~" } else { "+" };
                let kept = if credential.is_some() { "" } else { " (until the next reboot)" };
                write!(f, "{mark} secret {name}{kept}")
            }
            Self::RestoreSecret { name, .. } => write!(f, "+ secret {name} (from its credential)"),
            Self::RemoveSecret { name } => write!(f, "- secret {name}"),
            Self::PullImage { key, reference, download, .. } => {
                write!(f, "+ image {key} {reference} ({})", bytes(*download))
            }
            Self::LoadImage { key, reference, download, .. } => {
                write!(f, "+ image {key} {reference} (at hand, {})", bytes(*download))
            }
            Self::TagImage { tag, .. } => write!(f, "+ image tag {tag}"),
            Self::InstallBinary { path, replaces } => {
                write!(f, "{} program {path}", if *replaces { "~" } else { "+" })
            }
            Self::ReloadSystemd => write!(f, "! systemctl daemon-reload"),
            Self::ApplySysctl => write!(f, "! apply the kernel settings of sysctl.d"),
            Self::MakeBootMenu { kernel: Some(kernel) } => write!(f, "! update-grub: kernel {kernel} starts"),
            Self::MakeBootMenu { kernel: None } => write!(f, "! update-grub: the newest kernel starts"),
        }
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.join(".");
        let show = |value: &Value| value.to_string();
        match (&self.from, &self.to) {
            (None, Some(to)) => write!(f, "{key}: {} (new)", show(to)),
            (Some(from), Some(to)) => write!(f, "{key}: {} → {}", show(from), show(to)),
            (Some(from), None) => write!(f, "{key}: {} (taken away)", show(from)),
            (None, None) => f.write_str(&key),
        }
    }
}

/// `3 installed, 1 upgraded`.
fn counted(changes: &[PackageChange], remove: &[String]) -> String {
    let count = |wanted: Way| changes.iter().filter(|change| change.way == wanted).count();
    [
        (count(Way::Install), "installed"),
        (count(Way::Up), "upgraded"),
        (count(Way::Down), "downgraded"),
        (count(Way::Again), "installed again"),
        (remove.len(), "removed"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect::<Vec<_>>()
    .join(", ")
}

/// A size for people, in decimal units.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// The tag that keeps an image for a generation: `bedplate/KEY:gN`. A key that Docker does not take as a
/// repository name is written in its letters, with a part of its digest so that no two become one.
pub fn image_tag(key: &str, generation: u64) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = key.starts_with(plain)
        && key.ends_with(plain)
        && key.chars().all(|c| plain(c) || c == '-' || c == '.')
        && !key.contains("..")
        && !key.contains(".-")
        && !key.contains("-.");
    if valid {
        return format!("bedplate/{key}:g{generation}");
    }
    let words: Vec<String> = key
        .to_lowercase()
        .split(|c: char| !plain(c))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    format!(
        "bedplate/{}:g{generation}",
        [words.join("-"), Digest::of(key).short()].join("-").trim_start_matches('-')
    )
}

/// Every directory above `path`, outermost first, without `/`.
pub(super) fn ancestors(path: &str) -> Vec<&str> {
    path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).collect()
}

/// The names of `set` that do not begin with a path in `gone`.
pub(super) fn left_in(path: &str, names: &BTreeSet<String>, gone: &BTreeSet<String>) -> usize {
    names.iter().filter(|name| !gone.contains(&format!("{path}/{name}"))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_names_docker_takes_and_never_clash() {
        assert_eq!(image_tag("vllm", 3), "bedplate/vllm:g3");
        assert_eq!(image_tag("a.b-c", 3), "bedplate/a.b-c:g3");
        assert!(image_tag("My Agent", 1).starts_with("bedplate/my-agent-"));
        assert_ne!(image_tag("a_b", 1), image_tag("a/b", 1));
        assert_ne!(image_tag("A", 1), image_tag("a", 1));
        assert!(!image_tag("///", 1).contains("/-"));
    }

    #[test]
    fn ancestors_are_outermost_first() {
        assert_eq!(ancestors("/a/b/c"), ["/a", "/a/b"]);
        assert!(ancestors("/a").is_empty());
    }
}
