//! What dpkg says is on a host: its `status` file as plain data (dpkg-query(1), deb-control(5)).

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Where dpkg keeps its database.
pub const STATUS: &str = "/var/lib/dpkg/status";
/// Where dpkg notes what it has not yet written into [`STATUS`]: files with numbers for names.
pub const UPDATES: &str = "/var/lib/dpkg/updates";

/// The packages of a host, as far as a plan needs them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packages {
    /// Every package dpkg knows, by name and architecture. Two of one name are of two architectures.
    pub known: BTreeMap<(String, String), Package>,
    /// dpkg was interrupted: [`UPDATES`] holds what is to be written into its database.
    pub interrupted: bool,
    /// apt and dpkg can be run there.
    pub tools: bool,
}

/// One package dpkg knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// Its version; empty where none was ever unpacked.
    pub version: String,
    /// What is wanted of it.
    pub want: Want,
    /// How far it got.
    pub state: State,
    /// It is broken, and must be unpacked again (`reinstreq`).
    pub reinstall: bool,
    /// The system counts on it (`Essential` or `Protected`).
    pub essential: bool,
    /// Names that its `Pre-Depends` and `Depends` mention, without versions.
    pub depends: Vec<String>,
    /// Names it provides.
    pub provides: Vec<String>,
    /// Room it takes, in KiB, as its maker says.
    pub installed_size: u64,
    /// Its configuration files.
    pub conffiles: Vec<Conffile>,
}

/// A configuration file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conffile {
    /// Where.
    pub path: String,
    /// MD5 of the content that came with the package, in hexadecimal; `newconffile` where it is not unpacked yet.
    pub md5: String,
    /// A later version of the package no longer has it.
    pub obsolete: bool,
}

/// The selection of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nothing was said.
    Unknown,
    /// It shall be there.
    Install,
    /// It shall stay as it is.
    Hold,
    /// It shall go.
    Deinstall,
    /// It shall go with its configuration.
    Purge,
}

/// How far a package got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is not there.
    NotInstalled,
    /// Only its configuration files are.
    ConfigFiles,
    /// Its unpacking was begun and not finished.
    HalfInstalled,
    /// It is unpacked and not configured.
    Unpacked,
    /// Its configuration was begun and not finished.
    HalfConfigured,
    /// It waits for another package's triggers.
    TriggersAwaited,
    /// Its triggers were asked for.
    TriggersPending,
    /// It is there.
    Installed,
}

impl State {
    /// dpkg's word for it (dpkg(1), "Package states").
    pub fn word(self) -> &'static str {
        match self {
            Self::NotInstalled => "not-installed",
            Self::ConfigFiles => "config-files",
            Self::HalfInstalled => "half-installed",
            Self::Unpacked => "unpacked",
            Self::HalfConfigured => "half-configured",
            Self::TriggersAwaited => "triggers-awaited",
            Self::TriggersPending => "triggers-pending",
            Self::Installed => "installed",
        }
    }
}

impl Package {
    /// Whether it is there, whole or in part.
    pub fn present(&self) -> bool {
        !matches!(self.state, State::NotInstalled | State::ConfigFiles)
    }

    /// Whether something was begun on it and not finished.
    pub fn broken(&self) -> bool {
        self.present() && (self.state != State::Installed || self.reinstall)
    }
}

impl Packages {
    /// Reads the text of [`STATUS`], then the texts of [`UPDATES`] in the order of their numbers.
    ///
    /// # Errors
    /// What cannot be understood, by line: a guess could make a plan for another host than this one.
    pub fn parse(status: &str, updates: &[String]) -> Result<Self> {
        let mut packages = Self { interrupted: !updates.is_empty(), ..Self::default() };
        for (text, path) in
            [(status, STATUS)].into_iter().chain(updates.iter().map(|text| (&**text, UPDATES)))
        {
            for (line, package) in stanzas(text, path)? {
                if package.name.is_empty() {
                    return Err(broken(path, line, "a package without a name"));
                }
                packages.known.insert((package.name.clone(), package.architecture.clone()), package);
            }
        }
        Ok(packages)
    }

    /// As [`Packages::parse`], of a root: `text` reads a file of it, `names` lists a directory. `None`: it has no
    /// database.
    ///
    /// # Errors
    /// The files cannot be read or understood.
    pub fn read(
        text: impl Fn(&str) -> Result<Option<String>>,
        names: impl Fn(&str) -> Result<Vec<String>>,
    ) -> Result<Option<Self>> {
        let Some(status) = text(STATUS)? else { return Ok(None) };
        let mut numbers: Vec<(u64, String)> =
            names(UPDATES)?.into_iter().filter_map(|name| Some((name.parse().ok()?, name))).collect();
        numbers.sort_unstable();
        let mut updates = Vec::new();
        for (_, name) in numbers {
            updates.extend(text(&format!("{UPDATES}/{name}"))?);
        }
        Self::parse(&status, &updates).map(Some)
    }

    /// The packages that are there, whole or in part.
    pub fn present(&self) -> impl Iterator<Item = &Package> {
        self.known.values().filter(|package| package.present())
    }

