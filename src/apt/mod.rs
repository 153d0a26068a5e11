//! Debian archives: release files and their signatures, package indices, versions, the closure of what is
//! named, and the packages themselves.
//!
//! | module | what lives there |
//! |---|---|
//! | `archive` | from an archive's address to a verified [`Catalog`] |
//! | `catalog` | the packages of several indices, by name |
//! | `download` | packages by digest into the store |

mod catalog;
pub mod download;

pub use catalog::{Catalog, MultiArch, PackageId, Record};
