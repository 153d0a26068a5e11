//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`root`] | the root tree: unpacked, configured, normalised |
//! | [`settings`] | what a definition asks for besides the profile |
//! | [`tree`] | a root tree as data |
//! | [`boot`] | what a disk starts from |
//! | [`groups`] | what changes together |
//! | [`write`] | archives, image layouts and disks of a tree |
//! | [`work`] | the directory a build works in |

pub mod boot;
pub mod groups;
pub mod root;
pub mod settings;
pub mod tree;
pub mod work;
pub mod write;
