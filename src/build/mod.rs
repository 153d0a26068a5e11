//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`tree`] | a root tree as data |
//! | [`write`] | what a tree becomes |

pub mod tree;
pub mod write;
