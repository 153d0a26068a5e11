//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`root`] | the root tree: unpacked, configured, normalised |
//! | [`tree`] | a root tree as data |
//! | [`compare`] | what differs between two root trees |

pub mod compare;
mod owners;
pub mod root;
pub mod tree;
