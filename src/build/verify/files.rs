//! The files of packages against the digests dpkg keeps of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use md5::{Digest as _, Md5};

use super::{Finding, What};
use crate::{
    build::owners::{Diversions, INFO},
    error::Result,
    plan::dpkg::{Package, Packages},
    system::files::{FileKind, Root},
};

/// Largest list of files or digests of one package, in bytes.
const LIST_MAX: u64 = 256 << 20;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Paths that a thread takes at once.
const BATCH: usize = 64;

/// What was found.
pub(super) struct Checked {
    /// In no order.
    pub(super) findings: Vec<Finding>,
    /// Files whose content was compared.
    pub(super) files: usize,
}

/// The files of a root, wherever it lies.
pub(super) trait Look: Sync {
    /// What lies at a path; `None`: nothing does.
    fn kind(&self, path: &str) -> Result<Option<FileKind>>;

    /// The MD5 of a regular file's content; an error is why it cannot be read.
    fn md5(&self, path: &str, buffer: &mut [u8]) -> Result<Option<String>, String>;
}

impl Look for Root {
    fn kind(&self, path: &str) -> Result<Option<FileKind>> {
        Ok(self.stat(path)?.map(|stat| stat.kind))
    }

    fn md5(&self, path: &str, buffer: &mut [u8]) -> Result<Option<String>, String> {
        md5_of(self, path, buffer)
    }
}

/// One path of one package.
struct Job<'p> {
    package: &'p Package,
    path: String,
    digest: Option<Expected>,
}

/// What a file's content should be.
struct Expected {
    /// MD5, 32 lower-case hexadecimal digits.
    md5: String,
    /// It is a configuration file.
    conffile: bool,
}

/// Checks every path of every package that is there: `root` has dpkg's database, `files` the files.
pub(super) fn check(root: &Root, files: &dyn Look, installed: &Packages, threads: usize) -> Result<Checked> {
    let diversions = Diversions::read(root)?;
    let names: BTreeSet<String> = root.list(INFO)?.into_iter().map(|entry| entry.name).collect();
    let mut findings = Vec::new();
    let mut jobs = Vec::new();
    for package in installed.present() {
        jobs_of(root, package, &names, &mut jobs, &mut findings);
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Done { findings, files: 0, without: BTreeMap::new() });
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                let mut buffer = vec![0; CHUNK];
                let mut own = Done::default();
                loop {
                    let from = next.fetch_add(BATCH, Ordering::Relaxed);
                    let Some(left) = jobs.get(from..).filter(|left| !left.is_empty()) else { break };
                    for job in &left[..left.len().min(BATCH)] {
                        look(files, &diversions, job, &mut buffer, &mut own);
                    }
                }
                done.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            });
        }
    });
    let Done { mut findings, files, without } = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (count, first) in without.into_values() {
        let words = if count == 1 { "one file".to_owned() } else { format!("{count} files, this the first") };
        findings.push(first.found(words));
    }
    Ok(Checked { findings, files })
}

/// What one thread, or all, came to.
#[derive(Default)]
struct Done {
    findings: Vec<Finding>,
    files: usize,
    /// Files without a digest: how many, and the first, by package.
    without: BTreeMap<Option<String>, (usize, Finding)>,
}

impl Done {
    fn extend(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.files += other.files;
        for (count, first) in other.without.into_values() {
            self.without(count, first);
        }
    }

    fn without(&mut self, more: usize, finding: Finding) {
        let (count, first) =
            self.without.entry(finding.package.clone()).or_insert_with(|| (0, finding.clone()));
        *count += more;
        if finding.path < first.path {
            *first = finding;
        }
    }
}

