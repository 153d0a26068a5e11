//! Identifiers of a disk, made from a seed: the same lock gives the same disk.

use crate::digest::{Digest, Hasher};

/// What the identifiers are made for; no other use of the same seed gives the same ones.
const DOMAIN: &[u8] = b"bedplate disk 1\0";

/// Identifiers of a disk. Each is a UUID of version 8 (RFC 9562, section 5.8): the first 16 bytes of SHA-256 over
/// `bedplate disk 1`, a zero byte, the seed's 32 bytes and the name of what it is for, with version and variant
/// put over bits 48 to 51 and 64 and 65.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The disk itself, in its partition table.
    pub disk: Uuid,
    /// The EFI system partition.
    pub esp_partition: Uuid,
    /// The root partition: `root=PARTUUID=…`.
    pub root_partition: Uuid,
    /// The root file system: `UUID=…` in `/etc/fstab`.
    pub root_file_system: Uuid,
    /// What hashes of names in ext4's directories are salted with.
    pub hash_seed: Uuid,
    /// The volume id of the EFI system partition's FAT: the first 4 bytes of its own hash.
    pub esp_volume: u32,
}

impl Ids {
    /// The identifiers of a disk that is made from `seed`, a lock's digest.
    pub fn new(seed: &Digest) -> Self {
        let [a, b, c, d, ..] = hash(seed, "EFI volume");
        Self {
            disk: Uuid::new(seed, "disk"),
            esp_partition: Uuid::new(seed, "EFI partition"),
            root_partition: Uuid::new(seed, "root partition"),
            root_file_system: Uuid::new(seed, "root file system"),
            hash_seed: Uuid::new(seed, "root hash seed"),
            esp_volume: u32::from_be_bytes([a, b, c, d]),
        }
    }
}

/// A UUID. Its text has lower-case digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    fn new(seed: &Digest, name: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash(seed, name)[..16]);
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// A UUID from its bytes, in the order of its text.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As a GUID is stored (UEFI 2.10, appendix A): the first three groups with their least byte first.
    pub const fn guid(&self) -> [u8; 16] {
        let mut guid = self.0;
        guid.swap(0, 3);
        guid.swap(1, 2);
        guid.swap(4, 5);
        guid.swap(6, 7);
        guid
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = hex::encode(self.0);
        let group = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default();
        write!(f, "{}-{}-{}-{}-{}", group(0..8), group(8..12), group(12..16), group(16..20), group(20..32))
    }
}

fn hash(seed: &Digest, name: &str) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(seed.as_bytes());
    hasher.update(name.as_bytes());
    *hasher.finish().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_8_all_different_and_never_change() {
        let ids = Ids::new(&Digest::of("a lock"));
        let all = [ids.disk, ids.esp_partition, ids.root_partition, ids.root_file_system, ids.hash_seed];
        for (place, one) in all.iter().enumerate() {
            let text = one.to_string();
            assert_eq!(text.len(), 36);
            assert_eq!(text.as_bytes()[14], b'8', "{text}");
            assert!(b"89ab".contains(&text.as_bytes()[19]), "{text}");
            assert!(!all[..place].contains(one));
        }
        assert_eq!(ids, Ids::new(&Digest::of("a lock")));
        assert_ne!(ids.disk, Ids::new(&Digest::of("another lock")).disk);
        // Frozen: a change of it changes every disk.
        assert_eq!(ids.disk.to_string(), "f3f43e0d-0f51-800a-81a7-e111b7a74a25");
        assert_eq!(ids.esp_volume, 3_899_878_171);
    }

    #[test]
    fn a_guid_has_its_first_groups_turned_round() {
        let esp = Uuid::from_bytes(hex_of("c12a7328f81f11d2ba4b00a0c93ec93b"));
        assert_eq!(hex::encode(esp.guid()), "28732ac11ff8d211ba4b00a0c93ec93b");
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    }

    fn hex_of(text: &str) -> [u8; 16] {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).unwrap();
        bytes
    }
}