    /// Whether a package of this name is installed, of whatever architecture.
    pub fn has(&self, name: &str) -> bool {
        self.known
            .range((name.to_owned(), String::new())..)
            .take_while(|((known, _), _)| known == name)
            .any(|(_, package)| package.state == State::Installed)
    }

    /// The package under the name apt and dpkg use on a host of architecture `native`: `NAME`, or
    /// `NAME:ARCHITECTURE` for a foreign one.
    pub fn by_key(&self, native: &str) -> BTreeMap<String, &Package> {
        self.present().map(|package| (key(&package.name, &package.architecture, native), package)).collect()
    }
}

/// The name apt and dpkg use for a package on a host of architecture `native`.
pub fn key(name: &str, architecture: &str, native: &str) -> String {
    if architecture == native || architecture == "all" || architecture.is_empty() {
        name.to_owned()
    } else {
        format!("{name}:{architecture}")
    }
}

fn broken(path: &str, line: usize, what: &str) -> Error {
    Error::failed(format!("`{path}` cannot be understood: line {line}: {what}"))
        .hint("see what dpkg says to it: `dpkg --audit`; the day before's is `/var/lib/dpkg/status-old`")
}

/// The stanzas of a text, each with the number of its first line.
fn stanzas(text: &str, path: &str) -> Result<Vec<(usize, Package)>> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Package)> = None;
    let mut conffiles = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() {
            found.extend(open.take());
            continue;
        }
        let (_, package) = open.get_or_insert_with(|| (number, empty()));
        if line.starts_with([' ', '\t']) {
            if conffiles {
                package.conffiles.push(
                    conffile(line).ok_or_else(|| broken(path, number, "a configuration file of no form"))?,
                );
            }
            continue;
        }
        let (field, value) =
            line.split_once(':').ok_or_else(|| broken(path, number, "a line without a field"))?;
        let value = value.trim();
        conffiles = field.eq_ignore_ascii_case("Conffiles");
        if field.eq_ignore_ascii_case("Package") {
            value.clone_into(&mut package.name);
        } else if field.eq_ignore_ascii_case("Architecture") {
            value.clone_into(&mut package.architecture);
        } else if field.eq_ignore_ascii_case("Version") {
            value.clone_into(&mut package.version);
        } else if field.eq_ignore_ascii_case("Status") {
            (package.want, package.reinstall, package.state) =
                status(value).ok_or_else(|| broken(path, number, "a status of no known form"))?;
        } else if ["Essential", "Protected", "Important"].iter().any(|name| field.eq_ignore_ascii_case(name))
        {
            // `Important` is what `Protected` was called before (deb-control(5)); apt removes neither unasked.
            package.essential |= value == "yes";
        } else if field.eq_ignore_ascii_case("Depends") || field.eq_ignore_ascii_case("Pre-Depends") {
            package.depends.extend(names(value));
        } else if field.eq_ignore_ascii_case("Provides") {
            package.provides.extend(names(value));
        } else if field.eq_ignore_ascii_case("Installed-Size") {
            // A size that is no number counts for nothing, as for dpkg.
            package.installed_size = value.parse().unwrap_or(0);
        }
    }
    found.extend(open);
    Ok(found)
}

fn empty() -> Package {
    Package {
        name: String::new(),
        architecture: String::new(),
        version: String::new(),
        want: Want::Unknown,
        state: State::NotInstalled,
        reinstall: false,
        essential: false,
        depends: Vec::new(),
        provides: Vec::new(),
        installed_size: 0,
        conffiles: Vec::new(),
    }
}

/// `hold ok installed`: selection, flag, state.
fn status(value: &str) -> Option<(Want, bool, State)> {
    let mut words = value.split_ascii_whitespace();
    let want = match words.next()? {
        "unknown" => Want::Unknown,
        "install" => Want::Install,
        "hold" => Want::Hold,
        "deinstall" => Want::Deinstall,
        "purge" => Want::Purge,
        _ => return None,
    };
    let reinstall = match words.next()? {
        "ok" | "hold" => false,
        "reinstreq" | "hold-reinstreq" => true,
        _ => return None,
    };
    let state = match words.next()? {
        "not-installed" => State::NotInstalled,
        "config-files" => State::ConfigFiles,
        "half-installed" => State::HalfInstalled,
        "unpacked" => State::Unpacked,
        "half-configured" => State::HalfConfigured,
        "triggers-awaited" => State::TriggersAwaited,
        "triggers-pending" => State::TriggersPending,
        "installed" => State::Installed,
        _ => return None,
    };
    words.next().is_none().then_some((want, reinstall, state))
}

