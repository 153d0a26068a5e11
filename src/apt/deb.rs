//! Debian packages as files: reads a `.deb` (deb(5)) as a stream and refuses one that is broken or hostile.
//!
//! The members are decompressed once, their headers are judged, their contents are counted, and given to a [`Sink`]
//! where one wants them.
//! What is refused is what would write or reach outside the tree a package is unpacked into, what no package of
//! files needs (device nodes, sockets), and what is far larger than it looks.

mod ar;
mod control;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod write;

use std::io::{self, Read};

use ar::Ar;
use tree::Tree;
pub use tree::{Member, MemberKind};
use unpack::{Meter, unpacked};
pub use write::{NewFile, write};

use crate::error::{Error, Result};

/// How much a package may hold. The default is far above any package of Debian, Ubuntu or a GPU vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that the files of the package, or its control files, may have together once unpacked.
    pub unpacked: u64,
    /// Most files, directories and links of the package.
    pub entries: u64,
    /// Most bytes unpacked for each byte packed. Only asked after [`Limits::RATIO_FROM`] bytes.
    pub ratio: u64,
}

impl Limits {
    /// Below so many unpacked bytes the ratio does not matter: a small file of zeros is no bomb.
    pub const RATIO_FROM: u64 = 64 << 20;
}

impl Default for Limits {
    /// 16 GiB unpacked, a million entries, 400 to 1.
    fn default() -> Self {
        Self { unpacked: 16 << 30, entries: 1_000_000, ratio: 400 }
    }
}

/// What a `.deb` says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebFacts {
    /// `Package`.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `Architecture`.
    pub architecture: String,
    /// The control stanza as text: one field or continuation a line, with a newline at its end.
    pub control: String,
    /// Configuration files, as absolute paths, in the order of the package's `conffiles`.
    pub conffiles: Vec<String>,
    /// `Installed-Size`, in KiB; absent where the package does not say.
    pub installed_size: Option<u64>,
    /// Files and links, without directories.
    pub files: u64,
    /// Bytes of the unpacked data archive.
    pub unpacked: u64,
}

/// Takes what is in a package, entry by entry, in the order of the package.
pub trait Sink {
    /// Whether the contents of the control file `name` are wanted.
    fn wants(&self, name: &str) -> bool;

    /// A control file that is wanted: its name, such as `postinst`, and its entry.
    ///
    /// # Errors
    /// It cannot be taken: the reading ends.
    fn control(&mut self, name: &str, member: &Member, content: Vec<u8>) -> Result<()>;

    /// An entry of the package's files, already judged; `content` is empty for all but regular files, and what is not
    /// read of it is passed over.
    ///
    /// # Errors
    /// It cannot be taken: the reading ends.
    fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<()>;
}

/// Takes nothing.
struct Nothing;

impl Sink for Nothing {
    fn wants(&self, _: &str) -> bool {
        false
    }

