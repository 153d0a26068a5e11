//! What a plan is made from: the host as observed, as plain data.

use std::collections::{BTreeMap, BTreeSet};

use super::{boot_entry::BootMenu, dpkg::Packages, record::Record};
use crate::digest::Digest;

/// What a run prepares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The running host.
    Host,
    /// A tree (`--root DIR`): no services, no images, no secrets.
    Tree,
}

/// Everything the planner looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct HostState {
    /// Running host or tree.
    pub target: Target,
    /// What lies at each path of [`super::paths`]. A path that is not here was not looked at.
    pub paths: BTreeMap<String, PathState>,
    /// Accounts and groups.
    pub accounts: Accounts,
    /// The Docker daemon.
    pub docker: DockerState,
    /// Images of the lock, by key.
    pub images: BTreeMap<String, ImageState>,
    /// What dpkg says. `None`: no package database was found, or nothing of it is wanted.
    pub packages: Option<Packages>,
    /// What runs.
    pub running: Running,
    /// Distribution and release, as os-release(5) has them in `ID` and `VERSION_CODENAME`; `None`: not known, or no
    /// packages are locked.
    pub os: Option<(String, String)>,
    /// Secrets of the profile and of earlier generations, by name.
    pub secrets: BTreeMap<String, SecretState>,
    /// The program at `/usr/local/bin/bedplate`.
    pub binary: BinaryState,
    /// The running kernel's command line.
    pub kernel_command_line: Option<String>,
    /// GRUB's menu. `None`: there is none, or no kernel is locked.
    pub boot_menu: Option<BootMenu>,
    /// Kernel modules that are loaded.
    pub modules: BTreeSet<String>,
    /// The current generation.
    pub current: Option<Known>,
    /// Generations that were being applied when a run was interrupted.
    pub interrupted: Vec<Known>,
    /// What the journal says an interrupted run was doing.
    pub journal: Option<String>,
    /// The number a new generation gets.
    pub next: u64,
}

/// Kernel and driver that run, as far as they are known. Nothing of them in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Running {
    /// The kernel's release, as `uname -r` says it.
    pub kernel: Option<String>,
    /// Version of NVIDIA's kernel module, where it is loaded.
    pub driver: Option<String>,
}

/// A generation, as far as a plan needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its number.
    pub number: u64,
    /// Digest of its bundle.
    pub bundle: Digest,
    /// What it owns.
    pub record: Record,
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Digest of the content.
        digest: Digest,
        /// The content, where it is small enough to be shown.
        content: Option<Vec<u8>>,
        /// Permission bits.
        mode: u32,
        /// Owning user.
        uid: u32,
        /// Owning group.
        gid: u32,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Owning user.
        uid: u32,
        /// Owning group.
        gid: u32,
        /// Names in it, where bedplate made it and may remove it.
        names: Option<BTreeSet<String>>,
    },
    /// A symbolic link.
    Link {
        /// Its target.
        target: String,
    },
    /// A device, socket or FIFO.
    Other,
}

/// Accounts and groups of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    /// Accounts, by name.
    pub users: BTreeMap<String, Account>,
    /// Groups, by name.
    pub groups: BTreeMap<String, Group>,
}

/// An account of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// A group of group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Group id.
    pub gid: u32,
    /// Supplementary members.
    pub members: BTreeSet<String>,
}

impl Accounts {
    /// The ids of `user:group`; a number stands for itself. `None` where a name is not there.
    pub fn resolve(&self, owner: &str) -> Option<(u32, u32)> {
        let (user, group) = owner.split_once(':').map_or((owner, None), |(user, group)| (user, Some(group)));
        let account = self.users.get(user);
        // `root` is 0 everywhere, also in a tree that has no accounts yet.
        let root = |name: &str| (name == "root").then_some(0);
        let uid = user.parse().ok().or(account.map(|account| account.uid)).or_else(|| root(user))?;
        let gid = match group {
            Some(name) => {
                let known = self.groups.get(name).map(|group| group.gid);
                name.parse().ok().or(known).or_else(|| root(name))?
            }
            None => account.map(|account| account.gid).or_else(|| root(user))?,
        };
        Some((uid, gid))
    }

    /// Names for ids, as `user:group`; numbers where there are none.
    pub fn names(&self, uid: u32, gid: u32) -> String {
        let user = self.users.iter().find(|(_, account)| account.uid == uid).map(|(name, _)| name.clone());
        let group = self.groups.iter().find(|(_, group)| group.gid == gid).map(|(name, _)| name.clone());
        format!("{}:{}", user.unwrap_or_else(|| uid.to_string()), group.unwrap_or_else(|| gid.to_string()))
    }
}

/// The Docker daemon, as far as a plan needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerState {
    /// It answers.
    Running,
    /// It does not: why, and what to do about it.
    Away {
        /// What was seen.
        why: String,
        /// The exact command that helps.
        hint: String,
    },
    /// Not looked at: a tree, or nothing of it is wanted.
    NotLooked,
}

/// One image of the lock on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageState {
    /// A name or id under which the locked image is there.
    pub present: Option<String>,
    /// Tags of bedplate's that name the locked image.
    pub tags: BTreeSet<String>,
    /// Its content is in the store, or in its layout on this machine: it is loaded, not pulled.
    pub at_hand: bool,
}

/// One secret on the host. Never its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SecretState {
    /// Whether this run was given a value, and if so, whether it is the one on the host.
    pub given: Given,
    /// It lies on tmpfs.
    pub present: bool,
    /// It is kept as a systemd credential.
    pub credential: bool,
    /// The host can keep credentials.
    pub can_keep: bool,
}

/// A value this run was given, against the one on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Given {
    /// None was given.
    #[default]
    No,
    /// The same.
    Same,
    /// Another one, or there is none on the host.
    Differs,
}

/// The program at `/usr/local/bin/bedplate`, against the one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryState {
    /// The same, with the right mode and owner.
    Same,
    /// Another one.
    Differs,
    /// None.
    Absent,
}
