//! The root tree: packages from the store, unpacked at once, configured by the tree's own dpkg, and normalised.
//!
//! The order is dpkg's where it can be seen: a package's `preinst` runs before its files come, and after what it
//! pre-depends on is configured. Packages without a `preinst`, and the base that scripts need to run at all, are
//! unpacked first, several at once (as debootstrap and mmdebstrap unpack their base).

mod database;
mod normalise;
mod order;
mod package;
mod scripts;
mod unpack;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use database::Triggers;
use order::Order;
use package::Package;
use scripts::Room;
use unpack::{Contents, Unpacking};

pub use crate::system::confine::this_program;
use crate::{
    build::{kept::Trees, owners::Diversions},
    error::{Error, Result},
    lock::LockedPackage,
    progress::{Progress, Unit},
    store::Store,
    system::{
        clock::{self, Shifted},
        files::{Meta, Owner, Planter, Root},
    },
};

/// What a merged `/usr` has at its top on amd64 and arm64 (Debian Policy 10.1). Of others base-files makes links where
/// a package brings them.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// A script that does nothing, for programs that would start services in the tree.
const NOTHING: &str = "#!/bin/sh\nexit 0\n";
/// Programs that start services, or make an initramfs: that is made once, at the end.
const STOOD_IN_FOR: [&str; 4] = [
    "/usr/sbin/invoke-rc.d",
    "/usr/bin/deb-systemd-invoke",
    "/usr/sbin/start-stop-daemon",
    "/usr/sbin/update-initramfs",
];

/// What a tree is made from.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Every package, sorted by name.
    pub packages: &'a [LockedPackage],
    /// Where they are.
    pub store: &'a Store,
    /// An empty directory.
    pub root: &'a Root,
    /// This program, as it can be started again.
    pub program: &'a Path,
    /// The architecture, in Debian's words.
    pub architecture: &'a str,
    /// The clock that programs of the tree see, where it is not the machine's.
    pub clock: Option<&'a Shifted>,
    /// How many packages are unpacked at once.
    pub threads: usize,
    /// Programs of the tree that do nothing while packages are configured, besides those that start services.
    pub stand_ins: &'a [&'a str],
    /// Told of what is being done.
    pub progress: &'a dyn Progress,
}

impl<'a> Request<'a> {
    /// A place to run the tree's programs in, with this time to write down.
    pub(super) fn room(&self, time: i64) -> Room<'a> {
        let Self { root, program, architecture, clock, .. } = *self;
        Room { root, program, time, architecture, clock }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Built {
    /// The newest package's time, in seconds since 1970: nothing in the tree is newer.
    pub time: i64,
    /// What took how long, in the order it was done.
    pub spent: Vec<(String, Duration)>,
    /// Each package by name: what its files are unpacked, and when it was built.
    pub packages: BTreeMap<String, Unpacked>,
}

/// A package of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unpacked {
    /// Bytes of its archive of files.
    pub bytes: u64,
    /// When it was built, in seconds since 1970.
    pub built: i64,
}

