//! A deployment comes up, serves, and stays as it is while nothing changes.

use crate::support::{served, turn};

#[test]
fn a_deployment_serves_and_a_second_up_changes_nothing() {
    let _turn = turn();
    let (machine, site) = served();

    machine.assert_serves(&site);
    // Without the key nobody is served.
    let code = machine.sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/v1/models");
    assert_eq!(code, "401");
    // The agent is registered, and its identity lies where it outlives the container, with a private mode.
    machine.sh("curl -sf http://127.0.0.1:8080/readyz");
    assert_eq!(machine.mode("/data/minerhome/config.json"), "600 root:root");
    // Nothing listens on more than loopback but ssh.
    let open =
        machine.sh("ss -Hltn | awk '{ print $4 }' | grep -vE '^(127\\.|\\[::1\\])' | grep -v ':22$' || true");
    assert_eq!(open, "", "these listen on more than loopback");

    let before = machine.containers();
    assert!(before.contains("try "), "{before}");
    machine.script("bedplate up -f try").expect(0);
    assert_eq!(machine.containers(), before, "a second `up` replaced a container");

    machine.script("bedplate status try").expect(0).says("try");
    machine
        .script("bedplate logs try --service try --tail 100000")
        .expect(0)
        .says("Application startup complete");
}

#[test]
fn a_deployment_stops_and_comes_up_again_with_the_same_identity() {
    let _turn = turn();
    let (machine, site) = served();
    let identity = machine.sh("curl -sf http://127.0.0.1:8080/v1/miner/identity");

    machine.script("bedplate stop try").expect(0);
    assert_eq!(machine.containers(), "");
    machine.script("bedplate restart try").expect(0);
    machine.assert_serves(&site);
    assert_eq!(machine.sh("curl -sf http://127.0.0.1:8080/v1/miner/identity"), identity);

    machine.script("bedplate rm try").expect(0);
    assert_eq!(machine.sh("docker ps -aq; docker network ls -q -f type=custom"), "");
    machine.sh("test -s /data/minerhome/config.json");
}

#[test]
fn an_engine_that_ends_ends_the_wait_with_its_last_lines() {
    let _turn = turn();
    let (machine, site) = served();
    // The same deployment under another name and port, whose engine fails while it loads.
    let deployment = "$(find -L /var/lib/bedplate/current -name '*-try.yaml')";
    machine.sh(&format!(
        "sed -e 's/^name: try$/name: failing/' -e 's/^port: 8000$/port: 8001/' \
         -e '/^miner_client:/,$d' {deployment} >/root/failing.yaml\n\
         printf 'extra_args: [\"--fail-with\", \"CUDA out of memory\"]\\n' >>/root/failing.yaml"
    ));
    let run = machine.script("bedplate up -f /root/failing.yaml --timeout 300");
    machine.script("bedplate rm --purge failing");
    assert!(run.code == 1 || run.code == 3, "{run}");
    run.says("CUDA out of memory");
    // The one that served is as it was.
    machine.assert_serves(&site);
}
