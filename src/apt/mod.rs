//! Debian archives: release files and their signatures, package indices, versions, the closure of what is
//! named, and the packages themselves.
//!
//! | module | what lives there |
//! |---|---|
//! | [`catalog`](Catalog) | the packages of several indices, by name |
//! | `index` | one index, and the form it is kept in |
//! | `control` | control data: stanzas of fields |
//! | `release`, `signature` | release files and whether they are to be trusted |
//! | [`transport`] | one file from a mirror |

mod catalog;
mod control;
mod failure;
mod index;
mod release;
mod signature;
pub mod transport;

pub use catalog::{Catalog, MultiArch, PackageId, Record};