    fn control(&mut self, _: &str, _: &Member, _: Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn member(&mut self, _: &Member, _: &mut dyn Read) -> Result<()> {
        Ok(())
    }
}

/// Reads a whole package and judges it. Memory is bounded by the names of the package's files and the window of
/// its compression; `reader` is read to its end, unbuffered reads are fine.
///
/// # Errors
/// Not a Debian package, cut short, damaged, or hostile: paths or links that lead out, device nodes, FIFOs, a bomb.
/// An error of `reader` itself keeps its cause.
pub fn inspect(reader: impl Read, limits: &Limits) -> Result<DebFacts> {
    read(reader, limits, &mut Nothing)
}

/// As [`inspect`], and gives what is in the package to `sink`. An error comes after what came before it was taken.
///
/// # Errors
/// As [`inspect`]; and what `sink` says.
pub fn read(reader: impl Read, limits: &Limits, sink: &mut dyn Sink) -> Result<DebFacts> {
    let mut ar = Ar::open(reader)?;
    let control = read_control(&mut ar, sink)?;
    let name = loop {
        let name = ar.next()?.ok_or_else(|| refused("it has no `data.tar`"))?;
        if is_tar(&name, "data") {
            break name;
        }
        pass_over(&name, "data.tar")?;
    };
    let (files, unpacked) = read_data(&mut ar, &name, limits, sink)?;
    while let Some(name) = ar.next()? {
        // Signatures of a package come after its data; a second archive is never read by dpkg.
        if name == "debian-binary" || is_tar(&name, "control") || is_tar(&name, "data") {
            return Err(refused(format!("it has a second `{}` after its data", shown(name.as_bytes()))));
        }
    }
    Ok(DebFacts {
        name: control.stanza.name,
        version: control.stanza.version,
        architecture: control.stanza.architecture,
        control: control.stanza.text,
        conffiles: control.conffiles,
        installed_size: control.stanza.installed_size,
        files,
        unpacked,
    })
}

/// The control stanza alone: reads no further than `control.tar`, a few kilobytes. With `Filename`, `Size` and
/// `SHA256` added it is the package's stanza in an index.
///
/// # Errors
/// As [`inspect`], for the part that is read.
pub fn control_stanza(reader: impl Read) -> Result<String> {
    Ok(read_control(&mut Ar::open(reader)?, &mut Nothing)?.stanza.text)
}

/// The control files alone, given to `sink`: reads no further than `control.tar`.
///
/// # Errors
/// As [`read`], for the part that is read.
pub fn read_control_files(reader: impl Read, sink: &mut dyn Sink) -> Result<()> {
    read_control(&mut Ar::open(reader)?, sink).map(drop)
}

struct Control {
    stanza: control::Stanza,
    conffiles: Vec<String>,
}

/// Most bytes of unpacked control files: checksums of a large package's files are the most of it.
const CONTROL_TOTAL: u64 = 64 << 20;
/// Most bytes of `control` or `conffiles`.
const CONTROL_FILE: u64 = 1 << 20;
/// Most control files.
const CONTROL_ENTRIES: u64 = 4096;

fn read_control(ar: &mut Ar<impl Read>, sink: &mut dyn Sink) -> Result<Control> {
    let first = ar.next()?.ok_or_else(|| refused("it is empty"))?;
    if first != "debian-binary" {
        return Err(refused(format!("it begins with `{}`, not `debian-binary`", shown(first.as_bytes()))));
    }
    let version = ar.read_small(64)?;
    if !version.starts_with(b"2.") || !version.contains(&b'\n') {
        let line = version.split(|b| *b == b'\n').next().unwrap_or_default();
        return Err(refused(format!("its format is `{}`, only 2.0 is known", shown(line))));
    }
    let member = loop {
        let name = ar.next()?.ok_or_else(|| refused("it has no `control.tar`"))?;
        if is_tar(&name, "control") {
            break name;
        }
        pass_over(&name, "control.tar")?;
    };
    let limits = Limits { unpacked: CONTROL_TOTAL, entries: CONTROL_ENTRIES, ratio: u64::MAX };
    let meter = Meter::new(limits, ar.left());
    let read = control_files(unpacked(&member, ar, &meter)?, limits.entries, sink);
    let (control, conffiles) = settle(read, ar, &meter, &member)?;
    let control = control.ok_or_else(|| refused("its `control.tar` has no `control`"))?;
    Ok(Control {
        stanza: control::stanza(&control)?,
        conffiles: control::conffiles(&conffiles.unwrap_or_default())?,
    })
}

type ControlFiles = (Option<Vec<u8>>, Option<Vec<u8>>);

fn control_files(mut reader: impl Read, limit: u64, sink: &mut dyn Sink) -> Result<ControlFiles, Bad> {
    let (mut control, mut conffiles) = (None, None);
    let mut archive = tar::Archive::new(&mut reader);
    let mut tree = Tree::new("control.tar", limit);
    for entry in archive.entries().map_err(Bad::Read)?.raw(true) {
        let mut entry = entry.map_err(Bad::Read)?;
        let Some(member) = tree.add(&mut entry)? else { continue };
        match member.kind {
            MemberKind::Directory => continue,
            MemberKind::File(_) => {}
            MemberKind::Hard(_) | MemberKind::Link(_) => {
                let name = shown(&member.path);
                return Err(Bad::Refused(refused(format!("its control file `{name}` is a link"))));
            }
        }
        let name = std::str::from_utf8(&member.path).unwrap_or_default();
        let slot = match name {
            "control" => Some(&mut control),
            "conffiles" => Some(&mut conffiles),
            _ => None,
        };
        let wanted = !name.is_empty() && !name.contains('/') && sink.wants(name);
        if slot.is_none() && !wanted {
            continue;
        }
        // `Tree` refuses a name that comes twice. What only a sink wants is bounded by the archive's own limit.
        let most = if slot.is_some() { CONTROL_FILE } else { CONTROL_TOTAL };
        let mut bytes = Vec::new();
        entry.by_ref().take(most + 1).read_to_end(&mut bytes).map_err(Bad::Read)?;
        if bytes.len() as u64 > most {
            return Err(Bad::Refused(refused(format!("its `{name}` is larger than {} MiB", most >> 20))));
        }
        if wanted {
            sink.control(name, &member, bytes.clone())?;
        }
        if let Some(slot) = slot {
            *slot = Some(bytes);
        }
    }
    drain(reader)?;
    Ok((control, conffiles))
}

fn read_data(
    ar: &mut Ar<impl Read>,
    member: &str,
    limits: &Limits,
    sink: &mut dyn Sink,
) -> Result<(u64, u64)> {
    let meter = Meter::new(*limits, ar.left());
    let read = data_files(unpacked(member, ar, &meter)?, limits.entries, sink);
    let files = settle(read, ar, &meter, member)?;
    Ok((files, meter.unpacked()))
}

fn data_files(mut reader: impl Read, limit: u64, sink: &mut dyn Sink) -> Result<u64, Bad> {
    let mut archive = tar::Archive::new(&mut reader);
    let mut tree = Tree::new("data.tar", limit);
    let mut files = 0;
    for entry in archive.entries().map_err(Bad::Read)?.raw(true) {
        let mut entry = entry.map_err(Bad::Read)?;
        let Some(member) = tree.add(&mut entry)? else { continue };
        files += u64::from(member.kind != MemberKind::Directory);
        let mut content = Content { entry, fault: None };
        let taken = sink.member(&member, &mut content);
        if let Some(fault) = content.fault {
            return Err(Bad::Read(fault));
        }
        taken?;
    }
    drain(reader)?;
    Ok(files)
}

/// An entry's content, which keeps why it could not be read: that is the package's fault, not the sink's.
struct Content<R> {
    entry: R,
    fault: Option<io::Error>,
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.entry.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.fault = Some(error);
            }
            kind.into()
        })
    }
}

