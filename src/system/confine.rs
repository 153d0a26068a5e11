//! Programs run confined in a root tree: the inside of the room.
//!
//! `unshare` (util-linux) makes the namespaces and starts this program again as their first process; it takes orders on
//! standard input ([`Orders`]), lays the tree out as its `/`, and runs the jobs one after the other. Programs in there
//! see no path, no network and no process of the host, a host name that is the same everywhere, and file system
//! flushes that do nothing: a tree that is being built is thrown away whole when something goes wrong.
//!
//! When the first process ends, for whatever reason, the kernel ends all others of the room and takes its mounts away.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command as Child, Stdio},
    time::Instant,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat, symlinkat},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount,
        unmount,
    },
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use serde::{Deserialize, Serialize};

use super::{clock::Shifted, process::Command};
use crate::error::{Doing, Error, Result};

/// The room's host name: the same in every build.
const HOST_NAME: &str = "bedplate";
/// Device nodes that programs may use; nothing of the host hangs on them.
const NODES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Files of `/proc` that tell of the host and that scripts are known to write down: where it swaps to (initramfs-tools),
/// how it was booted, which modules it has. Empty in a room.
const TALES: [&str; 3] = ["swaps", "cmdline", "modules"];
/// Parts of `/proc` through which the host itself could be changed: only read in a room.
const LEVERS: [&str; 2] = ["sys", "sysrq-trigger"];
/// `PATH` of every job (Debian's default for root).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where a room has the library of its clock.
const CLOCK: &str = "/run/bedplate-clock.so";
/// Most bytes of orders.
const ORDERS: u64 = 64 << 20;

/// What is done in a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// The tree, as an absolute path.
    pub root: PathBuf,
    /// Programs of the tree that a script of this text stands in for while the jobs run. The tree keeps its own.
    pub stand_ins: BTreeMap<String, String>,
    /// The jobs, in order; the first that fails is the last.
    pub jobs: Vec<Job>,
    /// The clock of the room, where it has its own.
    pub clock: Option<Shifted>,
}

/// A program to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// What it is, for messages: `preinst of base-passwd`.
    pub what: String,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// Its whole environment but `PATH`, `HOME` and `LC_ALL`.
    pub environment: BTreeMap<String, String>,
}

/// How a job went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// [`Job::what`].
    pub what: String,
    /// Exit status; `None`: ended by a signal, or not started.
    pub code: Option<i32>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// This program, as a path that can be started again.
///
/// # Errors
/// The kernel does not say.
pub fn this_program() -> Result<PathBuf> {
    std::env::current_exe().doing(|| "finding this program")
}

/// The command that makes the room and starts `program` (this program) in it as `program confine`.
///
/// It ends when this process does, even by a kill: `setpriv --pdeathsig` for `unshare`, `--kill-child` for the room.
///
/// # Errors
/// The orders cannot be written down.
pub fn room(program: &Path, orders: &Orders) -> Result<Command> {
    let text = serde_json::to_vec(orders).doing(|| "writing a room's orders")?;
    Ok(Command::new("setpriv")
        .package("util-linux")
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child=KILL", "--"])
        .arg(program.to_string_lossy())
        .arg("confine")
        .env_clean()
        .directory("/")
        .stdin_bytes(text))
}

