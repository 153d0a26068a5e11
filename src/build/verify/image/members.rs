//! A tar archive as `build` writes it (`build::write::tar`), read strictly: what is not so is told with its place.

use std::io::{self, Read};

use ::tar::{EntryType, Header};

use super::contents::{Contents, Fault, Put, shown};

/// Bytes of a block.
const BLOCK: usize = 512;
/// Largest extended header, in bytes: a path, a link and some attributes.
const EXTENDED: u64 = 1 << 20;
/// How a name begins that means, in a layer, that another one is gone (OCI image specification, layer.md, "Whiteouts").
const WHITEOUT: &str = ".wh.";

/// Reads a whole archive into `contents`.
///
/// # Errors
/// Where and why reading stopped: its text names the last path, or the byte.
pub(super) fn read(reader: &mut dyn Read, contents: &mut Contents) -> Result<(), Fault> {
    let mut archive = Archive { reader, at: 0, last: None };
    archive.members(contents).map_err(|fault| match fault {
        // What a decompressor says has no place.
        Fault::Read(error) if error.kind() != io::ErrorKind::FileTooLarge => {
            let last = archive.last.as_deref().unwrap_or_default();
            Fault::Damaged(format!("it cannot be read further than `/{}`: {error}", shown(last)))
        }
        other => other,
    })
}

struct Archive<'r> {
    reader: &'r mut dyn Read,
    /// Bytes read.
    at: u64,
    /// The path before.
    last: Option<String>,
}

/// What an extended header says of the next entry.
#[derive(Default)]
struct Records {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Archive<'_> {
    fn members(&mut self, contents: &mut Contents) -> Result<(), Fault> {
        let mut records = None;
        loop {
            let begins = self.at;
            let block = self.block()?;
            if block == [0; BLOCK] {
                return self.end();
            }
            let header = Header::from_byte_slice(&block);
            if !is_whole(header) {
                let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
                return Err(Fault::Damaged(format!(
                    "the header of `/{}` at byte {begins} does not fit its checksum",
                    shown(name.trim_end_matches('/'))
                )));
            }
            let kind = header.entry_type();
            if kind == EntryType::XHeader {
                if records.is_some() {
                    return Err(refused(begins, "two extended headers for one entry"));
                }
                records = Some(self.records(header, begins)?);
                continue;
            }
            self.member(header, records.take().unwrap_or_default(), begins, contents)?;
        }
    }

    fn member(
        &mut self,
        header: &Header,
        records: Records,
        begins: u64,
        contents: &mut Contents,
    ) -> Result<(), Fault> {
        let text = |bytes: Option<&[u8]>| std::str::from_utf8(bytes.unwrap_or_default()).map(str::to_owned);
        let not_text = |_| refused(begins, "a name that is not UTF-8");
        let name = match records.path {
            Some(path) => path,
            None => text(Some(&header.path_bytes())).map_err(not_text)?,
        };
        let link = match records.link {
            Some(link) => link,
            None => text(header.link_name_bytes().as_deref()).map_err(not_text)?,
        };
        let kind = header.entry_type();
        let path = match name.as_str() {
            "./" => "",
            name if kind == EntryType::Directory => name.strip_suffix('/').unwrap_or(name),
            name => name,
        };
        if path.split('/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(refused(begins, &format!("`/{}`, which takes a file away", shown(path))));
        }
        if self.last.as_deref().is_some_and(|last| last.as_bytes() >= path.as_bytes()) {
            return Err(refused(begins, &format!("`/{}` out of order", shown(path))));
        }
        let size = match records.size {
            Some(size) => size,
            None => header.entry_size().map_err(|_| refused(begins, "a size that is none"))?,
        };
        let what = match kind {
            EntryType::Regular => Put::File(size),
            EntryType::Directory => Put::Directory,
            EntryType::Link => Put::Hard(link),
            EntryType::Symlink => Put::Link(link),
            EntryType::Char | EntryType::Block | EntryType::Fifo => Put::Other,
            _ => return Err(refused(begins, &format!("`/{}`, of a kind no build writes", shown(path)))),
        };
        if size > 0 && !matches!(what, Put::File(_)) {
            return Err(refused(begins, &format!("`/{}` with a content, which is no file", shown(path))));
        }
        let put = contents.put(path, what, self.reader);
        put.map_err(|fault| match fault {
            Fault::Damaged(why) => Fault::Damaged(format!("{why}, within `/{}`", shown(path))),
            other => other,
        })?;
        self.at = self.at.saturating_add(size);
        self.padding(size, path)?;
        self.last = Some(path.to_owned());
        Ok(())
    }

