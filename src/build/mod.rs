//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`root`] | the root tree: unpacked, configured, normalised |
//! | [`tree`] | a root tree as data |
//! | [`write`] | what is made of it: tar, image layout |

pub mod root;
pub mod tree;
pub mod write;
