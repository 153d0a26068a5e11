//! A disk that is full: a small memory file system stands for it. Mounting needs root.

use std::{fs, io::Write, path::PathBuf, process::Command};

use super::{Place, tree::tree};

/// A mounted file system that holds `kilobytes`; unmounted with this value.
pub(crate) struct Small(PathBuf);

impl Small {
    pub(crate) fn mount(at: PathBuf, kilobytes: u32) -> Self {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={kilobytes}k");
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&at).status().unwrap();
        assert!(done.success(), "mounting a tmpfs failed: run this test as root");
        Self(at)
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 1024]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_lock_that_does_not_fit_leaves_the_old_one() {
    let place = Place::with("", "");
    let small = Small::mount(place.at("profiles"), 64);
    place.put("profiles/p.toml", super::profile("", ""));
    place.run(["lock", "p"]).exits(0);
    place.edit(
        "profiles/p.toml",
        "gpu-access = \"none\"",
        "gpu-access = \"none\"\n\n[checks]\ndisk-free-gib = 7",
    );
    small.fill();
    place.refuses(["lock", "p"], 1, &["profiles/p.lock`", "no space left"], "df -h");
    place.refuses(["bundle", "p", "-o", "profiles/x.tar"], 4, &["stale"], "bedplate lock");
    fs::remove_file(place.at("profiles/filler")).unwrap();
    place.run(["lock", "p"]).exits(0);
    place.run(["lock", "p", "--check"]).exits(0);
}

#[test]
fn a_bundle_that_does_not_fit_is_not_there() {
    let place = Place::with("", "");
    let small = Small::mount(place.at("out"), 64);
    small.fill();
    place.refuses(["bundle", "p", "-o", "out/x.tar"], 1, &["out/x.tar`", "no space left"], "df -h");
}

#[test]
fn a_tree_that_is_full_goes_on_when_there_is_room() {
    let place = tree();
    let small = Small::mount(place.at("root"), 512);
    fs::create_dir(place.at("root/etc")).unwrap();
    let ran = place.run(["provision", "p", "--root", "root"]);
    ran.is_refusal(1, &["no space left"], "make room");
    ran.says("run the same command again");
    assert!(!place.at("root/var/lib/bedplate/current").exists(), "nothing half done is current");
    assert!(!place.at("root/usr/local/bin/bedplate").exists(), "nothing half written has its name");
    // The same again says the same.
    place.run(["provision", "p", "--root", "root"]).is_refusal(1, &["no space left"], "make room");
    let more = Command::new("mount").args(["-o", "remount,size=400m"]).arg(&small.0).status().unwrap();
    assert!(more.success());
    place.run(["provision", "p", "--root", "root"]).exits(0);
    place.run(["provision", "p", "--root", "root"]).exits(0).prints("nothing to do");
    assert!(!place.at("root/var/lib/bedplate/journal").exists());
}

#[test]
fn a_directory_that_cannot_be_written() {
    let place = Place::with("", "");
    let small = Small::mount(place.at("profiles"), 64);
    place.put("profiles/p.toml", super::profile("", ""));
    let read_only = Command::new("mount").args(["-o", "remount,ro"]).arg(&small.0).status().unwrap();
    assert!(read_only.success());
    place.refuses(["lock", "p"], 1, &["profiles/p.lock`"], "");
}
