//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`root`] | the root tree: unpacked, configured, normalised |
//! | [`tree`] | a root tree as data |

pub mod root;
pub mod tree;
