//! What a build keeps for the next one gives the same image as a build from nothing, or is not used.

use std::collections::BTreeSet;

use super::made::{Made, profile};
use crate::apt::package::Package;

/// A kernel, and an initramfs that has a file of the tree in it.
fn packages() -> [Package; 2] {
    let update = "#!/bin/sh\nread -r first </etc/modules\n\
        echo \"$3: $first\" >\"/boot/initrd.img-$3\"\n";
    [
        Package::new("kernel", "1-1").directory("./boot").file("./boot/vmlinuz-1", "kernel"),
        Package::new("initramfs-tools", "1-1")
            .directory("./usr/sbin")
            .program("./usr/sbin/update-initramfs", update.as_bytes()),
    ]
}

const MAKES: &str = "making the initramfs of 1";
const TAKES: &str = "take the packages that are kept";

impl Made {
    /// The profile has these lines in two of its files.
    fn says(&self, sysctl: &str, modules: &str) {
        let text = profile(&["kernel", "initramfs-tools"]).replace("vm.max_map_count = 262144", sysctl);
        let file = format!("[[file]]\npath = \"/etc/modules\"\ncontent = \"{modules}\\n\"\n");
        self.place.put("profiles/small.toml", text + &file);
        self.run(&["lock", "small"]).exits(0);
    }

    /// What a build did, and the digests of what it wrote.
    fn steps(&self, more: &[&str]) -> (BTreeSet<String>, serde_json::Value) {
        let ran = self.run(&[&["build", "small", "--output", "out", "--format", "json"], more].concat());
        ran.exits(0);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let steps = report["spent"].as_array().unwrap().iter();
        let steps = steps.map(|step| step[0].as_str().unwrap().to_owned()).collect();
        let record: serde_json::Value =
            serde_json::from_str(&self.place.text("out/small.record.json")).unwrap();
        (steps, record["parts"].clone())
    }

    /// A build that may use what is kept is the same as one from nothing; what it did.
    #[track_caller]
    fn same_as_anew(&self) -> BTreeSet<String> {
        let (did, parts) = self.steps(&[]);
        // Not from what is kept, which stays as the first has left it.
        let kept = self.place.at("store/build/kept");
        let aside = self.place.at("kept");
        std::fs::rename(&kept, &aside).unwrap();
        let (anew, from_nothing) = self.steps(&["--again"]);
        assert!(anew.contains("unpack") && !anew.contains(TAKES), "{anew:?}");
        assert_eq!(parts, from_nothing);
        std::fs::remove_dir_all(&kept).unwrap();
        std::fs::rename(&aside, &kept).unwrap();
        did
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_gives_the_same_image_or_is_not_used() {
    let made = Made::new(&packages(), &["kernel", "initramfs-tools"]).await;
    made.says("vm.max_map_count = 1", "loop");
    let did = made.same_as_anew();
    assert!(did.contains("unpack") && did.contains(MAKES) && !did.contains(TAKES), "{did:?}");

    // A file that no initramfs has: the packages and the initramfs are there already.
    made.says("vm.max_map_count = 2", "loop");
    let did = made.same_as_anew();
    assert!(did.contains(TAKES) && !did.contains("unpack") && !did.contains(MAKES), "{did:?}");

    // One that it has.
    made.says("vm.max_map_count = 2", "dm-mod");
    let did = made.same_as_anew();
    assert!(did.contains(TAKES) && did.contains(MAKES), "{did:?}");

    // An initramfs that was changed is made anew.
    std::fs::write(made.place.at("store/build/kept/initramfs/0"), "other").unwrap();
    made.says("vm.max_map_count = 3", "dm-mod");
    let did = made.same_as_anew();
    assert!(did.contains(TAKES) && did.contains(MAKES), "{did:?}");

    // A tree that was written to is thrown away.
    std::fs::write(made.place.at("store/build/kept/tree/boot/vmlinuz-1"), "kernex").unwrap();
    made.says("vm.max_map_count = 4", "dm-mod");
    let did = made.same_as_anew();
    assert!(did.contains("unpack") && !did.contains(TAKES), "{did:?}");

    // Other packages are another tree.
    let text = made.place.text("profiles/small.toml").replace("\"kernel\", ", "");
    made.place.put("profiles/small.toml", text);
    made.run(&["lock", "small"]).exits(0);
    let did = made.same_as_anew();
    assert!(did.contains("unpack") && !did.contains(MAKES), "{did:?}");
    made.assert_sound();
    let mode = std::os::unix::fs::PermissionsExt::mode;
    let kept = std::fs::metadata(made.place.at("store/build/kept")).unwrap();
    assert_eq!(mode(&kept.permissions()) & 0o7777, 0o700);
}
