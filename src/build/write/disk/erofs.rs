//! An erofs root file system, read-only and compressed, made by `mkfs.erofs` of erofs-utils.

use std::{fs::File, path::Path, time::Duration};

use super::{Disk, sparse};
use crate::{
    error::{Doing, Error, Result},
    system::files::open_input,
};

/// Longest time it may take.
const LIMIT: Duration = Duration::from_mins(60);

/// Makes the file system beside the disk, in `scratch`, and copies it into `file`, `size` bytes from `start` on, which
/// are zeros. Every file in it has the disk's time.
///
/// Owners, modes and attributes are those that files have on disk, as erofs-utils 1.5 (Debian 12) reads no archive: so
/// this runs as root, or in the user namespace that the tree was made in.
///
/// # Errors
/// The tool is not there or fails, or the tree does not fit.
pub(super) async fn write(
    file: &File,
    (start, size): (u64, u64),
    disk: &Disk<'_>,
    scratch: &Path,
) -> Result<()> {
    let Disk { tree, tools, ids, time, .. } = *disk;
    let image = scratch.join("root.erofs");
    tools
        .command("mkfs.erofs", "erofs-utils", time)?
        .arg("-zlz4hc")
        .arg(format!("-T{}", time.max(0)))
        .arg(format!("-U{}", ids.root_file_system))
        .arg("--quiet")
        .args([image.display().to_string(), tree.root().path().display().to_string()])
        .timeout(LIMIT)
        .check()
        .await?;
    let (from, made) = open_input(&image)?;
    if made > size {
        return Err(Error::usage(format!(
            "the root partition of {} MiB is too small: the file system has {} MiB",
            size >> 20,
            made.div_ceil(1 << 20)
        ))
        .hint("give it more in the image definition"));
    }
    sparse::copy(&from, file, start).doing(|| "writing the root partition")
}
