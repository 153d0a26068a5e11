//! What a disk starts from, found in the root tree itself.

use crate::{
    error::{Error, Result},
    system::files::Root,
};

/// systemd-boot and the stub, where Debian's package `systemd-boot-efi` has them.
const LOADER: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// The largest file read, in bytes: an initial RAM disk with all firmware is below half of it.
const LIMIT: u64 = 1 << 30;

/// The files a machine starts from.
#[derive(Debug)]
pub struct Files {
    /// systemd-boot.
    pub loader: Vec<u8>,
    /// systemd's EFI stub.
    pub stub: Vec<u8>,
    /// `os-release`.
    pub os_release: String,
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// `vmlinuz`.
    pub kernel: Vec<u8>,
    /// The initial RAM disk.
    pub initrd: Vec<u8>,
}

impl Files {
    /// Those of the kernel `release`, or of the only kernel in the tree.
    ///
    /// # Errors
    /// One is not there, with the package that has it; there are several kernels and none is named.
    pub fn read(root: &Root, release: Option<&str>) -> Result<Self> {
        let release = match release {
            Some(release) => release.to_owned(),
            None => only_kernel(root)?,
        };
        let package = format!("linux-image-{release}");
        Ok(Self {
            loader: read(root, LOADER, "systemd-boot-efi")?,
            stub: read(root, STUB, "systemd-boot-efi")?,
            os_release: String::from_utf8_lossy(&read(root, "/usr/lib/os-release", "base-files")?)
                .into_owned(),
            kernel: read(root, &format!("/boot/vmlinuz-{release}"), &package)?,
            initrd: read(root, &format!("/boot/initrd.img-{release}"), "initramfs-tools")?,
            release,
        })
    }
}

fn read(root: &Root, path: &str, package: &str) -> Result<Vec<u8>> {
    root.read(path, LIMIT)?.ok_or_else(|| {
        Error::usage(format!("a disk needs `{path}`, and none of the locked packages has it"))
            .hint(format!("add \"{package}\" to the profile's `[host] packages`, then `bedplate lock`"))
    })
}

fn only_kernel(root: &Root) -> Result<String> {
    let names: Vec<String> = root
        .list("/boot")?
        .into_iter()
        .filter_map(|entry| Some(entry.name.strip_prefix("vmlinuz-")?.to_owned()))
        .collect();
    match names.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::usage("a disk needs a kernel, and none of the locked packages has one").hint(
            "name one in the profile: `[kernel] package = \"linux-image-amd64\"`, then `bedplate lock`",
        )),
        several => Err(Error::usage(format!("the tree has several kernels: {}", several.join(", ")))
            .hint("name the one that starts in the profile: `[kernel] package`")),
    }
}
