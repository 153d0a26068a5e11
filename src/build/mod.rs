//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`root`] | the root tree: unpacked, configured, normalised |
//! | [`tree`] | a root tree as data |
//! | [`compare`] | what differs between two root trees |
//! | [`record`] | from what an image was made, and its parts by digest |

pub mod compare;
mod owners;
pub mod record;
pub mod root;
pub mod tree;
