//! The disk of an image made here starts a machine that is whole: by UEFI, and nothing but it.

use std::path::Path;

use crate::support::{Machine, Site};

#[test]
fn the_minimal_image_boots_and_is_what_its_lock_says() {
    let site = Site::of(&["images/minimal.toml", "profiles/server-trixie.toml"]);
    // The disk alone: the other forms are the same tree.
    let formats = "formats = [\"tar.zst\", \"oci\", \"disk\"]";
    site.change_in("images/minimal.toml", formats, "formats = [\"disk\"]");
    let machine = Machine::of_image("image", &site, "server-trixie", "minimal");

    // It has started whole, and its root has grown to the end of the larger disk that it was given.
    assert_eq!(machine.sh("systemctl is-system-running --wait"), "running");
    let size: u64 = machine.sh("df --output=size -BG / | tail -n 1 | tr -d ' G'").parse().expect("a number");
    assert!(size > 10, "the root file system has {size} GiB");
    // An identity of its own, kept.
    machine.sh("grep -qx '[0-9a-f]\\{32\\}' /etc/machine-id && test -s /etc/ssh/ssh_host_ed25519_key.pub");

    // Docker runs a container of an image that comes with the test.
    machine.copy(Path::new("/bin/busybox"), "/root/busybox");
    let said = machine.sh("tar -C /root -c busybox | docker import - story >/dev/null\n\
         docker run --rm --network none story /busybox uname -r");
    assert_eq!(said, machine.sh("uname -r"));

    // The package database waits for nothing: no trigger is left for the next dpkg.
    machine.sh("dpkg --configure --pending && ! grep trigproc /var/log/dpkg.log");

    // As locked, and nothing to be done.
    machine.assert_as_locked();
    machine.script("bedplate provision").expect(0).says("nothing to do");
    machine.script("bedplate doctor").expect(0);
}
