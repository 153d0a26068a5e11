//! Debian archives: release files and their signatures, package indices, versions, the closure of what is
//! named, and the packages themselves.
//!
//! | module | what lives there |
//! |---|---|
//! | `archive` | from an archive's address to a verified [`Catalog`] |
//! | `catalog` | the packages of several indices, by name |
//! | `deb` | the packages themselves: facts of a `.deb`, hostile ones refused |

mod catalog;
pub mod deb;

pub use catalog::{Catalog, MultiArch, PackageId, Record};
