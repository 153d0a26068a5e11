//! Programs of the lock's own packages: the same lock, the same tool, the same bytes on every build machine.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Result},
    system::{
        clock::Shifted,
        files::{absolute, exists},
        process::Command,
    },
};

/// Debian's directory of libraries and the dynamic loader in it (x86-64 psABI, "Program Interpreter").
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// A root tree that has e2fsprogs or erofs-utils, unpacked. Its programs are started by its own dynamic loader with its
/// own libraries: nothing of this machine but the kernel has a part in what they do, and no privilege is needed, as
/// there is no `chroot`.
#[derive(Debug)]
pub struct Tools {
    root: PathBuf,
    loader: String,
    libraries: String,
    clock: Option<Shifted>,
}

impl Tools {
    /// The programs of the tree at `root`.
    ///
    /// # Errors
    /// It has no C library for amd64, or its path cannot be named in a list of paths.
    pub fn new(root: &Path) -> Result<Self> {
        let root = absolute(root)?;
        let shown = root.display();
        let Some(text) = root.to_str().filter(|text| !text.contains([':', ';'])) else {
            return Err(Error::usage(format!("programs cannot be run from `{shown}`"))
                .hint("use a directory without `:` and `;` in its path"));
        };
        let loader = format!("{text}/{LIBRARIES}/{LOADER}");
        if !exists(Path::new(&loader)) {
            return Err(Error::failed(format!("the root tree `{shown}` has no C library for amd64"))
                .hint("add libc6 to the packages of the profile, and lock it"));
        }
        let libraries = format!("{text}/{LIBRARIES}:{text}/usr/{LIBRARIES}");
        Ok(Self { root, loader, libraries, clock: None })
    }

    /// Has the programs see another clock than the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Option<Shifted>) -> Self {
        self.clock = clock;
        self
    }

    /// The program `name` of the package `package`: with an environment of its own, and `time`, in seconds since
    /// 1970, as the time that it is.
    ///
    /// # Errors
    /// The tree does not have it.
    pub(super) fn command(&self, name: &str, package: &str, time: i64) -> Result<Command> {
        let found = ["usr/sbin", "sbin", "usr/bin"]
            .iter()
            .map(|directory| self.root.join(directory).join(name))
            .find(|path| exists(path))
            .ok_or_else(|| {
                Error::failed(format!("the lock has no package with `{name}`, which makes the file system"))
                    .hint(format!("add {package} to the packages of the profile, and lock it"))
            })?;
        let time = time.max(0).to_string();
        let command = Command::new(self.loader.clone())
            .args(["--inhibit-cache", "--library-path", &self.libraries])
            .arg(found.display().to_string())
            .env_clean()
            .env("TZ", "UTC")
            // e2fsprogs up to 1.47.0 knows the first alone, later ones and erofs-utils the second.
            .env("E2FSPROGS_FAKE_TIME", time.as_str())
            .env("SOURCE_DATE_EPOCH", time);
        let clock = self.clock.iter().flat_map(|clock| clock.environment(&clock.library));
        Ok(clock.fold(command, |command, (name, value)| command.env(name, value)))
    }
}
