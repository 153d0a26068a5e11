//! The paths a profile wants on the host, with what shall be there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Inputs, boot_entry, daemon,
    record::{OwnedKind, Record},
    state::Accounts,
    step::ancestors,
};
use crate::{
    error::{Error, Result},
    profile::{FileContent, User},
};

/// Kernel module configuration (modprobe.d(5)).
pub const MODPROBE: &str = "/etc/modprobe.d/bedplate.conf";
/// The program's place on a host.
pub const BINARY: &str = "/usr/local/bin/bedplate";
/// The unit that brings secrets, checks and deployments back after a boot.
pub const UNIT: &str = "/etc/systemd/system/bedplate-boot.service";
/// The link that enables the unit.
pub const UNIT_ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/bedplate-boot.service";

const UNIT_TEXT: &str = "\
# Written by bedplate; a change made here is overwritten by the next `bedplate provision`.
[Unit]
Description=Secrets, checks and deployments of this host, in this order
After=docker.service network-online.target
Wants=network-online.target
ConditionPathExists=/var/lib/bedplate/current

[Service]
Type=oneshot
ExecStart=/usr/local/bin/bedplate boot
RemainAfterExit=yes
TimeoutStartSec=infinity
UMask=0077
LimitCORE=0
KeyringMode=private
LockPersonality=yes
RestrictRealtime=yes

[Install]
WantedBy=multi-user.target
";

/// When a path's turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Kernel,
    Files,
    Boot,
}

/// One path and what shall be there.
#[derive(Debug, Clone)]
pub(super) struct WantedPath {
    pub(super) group: Group,
    pub(super) kind: WantedKind,
    pub(super) mode: u32,
    pub(super) owner: String,
}

#[derive(Debug, Clone)]
pub(super) enum WantedKind {
    /// A directory that holds state.
    Mount,
    /// A configuration file with this content.
    File(Vec<u8>),
    /// A file that is not ours: only its mode is, and only while it is there.
    ModeOnly,
    /// A link to this target.
    Link(String),
}

/// All wanted paths, and directories that are made (with mode and owner) only where they are missing.
#[derive(Debug, Default)]
pub(super) struct WantedPaths {
    pub(super) paths: BTreeMap<String, WantedPath>,
    pub(super) missing_directories: BTreeMap<String, (u32, String)>,
    /// Home directories that come with accounts this plan makes.
    pub(super) homes: BTreeSet<String>,
}

pub(super) fn wanted(inputs: &Inputs, accounts: &Accounts) -> Result<WantedPaths> {
    let profile = inputs.profile;
    let mut out = WantedPaths::default();
    let root = || "root:root".to_owned();
    if let Some(text) = modprobe(inputs) {
        out.add(MODPROBE, Group::Kernel, WantedKind::File(text.into_bytes()), 0o644, root())?;
    }
    if let Some(kernel) = boot_entry::kernel(inputs)? {
        let text = boot_entry::text(kernel).into_bytes();
        out.add(boot_entry::GRUB_DEFAULT, Group::Kernel, WantedKind::File(text), 0o644, root())?;
    }
    for mount in &profile.mounts {
        out.add(&mount.path, Group::Files, WantedKind::Mount, mount.mode, mount.owner.clone())?;
        for (name, mode) in &mount.files {
            let path = format!("{}/{name}", mount.path);
            out.add(&path, Group::Files, WantedKind::ModeOnly, *mode, mount.owner.clone())?;
        }
    }
    for file in &profile.files {
        let content = match &file.content {
            FileContent::Inline(text) if text.ends_with('\n') || text.is_empty() => text.clone().into_bytes(),
            FileContent::Inline(text) => format!("{text}\n").into_bytes(),
            FileContent::Source(path) => inputs
                .sources
                .get(path)
                .ok_or_else(|| {
                    Error::failed(format!("the bundle lacks `{path}`, the source of `{}`", file.path))
                })?
                .clone(),
        };
        out.add(&file.path, Group::Files, WantedKind::File(content), file.mode, file.owner.clone())?;
    }
    for user in &profile.users {
        out.keys(user, accounts)?;
    }
    out.add(UNIT, Group::Boot, WantedKind::File(UNIT_TEXT.into()), 0o644, root())?;
    out.add(UNIT_ENABLED, Group::Boot, WantedKind::Link(UNIT.to_owned()), 0o777, root())?;
    Ok(out)
}

