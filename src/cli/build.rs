//! `build`: a host image from a lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Context, args, carry,
    carry_out::{Goal, Run},
    inputs::ImageSources,
};
use crate::{
    build::{
        groups::Groups,
        root::{self, Built},
        settings::{self, Setting},
        tree::Tree,
        work::{self, Work},
        write::{Content as Written, compress::Compression, layers, oci, tar},
    },
    digest::{Digest, Hasher},
    error::{Error, Result},
    fleet::wire::Carries,
    host::{content::Content, provision, secrets::Frame},
    lock::{
        self,
        bundle::{Bundle, Pinned},
    },
    profile::{
        DriverFlavor,
        image_definition::{Format as ImageFormat, Part},
    },
    store::Store,
    system::files::{self, Root},
    ui::{Format, exit, text},
};

/// What was built.
#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    image: String,
    /// When the newest package was built, RFC 3339.
    time: String,
    parts: BTreeMap<String, Piece>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spent: Vec<(String, u64)>,
}

/// One form of an image.
#[derive(Debug, Serialize)]
struct Piece {
    path: PathBuf,
    digest: Digest,
    bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<(&'static str, Digest, u64)>,
}

/// Runs `build`.
pub fn run(context: &Context, args: &args::Build) -> Result<u8> {
    let sources = ImageSources::read(context, args.image.as_deref())?;
    refuse_unbuilt(&sources)?;
    let (bundle, pinned) = sources.profile.pinned(context)?;
    if pinned.lock.packages.is_empty() {
        return Err(Error::usage(format!(
            "the lock of `{}` has no packages, and an image is made of them",
            sources.profile.shown
        ))
        .hint("lock it again: `bedplate lock`"));
    }
    refuse_unprivileged()?;
    fetch(context, &pinned, sources.profile.directory())?;
    let output = context.path(&args.output);
    files::make_dir(&output)?;
    let store = Store::open(&context.store)?;
    let work = Work::begin(store.directory())?;
    let image = Image { context, sources: &sources, bundle: &bundle, pinned: &pinned, store: &store };
    let tree = Arc::new(work.tree()?);
    let (built, owned) = image.tree(&tree)?;
    let report = image.write(&tree, built, owned, &output)?;
    work.clear()?;
    tell(context, &report, args.explain)?;
    Ok(exit::DONE)
}

/// What this version cannot do of a definition.
fn refuse_unbuilt(sources: &ImageSources) -> Result<()> {
    let definition = &sources.definition;
    let no = |what: &str, instead: &str| {
        Err(Error::usage(format!("`{}`: not in this version yet: {what}", sources.shown))
            .hint(instead.to_owned()))
    };
    if let Some(format) = definition.formats.iter().find(|format| format.is_disk()) {
        return no(&format!("`{}` among `formats`", format.name()), "build `tar`, `tar.zst` or `oci`");
    }
    if definition.include.contains(&Part::Images) {
        return no("`images` among `include`", "leave it out: images are pulled by digest at the first boot");
    }
    let whole = [Part::Packages, Part::Files, Part::Users, Part::Bedplate, Part::Profile];
    if let Some(part) = whole.iter().find(|part| !definition.include.contains(part)) {
        return no(&format!("`include` without `{}`", part.name()), "add it");
    }
    if sources.profile.profile.driver.flavor != DriverFlavor::None {
        return no("images with a driver", "provision such a host: `bedplate provision`");
    }
    Ok(())
}

fn refuse_unprivileged() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::failed("building an image needs root in this version: packages' scripts are run as root, confined")
        .hint("run it with `sudo`, or where user namespaces are allowed: `unshare --map-root-user --map-auto bedplate build …`"))
}

/// Has every package of the lock in the store.
fn fetch(context: &Context, pinned: &Pinned, directory: &Path) -> Result<()> {
    let kinds = Carries { packages: true, images: false };
    carry::gather(context, pinned, directory, kinds, &mut Content::default())
}

/// An image on its way.
struct Image<'a> {
    context: &'a Context,
    sources: &'a ImageSources,
    bundle: &'a Bundle,
    pinned: &'a Pinned,
    store: &'a Store,
}

