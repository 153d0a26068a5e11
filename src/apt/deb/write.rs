//! Writing a `.deb` (deb(5), format 2.0): the same files give the same bytes.

use std::io::Write;

use ::tar::{Builder, EntryType, Header};

use crate::error::{Doing, Result};

/// How hard members are compressed: dpkg's own level for Zstandard (dpkg-deb(1), `-z`).
const LEVEL: i32 = 19;
/// Bytes of a member's header in `ar` (ar(5)); a file of an odd size is filled up by one.
const AR_MODE: &str = "100644";

/// A file or directory of a package that is written; root owns each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its path from the top, without `/` at its start. A directory's ends in `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its content; nothing for a directory.
    pub content: Vec<u8>,
}

/// The bytes of a package: `control` are its control files, `data` its files and their directories, each in the order
/// it is to be unpacked. `time`: when all of it was changed last, in seconds since 1970.
///
/// # Errors
/// A path is longer than a tar header holds.
pub fn write(control: &[NewFile], data: &[NewFile], time: u64) -> Result<Vec<u8>> {
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.zst", archive(control, time)?),
        ("data.tar.zst", archive(data, time)?),
    ];
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        writeln!(out, "{name:<16}{time:<12}{:<6}{:<6}{AR_MODE:<8}{size:<10}`", 0, 0).doing(writing)?;
        out.extend(&content);
        if size % 2 == 1 {
            out.push(b'\n');
        }
    }
    Ok(out)
}

fn archive(files: &[NewFile], time: u64) -> Result<Vec<u8>> {
    let compressor = zstd::Encoder::new(Vec::new(), LEVEL).doing(writing)?;
    let mut builder = Builder::new(compressor);
    let top = NewFile { path: "./".to_owned(), mode: 0o755, content: Vec::new() };
    for file in std::iter::once(&top).chain(files) {
        let mut header = Header::new_ustar();
        let kind = if file.path.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
        header.set_entry_type(kind);
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        header.set_size(file.content.len() as u64);
        let path = if file.path == "./" { file.path.clone() } else { format!("./{}", file.path) };
        header.set_path(&path).doing(|| format!("writing `{}` into a package", file.path))?;
        header.set_cksum();
        builder.append(&header, file.content.as_slice()).doing(writing)?;
    }
    builder.into_inner().and_then(zstd::Encoder::finish).doing(writing)
}

fn writing() -> String {
    "writing a package".to_owned()
}

#[cfg(test)]
mod tests {
    use std::{io::Read, process::Command};

    use super::*;
    use crate::apt::deb::{Member, MemberKind, Sink};

    #[derive(Default)]
    struct Seen(Vec<(String, u32, i64, Vec<u8>)>);

    impl Sink for Seen {
        fn wants(&self, _: &str) -> bool {
            true
        }

        fn control(&mut self, name: &str, member: &Member, content: Vec<u8>) -> Result<()> {
            self.0.push((name.to_owned(), member.mode, member.modified, content));
            Ok(())
        }

        fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<()> {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).doing(writing)?;
            let kind = if matches!(member.kind, MemberKind::Directory) { "/" } else { "" };
            let path = format!("{}{kind}", String::from_utf8_lossy(&member.path));
            self.0.push((path, member.mode, member.modified, bytes));
            Ok(())
        }
    }

    #[test]
    fn is_read_back_and_taken_by_dpkg() {
        let file = |path: &str, mode: u32, content: &str| NewFile {
            path: path.to_owned(),
            mode,
            content: content.as_bytes().to_vec(),
        };
        let stanza = "Package: modules\nVersion: 1.0+x\nArchitecture: all\nMaintainer: me <me@localhost>\nDescription: x\n";
        let control = [file("control", 0o644, stanza), file("postinst", 0o755, "#!/bin/sh\nexit 0\n")];
        let data = [file("usr/", 0o755, ""), file("usr/lib/", 0o755, ""), file("usr/lib/odd", 0o644, "abc")];
        let bytes = write(&control, &data, 1_700_000_001).unwrap();
        assert_eq!(bytes, write(&control, &data, 1_700_000_001).unwrap());
        let mut seen = Seen::default();
        let facts =
            crate::apt::deb::read(bytes.as_slice(), &crate::apt::deb::Limits::default(), &mut seen).unwrap();
        assert_eq!((facts.name.as_str(), facts.version.as_str(), facts.files), ("modules", "1.0+x", 1));
        let odd = seen.0.iter().find(|(path, ..)| path.ends_with("odd")).unwrap();
        assert_eq!((odd.1 & 0o777, odd.2, odd.3.as_slice()), (0o644, 1_700_000_001, b"abc".as_slice()));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.deb");
        crate::system::files::write_output(&path, &bytes, 0o644).unwrap();
        let listed = Command::new("dpkg-deb").arg("--contents").arg(&path).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(
            listed.contains("-rw-r--r-- 0/0               3 2023-11-14") && listed.contains("usr/lib/odd"),
            "{listed}"
        );
        let long = [file(&"a/".repeat(200), 0o755, "")];
        assert!(write(&control, &long, 0).unwrap_err().message().contains("into a package"));
    }
}
