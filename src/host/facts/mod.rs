//! Facts: what is observed on a host, as plain data, gathered before anything is reasoned about.
//!
//! Sources are read side by side, each within a time limit: one that hangs makes only its own facts
//! unknown. Only what is [`Wanted`] is looked at.

mod awaited;
mod basics;
mod cdi;
mod clock;
mod data;
mod device_links;
mod docker;
mod engine_details;
mod fabric;
mod gather;
mod gpu;
pub mod hub;
mod kernel_log;
mod leaks;
mod limits;
mod model;
mod models;
pub mod need;
mod nodes;
mod of;
mod processes;
mod published;
pub mod record;
mod rest;
mod shape;
mod stamp;
mod tree;
mod upgrades;
mod volume;
pub mod wanted;
mod wanted_host;

pub(crate) use self::basics::{above, known};
#[cfg(test)]
pub(in crate::host) use self::cdi::specs;
pub use self::{
    awaited::Awaited,
    clock::Clock,
    data::*,
    device_links::DeviceLinks,
    docker::DEPLOYMENT_LABEL,
    engine_details::{EngineDetails, LIVE_RESTORE},
    fabric::FabricManager,
    gather::{Sources, gather},
    kernel_log::{KernelLog, Kill, Xid},
    leaks::{Leak, Leaks},
    limits::Limits,
    nodes::{DeviceNodes, Node},
    published::{PublishedContainer, PublishedPort},
    shape::{Kept, Shape},
    stamp::stamp,
    upgrades::{Upgrades, VendorToolkit},
    volume::Volume,
    wanted::{Wanted, registry_host},
    wanted_host::WantedOfHost,
};
pub(in crate::host) use self::{basics::parse_os, tree::Tree};
pub use crate::gpu::{
    Errors, Fabric, FabricState, Health, Holder, MemoryUse, Mode, Of, Reading, Remaps, Retired, Slowed,
};
