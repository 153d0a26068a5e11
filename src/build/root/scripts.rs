//! Maintainer scripts and dpkg itself, run confined in the tree.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::package::Package;
use crate::{
    error::{Doing, Error, Result},
    system::{
        clock::Shifted,
        confine::{self, Done, Job, Orders},
        files::Root,
    },
};

/// How long all jobs of one room may take.
const LIMIT: Duration = Duration::from_hours(1);
/// With less free space, in bytes, a failed script is put down to the disk.
const ROOM: u64 = 32 << 20;
/// Lines of output shown of a job that failed.
const LINES: usize = 12;

/// A place to run the tree's programs in.
#[derive(Debug)]
pub struct Room<'a> {
    /// The tree.
    pub root: &'a Root,
    /// This program.
    pub program: &'a Path,
    /// The time that programs shall write down, in seconds since 1970 (reproducible-builds.org,
    /// `SOURCE_DATE_EPOCH`).
    pub time: i64,
    /// The architecture, in Debian's words.
    pub architecture: &'a str,
    /// The room's clock, where it is not the machine's.
    pub clock: Option<&'a Shifted>,
}

impl Room<'_> {
    /// Runs jobs with stand-ins for some of the tree's programs.
    ///
    /// # Errors
    /// There is no room to be had here, or a job failed: its name, how it ended, its last lines.
    pub async fn run(&self, jobs: Vec<Job>, stand_ins: BTreeMap<String, String>) -> Result<Vec<Done>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<String> = jobs.iter().map(|job| job.what.clone()).collect();
        let orders =
            Orders { root: self.root.path().to_path_buf(), stand_ins, jobs, clock: self.clock.cloned() };
        let output = confine::room(self.program, &orders)?.timeout(LIMIT).run().await?;
        let mut done = Vec::new();
        for line in output.text().lines() {
            done.push(serde_json::from_str::<Done>(line).doing(|| "reading what a room said")?);
        }
        let said = last_lines(&output.stderr_tail);
        if let Some(failed) = done.iter().find(|job| job.code != Some(0)) {
            let how = match (&failed.error, failed.code) {
                (Some(error), _) => format!("could not be started: {error}"),
                (None, Some(code)) => format!("failed with exit status {code}"),
                (None, None) => "was ended by a signal".to_owned(),
            };
            return Err(Error::failed(format!("{} {how}{said}", failed.what)).hint(self.hint()?));
        }
        if !output.success() || done.len() != all.len() {
            let at = all.get(done.len()).map_or("the room", String::as_str);
            return Err(Error::failed(format!(
                "running {at} confined: the room could not be made or was ended{said}"
            ))
            .hint("where that says nothing: `unshare --mount --pid --fork true` shows whether rooms can be made here, `dmesg` whether memory ran out"));
        }
        Ok(done)
    }

    /// What is to be done about a job that failed.
    fn hint(&self) -> Result<String> {
        if self.root.free_space("/")?.bytes_free < ROOM {
            let shown = self.root.path().display();
            return Ok(format!(
                "there is no space left: make room where the store is (`df -h {shown}`), or name another with `--store`"
            ));
        }
        Ok("the package of that script is at fault, or something it expects is not in the profile's packages"
            .to_owned())
    }

    /// A job of the tree: `DEBIAN_FRONTEND`, the clock and the like set.
    pub fn job(&self, what: impl Into<String>, arguments: &[&str]) -> Job {
        Job {
            what: what.into(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            environment: self.environment(),
        }
    }

    /// A package's `preinst install`, as dpkg of version `dpkg` runs it (dpkg, `maintscript_exec`; Debian Policy 6.5).
    pub fn preinst(&self, package: &Package<'_>, dpkg: &str) -> Job {
        let mut job = self.job(
            format!("`preinst` of {}", package.shown()),
            &[&format!("/var/lib/dpkg/info/{}.preinst", package.key()), "install"],
        );
        for (name, value) in [
            ("DPKG_MAINTSCRIPT_PACKAGE", package.locked.name.as_str()),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
            ("DPKG_MAINTSCRIPT_ARCH", &package.locked.architecture),
            ("DPKG_MAINTSCRIPT_NAME", "preinst"),
            ("DPKG_MAINTSCRIPT_DEBUG", "0"),
            ("DPKG_RUNNING_VERSION", dpkg),
            ("DPKG_ADMINDIR", "/var/lib/dpkg"),
            ("DPKG_ROOT", ""),
            // debconf reads whose questions these are from where dpkg keeps a script before unpacking (debconf(7)).
            ("DEBCONF_PACKAGE", package.locked.name.as_str()),
        ] {
            job.environment.insert(name.to_owned(), value.to_owned());
        }
        job
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let time = self.time.to_string();
        [
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("DPKG_ARCH", self.architecture),
            ("SOURCE_DATE_EPOCH", &time),
            ("TZ", "UTC"),
            ("TERM", "dumb"),
            ("SHELL", "/bin/sh"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            // needrestart and apt-listchanges look at the host or ask.
            ("NEEDRESTART_SUSPEND", "1"),
            ("APT_LISTCHANGES_FRONTEND", "none"),
            ("UCF_FORCE_CONFFNEW", "1"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }
}

fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(LINES);
    lines[from..].iter().map(|line| format!("\n  {line}")).collect()
}
