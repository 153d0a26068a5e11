//! Layer 1: what can be reached from other hosts: the agent's and Docker's API, and what containers publish.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    report::Outcome,
    subject::Subject,
    verdict::{Tally, Verdict},
};
use crate::{
    host::facts::{Docker, Facts, Listener, PublishedContainer},
    profile::{ContainerEngine, services::Role},
};

/// Docker's TCP ports: plain and TLS (IANA `docker`, `docker-s`).
const DOCKER: [u16; 2] = [2375, 2376];
/// The secret that guards the agent's API (deployment format, `miner_client`).
const AGENT_KEY: &str = "MINER_API_KEY";

pub(super) fn exposed(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let verdict = seen(subject, facts);
    if verdict.outcome != Outcome::Pass || facts.broken_daemon_json().is_none() {
        return verdict;
    }
    let unknown = Verdict::unknown("`/etc/docker/daemon.json` is not JSON: whether Docker's API would listen beyond this host is not known")
        .next("`bedplate explain docker.daemon`");
    // Where the profile has an engine, `docker.daemon` shuts the gate for it, in its own layer.
    if subject.profile.container.engine == ContainerEngine::None { unknown } else { unknown.tolerated() }
}

fn seen(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    let mut tally = Tally::default();
    match facts.daemon_json.as_result() {
        Ok(None) => tally.note("`/etc/docker/daemon.json`: not there"),
        // What listens is seen all the same.
        Ok(Some(configuration)) if configuration.broken.is_some() => {
            tally.note("`/etc/docker/daemon.json`: not JSON, so whether it names `hosts` is not known");
        }
        Ok(Some(configuration)) => {
            let open: Vec<&String> = configuration.hosts.iter().filter(|host| is_open(host)).collect();
            for host in &open {
                tally.bad(
                    format!("Docker's API listens on `{host}`: whoever reaches it is root"),
                    "remove it from `hosts` in `/etc/docker/daemon.json`, then `systemctl restart docker`",
                );
            }
            if open.is_empty() {
                tally.note("`/etc/docker/daemon.json`: no `hosts` beyond this host");
            }
        }
        Err(why) => tally.unknown(why),
    }
    published(&mut tally, subject, facts);
    let agent: Vec<_> =
        subject.wanted.ports().filter(|(_, service, _)| service.role == Role::Agent).collect();
    match facts.listeners.as_result() {
        Ok(listeners) => {
            let tcp = || listeners.iter().filter(|listener| listener.protocol == "tcp");
            for listener in tcp().filter(|l| DOCKER.contains(&l.port) && !l.address.is_loopback()) {
                tally.bad(
                    format!("port {} (Docker's API) listens on {}", listener.port, listener.address),
                    "remove `-H tcp://…` from the daemon's `hosts` or its unit, then `systemctl restart docker`",
                );
            }
            for (deployment, service, port) in &agent {
                // Published further on purpose is judged below; here: further than was asked for.
                let wider = |address: IpAddr| !address.is_loopback() && address != port.address;
                for listener in tcp().filter(|l| l.port == port.host_port && wider(l.address)) {
                    if port.address.is_unspecified() {
                        continue;
                    }
                    tally.bad(
                        format!(
                            "the API of `{}` listens on {}:{}, meant was {}",
                            service.name, listener.address, listener.port, port.address
                        ),
                        format!(
                            "`bedplate restart {}`; if it stays, another program has that port",
                            deployment.name
                        ),
                    );
                }
            }
            tally.good(format!("{} sockets listen; none of Docker's API beyond loopback", listeners.len()));
            reachable(&mut tally, listeners, facts);
        }
        Err(why) => tally.unknown(why),
    }
    for (deployment, service, port) in agent {
        if port.address.is_loopback() {
            tally.good(format!("the API of `{}` is meant for {}", service.name, port.address));
        } else if deployment.secrets.contains_key(AGENT_KEY) {
            tally.weak(
                format!(
                    "the API of `{}` is published on {}:{} (behind `{AGENT_KEY}`)",
                    service.name, port.address, port.host_port
                ),
                format!(
                    "publish it on loopback: `host_port: {}` in `{}.yaml`",
                    port.host_port, deployment.name
                ),
            );
        } else {
            tally.bad(
                format!(
                    "the API of `{}` is published on {}:{} without `{AGENT_KEY}`",
                    service.name, port.address, port.host_port
                ),
                format!(
                    "write `host_port: {}` in `{}.yaml`, or give it `{AGENT_KEY}`",
                    port.host_port, deployment.name
                ),
            );
        }
    }
    tally.verdict("neither Docker's nor the agent's API listens beyond loopback", "nothing listens")
}

