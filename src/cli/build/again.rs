//! `build --verify-twice`: the same image once more, under other conditions, and compared.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::image::{Image, Report, threads};
use crate::{
    build::{compare, root, tree::Tree, work::Work},
    error::{Doing, Error, Result},
    lock::{Lock, LockedPackage, modules::Workshop},
    progress::{Progress, Unit},
    store::Store,
    system::{
        clock::Shifted,
        files::{self, Root},
        namespace::{self, IdMap},
        process::Command,
    },
};

/// How long the second build may take.
const LIMIT: Duration = Duration::from_hours(2);
/// How the second build is started: see there.
const ELSEWHERE: &str = include_str!("elsewhere.sh");
/// How many days ahead its clock is: also another year.
const AHEAD: u32 = 400;
/// What is always another.
const ALWAYS: [&str; 10] = [
    "store",
    "umask",
    "host name",
    "directory",
    "time zone",
    "locale",
    "home directory",
    "user name",
    "count of processors",
    "time since boot",
];

/// What can be another, where this machine has the means.
struct Elsewhere {
    /// Another user: what its ids are here.
    ids: Option<[IdMap; 2]>,
    clock: Option<Shifted>,
}

impl Elsewhere {
    /// Looks for the means; says which are missing.
    async fn find(image: &Image<'_>, tree: &Root) -> Result<Self> {
        let ui = &image.context.ui;
        let mut ids = None;
        if namespace::possible().await
            && let [Some(users), Some(groups)] = IdMap::own()?.map(|map| map.swapped())
        {
            ids = Some([users, groups]);
        } else {
            ui.warn("the second build has the same user: user namespaces cannot be made here (`user.max_user_namespaces`)");
        }
        let mut clock = Shifted::ahead(AHEAD);
        if let Some(found) = &clock {
            if !root::sees(tree, &root::this_program()?, found, i64::from(AHEAD)).await {
                clock = None;
                ui.warn("the second build has the same clock: the image's programs cannot load this machine's libfaketime");
            }
        } else {
            ui.warn("the second build has the same clock: libfaketime is not installed (`apt install libfaketime`)");
        }
        Ok(Self { ids, clock })
    }

    fn varied(&self) -> Vec<&'static str> {
        let mut all = ALWAYS.to_vec();
        all.extend(self.ids.as_ref().map(|_| "user"));
        all.extend(self.clock.as_ref().map(|_| "clock"));
        all
    }
}

/// Builds once more, in a store of its own, and compares every part with the first build's `report`. `tree` is the first
/// build's.
///
/// The second build has another of all that [`ALWAYS`] lists; another user, as root of a user namespace of other ids; and
/// another clock, by libfaketime. Gives what was varied.
///
/// # Errors
/// The second build fails; a part differs: the first path that does, both values, and the package or step that wrote it.
pub(super) async fn compare(
    image: &Image<'_>,
    tree: &Root,
    work: &Work,
    report: &Report,
    progress: &dyn Progress,
) -> Result<Vec<&'static str>> {
    let elsewhere = Elsewhere::find(image, tree).await?;
    let task = "build a second time";
    progress.started(task, None, Unit::None);
    let place = work.scratch().join("second");
    files::make_private_dir(&place)?;
    let second = Store::open(&place.join("store"))?;
    for package in &packages(&image.pinned.lock) {
        // What is copied is verified on its way.
        let (file, _) = image.store.open_entry(&package.sha256)?.ok_or_else(|| {
            Error::failed(format!("package `{}` is not in the store any more", package.name))
                .hint("run it again: what the store lacks is fetched")
        })?;
        second.put_stream(file, Some(package.sha256))?;
    }
    let output = place.join("out");
    for blob in image.images.blobs() {
        let (file, _) = image.store.open_entry(&blob.digest)?.ok_or_else(|| {
            Error::failed(format!("`{}` of a container image is not in the store any more", blob.digest))
                .hint("run it again: what the store lacks is fetched")
        })?;
        second.put_stream(file, Some(blob.digest))?;
    }
    build(image, second.directory().to_path_buf(), &output, &elsewhere).await?;
    progress.finished(task, None);
    let differs = report.parts.iter().filter(|(_, piece)| {
        let name = piece.path.file_name().unwrap_or_default();
        piece.of(output.join(name)).is_none_or(|other| other != piece.digest)
    });
    let differs: Vec<&str> = differs.map(|(format, _)| format.as_str()).collect();
    if differs.is_empty() {
        return Ok(elsewhere.varied());
    }
    let ours = Tree::read(Root::open(tree.path())?)?;
    let mut theirs = Tree::read(Root::open(&second.directory().join("build/tree"))?)?;
    if let Some(ids) = &elsewhere.ids {
        theirs = theirs.seen_in(ids);
    }
    let found = compare::compare(&ours, &theirs, threads().get() as usize)?;
    Err(compare::error(&found).unwrap_or_else(|| {
        Error::check(format!(
            "two builds of the same lock have the same tree, and {} that differ: the writer is at fault",
            differs.join(", ")
        ))
        .hint("report it: this is a bug of bedplate")
    }))
}

/// What the second build needs in its store: packages of the host, and those that the driver's modules are built from, since
/// they are built again.
pub(super) fn packages(lock: &Lock) -> Vec<LockedPackage> {
    let Some(modules) = &lock.modules else { return lock.packages.clone() };
    let mut packages = lock.host_packages().into_owned();
    packages.extend(Workshop::of(&lock.packages).into_iter().flat_map(|workshop| workshop.packages));
    packages.retain(|package| package.sha256 != modules.package.sha256);
    packages.sort_by_key(|package| package.sha256);
    packages.dedup_by_key(|package| package.sha256);
    packages
}

async fn build(image: &Image<'_>, store: PathBuf, output: &Path, elsewhere: &Elsewhere) -> Result<()> {
    let program = root::this_program()?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let [users, groups] =
        elsewhere.ids.as_ref().map_or_else(Default::default, |ids| ids.each_ref().map(ToString::to_string));
    let last = Command::new("setpriv")
        .package("util-linux")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--uts", "--time", "--boottime", "9000000", "--fork"])
        .args(["--kill-child=KILL", "--", "sh", "-c"])
        .arg_hidden(ELSEWHERE)
        .arg("sh")
        .arg_hidden(users)
        .arg_hidden(groups)
        .arg(text(&program))
        .args(["--quiet", "--store"])
        .arg(text(&store))
        .args(["build", "--keep-tree", "--output"])
        .arg(text(output))
        .arg("--")
        .arg(text(&files::absolute(&image.sources.path)?))
        .env_clean()
        .env("TZ", "Pacific/Kiritimati")
        .env("LANG", "tr_TR.UTF-8")
        .env("HOME", "/nonexistent")
        .env("USER", "nobody")
        .env("LOGNAME", "nobody")
        .directory("/")
        .timeout(LIMIT);
    let clock = elsewhere.clock.iter().flat_map(|clock| clock.environment(&clock.library));
    let last = clock.fold(last, |last, (name, value)| last.env(name, value));
    last.check().await.map(drop).doing(|| "building a second time")
}
