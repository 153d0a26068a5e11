//! A repository of local files: the locked packages from the store, and an index made of what they say of
//! themselves.

use std::{collections::BTreeMap, fs::File};

use super::{APT, REPOSITORY};
use crate::{
    apt::deb,
    error::{Doing as _, Error, Result},
    host::layout::STATE,
    lock::LockedPackage,
    store::Store,
    system::files::{Owner, Root},
};

/// The index, within the repository.
const INDEX: &str = "Packages";
/// Fields that an index adds, so that no package can say them of itself.
const OURS: [&str; 7] = ["filename", "size", "md5sum", "sha1", "sha256", "sha512", "status"];

/// What a repository was made of.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Room that each package takes once installed, in KiB, by the name apt uses.
    pub(super) installed: BTreeMap<String, u64>,
}

/// Makes the repository anew, of these packages, by the name apt uses. On the host its files are links into the store; a
/// tree gets copies, since the store lies outside.
///
/// # Errors
/// A package is not in the store, is corrupt, or is not what the lock says.
pub(super) fn make(root: &Root, store: &Store, packages: &BTreeMap<&str, &LockedPackage>) -> Result<Made> {
    let owner = Owner::current();
    root.remove_tree(APT)?;
    root.make_dir(STATE, 0o700, owner)?;
    for folder in [APT, REPOSITORY] {
        root.make_dir(folder, 0o700, owner)?;
    }
    for folder in ["lists/partial", "cache/archives/partial"] {
        root.make_dir(&format!("{APT}/{folder}"), 0o700, owner)?;
    }
    let mut made = Made::default();
    let (mut index, mut preferences) = (String::new(), String::new());
    for (key, package) in packages {
        let what = || format!("taking package `{}` {} from the store", package.name, package.version);
        let mut file = store.open_verified(&package.sha256).doing(what)?;
        let stanza = deb::control_stanza(&mut file).doing(what)?;
        hold_against(package, &stanza)?;
        let name = file_name(package);
        let path = format!("{REPOSITORY}/{name}");
        if root.is_host() {
            root.symlink(&store.path(&package.sha256).to_string_lossy(), &path)?;
        } else {
            copy(root, store, package, &path).doing(what)?;
        }
        made.installed.insert((*key).to_owned(), number(&stanza, "installed-size"));
        index.push_str(&in_index(&stanza));
        let LockedPackage { version, size, sha256, .. } = package;
        // Else the candidate of a package that is there in a newer version is that one, of which there is no file: a downgrade that
        // was cut while it was unpacked could never be finished (apt_preferences(5): above 1000, a downgrade too).
        preferences.push_str(&format!("Package: {key}\nPin: version {version}\nPin-Priority: 1001\n\n"));
        index.push_str(&format!("Filename: ./{name}\nSize: {size}\nSHA256: {}\n\n", sha256.hex()));
    }
    root.write(&format!("{REPOSITORY}/{INDEX}"), index.as_bytes(), 0o600, owner)?;
    root.write(&format!("{APT}/preferences"), preferences.as_bytes(), 0o600, owner)?;
    let sources = format!("deb [trusted=yes] file:{REPOSITORY} ./\n");
    root.write(&format!("{APT}/sources.list"), sources.as_bytes(), 0o600, owner)?;
    Ok(made)
}

fn copy(root: &Root, store: &Store, package: &LockedPackage, path: &str) -> Result<()> {
    let mut file: File = store.open_verified(&package.sha256)?;
    root.write_from(path, &mut file, 0o600, Owner::current()).map(drop)
}

/// What the package says of itself must be what the lock says of it.
fn hold_against(package: &LockedPackage, stanza: &str) -> Result<()> {
    for (field, locked) in
        [("package", &package.name), ("version", &package.version), ("architecture", &package.architecture)]
    {
        let says = value(stanza, field).unwrap_or_default();
        if says != locked {
            return Err(Error::failed(format!(
                "the package locked as `{}` {} ({}) says of itself that its {field} is `{}`",
                package.name,
                package.version,
                package.architecture,
                says.escape_debug()
            ))
            .hint(format!(
                "its archive or its lock is wrong; lock it again: `bedplate lock --update package:{}`",
                package.name
            )));
        }
    }
    Ok(())
}

/// The value of a field's first line.
fn value<'s>(stanza: &'s str, field: &str) -> Option<&'s str> {
    stanza.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(field).then(|| value.trim())
    })
}

fn number(stanza: &str, field: &str) -> u64 {
    value(stanza, field).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The stanza without fields that only an index may say, each line ended.
fn in_index(stanza: &str) -> String {
    let mut text = String::with_capacity(stanza.len());
    let mut leave_out = false;
    for line in stanza.lines() {
        if !line.starts_with([' ', '\t']) {
            let name = line.split(':').next().unwrap_or_default();
            leave_out = OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours));
        }
        if !leave_out {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// `NAME_VERSION_ARCHITECTURE.deb`, of characters that mean nothing in an address.
fn file_name(package: &LockedPackage) -> String {
    let name = format!("{}_{}_{}", package.name, package.version, package.architecture);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "+-._~".contains(c) { c } else { '-' };
    format!("{}.deb", name.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn package(version: &str) -> LockedPackage {
        LockedPackage {
            repository: "debian".into(),
            name: "a".into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256: Digest::of("x"),
            size: 1,
            path: "a.deb".into(),
            depends: Vec::new(),
            wanted_by: Vec::new(),
        }
    }

    #[test]
    fn what_a_package_says_is_held_against_the_lock() {
        let stanza = "Package: a\nVersion: 1\nArchitecture: amd64\n";
        assert!(hold_against(&package("1"), stanza).is_ok());
        let error = hold_against(&package("2"), stanza).unwrap_err();
        assert!(error.message().contains("says of itself that its version is `1`"), "{error:?}");
    }

    #[test]
    fn an_index_says_its_own_fields() {
        let stanza = "Package: a\nFilename: /etc/passwd\nSHA256: 0\n more\nDescription: x\n y\n";
        assert_eq!(in_index(stanza), "Package: a\nDescription: x\n y\n");
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(file_name(&package("1:2.0+b~1/..")), "a_1-2.0+b~1-.._amd64.deb");
    }
}
