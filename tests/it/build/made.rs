//! A place with a small distribution made on the spot: an image of it is built in a second or two.
//!
//! dpkg, the shell and their libraries are those of this machine, cut into packages; the rest is made up.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use bedplate::digest::Digest;

use crate::{
    apt::{
        archive::Archive,
        fixtures::{SIGNER, engine},
        keys::Keys,
        locking::{mirrors, trixie},
        package::{Package, Packing},
        server::Server,
    },
    cli::{Place, Ran},
};

/// The C library's version: what the made engine asks for is older.
pub(super) const LIBC: &str = "2.41-1";

/// The program of this machine, where it really is.
fn real(program: &str) -> PathBuf {
    let path = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().map(|dir| Path::new(dir).join(program));
    let found = path.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {program} here"));
    found.canonicalize().unwrap()
}

/// The libraries of some programs, by the path they are loaded from.
fn libraries(programs: &[PathBuf]) -> BTreeSet<String> {
    let output = Command::new("ldd").args(programs).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with("/lib")).map(str::to_owned).collect()
}

fn essential(name: &str, version: &str) -> Package {
    Package::new(name, version).field("Essential", "yes").field("Priority", "required").packed(Packing::Zstd)
}

/// What every tree has: a package database to be, accounts, the C library, a shell, dpkg.
pub(super) fn base() -> Vec<Package> {
    let programs = ["dpkg", "dash", "rm", "sleep"].map(real);
    let mut libc = essential("libc6", LIBC);
    for library in libraries(&programs) {
        let path = format!("./usr{library}");
        libc =
            libc.directory(path.rsplit_once('/').unwrap().0).program(&path, &std::fs::read(library).unwrap());
    }
    let read = |program: &str| std::fs::read(real(program)).unwrap();
    let shell = essential("dash", "1-1")
        .field("Pre-Depends", "libc6")
        .directory("./usr/bin")
        .program("./usr/bin/dash", &read("dash"))
        .entry(b'2', "./usr/bin/sh", "dash", b"")
        .program("./usr/bin/rm", &read("rm"))
        .program("./usr/bin/sleep", &read("sleep"));
    let mut dpkg = essential("dpkg", "1-1")
        .field("Pre-Depends", "libc6")
        .directory("./usr/bin")
        .directory("./usr/sbin")
        .program("./usr/bin/dpkg", &read("dpkg"));
    // It looks whether these are there (dpkg, `checkpath`); configuring starts none of them.
    for name in
        ["bin/tar", "bin/diff", "bin/dpkg-deb", "bin/dpkg-split", "sbin/ldconfig", "sbin/start-stop-daemon"]
    {
        dpkg = dpkg.program(&format!("./usr/{name}"), b"#!/bin/sh\nexit 1\n");
    }
    vec![base_files().packed(Packing::Zstd), libc, shell, dpkg, apt().packed(Packing::Zstd)]
}

/// Directories and accounts.
pub(super) fn base_files() -> Package {
    Package::new("base-files", "1-1")
        .field("Essential", "yes")
        .field("Priority", "required")
        .directory("./etc")
        .directory("./root")
        .directory("./tmp")
        .directory("./var/log")
        .file("./etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        .file("./etc/group", "root:x:0:\n")
        .file("./etc/shadow", "root:*:20000:0:99999:7:::\n")
        .file("./etc/os-release", "ID=debian\nVERSION_CODENAME=trixie\n")
}

/// What `lock` has in every closure.
pub(super) fn apt() -> Package {
    Package::new("apt", "1-1").field("Priority", "important")
}

/// A place with a profile and an image definition, both `small`.
pub(super) struct Made {
    pub(super) place: Place,
    keys: Keys,
    debian: Server,
    security: Server,
}

impl Made {
    /// `packages` are in the archive, besides the base; the profile wants those of these names.
    pub(super) async fn new(packages: &[Package], wanted: &[&str]) -> Self {
        let keys = Keys::with(SIGNER);
        let (debian, security) = archives(&keys, packages);
        let made = Self {
            place: Place::new(),
            keys,
            debian: Server::start(debian).await,
            security: Server::start(security).await,
        };
        let place = &made.place;
        mirrors(place, &made.keys, &made.debian.url, &made.security.url);
        place.put("profiles/small.toml", profile(wanted));
        place.put("images/small.toml", IMAGE);
        made.run(&["lock", "small"]).exits(0);
        made
    }

    /// The archive has these packages now.
    pub(super) fn change(&self, packages: &[Package]) {
        let (debian, _) = archives(&self.keys, packages);
        self.debian.change(|archive| *archive = debian);
    }

    /// The archive has no package's file any more.
    pub(super) fn lose_packages(&self) {
        self.debian.change(|archive| *archive = std::mem::take(archive).without(".deb"));
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let store = self.place.at("store");
        let mut all = vec!["--quiet", "--store", store.to_str().unwrap()];
        all.extend(arguments);
        self.place.command(all)
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        crate::cli::ran(&mut self.command(arguments))
    }

    /// Builds the image, whose digests are given by format.
    pub(super) fn build(&self) -> BTreeMap<String, String> {
        let ran = self.run(&["build", "small", "--output", "out", "--format", "json", "--again"]);
        ran.exits(0);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let parts = report["parts"].as_object().unwrap().iter();
        parts.map(|(format, part)| (format.clone(), part["digest"].as_str().unwrap().to_owned())).collect()
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.place.at("store/build/tree")
    }

    /// Nothing is mounted, nothing runs, and what the store has is what its names say.
    pub(super) fn assert_sound(&self) {
        super::assert_nothing_left(&self.place.at(""), &self.tree());
        let mut seen = 0;
        for folder in std::fs::read_dir(self.place.at("store/sha256")).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                let file = file.unwrap();
                let digest = Digest::of(std::fs::read(file.path()).unwrap());
                assert_eq!(digest.hex(), file.file_name().to_str().unwrap());
                seen += 1;
            }
        }
        assert!(seen > 3, "the store has packages");
    }

    /// What is in the output directory.
    pub(super) fn output(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.place.at("out")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn archives(keys: &Keys, packages: &[Package]) -> (Archive, Archive) {
    let all = [base(), engine("1-1"), packages.to_vec()].concat();
    let all: Vec<Package> = all.into_iter().map(Package::with_sums).collect();
    trixie(keys, &all, &[])
}

pub(super) fn profile(wanted: &[&str]) -> String {
    format!(
        "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\narchitecture = \"amd64\"\npackages = {wanted:?}\n\
         [driver]\nflavor = \"none\"\n[container]\nengine = \"docker\"\ngpu-access = \"none\"\n\
         [[file]]\npath = \"/etc/sysctl.d/60-inference.conf\"\ncontent = \"vm.max_map_count = 262144\"\n\
         [[mount]]\npath = \"/data/minerhome\"\nmode = \"0700\"\nowner = \"root:root\"\n"
    )
}

pub(super) const IMAGE: &str = "schema = 1\nprofile = \"small\"\nformats = [\"tar\", \"tar.zst\", \"oci\"]\n\
    include = [\"packages\", \"files\", \"users\"]\nnetwork = \"profile\"\nfirst-boot = [\"machine-id\"]\n";