/// Makes the tree: packages installed and configured. [`finish`] comes after what else goes into it.
///
/// # Errors
/// A package is not in the store, damaged, or not what the lock says; a script fails; there is no space; the tree's
/// programs cannot be run confined here.
pub async fn make(request: &Request<'_>) -> Result<Built> {
    let mut watch = Stopwatch::new();
    let packages = read_all(request)?;
    let time = packages.iter().map(|package| package.built).max().unwrap_or(0);
    refuse_slow_clock(time)?;
    let order = order::order(&packages);
    watch.lap("read control files");
    let dpkg = packages.iter().find(|package| package.locked.name == "dpkg").ok_or_else(|| {
        Error::usage("an image needs `dpkg` among the locked packages, and the lock has none")
            .hint("lock the profile again: `bedplate lock`")
    })?;
    let dpkg = dpkg.locked.version.as_str();
    let room = request.room(time);
    begin(request.root, time)?;
    let mut work = Work {
        request,
        packages: &packages,
        order: &order,
        contents: Contents::default(),
        triggers: Triggers::default(),
        unpacked: BTreeSet::new(),
        configured: BTreeSet::new(),
    };
    let task = "unpack packages";
    request.progress.started(task, Some(packages.len() as u64), Unit::Items);
    let base: Vec<usize> = order.sorted.iter().copied().filter(|at| order.base.contains(at)).collect();
    let first: Vec<usize> = base.iter().chain(order.waves.first().into_iter().flatten()).copied().collect();
    work.unpack(&first)?;
    watch.lap("unpack");
    let mut jobs: Vec<_> = work.with_preinst(&base).map(|package| room.preinst(package, dpkg)).collect();
    jobs.push(work.configure(&room, &base, "configure the base"));
    watch.jobs(room.run(jobs, work.stand_ins()?).await?);
    work.configured.extend(&base);
    for wave in order.waves.iter().skip(1) {
        let mut jobs = Vec::new();
        let before = work.pre_depended(wave);
        if !before.is_empty() {
            jobs.push(work.configure(&room, &before, "configure what others pre-depend on"));
        }
        jobs.extend(work.with_preinst(wave).map(|package| room.preinst(package, dpkg)));
        // The scripts are needed before the files.
        database::write_info(request.root, &packages, wave, &Contents::default())?;
        watch.jobs(room.run(jobs, work.stand_ins()?).await?);
        work.configured.extend(&before);
        work.unpack(wave)?;
        watch.lap("unpack");
    }
    request.progress.finished(task, None);
    let task = "configure packages";
    request.progress.started(task, None, Unit::None);
    let job = room.job(
        "configuring packages (`dpkg --configure --pending`)",
        &["dpkg", "--force-unsafe-io", "--configure", "--pending"],
    );
    watch.jobs(room.run(vec![job], work.stand_ins()?).await?);
    if let Some((name, state)) = database::unfinished(request.root)?.first() {
        return Err(Error::failed(format!("package {name} is not configured: dpkg says `{state}`")));
    }
    request.progress.finished(task, None);
    let unpacked = work.contents.bytes.iter().map(|(at, bytes)| {
        let package = &packages[*at];
        (package.locked.name.clone(), Unpacked { bytes: *bytes, built: package.built })
    });
    Ok(Built { time, spent: watch.spent, packages: unpacked.collect() })
}

/// Takes out of a tree what was made by chance, by a clock, or by the making: of packages alone, so that it can be kept, and
/// once more by [`finish`].
///
/// # Errors
/// The tree cannot be read or changed.
pub fn settle(request: &Request<'_>, built: &mut Built) -> Result<()> {
    let mut watch = Stopwatch::new();
    normalise::normalise(request.root, built.time)?;
    watch.lap("normalise");
    built.spent.append(&mut watch.spent);
    Ok(())
}

/// An initramfs for each kernel, or the one that is kept of such a tree; then takes out of the tree what was made by chance, by
/// a clock, or by the making. Nothing in it is newer than the newest package afterwards. Adds what it spent to `built`.
///
/// # Errors
/// The initramfs cannot be made; the tree cannot be read or changed.
pub async fn finish(request: &Request<'_>, built: &mut Built, kept: Option<&Trees>) -> Result<()> {
    let mut watch = Stopwatch::new();
    let root = request.root;
    let room = request.room(built.time);
    let jobs = initramfs(root, &room)?;
    if !jobs.is_empty() {
        let task = "make the initramfs";
        request.progress.started(task, None, Unit::None);
        let kept = kept.map(|trees| trees.initramfs(root)).transpose()?;
        let taken = kept.as_ref().map_or(Ok(false), |kept| kept.take(built.time))?;
        watch.lap("look at what is kept");
        if !taken {
            watch.jobs(room.run(jobs, BTreeMap::new()).await?);
            if let Some(kept) = kept {
                kept.put()?;
                watch.lap("keep the initramfs");
            }
        }
        request.progress.finished(task, None);
    }
    built.spent.append(&mut watch.spent);
    settle(request, built)
}

