//! An image on its way: its tree, then every form of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;

use crate::{
    build::{
        boot,
        groups::Groups,
        kept::{self, Trees},
        record::{self, Record},
        root::{self, Built},
        sbom,
        settings::{self, Setting},
        tree::Tree,
        work::{self, Work},
        write::{Content as Written, compress::Compression, disk, layers, oci, tar},
    },
    cli::{
        Context, carry,
        carry_out::{Goal, Run},
        inputs::ImageSources,
    },
    digest::{Digest, Hasher},
    error::{Doing, Error, Result},
    host::{
        content::{self, Content},
        layout::STATE,
        provision,
        secrets::Frame,
    },
    lock::{
        self,
        bundle::{Bundle, Pinned},
    },
    profile::{
        GpuAccess,
        image_definition::{Format as ImageFormat, Part, RootFileSystem},
    },
    store::Store,
    system::{
        clock::Shifted,
        files::{self, Owner, Root},
        signals,
    },
    ui::text,
};

/// The largest index of an image layout read, in bytes.
const INDEX: u64 = 1 << 20;

/// What was built.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: u32,
    pub(super) image: String,
    /// When the newest package was built, RFC 3339.
    pub(super) time: String,
    pub(super) parts: BTreeMap<String, Piece>,
    /// What was another in the second build, where there was one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) varied: Vec<&'static str>,
    /// Where it was pushed to, by digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) pushed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) spent: Vec<(String, u64)>,
}

/// One form of an image.
#[derive(Debug, Serialize)]
pub(super) struct Piece {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<(&'static str, Digest, u64)>,
    #[serde(skip)]
    layout: Option<record::Oci>,
    #[serde(skip)]
    disk: Option<record::Disk>,
}

impl Piece {
    /// The digest of the same part elsewhere; `None` where it cannot be read.
    pub(super) fn of(&self, path: PathBuf) -> Option<Digest> {
        if self.layers.is_empty() {
            return digest_of(&path).ok().map(|(digest, _)| digest);
        }
        layout_digest(&path)
    }
}

/// An image on its way.
pub(super) struct Image<'a> {
    pub(super) context: &'a Context,
    pub(super) sources: &'a ImageSources,
    pub(super) bundle: &'a Bundle,
    pub(super) pinned: &'a Pinned,
    pub(super) store: &'a Store,
    /// Digest of all it is made from ([`inputs`]).
    pub(super) inputs: Digest,
    /// What the container images are made of that are baked in.
    pub(super) images: Content,
    /// Digest of this program.
    pub(super) program: Digest,
}

/// The digest of what an image is made from, and that of this program. The first is of the definition as parsed, profile,
/// lock and files; of the program only where that is in the image, so that another build of the same bedplate gives the same
/// bytes.
///
/// # Errors
/// This program cannot be read.
pub(super) fn inputs(sources: &ImageSources, bundle: &Bundle) -> Result<(Digest, Digest)> {
    let program = digest_of(&root::this_program()?)?.0;
    let mut hasher = Hasher::new();
    hasher.update(lock::image_definition_digest(&sources.definition).as_bytes());
    hasher.update(bundle.digest().as_bytes());
    if sources.definition.include.contains(&Part::Bedplate) {
        hasher.update(program.as_bytes());
    }
    Ok((hasher.finish(), program))
}

