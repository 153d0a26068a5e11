//! Reading the few files this adaptor needs: Docker's configuration, certificates, image layouts.
//! Links are followed: these files are the user's own, and `~/.docker` often is one.

use std::{fs::File, path::Path};

use crate::{
    error::{Kind, Result},
    system::files,
};

/// The whole file, if it is no larger than `limit` bytes. `None` where there is no such file.
pub(super) fn to_limit(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    if is_absent(path) {
        return Ok(None);
    }
    files::read_input(path, limit).map(Some).map_err(|error| error.with_kind(Kind::Failed))
}

/// Opens a file for reading. `None` where there is no such file.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    if is_absent(path) {
        return Ok(None);
    }
    files::open_input(path).map(|(file, _)| Some(file)).map_err(|error| error.with_kind(Kind::Failed))
}

/// What cannot be looked at is left to the reading, which says why.
fn is_absent(path: &Path) -> bool {
    path.try_exists().is_ok_and(|there| !there)
}