/// The inside: reads orders, makes the room, runs the jobs; prints each [`Done`] as a line of JSON on `out`. What the
/// jobs print goes to standard error.
///
/// # Errors
/// The orders are none, this is not a room, or it cannot be laid out.
pub fn inside(orders: &mut dyn Read, out: &mut dyn Write) -> Result<bool> {
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        return Err(Error::usage("`confine` is for bedplate itself: it runs what a build asks for")
            .hint("use `bedplate build`"));
    }
    let mut text = Vec::new();
    orders.take(ORDERS).read_to_end(&mut text).doing(|| "reading a room's orders")?;
    let orders: Orders = serde_json::from_slice(&text).doing(|| "reading a room's orders")?;
    // No terminal: a script that asks something gets no answer instead of the user's.
    rustix::process::setsid().doing(|| "leaving the terminal")?;
    lay_out(&orders).doing(|| format!("making a room of `{}`", orders.root.display()))?;
    let flushes = without_flushes()?;
    seccompiler::apply_filter(&flushes)
        .map_err(|error| Error::failed("making flushes do nothing in a room").because(error))?;
    for job in &orders.jobs {
        let done = run(job, orders.clock.as_ref());
        let line = serde_json::to_string(&done).doing(|| "telling of a job")?;
        writeln!(out, "{line}").and_then(|()| out.flush()).doing(|| "telling of a job")?;
        if done.code != Some(0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn run(job: &Job, clock: Option<&Shifted>) -> Done {
    let begun = Instant::now();
    let (code, error) = match start(job, clock) {
        Ok(code) => (code, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Done { what: job.what.clone(), code, error, milliseconds }
}

fn start(job: &Job, clock: Option<&Shifted>) -> std::io::Result<Option<i32>> {
    let (program, arguments) = job.arguments.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    // What programs print on standard output is talk as well.
    let talk = rustix::io::dup(std::io::stderr())?;
    let mut child = Child::new(program);
    child
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .envs(&job.environment)
        .envs(clock.into_iter().flat_map(|clock| clock.environment(Path::new(CLOCK))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(talk)
        .process_group(0);
    Ok(child.status()?.code())
}

/// Lays the tree out as `/` with what programs need to run, all of it mounts of this room.
fn lay_out(orders: &Orders) -> std::io::Result<()> {
    let root = &orders.root;
    // The modes below are meant as they are.
    rustix::process::umask(Mode::empty());
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_bind(root, root)?;
    // Programs of the tree are run, also where the file system it lies on is mounted `noexec`. In a user namespace
    // what the mount forbids stays forbidden (mount_namespaces(7)).
    match mount_remount(root, MountFlags::BIND, "") {
        Err(Errno::PERM) if !noexec(root)? => {}
        Err(Errno::PERM) => {
            return Err(std::io::Error::other(
                "it lies on a file system that is mounted `noexec`, which only root can change: name another with `--store`",
            ));
        }
        other => other?,
    }
    rustix::process::chdir(root)?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for name in ["proc", "dev", "run", "tmp"] {
        match rustix::fs::mkdir(name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    mount("proc", "proc", "proc", quiet, None)?;
    mount("tmpfs", "dev", "tmpfs", MountFlags::NOSUID, Some(c"mode=0755,size=1m"))?;
    for name in NODES {
        let place = format!("dev/{name}");
        drop(openat(CWD, place.as_str(), OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o666))?);
        mount_bind(format!("/dev/{name}"), place.as_str())?;
    }
    for name in TALES {
        let place = format!("proc/{name}");
        where_there(mount_bind("dev/null", place.as_str()))?;
    }
    for name in LEVERS {
        let place = format!("proc/{name}");
        if where_there(mount_bind(place.as_str(), place.as_str()))? {
            mount_remount(place.as_str(), MountFlags::BIND | MountFlags::RDONLY | quiet, "")?;
        }
    }
    for (name, target) in [
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
    ] {
        symlinkat(target, CWD, name)?;
    }
    mount("tmpfs", "run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755"))?;
    rustix::fs::mkdir("run/lock", Mode::from_raw_mode(0o1777))?;
    mount("tmpfs", "tmp", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=1777"))?;
    if let Some(clock) = &orders.clock {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::EXCL;
        let place = CLOCK.trim_start_matches('/');
        let mut to = File::from(openat(CWD, place, flags, Mode::from_raw_mode(0o644))?);
        let from = openat(CWD, &clock.library, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        std::io::copy(&mut File::from(from), &mut to)?;
    }
    for (number, (path, text)) in orders.stand_ins.iter().enumerate() {
        let source = format!("run/stand-in-{number}");
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::EXCL;
        let mut file = File::from(openat(CWD, source.as_str(), flags, Mode::from_raw_mode(0o755))?);
        file.write_all(text.as_bytes())?;
        drop(file);
        mount_bind(source.as_str(), path.trim_start_matches('/'))?;
    }
    rustix::system::sethostname(HOST_NAME.as_bytes())?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Whether programs cannot be run from the file system that holds `path`.
fn noexec(path: &Path) -> std::io::Result<bool> {
    Ok(rustix::fs::statvfs(path)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Whether there was something to mount over: kernels are built with more or less in `/proc`.
fn where_there(mounted: std::result::Result<(), Errno>) -> std::io::Result<bool> {
    match mounted {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A filter under which the system calls that flush succeed without doing anything (seccomp(2), `SECCOMP_RET_ERRNO`
/// with error 0).
fn without_flushes() -> Result<BpfProgram> {
    /// fsync(2), fdatasync(2), sync(2), sync_file_range(2), syncfs(2) and msync(2) on x86-64 (Linux,
    /// `arch/x86/entry/syscalls/syscall_64.tbl`).
    const FLUSHES: [i64; 6] = [74, 75, 162, 277, 306, 26];
    let failed = |error: seccompiler::BackendError| {
        Error::failed("making flushes do nothing in a room").because(error)
    };
    let rules = FLUSHES.iter().map(|number| (*number, Vec::new())).collect();
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), TargetArch::x86_64)
        .and_then(TryInto::try_into)
        .map_err(failed)
}
