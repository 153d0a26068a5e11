//! File systems under the places that matter: inodes, kind, size.

use serde::{Deserialize, Serialize};

use super::{basics, tree::Tree};
use crate::error::Result;

/// The file system under a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The path itself, or its nearest ancestor that exists.
    pub at: String,
    /// Its type: `ext4`, `xfs`, …
    pub kind: String,
    /// Inodes in all; 0 where it does not count them.
    pub inodes: u64,
    /// Inodes an ordinary user may still take.
    pub inodes_free: u64,
    /// Size in bytes.
    pub total: u64,
    /// Number of the file system.
    pub device: u64,
}

/// The file system that `path` is on, or would be on.
pub(super) fn volume(tree: &Tree, path: &str) -> Result<Volume> {
    let space = basics::space(tree, path)?;
    let room = tree.root().free_space(&space.at)?;
    Ok(Volume {
        kind: tree.root().file_system(&space.at)?,
        inodes: room.inodes_total,
        inodes_free: room.inodes_free,
        total: space.total,
        device: space.device,
        at: space.at,
    })
}
