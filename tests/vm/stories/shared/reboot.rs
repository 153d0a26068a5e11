//! After a boot the deployment comes back by itself, but never round the gate.

use std::time::Duration;

use crate::{
    stories::shared::secrets::assert_disk_has_no_secret,
    support::{served, turn},
};

/// Boot unit, secrets, checks and the engine's start, under emulation.
const BACK: Duration = Duration::from_mins(3);

#[test]
fn after_a_reboot_the_deployment_comes_back_behind_the_gate() {
    let _turn = turn();
    let (machine, site) = served();
    let identity = machine.sh("curl -sf http://127.0.0.1:8080/v1/miner/identity");
    let generation = machine.generation();
    // Nothing that comes back may need the registry.
    machine.untunnel();
    machine.reboot();

    machine.until(BACK, "curl -sf http://127.0.0.1:8080/readyz");
    machine.assert_serves(&site);
    assert_eq!(machine.sh("curl -sf http://127.0.0.1:8080/v1/miner/identity"), identity);
    assert_eq!(machine.generation(), generation);
    // Docker itself would not have started them: their restart policy is for failures only.
    let policies =
        machine.sh("docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' $(docker ps -q) | sort -u");
    assert_eq!(policies, "on-failure");
    // The secrets came back on tmpfs, and from nothing that can be read on the disk.
    assert_eq!(machine.mode("/run/bedplate/secrets"), "700 root:root");
    assert_disk_has_no_secret(machine, site.secrets);
    machine.tunnel();
}

#[test]
fn after_a_power_cut_a_host_that_fails_its_checks_serves_nothing() {
    let _turn = turn();
    let (machine, site) = served();
    machine.sh("chmod 0777 /data/minerhome && sync");
    machine.power_cut();

    // The boot unit has had its say: no job is left in systemd's queue.
    machine.until(BACK, "test -z \"$(systemctl list-jobs --no-legend)\"");
    assert_eq!(machine.containers(), "", "a deployment came up although a check fails");
    machine.script("bedplate doctor").expect(3).says("secret.modes");
    machine.sh("systemctl --failed --no-legend | grep -q bedplate");

    // Mended, it comes up through the gate.
    machine.sh("chmod 0700 /data/minerhome");
    machine.script("bedplate up -f try").expect(0);
    machine.assert_serves(&site);
}