impl WantedPaths {
    fn add(&mut self, path: &str, group: Group, kind: WantedKind, mode: u32, owner: String) -> Result<()> {
        if path == daemon::PATH {
            return Err(Error::usage(format!("`{path}` is merged key by key, never written whole"))
                .hint("write its keys under `[container.daemon]` instead of a `[[file]]`"));
        }
        if ["/var/lib/bedplate", "/run/bedplate"]
            .iter()
            .any(|own| path == *own || path.starts_with(&format!("{own}/")))
            || path == BINARY
        {
            return Err(Error::usage(format!("`{path}` is bedplate's own")).hint("choose another path"));
        }
        let wanted = WantedPath { group, kind, mode, owner };
        if self.paths.insert(path.to_owned(), wanted).is_some() {
            return Err(Error::usage(format!("`{path}` is asked for twice"))
                .hint("keep one of the `[[file]]`, `[[mount]]` and `[[user]]` entries that name it"));
        }
        Ok(())
    }

    fn keys(&mut self, user: &User, accounts: &Accounts) -> Result<()> {
        let account = accounts.users.get(&user.name);
        let home = account.map_or_else(|| format!("/home/{}", user.name), |account| account.home.clone());
        if account.is_none() {
            self.homes.insert(home.clone());
        }
        if user.authorized_keys.is_empty() {
            return Ok(());
        }
        let group = account.map_or_else(|| user.name.clone(), |account| account.gid.to_string());
        let owner = format!("{}:{group}", user.name);
        let text = user.authorized_keys.iter().fold(String::new(), |text, key| text + key + "\n");
        self.missing_directories.insert(home.clone(), (0o700, owner.clone()));
        self.missing_directories.insert(format!("{home}/.ssh"), (0o700, owner.clone()));
        let path = format!("{home}/.ssh/authorized_keys");
        self.add(&path, Group::Files, WantedKind::File(text.into_bytes()), 0o600, owner)
    }
}

fn modprobe(inputs: &Inputs) -> Option<String> {
    let kernel = &inputs.profile.kernel;
    if kernel.blacklist.is_empty() && kernel.options.is_empty() {
        return None;
    }
    let mut text =
        "# Written by bedplate; a change made here is overwritten by the next `bedplate provision`.\n"
            .to_owned();
    for module in &kernel.blacklist {
        text.extend(["blacklist ", module, "\n"]);
    }
    for (module, options) in &kernel.options {
        text.extend(["options ", module, " ", options, "\n"]);
    }
    Some(text)
}

/// Every path to be looked at for a plan: what is wanted, what `records` own, and all above them, each after
/// the directories it is in; true where the content matters. What lies in a mount is state: it is never read.
pub(super) fn looked_at<'a>(
    inputs: &Inputs,
    accounts: &Accounts,
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<BTreeMap<String, bool>> {
    let wanted = wanted(inputs, accounts)?;
    let mut all: BTreeMap<String, bool> = wanted
        .paths
        .into_iter()
        .map(|(path, wanted)| (path, matches!(wanted.kind, WantedKind::File(_))))
        .collect();
    for record in records {
        for (path, owned) in &record.paths {
            *all.entry(path.clone()).or_default() |= owned.kind == OwnedKind::File;
        }
    }
    all.insert(daemon::PATH.to_owned(), true);
    all.entry(BINARY.to_owned()).or_default();
    let above: Vec<String> = all
        .keys()
        .chain(wanted.missing_directories.keys())
        .flat_map(|path| ancestors(path).into_iter().chain([path.as_str()]))
        .map(str::to_owned)
        .collect();
    for path in above {
        all.entry(path).or_default();
    }
    Ok(all)
}