impl Image<'_> {
    /// Makes the tree: packages, what the profile says, what the definition says. Also says which paths are
    /// configuration. What an earlier build has kept in `work` is used again, unless it is `anew`.
    pub(super) fn tree(
        &self,
        tree: &Arc<Root>,
        work: &Work,
        anew: bool,
    ) -> Result<(Built, BTreeSet<String>)> {
        let context = self.context;
        let progress = context.ui.progress();
        let program = root::this_program()?;
        let packages = self.pinned.lock.host_packages();
        let clock = Shifted::of(&context.env);
        let request = root::Request {
            packages: &packages,
            store: self.store,
            root: tree,
            program: &program,
            architecture: &self.pinned.profile.host.architecture,
            clock: clock.as_ref(),
            threads: threads().get() as usize,
            stand_ins: &[],
            progress: progress.as_ref(),
        };
        let definition = &self.sources.definition;
        let root = definition.disk.is_some().then(|| self.ids().root_partition.to_string());
        let settings = settings::settings(definition, root.as_deref());
        self.refuse_both(&settings)?;
        context.run(async {
            let (mut built, kept) = self.packages(&request, work, anew).await?;
            work::refuse_lacking(tree, &settings::needs(definition), &self.sources.shown)?;
            let begun = Instant::now();
            let before = paths(tree)?;
            let held = provision::hold(tree, "build")?;
            let frame = Frame::default();
            let places = carry::places(context);
            let whole = settings::has_generation(definition);
            let has = |part: Part| definition.include.contains(&part);
            let goal = if whole { Goal::Provision } else { Goal::Bare { program: has(Part::Bedplate) } };
            let pinned = self.baked_in();
            let run = Run::new(context, tree, (self.bundle, &pinned), &frame, places, goal)
                .dated(timestamp(built.time));
            let plan = run.plan().await?;
            plan.refuse()?;
            run.apply(context, &held, &plan).await?;
            drop(held);
            if !whole {
                // The lock that was held lay there.
                tree.remove_tree(STATE)?;
                if has(Part::Profile) {
                    carry::make_state(tree)?;
                    tree.write(settings::BUNDLE, &self.bundle.to_tar(), 0o600, Owner::ROOT)?;
                }
            }
            if !self.images.is_empty() {
                content::into_store(&self.images, &carry::store_of_tree(tree)?, progress.as_ref())?;
            }
            work::put(tree, &settings, built.time)?;
            work::put(tree, &[self.record_in_tree(built.time)?], built.time)?;
            let mut owned: BTreeSet<String> = paths(tree)?.difference(&before).cloned().collect();
            owned.insert(record::IN_TREE.to_owned());
            owned.extend(settings.iter().map(|Setting { path, .. }| format!("/{path}")));
            built.spent.push(("what the profile and the definition say".to_owned(), begun.elapsed()));
            root::finish(&request, &mut built, kept.as_ref()).await?;
            Ok((built, owned))
        })
    }

    /// The tree with its packages configured: the one that is kept of the same packages, or a new one, which is kept.
    async fn packages(
        &self,
        request: &root::Request<'_>,
        work: &Work,
        anew: bool,
    ) -> Result<(Built, Option<Trees>)> {
        let begun = Instant::now();
        let key = kept::key(&self.program, request.packages, request.architecture);
        let taken = if anew { None } else { kept::take(work.above(), key, request.root)? };
        if let Some((mut built, trees)) = taken {
            built.spent.push(("take the packages that are kept".to_owned(), begun.elapsed()));
            return Ok((built, Some(trees)));
        }
        let mut built = root::make(request).await?;
        root::settle(request, &mut built)?;
        let begun = Instant::now();
        let kept = match kept::put(work.above(), key, request.root, &built) {
            Ok(trees) => Some(trees),
            Err(error) => {
                self.context.ui.warn(&format!("nothing is kept for the next build: {error}"));
                None
            }
        };
        built.spent.push(("keep the packages for the next build".to_owned(), begun.elapsed()));
        Ok((built, kept))
    }

    /// The profile without what the definition leaves out.
    fn baked_in(&self) -> Pinned {
        let mut pinned = self.pinned.clone();
        let include = &self.sources.definition.include;
        let profile = &mut pinned.profile;
        if !include.contains(&Part::Files) {
            profile.files.clear();
            profile.mounts.clear();
            profile.kernel.blacklist.clear();
            profile.kernel.options.clear();
            profile.container.daemon.clear();
            profile.container.gpu_access = GpuAccess::None;
        }
        if !include.contains(&Part::Users) {
            profile.users.clear();
        }
        pinned
    }

    /// An error where profile and definition have a say in the same file.
    fn refuse_both(&self, settings: &[Setting]) -> Result<()> {
        let paths = self.pinned.profile.files.iter().map(|file| file.path.as_str());
        for path in paths {
            if settings.iter().any(|setting| path.strip_prefix('/') == Some(setting.path.as_str())) {
                return Err(Error::usage(format!(
                    "`{path}` is in the profile's `[[file]]`, and `{}` has a say in it too",
                    self.sources.shown
                ))
                .hint("take it out of the profile: the image definition's `[hostname]`, `network`, `first-boot` and `[disk]` make it"));
            }
        }
        Ok(())
    }

    /// Writes every form of the tree that the definition asks for.
    pub(super) fn write(
        &self,
        root: &Root,
        mut built: Built,
        owned: &BTreeSet<String>,
        (work, output): (&Work, &Path),
    ) -> Result<Report> {
        let name = self.name();
        // Until all is written, no record says that it is there.
        Root::open(output)?.remove_file(&format!("/{}", record::file_name(&name)))?;
        let begun = Instant::now();
        let tree = Tree::read(Root::open(root.path())?)?;
        built.spent.push(("look at the tree".to_owned(), begun.elapsed()));
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
                ImageFormat::Oci => self.layout(root, &tree, &built, owned, path)?,
                ImageFormat::Disk => self.disk(&tree, &built, work, path)?,
                // Made of the raw disk, below.
                ImageFormat::Qcow2 => continue,
            };
            progress.finished(&task, Some(&format!("{}, {}", text::bytes(piece.bytes), piece.digest)));
            built.spent.push((task, begun.elapsed()));
            parts.insert(format.name().to_owned(), piece);
        }
        if self.sources.definition.formats.contains(&ImageFormat::Qcow2) {
            let begun = Instant::now();
            let (raw, disk) = if let Some(piece) = parts.get(ImageFormat::Disk.name()) {
                (piece.path.clone(), piece.disk)
            } else {
                let piece = self.disk(&tree, &built, work, work.scratch().join("disk"))?;
                (piece.path, piece.disk)
            };
            let path = output.join(format!("{name}.qcow2"));
            disk::qcow2::convert(&raw, &path, disk::qcow2::Compression::Zstd)?;
            parts.insert("qcow2".to_owned(), Piece { disk, ..of_file(path)? });
            built.spent.push(("write qcow2".to_owned(), begun.elapsed()));
        }
        files::write_output(&output.join(sbom::file_name(&name)), &self.sbom(root, built.time)?, 0o644)?;
        let record = self.record(built.time, &parts).write()?;
        files::write_output(&output.join(record::file_name(&name)), record.as_bytes(), 0o644)?;
        let time = timestamp(built.time).to_string();
        let milliseconds = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let spent = built.spent.into_iter().map(|(what, took)| (what, milliseconds(took))).collect();
        Ok(Report { schema: 1, image: name, time, parts, varied: Vec::new(), pushed: Vec::new(), spent })
    }

    fn disk(&self, tree: &Tree, built: &Built, work: &Work, path: PathBuf) -> Result<Piece> {
        let definition = &self.sources.definition;
        let Some(wanted) = &definition.disk else {
            return Err(Error::usage(format!("`{}` has no `[disk]`", self.sources.shown)));
        };
        let kernel = self.pinned.lock.set.as_ref().and_then(|set| set.kernel.as_deref());
        let files = boot::Files::read(tree.root(), kernel)?;
        let ids = self.ids();
        let file_system = match wanted.root {
            RootFileSystem::Ext4 => disk::FileSystem::Ext4,
            RootFileSystem::Erofs => disk::FileSystem::Erofs,
        };
        let parameters = definition.kernel_parameters(&self.pinned.profile);
        let tools = disk::tools::Tools::new(tree.root().path())?.with_clock(Shifted::of(&self.context.env));
        let disk = disk::Disk {
            tree,
            tools: &tools,
            boot: disk::Boot {
                name: &self.name(),
                loader: &files.loader,
                stub: &files.stub,
                parts: disk::uki::Parts {
                    os_release: &files.os_release,
                    command_line: &disk::command_line(&ids, file_system, parameters),
                    release: &files.release,
                    kernel: &files.kernel,
                    initrd: &files.initrd,
                },
            },
            file_system,
            // A mebibyte each for the partition tables before and behind.
            sizes: disk::Sizes { esp: wanted.esp_mib, root: wanted.size_mib - wanted.esp_mib - 2 },
            ids,
            time: built.time,
        };
        let written = self.context.run(disk::write_raw(&disk, &path, work.scratch()))?;
        let disk::Written { esp, uki: kernel, root, .. } = written;
        Ok(Piece { disk: Some(record::Disk { esp, kernel, root }), ..file(path, written.disk) })
    }

    /// Identifiers of partitions and file systems: the lock's.
    fn ids(&self) -> disk::ids::Ids {
        disk::ids::Ids::new(&self.pinned.lock_digest)
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
        let images = self.images.blobs().map(|blob| blob.digest);
        let groups =
            Groups::of(root, &self.pinned.lock.host_packages(), owned.iter().cloned(), &times, images)?;
        let layers = layers::split(tree.entries(), &|path| groups.owner(path));
        let options = oci::Options {
            name: self.name(),
            created: built.time,
            architecture: self.pinned.profile.host.architecture.clone(),
            compression: Compression::Gzip,
            threads: threads(),
            newest: groups.newest().clone(),
            annotations: BTreeMap::from([("dev.bedplate.inputs".to_owned(), self.inputs.to_string())]),
        };
        let image = oci::write(tree, &layers, &options, &path)?;
        let bytes = image.download();
        let layers = image
            .layers
            .iter()
            .map(|layer| (layer.group.name(), layer.blob.digest, layer.blob.size))
            .collect();
        let layout = record::Oci {
            manifest: image.manifest,
            config: image.config,
            layers: image.layers.iter().map(|layer| layer.blob).collect(),
        };
        Ok(Piece { path, digest: image.manifest.digest, bytes, layers, layout: Some(layout), disk: None })
    }

    /// Whether the image is in `output` already, made from the same: its record says so, each part is there in its size,
    /// and none was changed after the record, which is written last.
    pub(super) fn is_built(&self, output: &Path) -> bool {
        let path = output.join(record::file_name(&self.name()));
        let Ok(text) = files::read_text(&path, record::MAX_SIZE) else { return false };
        let Ok(Record { inputs, program, parts: Some(parts), .. }) =
            record::parse(&path.to_string_lossy(), &text)
        else {
            return false;
        };
        let formats = &self.sources.definition.formats;
        let Some(made) = modified(&path) else { return false };
        let in_place = |path: &Path, size: u64| {
            files::open_input(path).is_ok_and(|(_, there)| there == size)
                && modified(path).is_some_and(|modified| modified <= made)
        };
        let whole = |(name, part): (&String, &record::Part)| in_place(&output.join(name), part.size);
        let count = parts.files.len() + usize::from(parts.oci.is_some());
        let layout = parts.oci.as_ref().is_none_or(|oci| {
            let layout = self.layout_in(output);
            let mut blobs = oci.layers.iter().chain([&oci.manifest, &oci.config]);
            let blob = |part: &record::Part| layout.join("blobs/sha256").join(part.digest.hex());
            layout_digest(&layout) == Some(oci.manifest.digest)
                && blobs.all(|part| in_place(&blob(part), part.size))
        });
        let sbom = modified(&output.join(sbom::file_name(&self.name()))).is_some_and(|time| time <= made);
        let made_of_this = inputs == self.inputs && program == Some(self.program);
        made_of_this && count == formats.len() && layout && sbom && parts.files.iter().all(whole)
    }

    /// Where its image layout is written.
    pub(super) fn layout_in(&self, output: &Path) -> PathBuf {
        output.join(format!("{}.{}", self.name(), ImageFormat::Oci.name()))
    }

    /// What the image was made from, and its parts.
    fn record(&self, time: i64, parts: &BTreeMap<String, Piece>) -> Record {
        let part = |piece: &Piece| record::Part { digest: piece.digest, size: piece.bytes };
        let name = |piece: &Piece| Some(piece.path.file_name()?.to_string_lossy().into_owned());
        let files = parts.values().filter(|piece| piece.layers.is_empty());
        let layout = parts.values().find_map(|piece| piece.layout.clone());
        Record {
            schema: record::SCHEMA,
            image: self.name(),
            definition: lock::image_definition_digest(&self.sources.definition),
            lock: self.pinned.lock_digest,
            inputs: self.inputs,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            program: Some(self.program),
            time,
            modules: self.modules(),
            parts: Some(record::Parts {
                files: files.filter_map(|piece| Some((name(piece)?, part(piece)))).collect(),
                oci: layout,
                disk: parts.values().find_map(|piece| piece.disk),
            }),
        }
    }

    /// The driver's modules of the lock, by the kernel's release.
    fn modules(&self) -> BTreeMap<String, record::Modules> {
        let lock = &self.pinned.lock;
        let set = lock.set.as_ref().and_then(|set| Some((set.kernel.clone()?, set.driver.clone()?)));
        let (Some((release, driver)), Some(modules)) = (set, &lock.modules) else { return BTreeMap::new() };
        let package = record::Part { digest: modules.package.sha256, size: modules.package.size };
        BTreeMap::from([(release, record::Modules { driver, package })])
    }

    fn record_in_tree(&self, time: i64) -> Result<Setting> {
        let text = self.record(time, &BTreeMap::new()).in_tree().write()?;
        let path = record::IN_TREE.trim_start_matches('/').to_owned();
        Ok(Setting { path, content: settings::Content::Text(text) })
    }

    /// The SBOM, with the maintainers that dpkg's database of the tree names.
    fn sbom(&self, root: &Root, time: i64) -> Result<Vec<u8>> {
        let host = &self.pinned.profile.host;
        sbom::spdx(&sbom::Subject {
            lock: &self.pinned.lock,
            image: &self.name(),
            distribution: host.distribution.id(),
            release: &host.release,
            time,
            tool: env!("CARGO_PKG_VERSION"),
            maintainers: &root::maintainers(root)?,
        })
    }

    /// The definition's name: that of its file.
    pub(super) fn name(&self) -> String {
        self.sources.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }
}

