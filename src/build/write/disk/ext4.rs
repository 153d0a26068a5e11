//! An ext4 root file system, made by `mke2fs` and filled by `debugfs`, both of e2fsprogs.
//!
//! Everything comes from the tree as data, in its order: `mke2fs -d` takes the change times of the build machine's own
//! inodes, the order of its directories and, for a user who is not root, the wrong owners.

use std::{collections::BTreeMap, fmt::Write as _, fs::File, os::fd::AsRawFd, path::Path, time::Duration};

use super::Disk;
use crate::{
    build::tree::{Entry, Kind, Tree},
    error::{Error, Result},
    system::files::write_output,
};

/// Every feature, so that neither a version of e2fsprogs nor its configuration chooses any. What Linux 5.15 and later
/// read and e2fsprogs 1.46 (Ubuntu 22.04) and later write.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// The configuration of `mke2fs` (mke2fs.conf(5)): the type must be known, and all else is said by options.
const CONFIGURATION: &str = "[fs_types]\n\text4 = {\n\t}\n";
/// Longest time each program may take.
const LIMIT: Duration = Duration::from_mins(60);
/// Longest line that `debugfs` reads from a file of commands (`BUFSIZ` of the C library), with its end.
const LINE: usize = 8191;
/// The package of both programs.
const PACKAGE: &str = "e2fsprogs";

/// Makes the file system in `file`, `size` bytes from `start` on, which are zeros, and puts the tree into it.
/// `scratch` is an empty directory.
///
/// # Errors
/// The tools are not there or fail, the tree does not fit, or has a name with a line break.
pub(super) async fn write(
    file: &File,
    (start, size): (u64, u64),
    disk: &Disk<'_>,
    scratch: &Path,
) -> Result<()> {
    let Disk { tree, tools, ids, time, .. } = *disk;
    let configuration = scratch.join("mke2fs.conf");
    write_output(&configuration, CONFIGURATION.as_bytes(), 0o644)?;
    // The open file, which has no name that lasts.
    let image = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    tools
        .command("mke2fs", PACKAGE, time)?
        .env("MKE2FS_CONFIG", configuration.display().to_string())
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "1", "-L", "root"])
        .args(["-O", FEATURES, "-U"])
        .arg(ids.root_file_system.to_string())
        // Zeros are there already: nothing has to write them now, nor at the first mount.
        .arg("-E")
        .arg(format!(
            "offset={start},hash_seed={},lazy_itable_init=0,lazy_journal_init=1,nodiscard,root_owner=0:0",
            ids.hash_seed
        ))
        .args([image.clone(), format!("{}k", size / 1024)])
        .timeout(LIMIT)
        .check()
        .await?;

    let attributes = write_attributes(tree, scratch)?;
    let script = script(tree, time, &attributes)?;
    let mut running = tools
        .command("debugfs", PACKAGE, time)?
        .args(["-w", "-f", "-"])
        .arg(format!("{image}?offset={start}"))
        .stdin_bytes(script)
        .timeout(LIMIT)
        .stream()?;
    // It repeats every command.
    while running.next_line().await?.is_some() {}
    let ended = running.finish().await?.check()?;
    // It goes on after a command that failed, and ends with 0: what it said is the only sign.
    match ended.stderr_tail.lines().find(|line| !line.starts_with("debugfs 1.") && !line.trim().is_empty()) {
        None => Ok(()),
        Some(line) => Err(refused(line, size)),
    }
}

fn refused(line: &str, size: u64) -> Error {
    let error = Error::failed(format!("filling the root file system: `debugfs` said: {line}"));
    if line.contains("Could not allocate") || line.contains("No space left") {
        let more = (size >> 20).saturating_mul(2);
        return error.hint(format!(
            "the root partition has {} MiB, too few for the tree: give it {more} MiB in the image definition",
            size >> 20
        ));
    }
    error
}

/// Writes each extended attribute's value to a file of `scratch`: its number by entry and name.
fn write_attributes<'t>(tree: &'t Tree, scratch: &Path) -> Result<BTreeMap<(&'t str, &'t str), String>> {
    let mut files = BTreeMap::new();
    for entry in tree.entries() {
        for (name, value) in &entry.xattrs {
            let file = scratch.join(format!("attribute-{}", files.len()));
            write_output(&file, value, 0o600)?;
            files.insert((entry.path.as_str(), name.as_str()), file.display().to_string());
        }
    }
    Ok(files)
}

