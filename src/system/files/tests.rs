use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::error::Kind;

fn tree() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn me() -> Owner {
    Owner::current()
}

fn mode_of(path: PathBuf) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// True as root; says what is not tested otherwise.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: {what} is not tested");
    }
    root
}

#[test]
fn modes_are_read_and_written() {
    for (text, mode) in
        [("0700", 0o700), ("700", 0o700), ("0o640", 0o640), ("04755", 0o4755), ("1777", 0o1777), ("000", 0)]
    {
        assert_eq!(parse_mode(text).unwrap(), mode, "{text}");
    }
    for bad in
        ["", "7", "77", "0800", "rwx", "+700", "-700", " 0700", "17777", "70000", "0o", "0x1ff", "0700\n"]
    {
        assert_eq!(parse_mode(bad).unwrap_err().kind(), Kind::Usage, "{bad:?}");
    }
    assert_eq!(format_mode(0o100_640), "0640");
    assert_eq!(format_mode(0o4755), "4755");
}

#[test]
fn paths_are_absolute_and_plain() {
    let (_dir, root) = tree();
    for bad in ["", "etc/passwd", "/a/../b", "/..", "/a\0b"] {
        assert_eq!(root.stat(bad).unwrap_err().kind(), Kind::Usage, "{bad:?}");
    }
    assert!(root.stat("/").unwrap().unwrap().is_dir());
    assert!(root.stat("//").unwrap().unwrap().is_dir());
    assert_eq!(root.write("/", b"", 0o600, me()).unwrap_err().kind(), Kind::Usage);
    assert!(root.stat("/none/of/this").unwrap().is_none());
    assert_eq!(root.read("/none/of/this", 10).unwrap(), None);
    assert!(!root.is_host() && Root::open(Path::new("/")).unwrap().is_host());
}

#[test]
fn a_file_is_written_whole_with_its_mode() {
    let (dir, root) = tree();
    let path = dir.path().join("file");
    for (content, mode) in [("one", 0o600), ("two", 0o644), ("three", 0o000), ("four", 0o4755), ("", 0o400)] {
        root.write("/file", content.as_bytes(), mode, me()).unwrap();
        let stat = root.stat("/file").unwrap().unwrap();
        assert_eq!((stat.mode, stat.size), (mode, content.len() as u64), "{content}");
        assert_eq!((stat.kind, stat.owner(), stat.links), (FileKind::File, me(), 1));
        if mode & 0o400 != 0 {
            assert_eq!(root.read("/file", 100).unwrap().unwrap(), content.as_bytes());
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let error = root.write("/no/file", b"", 0o600, me()).unwrap_err();
    assert!(error.message().contains("/no` does not exist"), "{error}");
    fs::create_dir(dir.path().join("dir")).unwrap();
    assert!(root.write("/dir", b"", 0o600, me()).unwrap_err().message().contains("it is a directory"));
    if is_root("giving files away") {
        root.write("/file", b"x", 0o4750, Owner { uid: 1234, gid: 4321 }).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 4321, 0o4750));
    }
}

#[test]
fn nobody_sees_a_file_that_is_not_whole() {
    let (dir, root) = tree();
    root.write("/file", b"old", 0o644, me()).unwrap();
    let mut pending = root.create("/file", 0o644, me()).unwrap();
    pending.put(b"new").unwrap();
    let temporary: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "file")
        .collect();
    assert_eq!(temporary.len(), 1);
    // Shut to all others before it is whole, although the file is to be 0644.
    assert_eq!(mode_of(temporary[0].path()) & 0o077, 0);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
    drop(pending);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(root.read("/file", 10).unwrap().unwrap(), b"old");
}

/// The modes must not depend on the umask. It belongs to the whole process, so this test runs itself
/// again as a child with another umask.
#[test]
fn no_umask_changes_a_mode() {
    const CHILD: &str = "BEDPLATE_TEST_UMASK";
    if let Ok(dir) = std::env::var(CHILD) {
        let root = Root::open(Path::new(&dir)).unwrap();
        root.make_dir("/a/b", 0o750, me()).unwrap();
        root.write("/a/b/file", b"x", 0o644, me()).unwrap();
        root.write("/a/b/private", b"x", 0o600, me()).unwrap();
        write_output(&Path::new(&dir).join("out"), b"x", 0o644).unwrap();
        return;
    }
    for (umask, output) in [("0000", 0o644), ("0077", 0o600), ("0777", 0o000)] {
        let dir = tempfile::tempdir().unwrap();
        let name = "system::files::tests::no_umask_changes_a_mode";
        let status = Command::new("/bin/sh")
            .args(["-c", &format!("umask {umask} && exec \"$0\" --exact {name} --quiet")])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "umask {umask}");
        for (path, mode) in [("a", 0o755), ("a/b", 0o750), ("a/b/file", 0o644), ("a/b/private", 0o600)] {
            assert_eq!(mode_of(dir.path().join(path)), mode, "umask {umask}: {path}");
        }
        // What the user named obeys the user's umask.
        assert_eq!(mode_of(dir.path().join("out")), output, "umask {umask}");
    }
}

