//! A fresh machine without Docker becomes the profile's host, once, from one file and cut off from every network.

use crate::support::{Machine, Site, installed_packages, locked_packages};

#[test]
fn a_fresh_machine_is_provisioned_and_a_second_run_has_nothing_to_do() {
    let machine = Machine::cut_off("provision");
    machine.sh("! command -v dockerd && ! ls /etc/systemd/system/docker.service 2>/dev/null");
    let site = Site::new();
    site.lock();
    let all = ["bundle", "profiles/try.toml", "--with-packages", "--with-images", "-o", "try.bundle"];
    site.bedplate(None, &all).expect(0);
    let provision = |more: &[&str]| {
        let arguments = [&["provision", "try.bundle", "--host", "provision"], more].concat();
        site.bedplate(Some(&machine), &arguments)
    };

    // A dry run shows the plan and changes nothing.
    let dry = provision(&["--dry-run"]).expect(0).says("docker.io").says("/etc/sysctl.d/60-inference.conf");
    assert!(dry.stdout.contains("/data/minerhome"), "{dry}");
    machine.sh(
        "! command -v dockerd && ! test -e /data && ! test -e /etc/sysctl.d/60-inference.conf && ! test -e /var/lib/bedplate/current",
    );

    let first = provision(&[]).expect(0);
    for (name, value) in site.secrets.all() {
        assert!(
            !first.stdout.contains(value) && !first.stderr.contains(value),
            "the value of {name} is shown"
        );
    }
    assert_eq!(machine.generation(), 1);
    assert_eq!(machine.mode("/data/minerhome"), "700 root:root");
    assert_eq!(machine.mode("/data/huggingface"), "755 root:root");
    assert_eq!(machine.mode("/etc/sysctl.d/60-inference.conf"), "644 root:root");
    assert_eq!(machine.sh("cat /etc/sysctl.d/60-inference.conf"), "vm.max_map_count = 262144");
    assert_eq!(machine.mode("/run/bedplate/secrets"), "700 root:root");
    assert_eq!(machine.sh("findmnt -n -o FSTYPE -T /run/bedplate/secrets"), "tmpfs");
    // Files of tmpfs: none wider than 0400.
    machine.sh("test -z \"$(find /run/bedplate/secrets -type f -perm /0377)\"");

    // Every image of the lock is there. They were loaded, not pulled: Docker knows them by their configuration.
    let lock = site.read("profiles/try.lock");
    let configurations: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("config = \"")?.strip_suffix('"')).collect();
    assert_eq!(configurations.len(), 3, "engine, agent, exporter:\n{lock}");
    let present = machine.sh("docker images -q --no-trunc");
    for digest in configurations {
        assert!(present.contains(digest), "{digest} is not among\n{present}");
    }

    // Every package of the lock is installed at its version, and held there.
    let wanted = locked_packages(&lock);
    assert!(wanted.len() > 50, "{}", wanted.len());
    let installed = installed_packages(&machine);
    for (name, version) in &wanted {
        assert_eq!(installed.get(name), Some(version), "{name}");
    }
    let held = machine.sh("apt-mark showhold");
    assert!(held.lines().any(|name| name == "docker.io" || name == "docker.io:amd64"), "{held}");

    // The second plan is empty, and leaves no trace.
    let before = machine.sh("find /var/lib/bedplate /etc /data -xdev -printf '%p %m %U %G %T@\\n' | sort");
    provision(&[]).expect(0).says("nothing to do");
    let after = machine.sh("find /var/lib/bedplate /etc /data -xdev -printf '%p %m %U %G %T@\\n' | sort");
    assert_eq!(before, after, "a run with nothing to do changed something");
    assert_eq!(machine.generation(), 1);

    // What drifted is put right, under the same profile.
    machine.sh("chmod 0777 /data/minerhome && echo 'vm.max_map_count = 1' >/etc/sysctl.d/60-inference.conf");
    provision(&[]).expect(0);
    assert_eq!(machine.mode("/data/minerhome"), "700 root:root");
    assert_eq!(machine.sh("cat /etc/sysctl.d/60-inference.conf"), "vm.max_map_count = 262144");

    // Layers 1 to 3 on the host itself, by the program that came with it.
    for command in ["doctor", "toolkit verify", "runtime prepare --engine vllm"] {
        machine.script(&format!("bedplate {command}")).expect(0);
        let report = machine.script(&format!("bedplate {command} --format json")).expect(0);
        let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("the report is JSON");
        let findings = report["findings"].as_array().expect("findings");
        assert!(findings.iter().any(|finding| finding["outcome"] == "pass"), "nothing passed: {report:#}");
        for finding in findings {
            // No source of time can be reached: that is said, and does not shut the gate.
            let clock = finding["id"] == "host.clock" && finding["weight"] == "advisory";
            let bad = finding["outcome"] == "fail" || finding["outcome"] == "unknown" && !clock;
            assert!(!bad, "{finding:#}");
        }
    }
}
