//! Host images: a pure function of image definition, profile and lock.
//!
//! | part | what it does |
//! |---|---|
//! | [`root`] | the root tree: unpacked, configured, normalised |
//! | [`tree`] | a root tree as data |
//! | [`compare`] | what differs between two root trees |
//! | [`record`] | from what an image was made, and its parts by digest |
//! | [`sbom`] | the packages of an image for scanners, in SPDX |
//! | [`verify`] | a root held against a lock |

pub mod compare;
mod owners;
mod purl;
pub mod record;
pub mod root;
pub mod sbom;
pub mod tree;
pub mod verify;
