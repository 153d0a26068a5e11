//! Debian archives: release files and their signatures, package indices, versions, the closure of what is
//! named, and the packages themselves.
//!
//! | module | what lives there |
//! |---|---|
//! | [`archive`] | from an archive's address to a verified [`Catalog`] |
//! | `release`, `signature` | release files, and whether they are to be trusted |
//! | [`transport`] | one file from a mirror |
//! | `control`, `index` | stanzas of fields; one index, and the form it is kept in |
//! | [`catalog`](Catalog) | the packages of several indices, by name |
//! | [`version`], [`relation`] | Debian's version order; fields such as `Depends` |
//! | [`closure`] | from names to everything that they need; `explain`: why there is no such closure |
//! | [`download`] | packages by digest into the store |
//! | [`sources`], [`conf`] | the machine's own configuration of apt: which mirrors it uses; the text of apt.conf(5) |
//! | [`deb`] | the packages themselves: facts of a `.deb`, hostile ones refused |

pub mod archive;
mod catalog;
pub mod closure;
pub mod conf;
pub(crate) mod control;
pub mod deb;
pub mod download;
mod explain;
mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
mod index;
pub mod relation;
mod release;
mod remote;
mod signature;
pub mod sources;
pub mod transport;

pub use catalog::{Catalog, MultiArch, PackageId, Record};

pub use crate::version;
