//! Reading a host's tree for facts. Unlike a write, a look may follow links (`/sys` is made of them),
//! but each is resolved within the tree, so that `--root DIR` never reads outside it.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    system::files::{Entry, FileKind, Root, Stat},
};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// A host's tree, read with links resolved inside it.
#[derive(Debug, Clone)]
pub(in crate::host) struct Tree(Arc<Root>);

impl Tree {
    pub(in crate::host) fn new(root: Arc<Root>) -> Self {
        Self(root)
    }

    pub(super) fn root(&self) -> &Root {
        &self.0
    }

    /// The path without links. What does not exist is kept as written.
    pub(in crate::host) fn real(&self, path: &str) -> Result<String> {
        let mut done = String::new();
        let mut left: Vec<String> = parts(path);
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{done}/{part}");
            match self.0.stat(&next)? {
                Some(stat) if stat.kind == FileKind::Link => {
                    links += 1;
                    if links > LINKS {
                        return Err(Error::failed(format!("resolving `{path}`: links go in a circle")));
                    }
                    let target = self.0.read_link(&next)?.unwrap_or_default();
                    if target.starts_with('/') {
                        done.clear();
                    }
                    left.extend(parts(&target));
                }
                Some(_) => done = next,
                None => {
                    done = next;
                    while let Some(part) = left.pop() {
                        if part == ".." {
                            done.truncate(done.rfind('/').unwrap_or(0));
                        } else {
                            done = format!("{done}/{part}");
                        }
                    }
                }
            }
        }
        Ok(if done.is_empty() { "/".to_owned() } else { done })
    }

    /// What lies at `path`, links followed.
    pub(in crate::host) fn stat(&self, path: &str) -> Result<Option<Stat>> {
        self.0.stat(&self.real(path)?)
    }

    /// A text file of at most `limit` bytes, links followed.
    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.0.read(&self.real(path)?, limit)
    }

    /// As [`Tree::read`], as text with what is not UTF-8 replaced.
    pub(super) fn text(&self, path: &str, limit: u64) -> Result<Option<String>> {
        Ok(self.read(path, limit)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The names in a directory, links followed; none where it does not exist.
    pub(in crate::host) fn list(&self, path: &str) -> Result<Vec<Entry>> {
        let real = self.real(path)?;
        match self.0.stat(&real)? {
            None => Ok(Vec::new()),
            Some(_) => self.0.list(&real),
        }
    }

    /// The first component of `path` that is a link, where one is.
    pub(super) fn first_link(&self, path: &str) -> Result<Option<String>> {
        let mut so_far = String::new();
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            so_far = format!("{so_far}/{part}");
            match self.0.stat(&so_far)? {
                // `/var/run` and its like belong to the distribution's layout: the root rewrites them.
                Some(stat) if stat.kind == FileKind::Link && !layout(&so_far) => return Ok(Some(so_far)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Links of the distribution's own layout, which [`Root`] rewrites.
fn layout(path: &str) -> bool {
    matches!(path, "/bin" | "/sbin" | "/lib" | "/lib32" | "/lib64" | "/var/run" | "/var/lock")
}

/// The components of a path, last first, so that they are popped in order.
fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}
