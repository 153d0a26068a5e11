//! What travels with a profile: a bundle's content, or packages and images gathered here.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::mpsc;
use url::Url;

use super::{Context, archives, inputs, inputs::Sources, registries, subject};
use crate::{
    apt::download,
    error::{Doing as _, Error, Result},
    fleet::{
        ssh,
        wire::{Carries, Lacks, Options, Request},
    },
    host::{
        content::{self, Content, Named, Places},
        layout,
        secrets::Frame,
    },
    lock::{
        LockedImage, LockedPackage,
        bundle::{Bundle, Pinned, carried::begins_bundle},
        modules::BUILT,
    },
    profile::Profile,
    progress::{Progress, Unit},
    store::Store,
    system::{
        files::{self, Owner, Root},
        pipe::Pipe,
    },
    ui::text,
};

/// Pieces that wait for a slow connection.
const WAITING: usize = 16;

/// What a verb was given to bring a host to: a profile with its lock, or a bundle.
pub struct Given {
    /// As a bundle.
    pub bundle: Bundle,
    /// What it says.
    pub pinned: Pinned,
    /// Where relative paths of secrets start from: the profile's directory, or the bundle's.
    pub directory: PathBuf,
    /// Where paths of image layouts start from; none for a bundle, which was made elsewhere.
    pub layouts: Option<PathBuf>,
    /// What the bundle carries.
    pub content: Content,
}

impl Given {
    /// Reads the bundle `named`, or the profile found by that name, with its lock.
    ///
    /// # Errors
    /// There is none; it is broken; its lock is stale; a bundle carries what its lock does not name.
    pub fn find(context: &Context, named: Option<&str>) -> Result<Self> {
        let directory = |path: &Path| path.parent().unwrap_or(Path::new(".")).to_owned();
        if let Some(named) = named
            && let path = context.path(Path::new(named))
            && is_bundle(&path)?
        {
            let (bundle, content) = content::open_archive(&path)?;
            let pinned = bundle.open()?;
            inputs::refuse_stale(&pinned, named)?;
            content.refuse_other(&Named::of(&pinned.lock))?;
            return Ok(Self { bundle, pinned, directory: directory(&path), layouts: None, content });
        }
        let sources = Sources::read(context, named)?;
        let (bundle, pinned) = sources.pinned(context)?;
        let directory = sources.directory().to_owned();
        Ok(Self { bundle, pinned, layouts: Some(directory.clone()), directory, content: Content::default() })
    }

    /// What it carries, by kind.
    pub fn carries(&self) -> Carries {
        let named = Named::of(&self.pinned.lock);
        Carries {
            packages: named.packages().any(|digest| self.content.has(&digest)),
            images: named.images().any(|digest| self.content.has(&digest)),
        }
    }

    /// Puts what the host or tree beneath `root` lacks of the content where it is looked for: into the store; of a
    /// tree, images into the tree's own, for its first boot. A dry run puts nothing, and only says what would be there.
    ///
    /// # Errors
    /// Too little room, content that is not what its digest says.
    pub fn put(&mut self, context: &Context, root: &Root, dry_run: bool) -> Result<Places> {
        let mut places = Places {
            layouts: self.layouts.clone(),
            ..Places { store: Some(context.store.clone()), ..Places::default() }
        };
        if self.content.is_empty() {
            return Ok(places);
        }
        let lock = &self.pinned.lock;
        let socket = docker_socket(context);
        let lacks =
            context.run(content::lacking(lock, &context.store, root.is_host().then_some(socket.as_str())))?;
        let named = Named::of(lock);
        let progress = context.ui.progress();
        if !root.is_host() && !dry_run {
            let mut images = self.content.clone();
            images.only(&named.images().collect());
            if !images.is_empty() {
                content::into_store(&images, &store_of_tree(root)?, progress.as_ref())?;
            }
            self.content.only(&named.packages().collect());
        }
        self.content.only(&lacks);
        if dry_run {
            places.coming = self.content.blobs().map(|blob| blob.digest).collect();
        } else if !self.content.is_empty() {
            content::into_store(&self.content, &Store::open(&context.store)?, progress.as_ref())?;
        }
        Ok(places)
    }
}

/// Where the Docker daemon listens.
pub fn docker_socket(context: &Context) -> String {
    subject::docker_socket(context).unwrap_or_else(|| layout::DOCKER_SOCKET.to_owned())
}

/// Where content is looked for on this host, without a profile at hand.
pub fn places(context: &Context) -> Places {
    Places { store: Some(context.store.clone()), ..Places::default() }
}

/// A tree's directory of bedplate's state, made without following a link in the tree.
///
/// # Errors
/// It cannot be made.
pub fn make_state(root: &Root) -> Result<()> {
    for (path, mode) in [("/var", 0o755), ("/var/lib", 0o755), (layout::STATE, 0o700)] {
        if root.stat(path)?.is_none() {
            root.make_dir(path, mode, Owner::current())?;
        }
    }
    Ok(())
}

/// The tree's own store, made without following a link in the tree.
///
/// # Errors
/// It cannot be made.
pub fn store_of_tree(root: &Root) -> Result<Store> {
    make_state(root)?;
    if root.stat(layout::STORE)?.is_none() {
        root.make_dir(layout::STORE, 0o700, Owner::current())?;
    }
    Store::open(&root.path().join(layout::STORE.trim_start_matches('/')))
}

