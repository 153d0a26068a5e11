//! Facts: what is observed on a host, as plain data, gathered before anything is reasoned about.
//!
//! Sources are read side by side, each within a time limit: one that hangs makes only its own facts
//! unknown. Only what is [`Wanted`] is looked at.

mod basics;
mod cdi;
mod data;
mod docker;
mod fabric;
mod gather;
mod gpu;
pub mod hub;
mod kernel_log;
mod model;
pub mod need;
mod nodes;
mod of;
mod tree;
pub mod wanted;

pub(in crate::host) use self::basics::parse_os;
pub use self::{
    data::*,
    docker::DEPLOYMENT_LABEL,
    fabric::FabricManager,
    gather::{Sources, gather},
    kernel_log::{KernelLog, Xid},
    nodes::{DeviceNodes, Node},
    wanted::{Wanted, registry_host},
};
pub use crate::gpu::{
    Errors, Fabric, FabricState, Health, Holder, MemoryUse, Mode, Of, Reading, Remaps, Retired, Slowed,
};
