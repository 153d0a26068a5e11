//! `build` with the machine's real Debian archive: the same bytes under other conditions, a tree that dpkg finds nothing
//! amiss in, and nothing left behind.

mod failures;
mod golden;
mod kept;
mod machine;
mod made;
mod unprivileged;

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use bedplate::host::content::Places;
use tempfile::TempDir;

use crate::support::{
    docker::Dockerd,
    image::{Image, ImageSpec},
    registry::{Kind, Registry},
};

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
[[user]]
name = \"operator\"
groups = [\"docker\"]
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

    fn assert_nothing_left(&self) {
        assert_nothing_left(self.dir.path(), &self.tree());
    }
}

/// Nothing of a build in `place` is mounted or runs any more.
fn assert_nothing_left(place: &Path, tree: &Path) {
    let ours = place.to_str().unwrap();
    let begun = Instant::now();
    loop {
        let left: Vec<PathBuf> = processes_in(tree);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        if left.is_empty() && !mounts.contains(ours) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "left: {left:?}, or a mount beneath {ours}");
        std::thread::sleep(Duration::from_millis(50));
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

    let again =
        ["build", "small", "--output", "out", "--verify-twice", "--keep-tree", "--explain", "--verbose"];
    let output = place.run(&again);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("time since boot, user, clock\n"), "{said}");
    let built = String::from_utf8(output.stdout).unwrap();
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
    // Without this file the next dpkg runs every trigger of every package (dpkg, `trig_incorporate`).
    assert_eq!(std::fs::read(tree.join("var/lib/dpkg/triggers/Unincorp")).unwrap(), b"");
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
    pushes(&place, &record);
    let sbom = std::fs::read_to_string(place.path("out/small.spdx.json")).unwrap();
    assert!(sbom.contains("pkg:deb/debian/docker.io@"));

    unprivileged::builds_the_same(&place);

    // Each form is held against the record beside it, and its tree against its lock.
    for form in ["small.tar", "small.oci"] {
        let said = place.passes(&["verify", &format!("out/{form}")]);
        assert!(said.contains("of the image") && said.contains("no difference"), "{said}");
    }
    let archive = std::fs::read(place.path("out/small.tar")).unwrap();
    let program = std::fs::read(tree.join("usr/bin/env")).unwrap();
    let at = memchr::memmem::find(&archive, &program).unwrap() + 100;
    let mut changed = archive.clone();
    changed[at] ^= 1;
    std::fs::write(place.path("out/small.tar"), changed).unwrap();
    let output = place.run(&["verify", "out/small.tar", "--format", "json"]);
    assert_eq!(output.status.code(), Some(4));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["findings"][1]["path"], "/usr/bin/env", "{report}");
    assert_eq!((&report["counts"]["differences"], &report["image"]["record"]), (&2.into(), &"beside".into()));
    std::fs::write(place.path("out/small.tar"), archive).unwrap();

    // The unpacked tree is held against its lock as well.
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

/// What was built goes into a registry without being built again, and is there what the record names.
fn pushes(place: &Place, record: &serde_json::Value) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = runtime.block_on(Registry::start(Kind::Plain));
    let digest = record["parts"]["oci"]["manifest"]["digest"].as_str().unwrap();
    let [first, other] = ["fleet", "spare"].map(|name| format!("{}/{name}/small", registry.host));
    let (one, two) = (format!("{first}:1"), format!("{other}:1"));
    let build = ["build", "small", "--output", "out", "--push", &one, "--push", &two];
    let pushed = place.passes(&build);
    assert_eq!(pushed, format!("nothing to do\n{first}@{digest}\n{other}@{digest}\n"));
    let output = place.run(&build);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("0 blobs sent"), "{said}");
    let raw = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--raw", &format!("docker://{two}")])
        .output()
        .unwrap();
    assert_eq!(bedplate::digest::Digest::of(&raw.stdout).to_string(), digest);

    // A registry that is gone takes nothing from what was built.
    drop(registry);
    place.refuses(
        &build,
        1,
        &["refused the connection", "out/small.oci", "the same command pushes it again"],
    );
    assert_eq!(place.passes(&build[..4]), "nothing to do\n");
}

