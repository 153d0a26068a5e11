//! Whose a path is, as dpkg's lists of files say (dpkg-query(1), `--search`; dpkg-divert(1)).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _},
};

use crate::{
    error::{Error, Result},
    system::files::{Root, failure},
};

/// Where dpkg keeps what belongs to each package: `NAME.list`, or `NAME:ARCHITECTURE.list` where several architectures
/// of it may be installed together.
pub(super) const INFO: &str = "/var/lib/dpkg/info";
/// Where dpkg keeps the diversions.
const DIVERSIONS: &str = "/var/lib/dpkg/diversions";
/// Most bytes of one list that are read.
const LIST_MAX: u64 = 256 << 20;
/// Largest file of diversions, in bytes.
const DIVERSIONS_MAX: u64 = 16 << 20;
/// Directories that may be links into `/usr` (Debian Policy 10.1): lists name their files by either path.
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// Paths that packages have under another name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Diversions {
    /// By path: where it goes, and the package whose file keeps it (`:`, the administrator: no package's does).
    by_path: BTreeMap<String, (String, String)>,
}

impl Diversions {
    /// What the tree's dpkg diverts; nothing where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, or does not have three lines for each diversion.
    pub(super) fn read(root: &Root) -> Result<Self> {
        let Some(text) = root.read_text(DIVERSIONS, DIVERSIONS_MAX)? else { return Ok(Self::default()) };
        let lines: Vec<&str> = text.lines().collect();
        let mut by_path = BTreeMap::new();
        for three in lines.chunks(3) {
            let [from, to, by] = three else {
                return Err(Error::failed(format!(
                    "`{}` cannot be understood: it has not three lines for each diversion",
                    root.shown(DIVERSIONS).display()
                ))
                .hint("see what dpkg says to it: `dpkg-divert --list`"));
            };
            by_path.insert((*from).to_owned(), ((*to).to_owned(), (*by).to_owned()));
        }
        Ok(Self { by_path })
    }

    /// Where the file lies that `package` has in its list as `path`.
    pub(super) fn place<'p>(&'p self, package: &str, path: &'p str) -> &'p str {
        match self.by_path.get(path) {
            Some((to, by)) if by != package => to,
            _ => path,
        }
    }
}

/// The package that owns each of `paths`, which are relative to the tree's top. Left out: what no package owns, and
/// directories that several own. A file of dpkg's database about a package counts as that package's.
///
/// # Errors
/// The lists cannot be read.
pub(super) fn owners(root: &Root, paths: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    // `None`: packages of several names have it.
    let mut found: BTreeMap<&str, Option<String>> = BTreeMap::new();
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    for entry in root.list(INFO)? {
        let own = format!("{INFO}/{}", entry.name);
        if let (Some(path), Some((stem, _))) =
            (paths.get(own.trim_start_matches('/')), entry.name.rsplit_once('.'))
        {
            found.insert(path, Some(name_of(stem).to_owned()));
        }
    }
    each(root, &mut |name, path| {
        let Some(path) = paths.get(path) else { return };
        let owner = found.entry(path).or_insert_with(|| Some(name.to_owned()));
        if owner.as_deref() != Some(name) {
            *owner = None;
        }
    })?;
    Ok(found.into_iter().filter_map(|(path, owner)| Some((path.to_owned(), owner?))).collect())
}

/// Gives each package's name with each path it has, relative to the tree's top: where it lies, after diversions and through
/// a merged `/usr`. Names that are not UTF-8 are passed over.
///
/// # Errors
/// The lists cannot be read.
pub(super) fn each(root: &Root, take: &mut dyn FnMut(&str, &str)) -> Result<()> {
    let diversions = Diversions::read(root)?;
    let merged = merged(root)?;
    for entry in root.list(INFO)? {
        let Some(stem) = entry.name.strip_suffix(".list") else { continue };
        let name = name_of(stem);
        let own = format!("{INFO}/{}", entry.name);
        let Some((file, _)) = root.open_file(&own)? else { continue };
        let mut lines = BufReader::new(file.take(LIST_MAX));
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = lines
                .read_until(b'\n', &mut line)
                .map_err(|error| failure("reading", &root.shown(&own), error))?;
            if length == 0 {
                break;
            }
            let Ok(path) = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(&line)) else { continue };
            take(name, &real(diversions.place(name, path).trim_start_matches('/'), &merged));
        }
    }
    Ok(())
}

/// The package of a file in [`INFO`]: its name without the architecture.
fn name_of(stem: &str) -> &str {
    stem.split_once(':').map_or(stem, |(name, _)| name)
}

/// Which of [`MERGED`] are links into `/usr` here.
fn merged(root: &Root) -> Result<Vec<&'static str>> {
    let mut merged = Vec::new();
    for name in MERGED {
        let is_link = root
            .stat(&format!("/{name}"))?
            .is_some_and(|stat| stat.kind == crate::system::files::FileKind::Link);
        if is_link
            && root.read_link(&format!("/{name}"))?.is_some_and(|to| to.ends_with(&format!("usr/{name}")))
        {
            merged.push(name);
        }
    }
    Ok(merged)
}

/// A path with a merged directory written out: `bin/sh` is `usr/bin/sh`. The link itself stays.
fn real<'p>(path: &'p str, merged: &[&str]) -> std::borrow::Cow<'p, str> {
    match path.split_once('/') {
        Some((first, _)) if merged.contains(&first) => format!("usr/{path}").into(),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::files::Owner;

    #[test]
    fn the_owner_is_found_through_merged_directories_and_diversions() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let me = Owner::current();
        root.make_dir(INFO, 0o755, me).unwrap();
        root.make_dir("/usr/bin", 0o755, me).unwrap();
        root.symlink("usr/bin", "/bin").unwrap();
        let put = |path: &str, text: &str| root.write(path, text.as_bytes(), 0o644, me).unwrap();
        put(&format!("{INFO}/dash.list"), "/.\n/bin\n/bin/sh\n/usr/share\n/usr/share/x\n");
        put(&format!("{INFO}/bash.list"), "/.\n/usr/bin/sh\n/usr/bin/bash\n/usr/share\n");
        put(&format!("{INFO}/libc6:amd64.list"), "/usr/share/doc/libc6\n");
        put(&format!("{INFO}/libc6:i386.list"), "/usr/share/doc/libc6\n");
        put(DIVERSIONS, "/bin/sh\n/bin/sh.distrib\nbash\n");
        let paths = BTreeSet::from([
            "etc/none",
            "usr/bin/bash",
            "usr/bin/sh",
            "usr/bin/sh.distrib",
            "usr/share",
            "usr/share/doc/libc6",
            "usr/share/x",
            "var/lib/dpkg/info/libc6:i386.list",
        ]);
        let found = owners(&root, &paths).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(path, owner)| (&**path, &**owner)).collect();
        assert_eq!(
            found,
            [
                ("usr/bin/bash", "bash"),
                ("usr/bin/sh", "bash"),
                ("usr/bin/sh.distrib", "dash"),
                ("usr/share/doc/libc6", "libc6"),
                ("usr/share/x", "dash"),
                ("var/lib/dpkg/info/libc6:i386.list", "libc6"),
            ]
        );
        put(DIVERSIONS, "/bin/sh\n/bin/sh.distrib\n");
        assert!(owners(&root, &paths).unwrap_err().message().contains("three lines"));
    }
}
