//! `build --verify-twice`: the same image once more, under other conditions, and compared.

use std::{path::PathBuf, time::Duration};

use super::image::{Image, Report, threads};
use crate::{
    build::{compare, root, tree::Tree, work::Work},
    error::{Doing, Error, Result},
    progress::{Progress, Unit},
    store::Store,
    system::{
        files::{self, Root},
        process::Command,
    },
};

/// How long the second build may take.
const LIMIT: Duration = Duration::from_hours(2);
/// What the second build runs under, after its arguments: another umask, host name, directory; one processor; a boot
/// of long ago.
const ELSEWHERE: &str = r#"umask 077; hostname elsewhere; cd /; exec taskset --cpu-list 0 "$@""#;

/// Builds once more, in a store of its own, and compares every part with the first build's `report`. `tree` is the first
/// build's.
///
/// The second build has another store, umask, host name, working directory, time zone, locale, home and user variables,
/// count of processors and time since boot; its clock is later, since it comes after the first.
///
/// # Errors
/// The second build fails; a part differs: the first path that does, both values, and the package or step that wrote it.
pub(super) async fn compare(
    image: &Image<'_>,
    tree: &Root,
    work: &Work,
    report: &Report,
    progress: &dyn Progress,
) -> Result<()> {
    let task = "build a second time";
    progress.started(task, None, Unit::None);
    let place = work.scratch().join("second");
    files::make_private_dir(&place)?;
    let second = Store::open(&place.join("store"))?;
    for package in &image.pinned.lock.packages {
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
    build(image, second.directory().to_path_buf(), &output).await?;
    progress.finished(task, None);
    let differs = report.parts.iter().filter(|(_, piece)| {
        let name = piece.path.file_name().unwrap_or_default();
        piece.of(output.join(name)).is_none_or(|other| other != piece.digest)
    });
    let differs: Vec<&str> = differs.map(|(format, _)| format.as_str()).collect();
    if differs.is_empty() {
        return Ok(());
    }
    let ours = Tree::read(Root::open(tree.path())?)?;
    let theirs = Tree::read(Root::open(&second.directory().join("build/tree"))?)?;
    let found = compare::compare(&ours, &theirs, threads().get() as usize)?;
    Err(compare::error(&found).unwrap_or_else(|| {
        Error::check(format!(
            "two builds of the same lock have the same tree, and {} that differ: the writer is at fault",
            differs.join(", ")
        ))
        .hint("report it: this is a bug of bedplate")
    }))
}

async fn build(image: &Image<'_>, store: PathBuf, output: &std::path::Path) -> Result<()> {
    let program = root::this_program()?;
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let last = Command::new("setpriv")
        .package("util-linux")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--uts", "--time", "--boottime", "9000000", "--fork"])
        .args(["--kill-child=KILL", "--", "sh", "-c", ELSEWHERE, "sh"])
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
    last.check().await.map(drop).doing(|| "building a second time")
}