/// The images of a lock are in the tree by digest, and Docker has them from there, when no registry is left.
fn images_are_in(place: &Place, image: &Image, built: &str) {
    let store = place.tree().join("var/lib/bedplate/store");
    for blob in image.blobs().chain([&image.manifest]) {
        let hex = blob.digest.hex();
        let path = store.join("sha256").join(&hex[..2]).join(&hex);
        assert_eq!(std::fs::read(&path).unwrap(), blob.bytes);
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o400, 0, 0));
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    }
    let unit = place.tree().join("etc/systemd/system/bedplate-first-boot.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/bedplate provision\n"), "{unit}");

    // They are a layer of their own, the lowest, and not compressed once more.
    assert!(built.contains("layer images"), "{built}");
    let record = std::fs::read_to_string(place.path("out/small.record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let layer = record["parts"]["oci"]["layers"][0]["digest"].as_str().unwrap();
    let layer = place.path("out/small.oci/blobs/sha256").join(layer.strip_prefix("sha256:").unwrap());
    let mut files = Vec::new();
    for entry in tar::Archive::new(std::fs::File::open(layer).unwrap()).entries().unwrap() {
        let entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            files.push(entry.path().unwrap().file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    let mut wanted: Vec<String> =
        image.blobs().chain([&image.manifest]).map(|blob| blob.digest.hex()).collect();
    wanted.sort();
    assert_eq!(files, wanted);

    let lock = std::fs::read_to_string(place.path("profiles/small.lock")).unwrap();
    let lock = bedplate::lock::parse("small.lock", &lock).unwrap();
    let locked = &lock.images["engine"];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dockerd = Dockerd::start().await;
        let docker = dockerd.connect().await;
        let places = Places { store: Some(store), ..Places::default() };
        bedplate::host::content::load(&docker, locked, "bedplate/engine:g1", &places, |_| ()).await.unwrap();
        let reference = locked.pull_reference();
        let found = docker.image_by_digest(&reference, &locked.manifest, &locked.config, None);
        assert!(found.await.unwrap().is_some());
    });
}

#[test]
fn a_damaged_package_is_fetched_again_and_images_are_baked_in() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = runtime.block_on(Registry::start(Kind::Plain));
    let engine = runtime.block_on(registry.push_image("engine:1", &ImageSpec::default()));
    let profile = format!("{PROFILE}[images]\nengine = \"{}/engine:1\"\n", registry.host);
    std::fs::write(place.path("profiles/small.toml"), profile).unwrap();
    let image = IMAGE
        .replace("\"tar\", \"oci\"", "\"oci\"")
        .replace("[\"machine-id\"]", "[\"machine-id\", \"provision\"]");
    let include = "[\"packages\", \"files\", \"users\", \"bedplate\", \"profile\", \"images\"]";
    std::fs::write(place.path("images/small.toml"), format!("{image}include = {include}\n")).unwrap();
    place.passes(&["lock", "small"]);
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
    // What is damaged is seen before it is used, moved aside and fetched again.
    let built = place.passes(&["--quiet", "build", "small", "--output", "out", "--keep-tree", "--explain"]);
    drop(registry);
    images_are_in(&place, &engine, &built);
    assert_eq!(bedplate::digest::Digest::of(std::fs::read(&package).unwrap()).hex(), digest);
    place.assert_nothing_left();
}

#[test]
fn a_host_that_bedplate_comes_to_later_has_nothing_of_it() {
    let place = Place::new();
    let image = IMAGE.replace("\"tar\", \"oci\"", "\"tar\"");
    let image = format!("{image}include = [\"packages\", \"files\", \"users\"]\n");
    std::fs::write(place.path("images/small.toml"), image).unwrap();
    place.passes(&["lock", "small"]);
    place.passes(&["--quiet", "build", "small", "--output", "out", "--keep-tree"]);
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

    // Stopped while it is written: nothing under its name, nothing in the working directory.
    let output = ["--quiet", "build", "small", "--again", "--output", "stopped"];
    let mut child = place.command(&output).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let stopped = place.path("stopped");
    let writes = |id: u32| {
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|file| file.starts_with(&stopped) && file != stopped)
    };
    while !writes(child.id()) {
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(5));
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!tree.exists());
    let left: Vec<_> = std::fs::read_dir(&stopped).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");

    // Packages and bedplate, with the profile for the first boot to bring.
    let image = IMAGE
        .replace("\"tar\", \"oci\"", "\"tar\"")
        .replace("[\"machine-id\"]", "[\"machine-id\", \"provision\"]");
    let image = format!("{image}include = [\"packages\", \"bedplate\", \"profile\"]\n");
    std::fs::write(place.path("images/small.toml"), image).unwrap();
    place.passes(&["--quiet", "build", "small", "--output", "out", "--keep-tree"]);
    assert!(!tree.join("etc/sysctl.d/60-inference.conf").exists() && !tree.join("data").exists());
    assert!(!tree.join("var/lib/bedplate/current").exists());
    for there in ["usr/local/bin/bedplate", "etc/systemd/system/bedplate-boot.service"] {
        assert!(tree.join(there).exists(), "{there}");
    }
    let unit = std::fs::read_to_string(tree.join("etc/systemd/system/bedplate-first-boot.service")).unwrap();
    assert!(unit.contains("bedplate provision /var/lib/bedplate/profile.bundle\n"), "{unit}");
    let bundle = tree.join("var/lib/bedplate/profile.bundle");
    assert_eq!(std::fs::metadata(&bundle).unwrap().mode() & 0o7777, 0o600);
    let plan = place.passes(&["provision", bundle.to_str().unwrap(), "--root", shown, "--dry-run"]);
    assert!(plan.contains("/etc/sysctl.d/60-inference.conf") && plan.contains("/data/minerhome"), "{plan}");
    assert!(!plan.contains("docker.io"), "packages are there: {plan}");
}

#[test]
fn what_cannot_be_built_is_said() {
    let place = Place::new();
    place.passes(&["lock", "small"]);
    place.refuses(&["build", "none"], 2, &["none"]);
    let image = IMAGE.replace("\"tar\", \"oci\"", "\"tar\"");
    std::fs::write(place.path("images/other.toml"), image).unwrap();
    for (to, says) in [("h.example/a:1", "add \"oci\" to its `formats`"), ("H//a", "not an image reference")]
    {
        place.refuses(&["build", "other", "--push", to], 2, &[says]);
    }
    // Before anything is built or fetched.
    let nobody = format!("127.0.0.1:{}/a:1", crate::support::free_port());
    place.refuses(&["build", "small", "--push", &nobody], 1, &["refused the connection"]);
    assert!(!place.tree().exists());
    place.refuses(&["verify", "profiles/small.lock"], 2, &["is no image", "bedplate build"]);
    place.refuses(&["verify", "nowhere"], 2, &["is not there"]);
    place.refuses(&["confine"], 2, &["bedplate build"]);
}
