//! What containers publish on the host, whoever made them.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::docker::DEPLOYMENT_LABEL;
use crate::docker::Reachable;

/// A container that runs, with what it publishes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedContainer {
    /// Its name.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The deployment it belongs to, where bedplate made it.
    pub deployment: Option<String>,
    /// Whether it shares the host's network: what it listens on is the host's.
    pub host_network: bool,
    /// Published ports.
    pub ports: BTreeSet<PublishedPort>,
}

/// A port of a container on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Address on the host.
    pub address: IpAddr,
    /// Port on the host.
    pub port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

impl From<Reachable> for PublishedContainer {
    fn from(container: Reachable) -> Self {
        Self {
            deployment: container.labels.get(DEPLOYMENT_LABEL).cloned(),
            name: container.name,
            image: container.image,
            host_network: container.host_network,
            ports: container
                .ports
                .into_iter()
                .map(|port| PublishedPort {
                    address: port.address,
                    port: port.host_port,
                    container_port: port.container_port,
                    protocol: port.protocol,
                })
                .collect(),
        }
    }
}