/// Whether programs of a finished tree see this clock, which is ahead by at least `days`: another C library than the one it was
/// made for may not load its library.
pub async fn sees(root: &Root, program: &Path, clock: &Shifted, days: i64) -> bool {
    let room = Room { root, program, time: 0, architecture: "", clock: Some(clock) };
    let then = (clock::now().as_second() + days * 86_400).to_string();
    let job = room.job("looking at the clock", &["sh", "-c", r#"test "$(date +%s)" -ge "$1""#, "sh", &then]);
    room.run(vec![job], BTreeMap::new()).await.is_ok()
}

/// `Maintainer` of each package of a finished tree, by the package's name (deb-control(5)).
///
/// # Errors
/// dpkg's database cannot be read.
pub fn maintainers(root: &Root) -> Result<BTreeMap<String, String>> {
    database::maintainers(root)
}

/// The control files of all packages, several at once.
fn read_all<'a>(request: &Request<'a>) -> Result<Vec<Package<'a>>> {
    let next = AtomicUsize::new(0);
    let read = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..request.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(locked) = request.packages.get(at) else { break };
                    let package = package::read(request.store, locked);
                    read.lock().unwrap_or_else(PoisonError::into_inner).insert(at, package);
                }
            });
        }
    });
    read.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// Files that scripts make have this machine's time, and only what is newer than the image is given the image's.
fn refuse_slow_clock(time: i64) -> Result<()> {
    let now = clock::now().as_second();
    if now >= time {
        return Ok(());
    }
    let newest = jiff::Timestamp::from_second(time).unwrap_or_default();
    Err(Error::failed(format!(
        "this machine's clock is behind the newest locked package, which was built at {newest}"
    ))
    .hint("set the clock: `timedatectl set-ntp true`"))
}

/// The merged `/usr` and an empty database.
fn begin(root: &Root, time: i64) -> Result<()> {
    let mut planter = Planter::new(root);
    let meta = Meta { mode: 0o777, owner: Owner::ROOT, modified: time };
    for name in MERGED {
        planter.directory(format!("usr/{name}").as_bytes())?;
        planter.link(name.as_bytes(), format!("usr/{name}").as_bytes(), meta)?;
    }
    // base-files has these links; packages that have directories behind them must find them.
    planter.directory(b"run/lock")?;
    planter.link(b"var/run", b"/run", meta)?;
    planter.link(b"var/lock", b"/run/lock", meta)?;
    database::begin(root)
}

/// An initramfs for each kernel of the tree, where the tree has the means.
fn initramfs(root: &Root, room: &Room<'_>) -> Result<Vec<crate::system::confine::Job>> {
    if !root.exists("/usr/sbin/update-initramfs")? {
        return Ok(Vec::new());
    }
    let kernels = root.list("/boot")?.into_iter().filter(|entry| !entry.is_dir);
    let releases = kernels.filter_map(|entry| Some(entry.name.strip_prefix("vmlinuz-")?.to_owned()));
    Ok(releases
        .map(|release| {
            let what = format!("making the initramfs of {release}");
            room.job(what, &["update-initramfs", "-c", "-k", &release])
        })
        .collect())
}

/// The tree on its way.
struct Work<'w, 'a> {
    request: &'w Request<'a>,
    packages: &'w [Package<'a>],
    order: &'w Order,
    contents: Contents,
    triggers: Triggers,
    unpacked: BTreeSet<usize>,
    configured: BTreeSet<usize>,
}

