//! `build` with the machine's real Debian archive: the same bytes under other conditions, a tree that dpkg finds nothing
//! amiss in, and nothing left behind.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const PROFILE: &str = "schema = 1
[host]
distribution = \"debian\"
release = \"trixie\"
architecture = \"amd64\"
packages = [\"ca-certificates\", \"systemd-sysv\"]
[driver]
flavor = \"none\"
[container]
engine = \"docker\"
gpu-access = \"none\"
[[file]]
path = \"/etc/sysctl.d/60-inference.conf\"
content = \"vm.max_map_count = 262144\"
[[mount]]
path = \"/data/minerhome\"
mode = \"0700\"
owner = \"root:root\"
";

const IMAGE: &str =
    "schema = 1\nprofile = \"small\"\nformats = [\"tar\", \"oci\"]\nfirst-boot = [\"machine-id\"]\n";

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [("profiles/small.toml", PROFILE), ("images/small.toml", IMAGE)] {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), text).unwrap();
        }
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bedplate"));
        command.arg("--store").arg(self.path("store")).args(arguments).current_dir(self.dir.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn passes(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refuses(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: no `{word}` in {said}");
        }
    }

    fn tree(&self) -> PathBuf {
        self.path("store/build/tree")
    }

    /// Nothing of a build is mounted or runs any more.
    fn assert_nothing_left(&self) {
        let ours = self.dir.path().to_str().unwrap();
        let begun = Instant::now();
        loop {
            let left: Vec<PathBuf> = processes_in(&self.tree());
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            if left.is_empty() && !mounts.contains(ours) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "left: {left:?}, or a mount beneath {ours}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Processes whose `/` or program lies beneath `tree`.
fn processes_in(tree: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers =
        entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    let own = |path: &PathBuf| {
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let confined = command.split(|byte| *byte == 0).any(|word| word == b"confine");
        let root = std::fs::read_link(path.join("root")).unwrap_or_default();
        (confined && String::from_utf8_lossy(&command).contains("bedplate") && is_of(path, tree))
            || root.starts_with(tree)
    };
    numbers.map(|entry| entry.path()).filter(own).collect()
}

/// Whether a process's mounts are those of a room made of `tree`.
fn is_of(process: &Path, tree: &Path) -> bool {
    let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    mounts.contains(tree.to_str().unwrap())
}

fn chroot(tree: &Path, arguments: &[&str]) -> String {
    let output = Command::new("chroot").arg(tree).args(arguments).output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&both));
    String::from_utf8(both).unwrap()
}

fn killed_when(mut child: Child, there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(child.try_wait().unwrap().is_none(), "the build ended before it was killed");
        assert!(begun.elapsed() < Duration::from_secs(120), "the build did not come so far");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_image_is_the_same_under_other_conditions_and_whole() {
    let place = Place::new();
    place.refuses(&["build", "small"], 4, &["has no lock", "bedplate lock"]);
    place.passes(&["lock", "small"]);

    // Killed while packages are unpacked, and while they are configured.
    for path in ["usr/bin", "var/lib/dpkg/triggers/Lock"] {
        let mut command = place.command(&["--quiet", "build", "small", "--output", "out"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        killed_when(child, || place.tree().join(path).exists());
        place.assert_nothing_left();
        assert!(!place.path("out/small.tar").exists());
    }

    let built =
        place.passes(&["build", "small", "--output", "out", "--verify-twice", "--keep-tree", "--explain"]);
    place.assert_nothing_left();
    for words in
        ["out/small.tar", "out/small.oci", "ms  unpack", "layer base", "layer engine", "layer configuration"]
    {
        assert!(built.contains(words), "{words}: {built}");
    }
    let tree = place.tree();

    // As dpkg itself would have left it.
    assert_eq!(chroot(&tree, &["dpkg", "--verify"]), "");
    assert_eq!(chroot(&tree, &["dpkg", "--audit"]), "");
    assert!(!chroot(&tree, &["apt-get", "check"]).contains("E:"));

    // What is made by chance or belongs to one host is not in it.
    assert_eq!(std::fs::read(tree.join("etc/machine-id")).unwrap(), b"");
    for gone in ["var/lib/systemd/random-seed", "var/lib/bedplate/lock", "var/log/dpkg.log", "etc/passwd-"] {
        let path = tree.join(gone);
        assert!(std::fs::read(&path).is_ok_and(|content| content.is_empty()) || !path.exists(), "{gone}");
    }
    let content = std::fs::read_to_string(tree.join("etc/sysctl.d/60-inference.conf")).unwrap();
    assert_eq!(content, "vm.max_map_count = 262144\n");

    // Its record names its parts, and the same image is not built again.
    let record = std::fs::read_to_string(place.path("out/small.record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let digest = record["parts"]["files"]["small.tar"]["digest"].as_str().unwrap();
    assert!(built.contains(digest), "{digest}: {built}");
    assert_eq!(place.passes(&["build", "small", "--output", "out"]), "nothing to do\n");
    let sbom = std::fs::read_to_string(place.path("out/small.spdx.json")).unwrap();
    assert!(sbom.contains("pkg:deb/debian/docker.io@"));

    // Held against its lock.
    let shown = tree.to_str().unwrap();
    assert!(place.passes(&["verify", shown]).contains("no difference"));
    let program = tree.join("usr/bin/env");
    let mut content = std::fs::read(&program).unwrap();
    content[100] ^= 1;
    std::fs::write(&program, content).unwrap();
    let output = place.run(&["verify", shown]);
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("`/usr/bin/env` of coreutils:amd64 has another content"), "{said}");
}

#[test]
fn a_host_that_bedplate_comes_to_later_has_nothing_of_it_and_a_damaged_package_is_fetched_again() {
    let place = Place::new();
    let image = IMAGE.replace("\"tar\", \"oci\"", "\"tar\"");
    let image = format!("{image}include = [\"packages\", \"files\", \"users\"]\n");
    std::fs::write(place.path("images/small.toml"), image).unwrap();
    place.passes(&["lock", "small"]);
    // A package that is damaged in the store.
    place.passes(&["bundle", "small", "--with-packages", "--output", "b"]);
    let lock = std::fs::read_to_string(place.path("profiles/small.lock")).unwrap();
    let (_, after) = lock.split_once("name = \"tzdata\"\n").expect("tzdata is in the lock");
    let digest = after.split_once("sha256 = \"").unwrap().1.split('"').next().unwrap();
    let package = place.path(&format!("store/sha256/{}/{digest}", &digest[..2]));
    let mut content = std::fs::read(&package).unwrap();
    // In the compressed data, far behind the control files.
    let at = content.len() - 1000;
    content[at] ^= 1;
    std::fs::remove_file(&package).unwrap();
    std::fs::write(&package, content).unwrap();
    place.passes(&["--quiet", "build", "small", "--output", "out", "--keep-tree"]);
    place.assert_nothing_left();
    // It is seen before it is used, moved aside and fetched again.
    assert_eq!(bedplate::digest::Digest::of(std::fs::read(&package).unwrap()).hex(), digest);

    let tree = place.tree();
    assert!(tree.join("etc/sysctl.d/60-inference.conf").exists() && tree.join("data/minerhome").is_dir());
    for own in ["var/lib/bedplate", "usr/local/bin/bedplate", "etc/systemd/system/bedplate-boot.service"] {
        assert!(!tree.join(own).exists(), "{own}");
    }
    let status = std::fs::read_to_string(tree.join("var/lib/dpkg/status")).unwrap();
    assert!(status.contains("Status: install ok installed") && !status.contains("Status: hold"));
    let shown = tree.to_str().unwrap();
    place.refuses(&["verify", shown], 2, &["--profile"]);
    assert!(place.passes(&["verify", shown, "--profile", "small"]).contains("no difference"));
}

#[test]
fn what_is_not_built_yet_is_said() {
    let place = Place::new();
    place.passes(&["lock", "small"]);
    std::fs::write(
        place.path("images/other.toml"),
        "schema = 1\nprofile = \"small\"\nformats = [\"tar\"]\ninclude = [\"packages\", \"files\"]\n",
    )
    .unwrap();
    place.refuses(&["build", "other"], 2, &["not in this version yet", "`include` without `users`"]);
    place.refuses(&["build", "none"], 2, &["none"]);
    place.refuses(&["verify", "profiles/small.lock"], 2, &["not in this version yet"]);
    place.refuses(&["verify", "nowhere"], 2, &["is not there"]);
    place.refuses(&["confine"], 2, &["bedplate build"]);
}
