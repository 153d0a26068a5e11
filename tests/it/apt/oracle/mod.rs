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

use bedplate::apt::Catalog;
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
    pub(super) fn of(release: &'static str, architectures: &'static [&'static str]) -> Arc<Self> {
        let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let apt = made
            .entry((release, architectures.len()))
            .or_insert_with(|| Arc::new(Self::make(release, architectures)));
        Arc::clone(apt)
    }

    fn make(release: &'static str, architectures: &'static [&'static str]) -> Self {
        let root = TempDir::new().unwrap();
        for folder in ["state/lists/partial", "cache/archives/partial", "etc/parts", "etc/preferences", "log"]
        {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("status"), "").unwrap();
        let (main, security) = mirrors();
        let mut sources = String::new();
        let keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        for (uri, suite) in [
            (&main, release.to_owned()),
            (&main, format!("{release}-updates")),
            (&security, format!("{release}-security")),
        ] {
            writeln!(sources, "deb {keyring} {uri} {suite} {COMPONENTS}").unwrap();
        }
        fs::write(root.path().join("sources.list"), sources).unwrap();
        let apt = Self { root, architectures, release };
        let output = apt.command("apt-get").arg("update").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apt-get update for {release}: {said}");
        assert!(!said.contains("W: ") && !said.contains("E: "), "apt-get update for {release}: {said}");
        apt
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
        let mut texts = Vec::new();
        for suite in ["", "-updates", "-security"] {
            let suite = format!("{}{suite}", self.release);
            for component in COMPONENTS.split(' ') {
                for architecture in self.architectures {
                    let end = format!("_dists_{suite}_{component}_binary-{architecture}_Packages");
                    let found =
                        entries(&self.path("state/lists")).into_iter().find(|name| name.ends_with(&end));
                    if let Some(found) = found {
                        let text = fs::read_to_string(self.path("state/lists").join(found)).unwrap();
                        texts.push((suite.clone(), text));
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
            let (_, architecture) = rest.rsplit_once('[').unwrap();
            let (architecture, _) = architecture.split_once(']').unwrap();
            let architecture = if architecture == "all" { self.architectures[0] } else { architecture };
            let name = name.split(':').next().unwrap_or(name).to_owned();
            found.insert((name, architecture.to_owned()), version.to_owned());
        }
        found
    }
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
fn mirrors() -> (String, String) {
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
