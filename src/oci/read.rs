//! Reading the few files this adaptor needs: Docker's configuration, certificates, image layouts.
// These may be links of the user's own making (`~/.docker` often is), so links are followed.
#![allow(clippy::disallowed_methods)]

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::error::{Doing, Error, Result};

/// The whole file, if it is no larger than `limit` bytes. `None` where there is no such file.
pub(super) fn to_limit(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let doing = || format!("reading `{}`", path.display());
    let Some(file) = open(path)? else { return Ok(None) };
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content).doing(doing)?;
    if content.len() as u64 > limit {
        return Err(Error::failed(format!("`{}` is larger than {limit} bytes", path.display())));
    }
    Ok(Some(content))
}

/// Opens a file for reading. `None` where there is no such file.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|m| m.is_file()) => Ok(Some(file)),
        Ok(_) => Err(Error::failed(format!("`{}` is not a regular file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("opening `{}`", path.display())),
    }
}
