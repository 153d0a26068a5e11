//! Closures and the version order against apt and dpkg themselves, over the machine's real Debian archive.

mod sets;
mod versions;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex},
};

use bedplate::{apt::Catalog, digest::Digest};
use tempfile::TempDir;

const COMPONENTS: &str = "main contrib non-free non-free-firmware";

/// apt under a private root that has the indices of one release, for one or two architectures, and nothing installed.
pub(super) struct Apt {
    root: TempDir,
    architectures: &'static [&'static str],
    release: &'static str,
}

/// A package as both sides name it: name and architecture, with `all` as the host's.
pub(super) type Named = (String, String);

type Made = Mutex<BTreeMap<(&'static str, usize), Arc<Apt>>>;

static MADE: LazyLock<Made> = LazyLock::new(Mutex::default);

impl Apt {
    /// The one for this release and these architectures, made when it is first asked for.
    ///
    /// The second architecture's indices are the first one's under its name: mirrors that are asked for amd64 alone keep
    /// others that are days apart, and then nothing of two architectures can be installed, by apt or anyone.
    pub(super) fn of(release: &'static str, architectures: &'static [&'static str]) -> Arc<Self> {
        let one = (architectures.len() > 1).then(|| Self::of(release, &architectures[..1]));
        let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let apt = made
            .entry((release, architectures.len()))
            .or_insert_with(|| Arc::new(Self::make(release, architectures, one.as_deref())));
        Arc::clone(apt)
    }

    fn make(release: &'static str, architectures: &'static [&'static str], one: Option<&Self>) -> Self {
        let root = TempDir::new().unwrap();
        for folder in ["state/lists/partial", "cache/archives/partial", "etc/parts", "etc/preferences", "log"]
        {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("status"), "").unwrap();
        let (main, security) = mirrors();
        let mut sources = String::new();
        let keyring = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg";
        for suite in suites(release) {
            let (trust, uri) = match one {
                None if suite.ends_with("-security") => (keyring, security.clone()),
                None => (keyring, main.clone()),
                Some(_) => ("trusted=yes", format!("copy:{}/archive", root.path().display())),
            };
            writeln!(sources, "deb [{trust}] {uri} {suite} {COMPONENTS}").unwrap();
        }
        if let Some(one) = one {
            one.write_for(&root.path().join("archive"), architectures);
        }
        fs::write(root.path().join("sources.list"), sources).unwrap();
        let apt = Self { root, architectures, release };
        let output = apt.command("apt-get").arg("update").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apt-get update for {release}: {said}");
        assert!(
            one.is_some() || !said.contains("W: ") && !said.contains("E: "),
            "apt-get update for {release}: {said}"
        );
        apt
    }

    /// Writes these indices as an archive that has each of them for every architecture.
    fn write_for(&self, directory: &Path, architectures: &[&str]) {
        for suite in suites(self.release) {
            let mut listed = String::new();
            for (_, component, text) in self.indices().into_iter().filter(|(of, ..)| *of == suite) {
                for architecture in architectures {
                    let own = format!("\nArchitecture: {}\n", self.architectures[0]);
                    let text = text.replace(&own, &format!("\nArchitecture: {architecture}\n"));
                    let path = format!("{component}/binary-{architecture}/Packages");
                    let at = directory.join("dists").join(&suite).join(&path);
                    fs::create_dir_all(at.parent().unwrap()).unwrap();
                    writeln!(listed, " {} {} {path}", Digest::of(&text).hex(), text.len()).unwrap();
                    fs::write(at, text).unwrap();
                }
            }
            let release = format!(
                "Suite: {suite}\nCodename: {suite}\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nArchitectures: {}\n\
                 Components: {COMPONENTS}\nSHA256:\n{listed}",
                architectures.join(" ")
            );
            fs::create_dir_all(directory.join("dists").join(&suite)).unwrap();
            fs::write(directory.join("dists").join(&suite).join("Release"), release).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// An apt tool with everything of its state here; proxies and the like as the machine has them.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.env("LC_ALL", "C.UTF-8");
        let mut option = |name: &str, value: &dyn std::fmt::Display| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        option("Dir::State", &self.path("state").display());
        option("Dir::State::status", &self.path("status").display());
        option("Dir::Cache", &self.path("cache").display());
        option("Dir::Log", &self.path("log").display());
        option("Dir::Etc::sourcelist", &self.path("sources.list").display());
        option("Dir::Etc::sourceparts", &self.path("etc/parts").display());
        option("Dir::Etc::preferences", &"/dev/null");
        option("Dir::Etc::preferencesparts", &self.path("etc/preferences").display());
        option("Acquire::Languages", &"none");
        option("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", &"false");
        option("Acquire::GzipIndexes", &"false");
        option("APT::Sandbox::User", &"root");
        option("APT::Install-Recommends", &"false");
        option("APT::Architecture", &self.architectures[0]);
        option("APT::Architectures", &self.architectures.join(","));
        option("pkgCacheFile::Generate", &"true");
        // Images of container builds set these so that no cache is kept.
        option("Dir::Cache::pkgcache", &"pkgcache.bin");
        option("Dir::Cache::srcpkgcache", &"srcpkgcache.bin");
        command
    }

    /// The indices that apt downloaded, as it verified them.
    pub(super) fn texts(&self) -> Vec<(String, String)> {
        self.indices().into_iter().map(|(suite, _, text)| (suite, text)).collect()
    }

    /// The same with their components.
    fn indices(&self) -> Vec<(String, &'static str, String)> {
        let mut texts = Vec::new();
        for suite in suites(self.release) {
            for component in COMPONENTS.split(' ') {
                for architecture in self.architectures {
                    let end = format!("_dists_{suite}_{component}_binary-{architecture}_Packages");
                    let found =
                        entries(&self.path("state/lists")).into_iter().find(|name| name.ends_with(&end));
                    if let Some(found) = found {
                        let text = fs::read_to_string(self.path("state/lists").join(found)).unwrap();
                        texts.push((suite.clone(), component, text));
                    }
                }
            }
        }
        assert!(texts.len() >= 4, "apt has no indices of {}", self.release);
        texts
    }

    pub(super) fn catalog(&self) -> Catalog {
        let texts = self.texts();
        let parts: Vec<(&str, &str, u16, &str)> = texts
            .iter()
            .map(|(suite, text)| {
                let repository = if suite.ends_with("-security") { "debian-security" } else { "debian" };
                (repository, suite.as_str(), 500, text.as_str())
            })
            .collect();
        Catalog::from_texts(&parts).unwrap()
    }

    /// What apt would install of these onto nothing: versions by name and architecture.
    pub(super) fn install(&self, names: &BTreeSet<String>, more: &[&str]) -> BTreeMap<Named, String> {
        let output = self
            .command("apt-get")
            .args(["--simulate", "--quiet", "install"])
            .args(more)
            .args(names)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apt-get install: {said}");
        let mut found = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            // Inst libc6:i386 (2.41-12 Debian:13.2/stable [i386])
            let Some(rest) = line.strip_prefix("Inst ") else { continue };
            let (name, rest) = rest.split_once(" (").unwrap();
            let (version, rest) = rest.split_once(' ').unwrap();
            // What follows the bracket is what apt unpacks before it can be configured.
            let (_, architecture) = rest.split_once(')').unwrap().0.rsplit_once('[').unwrap();
            let architecture = architecture.trim_end_matches(']');
            let architecture = if architecture == "all" { self.architectures[0] } else { architecture };
            let name = name.split(':').next().unwrap_or(name).to_owned();
            found.insert((name, architecture.to_owned()), version.to_owned());
        }
        found
    }
}

/// Fetches a package of a release and unpacks it into a folder, without installing it.
pub(crate) fn unpacked(release: &'static str, package: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut fetch = Apt::of(release, &["amd64"]).command("apt-get");
    let output = fetch.args(["download", "-q", package]).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "apt-get download: {}", String::from_utf8_lossy(&output.stderr));
    let file = entries(folder.path()).into_iter().find(|name| name.ends_with(".deb")).unwrap();
    let output = Command::new("dpkg-deb").args(["-x", &file, "."]).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "dpkg-deb: {}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// The suites of a release.
fn suites(release: &str) -> [String; 3] {
    ["", "-updates", "-security"].map(|end| format!("{release}{end}"))
}

/// Names in a folder, sorted.
fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Where this machine's own apt gets the distribution and its security updates from.
pub(crate) fn mirrors() -> (String, String) {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let of = |security: bool| {
        let mut lines = said.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(suite, _)| suite.ends_with("-security") == security).map(|(_, uri)| uri.to_owned())
    };
    let (Some(main), Some(security)) = (of(false), of(true)) else {
        panic!(
            "this machine's apt has no Debian archive with security updates: run `apt-get update`: {said}"
        );
    };
    (main, security)
}