impl<'w> Work<'w, '_> {
    /// Unpacks packages and tells dpkg's database of them.
    fn unpack(&mut self, which: &[usize]) -> Result<()> {
        let root = self.request.root;
        let count = AtomicUsize::new(self.unpacked.len());
        let told = |at: usize| {
            let done = count.fetch_add(1, Ordering::Relaxed) as u64 + 1;
            self.request.progress.event(crate::progress::Event::Advanced {
                task: "unpack packages".into(),
                done,
                total: Some(self.packages.len() as u64),
                note: Some(self.packages[at].locked.name.as_str().into()),
            });
        };
        let unpacking = Unpacking {
            packages: self.packages,
            place: &self.order.place,
            store: self.request.store,
            root,
            diversions: Diversions::read(root)?,
            threads: self.request.threads,
            told: &told,
        };
        self.contents = unpacking.unpack(which, std::mem::take(&mut self.contents))?;
        self.unpacked.extend(which);
        let triggers = Triggers::of(self.packages, which)?;
        triggers.write(root)?;
        let paths: Vec<&[u8]> = which.iter().flat_map(|at| self.contents.list(*at)).collect();
        triggers.write_activated(root, &self.triggers, &paths)?;
        self.triggers.extend(triggers);
        database::write_info(root, self.packages, which, &self.contents)?;
        database::add_status(root, self.packages, which)
    }

    fn with_preinst<'s>(&'s self, which: &'s [usize]) -> impl Iterator<Item = &'s Package<'s>> + use<'s, 'w> {
        which.iter().map(|at| &self.packages[*at]).filter(|package| package.files.contains_key("preinst"))
    }

    /// What packages of a wave pre-depend on, with all it depends on itself, as far as it is unpacked and not configured.
    fn pre_depended(&self, wave: &[usize]) -> Vec<usize> {
        let index = order::by_name(self.packages);
        let mut wanted = BTreeSet::new();
        let mut left: Vec<usize> = wave
            .iter()
            .flat_map(|at| &self.packages[*at].pre_depends)
            .filter_map(|name| index.get(name.as_str()).copied())
            .collect();
        while let Some(at) = left.pop() {
            if self.unpacked.contains(&at) && !self.configured.contains(&at) && wanted.insert(at) {
                left.extend(
                    self.packages[at].locked.depends.iter().filter_map(|name| index.get(name.as_str())),
                );
            }
        }
        self.order.sorted.iter().copied().filter(|at| wanted.contains(at)).collect()
    }

    /// Configures some packages, in this order, though what they depend on may come after them: the base's circles.
    fn configure(&self, room: &Room<'_>, which: &[usize], what: &str) -> crate::system::confine::Job {
        let keys: Vec<String> = which.iter().map(|at| self.packages[*at].key()).collect();
        let mut words = vec!["dpkg", "--force-unsafe-io", "--force-depends", "--configure"];
        words.extend(keys.iter().map(String::as_str));
        room.job(format!("{what} (`dpkg --configure`)"), &words)
    }

    fn stand_ins(&self) -> Result<BTreeMap<String, String>> {
        let root = self.request.root;
        let mut stand_ins = BTreeMap::new();
        for path in STOOD_IN_FOR.iter().chain(self.request.stand_ins) {
            if root.exists(path)? {
                stand_ins.insert((*path).to_owned(), NOTHING.to_owned());
            }
        }
        Ok(stand_ins)
    }
}

/// Who spent how long.
struct Stopwatch {
    since: Instant,
    spent: Vec<(String, Duration)>,
}

impl Stopwatch {
    fn new() -> Self {
        Self { since: Instant::now(), spent: Vec::new() }
    }

    fn lap(&mut self, what: &str) {
        self.spent.push((what.to_owned(), self.since.elapsed()));
        self.since = Instant::now();
    }

    fn jobs(&mut self, done: Vec<crate::system::confine::Done>) {
        for job in done {
            self.spent.push((job.what, Duration::from_millis(job.milliseconds)));
        }
        self.since = Instant::now();
    }
}
