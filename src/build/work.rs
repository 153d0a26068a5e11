//! The directory a build works in: in the store's, one build at a time, emptied before and after but for
//! what is kept for the next.

use std::path::{Path, PathBuf};

use super::{
    kept,
    settings::{Content, Setting},
};
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

    /// The directory itself, for what a build keeps for the next.
    pub fn above(&self) -> &Root {
        &self.above
    }

    /// Removes everything that was made, but what is kept for the next build.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let stays = ["lock", kept::NAME];
        for entry in self.above.list("/")?.iter().filter(|entry| !stays.contains(&entry.name.as_str())) {
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
