//! Image definitions: a host image made from a profile (`images/NAME.toml`, `schema = 1`).
//!
//! There is no way to run a command: what cannot be declared cannot be promised to give the same bytes.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{DriverFlavor, Profile};
use crate::error::{Error, Result};

/// Reads an image definition. `path` is only for messages. All errors are given at once, each with its place
/// ([`crate::error::Error::related`]).
pub fn parse(path: &str, text: &str) -> Result<ImageDefinition> {
    read::parse(path, text)
}

/// A host image: the profile it realises, what of it is baked in, and in which forms it is written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImageDefinition {
    /// One line for people.
    pub description: Option<String>,
    /// The profile's path, relative to the definition. A name stands for `../profiles/NAME.toml`.
    pub profile: String,
    /// The forms it is written in; at least one.
    pub formats: BTreeSet<Format>,
    /// What of the profile is baked in; [`Part::Packages`] always.
    pub include: BTreeSet<Part>,
    /// Where its host name comes from.
    pub hostname: HostName,
    /// Who sets up its network.
    pub network: Network,
    /// What its first boot does, in the order of [`FirstBoot`].
    pub first_boot: BTreeSet<FirstBoot>,
    /// The disk: there exactly when one of the formats is a disk.
    pub disk: Option<Disk>,
}

impl ImageDefinition {
    /// Every file this definition reads, as paths relative to it.
    pub fn input_paths(&self) -> BTreeSet<&str> {
        BTreeSet::from([self.profile.as_str()])
    }

    /// The kernel's command line: the profile's parameters, then those of the disk, each once.
    pub fn kernel_parameters<'a>(&'a self, profile: &'a Profile) -> Vec<&'a str> {
        let own = self.disk.iter().flat_map(|disk| &disk.kernel_parameters);
        let mut seen = BTreeSet::new();
        let all = profile.kernel.parameters.iter().chain(own).map(String::as_str);
        all.filter(|parameter| seen.insert(*parameter)).collect()
    }

    /// Checks that an image of this definition can be made from `profile`. `shown` and `profile_shown` are their paths
    /// for messages.
    ///
    /// # Errors
    /// Of kind usage: the profile leaves its packages to others, or a disk has no kernel to boot.
    pub fn check(&self, shown: &str, profile: &Profile, profile_shown: &str) -> Result<()> {
        let mut errors = Vec::new();
        if !profile.host.pin_packages {
            let message = format!(
                "`{shown}` is made from `{profile_shown}`, whose packages are someone else's (`pin-packages = false`)"
            );
            errors.push(
                Error::usage(message).hint(format!("remove `pin-packages = false` from `{profile_shown}`")),
            );
        }
        // With a driver a kernel is asked for by itself.
        let kernel = profile.kernel.package.is_some()
            || profile.driver.flavor != DriverFlavor::None
            || profile.host.packages.iter().any(|name| name.starts_with("linux-image-"));
        if self.disk.is_some() && !kernel {
            let message = format!("`{shown}` is a disk, and `{profile_shown}` names no kernel to boot it");
            let hint = format!(
                "add `[kernel]` with `package = \"linux-image-amd64\"` to `{profile_shown}`, and lock it"
            );
            errors.push(Error::usage(message).hint(hint));
        }
        Error::join(errors).map_or(Ok(()), Err)
    }
}

/// A form an image is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Format {
    /// The root tree as a tar archive.
    Tar,
    /// The same, compressed with Zstandard (RFC 8878).
    TarZst,
    /// An OCI image layout.
    Oci,
    /// A raw GPT disk that boots by UEFI.
    Disk,
    /// The same disk as QEMU's qcow2.
    Qcow2,
}

impl Format {
    /// All, in the order they are written.
    pub const ALL: [Self; 5] = [Self::Tar, Self::TarZst, Self::Oci, Self::Disk, Self::Qcow2];

    /// Its word in a definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarZst => "tar.zst",
            Self::Oci => "oci",
            Self::Disk => "disk",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Whether it has partitions and boots.
    pub fn is_disk(self) -> bool {
        matches!(self, Self::Disk | Self::Qcow2)
    }
}

/// A part of the profile that can be baked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Part {
    /// Every locked package.
    Packages,
    /// Configuration: `[[file]]`, module and engine configuration; the directories of `[[mount]]`, empty.
    Files,
    /// `[[user]]` with their groups and keys.
    Users,
    /// The driver's kernel modules, built for the locked kernel.
    Modules,
    /// The bedplate program and its boot unit.
    Bedplate,
    /// The profile with its lock and what it reads, as a bundle.
    Profile,
    /// The locked container images.
    Images,
}

impl Part {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Packages,
        Self::Files,
        Self::Users,
        Self::Modules,
        Self::Bedplate,
        Self::Profile,
        Self::Images,
    ];

    /// Its word in a definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Files => "files",
            Self::Users => "users",
            Self::Modules => "modules",
            Self::Bedplate => "bedplate",
            Self::Profile => "profile",
            Self::Images => "images",
        }
    }
}

/// `[hostname]`: where the host name comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum HostName {
    /// The network gives it (DHCP option 12, RFC 2132 section 3.14).
    Dhcp,
    /// `PREFIX-` and eight hexadecimal digits of a hash of the machine id, which itself is not to be shown
    /// (machine-id(5)).
    MachineId {
        /// What it begins with.
        prefix: String,
    },
    /// Always this one.
    Fixed(String),
}

/// Who sets up the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Network {
    /// DHCP on every wired port, by systemd-networkd.
    Dhcp,
    /// The profile's packages and files.
    Profile,
}

/// A step of the first boot, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum FirstBoot {
    /// The root partition and its file system grow to the end of the disk.
    GrowRoot,
    /// The host gets a machine id of its own, and keeps it.
    MachineId,
    /// OpenSSH gets host keys of its own.
    SshHostKeys,
    /// `bedplate provision` with the profile that is baked in: what cannot be in an image.
    Provision,
}

impl FirstBoot {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::GrowRoot, Self::MachineId, Self::SshHostKeys, Self::Provision];

    /// Its word in a definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::GrowRoot => "grow-root",
            Self::MachineId => "machine-id",
            Self::SshHostKeys => "ssh-host-keys",
            Self::Provision => "provision",
        }
    }
}

/// `[disk]`: an EFI system partition and a root partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Disk {
    /// The whole disk, in MiB.
    pub size_mib: u64,
    /// The EFI system partition, in MiB.
    pub esp_mib: u64,
    /// The root partition's file system.
    pub root: RootFileSystem,
    /// Kernel command line parameters besides the profile's.
    pub kernel_parameters: Vec<String>,
}

/// A file system of the root partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum RootFileSystem {
    /// ext4: can be written and grown.
    Ext4,
    /// EROFS: compressed and read-only.
    Erofs,
}
