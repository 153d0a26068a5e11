//! User namespaces: an ordinary user who is root of a range of ids.
//!
//! Outside, root of the namespace is the user, and every other id is one of the range that `/etc/subuid` and
//! `/etc/subgid` give (subuid(5)). What is written as root there is the user's own.

use std::{ffi::OsString, fmt, os::unix::process::CommandExt, path::Path, process::Command as Child};

use super::{
    files::{Root, exists, read_text},
    process::Command,
    users::Users,
};
use crate::error::{Error, Result};

/// How `unshare` (util-linux 2.38 or later) makes the namespace.
const MAPPED: [&str; 3] = ["--user", "--map-root-user", "--map-auto"];
/// Ids that Debian gives out, `nobody` and `nogroup` included (Debian Policy 9.2.2), less root.
const NEEDED: u64 = 65_534;
/// First id of ranges (login.defs(5), `SUB_UID_MIN`), and how many a range has.
const FIRST: u64 = 100_000;
const RANGE: u64 = 65_536;
/// Where another range of ids is, of all that there are: no distribution gives these out.
const FAR: u64 = 1 << 30;
/// Largest of the small files read here, in bytes.
const LIMIT: u64 = 16 << 20;

/// Whether this user can be root of a user namespace here, with what `confine` needs in it: mounts, processes, `/proc`.
///
/// # Errors
/// Not so: what is missing, and how it is had.
pub async fn refuse_unable() -> Result<()> {
    let tried = unshare()
        .args(MAPPED)
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--",
            "mount",
            "-t",
            "proc",
            "proc",
            "/proc",
        ])
        .run()
        .await?;
    if tried.success() {
        return Ok(());
    }
    let works = async |arguments: &[&str]| {
        let ran = unshare().args(arguments.iter().copied()).args(["--", "true"]).run().await;
        ran.is_ok_and(|output| output.success())
    };
    let number = |path: &str| read_text(Path::new(path), LIMIT).ok()?.trim().parse().ok();
    let text = |path: &str| read_text(Path::new(path), LIMIT).unwrap_or_default();
    let uid = rustix::process::getuid().as_raw();
    let users = Root::open(Path::new("/")).and_then(|host| Users::read(&host)).unwrap_or_default();
    Err(Facts {
        said: tried.stderr_tail,
        bare: possible().await,
        mapped: works(&MAPPED).await,
        helpers: ["newuidmap", "newgidmap"].iter().all(|name| exists(&Path::new("/usr/bin").join(name))),
        allowed: number("/proc/sys/kernel/unprivileged_userns_clone"),
        most: number("/proc/sys/user/max_user_namespaces"),
        restricted: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        uid,
        name: users.user_by_id(uid).map(|user| user.name.clone()),
        ranges: [text("/etc/subuid"), text("/etc/subgid")],
    }
    .error())
}

/// Which ids of a user namespace are which outside (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside, first id outside, how many.
    extents: Vec<(u64, u64, u64)>,
}

impl IdMap {
    /// The user ids of this process, `/proc/self/uid_map`; and its group ids.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn own() -> Result<[Self; 2]> {
        let read = |path| read_text(Path::new(path), LIMIT).map(|text| Self::parse(&text));
        Ok([read("/proc/self/uid_map")?, read("/proc/self/gid_map")?])
    }

    /// A map as `/proc/PID/uid_map` has it. Lines that are none are left out.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut fields = line.split_whitespace().map(str::parse);
            Some((fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?))
        };
        let mut extents: Vec<_> = text.lines().filter_map(line).collect();
        extents.sort_unstable();
        Self { extents }
    }

    /// A map for a namespace within: every id is another one there, at least those that Debian gives out, and none is
    /// lost, so that root there may still read what anyone has here. `None` where there are too few.
    pub fn swapped(&self) -> Option<Self> {
        let mut end = 0;
        for (inside, _, count) in &self.extents {
            if *inside == end {
                end += count;
            }
        }
        let extents = if end > 2 * FAR {
            vec![
                (0, FAR, RANGE),
                (RANGE, RANGE, FAR - RANGE),
                (FAR, 0, RANGE),
                (FAR + RANGE, FAR + RANGE, end - FAR - RANGE),
            ]
        } else if end > NEEDED {
            vec![(0, 1, end - 1), (end - 1, 0, 1)]
        } else {
            return None;
        };
        Some(Self { extents })
    }

    /// What an id outside is inside: `nobody`, 65534, where it is none.
    pub fn inside(&self, outside: u32) -> u32 {
        let outside = u64::from(outside);
        let found = self.extents.iter().find(|(_, first, count)| (*first..first + count).contains(&outside));
        found.and_then(|(inside, first, _)| u32::try_from(inside + (outside - first)).ok()).unwrap_or(65_534)
    }
}

