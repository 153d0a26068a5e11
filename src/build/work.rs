//! The directory a build works in: in the store's, one build at a time, emptied before and after.

use std::path::{Path, PathBuf};

use super::settings::{Content, Setting};
use crate::{
    error::{Error, Result},
    system::files::{self, HostLock, Meta, Owner, Planter, Root},
};

/// Its name in the store.
const NAME: &str = "build";

/// A working directory, held.
#[derive(Debug)]
pub struct Work {
    above: Root,
    path: PathBuf,
    keeps: bool,
    _held: HostLock,
}

impl Work {
    /// Takes the working directory of the store in `store`, and removes what a build that was killed has left there.
    ///
    /// # Errors
    /// Another build has it; it cannot be made or emptied.
    pub fn begin(store: &Path) -> Result<Self> {
        let path = store.join(NAME);
        files::make_private_dir(&path)?;
        let above = Root::open(&path)?;
        let held = HostLock::acquire(&above, "/lock", "build")?;
        let work = Self { above, path, keeps: false, _held: held };
        work.clear()?;
        Ok(work)
    }

    /// An empty directory for a root tree.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn tree(&self) -> Result<Root> {
        self.above.make_dir("/tree", 0o755, Owner::current())?;
        Root::open(&self.path.join("tree"))
    }

    /// A directory for files that are needed meanwhile.
    pub fn scratch(&self) -> &Path {
        &self.path
    }

    /// Leaves what was made where it is, until the next build.
    pub fn keep(&mut self) {
        self.keeps = true;
    }

    /// Removes everything that was made.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for entry in self.above.list("/")?.iter().filter(|entry| entry.name != "lock") {
            self.above.remove_tree(&format!("/{}", entry.name))?;
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.keeps {
            // What is left is removed by the next build.
            let _ = self.clear();
        }
    }
}

/// Puts settings into a tree.
///
/// # Errors
/// The tree cannot be written.
pub fn put(root: &Root, settings: &[Setting], time: i64) -> Result<()> {
    let mut planter = Planter::new(root);
    let meta = Meta { mode: 0o644, owner: Owner::ROOT, modified: time };
    for Setting { path, content } in settings {
        let path = path.as_bytes();
        planter.remove(path)?;
        match content {
            Content::Text(text) => planter.file(path, meta, &mut text.as_bytes()).map(drop)?,
            Content::Link(target) => planter.link(path, target.as_bytes(), meta).map(drop)?,
            Content::Nothing => {}
        }
    }
    Ok(())
}

/// An error for the first program a definition needs that the tree does not have.
///
/// # Errors
/// One is missing; the tree cannot be read.
pub fn refuse_lacking(root: &Root, needs: &[(&str, &str)], shown: &str) -> Result<()> {
    for (path, package) in needs {
        if !root.exists(&format!("/{path}"))? {
            return Err(Error::usage(format!(
                "`{shown}` needs `/{path}`, and none of the locked packages has it"
            ))
            .hint(format!("add \"{package}\" to the profile's `[host] packages`, then `bedplate lock`")));
        }
    }
    Ok(())
}