fn timestamp(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap_or_default()
}

fn archive(tree: &Tree, path: PathBuf, compression: Compression) -> Result<Piece> {
    let stored = tar::save(tree, &path, compression, threads())?.stored;
    Ok(file(path, stored))
}

/// Every path of a tree, from `/` on.
fn paths(root: &Root) -> Result<BTreeSet<String>> {
    Ok(root.census()?.into_iter().map(|found| format!("/{}", found.path)).collect())
}

/// How many threads there is use for. It changes nothing in what is written.
pub(super) fn threads() -> NonZero<u32> {
    let count = std::thread::available_parallelism().map_or(1, NonZero::get);
    NonZero::new(u32::try_from(count).unwrap_or(1)).unwrap_or(NonZero::<u32>::MIN)
}

/// When a file was last written.
fn modified(path: &Path) -> Option<SystemTime> {
    files::open_input(path).ok()?.0.metadata().ok()?.modified().ok()
}

/// The digest of the image that the layout in a directory has.
fn layout_digest(path: &Path) -> Option<Digest> {
    let index = files::read_text(&path.join("index.json"), INDEX).ok()?;
    let index: serde_json::Value = serde_json::from_str(&index).ok()?;
    index["manifests"][0]["digest"].as_str()?.parse().ok()
}

/// The digest of a file, and its size in bytes.
fn digest_of(path: &Path) -> Result<(Digest, u64)> {
    let (file, _) = files::open_input(path)?;
    Digest::of_reader(signals::Heard(file)).doing(|| format!("reading `{}`", path.display()))
}

/// A file that was written, by its content.
fn of_file(path: PathBuf) -> Result<Piece> {
    let (digest, size) = digest_of(&path)?;
    Ok(file(path, Written { digest, size }))
}

fn file(path: PathBuf, Written { digest, size }: Written) -> Piece {
    Piece { path, digest, bytes: size, layers: Vec::new(), layout: None, disk: None }
}
