//! Debian archives: release files and their signatures, package indices, versions, the closure of what is
//! named, and the packages themselves.
//!
//! | module | what lives there |
//! |---|---|
//! | `archive` | from an archive's address to a verified [`Catalog`] |
//! | `catalog` | the packages of several indices, by name |
//! | `index` | one index, and the form it is kept in |
//! | `control` | control data: stanzas of fields |
//! | `deb` | the packages themselves: facts of a `.deb`, hostile ones refused |
//! | `download` | packages by digest into the store |
//! | `index` | one index, and the form it is kept in |

mod catalog;
mod control;
pub mod deb;
pub mod download;
mod index;
//! | [`version`] | Debian's version order |
//! | [`relation`] | fields such as `Depends` |

mod catalog;
pub mod relation;
pub mod version;
//! | `deb` | the packages themselves: facts of a `.deb`, hostile ones refused |

mod catalog;
pub mod deb;

pub use catalog::{Catalog, MultiArch, PackageId, Record};
