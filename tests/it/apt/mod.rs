//! Archives and their packages: Debian's own as it is, and others made and signed on the spot, served on loopback.
//!
//! One made archive stands for Ubuntu's, a flat one for a vendor's. What the real apt makes of the same archives is
//! asked too, so that a mistake in their making does not pass for a refusal.

pub(crate) mod archive;
mod carrying;
pub(crate) mod fixtures;
pub(crate) mod keys;
mod library;
pub(crate) mod locking;
mod modules;
pub(crate) mod oracle;
pub(crate) mod package;
mod reading;
mod refusals;
pub(crate) mod server;