/// Whether a bundle lies at `path`, and no profile.
fn is_bundle(path: &Path) -> Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let (file, _) = files::open_input(path)?;
    let mut start = Vec::new();
    file.take(512).read_to_end(&mut start).doing(|| format!("reading `{}`", path.display()))?;
    if begins_bundle(&start) {
        return Ok(true);
    }
    if start.contains(&0) {
        return Err(Error::failed(format!("`{}` is neither a profile nor a whole bundle", path.display()))
            .hint("copy it again, or make it again with `bedplate bundle`"));
    }
    Ok(false)
}

/// Adds what the lock names of these kinds to `content`: from the store, else fetched into it. `directory`: where paths
/// of image layouts start from.
///
/// # Errors
/// Something that cannot be had.
pub fn gather(
    context: &Context,
    pinned: &Pinned,
    directory: &Path,
    kinds: Carries,
    content: &mut Content,
) -> Result<()> {
    let lock = &pinned.lock;
    if kinds.packages {
        if lock.modules.as_ref().is_some_and(|modules| !content.has(&modules.package.sha256)) {
            super::modules::have(context, pinned)?;
        }
        packages(context, &pinned.profile, &lock.host_packages(), content)?;
    }
    let images: BTreeMap<String, LockedImage> = lock
        .images
        .iter()
        .filter(|(_, image)| kinds.images && content::blobs_of(image).any(|digest| !content.has(&digest)))
        .map(|(key, image)| (key.clone(), image.clone()))
        .collect();
    if images.is_empty() {
        return Ok(());
    }
    let store = Arc::new(Store::open(&context.store)?);
    let progress = context.ui.progress();
    let client = registries::client(context);
    context.run(content::fetch_images(&store, &images, &client, directory, progress.as_ref()))?;
    content.add(&store, images.values().flat_map(content::blobs_of))
}

/// Adds packages to `content`: from the store, else fetched into it.
///
/// # Errors
/// One that cannot be had.
pub fn packages(
    context: &Context,
    profile: &Profile,
    packages: &[LockedPackage],
    content: &mut Content,
) -> Result<()> {
    let lacking: Vec<&LockedPackage> =
        packages.iter().filter(|package| !content.has(&package.sha256)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let store = Arc::new(Store::open(&context.store)?);
    let progress = context.ui.progress();
    let places = archives::places(context, profile, None)?;
    let asked: Vec<download::Wanted> = lacking.iter().map(|package| wanted(package, &places)).collect();
    let mirrors = archives::transport(context);
    context.run(download::fetch(&store, &asked, &mirrors, progress.as_ref()))?;
    content.add(&store, lacking.iter().map(|package| package.sha256))
}

/// A package as it is asked for.
fn wanted(package: &LockedPackage, places: &BTreeMap<String, Vec<Url>>) -> download::Wanted {
    download::Wanted {
        sha256: package.sha256,
        size: package.size,
        path: package.path.clone(),
        uris: places.get(&package.repository).cloned().unwrap_or_default(),
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        is_built: package.repository == BUILT,
    }
}

/// Asks a host what it lacks, and leaves in `content` only that.
///
/// # Errors
/// The host does not say.
pub async fn leave_out_what_is_there(
    context: &Context,
    host: &ssh::Host,
    installed: &ssh::Installed,
    bundle: &Bundle,
    content: &mut Content,
    progress: &dyn Progress,
) -> Result<()> {
    let ask =
        Request { bundle: bundle.clone(), options: Options::default(), frame: Frame::default(), content: 0 };
    let answer = std::cell::RefCell::new(String::new());
    let code = host
        .bedplate(
            installed,
            "receive --lacks --remote-progress",
            &ask.to_bytes()?,
            None,
            |out| {
                answer.borrow_mut().push_str(out);
                Ok(())
            },
            |line| crate::ui::progress::relay(line, progress),
        )
        .await?;
    if code != 0 {
        return Err(Error::failed("the host could not say what it lacks").hint("what it says is above"));
    }
    content.only(&Lacks::read(&answer.into_inner())?.lacks);
    let size = content.size();
    context.ui.say(&if content.is_empty() {
        "the host has all packages and images already".to_owned()
    } else {
        format!(
            "the host lacks {}: {} to send",
            text::count(content.blobs().count(), "file"),
            text::bytes(size)
        )
    });
    Ok(())
}

/// The content as pieces for a host, written on a thread of its own; an error ends them.
pub fn pieces(content: Content, progress: Arc<dyn Progress>) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        const TASK: &str = "sending";
        progress.started(TASK, Some(content.size()), Unit::Bytes);
        let mut pipe = Pipe::new(sender.clone());
        let written = content
            .write(&mut |piece| pipe.write_all(piece).doing(|| "sending content"), |done| {
                progress.advanced(TASK, done, None);
            })
            .and_then(|()| pipe.flush().doing(|| "sending content"));
        match written {
            Ok(()) => progress.finished(TASK, Some(&text::bytes(content.size()))),
            // Nobody listens any more where the host ended early: it says why.
            Err(error) => drop(sender.blocking_send(Err(error))),
        }
    });
    receiver
}
