//! dpkg's database, as dpkg leaves it when packages are unpacked and not yet configured (dpkg 1.21 to 1.22: `/var/lib/dpkg`,
//! dpkg(1), "FILES"; deb-triggers(5)).

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    package::{ControlFile, Package},
    unpack::Contents,
};
use crate::{
    apt::control::{self, Stanza},
    error::{Error, Result},
    plan::dpkg::{Package as Known, Packages, State, Want},
    system::files::{Meta, Owner, Planter, Root},
};

/// Where it lies, relative to the top.
const ADMIN: &str = "var/lib/dpkg";
/// The largest database file read, in bytes.
const LIMIT: u64 = 64 << 20;
/// Control files that dpkg reads and does not keep.
const NOT_KEPT: [&str; 2] = ["control", "list"];

/// Makes an empty database.
///
/// # Errors
/// The tree cannot be written.
pub fn begin(root: &Root) -> Result<()> {
    let mut planter = Planter::new(root);
    for directory in ["", "/alternatives", "/info", "/parts", "/triggers", "/updates"] {
        planter.directory(format!("{ADMIN}{directory}").as_bytes())?;
    }
    for (name, content) in [("status", ""), ("diversions", ""), ("statoverride", ""), ("info/format", "1\n")]
    {
        put(&mut planter, name, content.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn put(planter: &mut Planter<'_>, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let path = format!("{ADMIN}/{name}");
    planter.remove(path.as_bytes())?;
    let meta = Meta { mode, owner: Owner::ROOT, modified: 0 };
    planter.file(path.as_bytes(), meta, &mut &*content).map(drop)
}

/// The control files and lists of packages, and what their triggers ask for. Lists are written anew for all in
/// `contents`: one may have lost a file to another.
///
/// # Errors
/// The tree cannot be written.
pub fn write_info(root: &Root, packages: &[Package<'_>], which: &[usize], contents: &Contents) -> Result<()> {
    let mut planter = Planter::new(root);
    for at in which {
        let package = &packages[*at];
        for (name, ControlFile { mode, content, .. }) in &package.files {
            if !NOT_KEPT.contains(&name.as_str()) {
                put(&mut planter, &format!("info/{}.{name}", package.key()), content, *mode)?;
            }
        }
    }
    for at in contents.lists.keys() {
        let mut list = Vec::new();
        for path in contents.list(*at) {
            list.push(b'/');
            list.extend_from_slice(if path.is_empty() { b"." } else { path });
            list.push(b'\n');
        }
        put(&mut planter, &format!("info/{}.list", packages[*at].key()), &list, 0o644)?;
    }
    Ok(())
}

/// Adds packages to `status`, unpacked: what dpkg has written of the others is kept.
///
/// # Errors
/// The tree cannot be read or written.
pub fn add_status(root: &Root, packages: &[Package<'_>], which: &[usize]) -> Result<()> {
    let mut status = text(root, "status")?;
    for at in which {
        if !status.is_empty() && !status.ends_with("\n\n") {
            status.push('\n');
        }
        status.push_str(&stanza(&packages[*at]));
    }
    put(&mut Planter::new(root), "status", status.as_bytes(), 0o644)
}

/// A package's stanza in `status`.
fn stanza(package: &Package<'_>) -> String {
    let mut stanza = String::new();
    for line in package.stanza.lines() {
        let _ = writeln!(stanza, "{line}");
        if line.starts_with("Package:") {
            stanza.push_str("Status: install ok unpacked\n");
        }
    }
    if !package.conffiles.is_empty() {
        stanza.push_str("Conffiles:\n");
        for file in &package.conffiles {
            // The word stands for the digest of a file that was not there before (dpkg, `NEWCONFFILEFLAG`).
            let going = if file.removed { " remove-on-upgrade" } else { "" };
            let _ = writeln!(stanza, " {} newconffile{going}", file.path);
        }
    }
    stanza.push('\n');
    stanza
}

/// What packages say of triggers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    /// By trigger: who is interested, and whether the one that activates it does not wait.
    interests: BTreeMap<String, Vec<(String, bool)>>,
    /// By trigger: who activates it when it is unpacked.
    activated: BTreeMap<String, Vec<String>>,
}

impl Triggers {
    /// Reads the `triggers` control files of packages.
    ///
    /// # Errors
    /// A line says what deb-triggers(5) does not know.
    pub fn of(packages: &[Package<'_>], which: &[usize]) -> Result<Self> {
        let mut triggers = Self::default();
        for at in which {
            let package = &packages[*at];
            let Some(file) = package.files.get("triggers") else { continue };
            for line in String::from_utf8_lossy(&file.content).lines() {
                let line = line.split('#').next().unwrap_or_default();
                let mut words = line.split_whitespace();
                let (Some(directive), Some(name)) = (words.next(), words.next()) else { continue };
                match directive {
                    "interest" | "interest-await" => {
                        triggers.interests.entry(name.into()).or_default().push((package.key(), false));
                    }
                    "interest-noawait" => {
                        triggers.interests.entry(name.into()).or_default().push((package.key(), true));
                    }
                    "activate" | "activate-await" | "activate-noawait" => {
                        triggers.activated.entry(name.into()).or_default().push(package.key());
                    }
                    other => {
                        return Err(Error::failed(format!(
                            "package {}: its `triggers` say `{other}`, which is not known",
                            package.shown()
                        )));
                    }
                }
            }
        }
        Ok(triggers)
    }

    /// Writes who is interested in what: `triggers/File` for paths, a file for each other name.
    ///
    /// # Errors
    /// The tree cannot be read or written.
    pub fn write(&self, root: &Root) -> Result<()> {
        let mut planter = Planter::new(root);
        let mut files = text(root, "triggers/File")?;
        for (name, who) in &self.interests {
            let mut lines =
                if name.starts_with('/') { String::new() } else { text(root, &format!("triggers/{name}"))? };
            for (package, noawait) in who {
                let end = if *noawait { "/noawait" } else { "" };
                if name.starts_with('/') {
                    let _ = writeln!(files, "{name} {package}{end}");
                } else {
                    let _ = writeln!(lines, "{package}{end}");
                }
            }
            if !name.starts_with('/') {
                put(&mut planter, &format!("triggers/{name}"), lines.as_bytes(), 0o644)?;
            }
        }
        put(&mut planter, "triggers/File", files.as_bytes(), 0o644)
    }

    /// Writes which triggers the unpacking of `paths` and of these packages has activated, for the next dpkg to take in:
    /// who is interested and configured already is run again, who is not will see all when it is configured.
    ///
    /// # Errors
    /// The tree cannot be written.
    pub fn write_activated(&self, root: &Root, interested: &Self, paths: &[&[u8]]) -> Result<()> {
        let mut names: Vec<String> =
            self.activated.keys().filter(|name| interested.interests.contains_key(*name)).cloned().collect();
        let below = |interest: &str| {
            let interest = interest.trim_start_matches('/').as_bytes();
            paths.iter().any(|path| {
                path.strip_prefix(interest).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            })
        };
        names
            .extend(interested.interests.keys().filter(|name| name.starts_with('/') && below(name)).cloned());
        names.sort_unstable();
        names.dedup();
        // What is there waits for the next dpkg as well.
        let mut text = text(root, "triggers/Unincorp")?;
        text.extend(names.iter().map(|name| format!("{name} -\n")));
        put(&mut Planter::new(root), "triggers/Unincorp", text.as_bytes(), 0o644)
    }

    /// Takes what others say too.
    pub fn extend(&mut self, other: Self) {
        for (name, who) in other.interests {
            self.interests.entry(name).or_default().extend(who);
        }
        for (name, who) in other.activated {
            self.activated.entry(name).or_default().extend(who);
        }
    }
}

/// The packages that are not installed and configured, with dpkg's word for how far they got.
///
/// # Errors
/// The database cannot be read.
pub fn unfinished(root: &Root) -> Result<Vec<(String, &'static str)>> {
    let packages = Packages::read(|path| root.read_text(path, LIMIT), |path| root.names(path))?;
    let done = |package: &&Known| {
        package.want == Want::Install && !package.reinstall && package.state == State::Installed
    };
    let all = packages.unwrap_or_default();
    let left = all.known.values().filter(|package| !done(package));
    Ok(left.map(|package| (package.name.clone(), package.state.word())).collect())
}

/// `Maintainer` of each package that `status` has, by name.
///
/// # Errors
/// The database cannot be read.
pub fn maintainers(root: &Root) -> Result<BTreeMap<String, String>> {
    let stanzas = control::stanzas(text(root, "status")?.as_bytes()).map_err(|bad| {
        Error::failed(format!("dpkg's `status` in the root tree, line {}: {}", bad.line, bad.why))
    })?;
    let field = |stanza: &Stanza, name| stanza.get(name).map(str::to_owned);
    Ok(stanzas
        .iter()
        .filter_map(|stanza| Some((field(stanza, "Package")?, field(stanza, "Maintainer")?)))
        .collect())
}

fn text(root: &Root, name: &str) -> Result<String> {
    Ok(root.read_text(&format!("/{ADMIN}/{name}"), LIMIT)?.unwrap_or_default())
}
