//! A disk that boots: GPT, an EFI system partition with systemd-boot and a unified kernel image, a root partition.
//!
//! A pure function of [`Disk`]: the same one gives the same bytes on any machine, at any time, for any user. No loop
//! device, no mount and no privilege; a file system is made by the tools of the lock's own packages.
//!
//! | part | what it does |
//! |---|---|
//! | [`ids`] | identifiers from the lock's digest |
//! | [`uki`] | the unified kernel image |
//! | `esp`, `fat` | the EFI system partition |
//! | `layout` | the partition table |
//! | `ext4`, `erofs`, [`tools`] | the root file system |
//! | [`qcow2`] | the same disk in qcow2 |

mod erofs;
mod esp;
mod ext4;
pub(in crate::build) mod fat;
pub mod ids;
pub(in crate::build) mod layout;
pub mod qcow2;
mod sparse;
pub mod tools;
pub mod uki;

use std::{fs::File, io, path::Path};

pub use self::{
    esp::Boot,
    layout::{Layout, Sizes},
};
use self::{ids::Ids, sparse::Window, tools::Tools};
use crate::{
    build::{tree::Tree, write::Content},
    digest::Digest,
    error::{Doing, Result},
    system::files::create_output,
};

/// What the root partition is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// Read and written.
    Ext4,
    /// Read only, compressed: what a host changes must go elsewhere (`systemd.volatile=overlay`, or partitions of
    /// its own for `/var` and `/etc`).
    Erofs,
}

/// A disk to be made.
#[derive(Debug, Clone, Copy)]
pub struct Disk<'a> {
    /// The root file system's content, normalised.
    pub tree: &'a Tree,
    /// What makes the root file system: often of the same tree.
    pub tools: &'a Tools,
    /// What the EFI system partition holds.
    pub boot: Boot<'a>,
    /// What the root partition is formatted with.
    pub file_system: FileSystem,
    /// How large the partitions are.
    pub sizes: Sizes,
    /// Identifiers ([`Ids::new`]).
    pub ids: Ids,
    /// The time of all that has none of its own, in seconds since 1970.
    pub time: i64,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The unified kernel image.
    pub uki: Content,
    /// The whole disk.
    pub disk: Content,
    /// The EFI system partition.
    pub esp: Content,
    /// The root partition.
    pub root: Content,
    /// Where everything lies.
    pub layout: Layout,
}

/// The kernel's command line: where the root file system is, then `parameters`, one space between each.
pub fn command_line<'p>(
    ids: &Ids,
    file_system: FileSystem,
    parameters: impl IntoIterator<Item = &'p str>,
) -> String {
    let (kind, access) = match file_system {
        FileSystem::Ext4 => ("ext4", "rw"),
        FileSystem::Erofs => ("erofs", "ro"),
    };
    let mut line = format!("root=PARTUUID={} rootfstype={kind} {access}", ids.root_partition);
    for parameter in parameters {
        line.push(' ');
        line.push_str(parameter);
    }
    line
}

/// Writes the disk as a raw image to `to`, whole or not at all; what is zero is a hole. `scratch` is a directory for
/// files that are needed meanwhile.
///
/// # Errors
/// Sizes that do not fit, a boot entry's name or a stub that is not usable, a tool that is missing or fails, a file that
/// cannot be written.
pub async fn write_raw(disk: &Disk<'_>, to: &Path, scratch: &Path) -> Result<Written> {
    let layout = Layout::new(disk.sizes)?;
    let scratch = tempfile::Builder::new()
        .prefix("disk-")
        .tempdir_in(scratch)
        .doing(|| "making a temporary directory")?;
    let mut output = create_output(to, 0o644)?;
    let file = output.file()?;
    file.set_len(layout.size).doing(|| format!("writing `{}`", to.display()))?;
    layout.write(file, &disk.ids, disk.file_system == FileSystem::Erofs)?;
    let uki = esp::write(file, layout.esp, disk.ids.esp_volume, &disk.boot)?;
    match disk.file_system {
        FileSystem::Ext4 => ext4::write(file, layout.root, disk, scratch.path()).await?,
        FileSystem::Erofs => erofs::write(file, layout.root, disk, scratch.path()).await?,
    }
    let [disk, esp, root] = contents(file, [(0, layout.size), layout.esp, layout.root])
        .doing(|| format!("reading `{}`", to.display()))?;
    output.commit()?;
    Ok(Written { uki, disk, esp, root, layout })
}

/// What some ranges of a file hold (where each begins, and its size), all at once.
fn contents<const N: usize>(file: &File, ranges: [(u64, u64); N]) -> io::Result<[Content; N]> {
    let read = |(start, size)| {
        Digest::of_reader(Window::new(file, start, size)).map(|(digest, size)| Content { digest, size })
    };
    std::thread::scope(|scope| {
        let running = ranges.map(|range| scope.spawn(move || read(range)));
        let mut all = [Content::of(b""); N];
        for (content, thread) in all.iter_mut().zip(running) {
            *content = thread.join().map_err(|_| io::Error::other("a thread that reads failed"))??;
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests;
