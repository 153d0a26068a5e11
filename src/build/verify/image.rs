//! An image as `build` writes it, held against the record beside it, and its tree against dpkg's digests and a lock.
//!
//! The record says what every part is: a file, a blob, a partition. Where one differs, what is in it is read, as far as
//! bedplate can, to tell which path it is. Without a record beside the image, the one in its tree says what it was made
//! from, and the tree is all that can be held against something. Nothing is mounted, unpacked or run, and memory is
//! bounded by the names of a tree: an image may come from anywhere.
//!
//! | part | what it reads |
//! |---|---|
//! | `archive`, `members` | archives, compressed or not |
//! | `layout` | OCI image layouts |
//! | `disk`, `qcow2`, `fat`, `ext4` | disks |
//! | `contents` | a tree, from whichever |

mod archive;
mod contents;
mod disk;
mod ext4;
mod fat;
mod layout;
mod members;
mod qcow2;

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::contents::{Contents, Fault};
use super::{Counts, Finding, LIMIT, Report, UNSEEN, What, files, packages, report};
use crate::{
    build::{
        record::{self, IN_TREE, Part, Record},
        write::compress::Compression,
    },
    error::{Doing, Error, Result},
    lock::Lock,
    plan::dpkg::Packages,
    profile::image_definition::Format,
    system::files::{Root, exists, is_dir, open_input, read_text},
};

/// What is not looked at of an image that has a record beside it.
pub const UNSEEN_RECORDED: &str = "whether the record itself is the builder's: it is not signed";
/// What is not looked at of an image where no lock is to be had.
pub const UNSEEN_UNLOCKED: &str = "which packages should be there: name the profile with `--profile`";
/// What is not looked at of an OCI image layout without a record beside it.
const UNSEEN_LAYOUT: &str = "whether manifest and layers are the builder's: they fit one another";

/// What an image was held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct About {
    /// Its form: the word of an image definition.
    pub format: &'static str,
    /// Where its record was found.
    pub record: Held,
}

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// Beside the image: every byte was held against it.
    Beside,
    /// In the tree alone.
    InTree,
    /// Nowhere.
    Nowhere,
}

/// What finds the lock that a tree says it was made from; it gets dpkg's database and bedplate's generation as a root.
pub type FindLock<'a> = &'a dyn Fn(&Root) -> Result<Option<Lock>>;

/// Holds the image at `path` against its record, its tree against dpkg's digests and `lock`, or the lock that it says of.
/// Digests of files are compared `threads` at once.
///
/// # Errors
/// A usage error where `path` is no image; a check error where its record cannot be read; a failure where the image
/// itself cannot be read. Whatever is wrong with its content is a finding.
pub fn verify(path: &Path, lock: Option<&Lock>, find: FindLock<'_>, threads: usize) -> Result<Report> {
    let name = Name::of(path);
    let beside = name.record()?;
    let format = format(path, &name, beside.as_ref())?;
    let mut image =
        Image { path, name, beside, lock, find, threads, findings: Vec::new(), counts: Counts::default() };
    let tree = match format {
        Format::Tar | Format::TarZst => image.archive(format)?,
        Format::Oci => layout::verify(&mut image)?,
        Format::Disk | Format::Qcow2 => disk::verify(&mut image, format)?,
    };
    image.finish(format, tree)
}

/// An image's name, and the directory it and its record lie in.
#[derive(Debug)]
struct Name {
    directory: PathBuf,
    /// Of the file or directory itself.
    file: String,
    /// Without the word of its format.
    stem: String,
}

impl Name {
    fn of(path: &Path) -> Self {
        let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // The longest ending first: `.tar.zst` ends in no other.
        let end = Format::ALL.iter().filter_map(|format| file.strip_suffix(&format!(".{}", format.name())));
        let stem = end.min_by_key(|stem| stem.len()).unwrap_or(&file).to_owned();
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self { directory: directory.unwrap_or(Path::new(".")).to_owned(), file, stem }
    }

    /// The record beside the image.
    fn record(&self) -> Result<Option<Record>> {
        let path = self.directory.join(record::file_name(&self.stem));
        if !exists(&path) {
            return Ok(None);
        }
        let shown = path.display().to_string();
        let text = read_text(&path, record::MAX_SIZE)?;
        record::parse(&shown, &text).map(Some).map_err(|error| error.with_kind(crate::error::Kind::Check))
    }
}