    /// The rest of the last block, which is zeros.
    fn padding(&mut self, size: u64, path: &str) -> Result<(), Fault> {
        let past = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if past == 0 {
            return Ok(());
        }
        let mut rest = vec![0; BLOCK - past];
        self.fill(&mut rest)?;
        match rest.iter().position(|byte| *byte != 0) {
            None => {
                self.at += rest.len() as u64;
                Ok(())
            }
            Some(place) => Err(Fault::Damaged(format!(
                "byte {} is not zero, which is behind the end of `/{}`",
                self.at + place as u64,
                shown(path)
            ))),
        }
    }

    /// What follows the first block of zeros: another one, and nothing else.
    fn end(&mut self) -> Result<(), Fault> {
        let mut buffer = vec![0; 64 << 10];
        let mut blocks = 0;
        loop {
            let count = match self.reader.read(&mut buffer) {
                Ok(0) if blocks >= BLOCK => return Ok(()),
                Ok(0) => return Err(Fault::Damaged("it ends too early, within its end mark".to_owned())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(place) = buffer[..count].iter().position(|byte| *byte != 0) {
                let at = self.at + place as u64;
                return Err(Fault::Damaged(format!("byte {at} is not zero, which is behind its end mark")));
            }
            self.at += count as u64;
            blocks += count;
        }
    }

    /// An extended header: records of length, blank, keyword, `=`, value, line end.
    fn records(&mut self, header: &Header, begins: u64) -> Result<Records, Fault> {
        let broken = || Fault::Damaged(format!("the extended header at byte {begins} cannot be read"));
        let size = header.entry_size().ok().filter(|size| *size <= EXTENDED).ok_or_else(|| {
            refused(begins, &format!("an extended header of more than {} KiB", EXTENDED >> 10))
        })?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0).next_multiple_of(BLOCK)];
        self.fill(&mut bytes)?;
        self.at += bytes.len() as u64;
        let (mut rest, padding) = bytes.split_at(usize::try_from(size).unwrap_or(0));
        if padding.iter().any(|byte| *byte != 0) {
            return Err(broken());
        }
        let mut records = Records::default();
        while !rest.is_empty() {
            let blank = memchr::memchr(b' ', rest).ok_or_else(broken)?;
            let length = std::str::from_utf8(&rest[..blank]).ok().and_then(|text| text.parse::<usize>().ok());
            let record = length.and_then(|length| rest.get(blank + 1..length)).ok_or_else(broken)?;
            rest = &rest[length.unwrap_or(rest.len())..];
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equal = memchr::memchr(b'=', record).ok_or_else(broken)?;
            let (keyword, value) = (&record[..equal], &record[equal + 1..]);
            let text = || std::str::from_utf8(value).map(str::to_owned).map_err(|_| broken());
            match keyword {
                b"path" => records.path = Some(text()?),
                b"linkpath" => records.link = Some(text()?),
                b"size" => records.size = Some(text()?.parse().map_err(|_| broken())?),
                b"uid" | b"gid" | b"mtime" => {}
                attribute if attribute.starts_with(b"SCHILY.xattr.") => {}
                _ => return Err(broken()),
            }
        }
        Ok(records)
    }

    fn block(&mut self) -> Result<[u8; BLOCK], Fault> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        self.at += BLOCK as u64;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.reader.read_exact(buffer).map_err(|error| match (Fault::from(error), &self.last) {
            (Fault::Damaged(why), Some(last)) => Fault::Damaged(format!("{why}, after `/{}`", shown(last))),
            (fault, _) => fault,
        })
    }
}

fn refused(begins: u64, why: &str) -> Fault {
    Fault::Refused(format!("it has {why}, at byte {begins}"))
}

/// Whether a header has the sum that it states: of all its bytes, with blanks for those of the sum (POSIX, `pax`,
/// "ustar Interchange Format").
fn is_whole(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) });
    header.cksum().is_ok_and(|stated| stated == sum.sum::<u32>())
}
