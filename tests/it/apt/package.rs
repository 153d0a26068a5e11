//! Packages made on the spot: small, whole, and whatever a test wants in them.

use std::io::{Read as _, Write as _};

use bedplate::digest::Digest;
use md5::{Digest as _, Md5};

/// How the members of a package are compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Xz,
    Zstd,
    /// Not at all: its bytes depend on no library.
    None,
}

/// A package to be made.
#[derive(Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// Further fields of its control stanza, in order.
    pub(crate) fields: Vec<(String, String)>,
    /// Its entries: type, path, link target, mode, contents.
    pub(crate) entries: Vec<Entry>,
    /// Configuration files, as absolute paths.
    pub(crate) conffiles: Vec<String>,
    /// Maintainer scripts and other control files.
    pub(crate) scripts: Vec<(String, String)>,
    pub(crate) packing: Packing,
    /// What stands in an index instead of what is so.
    pub(crate) lies: Vec<(String, Option<String>)>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    kind: u8,
    path: String,
    target: String,
    mode: u32,
    contents: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(kind: u8, path: &str, target: &str, contents: &[u8]) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self { kind, path: path.to_owned(), target: target.to_owned(), mode, contents: contents.to_vec() }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut header = tar::Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..self.path.len()].copy_from_slice(self.path.as_bytes());
        gnu.linkname[..self.target.len()].copy_from_slice(self.target.as_bytes());
        header.set_entry_type(tar::EntryType::new(self.kind));
        header.set_size(self.contents.len() as u64);
        header.set_mode(self.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&self.contents);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

impl Package {
    /// A package of one file, `/usr/share/NAME/version`.
    pub(crate) fn new(name: &str, version: &str) -> Self {
        let mut package = Self {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            fields: Vec::new(),
            entries: Vec::new(),
            conffiles: Vec::new(),
            scripts: Vec::new(),
            packing: Packing::Xz,
            lies: Vec::new(),
        };
        for directory in ["./", "./usr/", "./usr/share/", &format!("./usr/share/{name}/")] {
            package.entries.push(Entry::new(b'5', directory, "", b""));
        }
        package.file(&format!("./usr/share/{name}/version"), version)
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn depends(self, on: &str) -> Self {
        self.field("Depends", on)
    }

    pub(crate) fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    pub(crate) fn packed(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    pub(crate) fn file(self, path: &str, contents: &str) -> Self {
        self.entry(b'0', path, "", contents.as_bytes())
    }

    pub(crate) fn entry(mut self, kind: u8, path: &str, target: &str, contents: &[u8]) -> Self {
        self.entries.push(Entry::new(kind, path, target, contents));
        self
    }

    /// A program, 0755.
    pub(crate) fn program(mut self, path: &str, contents: &[u8]) -> Self {
        self.entries.push(Entry { mode: 0o755, ..Entry::new(b'0', path, "", contents) });
        self
    }

    /// With the digests of its files, as they are now (deb-md5sums(5)).
    pub(crate) fn with_sums(self) -> Self {
        let files = self.entries.iter().filter(|entry| entry.kind == b'0');
        let line = |entry: &Entry| {
            format!(
                "{}  {}\n",
                hex::encode(Md5::digest(&entry.contents)),
                entry.path.trim_start_matches("./")
            )
        };
        let sums: String = files.map(line).collect();
        self.script("md5sums", &sums)
    }

    /// A directory, and all above it that are not there yet.
    pub(crate) fn directory(mut self, path: &str) -> Self {
        let mut above = "./".to_owned();
        for part in path.trim_start_matches("./").split('/').filter(|part| !part.is_empty()) {
            above += &format!("{part}/");
            if !self.entries.iter().any(|entry| entry.path == above) {
                self.entries.push(Entry::new(b'5', &above, "", b""));
            }
        }
        self
    }

    pub(crate) fn script(mut self, name: &str, text: &str) -> Self {
        self.scripts.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Makes the index say something else, or nothing, for a field.
    pub(crate) fn lie(mut self, field: &str, value: Option<&str>) -> Self {
        self.lies.push((field.to_owned(), value.map(str::to_owned)));
        self
    }

    /// `NAME_VERSION_ARCH.deb`, without the epoch, as archives name it.
    pub(crate) fn file_name(&self) -> String {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, rest)| rest);
        format!("{}_{version}_{}.deb", self.name, self.architecture)
    }

    /// The control stanza, without a line end after its last field.
    pub(crate) fn control(&self) -> String {
        let mut text = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Test <test@example.org>\n",
            self.name, self.version, self.architecture
        );
        for (name, value) in &self.fields {
            text += &format!("{name}: {value}\n");
        }
        text + "Description: made by a test\n It holds nothing of use."
    }

    /// The package's bytes.
    pub(crate) fn deb(&self) -> Vec<u8> {
        let mut control = Vec::new();
        let mut files = vec![("./control".to_owned(), format!("{}\n", self.control()), 0o644)];
        if !self.conffiles.is_empty() {
            files.push(("./conffiles".to_owned(), self.conffiles.join("\n") + "\n", 0o644));
        }
        for (name, text) in &self.scripts {
            files.push((format!("./{name}"), text.clone(), 0o755));
        }
        Entry::new(b'5', "./", "", b"").write(&mut control);
        for (path, text, mode) in files {
            Entry { mode, ..Entry::new(b'0', &path, "", text.as_bytes()) }.write(&mut control);
        }
        let mut data = Vec::new();
        for entry in &self.entries {
            entry.write(&mut data);
        }
        let end = match self.packing {
            Packing::Gzip => ".gz",
            Packing::Xz => ".xz",
            Packing::Zstd => ".zst",
            Packing::None => "",
        };
        ar(&[
            ("debian-binary", b"2.0\n"),
            (&format!("control.tar{end}"), &self.packing.pack(&ended(control))),
            (&format!("data.tar{end}"), &self.packing.pack(&ended(data))),
        ])
    }

    /// The package's stanza in an index, with its path in the archive and its bytes.
    pub(crate) fn stanza(&self, path: &str, deb: &[u8]) -> String {
        let mut text = format!("{}\n", self.control());
        let mut field = |name: &str, value: String| {
            let said = self.lies.iter().find(|(lie, _)| lie == name).map(|(_, value)| value.clone());
            if let Some(value) = said.unwrap_or(Some(value)) {
                text += &format!("{name}: {value}\n");
            }
        };
        field("Filename", path.to_owned());
        field("Size", deb.len().to_string());
        field("MD5sum", "0123456789abcdef0123456789abcdef".to_owned());
        field("SHA256", Digest::of(deb).hex());
        for (name, value) in &self.lies {
            if let (false, Some(value)) =
                (["Filename", "Size", "MD5sum", "SHA256"].contains(&name.as_str()), value)
            {
                text += &format!("{name}: {value}\n");
            }
        }
        text
    }
}

fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len() + 1024, 0);
    tar
}

impl Packing {
    fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Gzip => gzip(bytes),
            Self::Xz => xz(bytes),
            Self::Zstd => zstd(bytes),
            Self::None => bytes.to_vec(),
        }
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut out).unwrap();
    out
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// An `ar` archive of members, as deb(5) wants it.
pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", bytes.len()).unwrap();
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}