/// What an image is: by its record, whatever has become of its first bytes; else by these.
fn format(path: &Path, name: &Name, beside: Option<&Record>) -> Result<Format> {
    let not_one = |why: &str| {
        Error::usage(format!("`{}` is no image: {why}", path.display()))
            .hint("name what `bedplate build` wrote: `NAME.tar`, `NAME.tar.zst`, `NAME.oci`, `NAME.disk` or `NAME.qcow2`; or the directory of a root tree")
    };
    if is_dir(path) {
        return Ok(Format::Oci);
    }
    let recorded = beside
        .and_then(|record| record.parts.as_ref())
        .is_some_and(|parts| parts.files.contains_key(&name.file));
    let by_name =
        Format::ALL.into_iter().find(|format| format!("{}.{}", name.stem, format.name()) == name.file);
    if let (true, Some(format)) = (recorded, by_name) {
        return Ok(format);
    }
    let (mut file, _) = open_input(path)?;
    let mut first = [0; 1024];
    let length = read_first(&mut file, &mut first).doing(|| format!("reading `{}`", path.display()))?;
    let first = &first[..length];
    match first {
        [] => Err(not_one("it is empty")),
        _ if first.get(257..262) == Some(b"ustar") => Ok(Format::Tar),
        [b'Q', b'F', b'I', 0xfb, ..] => Ok(Format::Qcow2),
        _ if first.get(512..520) == Some(b"EFI PART") => Ok(Format::Disk),
        _ if archive::compression(first) == Compression::Zstd => Ok(Format::TarZst),
        _ => Err(not_one("it is no tar archive, no zstd, no disk with a partition table, no qcow2")),
    }
}

fn read_first(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            count => length += count,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(length)
}

/// A tree that was read out of an image.
struct Read {
    contents: Contents,
    /// All of it: what is not there is missing.
    whole: bool,
}

/// An image on its way through.
struct Image<'a> {
    path: &'a Path,
    name: Name,
    beside: Option<Record>,
    lock: Option<&'a Lock>,
    find: FindLock<'a>,
    threads: usize,
    findings: Vec<Finding>,
    counts: Counts,
}

