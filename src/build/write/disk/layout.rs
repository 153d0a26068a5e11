//! Where partitions lie, and the table that says so (UEFI 2.10, chapter 5).

use std::fs::File;

use gptman::{GPT, GPTPartitionEntry};

use super::{
    esp,
    ids::{Ids, Uuid},
};
use crate::error::{Doing, Error, Result};

/// Bytes of a sector.
pub(in crate::build) const SECTOR: u64 = 512;
/// Bytes of a mebibyte, to multiples of which partitions are aligned.
pub(in crate::build) const MIB: u64 = 1 << 20;
/// Smallest root partition in MiB.
const MINIMUM_ROOT_MIB: u64 = 16;
/// Largest disk in MiB, 16 TiB: as much as an ext4 of ordinary size has, and a file on one.
const MAXIMUM_MIB: u64 = 16 << 20;

/// Type of the EFI system partition (UEFI 2.10, table 5.7).
const ESP: Uuid = Uuid::from_bytes([
    0xc1, 0x2a, 0x73, 0x28, 0xf8, 0x1f, 0x11, 0xd2, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
]);
/// Type of a root partition for x86-64 (UAPI group, "Discoverable Partitions Specification").
const ROOT: Uuid = Uuid::from_bytes([
    0x4f, 0x68, 0xbc, 0xe3, 0xe8, 0xcd, 0x4d, 0xb1, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
]);
/// The partition's file system is grown to the partition's size when it is mounted (the same specification, flags).
const GROW: u64 = 1 << 59;

/// Sizes of a disk, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The EFI system partition.
    pub esp: u64,
    /// The root partition.
    pub root: u64,
}

/// Where the parts of a disk lie, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The EFI system partition: where it begins, and how large it is.
    pub esp: (u64, u64),
    /// The root partition.
    pub root: (u64, u64),
    /// The whole disk: a mebibyte before the partitions, and one after them.
    pub size: u64,
}

impl Layout {
    /// Lays a disk out: the EFI system partition, then the root partition, which can so be made larger.
    ///
    /// # Errors
    /// A usage error for a size that is too small or too large.
    pub fn new(sizes: Sizes) -> Result<Self> {
        for (what, size, least) in
            [("EFI", sizes.esp, esp::MINIMUM_MIB), ("root", sizes.root, MINIMUM_ROOT_MIB)]
        {
            if size < least {
                return Err(Error::usage(format!("the {what} partition of {size} MiB is too small"))
                    .hint(format!("give it {least} MiB or more")));
            }
            if size > MAXIMUM_MIB {
                return Err(Error::usage(format!("the {what} partition of {size} MiB is too large"))
                    .hint(format!("give it {MAXIMUM_MIB} MiB or less")));
            }
        }
        let (esp, root) = (sizes.esp * MIB, sizes.root * MIB);
        Ok(Self { esp: (MIB, esp), root: (MIB + esp, root), size: 2 * MIB + esp + root })
    }

    /// Writes the protective MBR and both copies of the partition table into a file that has the disk's size.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(in crate::build) fn write(&self, mut disk: &File, ids: &Ids, read_only: bool) -> Result<()> {
        let doing = || "writing the partition table";
        let mut gpt = GPT::new_from(&mut disk, SECTOR, ids.disk.guid()).doing(doing)?;
        gpt.align = MIB / SECTOR;
        let entry =
            |(start, size): (u64, u64), kind: Uuid, id: Uuid, name: &str, attributes| GPTPartitionEntry {
                partition_type_guid: kind.guid(),
                unique_partition_guid: id.guid(),
                starting_lba: start / SECTOR,
                ending_lba: (start + size) / SECTOR - 1,
                attribute_bits: attributes,
                partition_name: name.into(),
            };
        gpt[1] = entry(self.esp, ESP, ids.esp_partition, "esp", 0);
        gpt[2] = entry(self.root, ROOT, ids.root_partition, "root", if read_only { 0 } else { GROW });
        GPT::write_protective_mbr_into(&mut disk, SECTOR).doing(doing)?;
        gpt.write_into(&mut disk).doing(doing)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn partitions_are_aligned_and_their_sizes_bounded() {
        let layout = Layout::new(Sizes { esp: 64, root: 100 }).unwrap();
        assert_eq!(layout.esp, (MIB, 64 * MIB));
        assert_eq!(layout.root, (65 * MIB, 100 * MIB));
        assert_eq!(layout.size, 166 * MIB);
        for (esp, root, said) in [
            (33, 100, "the EFI partition of 33 MiB is too small"),
            (64, 0, "the root partition of 0 MiB is too small"),
            (64, u64::MAX, "the root partition of 18446744073709551615 MiB is too large"),
        ] {
            assert_eq!(Layout::new(Sizes { esp, root }).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn the_table_reads_back_from_both_copies() {
        let ids = Ids::new(&Digest::of("a lock"));
        let layout = Layout::new(Sizes { esp: 64, root: 100 }).unwrap();
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(layout.size).unwrap();
        layout.write(&disk, &ids, false).unwrap();
        // Frozen, with the one before the end: a change of it changes every disk.
        let mut table = vec![0; 2 * MIB as usize];
        let (first, last) = table.split_at_mut(MIB as usize);
        std::os::unix::fs::FileExt::read_exact_at(&disk, first, 0).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&disk, last, layout.size - MIB).unwrap();
        assert_eq!(
            Digest::of(table).hex(),
            "7ae009de64ed88cf8a278f1436b75d2b25ff46ee8e701b20d52c967c9ef52224"
        );
        for backup in [false, true] {
            if backup {
                std::os::unix::fs::FileExt::write_all_at(&disk, &[0; 512], 512).unwrap();
            }
            let gpt = GPT::read_from(&mut &disk, SECTOR).unwrap();
            assert_eq!(gpt.is_backup(), backup);
            assert_eq!(gpt.header.disk_guid, ids.disk.guid());
            assert_eq!(gpt[1].partition_type_guid, ESP.guid());
            assert_eq!((gpt[1].starting_lba, gpt[1].ending_lba), (2048, 2048 * 65 - 1));
            assert_eq!(gpt[2].unique_partition_guid, ids.root_partition.guid());
            assert_eq!(gpt[2].partition_name.as_str(), "root");
            assert_eq!((gpt[2].starting_lba, gpt[2].ending_lba), (2048 * 65, 2048 * 165 - 1));
            assert_eq!(gpt.iter().filter(|(_, entry)| entry.is_used()).count(), 2);
        }
    }
}
