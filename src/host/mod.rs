//! The host: what it has, provisioning it, its generations and its secrets.
//!
//! One run is: [`provision::hold`] the host, [`provision::observe`] it, [`crate::plan::make`] a plan,
//! [`provision::apply`] it. Checks read [`facts`].

mod apply;
mod boot_menu;
pub mod cdi;
pub mod content;
pub mod facts;
pub mod generations;
pub mod layout;
mod observe;
pub mod packages;
pub mod provision;
pub mod secrets;
pub mod smoke;
mod steps;
#[cfg(test)]
mod tests;