/// The commands (debugfs(8)) that make the tree in an empty file system.
fn script(tree: &Tree, time: i64, attributes: &BTreeMap<(&str, &str), String>) -> Result<Vec<u8>> {
    let links = links(tree.entries());
    let mut script =
        Script { text: format!("set_current_time @{}\n", time.max(0)), directory: String::new() };
    for entry in tree.entries() {
        let (directory, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        script.enter(directory)?;
        if !entry.path.is_empty() {
            script.make(entry, name, tree)?;
        }
        if matches!(entry.kind, Kind::Hard { .. }) {
            continue;
        }
        // By its path, as a name such as `<2>` alone would be an inode's number.
        let here = if name.is_empty() { "/".to_owned() } else { format!("./{name}") };
        let mode = type_bits(&entry.kind) | (entry.mode & 0o7777);
        script.line(&["set_inode_field", &here, "mode", &format!("0{mode:o}")])?;
        script.line(&["set_inode_field", &here, "mtime", &format!("@{}", entry.modified.max(0))])?;
        for (field, id) in [("uid", entry.uid), ("gid", entry.gid)] {
            if id != 0 {
                script.line(&["set_inode_field", &here, field, &id.to_string()])?;
            }
        }
        if let Some(count) = links.get(entry.path.as_str()) {
            script.line(&["set_inode_field", &here, "links_count", &count.to_string()])?;
        }
        for name in entry.xattrs.keys() {
            if let Some(file) = attributes.get(&(entry.path.as_str(), name.as_str())) {
                script.line(&["ea_set", "-f", file, &here, name])?;
            }
        }
    }
    Ok(script.text.into_bytes())
}

/// How many names a file has, by its first, for those with more than one.
fn links(entries: &[Entry]) -> BTreeMap<&str, u32> {
    let mut links = BTreeMap::new();
    for entry in entries {
        if let Kind::Hard { to } = &entry.kind {
            *links.entry(to.as_str()).or_insert(1) += 1;
        }
    }
    links
}

/// The kind of a file in its mode (inode(7)).
fn type_bits(kind: &Kind) -> u32 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::Character { .. } => 0o020_000,
        Kind::Directory => 0o040_000,
        Kind::Block { .. } => 0o060_000,
        Kind::File { .. } | Kind::Hard { .. } => 0o100_000,
        Kind::Link { .. } => 0o120_000,
    }
}

struct Script {
    text: String,
    /// Where commands are now.
    directory: String,
}

impl Script {
    /// Goes to a directory, unless it is there.
    fn enter(&mut self, directory: &str) -> Result<()> {
        if self.directory != directory {
            self.line(&["cd", &format!("/{directory}")])?;
            directory.clone_into(&mut self.directory);
        }
        Ok(())
    }

    /// Makes `entry`, called `name` in this directory.
    fn make(&mut self, entry: &Entry, name: &str, tree: &Tree) -> Result<()> {
        match &entry.kind {
            // `mke2fs` has made it.
            Kind::Directory if entry.path == "lost+found" => Ok(()),
            Kind::Directory => self.line(&["mkdir", name]),
            Kind::File { .. } => {
                let source = tree.root().path().join(&entry.path);
                self.line(&["write", &source.display().to_string(), name])
            }
            Kind::Hard { to } => {
                // `ln` does not enlarge a full directory; `mknod` does, and leaves its place.
                self.line(&["mknod", name, "p"])?;
                self.line(&["rm", &format!("./{name}")])?;
                self.line(&["ln", &format!("/{to}"), name])
            }
            Kind::Link { target } => self.line(&["symlink", name, target]),
            Kind::Character { device: (major, minor) } => {
                self.line(&["mknod", name, "c", &major.to_string(), &minor.to_string()])
            }
            Kind::Block { device: (major, minor) } => {
                self.line(&["mknod", name, "b", &major.to_string(), &minor.to_string()])
            }
            Kind::Fifo => self.line(&["mknod", name, "p"]),
        }
    }

    /// Adds a command, each word in quotes; a quote within is written twice (libss, `ss_parse`).
    fn line(&mut self, words: &[&str]) -> Result<()> {
        let start = self.text.len();
        for (number, word) in words.iter().enumerate() {
            if word.contains(['\n', '\r', '\0']) {
                return Err(Error::failed(format!(
                    "`{}` in the root tree has a line break in its name, which ext4 is not made with here",
                    word.escape_debug()
                )));
            }
            if number == 0 {
                self.text.push_str(word);
            } else {
                // Writing to a string cannot fail.
                let _ = write!(self.text, " \"{}\"", word.replace('"', "\"\""));
            }
        }
        self.text.push('\n');
        if self.text.len() - start > LINE {
            return Err(Error::failed("a path in the root tree is too long for `debugfs`"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ext4_tests.rs"]
mod tests;