/// What lies after the end of a tar archive is read too: it counts, and damage in it shows.
fn drain(mut reader: impl Read) -> Result<(), Bad> {
    io::copy(&mut reader, &mut io::sink()).map(drop).map_err(Bad::Read)
}

/// Why the reading of a member stopped.
enum Bad {
    /// Something in it is refused.
    Refused(Error),
    /// It could not be read: cut short, damaged, too large, or the file below it failed.
    Read(io::Error),
}

impl From<Error> for Bad {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The real reason of a failed read is known to the readers below, not to the error that came through the
/// decompressor and the archive reader.
fn settle<T>(read: Result<T, Bad>, ar: &mut Ar<impl Read>, meter: &Meter, member: &str) -> Result<T> {
    let error = match read {
        Ok(value) => return Ok(value),
        Err(Bad::Refused(error)) => return Err(error),
        Err(Bad::Read(error)) => error,
    };
    Err(if let Some(error) = meter.fault(member) {
        error
    } else if let Some(error) = ar.fault() {
        error
    } else {
        damaged(format!("its `{member}` is damaged")).because(error)
    })
}

/// Whether this is the tar archive `part`, compressed in whatever way.
fn is_tar(name: &str, part: &str) -> bool {
    name.strip_prefix(part)
        .and_then(|rest| rest.strip_prefix(".tar"))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Members that begin with `_` may be passed over (deb(5)); any other stands where something else belongs.
fn pass_over(name: &str, wanted: &str) -> Result<()> {
    if name.starts_with('_') {
        return Ok(());
    }
    Err(refused(format!("`{}` stands where `{wanted}` belongs", shown(name.as_bytes()))))
}

/// An error for what is not, or not safely, a Debian package.
fn refused(why: impl std::fmt::Display) -> Error {
    Error::failed(format!("this is not a package that can be installed: {why}"))
        .hint("take this package from another mirror or repository, or report it to whoever publishes it")
}

/// An error for a package that was one before something broke it.
fn damaged(why: impl std::fmt::Display) -> Error {
    Error::failed(format!("the package is damaged: {why}")).hint("delete it and fetch it again")
}

/// A name from a package, fit for a message: no control characters, not too long.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        shown.push('…');
    }
    shown
}