/// As it is written into `/proc/PID/uid_map`.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.extents.iter().try_for_each(|(inside, outside, count)| writeln!(f, "{inside} {outside} {count}"))
    }
}

/// Whether this process can make user namespaces at all.
pub async fn possible() -> bool {
    unshare().args(["--user", "--", "true"]).run().await.is_ok_and(|output| output.success())
}

/// Becomes `program` with these arguments, as root of a user namespace: same process, same files, same terminal.
/// Returns only where that fails.
pub fn become_root(program: &Path, arguments: &[OsString]) -> Error {
    let failed = Child::new("unshare").args(MAPPED).arg("--").arg(program).args(arguments).exec();
    Error::failed("starting again as root of a user namespace (`unshare`)").because(failed)
}

fn unshare() -> Command {
    Command::new("unshare").package("util-linux").env_clean().directory("/")
}

/// What there is to know where a namespace is not to be had.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// What `unshare` said.
    said: String,
    /// A user namespace can be made, without ids.
    bare: bool,
    /// One with ids can.
    mapped: bool,
    /// `newuidmap` and `newgidmap` are installed.
    helpers: bool,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels have.
    allowed: Option<u64>,
    /// `user.max_user_namespaces` (namespaces(7)).
    most: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu's kernels have.
    restricted: Option<u64>,
    uid: u32,
    /// The user's name in `/etc/passwd`.
    name: Option<String>,
    /// `/etc/subuid` and `/etc/subgid`.
    ranges: [String; 2],
}

impl Facts {
    fn error(&self) -> Error {
        let no = |what: String, hint: String| {
            Error::failed(format!("building an image without root: {what}"))
                .hint(hint)
                .hint("or run it as root: `sudo bedplate build …`")
        };
        if self.allowed == Some(0) {
            return no(
                "this kernel lets only root make user namespaces (`kernel.unprivileged_userns_clone` is 0)"
                    .into(),
                "allow it: `sudo sysctl kernel.unprivileged_userns_clone=1`".into(),
            );
        }
        if self.most == Some(0) {
            return no(
                "no user namespaces are allowed here (`user.max_user_namespaces` is 0)".into(),
                "allow some: `sudo sysctl user.max_user_namespaces=15000`".into(),
            );
        }
        if !self.bare {
            return no(
                format!("user namespaces cannot be made here: {}", self.said),
                "a container's seccomp profile may forbid them: Docker's `--security-opt seccomp=unconfined`"
                    .into(),
            );
        }
        if !self.mapped {
            if !self.helpers {
                return no(
                    "`newuidmap` and `newgidmap` are not installed".into(),
                    "install them: `sudo apt install uidmap`".into(),
                );
            }
            if self.said.contains("unrecognized option") {
                return no(
                    "`unshare` here cannot map ranges of ids: util-linux 2.38 or later is needed".into(),
                    "Debian 12 and Ubuntu 24.04 have it".into(),
                );
            }
            let shown = self.name.clone().unwrap_or_else(|| self.uid.to_string());
            for (ranges, file, what) in
                [(&self.ranges[0], "/etc/subuid", "user"), (&self.ranges[1], "/etc/subgid", "group")]
            {
                let count = self.count(ranges);
                if count >= NEEDED {
                    continue;
                }
                let has = if count == 0 { "no".to_owned() } else { format!("a range of only {count}") };
                return no(
                    format!(
                        "user `{shown}` has {has} subordinate {what} ids in `{file}`, and {RANGE} are needed"
                    ),
                    self.grant(&shown),
                );
            }
        }
        if self.restricted == Some(1) {
            return no(
                "AppArmor takes root's rights away in user namespaces (`kernel.apparmor_restrict_unprivileged_userns` is 1)"
                    .into(),
                "allow them: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`".into(),
            );
        }
        if self.mapped {
            return no(
                format!("`/proc` cannot be mounted in a user namespace here: {}", self.said),
                "this is a container whose `/proc` is masked: Docker's `--security-opt systempaths=unconfined`, Podman's `--security-opt unmask=ALL`"
                    .into(),
            );
        }
        no(
            format!("the ids of this user cannot be mapped: {}", self.said),
            "`newuidmap` has to be set-user-id or to have its capabilities: `sudo apt install --reinstall uidmap`".into(),
        )
    }

