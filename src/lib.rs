//! bedplate makes a GPU host reproducible: it locks, provisions, checks, and only then lets the
//! first `up` happen.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`], [`ui`] | the porch: one file a verb; tables, progress, errors, exit codes |
//! | [`profile`], [`lock`], [`plan`] | pure: what is wanted, what it is, what is to do |
//! | [`build`] | host images, bit for bit the same anywhere |
//! | [`host`] | facts, provisioning, generations |
//! | [`check`] | checks by layer, readiness, the gate |
//! | [`deploy`] | a running deployment |
//! | [`fleet`] | hosts reached over SSH |
//! | [`oci`], [`apt`], [`docker`], [`gpu`] | adaptors: registries, Debian archives, the container engine, NVML |
//! | [`store`], [`system`] | content-addressed files; files, processes, clock, network |
//! | [`error`], [`digest`], [`reference`], [`version`], [`progress`] | the foundation, used by all |
//!
//! Imports point down only: `cli` → features → pure modules, features → adaptors → `system`;
//! adaptors never import features, pure modules or one another. `tests/it/imports.rs` enforces it.

pub mod digest;
pub mod error;
pub mod progress;
pub mod reference;
pub mod version;

pub mod cli;
pub mod ui;

pub mod build;
pub mod check;
pub mod deploy;
pub mod fleet;
pub mod host;

pub mod lock;
pub mod plan;
pub mod profile;

pub mod apt;
pub mod docker;
pub mod gpu;
pub mod oci;

pub mod store;
pub mod system;
