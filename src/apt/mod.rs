//! Debian archives: release files and their signatures, package indices, versions, the closure of what is
//! named, and the packages themselves.
//!
//! | module | what lives there |
//! |---|---|
//! | `archive` | from an archive's address to a verified [`Catalog`] |
//! | `catalog` | the packages of several indices, by name |
//! | `control` | control data: stanzas of fields |
//! | [`version`] | Debian's version order |
//! | [`relation`] | fields such as `Depends` |
//! | [`deb`] | the packages themselves: facts of a `.deb`, hostile ones refused |
//! | [`download`] | packages by digest into the store |
//! | [`closure`] | from names to everything that they need |
//! | `explain` | why there is no such closure |
//! | `index` | one index, and the form it is kept in |

mod catalog;
pub mod closure;
mod control;
pub mod deb;
pub mod download;
mod explain;
mod index;
pub mod relation;
pub mod version;

pub use catalog::{Catalog, MultiArch, PackageId, Record};