    /// How many ids the user's first range in a file has: `unshare` takes one. Lines are `NAME-OR-UID:FIRST:COUNT`.
    fn count(&self, text: &str) -> u64 {
        let uid = self.uid.to_string();
        ranges(text)
            .find(|(who, ..)| Some(*who) == self.name.as_deref() || *who == uid)
            .map_or(0, |(_, _, count)| count)
    }

    /// The command that gives the user ids that no one has.
    fn grant(&self, user: &str) -> String {
        let taken = self
            .ranges
            .iter()
            .flat_map(|text| ranges(text))
            .map(|(_, first, count)| first.saturating_add(count));
        let first = taken.max().unwrap_or(0).max(FIRST);
        let last = first.saturating_add(RANGE - 1);
        format!(
            "give it some: `sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}`"
        )
    }
}

fn ranges(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        Some((who, fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> Facts {
        let ranges =
            ["other:100000:65536\nminer:165536:65536\n".to_owned(), "1000:165536:65536\n".to_owned()];
        let name = Some("miner".to_owned());
        Facts { bare: true, mapped: true, helpers: true, uid: 1000, name, ranges, ..Facts::default() }
    }

    #[test]
    fn each_cause_has_its_message_and_what_mends_it() {
        let unmapped = Facts { mapped: false, ..able() };
        for (facts, words, mends) in [
            (
                Facts { allowed: Some(0), bare: false, ..able() },
                "only root",
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                Facts { most: Some(0), bare: false, ..able() },
                "no user namespaces",
                "user.max_user_namespaces=15000",
            ),
            (Facts { bare: false, mapped: false, said: "EPERM".into(), ..able() }, "here: EPERM", "seccomp"),
            (Facts { helpers: false, ..unmapped.clone() }, "`newuidmap` and", "apt install uidmap"),
            (
                Facts { said: "unrecognized option".into(), ..unmapped.clone() },
                "util-linux 2.38",
                "Debian 12",
            ),
            (
                Facts { ranges: [able().ranges[0].clone(), "other:100000:65536".into()], ..unmapped.clone() },
                "user `miner` has no subordinate group ids in `/etc/subgid`",
                "usermod --add-subuids 231072-296607 --add-subgids 231072-296607 miner",
            ),
            (
                Facts { ranges: ["miner:5:1000".into(), String::new()], ..unmapped.clone() },
                "a range of only 1000 subordinate user ids",
                "--add-subuids 100000-165535",
            ),
            (
                Facts { name: None, ranges: [String::new(), String::new()], ..unmapped.clone() },
                "user `1000` has no",
                "100000-165535 1000",
            ),
            (Facts { restricted: Some(1), ..able() }, "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
            (able(), "`/proc` cannot be mounted", "systempaths=unconfined"),
            (unmapped, "cannot be mapped", "--reinstall uidmap"),
        ] {
            let error = facts.error();
            let hints = error.hints().join("\n");
            assert!(error.message().contains(words) && hints.contains(mends), "{error}: {hints}");
            assert!(hints.contains("sudo bedplate build"), "{hints}");
        }
    }

    #[test]
    fn a_namespace_within_has_other_ids_and_loses_none() {
        let all = IdMap::parse("         0          0 4294967295\n").swapped().unwrap();
        assert_eq!(
            all.to_string(),
            "0 1073741824 65536\n65536 65536 1073676288\n1073741824 0 65536\n1073807360 1073807360 3221159935\n"
        );
        for (outside, inside) in
            [(1_073_741_824, 0), (0, 1_073_741_824), (1_073_741_924, 100), (70_000, 70_000)]
        {
            assert_eq!(all.inside(outside), inside);
        }
        let some = IdMap::parse("1 100000 65536\n0 1000 1\n").swapped().unwrap();
        assert_eq!(some.to_string(), "0 1 65536\n65536 0 1\n");
        assert_eq!([some.inside(1), some.inside(101), some.inside(0)], [0, 100, 65536]);
        assert_eq!(some.inside(70_000), 65_534);
        assert_eq!(IdMap::parse("0 1000 1\n").swapped(), None);
    }

    #[test]
    fn broken_lines_are_no_ranges() {
        assert_eq!(
            ranges("# remark\na:1\nb:x:2\nc:3:4:\n\nd:5:6").collect::<Vec<_>>(),
            [("c", 3, 4), ("d", 5, 6)]
        );
    }
}
