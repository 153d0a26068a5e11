//! Hosts reached from here: over OpenSSH, with the operator's own configuration.

pub mod ssh;
pub mod wire;
