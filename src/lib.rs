//! bedplate makes a GPU host reproducible: it locks, provisions, checks, and only then lets the
//! first `up` happen.
//!
//! Features are the rooms, adaptors to the outside world the cellar, the command line the porch.
//! Imports point down only: `cli` → features → pure modules, features → adaptors → `system`;
//! adaptors never import features, pure modules or one another. `tests/it/imports.rs` enforces it.

pub mod check;
pub mod digest;
pub mod docker;
pub mod error;
pub mod gpu;
pub mod host;
pub mod lock;
pub mod oci;
pub mod profile;
pub mod progress;
pub mod store;
pub mod system;
