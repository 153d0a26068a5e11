//! Tests against real services on loopback. One binary; a module a subject.
#![allow(missing_docs, clippy::disallowed_methods)]

mod apt;
mod build;
mod checks;
mod cli;
mod deploy;
mod fault_list;
#[path = "../support/faults/mod.rs"]
mod faults;
mod images;
mod imports;
mod packages;
mod reference;
mod registry;
mod reports;
mod support;
mod verify;
mod workflow;
