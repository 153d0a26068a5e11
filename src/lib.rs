//! bedplate makes a GPU host reproducible: it locks, provisions, checks, and only then lets the
//! first `up` happen.
//!
//! | module | what lives there |
//! |---|---|
//! | [`error`], [`digest`] | the error type and content digests, used by all |
//! | [`store`] | content-addressed files on disk |
//! | [`system`] | the host below: files, child processes, clock, network, users, signals |
//!
//! Imports point down only.

pub mod digest;
pub mod error;
pub mod store;
pub mod system;
