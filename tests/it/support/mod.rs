//! What tests share: services on loopback and things to put into them.
#![allow(dead_code)]

pub(crate) mod debian;
pub(crate) mod docker;
pub(crate) mod faulty;
pub(crate) mod files;
pub(crate) mod image;
#[path = "../../support/profiles.rs"]
pub(crate) mod profiles;
pub(crate) mod python;
pub(crate) mod registry;
#[path = "../../support/standins.rs"]
pub(crate) mod standins;
pub(crate) mod tls;

use std::net::TcpListener;

/// A port on loopback that nothing listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
