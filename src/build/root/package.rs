//! What a package's control files say, as far as unpacking and configuring it needs that.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use crate::{
    apt::{
        control,
        deb::{self, Member, Sink},
        relation,
    },
    digest::Hasher,
    error::{Doing, Error, Result},
    lock::LockedPackage,
    store::Store,
};

/// A package of the lock, its control files read.
#[derive(Debug)]
pub struct Package<'l> {
    /// The lock's entry.
    pub locked: &'l LockedPackage,
    /// The stanza, a field or continuation a line, without an empty line at its end.
    pub stanza: String,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Multi-Arch: same`: dpkg's files of it carry the architecture in their names.
    pub same: bool,
    /// Names in `Pre-Depends`, any alternative.
    pub pre_depends: BTreeSet<String>,
    /// `Replaces`, as it stands in the stanza.
    replaces: String,
    /// Configuration files, in the package's order.
    pub conffiles: Vec<Conffile>,
    /// Every other control file by name: scripts, `md5sums`, `triggers`, `shlibs`.
    pub files: BTreeMap<String, ControlFile>,
    /// When its control files were last changed, in seconds since 1970: when it was built.
    pub built: i64,
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conffile {
    /// Its path, from `/`.
    pub path: String,
    /// The package does not have it any more: an upgrade removes it (deb-conffiles(5), `remove-on-upgrade`).
    pub removed: bool,
}

/// A control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// Permission bits.
    pub mode: u32,
    /// Its content.
    pub content: Vec<u8>,
    /// Last change, in seconds since 1970.
    pub modified: i64,
}

impl Package<'_> {
    /// What dpkg's files of this package are named by: the name, with the architecture where several may be installed
    /// together (dpkg, `pkg_name` with `pnaw_nonambig`).
    pub fn key(&self) -> String {
        if self.same {
            format!("{}:{}", self.locked.name, self.locked.architecture)
        } else {
            self.locked.name.clone()
        }
    }

    /// Whether it may take files of `other`, in the version that is locked (Debian Policy 7.6.1).
    pub fn replaces(&self, other: &Package<'_>) -> bool {
        let relations = relation::parse(&self.replaces).unwrap_or_default();
        let fits = |relation: &relation::Relation<'_>| {
            relation.name == other.locked.name && relation.admits(&other.locked.version)
        };
        relations.iter().flatten().any(fits)
    }

    /// `NAME VERSION`, for messages.
    pub fn shown(&self) -> String {
        format!("{} {}", self.locked.name, self.locked.version)
    }
}

#[derive(Default)]
struct Control {
    files: BTreeMap<String, ControlFile>,
}

impl Sink for Control {
    fn wants(&self, _: &str) -> bool {
        true
    }

    fn control(&mut self, name: &str, member: &Member, content: Vec<u8>) -> Result<()> {
        let file = ControlFile { mode: member.mode & 0o777, content, modified: member.modified };
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    fn member(&mut self, _: &Member, _: &mut dyn Read) -> Result<()> {
        Ok(())
    }
}

/// Reads a package's control files from the store.
///
/// # Errors
/// The store does not have the package, or it cannot be read. Its digest is not asked here: unpacking reads it whole.
pub fn read<'l>(store: &Store, locked: &'l LockedPackage) -> Result<Package<'l>> {
    let mut control = Control::default();
    let file = open(store, locked)?;
    deb::read_control_files(file, &mut control).doing(|| reading(locked))?;
    let mut files = control.files;
    let stanza = files.remove("control").unwrap_or(ControlFile { mode: 0, content: Vec::new(), modified: 0 });
    let built = files.values().map(|file| file.modified).chain([stanza.modified]).max().unwrap_or(0);
    let conffiles = files.get("conffiles").map(|file| conffiles(&file.content)).unwrap_or_default();
    let stanzas = control::stanzas(&stanza.content).map_err(|bad| {
        Error::failed(format!("{}: its `control`, line {}: {}", reading(locked), bad.line, bad.why))
    })?;
    let fields = stanzas.into_iter().next().unwrap_or_default();
    let replaces = relations(&fields, "Replaces");
    // Refused here, where the package is known, and not when a file is in question.
    names(&replaces, locked)?;
    for (name, said) in [("Package", &locked.name), ("Version", &locked.version)] {
        let found = fields.get(name).unwrap_or_default();
        if found != *said {
            return Err(Error::failed(format!("{}: it says `{name}: {found}`", reading(locked)))
                .hint("lock again: `bedplate lock --update-all`"));
        }
    }
    Ok(Package {
        locked,
        essential: fields.yes("Essential"),
        same: fields.get("Multi-Arch").is_some_and(|value| value.eq_ignore_ascii_case("same")),
        pre_depends: names(&relations(&fields, "Pre-Depends"), locked)?,
        replaces,
        stanza: String::from_utf8_lossy(&stanza.content).trim().to_owned(),
        conffiles,
        files,
        built,
    })
}

/// The package's file of the store, with a digest taken while it is read.
pub fn open(store: &Store, locked: &LockedPackage) -> Result<Hashing<std::fs::File>> {
    let (file, _) = store.open_entry(&locked.sha256)?.ok_or_else(|| {
        Error::failed(format!("{}: the store does not have it", reading(locked))).hint(
            "fetch what the lock names: run the build where the archives can be reached, or give it a bundle",
        )
    })?;
    Ok(Hashing { reader: file, hasher: Hasher::new() })
}

fn reading(locked: &LockedPackage) -> String {
    format!("package `{}` {}", locked.name, locked.version)
}

/// A reader that takes the digest of all that is read.
pub struct Hashing<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    /// Reads what is left, and compares the digest of all.
    ///
    /// # Errors
    /// It cannot be read, or has another digest.
    pub fn finish(mut self, locked: &LockedPackage) -> Result<()> {
        std::io::copy(&mut self, &mut std::io::sink()).doing(|| reading(locked))?;
        let found = self.hasher.finish();
        if found == locked.sha256 {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{}: the store's file has the digest {found}, the lock says {}",
            reading(locked),
            locked.sha256
        ))
        .hint("the file in the store is damaged: the next run moves it aside and fetches it again"))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// A field of relations on one line; empty where it is absent.
fn relations(fields: &control::Stanza, name: &str) -> String {
    control::folded(fields.get(name).unwrap_or_default().as_bytes()).unwrap_or_default().into_owned()
}

/// The names a field of relations mentions.
fn names(relations: &str, locked: &LockedPackage) -> Result<BTreeSet<String>> {
    let relations = relation::parse(relations).doing(|| reading(locked))?;
    Ok(relations.iter().flatten().map(|relation| relation.name.to_owned()).collect())
}

/// Lines of `conffiles` (deb-conffiles(5)).
fn conffiles(content: &[u8]) -> Vec<Conffile> {
    String::from_utf8_lossy(content)
        .lines()
        .map(str::trim)
        .filter_map(|line| match line.strip_prefix("remove-on-upgrade ") {
            Some(path) => Some(Conffile { path: path.trim().to_owned(), removed: true }),
            None => line.starts_with('/').then(|| Conffile { path: line.to_owned(), removed: false }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_whole() {
        let stanza = b"Package: a\nPre-Depends: libc6 (>= 2),\n dpkg | x\nDescription: b\n Depends: no\n";
        let fields = control::stanzas(stanza).unwrap().remove(0);
        assert_eq!(fields.get("package"), Some("a"));
        assert_eq!(fields.get("depends"), None);
        assert_eq!(relations(&fields, "pre-depends"), "libc6 (>= 2), dpkg | x");
    }

    #[test]
    fn conffiles_may_be_going() {
        let read = conffiles(b"/etc/a\nremove-on-upgrade /etc/b\n\n/etc/c d\n");
        let read: Vec<_> = read.iter().map(|file| (file.path.as_str(), file.removed)).collect();
        assert_eq!(read, [("/etc/a", false), ("/etc/b", true), ("/etc/c d", false)]);
    }
}
