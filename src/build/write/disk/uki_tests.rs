use super::*;

/// A small stub: headers of 0x400 bytes, two sections.
pub(in crate::build) fn stub() -> Vec<u8> {
    let mut bytes = vec![0; 0x800];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    let mut put = |at: usize, content: &[u8]| bytes[at..at + content.len()].copy_from_slice(content);
    put(0x84, &0x8664_u16.to_le_bytes());
    put(0x86, &2_u16.to_le_bytes());
    put(0x94, &240_u16.to_le_bytes());
    let optional = 0x98;
    put(optional, &0x020b_u16.to_le_bytes());
    put(optional + 32, &0x1000_u32.to_le_bytes());
    put(optional + 36, &0x200_u32.to_le_bytes());
    put(optional + 56, &0x3000_u32.to_le_bytes());
    put(optional + 60, &0x400_u32.to_le_bytes());
    put(optional + 64, &77_u32.to_le_bytes());
    put(optional + 108, &16_u32.to_le_bytes());
    for (number, name) in [".text", ".sbat"].into_iter().enumerate() {
        let at = optional + 240 + number * 40;
        put(at, name.as_bytes());
        put(at + 8, &0x111_u32.to_le_bytes());
        put(at + 12, &(0x1000 * (number as u32 + 1)).to_le_bytes());
        put(at + 16, &0x200_u32.to_le_bytes());
        put(at + 20, &(0x400 + 0x200 * number as u32).to_le_bytes());
    }
    bytes
}

fn parts(initrd: &[u8]) -> Parts<'_> {
    Parts { os_release: "ID=debian\n", command_line: "quiet", release: "6.12.1", kernel: b"kernel", initrd }
}

/// The whole image; its size and digest are what was said.
fn made(stub: &[u8], parts: &Parts) -> Result<Vec<u8>> {
    let uki = Uki::new(stub, parts)?;
    let mut image = Vec::new();
    let digest = uki.write(&mut image).unwrap();
    assert_eq!((digest, uki.size()), (Digest::of(&image), image.len() as u64));
    Ok(image)
}

/// Name, size and address in memory, size and place in the file.
fn sections(bytes: &[u8]) -> Vec<(String, u32, u32, u32, u32)> {
    let table = 0x98 + 240;
    (0..usize::from(half(bytes, 0x86).unwrap()))
        .map(|number| {
            let at = table + number * SECTION_HEADER;
            let name = String::from_utf8_lossy(&bytes[at..at + 8]).trim_end_matches('\0').to_owned();
            let field = |offset| word(bytes, at + offset).unwrap();
            (name, field(8), field(12), field(16), field(20))
        })
        .collect()
}

#[test]
fn sections_come_after_the_stubs_own_aligned_in_file_and_memory() {
    let initrd = vec![7; 5000];
    let image = made(&stub(), &parts(&initrd)).unwrap();
    let found = sections(&image);
    let names: Vec<&str> = found.iter().map(|section| section.0.as_str()).collect();
    assert_eq!(names, [".text", ".sbat", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
    assert_eq!(found[5], (".initrd".into(), 5000, 0x6000, 0x1400, 0xe00));
    assert_eq!(found[6], (".linux".into(), 6, 0x8000, 0x200, 0x2200));
    assert_eq!(&image[0xe00..0xe00 + 5000], initrd);
    assert_eq!(&image[0x2200..0x2206], b"kernel");
    assert_eq!(image.len(), 0x2400);
    assert_eq!(word(&image, 0x98 + 56), Some(0x9000), "the image in memory has grown");
    assert_eq!(word(&image, 0x98 + 64), Some(0), "the old checksum is gone");
    assert_eq!(image, made(&stub(), &parts(&initrd)).unwrap());
}

#[test]
fn a_stub_that_is_none_is_refused() {
    let said = |stub: &[u8]| made(stub, &parts(b"")).unwrap_err().to_string();
    assert_eq!(said(b""), "the EFI stub is not usable: it is no PE image");
    assert_eq!(said(&stub()[..0x90]), "the EFI stub is not usable: it is cut short");
    assert_eq!(said(&stub()[..0x7ff]), "the EFI stub is not usable: its sections are not within it");
    let mut narrow = stub();
    narrow[0x98] = 0x0b;
    narrow[0x99] = 0x01;
    assert_eq!(said(&narrow), "the EFI stub is not usable: it is not for 64 bits (PE32+)");
    let image = made(&stub(), &parts(b"")).unwrap();
    assert_eq!(said(&image), "the EFI stub is not usable: it is a unified kernel image already");
    let mut full = stub();
    full[0x98 + 60..0x98 + 64].copy_from_slice(&0x1e0_u32.to_le_bytes());
    assert_eq!(said(&full), "the EFI stub has no room for the section `.osrel`");
}

#[test]
fn a_stub_cut_or_changed_anywhere_never_panics() {
    let whole = stub();
    for at in 0..0x200 {
        let _ = made(&whole[..at], &parts(b"x"));
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            let _ = made(&changed, &parts(b"x"));
        }
    }
}
