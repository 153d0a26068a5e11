//! What a host can be in the way of: each is an error that names it, and nothing is half done.

use crate::support::{provisioned, turn};

#[test]
fn without_docker_nothing_is_begun_and_the_message_says_how_to_start_it() {
    let _turn = turn();
    let (machine, site) = provisioned();
    site.change("vm.max_map_count = 262144", "vm.max_map_count = 600000").lock();
    let generation = machine.generation();

    machine.sh("systemctl stop docker.socket docker.service");
    let run = site.provision(machine, &[]);
    machine.sh("systemctl start docker.service");
    run.expect(1).says("systemctl start docker");
    assert_eq!(machine.generation(), generation);
    assert_eq!(machine.sh("cat /etc/sysctl.d/60-inference.conf"), "vm.max_map_count = 262144");
}

#[test]
fn a_path_through_a_link_is_refused() {
    let _turn = turn();
    let (machine, site) = provisioned();
    site.change("path = \"/data/huggingface\"", "path = \"/data/linked/cache\"");
    let deployment = site.path("deployments/try.yaml");
    let text = site.read("deployments/try.yaml");
    std::fs::write(deployment, format!("{text}hf_cache: /data/linked/cache\n")).expect("written");
    site.lock();
    machine.sh("mkdir -p /root/elsewhere && ln -sfn /root/elsewhere /data/linked");

    let run = site.provision(machine, &[]);
    machine.sh("rm /data/linked; test -z \"$(ls -A /root/elsewhere)\"");
    assert_ne!(run.code, 0, "{run}");
    run.says("/data/linked");
}

#[test]
fn two_provisions_at_once_are_one_too_many() {
    let _turn = turn();
    let (machine, site) = provisioned();
    // Holds the host's lock as another run would, for as long as its standard input is open.
    let held = "exec 9>/run/bedplate/lock; flock -n 9 || exit 9; bedplate provision; echo code=$?";
    let run = machine.script(held).expect(0);
    assert!(run.stdout.contains("code=1"), "{run}");
    site.provision(machine, &[]).expect(0).says("nothing to do");
}
