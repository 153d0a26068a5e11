//! Running the host's own apt and dpkg, in a tree through chroot(8), with nothing but local files to read from.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{APT, failure};
use crate::{
    error::{Error, Result},
    progress::{Event, Progress},
    system::{files::Root, process::Command},
};

/// How long packages may take: modules are built and initial file systems made meanwhile.
const LONG: Duration = Duration::from_hours(3);
/// How long apt may take to look.
const LOOK: Duration = Duration::from_mins(10);
/// How long another apt or dpkg is waited for.
const WAIT: Duration = Duration::from_mins(5);
/// Lines of output that are kept for an error.
const KEPT: usize = 60;

/// Mounts what maintainer scripts cannot do without in a mount namespace of its own, which ends with the command, then
/// goes into the tree: `/proc`, and of `/dev` only what no disk hangs on. Its processes have a namespace too: in a user
/// namespace no other `/proc` can be mounted (user_namespaces(7)).
const ENTER: &str = r#"set -e
root=$1; shift
mkdir -p "$root/proc" "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755,size=1m dev "$root/dev"
for name in null zero full random urandom tty; do
  : >"$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
exec chroot "$root" "$@"
"#;

/// A program of the host or tree, with a clean environment in which nothing asks questions.
fn command(root: &Root, program: &str) -> Command {
    let command = if root.is_host() {
        Command::new(program)
    } else {
        let tree = root.path().to_string_lossy().into_owned();
        Command::new("unshare")
            .package("util-linux")
            .args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--", "sh", "-c", ENTER, "sh"])
            .arg(tree)
            .arg(program)
    };
    command
        .env_clean()
        .directory("/")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        .env("APT_LISTCHANGES_FRONTEND", "none")
        .env("NEEDRESTART_MODE", "l")
        .env("UCF_FORCE_CONFFOLD", "1")
}

/// Gives a program its standard output a second time, as descriptor 3. apt closes the one that its status goes to for
/// what it starts: were that 1, dpkg and every script would have none, and what they open next would become theirs.
const DOUBLED: &str = r#"exec "$@" 3>&1"#;

/// apt-get with a state of its own: no source but the local repository, no cache of the host's.
fn apt_get(root: &Root) -> Command {
    let mut command = command(root, "sh").args(["-c", DOUBLED, "sh", "apt-get"]);
    for (name, value) in [
        ("Dir::Etc::sourcelist", format!("{APT}/sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferences", format!("{APT}/preferences")),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("Dir::State::lists", format!("{APT}/lists")),
        ("Dir::Cache", format!("{APT}/cache")),
        ("Dir::Cache::pkgcache", String::new()),
        ("Dir::Cache::srcpkgcache", String::new()),
        ("APT::Default-Release", String::new()),
        // The store is root's alone, and nothing comes from a network.
        ("APT::Sandbox::User", "root".to_owned()),
        ("APT::Get::AutomaticRemove", "false".to_owned()),
        ("APT::Get::Show-User-Simulation-Note", "false".to_owned()),
        ("APT::Get::Fix-Broken", "true".to_owned()),
        ("APT::Install-Suggests", "false".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        ("DPkg::Lock::Timeout", WAIT.as_secs().to_string()),
        ("Dpkg::Use-Pty", "false".to_owned()),
        ("Dpkg::Options::", "--force-confdef".to_owned()),
        ("Dpkg::Options::", "--force-confold".to_owned()),
    ] {
        command = command.arg("-o").arg(format!("{name}={value}"));
    }
    command.args([
        "--quiet",
        "--assume-yes",
        "--no-install-recommends",
        "--allow-downgrades",
        "--allow-change-held-packages",
    ])
}

/// What apt is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    /// `NAME=VERSION` and `NAME-`.
    pub(super) words: Vec<String>,
    /// Something goes.
    pub(super) removes: bool,
    /// Something broken comes again.
    pub(super) again: bool,
}

impl Ask {
    fn command(&self, root: &Root) -> Command {
        let mut command = apt_get(root);
        if !self.removes {
            command = command.arg("--no-remove");
        }
        if self.again {
            command = command.arg("--reinstall");
        }
        command
    }
}

/// Has apt read the local repository.
pub(super) async fn update(root: &Root) -> Result<()> {
    let output = apt_get(root).arg("update").timeout(LOOK).run().await?;
    if output.success() {
        return Ok(());
    }
    Err(failure::apt("reading the local repository", &output.text(), &output.stderr_tail))
}

/// What apt would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Simulated {
    /// Packages that come or change, with their versions then.
    pub(super) install: BTreeMap<String, String>,
    /// Packages that go.
    pub(super) remove: BTreeSet<String>,
}

/// Asks apt what it would do, changing nothing.
pub(super) async fn simulate(root: &Root, ask: &Ask) -> Result<Simulated> {
    // What would go is for us to say: apt names it only where it may.
    let free = Ask { removes: true, ..ask.clone() };
    let output = free
        .command(root)
        .args(["--simulate", "install"])
        .args(ask.words.clone())
        .timeout(LOOK)
        .run()
        .await?;
    if output.success() {
        return Ok(Simulated::parse(&output.text()));
    }
    Err(failure::apt("planning with apt", &output.text(), &output.stderr_tail)
        .hint("nothing was changed; see what is broken: `apt-get check`, `dpkg --audit`"))
}