impl Image<'_> {
    /// Makes the tree: packages, what the profile says, what the definition says. Also says which paths are
    /// configuration.
    fn tree(&self, tree: &Arc<Root>) -> Result<(Built, BTreeSet<String>)> {
        let context = self.context;
        let progress = context.ui.progress();
        let program = root::this_program()?;
        let request = root::Request {
            packages: &self.pinned.lock.packages,
            store: self.store,
            root: tree,
            program: &program,
            architecture: &self.pinned.profile.host.architecture,
            threads: threads().get() as usize,
            progress: progress.as_ref(),
        };
        let definition = &self.sources.definition;
        let settings = settings::settings(definition, None);
        context.run(async {
            let mut built = root::make(&request).await?;
            work::refuse_lacking(tree, &settings::needs(definition), &self.sources.shown)?;
            let begun = Instant::now();
            let before = packaged(tree)?;
            let held = provision::hold(tree, "build")?;
            let frame = Frame::default();
            let places = carry::places(context);
            let run = Run::new(context, tree, (self.bundle, self.pinned), &frame, places, Goal::Provision)
                .dated(timestamp(built.time));
            let plan = run.plan().await?;
            plan.refuse()?;
            run.apply(context, &held, &plan).await?;
            drop(held);
            work::put(tree, &settings, built.time)?;
            let mut owned: BTreeSet<String> = packaged(tree)?.difference(&before).cloned().collect();
            owned.extend(settings.iter().map(|Setting { path, .. }| format!("/{path}")));
            built.spent.push(("what the profile and the definition say".to_owned(), begun.elapsed()));
            root::finish(&request, &mut built).await?;
            Ok((built, owned))
        })
    }

    /// Writes every form of the tree that the definition asks for.
    fn write(
        &self,
        root: &Arc<Root>,
        mut built: Built,
        owned: BTreeSet<String>,
        output: &Path,
    ) -> Result<Report> {
        let begun = Instant::now();
        let tree = Tree::read(Root::open(root.path())?)?;
        built.spent.push(("look at the tree".to_owned(), begun.elapsed()));
        let name = self.name();
        let mut parts = BTreeMap::new();
        for format in &self.sources.definition.formats {
            let begun = Instant::now();
            let path = output.join(format!("{name}.{}", format.name()));
            let progress = self.context.ui.progress();
            let task = format!("write {}", format.name());
            progress.started(&task, None, crate::progress::Unit::None);
            let piece = match format {
                ImageFormat::Tar => archive(&tree, path, Compression::None)?,
                ImageFormat::TarZst => archive(&tree, path, Compression::Zstd)?,
                ImageFormat::Oci => self.layout(root, &tree, &built, &owned, path)?,
                ImageFormat::Disk | ImageFormat::Qcow2 => {
                    return Err(Error::usage(format!("not in this version yet: `{}`", format.name())));
                }
            };
            progress.finished(&task, Some(&format!("{}, {}", text::bytes(piece.bytes), piece.digest)));
            built.spent.push((task, begun.elapsed()));
            parts.insert(format.name().to_owned(), piece);
        }
        let time = timestamp(built.time).to_string();
        let milliseconds = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let spent = built.spent.into_iter().map(|(what, took)| (what, milliseconds(took))).collect();
        Ok(Report { schema: 1, image: name, time, parts, spent })
    }

    fn layout(
        &self,
        root: &Root,
        tree: &Tree,
        built: &Built,
        owned: &BTreeSet<String>,
        path: PathBuf,
    ) -> Result<Piece> {
        let times = built.packages.iter().map(|(name, package)| (name.clone(), package.built)).collect();
        let groups = Groups::of(root, &self.pinned.lock.packages, owned.iter().cloned(), &times)?;
        let layers = layers::split(tree.entries(), &|path| groups.owner(path));
        let options = oci::Options {
            name: self.name(),
            created: built.time,
            architecture: self.pinned.profile.host.architecture.clone(),
            compression: Compression::Gzip,
            threads: threads(),
            newest: groups.newest().clone(),
            annotations: BTreeMap::from([("dev.bedplate.inputs".to_owned(), self.inputs().to_string())]),
        };
        let image = oci::write(tree, &layers, &options, &path)?;
        let bytes = image.download();
        let layers = image
            .layers
            .iter()
            .map(|layer| (layer.group.name(), layer.blob.digest, layer.blob.size))
            .collect();
        Ok(Piece { path, digest: image.manifest.digest, bytes, layers })
    }

    /// The definition's name: that of its file.
    fn name(&self) -> String {
        self.sources.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }

    /// What the image is made from: definition, profile and lock, each as parsed.
    fn inputs(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(lock::image_definition_digest(&self.sources.definition).as_bytes());
        hasher.update(self.bundle.digest().as_bytes());
        hasher.finish()
    }
}

fn timestamp(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap_or_default()
}

fn archive(tree: &Tree, path: PathBuf, compression: Compression) -> Result<Piece> {
    let Written { digest, size } = tar::save(tree, &path, compression, threads())?.stored;
    Ok(Piece { path, digest, bytes: size, layers: Vec::new() })
}

/// Every file and link of `/etc` and below, where the profile's and the definition's own come on top of packages'.
fn packaged(root: &Root) -> Result<BTreeSet<String>> {
    Ok(root.census()?.into_iter().map(|found| format!("/{}", found.path)).collect())
}

/// How many threads there is use for. It changes nothing in what is written.
fn threads() -> NonZero<u32> {
    let count = std::thread::available_parallelism().map_or(1, NonZero::get);
    NonZero::new(u32::try_from(count).unwrap_or(1)).unwrap_or(NonZero::<u32>::MIN)
}

fn tell(context: &Context, report: &Report, explain: bool) -> Result<()> {
    if context.ui.format == Format::Json {
        return context.ui.json(report);
    }
    for piece in report.parts.values() {
        context.ui.data(&format!("{}  {}\n", piece.digest, piece.path.display()))?;
    }
    if explain {
        for (what, took) in &report.spent {
            context.ui.data(&format!("{took:>8} ms  {what}\n"))?;
        }
        for piece in report.parts.values() {
            for (group, digest, bytes) in &piece.layers {
                context.ui.data(&format!(
                    "{:>11}  layer {group}  {}\n",
                    text::bytes(*bytes),
                    digest.short()
                ))?;
            }
        }
    }
    Ok(())
}