impl Image<'_> {
    fn archive(&mut self, format: Format) -> Result<Option<Read>> {
        let (file, _) = open_input(self.path)?;
        let compression = if format == Format::TarZst { Compression::Zstd } else { Compression::None };
        let mut contents = Contents::new()?;
        let read = archive::read(file, compression, &mut contents)
            .doing(|| format!("reading `{}`", self.path.display()))?;
        let name = self.name.file.clone();
        if let Some(expected) = self.recorded_file() {
            self.part(&name, expected, read.stored);
        }
        let whole = read.fault.is_none();
        self.fault(&name, read.fault)?;
        Ok(Some(Read { contents, whole }))
    }

    /// What the record says of the image's file; a finding where there is a record that does not say it.
    fn recorded_file(&mut self) -> Option<Part> {
        let record = self.beside.as_ref()?;
        let part = record.parts.as_ref().and_then(|parts| parts.files.get(&self.name.file)).copied();
        if part.is_none() {
            self.unnamed();
        }
        part
    }

    /// A finding of a record beside the image that is none of it.
    fn unnamed(&mut self) {
        let said = format!("`{}` does not name it", record::file_name(&self.name.stem));
        self.findings.push(Finding::new(What::NoRecord, None).of(&self.name.file).found(said));
    }

    /// Holds a part against what it should be. True: it is that.
    fn part(&mut self, name: &str, expected: Part, found: Part) -> bool {
        self.counts.parts += 1;
        if expected == found {
            return true;
        }
        let said = |part: Part| format!("{} ({} bytes)", part.digest, part.size);
        let finding = Finding::new(What::Part, None).of(name);
        self.findings.push(finding.expected(said(expected)).found(said(found)));
        false
    }

    /// A finding of why reading stopped.
    fn fault(&mut self, name: &str, fault: Option<Fault>) -> Result<()> {
        let (what, why) = match fault {
            None => return Ok(()),
            Some(Fault::Damaged(why)) => (What::Damaged, why),
            Some(Fault::Read(error)) => (What::Damaged, error.to_string()),
            Some(Fault::Refused(why)) => (What::Refused, why),
            Some(Fault::Ours(error)) => return Err(error),
        };
        self.findings.push(Finding::new(what, None).of(name).found(why));
        Ok(())
    }

    /// Judges the tree, and makes the report.
    fn finish(mut self, format: Format, tree: Option<Read>) -> Result<Report> {
        let mut in_tree = None;
        let mut own = None;
        if let Some(Read { contents, whole }) = &tree {
            let root = contents.root();
            in_tree = self.record_in(root, *whole)?;
            own = match self.lock {
                Some(_) => None,
                // What is cut short or changed may have half a generation.
                None => (self.find)(root).unwrap_or_default(),
            };
            self.tree(contents, *whole, own.as_ref());
        }
        let record = self.beside.as_ref().or(in_tree.as_ref());
        if let (Some(lock), Some(record)) = (self.lock.or(own.as_ref()), record)
            && lock.digest() != record.lock
        {
            let finding = Finding::new(What::OtherLock, None).of(&self.name.file);
            self.findings.push(finding.expected(lock.digest().to_string()).found(record.lock.to_string()));
        }
        let held = match (&self.beside, &in_tree) {
            (Some(_), _) => Held::Beside,
            (None, Some(_)) => Held::InTree,
            (None, None) => Held::Nowhere,
        };
        if held == Held::Nowhere {
            self.findings.push(Finding::new(What::NoRecord, None).of(&self.name.file));
        }
        let mut unseen = match held {
            Held::Beside => vec![UNSEEN_RECORDED],
            _ if format == Format::Oci => [&UNSEEN[..], &[UNSEEN_LAYOUT]].concat(),
            _ => UNSEEN.to_vec(),
        };
        if self.lock.or(own.as_ref()).is_none() && tree.is_some() {
            unseen.push(UNSEEN_UNLOCKED);
        }
        let lock = self.lock.or(own.as_ref()).map(Lock::digest).or(record.map(|record| record.lock));
        let about = About { format: format.name(), record: held };
        Ok(report(lock, Some(about), self.counts, self.findings, unseen))
    }

    /// The record in the tree, which is that beside the image but for its parts.
    fn record_in(&mut self, root: &Root, whole: bool) -> Result<Option<Record>> {
        let text = match root.read_text(IN_TREE, record::MAX_SIZE) {
            Ok(text) => text,
            Err(error) => {
                let finding = Finding::new(What::Unreadable, None).of(&self.name.file).at(IN_TREE);
                self.findings.push(finding.found(error.message()));
                return Ok(None);
            }
        };
        let Some(text) = text else {
            if whole && self.beside.is_some() {
                self.findings.push(Finding::new(What::Missing, None).of(&self.name.file).at(IN_TREE));
            }
            return Ok(None);
        };
        if let Some(beside) = &self.beside {
            if beside.in_tree().write()? != text {
                let finding = Finding::new(What::OtherRecord, None).of(&self.name.file).at(IN_TREE);
                self.findings.push(finding);
            }
            return Ok(None);
        }
        match record::parse(IN_TREE, &text) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                let finding = Finding::new(What::Damaged, None).of(&self.name.file).at(IN_TREE);
                self.findings.push(finding.found(error.message()));
                Ok(None)
            }
        }
    }

    /// Packages and files.
    fn tree(&mut self, contents: &Contents, whole: bool, own: Option<&Lock>) {
        let root = contents.root();
        let read = Packages::read(|path| root.read_text(path, LIMIT), |path| root.names(path));
        let installed = match read {
            Ok(Some(installed)) => installed,
            // What was not read may be there.
            Ok(None) | Err(_) if !whole => return,
            Ok(None) => {
                self.findings.push(Finding::new(What::NoDatabase, None).of(&self.name.file));
                return;
            }
            Err(error) => {
                let finding = Finding::new(What::NoDatabase, None).of(&self.name.file);
                self.findings.push(finding.found(error.message()));
                return;
            }
        };
        let mut found = Vec::new();
        match files::check(root, contents, &installed, self.threads) {
            Ok(checked) => {
                self.counts.files = checked.files;
                found = checked.findings;
            }
            Err(error) if whole => {
                let finding = Finding::new(What::NoDatabase, None);
                found.push(finding.found(error.message()));
            }
            Err(_) => {}
        }
        if whole {
            if let Some(lock) = self.lock.or(own) {
                self.counts.locked = lock.host_packages().len();
                found.extend(packages(lock, &installed));
            }
        } else {
            // Only what was read can be told of.
            found.retain(|finding| matches!(finding.what, What::Content | What::Conffile));
        }
        self.counts.installed = installed.present().count();
        let part = self.name.file.clone();
        self.findings.extend(found.into_iter().map(|finding| finding.of(&part)));
    }
}

#[cfg(test)]
mod tests;