/// The paths of a package, with what dpkg has of each.
fn jobs_of<'p>(
    root: &Root,
    package: &'p Package,
    names: &BTreeSet<String>,
    jobs: &mut Vec<Job<'p>>,
    findings: &mut Vec<Finding>,
) {
    let both = format!("{}:{}", package.name, package.architecture);
    let stem = if names.contains(&format!("{both}.list")) { &both } else { &package.name };
    let read = |extension: &str| root.read_text(&format!("{INFO}/{stem}.{extension}"), LIST_MAX);
    let mut unreadable = |extension: &str, why: &str| {
        findings.push(
            Finding::new(What::Unreadable, Some(package))
                .at(&format!("{INFO}/{stem}.{extension}"))
                .found(why),
        );
    };
    let list = match read("list") {
        Ok(list) => list,
        Err(error) => return unreadable("list", error.message()),
    };
    let sums = match read("md5sums") {
        Ok(sums) => sums,
        Err(error) => {
            unreadable("md5sums", error.message());
            Some(String::new())
        }
    };
    let mut digests: BTreeMap<String, Expected> = BTreeMap::new();
    for (at, line) in sums.iter().flat_map(|sums| sums.lines()).enumerate() {
        match digest_line(line) {
            Some((path, md5)) => {
                digests.insert(path, Expected { md5, conffile: false });
            }
            None => unreadable("md5sums", &format!("line {} has no digest and path", at + 1)),
        }
    }
    if list.is_none() || sums.is_none() {
        findings.push(Finding::new(What::NoDigests, Some(package)));
    }
    for conffile in package.conffiles.iter().filter(|conffile| !conffile.obsolete) {
        digests.insert(conffile.path.clone(), Expected { md5: conffile.md5.clone(), conffile: true });
    }
    for path in list.iter().flat_map(|list| list.lines()) {
        if !matches!(path, "" | "/" | "/.") {
            jobs.push(Job { package, path: path.to_owned(), digest: digests.remove(path) });
        }
    }
}

/// A line of deb-md5sums(5): the digest, two blanks, the path without its leading `/`.
fn digest_line(line: &str) -> Option<(String, String)> {
    let (md5, path) = line.split_once(' ')?;
    let path = path.trim_start();
    (is_md5(md5) && !path.is_empty()).then(|| (format!("/{path}"), md5.to_owned()))
}

fn is_md5(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Looks at one path.
fn look(files: &dyn Look, diversions: &Diversions, job: &Job<'_>, buffer: &mut [u8], done: &mut Done) {
    let place = diversions.place(&job.package.name, &job.path);
    let finding = |what| Finding::new(what, Some(job.package)).at(place);
    let kind = match files.kind(place) {
        Ok(kind) => kind,
        Err(error) => return done.findings.push(finding(What::Unreadable).found(error.message())),
    };
    let conffile = job.digest.as_ref().is_some_and(|digest| digest.conffile);
    let Some(kind) = kind else {
        let what = if conffile { What::ConffileMissing } else { What::Missing };
        return done.findings.push(finding(what));
    };
    let Some(Expected { md5, .. }) = &job.digest else {
        if kind == FileKind::File {
            done.without(1, finding(What::NoDigest));
        }
        return;
    };
    if kind != FileKind::File {
        let what = if conffile { What::Conffile } else { What::NotAFile };
        let kind = match kind {
            FileKind::Directory => "a directory",
            FileKind::Link => "a symbolic link",
            FileKind::File | FileKind::Other => "a device, socket or FIFO",
        };
        return done.findings.push(finding(what).found(kind));
    }
    if !is_md5(md5) {
        // `newconffile`: the package is not configured yet (dpkg, `NEWCONFFILEFLAG`).
        return done.without(1, finding(What::NoDigest));
    }
    match files.md5(place, buffer) {
        Ok(Some(found)) => {
            done.files += 1;
            if found != *md5 {
                let what = if conffile { What::Conffile } else { What::Content };
                done.findings.push(finding(what).expected(md5).found(found));
            }
        }
        // It went between two looks.
        Ok(None) => done.findings.push(finding(What::Missing)),
        Err(why) => done.findings.push(finding(What::Unreadable).found(why)),
    }
}

/// The MD5 of a file's content; an error is why it cannot be read.
fn md5_of(root: &Root, path: &str, buffer: &mut [u8]) -> Result<Option<String>, String> {
    let Some((mut file, _)) = root.open_file(path).map_err(|error| error.message().to_owned())? else {
        return Ok(None);
    };
    let mut hasher = Md5::new();
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(Some(hex::encode(hasher.finalize()))),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
