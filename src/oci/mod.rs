//! Registries and image layouts: resolve, fetch, verify; what an image says of itself.
//!
//! | file | what it is |
//! |---|---|
//! | `reference`, `platform`, `facts`, `manifest`, `challenge` | parsers, without I/O |
//! | `config` | how registries are reached: plain data |
//! | `credentials` | Docker's configuration and its helpers |
//! | `failure` | every way it can go wrong, in words |
//! | `transport` | one HTTP exchange: TLS, time limits, redirects, bounded bodies |
//! | `registry` | mirrors, logging in, trying again |
//! | `layout` | image layouts on disk |
//! | `client` | from a source and a platform to a pinned image |
//! | `push` | from an image layout into a repository |
//!
//! Why a client of our own: `docs/decisions/registry-client.md`.

mod challenge;
mod client;
mod config;
mod credentials;
mod facts;
mod failure;
mod layout;
mod manifest;
mod platform;
mod push;
mod read;
mod reference;
mod registry;
mod transport;

pub use client::{Blob, Client, OpenBlob, Resolved, blobs};
pub use config::{Ca, ClientConfig, RegistryConfig};
pub use credentials::Credentials;
pub use facts::ImageFacts;
pub use layout::open_in_layout;
pub use platform::Platform;
pub use push::Pushed;
pub use reference::{Reference, Source};
