//! What a root tree becomes.
//!
//! | writer | what it makes |
//! |---|---|
//! | [`disk`] | a disk that boots, as a raw image or in qcow2 |

pub mod disk;
