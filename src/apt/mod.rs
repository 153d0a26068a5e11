//! Debian archives: release files and their signatures, package indices, versions, the closure of what is
//! named, and the packages themselves.
//!
//! | module | what lives there |
//! |---|---|
//! | `archive` | from an archive's address to a verified [`Catalog`] |
//! | `catalog` | the packages of several indices, by name |
//! | `download` | packages by digest into the store |
//! | `index` | one index, and the form it is kept in |
//! | `control` | control data: stanzas of fields |

mod catalog;
mod control;
pub mod download;
mod index;

pub use catalog::{Catalog, MultiArch, PackageId, Record};
