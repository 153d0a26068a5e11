//! A unified kernel image: systemd's EFI stub with a kernel and all it needs as further sections.
//!
//! Sections and their names: UAPI group, "Unified Kernel Image" (UKI). The file's form: Microsoft, "PE Format".
//! Alignment, characteristics and what is done to old stubs follow systemd's `ukify` (`pe_add_sections`).

use std::io::{self, Write};

use crate::{
    digest::{Digest, Hasher},
    error::{Error, Result},
};

/// Bytes of a section's header.
const SECTION_HEADER: usize = 40;
/// Bytes of the COFF header, with the signature before it.
const COFF_HEADER: usize = 24;
/// The least distance between sections in memory: pages, also where the stub itself has them closer.
const PAGE: u32 = 4096;
/// `IMAGE_SCN_MEM_READ`.
const READ: u32 = 0x4000_0000;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA`.
const DATA: u32 = 0x0000_0040;
/// `IMAGE_SCN_CNT_CODE`.
const CODE: u32 = 0x0000_0020;

/// What goes into the image beside the stub.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// `/etc/os-release` (`.osrel`): what the boot menu shows.
    pub os_release: &'a str,
    /// The kernel's command line (`.cmdline`).
    pub command_line: &'a str,
    /// The kernel's version, as `uname -r` says it (`.uname`).
    pub release: &'a str,
    /// The kernel, `vmlinuz` (`.linux`).
    pub kernel: &'a [u8],
    /// The initial RAM disk (`.initrd`).
    pub initrd: &'a [u8],
}

impl<'a> Parts<'a> {
    fn sections(&self) -> [Section<'a>; 5] {
        let data = READ | DATA;
        [
            Section { name: ".osrel", content: self.os_release.as_bytes(), flags: data },
            Section { name: ".cmdline", content: self.command_line.as_bytes(), flags: data },
            Section { name: ".uname", content: self.release.as_bytes(), flags: data },
            Section { name: ".initrd", content: self.initrd, flags: data },
            // Last, so that a kernel that unpacks itself where it lies runs over nothing of ours.
            Section { name: ".linux", content: self.kernel, flags: READ | CODE },
        ]
    }
}

struct Section<'a> {
    name: &'static str,
    content: &'a [u8],
    flags: u32,
}

/// A unified kernel image, ready to be written.
pub struct Uki<'a> {
    /// The stub, with headers for the sections.
    head: Vec<u8>,
    /// Each part, and the bytes it has in the file.
    sections: Vec<(&'a [u8], usize)>,
    /// Bytes in all.
    size: u64,
}

impl<'a> Uki<'a> {
    /// `stub` as it is, with the parts after it.
    ///
    /// # Errors
    /// `stub` is no EFI stub (PE32+), or has no room for the headers of the sections; a part is too large.
    pub fn new(stub: &[u8], parts: &Parts<'a>) -> Result<Self> {
        let mut image = Image::read(stub)?;
        let mut end = image.bytes.len();
        let mut sections = Vec::new();
        for section in parts.sections() {
            let raw = round_up(section.content.len(), image.file_alignment)?;
            image.add(&section, end, raw)?;
            end += raw;
            sections.push((section.content, raw));
        }
        Ok(Self { head: image.bytes, sections, size: end as u64 })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes it, and gives its digest.
    ///
    /// # Errors
    /// `to` fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        let mut put = |content: &[u8]| {
            hasher.update(content);
            to.write_all(content)
        };
        put(&self.head)?;
        for (content, raw) in &self.sections {
            put(content)?;
            put(&vec![0; raw - content.len()])?;
        }
        Ok(hasher.finish())
    }
}

/// A PE image whose section table grows.
struct Image {
    bytes: Vec<u8>,
    /// Where the COFF header's fields begin, behind the signature.
    coff: usize,
    /// Where the optional header begins.
    optional: usize,
    /// Where the section table begins.
    table: usize,
    sections: u16,
    section_alignment: usize,
    file_alignment: usize,
    /// Bytes there are for headers.
    headers: usize,
    /// Where the last section ends in memory.
    memory: u32,
}

impl Image {
    fn read(stub: &[u8]) -> Result<Self> {
        let refuse = |what: &str| {
            Error::failed(format!("the EFI stub is not usable: {what}"))
                .hint("it is `linuxx64.efi.stub` of the package systemd-boot-efi")
        };
        let short = || refuse("it is cut short");
        let half = |at: usize| half(stub, at).ok_or_else(short);
        let word = |at: usize| word(stub, at).ok_or_else(short);
        if stub.get(..2) != Some(b"MZ") {
            return Err(refuse("it is no PE image"));
        }
        let start = word(0x3c)? as usize;
        // Within the first pages, which also keeps the sums below from running over.
        if start > stub.len() || stub.get(start..start + 4) != Some(b"PE\0\0") {
            return Err(refuse("it is no PE image"));
        }
        let (coff, optional) = (start + 4, start + COFF_HEADER);
        if half(optional)? != 0x020b {
            return Err(refuse("it is not for 64 bits (PE32+)"));
        }
        let sections = half(coff + 2)?;
        let table = optional + usize::from(half(coff + 16)?);
        let section_alignment = word(optional + 32)? as usize;
        let file_alignment = word(optional + 36)? as usize;
        let headers = word(optional + 60)? as usize;
        if !file_alignment.is_power_of_two()
            || !section_alignment.is_power_of_two()
            || file_alignment > 0x1_0000
        {
            return Err(refuse("its alignment is no power of two"));
        }
        let (mut first, mut memory, mut file_end) = (usize::MAX, 0, 0);
        for number in 0..usize::from(sections) {
            let at = table + number * SECTION_HEADER;
            let (size, address) = (word(at + 8)?, word(at + 12)?);
            let (raw_size, raw) = (word(at + 16)? as usize, word(at + 20)? as usize);
            memory = memory.max(address.checked_add(size).ok_or_else(|| refuse("a section runs over"))?);
            if raw_size > 0 {
                first = first.min(raw);
                file_end = file_end.max(raw + raw_size);
            }
            let name = stub.get(at..at + 8).ok_or_else(short)?;
            if [&b".linux\0\0"[..], b".initrd\0", b".cmdline", b".osrel\0\0", b".uname\0\0"].contains(&name) {
                return Err(refuse("it is a unified kernel image already"));
            }
        }
        if sections == 0 || file_end > stub.len() || headers > stub.len().min(first) {
            return Err(refuse("its sections are not within it"));
        }
        let mut image = Self {
            bytes: stub.to_vec(),
            coff,
            optional,
            table,
            sections,
            section_alignment,
            file_alignment,
            headers,
            memory,
        };
        image.drop_symbols(file_end.max(headers));
        let padded = round_up(image.bytes.len(), file_alignment)?;
        image.bytes.resize(padded, 0);
        // The checksum is for drivers of another system; a wrong one is worse than none.
        image.set(optional + 64, 0);
        // No signature is right any more: the directory's fifth entry (PE Format, "Optional Header Data Directories").
        if word(optional + 108)? > 4 && table >= optional + 152 {
            image.set(optional + 144, 0);
            image.set(optional + 148, 0);
        }
        Ok(image)
    }

    /// Old stubs have a symbol table at their end, which an image should not have.
    /// `end`: where everything else has ended.
    fn drop_symbols(&mut self, end: usize) {
        let (Some(at), Some(count)) = (word(&self.bytes, self.coff + 8), word(&self.bytes, self.coff + 12))
        else {
            return;
        };
        let strings = (at as usize).saturating_add((count as usize).saturating_mul(18));
        let size = word(&self.bytes, strings).unwrap_or(0) as usize;
        if at as usize >= end && at != 0 && strings.saturating_add(size) == self.bytes.len() {
            self.bytes.truncate(at as usize);
            self.set(self.coff + 8, 0);
            self.set(self.coff + 12, 0);
        }
    }

    /// Adds a section's header: its content will be at `at` in the file, `raw` bytes with padding.
    fn add(&mut self, section: &Section, at: usize, raw: usize) -> Result<()> {
        let name = section.name;
        let large =
            || Error::failed(format!("the section `{name}` of the unified kernel image is too large"));
        let number = |value: usize| u32::try_from(value).map_err(|_| large());
        let header = self.table + usize::from(self.sections) * SECTION_HEADER;
        if header + SECTION_HEADER > self.headers {
            return Err(Error::failed(format!("the EFI stub has no room for the section `{name}`"))
                .hint("it is `linuxx64.efi.stub` of the package systemd-boot-efi, 252 or later"));
        }
        let alignment = self.section_alignment.max(PAGE as usize);
        let address = number(round_up(self.memory as usize, alignment)?)?;
        let size = number(section.content.len())?;
        let mut bytes = [0; SECTION_HEADER];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        for (place, value) in
            [(8, size), (12, address), (16, number(raw)?), (20, number(at)?), (36, section.flags)]
        {
            bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
        }
        self.bytes[header..header + SECTION_HEADER].copy_from_slice(&bytes);
        self.sections += 1;
        let count = self.sections.to_le_bytes();
        self.bytes[self.coff + 2..self.coff + 4].copy_from_slice(&count);
        self.memory = address.checked_add(size).ok_or_else(large)?;
        let image = number(round_up(self.memory as usize, alignment)?)?;
        self.set(self.optional + 56, image);
        Ok(())
    }

    /// Sets four bytes of a header that was read before.
    fn set(&mut self, at: usize, value: u32) {
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// `size` rounded up to a multiple of `alignment`, a power of two.
fn round_up(size: usize, alignment: usize) -> Result<usize> {
    size.checked_next_multiple_of(alignment)
        .ok_or_else(|| Error::failed("the unified kernel image is too large"))
}

#[cfg(test)]
#[path = "uki_tests.rs"]
pub(in crate::build) mod tests;
