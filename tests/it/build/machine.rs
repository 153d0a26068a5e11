//! The same image on another machine: a clean tree of another Debian release stands for it, with its own C library,
//! util-linux and shell. `make test-full` alone: it takes minutes for each image.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

use bedplate::lock::{self, Lock};

use crate::support::{debian, files::copy, profiles::without_images};

/// What every machine has that builds images, beside apt and what is essential.
const TOOLS: [&str; 3] = ["util-linux", "mount", "hostname"];

/// Goes into the tree `$1` as if it had booted there: paths, processes, host name and network are its own.
const ENTER: &str = r#"set -e
hostname second
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
cd "$1"; shift
exec chroot . "$@"
"#;

#[test]
#[ignore = "long: `make test-full`"]
fn every_shipped_image_is_the_same_on_another_release() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for name in ["profiles", "images", "deployments"] {
        copy(&root.join(name), &dir.path().join(name));
    }
    for profile in std::fs::read_dir(dir.path().join("profiles")).unwrap().flatten() {
        if profile.path().extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(profile.path()).unwrap();
            std::fs::write(profile.path(), without_images(&text)).unwrap();
        }
    }
    let other = other_release();
    debian::tree(other, &TOOLS, dir.path());
    // `BEDPLATE_IMAGES=minimal,try`: these alone.
    let chosen = std::env::var("BEDPLATE_IMAGES").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split(',').filter(|name| !name.is_empty()).collect();
    let mut images = shipped(&dir.path().join("images"));
    assert!(chosen.iter().all(|name| images.iter().any(|image| image == name)), "{chosen:?} of {images:?}");
    images.retain(|image| chosen.is_empty() || chosen.contains(&image.as_str()));
    for image in images {
        let begun = Instant::now();
        build_here(dir.path(), &image);
        let here = begun.elapsed();
        let begun = Instant::now();
        build_there(dir.path(), &image);
        let record = |from: &str| {
            std::fs::read_to_string(dir.path().join(from).join(format!("{image}.record.json"))).unwrap()
        };
        // The record has the digest of every part, and of what it was made from.
        assert_eq!(record("out"), record("root/work/out"), "{image}");
        let there = begun.elapsed().as_secs();
        eprintln!("{image}: the same on {other}; twice here in {} s, there in {there} s", here.as_secs());
        eprintln!("{}", record("out"));
        // A driver is in the record by its modules.
        let modules = lock_of(dir.path(), &image).modules.map(|modules| modules.package.sha256.to_string());
        assert_eq!(record("out").contains("\"modules\""), modules.is_some());
        assert!(modules.is_none_or(|digest| record("out").contains(&digest)), "{image}");
        for place in ["out", "root/work"] {
            std::fs::remove_dir_all(dir.path().join(place)).unwrap();
        }
    }
}

/// The names of the definitions in a directory.
fn shipped(images: &Path) -> Vec<String> {
    let paths = std::fs::read_dir(images).unwrap().flatten().map(|entry| entry.path());
    let mut names: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The profile that an image's definition names.
fn profile_of(dir: &Path, image: &str) -> String {
    let definition = std::fs::read_to_string(dir.join(format!("images/{image}.toml"))).unwrap();
    definition.split_once("profile = \"").unwrap().1.split('"').next().unwrap().to_owned()
}

/// The lock of that profile.
fn lock_of(dir: &Path, image: &str) -> Lock {
    let lock = dir.join(format!("profiles/{}.lock", profile_of(dir, image)));
    lock::parse("lock", &std::fs::read_to_string(lock).unwrap()).unwrap()
}

/// Debian's release before or after this machine's.
fn other_release() -> &'static str {
    let here = std::fs::read_to_string("/etc/os-release").unwrap();
    if here.contains("VERSION_CODENAME=trixie") { "bookworm" } else { "trixie" }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Builds an image twice on this machine, into `out`.
fn build_here(dir: &Path, image: &str) {
    let bedplate = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bedplate"));
        command.args(["--quiet", "--store", "store"]).args(arguments).current_dir(dir);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{image}: {arguments:?}: {}", said(&output));
        said(&output)
    };
    bedplate(&["lock", &profile_of(dir, image)]);
    let said = bedplate(&["build", image, "--output", "out", "--verify-twice"]);
    assert!(!said.contains("the second build has the same"), "{image}: {said}");
}

/// Builds an image in the other release's tree, from a store that has its packages, into `/work/out` there.
fn build_there(dir: &Path, image: &str) {
    let tree = dir.join("root");
    let work: PathBuf = tree.join("work");
    for name in ["profiles", "images", "deployments", "store/sha256"] {
        copy(&dir.join(name), &work.join(name));
    }
    // The package of the driver's modules is not brought along: they are built there again, and must be the same.
    if let Some(modules) = &lock_of(&work, image).modules {
        let hex = modules.package.sha256.hex();
        std::fs::remove_file(work.join("store/sha256").join(&hex[..2]).join(hex)).unwrap();
    }
    std::fs::copy(env!("CARGO_BIN_EXE_bedplate"), tree.join("usr/local/bin/bedplate")).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--net", "--", "sh", "-c", ENTER, "sh"])
        .arg(&tree)
        .args([
            "sh",
            "-c",
            "cd /work && bedplate --quiet --store store build \"$1\" --output out",
            "sh",
            image,
        ])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{image}: {}", said(&output));
}
