//! A tree once more, without copying: the same files under further names.

use rustix::{
    fs::{AtFlags, XattrFlags, linkat, setxattr, utimensat},
    io::Errno,
};

use super::{Found, FoundKind, Owner, Planter, Root, failure, plant::times};
use crate::error::Result;

impl Root {
    /// Makes every entry of `from` in this tree, which is empty: directories anew, with their mode, owner, time and
    /// attributes; everything else is a further name of what `from` has (linkat(2)), so whoever writes into one tree's
    /// file writes into the other's. `entries`: the census of `from`.
    ///
    /// # Errors
    /// The file system gives no further names, or has no room; something of the name is there.
    pub fn twin(&self, from: &Self, entries: &[Found]) -> Result<()> {
        let (mut theirs, mut ours) = (Planter::new(from), Planter::new(self));
        let cannot = |path: &str, error: Errno| failure("writing", &self.shown(path), error);
        let directories = || entries.iter().filter(|entry| entry.kind == FoundKind::Directory);
        for entry in entries.iter().filter(|entry| !entry.path.is_empty()) {
            let path = entry.path.as_bytes();
            if entry.kind == FoundKind::Directory {
                ours.directory(path)?;
                continue;
            }
            let ((above, name), (below, _)) = (theirs.place(path)?, ours.place(path)?);
            linkat(&*above, name, &*below, name, AtFlags::empty())
                .map_err(|error| cannot(&entry.path, error))?;
        }
        for entry in directories() {
            let owner = Owner { uid: entry.uid, gid: entry.gid };
            ours.finish_directory(entry.path.as_bytes(), entry.mode, owner)?;
            for (name, value) in &entry.xattrs {
                setxattr(self.shown(&entry.path), name.as_str(), value, XattrFlags::empty())
                    .map_err(|error| cannot(&entry.path, error))?;
            }
        }
        // Nothing is made in them any more, which would change their times.
        for entry in directories().filter(|entry| !entry.path.is_empty()) {
            let (above, name) = ours.place(entry.path.as_bytes())?;
            utimensat(&*above, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| cannot(&entry.path, error))?;
        }
        if let Some(top) = directories().find(|entry| entry.path.is_empty()) {
            self.set_modified("/", top.modified)?;
        }
        Ok(())
    }
}
