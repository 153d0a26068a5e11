//! The EFI system partition: FAT32 (UEFI 2.10, section 13.3) with systemd-boot and the unified kernel image.

use std::{
    fs::File,
    io::{self, Write},
};

use super::{
    fat::{self, Node},
    sparse::Window,
    uki::{Parts, Uki},
};
use crate::{
    build::write::Content,
    digest::Digest,
    error::{Error, Result},
};

/// Fewest MiB that a FAT32 has.
pub(super) const MINIMUM_MIB: u64 = 34;

/// What the partition holds.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The entry's name: the unified kernel image is `EFI/Linux/NAME.efi`. Letters, digits, `.`, `_`, `+` and `-`.
    pub name: &'a str,
    /// systemd-boot, `systemd-bootx64.efi`.
    pub loader: &'a [u8],
    /// systemd's EFI stub, `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// What goes into the unified kernel image.
    pub parts: Parts<'a>,
}

/// Writes the partition into `disk`, `size` bytes from `start` on, which are zeros. Gives the unified kernel
/// image's digest and size.
///
/// # Errors
/// It is too small, the stub or the name is not usable, or the file cannot be written.
pub(super) fn write(disk: &File, (start, size): (u64, u64), volume: u32, boot: &Boot) -> Result<Content> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    if boot.name.is_empty() || boot.name.len() > 200 || !boot.name.chars().all(plain) {
        return Err(Error::usage(format!("`{}` is no name of a boot entry", boot.name.escape_debug()))
            .hint("write letters, digits, `.`, `_`, `+` and `-`"));
    }
    let uki = Uki::new(boot.stub, &boot.parts)?;
    let mut digest = None;
    let root = content(boot, &uki, &mut digest);
    let written = fat::write(&mut Window::new(disk, start, size), size, volume, *b"EFI        ", root);
    match (written, digest) {
        (Ok(()), Some(digest)) => Ok(Content { digest, size: uki.size() }),
        (Err(error), _) if error.kind() == io::ErrorKind::StorageFull => {
            let needs = (uki.size() + 2 * boot.loader.len() as u64).div_ceil(1 << 20) + 2;
            Err(Error::usage(format!(
                "the EFI partition of {} MiB is too small: kernel, initial RAM disk and boot loader need {needs} MiB",
                size >> 20
            ))
            .hint("give it more in the image definition"))
        }
        (Err(error), _) => Err(Error::failed("writing the EFI partition").because(error)),
        (Ok(()), None) => Err(Error::failed("writing the EFI partition: the kernel was left out")),
    }
}

/// What the partition holds, by name.
fn content<'a>(boot: &'a Boot, uki: &'a Uki, digest: &'a mut Option<Digest>) -> Vec<(String, Node<'a>)> {
    let loader = |name: &str| {
        let write = |to: &mut dyn Write| to.write_all(boot.loader);
        (name.to_owned(), Node::File(boot.loader.len() as u64, Box::new(write)))
    };
    let configuration = loader_conf(boot.name).into_bytes();
    let configured = Node::File(
        configuration.len() as u64,
        Box::new(move |to: &mut dyn Write| to.write_all(&configuration)),
    );
    let kernel = Node::File(
        uki.size(),
        Box::new(move |to: &mut dyn Write| {
            *digest = Some(uki.write(to)?);
            Ok(())
        }),
    );
    let directory = |name: &str, children| (name.to_owned(), Node::Directory(children));
    let efi = vec![
        directory("BOOT", vec![loader("BOOTX64.EFI")]),
        directory("systemd", vec![loader("systemd-bootx64.efi")]),
        directory("Linux", vec![(format!("{}.efi", boot.name), kernel)]),
    ];
    let entries = directory("entries", Vec::new());
    vec![directory("EFI", efi), directory("loader", vec![("loader.conf".to_owned(), configured), entries])]
}

/// The loader's configuration (loader.conf(5)): no waiting, and no editing of the command line at the console.
fn loader_conf(name: &str) -> String {
    format!("timeout 0\ndefault {name}.efi\neditor no\n")
}
