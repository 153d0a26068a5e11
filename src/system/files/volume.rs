//! What a host's path lies on: room, the kind of file system, whether programs run there.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::{
    fs::{AtFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, fstatfs, fstatvfs, statx},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount},
};

use super::{Owner, Root, Space, failure};
use crate::error::{Error, Result};

impl Root {
    /// Room on the file system that `path` is on, or would be on: of the nearest directory there is.
    ///
    /// # Errors
    /// A link on the way, or the file system does not say.
    pub fn free_space(&self, path: &str) -> Result<Space> {
        let fd = self.nearest(path)?;
        let raw = fstatvfs(&fd).map_err(|error| failure("measuring", &self.shown(path), error))?;
        Ok(Space {
            bytes_free: raw.f_bavail.saturating_mul(raw.f_frsize),
            bytes_total: raw.f_blocks.saturating_mul(raw.f_frsize),
            inodes_free: raw.f_favail,
            inodes_total: raw.f_files,
        })
    }

    /// The type of the file system that `path` is on, or would be on: `ext4`, `tmpfs`, …; the magic
    /// number in hexadecimal where it is not known here.
    ///
    /// # Errors
    /// A link on the way, or the file system does not say.
    pub fn file_system(&self, path: &str) -> Result<String> {
        let fd = self.nearest(path)?;
        let raw = fstatfs(&fd).map_err(|error| failure("measuring", &self.shown(path), error))?;
        #[allow(clippy::cast_sign_loss)] // a magic number of 32 bits, in a signed word on some architectures
        let magic = raw.f_type as u32;
        Ok(file_system_name(magic).map_or_else(|| format!("{magic:#x}"), str::to_owned))
    }

    /// Whether nothing can be made in the directory `path`: the attribute that chattr(1) sets, which stops root, too. Where
    /// it is not there yet, the nearest directory above counts. False where the file system has no such thing.
    ///
    /// # Errors
    /// A link on the way, or it cannot be looked at.
    pub fn is_immutable(&self, path: &str) -> Result<bool> {
        let fd = self.nearest(path)?;
        let raw = statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
            .map_err(|error| failure("looking at", &self.shown(path), error))?;
        Ok(raw.stx_attributes.contains(StatxAttributes::IMMUTABLE))
    }

    /// Has programs in the directory `path` run: where it lies on a mount that is `noexec`, it is mounted onto itself
    /// without that. True where it was. What is mounted so is gone after a reboot.
    ///
    /// # Errors
    /// Nothing is there, or mounting is not allowed.
    pub fn let_run(&self, path: &str) -> Result<bool> {
        // Never what is above it: the rest of that keeps its protection.
        if !self.stat(path)?.is_some_and(|stat| stat.is_dir()) {
            return Err(Error::failed(format!("`{}` is not a directory", self.shown(path).display())));
        }
        let fd = self.nearest(path)?;
        let flags = fstatvfs(&fd).map_err(|error| failure("looking at", &self.shown(path), error))?.f_flag;
        if !flags.contains(StatVfsMountFlags::NOEXEC) {
            return Ok(false);
        }
        let place = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mounting = |error: Errno| failure("mounting", &self.shown(path), error);
        mount_bind(place(&fd), place(&fd)).map_err(mounting)?;
        // Looked up anew: what was opened lies beneath the mount now.
        let fd = self.nearest(path)?;
        let kept = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        if let Err(error) = mount_remount(place(&fd), kept, "") {
            // Else each try would leave another mount upon the last.
            unmount(place(&fd), UnmountFlags::DETACH).map_err(mounting)?;
            return Err(mounting(error));
        }
        Ok(true)
    }

    /// Puts a program at `path`, 0555, where it can be run: its directory is made (0755) and let run. Nothing is written
    /// where it is there already, byte for byte.
    ///
    /// # Errors
    /// A link on the way, or it cannot be written or mounted.
    pub fn put_program(&self, path: &str, program: &[u8], owner: Owner) -> Result<()> {
        let (directory, _) = path.rsplit_once('/').unwrap_or(("/", ""));
        if self.stat(directory)?.is_none() {
            self.make_dir(directory, 0o755, owner)?;
        }
        self.let_run(directory)?;
        if let Some(found) = self.stat(path)?
            && found.mode & 0o7777 == 0o555
            && self.read(path, program.len() as u64 + 1)?.is_some_and(|held| held == program)
        {
            return Ok(());
        }
        self.write(path, program, 0o555, owner)
    }

    /// The longest part of `path` that is there as a directory.
    fn nearest(&self, path: &str) -> Result<OwnedFd> {
        let mut parts = self.components(path, true)?;
        // A regular file is on the file system of its directory, unless it is a mount point itself.
        if let Some(stat) = self.stat(path)?
            && !stat.is_dir()
        {
            parts.pop();
        }
        loop {
            if let Some(fd) = self.walk(&parts)? {
                return Ok(fd);
            }
            parts.pop();
        }
    }
}

/// Names of file systems by their magic number (statfs(2), linux/magic.h).
fn file_system_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0xef53 => "ext4",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x794c_7630 => "overlay",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        0x00c3_6400 => "ceph",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        0x7371_7368 => "squashfs",
        0xe0f5_e1e2 => "erofs",
        0x9660 => "iso9660",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        _ => return None,
    })
}
