//! Whole disks, made with this machine's own tools and read with those of others.

use std::{
    collections::BTreeMap,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{qcow2::Compression, uki::Parts, *};
use crate::{
    build::tree::{Entry, Kind},
    system::files::{Root, make_dir, read_input, write_output},
};

/// The tree at `root` as data: owners are root's and times one time.
fn tree_of(root: &Path) -> Tree {
    let (mut entries, mut inodes) = (Vec::new(), BTreeMap::new());
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let text = path.to_str().unwrap().to_owned();
        let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let kind = if kind.is_dir() {
            todo.extend(std::fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            Kind::Directory
        } else if kind.is_symlink() {
            Kind::Link { target: std::fs::read_link(&full).unwrap().to_str().unwrap().to_owned() }
        } else if kind.is_char_device() {
            Kind::Character { device }
        } else if kind.is_block_device() {
            Kind::Block { device }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            inodes.entry(meta.ino()).or_insert_with(Vec::new).push(text.clone());
            Kind::File { size: meta.len() }
        };
        let mut xattrs = BTreeMap::new();
        let mut value = [0; 256];
        if let Ok(count) = rustix::fs::lgetxattr(&full, "security.capability", &mut value) {
            xattrs.insert("security.capability".to_owned(), value[..count].to_vec());
        }
        let mode = meta.permissions().mode() & 0o7777;
        let (uid, gid, modified) = (0, 0, 1_600_000_000);
        entries.push(Entry { path: text, kind, mode, uid, gid, modified, xattrs });
    }
    for mut names in inodes.into_values().filter(|names| names.len() > 1) {
        names.sort();
        for entry in &mut entries {
            if names[1..].contains(&entry.path) {
                entry.kind = Kind::Hard { to: names[0].clone() };
            }
        }
    }
    Tree::new(Root::open(root).unwrap(), entries)
}

/// A small tree; `turn` changes in which order it is made, and what a build must not see.
fn small_tree(root: &Path, turn: bool) {
    let mut files: Vec<(String, Vec<u8>)> = (0..60)
        .map(|number| (format!("usr/share/file-{number}"), format!("{number}\n").repeat(500).into_bytes()))
        .collect();
    files.push(("etc/a \"quoted\" name".into(), b"odd".to_vec()));
    files.push(("etc/<2>".into(), b"no inode".to_vec()));
    let mut holes = vec![0; 300_000];
    holes[200_000] = 1;
    files.push(("var/holes".into(), holes));
    if turn {
        files.reverse();
    }
    for (path, content) in &files {
        let path = root.join(path);
        make_dir(path.parent().unwrap()).unwrap();
        if turn && path.ends_with("var/holes") {
            // The same content, with holes where the other has zeros.
            let mut output = create_output(&path, 0o644).unwrap();
            let file = output.file().unwrap();
            file.set_len(content.len() as u64).unwrap();
            std::os::unix::fs::FileExt::write_all_at(file, &[1], 200_000).unwrap();
            output.commit().unwrap();
        } else {
            write_output(&path, content, 0o644).unwrap();
        }
    }
    std::fs::hard_link(root.join("usr/share/file-1"), root.join("usr/hard")).unwrap();
    std::os::unix::fs::symlink("usr/share", root.join("short")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(100), root.join("long")).unwrap();
    rustix::fs::chmod(root.join("etc/<2>"), rustix::fs::Mode::from_raw_mode(0o4751)).unwrap();
}

/// What a program prints; it must succeed.
fn said(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{error}");
    text
}

struct Lab {
    directory: tempfile::TempDir,
    tools: Tools,
}

impl Lab {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), tools: Tools::new(Path::new("/")).unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn disk(&self, tree: &Tree, file_system: FileSystem, sizes: Sizes, name: &str) -> Result<Written> {
        let ids = Ids::new(&Digest::of("a lock"));
        let command_line = command_line(&ids, file_system, ["quiet"]);
        let stub = uki::tests::stub();
        let initrd: Vec<u8> = (0..3_000_000_u32).flat_map(|number| (number / 3).to_be_bytes()).collect();
        let parts = Parts {
            os_release: "ID=debian\n",
            command_line: &command_line,
            release: "6.12.1",
            kernel: b"a kernel",
            initrd: &initrd,
        };
        let boot = Boot { name: "debian-6.12.1", loader: b"a loader", stub: &stub, parts };
        let tools = &self.tools;
        let disk = Disk { tree, tools, boot, file_system, sizes, ids, time: 1_700_000_000 };
        write_raw(&disk, &self.path(name), self.directory.path()).await
    }

    /// Two disks from two trees that were made apart, and the first one's root partition as a file of its own.
    async fn twice(&self, file_system: FileSystem) -> Result<PathBuf> {
        let sizes = Sizes { esp: 48, root: 64 };
        let mut written = Vec::new();
        for (name, turn) in [("one", false), ("two", true)] {
            let root = self.path(&format!("{name}.tree"));
            small_tree(&root, turn);
            written.push(self.disk(&tree_of(&root), file_system, sizes, name).await?);
            // So that the seconds of every clock differ.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        assert_eq!(written[0], written[1]);
        // Frozen: no tool of a distribution has a part in it.
        let esp = match file_system {
            FileSystem::Ext4 => "da8b6ad09477e9241a46a1c06ad4a9839e798ea590c682fe06db34de920a88da",
            FileSystem::Erofs => "9558a8797b81621948146b9d4c2a08ba3fe89e497862698c793d547a1b50adfe",
        };
        assert_eq!(written[0].esp.digest.hex(), esp);
        let (one, two) = (self.path("one"), self.path("two"));
        said("cmp", &[one.to_str().unwrap(), two.to_str().unwrap()]);
        let disk = read_input(&one, 1 << 30).unwrap();
        let (start, size) = written[0].layout.root;
        let root = self.path("root");
        write_output(&root, &disk[start as usize..(start + size) as usize], 0o644).unwrap();
        Ok(root)
    }
}

#[tokio::test]
async fn an_ext4_disk_is_the_same_at_another_time_from_another_copy_of_the_tree() {
    let lab = Lab::new();
    let root = lab.twice(FileSystem::Ext4).await.unwrap();
    let root = root.to_str().unwrap();
    said("/sbin/e2fsck", &["-fn", root]);
    let seen = |command: &str| said("/sbin/debugfs", &["-R", command, root]);
    assert_eq!(seen("cat \"/etc/a \"\"quoted\"\" name\""), "odd");
    assert_eq!(seen("cat /etc/<2>"), "no inode");
    assert!(seen("stat /etc/<2>").contains("Mode:  04751"));
    assert!(seen("stat /usr/hard").contains("Links: 2"));
    assert!(seen("stat /short").contains("Fast link dest: \"usr/share\""));
    let stat = seen("stat /usr/share/file-7");
    assert!(stat.contains("mtime: 0x5f5e1000:00000000"), "{stat}");
    for time in ["ctime", "atime", "crtime"] {
        assert!(stat.contains(&format!("{time}: 0x6553f100:00000000")), "{stat}");
    }
    assert!(seen("stat /var/holes").contains("Blockcount: 8"), "zeros are holes");
    let ids = Ids::new(&Digest::of("a lock"));
    assert!(seen("stats").contains(&ids.root_file_system.to_string()));
    // Only what is there takes room: journal, bitmaps, the tree, and what the EFI partition holds.
    let used = std::fs::metadata(lab.path("one")).unwrap().blocks() * 512;
    assert!(used < 40 << 20, "{} MiB of 114", used >> 20);
}

#[tokio::test]
async fn an_erofs_disk_is_the_same_at_another_time_from_another_copy_of_the_tree() {
    let lab = Lab::new();
    let root = lab.twice(FileSystem::Erofs).await.unwrap();
    said("fsck.erofs", &[root.to_str().unwrap()]);
}

#[tokio::test]
async fn the_efi_partition_reads_with_mtools() {
    let lab = Lab::new();
    let sizes = Sizes { esp: 34, root: 16 };
    std::fs::DirBuilder::new().create(lab.path("tree")).unwrap();
    let written = lab.disk(&tree_of(&lab.path("tree")), FileSystem::Ext4, sizes, "disk").await.unwrap();
    let image = format!("{}@@1M", lab.path("disk").display());
    let listed = said("mdir", &["-i", &image, "-/", "-b", "::"]);
    let mut files: Vec<&str> = listed.lines().filter(|line| !line.ends_with('/')).collect();
    files.sort_unstable();
    let expected = [
        "::/EFI/BOOT/BOOTX64.EFI",
        "::/EFI/Linux/debian-6.12.1.efi",
        "::/EFI/systemd/systemd-bootx64.efi",
        "::/loader/loader.conf",
    ];
    assert_eq!(files, expected);
    let copied = lab.path("uki");
    said("mcopy", &["-i", &image, "::/EFI/Linux/debian-6.12.1.efi", copied.to_str().unwrap()]);
    assert_eq!(Digest::of(read_input(&copied, 1 << 30).unwrap()), written.uki.digest);
    assert!(said("mdir", &["-i", &image, "::"]).contains("1980-01-01"));
    let disk = read_input(&lab.path("disk"), 1 << 30).unwrap();
    let esp = lab.path("esp");
    write_output(&esp, &disk[1 << 20..35 << 20], 0o644).unwrap();
    said("/sbin/fsck.fat", &["-n", esp.to_str().unwrap()]);
    let table = said("/sbin/sfdisk", &["-d", lab.path("disk").to_str().unwrap()]).to_lowercase();
    assert!(table.contains(&format!("label-id: {}", Ids::new(&Digest::of("a lock")).disk)), "{table}");
    assert!(table.contains("type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), "{table}");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_leaves_no_disk() {
    let lab = Lab::new();
    let root = lab.path("tree");
    small_tree(&root, false);
    let big: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_be_bytes).collect();
    write_output(&root.join("big"), &big, 0o644).unwrap();
    let tree = tree_of(&root);
    let error = lab.disk(&tree, FileSystem::Ext4, Sizes { esp: 48, root: 16 }, "disk").await.unwrap_err();
    assert!(error.to_string().contains("debugfs"), "{error}");
    assert!(error.hints()[0].contains("the root partition has 16 MiB, too few"), "{:?}", error.hints());
    let mut left: Vec<_> =
        std::fs::read_dir(lab.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["tree"]);
}

#[tokio::test]
async fn qcow2_holds_the_same_disk() {
    let lab = Lab::new();
    let root = lab.path("tree");
    small_tree(&root, false);
    lab.disk(&tree_of(&root), FileSystem::Ext4, Sizes { esp: 48, root: 600 }, "disk").await.unwrap();
    let raw = lab.path("disk");
    for (name, compression) in [("plain", Compression::None), ("packed", Compression::Zstd)] {
        let to = lab.path(name);
        qcow2::convert(&raw, &to, compression).unwrap();
        let (from, made) = (raw.to_str().unwrap(), to.to_str().unwrap());
        let checked = said("qemu-img", &["check", "-f", "qcow2", made]);
        assert!(checked.contains("No errors were found"), "{checked}");
        said("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", from, made]);
        let again = lab.path("again");
        qcow2::convert(&raw, &again, compression).unwrap();
        said("cmp", &[made, again.to_str().unwrap()]);
    }
    let size = |name: &str| std::fs::metadata(lab.path(name)).unwrap().len();
    assert!(size("packed") < size("plain") && size("plain") < 60 << 20);
}

#[test]
fn qcow2_of_something_else_is_refused() {
    let lab = Lab::new();
    let odd = lab.path("odd");
    write_output(&odd, &[1; 700], 0o644).unwrap();
    let error = qcow2::convert(&odd, &lab.path("to"), Compression::None).unwrap_err();
    assert!(error.to_string().contains("is no raw disk image"), "{error}");
}