#[test]
fn a_link_anywhere_is_refused_and_named() {
    let (dir, root) = tree();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("c");
    fs::write(&secret, b"outside").unwrap();
    for depth in 0..3 {
        let parts = ["a", "b", "c"];
        let at = dir.path().join(parts[..depth].join("/"));
        fs::create_dir_all(&at).unwrap();
        let link = at.join(parts[depth]);
        let target = if depth == 2 { secret.clone() } else { outside.path().to_owned() };
        symlink(&target, &link).unwrap();
        let errors = [
            root.read("/a/b/c", 100).unwrap_err(),
            root.write("/a/b/c", b"evil", 0o666, me()).unwrap_err(),
            root.make_dir("/a/b/c", 0o777, me()).unwrap_err(),
            root.make_dir("/a/b/c/d", 0o777, me()).unwrap_err(),
            root.set_mode("/a/b/c", 0o666).unwrap_err(),
            root.set_owner("/a/b/c", me()).unwrap_err(),
            root.list("/a/b/c").unwrap_err(),
            root.free_space("/a/b/c/d").unwrap_err(),
        ];
        for error in errors {
            let text = error.message();
            assert!(
                text.contains(&format!("`{}` is a link to `{}`", link.display(), target.display())),
                "{text}"
            );
        }
        if depth < 2 {
            assert!(root.remove_file("/a/b/c").is_err() && root.remove_tree("/a/b/c").is_err());
            assert!(root.stat("/a/b/c").is_err() && root.symlink("x", "/a/b/c").is_err());
        }
        fs::remove_file(&link).unwrap();
        assert_eq!(fs::read(&secret).unwrap(), b"outside");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn links_of_the_distribution_are_rewritten() {
    let (dir, root) = tree();
    fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
    fs::create_dir_all(dir.path().join("run")).unwrap();
    fs::create_dir_all(dir.path().join("var")).unwrap();
    symlink("usr/bin", dir.path().join("bin")).unwrap();
    symlink("/run", dir.path().join("var/run")).unwrap();
    root.write("/bin/tool", b"x", 0o755, me()).unwrap();
    root.write("/var/run/pid", b"x", 0o644, me()).unwrap();
    assert!(dir.path().join("usr/bin/tool").is_file() && dir.path().join("run/pid").is_file());
    assert_eq!(root.stat("/bin").unwrap().unwrap().kind, FileKind::Link);
    assert_eq!(root.list("/bin").unwrap().len(), 1);
    // Not there yet: made where the link would lead.
    root.make_dir("/var/lock/x", 0o755, me()).unwrap();
    assert!(dir.path().join("run/lock/x").is_dir() && !dir.path().join("var/lock").exists());
    // The same names with another target are links like any other; a real directory is itself.
    symlink("/etc", dir.path().join("lib")).unwrap();
    assert!(root.write("/lib/x", b"", 0o644, me()).unwrap_err().message().contains("is a link to `/etc`"));
    fs::create_dir(dir.path().join("sbin")).unwrap();
    root.write("/sbin/x", b"", 0o755, me()).unwrap();
    assert!(dir.path().join("sbin/x").is_file());
}

/// While one thread swaps a directory for a link to another place, nothing may ever be written there.
#[test]
fn a_swapped_directory_never_redirects_a_write() {
    let (dir, root) = tree();
    let outside = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("d"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(outside.path(), &link).unwrap();
    let stop = AtomicBool::new(false);
    let (mut written, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(700) {
            match root.write("/d/file", b"x", 0o600, me()) {
                Ok(()) => written += 1,
                Err(_) => refused += 1,
            }
            // Fails or works; what counts is that it never works outside.
            let _ = root.make_dir("/d/sub", 0o700, me());
            let _ = root.set_mode("/d/file", 0o640);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(written > 0 && refused > 0, "{written} written, {refused} refused");
}

#[test]
fn what_is_no_regular_file_never_blocks() {
    let (dir, root) = tree();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    let start = Instant::now();
    for (name, what) in [("fifo", "FIFO"), ("socket", "socket"), ("dir", "directory")] {
        let path = format!("/{name}");
        assert!(root.read(&path, 10).unwrap_err().message().contains(what), "{name}");
        assert!(root.write(&path, b"", 0o600, me()).is_err(), "{name}");
        let error = read_input(&dir.path().join(name), 10).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{name}");
    }
    assert!(root.set_mode("/fifo", 0o666).is_err());
    assert!(read_input(Path::new("/dev/zero"), 10).unwrap_err().message().contains("not a regular file"));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn sizes_are_bounded() {
    let (dir, root) = tree();
    fs::write(dir.path().join("f"), b"12345").unwrap();
    assert_eq!(root.read("/f", 5).unwrap().unwrap(), b"12345");
    assert!(root.read("/f", 4).unwrap_err().message().contains("larger than 4 bytes"));
    assert!(read_input(&dir.path().join("f"), 4).unwrap_err().message().contains("larger than 4 bytes"));
    // The files of /proc say they are empty.
    assert!(read_input(Path::new("/proc/self/status"), 10).is_err());
    assert!(!read_input(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    let huge = fs::File::create(dir.path().join("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(root.read("/huge", 1 << 20).is_err());
}

#[test]
fn directories_get_mode_and_owner() {
    let (dir, root) = tree();
    root.make_dir("/data/minerhome", 0o700, me()).unwrap();
    assert_eq!(mode_of(dir.path().join("data")), 0o755);
    assert_eq!(mode_of(dir.path().join("data/minerhome")), 0o700);
    fs::write(dir.path().join("data/minerhome/config.json"), b"identity").unwrap();
    fs::set_permissions(dir.path().join("data/minerhome"), fs::Permissions::from_mode(0o777)).unwrap();
    root.make_dir("/data/minerhome", 0o2750, me()).unwrap();
    assert_eq!(mode_of(dir.path().join("data/minerhome")), 0o2750);
    assert_eq!(root.read("/data/minerhome/config.json", 100).unwrap().unwrap(), b"identity");
    if is_root("giving directories away") {
        root.make_dir("/data/minerhome", 0o700, Owner { uid: 7, gid: 8 }).unwrap();
        assert_eq!(root.stat("/data/minerhome").unwrap().unwrap().owner(), Owner { uid: 7, gid: 8 });
        // Set-user-id and -group bits survive, since the owner goes first.
        root.make_dir("/data/minerhome", 0o2710, Owner { uid: 9, gid: 9 }).unwrap();
        assert_eq!(root.stat("/data/minerhome").unwrap().unwrap().mode, 0o2710);
    }
    root.write("/file", b"", 0o600, me()).unwrap();
    let error = root.make_dir("/file/x", 0o700, me()).unwrap_err();
    assert!(error.message().contains("file` is not a directory"), "{error}");
}

#[test]
fn modes_and_owners_change_on_one_inode_only() {
    let (dir, root) = tree();
    root.write("/f", b"x", 0o666, me()).unwrap();
    root.set_mode("/f", 0o600).unwrap();
    assert_eq!(mode_of(dir.path().join("f")), 0o600);
    // Nothing is touched where nothing is to do.
    let before = fs::metadata(dir.path().join("f")).unwrap();
    root.set_mode("/f", 0o600).unwrap();
    root.set_owner("/f", me()).unwrap();
    let after = fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
    fs::hard_link(dir.path().join("f"), dir.path().join("g")).unwrap();
    let error = root.set_mode("/f", 0o644).unwrap_err();
    assert!(error.message().contains("2 names"), "{error}");
    assert_eq!(mode_of(dir.path().join("g")), 0o600);
    assert!(root.set_mode("/none", 0o600).unwrap_err().message().contains("does not exist"));
    if is_root("changing owners") {
        root.set_owner("/", Owner { uid: 1, gid: 1 }).unwrap_err();
        root.write("/h", b"", 0o600, me()).unwrap();
        root.set_owner("/h", Owner { uid: 5, gid: 6 }).unwrap();
        assert_eq!(root.stat("/h").unwrap().unwrap().owner(), Owner { uid: 5, gid: 6 });
    }
}

#[test]
fn removing_listing_linking_renaming() {
    let (dir, root) = tree();
    root.make_dir("/a/b/c", 0o755, me()).unwrap();
    root.write("/a/b/f", b"x", 0o644, me()).unwrap();
    root.symlink("generations/1", "/a/current").unwrap();
    root.symlink("generations/2", "/a/current").unwrap();
    assert_eq!(root.read_link("/a/current").unwrap().as_deref(), Some("generations/2"));
    assert_eq!(root.read_link("/a/none").unwrap(), None);
    assert!(root.read_link("/a/b").is_err() && root.symlink("x", "/a/b/f").is_err());
    let names: Vec<_> = root.list("/a").unwrap().into_iter().map(|e| (e.name, e.is_dir)).collect();
    assert_eq!(names, [("b".to_owned(), true), ("current".to_owned(), false)]);
    assert_eq!(root.list("/none").unwrap(), []);
    root.rename("/a/b/f", "/a/g").unwrap();
    assert!(root.exists("/a/g").unwrap() && !root.exists("/a/b/f").unwrap());
    assert!(!root.remove_dir("/a").unwrap() && root.remove_dir("/a/b/c").unwrap());
    assert!(!root.remove_dir("/a/b/c").unwrap());
    assert!(root.remove_file("/a/g").unwrap() && !root.remove_file("/a/g").unwrap());
    assert!(root.remove_file("/a").is_err());
    // A tree goes without what its links point to.
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), b"").unwrap();
    symlink(outside.path(), dir.path().join("a/b/out")).unwrap();
    assert!(root.remove_tree("/a").unwrap() && !root.remove_tree("/a").unwrap());
    assert!(outside.path().join("kept").exists());
}

#[test]
fn leftovers_of_dead_processes_are_swept() {
    let (dir, root) = tree();
    let pending = root.create("/mine", 0o600, me()).unwrap();
    // Process ids end at 2^22 (proc(5), `pid_max`).
    for name in [".bedplate-4194305-0", ".bedplate-4194305-1", ".bedplate-x", ".bedplate-1-0", "other"] {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    // Someone of another process namespace is at this one.
    let held = fs::File::open(dir.path().join(".bedplate-4194305-1")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(root.sweep("/").unwrap(), 1);
    assert!(!dir.path().join(".bedplate-4194305-0").exists());
    drop(held);
    assert_eq!(root.sweep("/").unwrap(), 1);
    pending.commit().unwrap();
    assert!(dir.path().join("mine").exists());
}

#[test]
fn room_and_file_systems() {
    let (_dir, root) = tree();
    let space = root.free_space("/not/there/yet").unwrap();
    assert!(space.bytes_total > 0 && space.bytes_free <= space.bytes_total);
    assert!(space.inodes_free <= space.inodes_total);
    let host = Root::open(Path::new("/")).unwrap();
    assert_eq!(host.file_system("/proc/1").unwrap(), "proc");
    assert_eq!(host.file_system("/sys/none").unwrap(), "sysfs");
}

#[test]
fn inputs_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("profile.toml");
    let error = read_text(&path, 10).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(error.message(), format!("`{}` does not exist", path.display()));
    fs::write(&path, b"ab\xffc").unwrap();
    assert!(read_text(&path, 10).unwrap_err().message().contains("byte 2 is not valid UTF-8"));
    symlink("gone", dir.path().join("dangling")).unwrap();
    assert!(read_input(&dir.path().join("dangling"), 1).unwrap_err().hints()[0].contains("readlink -f"));
    symlink("circle", dir.path().join("circle")).unwrap();
    assert!(read_input(&dir.path().join("circle"), 1).unwrap_err().message().contains("circle"));
    fs::write(&path, b"good").unwrap();
    symlink("profile.toml", dir.path().join("link")).unwrap();
    assert_eq!(read_text(&dir.path().join("link"), 10).unwrap(), "good");
    assert_eq!(read_input(&path.join("below"), 1).unwrap_err().kind(), Kind::Usage);
    assert_eq!(list_input(dir.path()).unwrap().unwrap().len(), 4);
    assert_eq!(list_input(&dir.path().join("none")).unwrap(), None);
}

#[test]
fn outputs_keep_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("x.lock"), dir.path().join("link"));
    fs::write(&path, b"old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("x.lock", &link).unwrap();
    if is_root("keeping another owner") {
        std::os::unix::fs::chown(&path, Some(11), Some(12)).unwrap();
    }
    let owner = |path: &PathBuf| fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
    let before = owner(&path);
    write_output(&link, b"new", 0o644).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!((mode_of(path.clone()), owner(&path)), (0o640, before));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    write_output(Path::new("/dev/null"), b"x", 0o644).unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    assert_eq!(write_output(dir.path(), b"x", 0o644).unwrap_err().kind(), Kind::Usage);
    let error = write_output(&dir.path().join("no/x"), b"x", 0o644).unwrap_err();
    assert!(error.message().contains("does not exist"), "{error}");
    symlink("made", dir.path().join("dangling")).unwrap();
    write_output(&dir.path().join("dangling"), b"x", 0o600).unwrap();
    assert_eq!(fs::read(dir.path().join("made")).unwrap(), b"x");
}

/// A small tmpfs that is full: nothing is lost and nothing is left.
#[test]
fn a_full_disk_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let content = vec![1; 1 << 20];
    let mounted = is_root("a full file system")
        && Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("a tmpfs cannot be mounted here: /dev/full stands for the full disk");
        let error = write_output(Path::new("/dev/full"), &content, 0o644).unwrap_err();
        assert!(error.message().contains("no space left"), "{error}");
        return;
    }
    let root = Root::open(dir.path()).unwrap();
    root.write("/file", b"old", 0o600, me()).unwrap();
    let errors = [
        root.write("/file", &content, 0o600, me()).unwrap_err(),
        root.write_from("/file", &mut &content[..], 0o600, me()).unwrap_err(),
        write_output(&dir.path().join("file"), &content, 0o644).unwrap_err(),
    ];
    let kept = root.read("/file", 100).unwrap();
    let names = root.list("/").unwrap().len();
    let kind = root.file_system("/").unwrap();
    drop(root);
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
    for error in errors {
        assert!(error.message().contains("no space left"), "{error}");
        assert!(error.hints()[0].contains("df -h"));
    }
    assert_eq!((kept.as_deref(), names, kind.as_str()), (Some(&b"old"[..]), 1, "tmpfs"));
}

#[test]
fn one_run_at_a_time() {
    let (dir, root) = tree();
    let lock = HostLock::acquire(&root, "/run/bedplate/lock", "provision `h100`").unwrap();
    let path = dir.path().join("run/bedplate/lock");
    assert_eq!(mode_of(path.clone()), 0o600);
    let error = HostLock::acquire(&root, "/run/bedplate/lock", "up").unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    let start = format!("another run holds the host: process {} since 2", std::process::id());
    assert!(error.message().starts_with(&start), "{error}");
    assert!(error.message().ends_with("Z, provision `h100`"), "{error}");
    drop(lock);
    assert!(fs::read(&path).unwrap().is_empty());
    drop(HostLock::acquire(&root, "/run/bedplate/lock", "up").unwrap());
    // A holder that was killed leaves text, but no lock.
    fs::write(&path, b"4194305\n2026-01-01T00:00:00Z\nup\n").unwrap();
    drop(HostLock::acquire(&root, "/run/bedplate/lock", "up").unwrap());
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert!(
        HostLock::acquire(&root, "/run/bedplate/lock", "up").unwrap_err().message().contains("is a link to")
    );
}

#[test]
fn permission_denied_says_what_to_do() {
    let error = failure("writing", Path::new("/x"), rustix::io::Errno::ACCESS);
    assert_eq!(error.message(), "writing `/x`: permission denied");
    assert_eq!(error.hints().len(), 1);
    let error = failure("writing", Path::new("/x"), rustix::io::Errno::ROFS);
    assert!(error.message().contains("read-only") && error.hints()[0].contains("findmnt"));
}

#[test]
fn a_private_file_goes_through_no_link() {
    let (dir, _) = tree();
    let (file, aim) = (dir.path().join("secret"), dir.path().join("aim"));
    write_private(&file, b"one").unwrap();
    assert_eq!(mode_of(file.clone()), 0o600);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    write_private(&file, b"two").unwrap();
    assert_eq!((mode_of(file.clone()), fs::read(&file).unwrap()), (0o600, b"two".to_vec()));
    fs::remove_file(&file).unwrap();
    assert!(!is_there(&file));
    symlink(&aim, &file).unwrap();
    assert!(is_there(&file) && !exists(&file));
    let error = write_private(&file, b"three").unwrap_err();
    assert!(error.message().contains(&format!("is a link to `{}`", aim.display())), "{error}");
    assert!(!is_there(&aim));
    assert!(write_private(dir.path(), b"").unwrap_err().message().contains("no regular file"));
}
