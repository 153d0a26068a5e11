//! The images of GPU nodes hold the driver's modules, built for their kernels: what is missing is the hardware.
//! Compiling the modules takes minutes for each image.

use crate::support::{Machine, Site};

#[test]
#[ignore = "long: `make test-full`"]
fn the_gpu_nodes_images_want_nothing_but_the_hardware() {
    for name in ["h100-vllm", "h100-bookworm"] {
        wants_nothing_but_the_hardware(name);
    }
}

fn wants_nothing_but_the_hardware(name: &str) {
    let (definition, profile) = (format!("images/{name}.toml"), format!("profiles/{name}.toml"));
    let site = Site::of(&[&definition, &profile, "profiles/patches/nvidia-550-pci-resize-resource.patch"]);
    site.change_in(&definition, "formats = [\"tar.zst\", \"oci\", \"disk\"]", "formats = [\"disk\"]");
    // Its container images lie in registries that are not asked here. They are not in the host's image.
    site.without_images(&profile);
    // Its modules are built on the way.
    let machine = Machine::of_image("gpu", &site, name, name);

    // Modules for this kernel, from a package, and nothing that could have compiled them. Debian's modprobe.d has them by the
    // names that the driver gives them.
    let modules = machine.sh("find /usr/lib/modules/$(uname -r) -name 'nvidia-current*.ko*'");
    for part in ["-uvm.", "-modeset.", "-drm.", "-peermem."] {
        assert!(modules.contains(part), "{part} is not among\n{modules}");
    }
    for module in modules.lines() {
        machine.sh(&format!("modinfo -F vermagic {module} | grep -q \"^$(uname -r) \""));
        machine
            .script(&format!("dpkg -S {module} || dpkg -S {}", module.trim_start_matches("/usr")))
            .expect(0);
    }
    machine.sh("! command -v cc gcc make dkms && ! ls -d /usr/src/linux-headers-* 2>/dev/null");

    // The kernel takes them; the driver finds no GPU, and says so in the kernel's log.
    let refused = machine.script("modprobe nvidia");
    assert!(refused.code != 0, "{refused}");
    refused.says("No such device");
    let log = machine.sh("dmesg");
    assert!(log.contains("NVRM: No NVIDIA GPU found."), "{log}");
    for fault in ["disagrees about version of symbol", "Unknown symbol", "Invalid module format"] {
        assert!(!log.contains(fault), "{log}");
    }
    // What fails is what needs a GPU, the boot unit among it: its checks blame the hardware.
    machine.script("systemctl is-system-running --wait");
    let failed = machine.sh("systemctl list-units --failed --plain --no-legend | cut -d ' ' -f 1");
    let only = ["bedplate-boot.service", "nvidia-persistenced.service", "systemd-modules-load.service"];
    assert!(failed.lines().all(|unit| only.contains(&unit)), "{failed}");
    assert!(failed.contains("bedplate-boot.service"), "{failed}");
    machine.script("bedplate doctor").expect(3).says("FAIL     gpu.pci");

    machine.assert_as_locked();
    machine.script("bedplate provision --dry-run").expect(0).says("nothing to do");
}
