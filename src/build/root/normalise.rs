//! What a tree must not keep: all that was made by chance, by a clock, or by the making itself.

use crate::{
    error::Result,
    system::files::{FileKind, Found, FoundKind, Meta, Owner, Planter, Root},
};

/// Directories whose contents belong to a running host, or to the making.
const EMPTIED: [&str; 6] = ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp"];

/// Directories whose files are caches; the directories in them belong to packages.
const CACHES: [&str; 3] = ["/var/cache/apt", "/var/cache/ldconfig", "/var/lib/apt/lists"];

/// Files that are removed: secrets of a host, random seeds, locks, backups that tools keep of what they changed.
const REMOVED: [&str; 26] = [
    "/etc/.pwd.lock",
    "/etc/.updated",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/subgid-",
    "/etc/subuid-",
    "/etc/ssh/ssh_host_dsa_key",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ecdsa_key.pub",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_rsa_key.pub",
    "/root/.bash_history",
    "/root/.lesshst",
    "/root/.viminfo",
    "/root/.wget-hsts",
    "/var/.updated",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/passwords.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/credential.secret",
    "/var/lib/systemd/random-seed",
];

/// Files that the next run of dpkg, or of bedplate, makes again.
const REMADE: [&str; 7] = [
    "/var/lib/bedplate/lock",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers/Lock",
    "/var/lib/dpkg/status-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/statoverride-old",
];

/// Removes, empties and gives back times: afterwards nothing in the tree is newer than `time`.
///
/// # Errors
/// The tree cannot be read or changed.
pub fn normalise(root: &Root, time: i64) -> Result<()> {
    for path in EMPTIED {
        empty(root, path)?;
    }
    for path in REMOVED.iter().chain(&REMADE) {
        if root.stat(path)?.is_some_and(|stat| stat.kind != FileKind::Directory) {
            root.remove_file(path)?;
        }
    }
    // machine-id(5): an empty file is a host that has not been booted yet.
    let mut planter = Planter::new(root);
    planter.remove(b"etc/machine-id")?;
    planter.file(
        b"etc/machine-id",
        Meta { mode: 0o444, owner: Owner::ROOT, modified: time },
        &mut std::io::empty(),
    )?;
    for top in CACHES {
        for found in files_in(root, top)? {
            planter.remove(found.path.as_bytes())?;
        }
    }
    for found in files_in(root, "/var/log")? {
        if matches!(found.kind, FoundKind::File(size) if size > 0) {
            // An empty log keeps the mode and owner its package gave it.
            let meta =
                Meta { mode: found.mode, owner: Owner { uid: found.uid, gid: found.gid }, modified: time };
            planter.remove(found.path.as_bytes())?;
            planter.file(found.path.as_bytes(), meta, &mut std::io::empty())?;
        }
    }
    // Last, since removing and making change the times of directories.
    for found in root.census()? {
        if found.modified > time || found.kind == FoundKind::Directory {
            root.set_modified(&format!("/{}", found.path), time)?;
        }
    }
    Ok(())
}

/// All that is no directory beneath `top`, by path from the tree's top.
fn files_in(root: &Root, top: &str) -> Result<Vec<Found>> {
    let Some(beneath) = root.beneath(top)? else { return Ok(Vec::new()) };
    let found = beneath.census()?.into_iter().filter(|found| found.kind != FoundKind::Directory);
    let top = top.trim_start_matches('/');
    Ok(found.map(|found| Found { path: format!("{top}/{}", found.path), ..found }).collect())
}

fn empty(root: &Root, path: &str) -> Result<()> {
    if root.stat(path)?.is_none_or(|stat| stat.kind != FileKind::Directory) {
        return Ok(());
    }
    for entry in root.list(path)? {
        root.remove_tree(&format!("{path}/{}", entry.name))?;
    }
    Ok(())
}
