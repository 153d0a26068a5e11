//! Back to the generation before, without a network.

use crate::support::{Site, provisioned, turn};

#[test]
fn rollback_needs_no_network_and_leaves_state_alone() {
    let _turn = turn();
    let (machine, site) = provisioned();
    let first = machine.generation();

    let other = Site::new();
    other
        .change("vm.max_map_count = 262144", "vm.max_map_count = 400000")
        .change("bedplate/engine:1.0", "bedplate/engine:1.1")
        .change("[checks]", "[[file]]\npath = \"/etc/bedplate-story/b.conf\"\ncontent = \"b\"\n\n[checks]")
        .change(
            "[checks]",
            "[[mount]]\npath = \"/data/rollback\"\nmode = \"0700\"\nowner = \"root:root\"\n\n[checks]",
        );
    other.lock().provision(machine, &[]).expect(0);
    let second = machine.generation();
    assert!(second > first);
    assert_eq!(machine.sh("sysctl -n vm.max_map_count; cat /etc/bedplate-story/b.conf"), "400000\nb");
    machine.sh("echo precious >/data/rollback/state");
    machine
        .script(&format!("bedplate generations diff {first} {second}"))
        .expect(0)
        .says("60-inference.conf");

    machine.untunnel();
    machine.script("bedplate generations rollback").expect(0);
    assert_eq!(
        machine.sh("sysctl -n vm.max_map_count; cat /etc/sysctl.d/60-inference.conf"),
        "262144\nvm.max_map_count = 262144"
    );
    machine.sh("! test -e /etc/bedplate-story");
    assert_eq!(machine.sh("cat /data/rollback/state"), "precious", "state is never removed");
    // Its images were kept for it.
    machine.script("bedplate up -f try").expect(0);
    machine.assert_serves(&site);
    assert_eq!(machine.sh("docker exec try sh -c 'echo $ENGINE_VERSION'"), "1.0");

    // And forward again, by number; still without a network.
    machine.script(&format!("bedplate generations switch {second}")).expect(0);
    assert_eq!(machine.sh("sysctl -n vm.max_map_count"), "400000");
    machine.script("bedplate generations list").expect(0).says(&second.to_string());

    machine.tunnel();
    site.provision(machine, &[]).expect(0);
    site.provision(machine, &[]).expect(0).says("nothing to do");
}