/// Ports that containers publish on more than loopback and no deployment declares so. Docker sends them to the container
/// before the host's firewall sees them (Docker, "Packet filtering and firewalls": `ufw` and `firewalld` rules of the
/// input chain do not apply).
fn published(tally: &mut Tally, subject: &Subject<'_>, facts: &Facts) {
    let containers = match facts.published.as_result() {
        Ok(containers) => containers,
        // Without an engine nothing is published; that it is away is `docker.daemon`'s matter.
        Err(_) if matches!(facts.docker.ok(), Some(Docker::Away(_))) => {
            return tally.note("Docker does not answer: no container publishes a port now");
        }
        Err(why) if subject.profile.container.engine == ContainerEngine::None => {
            return tally.note(format!("containers' ports: {why}"));
        }
        // An engine that hangs is not the host's fault: `docker.daemon` shuts the gate for it, in its own layer.
        Err(why) if facts.docker.ok().is_none() => {
            return tally.note(format!("which ports containers publish was not looked at: {why}"));
        }
        Err(why) => return tally.unknown(format!("which ports containers publish: {why}")),
    };
    let mut declared = 0;
    for container in containers {
        let PublishedContainer { name, image, .. } = container;
        if container.host_network {
            tally.note(format!(
                "container `{name}` (`{image}`) shares the host's network: its ports are among the sockets"
            ));
        }
        // One line for a port on both `0.0.0.0` and `[::]`.
        let mut seen = BTreeSet::new();
        for port in container.ports.iter().filter(|port| !port.address.is_loopback()) {
            let own = |address: IpAddr| {
                address == port.address || address.is_unspecified() && port.address.is_unspecified()
            };
            let meant = subject.wanted.ports().any(|(deployment, _, wanted)| {
                container.deployment.as_deref() == Some(deployment.name.as_str())
                    && wanted.host_port == port.port
                    && own(wanted.address)
            });
            let other = container.deployment.as_ref().filter(|owner| {
                !subject.wanted.deployments.iter().any(|deployment| deployment.name == **owner)
            });
            let at = SocketAddr::new(port.address, port.port);
            if meant {
                declared += 1;
                tally.note(format!("container `{name}` publishes {at}, as its deployment says"));
            } else if let Some(owner) = other {
                tally.note(format!(
                    "container `{name}` publishes {at}: of deployment `{owner}`, which is not judged here"
                ));
            } else if seen.insert((port.port, port.protocol.clone())) {
                tally.weak(
                    format!(
                        "container `{name}` (`{image}`) publishes {at} ({}), which Docker opens past the host's firewall, and no deployment declares it",
                        port.protocol
                    ),
                    format!(
                        "publish it on loopback: `127.0.0.1:{}:{}` where `{name}` is started; or declare it in a deployment (`publish`)",
                        port.port, port.container_port
                    ),
                );
            }
        }
    }
    tally.good(format!("{} containers run; {declared} ports beyond loopback are declared", containers.len()));
}

/// What listens on more than loopback, by process or container: for who reads the report.
fn reachable(tally: &mut Tally, listeners: &[Listener], facts: &Facts) {
    let containers = facts.published.ok().map_or(&[][..], Vec::as_slice);
    for listener in listeners.iter().filter(|l| l.protocol == "tcp" && !l.address.is_loopback()) {
        let of = containers.iter().find(|container| {
            container.ports.iter().any(|port| port.port == listener.port && port.protocol == "tcp")
        });
        let who = match (of, &listener.process) {
            (Some(container), _) => format!("container `{}`", container.name),
            (None, Some(process)) => process.clone(),
            (None, None) => "a process that this user may not see".to_owned(),
        };
        tally.note(format!("{}: {who}", SocketAddr::new(listener.address, listener.port)));
    }
}

/// Whether an entry of the daemon's `hosts` is reachable from other hosts.
fn is_open(host: &str) -> bool {
    let Some(rest) = host.strip_prefix("tcp://") else { return false };
    let name = rest
        .strip_prefix('[')
        .and_then(|v6| v6.split_once(']'))
        .map_or_else(|| rest.split(['/', ':']).next().unwrap_or(rest), |(address, _)| address);
    name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_sockets_are_shut() {
        for shut in [
            "unix:///run/docker.sock",
            "fd://",
            "tcp://127.0.0.1:2375",
            "tcp://[::1]:2375",
            "tcp://localhost",
        ] {
            assert!(!is_open(shut), "{shut}");
        }
        for open in
            ["tcp://0.0.0.0:2375", "tcp://:2375", "tcp://[::]:2375", "tcp://10.0.0.5:2376", "tcp://gpu1"]
        {
            assert!(is_open(open), "{open}");
        }
    }
}
