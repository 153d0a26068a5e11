//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`root`] | the root tree: unpacked, configured, normalised |
//! | [`modules`] | the driver's kernel modules, built and packaged |
//! | [`settings`] | what a definition asks for besides the profile |
//! | [`tree`] | a root tree as data |
//! | [`boot`] | what a disk starts from |
//! | [`groups`] | what changes together |
//! | [`write`] | archives, image layouts and disks of a tree |
//! | [`compare`] | what differs between two root trees |
//! | [`record`] | from what an image was made, and its parts by digest |
//! | [`sbom`] | the packages of an image for scanners, in SPDX |
//! | [`verify`] | a root held against a lock |
//! | [`kept`] | what a build keeps for the next one |
//! | [`work`] | the directory a build works in |

pub mod boot;
pub mod compare;
pub mod groups;
pub mod kept;
pub mod modules;
mod owners;
mod purl;
pub mod record;
pub mod root;
pub mod sbom;
pub mod settings;
pub mod tree;
pub mod verify;
pub mod work;
pub mod write;
