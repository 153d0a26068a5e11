//! Builds that fail or are ended: what is said, what is left behind (nothing), and that the next one is as if nothing had
//! been.

use std::{process::Stdio, time::Duration};

use super::made::Made;
use crate::{
    apt::package::Package,
    cli::{Random, disk::Small},
};

/// A package with this script.
fn with_script(version: &str, name: &str, script: &str) -> Package {
    Package::new("broken", version).script(name, script)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_to_be_had_is_named() {
    let made = Made::new(&[Package::new("tool", "1-1")], &["tool"]).await;
    let first = made.build();
    let lock = made.place.text("profiles/small.lock");
    let (_, after) = lock.split_once("name = \"tool\"\n").unwrap();
    let digest = after.split_once("sha256 = \"").unwrap().1.split('"').next().unwrap().to_owned();
    let stored = made.place.at(&format!("store/sha256/{}/{digest}", &digest[..2]));
    let package = std::fs::read(&stored).unwrap();
    std::fs::remove_file(&stored).unwrap();
    made.lose_packages();
    let output = made.output();
    let ran = made.run(&["build", "small", "--output", "out", "--again"]);
    ran.is_refusal(1, &["package `tool`", "cannot be had"], "--with-packages");
    assert_eq!(made.output(), output);
    made.assert_sound();
    // Once it is there, no archive is asked.
    std::fs::write(&stored, package).unwrap();
    assert_eq!(made.build(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_fails_is_shown_with_its_last_words() {
    let fails = "#!/bin/sh\nsleep 1000 &\necho first words >&2\necho the disk is made of cheese\nexit 7\n";
    let made = Made::new(&[with_script("1-1", "postinst", fails)], &["broken"]).await;
    let build = ["build", "small", "--output", "out"];
    let ran = made.run(&build);
    ran.is_refusal(
        1,
        &["broken", "post-installation script", "exit status 7", "the disk is made of cheese"],
        "the package of that script is at fault",
    );
    made.assert_sound();
    assert!(made.output().is_empty(), "{:?}", made.output());

    // The same before its files come.
    made.change(&[with_script("2-1", "preinst", fails)]);
    made.run(&["lock", "small", "--update", "package:broken"]).exits(0);
    let ran = made.run(&build);
    ran.is_refusal(1, &["`preinst` of broken 2-1", "exit status 7", "cheese"], "is at fault");
    made.assert_sound();

    // Mended, it is built in the same place.
    made.change(&[with_script("3-1", "postinst", "#!/bin/sh\necho well >/var/well\n")]);
    made.run(&["lock", "small", "--update", "package:broken"]).exits(0);
    made.build();
    made.run(&["verify", "out/small.tar.zst", "--profile", "small"]).exits(0);
    made.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_blamed() {
    let filler = Package::new("filler", "1-1").file("./usr/share/filler/data", &"fill ".repeat(1 << 20));
    let made = Made::new(&[filler], &["filler"]).await;
    let first = made.build();
    for name in made.output() {
        let path = made.place.at(&format!("out/{name}"));
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    // Where the tree is made, with room for a part of it.
    let small = Small::mount(made.place.at("store/build"), 4096);
    let ran = made.run(&["build", "small", "--output", "out"]);
    ran.is_refusal(1, &["no space left"], "df -h");
    let left: Vec<_> = std::fs::read_dir(made.place.at("store/build")).unwrap().collect();
    assert_eq!(left.len(), 1, "the lock alone is left: {left:?}");
    drop(small);
    made.assert_sound();
    assert!(made.output().is_empty(), "{:?}", made.output());
    // Where the image is written.
    let small = Small::mount(made.place.at("out"), 1024);
    let ran = made.run(&["build", "small", "--output", "out"]);
    ran.is_refusal(1, &["no space left"], "df -h");
    let left: Vec<String> =
        made.output().into_iter().filter(|name| !name.ends_with(".record.json")).collect();
    assert!(left.is_empty(), "{left:?}");
    drop(small);
    assert_eq!(made.build(), first);
    made.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_killed_anywhere_leaves_nothing_and_the_next_gives_the_same() {
    let slow = "#!/bin/sh\nsleep 0.3\n";
    let packages =
        [Package::new("early", "1-1").script("preinst", slow), with_script("1-1", "postinst", slow)];
    let made = Made::new(&packages, &["early", "broken"]).await;
    let begun = std::time::Instant::now();
    let first = made.build();
    let whole = begun.elapsed();
    let kills = if std::env::var_os("BEDPLATE_FULL").is_some() { 100 } else { 10 };
    let mut random = Random(29);
    let mut killed = 0;
    for number in 1..=kills {
        // From nothing, or from what an earlier one has kept.
        let again: &[&str] = if number % 2 == 0 { &["--again"] } else { &[] };
        let _ = std::fs::remove_file(made.place.at("out/small.record.json"));
        let mut command = made.command(&[&["build", "small", "--output", "out"], again].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let after = whole.as_micros() as u64 * (random.next() % 1000) / 1000;
        std::thread::sleep(Duration::from_micros(after));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        made.assert_sound();
        if number % 5 == 0 {
            assert_eq!(made.build(), first, "after {number} kills");
            assert!(!made.tree().exists());
        }
    }
    assert!(killed > 0, "no build was still running when it was killed");
    assert_eq!(made.build(), first);
    let mut output = made.output();
    output.sort();
    let whole = ["small.oci", "small.record.json", "small.spdx.json", "small.tar", "small.tar.zst"];
    assert_eq!(output, whole);
    made.run(&["verify", "out/small.oci"]).exits(0);
}
