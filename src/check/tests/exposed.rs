//! What others can reach, and who may put something else in the place of what is private.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    facts::*,
    table::{Case, listen},
    *,
};
use crate::host::facts::*;
use Outcome::{Fail, Pass, Unknown, Warn};

fn publish(world: &mut World, name: &str, deployment: Option<&str>, addresses: &[IpAddr], port: u16) {
    let port = |address: &IpAddr| PublishedPort {
        address: *address,
        port,
        container_port: 5432,
        protocol: "tcp".to_owned(),
    };
    world.facts.published = Known::Ok(vec![PublishedContainer {
        name: name.to_owned(),
        image: "postgres:17".to_owned(),
        deployment: deployment.map(str::to_owned),
        host_network: false,
        ports: addresses.iter().map(port).collect(),
    }]);
}

const ALL_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALL_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn above(world: &mut World, path: &str, mode: u32, owner: &str, id: u32) {
    let state = PathState::Present { mode, owner: owner.to_owned(), ids: (id, id), directory: true };
    world.facts.parents.insert(path.to_owned(), Known::Ok(state));
}

pub(super) const CASES: &[Case] = &[
    Case("host.ports", Fail, "is taken by container `db` (`postgres:17`)", |w| {
        listen(w, Ipv4Addr::LOCALHOST, 8000, "docker-proxy (pid 9)");
        publish(w, "db", None, &[LOCAL], 8000);
    }),
    Case(
        "net.exposed",
        Warn,
        "container `db` (`postgres:17`) publishes 0.0.0.0:5432 (tcp), which Docker opens past the host's firewall",
        |w| publish(w, "db", None, &[ALL_V4, ALL_V6], 5432),
    ),
    Case("net.exposed", Warn, "publishes 192.0.2.7:8000", |w| {
        publish(w, "x", None, &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))], 8000);
    }),
    Case("net.exposed", Pass, "", |w| publish(w, "db", None, &[LOCAL], 5432)),
    // As the deployment says, and of a deployment that is not judged here.
    Case("net.exposed", Pass, "", |w| {
        w.deployments[0].publish = ALL_V4;
        publish(w, "qwen72b", Some("qwen72b"), &[ALL_V4, ALL_V6], 8000);
    }),
    Case("net.exposed", Pass, "", |w| publish(w, "other", Some("other"), &[ALL_V4], 9000)),
    // Further than its deployment says; as one says that another container does not belong to.
    Case("net.exposed", Warn, "container `qwen72b`", |w| {
        publish(w, "qwen72b", Some("qwen72b"), &[ALL_V4], 8000);
    }),
    Case("net.exposed", Warn, "container `thief`", |w| {
        w.deployments[0].publish = ALL_V4;
        publish(w, "thief", None, &[ALL_V4], 8000);
    }),
    Case("net.exposed", Unknown, "did not answer", |w| {
        w.facts.published = Known::unknown("Docker did not answer within 10 s");
    }),
    Case("secret.modes", Fail, "`/data`, above what is private, has mode 0775", |w| {
        above(w, "/data", 0o775, "root:root", 0);
    }),
    Case("secret.modes", Fail, "`/`, above what is private, has mode 1777", |w| {
        above(w, "/", 0o1777, "root:root", 0);
    }),
    Case("secret.modes", Fail, "`/data`, above what is private, belongs to miner:miner", |w| {
        above(w, "/data", 0o755, "miner:miner", 1000);
    }),
    Case("secret.modes", Fail, "`/run/bedplate`, above", |w| {
        above(w, "/run/bedplate", 0o757, "root:root", 0);
    }),
    Case("secret.modes", Unknown, "permission denied", |w| {
        w.facts.parents.insert("/data".into(), Known::unknown("permission denied"));
    }),
    Case("secret.modes", Unknown, "nothing was looked at", |w| w.facts.parents.clear()),
];

#[test]
fn what_can_be_reached_is_named_by_process_and_container() {
    let mut world = world();
    publish(&mut world, "db", None, &[ALL_V4, ALL_V6], 5432);
    if let Known::Ok(listeners) = &mut world.facts.listeners {
        for (port, process) in
            [(443, Some("nginx (pid 812)")), (5432, Some("docker-proxy (pid 9)")), (9, None)]
        {
            let process = process.map(str::to_owned);
            listeners.push(Listener { protocol: "tcp".to_owned(), address: ALL_V4, port, process });
        }
    }
    let finding = world.finding("net.exposed");
    for line in [
        "0.0.0.0:443: nginx (pid 812)",
        "0.0.0.0:5432: container `db`",
        "0.0.0.0:9: a process that this user may not see",
    ] {
        assert!(finding.evidence.iter().any(|seen| seen == line), "{line}: {:?}", finding.evidence);
    }
    // Both families are one port.
    assert_eq!(finding.outcome, Warn);
    assert!(!finding.because.contains("more"), "{}", finding.because);
}

#[test]
fn publishing_on_loopback_as_the_finding_says_mends_it() {
    let mut world = world();
    publish(&mut world, "db", None, &[ALL_V4], 5432);
    let next = world.finding("net.exposed").next.unwrap();
    assert!(next.contains("`127.0.0.1:5432:5432`"), "{next}");
    publish(&mut world, "db", None, &[LOCAL], 5432);
    assert_eq!(world.finding("net.exposed").outcome, Pass);
}

#[test]
fn a_directory_of_the_owner_may_be_above_what_is_theirs() {
    let mut world = world();
    for mount in &mut world.profile.mounts {
        mount.owner = "miner:miner".to_owned();
    }
    for path in ["/data/minerhome", "/data/minerhome/config.json"] {
        let Some(Known::Ok(PathState::Present { owner, ids, .. })) = world.facts.paths.get_mut(path) else {
            panic!("no {path}")
        };
        (*owner, *ids) = ("miner:miner".to_owned(), (1000, 1000));
    }
    above(&mut world, "/data", 0o755, "miner:miner", 1000);
    assert_eq!(world.finding("secret.modes").outcome, Pass);
    above(&mut world, "/data", 0o755, "other:miner", 1001);
    assert_eq!(world.finding("secret.modes").outcome, Fail);
}