/// ` /etc/x MD5 [obsolete] [remove-on-upgrade]`; a path may have spaces in it.
fn conffile(line: &str) -> Option<Conffile> {
    let mut rest = line.trim();
    let mut obsolete = false;
    while let Some(shorter) = ["obsolete", "remove-on-upgrade"]
        .iter()
        .find_map(|flag| rest.strip_suffix(flag).filter(|shorter| shorter.ends_with(' ')))
    {
        obsolete |= rest.ends_with("obsolete");
        rest = shorter.trim_end();
    }
    let (path, md5) = rest.rsplit_once(' ')?;
    let path = path.trim_end();
    path.starts_with('/').then(|| Conffile { path: path.to_owned(), md5: md5.to_owned(), obsolete })
}

/// The names in a relation field: no versions, no architectures.
fn names(value: &str) -> impl Iterator<Item = String> + '_ {
    value
        .split([',', '|'])
        .map(|part| part.trim().split([' ', '\t', '(', '[', ':']).next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "Package: chrony\nStatus: hold ok installed\nPriority: optional\nInstalled-Size: 643\n\
        Architecture: amd64\nVersion: 4.6.1-3\nDepends: libc6 (>= 2.38), adduser | passwd, iproute2 [linux-any]\n\
        Pre-Depends: init-system-helpers (>= 1.54~)\nProvides: time-daemon, x (= 1)\n\
        Conffiles:\n /etc/chrony/chrony.conf 1d07b6\n /etc/a b newconffile\n /etc/old 22 obsolete\n\
        Description: time\n more of it\n .\n\nPackage: libc6\nEssential: no\nStatus: install reinstreq half-installed\n\
        Architecture: i386\n\nPackage: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n";

    #[test]
    fn reads_what_dpkg_writes() {
        let read = Packages::parse(TEXT, &[]).unwrap();
        let chrony = &read.known[&("chrony".into(), "amd64".into())];
        assert_eq!((chrony.want, chrony.state, &*chrony.version), (Want::Hold, State::Installed, "4.6.1-3"));
        assert_eq!(chrony.depends, ["libc6", "adduser", "passwd", "iproute2", "init-system-helpers"]);
        assert_eq!(
            (chrony.provides.as_slice(), chrony.installed_size),
            (&["time-daemon".into(), "x".into()][..], 643)
        );
        let files: Vec<_> =
            chrony.conffiles.iter().map(|file| (&*file.path, &*file.md5, file.obsolete)).collect();
        assert_eq!(
            files,
            [
                ("/etc/chrony/chrony.conf", "1d07b6", false),
                ("/etc/a b", "newconffile", false),
                ("/etc/old", "22", true)
            ]
        );
        assert!(read.has("chrony") && !read.has("libc6") && !read.has("gone") && !read.has("chron"));
        assert_eq!(read.by_key("amd64").keys().collect::<Vec<_>>(), ["chrony", "libc6:i386"]);
        assert!(read.known[&("libc6".into(), "i386".into())].broken() && !read.interrupted);
    }

    #[test]
    fn what_dpkg_noted_last_holds() {
        let update = "Package: chrony\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 5\n";
        let read = Packages::parse(TEXT, &[update.to_owned()]).unwrap();
        let chrony = &read.known[&("chrony".into(), "amd64".into())];
        assert_eq!((chrony.state, &*chrony.version), (State::HalfConfigured, "5"));
        assert!(read.interrupted && chrony.broken());
    }

    #[test]
    fn what_the_system_counts_on_is_known_by_any_of_its_three_fields() {
        for (field, counts) in [
            ("Essential: yes", true),
            ("Protected: yes", true),
            ("Important: yes", true),
            ("Essential: no", false),
            ("Priority: important", false),
        ] {
            let text =
                format!("Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n{field}\n");
            let read = Packages::parse(&text, &[]).unwrap();
            assert_eq!(read.known[&("a".into(), "all".into())].essential, counts, "{field}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_named_by_line() {
        for (text, part) in [
            ("Package: a\nStatus: install ok instaled\n", "line 2: a status"),
            ("Package: a\nStatus: install ok\n", "line 2: a status"),
            ("Package: a\nStatus: install ok installed more\n", "line 2: a status"),
            ("\n\nStatus: install ok installed\n", "line 3: a package without a name"),
            ("Package: a\nno field\n", "line 2: a line without a field"),
            ("Package: a\nConffiles:\n etc/passwd 1\n", "line 3: a configuration file"),
        ] {
            let error = Packages::parse(text, &[]).unwrap_err();
            assert!(error.message().contains(part), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*", lines in proptest::collection::vec(
            prop_oneof![
                Just("Package: a".to_owned()), Just("Status: install ok installed".to_owned()),
                Just("Conffiles:".to_owned()), Just(String::new()), "[ A-Za-z:/|,()]{0,20}",
            ], 0..12)) {
            let _ = Packages::parse(&text, &[]);
            let _ = Packages::parse(&lines.join("\n"), &[text]);
        }

        #[test]
        fn every_stanza_is_found(names in proptest::collection::btree_set("[a-z]{1,6}", 0..20)) {
            let text: String = names.iter()
                .map(|name| format!("Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n"))
                .collect();
            let read = Packages::parse(&text, &[]).unwrap();
            prop_assert_eq!(read.present().map(|p| p.name.clone()).collect::<std::collections::BTreeSet<_>>(), names);
        }
    }
}
