//! The kernel on a real machine that GRUB boots: it goes back to an older one, and comes back by rollback.

use std::{cmp::Ordering, time::Duration};

use bedplate::version;

use crate::support::{Machine, Site};

/// Shutdown, firmware, boot loader, boot, and the boot unit's checks, under emulation.
const BACK: Duration = Duration::from_mins(5);

#[test]
#[ignore = "long: `make test-full`"]
fn an_older_kernel_is_what_starts_and_the_newer_one_comes_back_by_rollback() {
    let machine = Machine::by_grub("kernel");
    let newer = machine.sh("uname -r");
    let older = newest_before(&machine.kernels(), &newer);

    // What runs is what is locked: nothing asks for a reboot, and GRUB starts it by name from now on.
    let site = Site::new();
    site.change("[container]", &format!("[kernel]\npackage = \"linux-image-{newer}\"\n\n[container]"));
    site.lock().provision(&machine, &[]).expect(0);
    assert_default(&machine, &newer);
    site.provision(&machine, &[]).expect(0).says("nothing to do");
    let first = machine.generation();
    machine.script("bedplate up -f try").expect(0);
    machine.assert_serves(&site);

    // An older one: installed beside it, chosen, and gone on with after the restart, by itself.
    site.change(&newer, &older);
    site.lock();
    site.provision(&machine, &["--dry-run"]).expect(0).says(&format!("update-grub: kernel {older} starts"));
    let reason = format!("kernel {newer} runs, and {older} is locked");
    site.provision(&machine, &["--reboot"]).expect(10).says(&reason);
    machine.until(BACK, &format!("test \"$(uname -r)\" = {older}"));
    machine.until(BACK, "curl -sf http://127.0.0.1:8080/readyz");
    machine.assert_serves(&site);
    machine.script("bedplate doctor").expect(0);
    assert_eq!(machine.generation(), first + 1);
    machine.sh(&format!("test -e /boot/vmlinuz-{newer}"));
    site.provision(&machine, &[]).expect(0).says("nothing to do");

    // Back, with nothing but what is on the machine.
    machine.untunnel();
    machine.script("bedplate generations rollback").expect(10);
    assert_default(&machine, &newer);
    machine.reboot();
    assert_eq!(machine.sh("uname -r"), newer);
    machine.until(BACK, "curl -sf http://127.0.0.1:8080/readyz");
    machine.assert_serves(&site);
    assert_eq!(machine.generation(), first);
    machine.script("bedplate doctor").expect(0);
}

/// GRUB's own menu, made by its own tools, has an entry for the kernel and starts it.
#[track_caller]
fn assert_default(machine: &Machine, kernel: &str) {
    let defaults = machine.sh("grep -F 'set default=' /boot/grub/grub.cfg");
    let id = defaults.lines().filter_map(|line| line.split('"').nth(1)?.rsplit('>').next()).next_back();
    let id = id.unwrap_or_else(|| panic!("no default: {defaults}"));
    assert!(id.starts_with(&format!("gnulinux-{kernel}-advanced-")), "{defaults}");
    machine.sh(&format!("grep -qF -- \"\\$menuentry_id_option '{id}'\" /boot/grub/grub.cfg"));
}

/// The newest kernel of the same flavor and series that is older.
fn newest_before(packages: &str, newer: &str) -> String {
    let series: String = newer.split_inclusive('.').take(2).collect();
    let flavor = newer.split_once('-').expect("a release has a flavor").1;
    let releases = packages.lines().filter_map(|name| name.strip_prefix("linux-image-"));
    releases
        .filter(|release| release.starts_with(&series))
        .filter(|release| release.split_once('-').is_some_and(|(_, other)| other == flavor))
        .filter(|release| version::compare(release, newer) == Ordering::Less)
        .max_by(|one, other| version::compare(one, other))
        .unwrap_or_else(|| panic!("no kernel before {newer} in: {packages}"))
        .to_owned()
}
