//! Reading dpkg's database.

use crate::{
    error::Result,
    plan::dpkg::{Package, Packages},
    system::files::Root,
};

/// Largest file of dpkg's database, in bytes.
const LIMIT: u64 = 256 << 20;

/// What dpkg says is beneath `root`. `None`: it has no database.
///
/// # Errors
/// The database cannot be read or understood.
pub fn read(root: &Root) -> Result<Option<Packages>> {
    let Some(mut packages) = Packages::read(|path| root.read_text(path, LIMIT), |path| root.names(path))?
    else {
        return Ok(None);
    };
    packages.tools = can_install(root)?;
    Ok(Some(packages))
}

/// Whether apt and dpkg are there and can be run by this process: in a tree, only as root.
fn can_install(root: &Root) -> Result<bool> {
    let both = root.exists("/usr/bin/apt-get")? && root.exists("/usr/bin/dpkg")?;
    Ok(both && (root.is_host() || rustix::process::geteuid().is_root()))
}

/// The package that apt names `key`.
pub(super) fn find<'p>(packages: &'p Packages, native: &str, key: &str) -> Option<&'p Package> {
    let (name, architecture) = key.split_once(':').unwrap_or((key, native));
    [architecture, "all"]
        .iter()
        .filter_map(|architecture| packages.known.get(&(name.to_owned(), (*architecture).to_owned())))
        .find(|package| package.present())
}
