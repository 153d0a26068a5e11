//! A host whose `/run` is mounted `noexec`, as initramfs-tools mounts it.

use std::{
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
};

use bedplate::{
    deploy::{Paths, launch},
    system::files::Root,
};
use tempfile::TempDir;

/// A tmpfs of its own, gone with this.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(options: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        Self(directory)
    }

    fn path(&self, path: &str) -> String {
        self.0.path().join(path).to_str().unwrap().to_owned()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // With what is mounted in it; whatever fails is said by the directory that stays.
        let _ = Command::new("umount").arg("--recursive").arg(self.0.path()).status();
    }
}

/// How starting a program ends: its error, or nothing where it starts.
fn start(path: &str) -> Option<ErrorKind> {
    let started = Command::new(path).stderr(Stdio::null()).status();
    started.err().map(|error| error.kind())
}

#[test]
fn the_launcher_runs_where_run_is_mounted_noexec() {
    let run = Tmpfs::mount("noexec,nosuid,nodev,mode=0755");
    let paths = Paths { launch: run.path("exec/launch"), ..Paths::default() };
    let root = Root::open(Path::new("/")).unwrap();
    launch::materialise(&root, &paths).unwrap();
    assert_eq!(start(&paths.launch), None);
    // Nothing else of the place lost its protection.
    std::fs::copy(&paths.launch, run.path("other")).unwrap();
    assert_eq!(start(&run.path("other")), Some(ErrorKind::PermissionDenied));
    let flags = |of: &str| {
        let found = Command::new("findmnt").args(["-no", "VFS-OPTIONS", "-T", of]).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    assert!(flags(&paths.launch).contains("nosuid") && flags(&paths.launch).contains("nodev"));

    // Once is enough, and another version takes its place.
    let mounts =
        || std::fs::read_to_string("/proc/self/mountinfo").unwrap().matches(&run.path("exec")).count();
    let before = mounts();
    std::fs::remove_file(&paths.launch).unwrap();
    launch::materialise(&root, &paths).unwrap();
    assert_eq!((start(&paths.launch), mounts()), (None, before));
}

#[test]
fn a_file_where_the_launchers_directory_shall_be_takes_no_protection_from_what_is_above() {
    let run = Tmpfs::mount("noexec,nosuid,nodev,mode=0755");
    std::fs::write(run.path("exec"), "").unwrap();
    let paths = Paths { launch: run.path("exec/launch"), ..Paths::default() };
    let error = launch::materialise(&Root::open(Path::new("/")).unwrap(), &paths).unwrap_err();
    assert!(error.message().contains("exec` is not a directory"), "{error:?}");
    std::fs::write(run.path("other"), launch::PROGRAM).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(run.path("other"), mode).unwrap();
    assert_eq!(start(&run.path("other")), Some(ErrorKind::PermissionDenied));
}

#[test]
fn a_place_that_lets_programs_run_is_not_mounted_again() {
    let run = Tmpfs::mount("nosuid,nodev,mode=0755");
    let paths = Paths { launch: run.path("exec/launch"), ..Paths::default() };
    launch::materialise(&Root::open(Path::new("/")).unwrap(), &paths).unwrap();
    assert_eq!(start(&paths.launch), None);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&paths.launch.replace("/launch", "")), "{mounts}");
}
