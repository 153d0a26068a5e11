//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`tree`] | a root tree as data |

pub mod tree;