impl Simulated {
    /// Reads what `apt-get --simulate` prints: `Inst NAME [OLD] (NEW …)`, `Remv NAME [OLD]`.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("Inst"), Some(name)) => {
                    let version = line.split_once('(').map_or("", |(_, rest)| rest);
                    let version = version.split([' ', ')']).next().unwrap_or_default();
                    found.install.insert(name.to_owned(), version.to_owned());
                }
                (Some("Remv" | "Purg"), Some(name)) => drop(found.remove.insert(name.to_owned())),
                _ => {}
            }
        }
        found
    }
}

/// Has apt do it, telling how far it is.
pub(super) async fn install(root: &Root, ask: &Ask, progress: &dyn Progress, task: &str) -> Result<()> {
    let command = ask.command(root).args(["-o", "APT::Status-Fd=3", "install"]).args(ask.words.clone());
    let mut running = command.timeout(LONG).stream()?;
    let mut kept: VecDeque<String> = VecDeque::new();
    while let Some(line) = running.next_line().await? {
        if let Some((percent, note)) = status(&line) {
            progress.event(Event::Advanced {
                task: task.into(),
                done: percent,
                total: Some(100),
                note: Some(note.into()),
            });
        } else if !line.trim().is_empty() && !is_status(&line) {
            tracing::debug!("apt: {line}");
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    }
    let output = running.finish().await?;
    if output.success() {
        return Ok(());
    }
    let text = kept.into_iter().collect::<Vec<_>>().join("\n");
    Err(failure::apt("installing packages", &text, &output.stderr_tail))
}

/// A line of apt's status: `pmstatus:PACKAGE:PERCENT:DESCRIPTION` (apt's `README.progress-reporting`).
fn status(line: &str) -> Option<(u64, String)> {
    let mut parts = line.strip_prefix("pmstatus:")?.splitn(3, ':');
    let _package = parts.next()?;
    let (percent, note) = (parts.next()?, parts.next()?);
    let whole = |number: &str| number.split('.').next()?.parse::<u64>().ok();
    let (percent, note) = match whole(percent) {
        Some(percent) => (percent, note),
        // A foreign package has a colon in its name.
        None => note.split_once(':').and_then(|(percent, note)| Some((whole(percent)?, note)))?,
    };
    Some((percent.min(100), note.to_owned()))
}

fn is_status(line: &str) -> bool {
    ["pmstatus:", "dlstatus:", "pmerror:", "pmconffile:", "media-change:", "pmrecover:"]
        .iter()
        .any(|prefix| line.starts_with(prefix))
}

/// Configures what is unpacked and not configured; false: something could not be, and why.
pub(super) async fn configure(root: &Root) -> Result<std::result::Result<(), Error>> {
    let dpkg = || {
        command(root, "dpkg").args(["--force-confdef", "--force-confold", "--configure", "-a"]).timeout(LONG)
    };
    let output = unlocked(dpkg).await?;
    if output.success() {
        return Ok(Ok(()));
    }
    Ok(Err(failure::apt("finishing what dpkg was interrupted at", &output.text(), &output.stderr_tail)))
}

/// Sets selections: `NAME:ARCHITECTURE hold`.
pub(super) async fn select(root: &Root, lines: &str) -> Result<()> {
    let dpkg =
        || command(root, "dpkg").arg("--set-selections").stdin_bytes(lines.as_bytes().to_vec()).timeout(LOOK);
    unlocked(dpkg).await?.check().map(drop)
}

/// Runs dpkg, waiting for whoever holds its lock: it does not wait by itself.
async fn unlocked(command: impl Fn() -> Command) -> Result<crate::system::process::Output> {
    let until = tokio::time::Instant::now() + WAIT;
    loop {
        let output = command().run().await?;
        let locked = !output.success() && output.stderr_tail.contains("locked by another process");
        if !locked || tokio::time::Instant::now() >= until {
            return Ok(output);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_would_do() {
        let text = "Reading package lists...\nRemv old [1.0] [a:amd64 ]\nInst a [1.0] (2.0+b1 localhost [amd64]) []\n\
                    Inst lib:i386 (1:3-1 localhost [i386])\nConf a (2.0+b1 localhost [amd64])\nInst\n";
        let found = Simulated::parse(text);
        let install: Vec<_> = found.install.iter().map(|(name, version)| (&**name, &**version)).collect();
        assert_eq!(install, [("a", "2.0+b1"), ("lib:i386", "1:3-1")]);
        assert_eq!(found.remove.into_iter().collect::<Vec<_>>(), ["old"]);
    }

    #[test]
    fn reads_how_far_apt_is() {
        assert_eq!(
            status("pmstatus:a:33.3333:Unpacking a (amd64)"),
            Some((33, "Unpacking a (amd64)".into()))
        );
        assert_eq!(status("pmstatus:a:i386:50:Configuring a: b"), Some((50, "Configuring a: b".into())));
        assert_eq!(status("pmstatus:dpkg-exec:100.0:Running dpkg"), Some((100, "Running dpkg".into())));
        for other in ["pmstatus:a", "pmstatus:a:x:y", "Setting up a", "dlstatus:1:2:3"] {
            assert_eq!(status(other), None);
        }
        assert!(is_status("dlstatus:1:2:3") && !is_status("Unpacking"));
    }
}
