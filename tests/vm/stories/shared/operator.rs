//! An operator who is not root goes through sudo.

use crate::support::{Site, provisioned, turn};

#[test]
fn a_user_who_is_not_root_provisions_through_sudo() {
    let _turn = turn();
    let (machine, site) = provisioned();
    let other = Site::new();
    other.change("vm.max_map_count = 262144", "vm.max_map_count = 500000").lock();
    let host = "operator@stories";

    let run = other.bedplate(Some(machine), &["provision", "profiles/try.toml", "--host", host]).expect(0);
    for (name, value) in other.secrets.all() {
        assert!(!run.stdout.contains(value) && !run.stderr.contains(value), "the value of {name} is shown");
    }
    assert_eq!(machine.sh("sysctl -n vm.max_map_count"), "500000");
    assert_eq!(machine.mode("/etc/sysctl.d/60-inference.conf"), "644 root:root");
    // Nothing of the transfer stays in the operator's reach.
    assert_eq!(
        machine.sh(
            "find /home/operator /tmp /var/tmp -user operator -newer /etc/sysctl.d/60-inference.conf -type f"
        ),
        ""
    );
    // sudo writes its command line to the journal: no secret may be in it.
    let journal = machine.sh("journalctl --no-pager -a");
    for (name, value) in other.secrets.all() {
        assert!(!journal.contains(value), "the value of {name} is in the journal");
    }
    other
        .bedplate(Some(machine), &["provision", "profiles/try.toml", "--host", host])
        .expect(0)
        .says("nothing to do");

    site.provision(machine, &[]).expect(0);
}
