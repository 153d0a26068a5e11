//! Reads all sources side by side, each within its time limit.

use std::{
    any::{Any as _, TypeId},
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use secrecy::SecretString;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::timeout,
};

use super::{
    awaited::Awaited,
    basics::{self, known, one_line},
    cdi,
    data::{Facts, Known, Listener, Nvml, Resolution, SecretState},
    docker::{self, FromDocker},
    fabric, gpu, kernel_log, model,
    models::{self, Said, complete},
    nodes,
    rest::Rest,
    tree::Tree,
    volume,
    wanted::{ModelAt, Wanted},
};
use crate::{
    error::Result,
    gpu::{Health, Library},
    system::{clock, files::Root, network, users::Users},
};

/// Where facts come from. Nothing is taken from the environment: the caller passes what it holds.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The host's tree: `/`.
    pub root: Arc<Root>,
    /// The Docker daemon's socket.
    pub docker_socket: String,
    /// The NVML library, where it is not the driver's own.
    pub nvml_library: Option<PathBuf>,
    /// Docker's client configuration on this host.
    pub docker_config: Option<String>,
    /// Directory of the secrets handed to this host.
    pub secrets_dir: String,
    /// What the caller knows of secrets that are not on this host yet, by name.
    pub secrets: BTreeMap<String, SecretState>,
    /// The hub's tokens that the caller holds, by secret name. Else the one in `secrets_dir` is used.
    pub tokens: BTreeMap<String, SecretString>,
    /// How long a source on this host may take.
    pub limit: Duration,
    /// How long a name server or the hub may take.
    pub network_limit: Duration,
    /// Those that are asked now, for who wants to say so.
    pub awaited: Awaited,
    /// Those that were asked and have not answered.
    hanging: Hanging,
}

impl Sources {
    /// The usual places of a host.
    pub fn of(root: Arc<Root>) -> Self {
        Self {
            root,
            docker_socket: crate::docker::DEFAULT_SOCKET.to_owned(),
            nvml_library: None,
            docker_config: Some("/root/.docker/config.json".to_owned()),
            secrets_dir: "/run/bedplate/secrets".to_owned(),
            secrets: BTreeMap::new(),
            tokens: BTreeMap::new(),
            limit: Duration::from_secs(10),
            network_limit: Duration::from_secs(10),
            awaited: Awaited::default(),
            hanging: Hanging::default(),
        }
    }
}

/// Which look it is: its code, since several sources may go by one name, and what it was told apart by.
type Look = (TypeId, String);

/// Looks that nobody waits for any more and that have not come back: the thread of each, and which look it is.
#[derive(Debug, Clone, Default)]
struct Hanging(Arc<Mutex<Vec<(ThreadId, Look)>>>);

impl Hanging {
    fn list(&self) -> MutexGuard<'_, Vec<(ThreadId, Look)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the look of the thread it is dropped on off the list.
struct Returned(Hanging);

impl Drop for Returned {
    fn drop(&mut self) {
        let own = thread::current().id();
        self.0.list().retain(|(thread, _)| *thread != own);
    }
}

/// Runs a blocking look on a thread of its own, which may hang without holding up the program's end. While one hangs, the
/// same look is not begun again: whoever looks again and again would gather threads without end.
pub(super) async fn aside<T: Send + 'static>(
    sources: &Sources,
    what: &str,
    look: impl FnOnce() -> Result<T> + Send + 'static,
) -> Known<T> {
    let this = (look.type_id(), what.to_owned());
    let (limit, hanging) = (sources.limit, &sources.hanging);
    if hanging.list().iter().any(|(_, other)| *other == this) {
        return Known::unknown(format!("{what} has not answered since an earlier look"));
    }
    let _asked = sources.awaited.ask(what.trim_end_matches(','));
    let (tell, mut answer) = oneshot::channel();
    let returned = Returned(hanging.clone());
    let started = thread::Builder::new().name("facts".to_owned()).spawn(move || {
        let _returned = returned;
        // Dropped before the other, also where the look panics: what is on the list comes off it.
        let to = tell;
        let found = look();
        // Nobody waits any more when the time is up.
        let _ = to.send(found);
    });
    let thread = match started {
        Ok(thread) => thread.thread().id(),
        Err(error) => return Known::unknown(format!("starting a thread: {error}")),
    };
    let answered = match timeout(limit, &mut answer).await {
        Ok(answered) => answered.map_err(|_| TryRecvError::Closed),
        Err(_) => give_up(&mut answer, hanging, thread, this),
    };
    match answered {
        Ok(found) => known(found),
        Err(TryRecvError::Closed) => Known::unknown(format!("{what} ended without an answer")),
        Err(TryRecvError::Empty) => {
            Known::unknown(format!("{what} did not answer within {} s", limit.as_secs_f32()))
        }
    }
}

/// Takes an answer that came at the last moment; else puts the look on the list, from which its thread takes it.
fn give_up<T>(
    answer: &mut oneshot::Receiver<T>,
    hanging: &Hanging,
    thread: ThreadId,
    look: Look,
) -> Result<T, TryRecvError> {
    // While this holds the list, a thread that has not answered yet cannot take itself off it.
    let mut hanging = hanging.list();
    let answered = answer.try_recv();
    if let Err(TryRecvError::Empty) = answered {
        hanging.push((thread, look));
    }
    answered
}

/// What the tree alone says; read in one go on one thread.
#[derive(Default)]
struct FromTree {
    facts: Facts,
    local: BTreeMap<String, Known<Option<model::Found>>>,
}

/// Gathers what is wanted.
pub async fn gather(wanted: &Wanted, sources: &Sources) -> Facts {
    // All sources at once make a future that is too large to be held by value.
    Box::pin(everything(wanted, sources)).await
}

async fn everything(wanted: &Wanted, sources: &Sources) -> Facts {
    let tree = Tree::new(Arc::clone(&sources.root));
    let limit = sources.limit;
    let from_tree = {
        let (tree, wanted, own) = (tree.clone(), wanted.clone(), sources.clone());
        aside(sources, "the file system", move || Ok(read_tree(&tree, &wanted, &own)))
    };
    let pci = when(wanted.gpus, {
        let tree = tree.clone();
        aside(sources, "sysfs", move || gpu::pci(&tree))
    });
    let module = when(wanted.gpus, {
        let tree = tree.clone();
        aside(sources, "the module's files", move || gpu::module(&tree, &basics::kernel().release))
    });
    let user_space = when(wanted.gpus, {
        let (tree, library) = (tree.clone(), sources.nvml_library.clone());
        aside(sources, "the library's files", move || {
            gpu::user_space(&tree, library.as_deref().and_then(std::path::Path::to_str))
        })
    });
    let nvml = when(wanted.gpus, {
        let library = sources.nvml_library.clone();
        aside(sources, "NVML", move || gpu::nvml(library.as_deref()))
    });
    let fabric = when(wanted.gpus, {
        let tree = tree.clone();
        aside(sources, "what is known of Fabric Manager", move || fabric::read(&tree))
    });
    let kernel_log = when(wanted.gpus, {
        let tree = tree.clone();
        aside(sources, "the kernel's log", move || kernel_log::read(&tree))
    });
    let specs = when(wanted.gpus && wanted.cdi, {
        let tree = tree.clone();
        aside(sources, "the CDI specifications", move || cdi::specs(&tree))
    });
    let listeners = {
        let ports: BTreeSet<u16> = wanted.ports().map(|(_, _, port)| port.host_port).collect();
        aside(sources, "`/proc/net`", move || listeners(&ports))
    };
    let daemon = async {
        let _asked = sources.awaited.ask("Docker");
        timeout(limit, docker::ask(&tree, &sources.docker_socket, wanted)).await.unwrap_or_else(|_| {
            let why = format!("Docker did not answer within {} s", limit.as_secs_f32());
            FromDocker {
                daemon: Known::unknown(&*why),
                images: wanted.images.keys().map(|name| (name.clone(), Known::unknown(&*why))).collect(),
                details: Known::unknown(&*why),
                published: Known::unknown(&*why),
                containers: Known::unknown(why),
            }
        })
    };
    let rest = Box::pin(Rest::gather(wanted, sources));
    let (from_tree, pci, module, user_space, nvml, fabric, kernel_log, cdi, listeners, daemon, rest) = tokio::join!(
        from_tree, pci, module, user_space, nvml, fabric, kernel_log, specs, listeners, daemon, rest
    );
    let FromTree { mut facts, local } = match from_tree {
        Known::Ok(read) => read,
        Known::Unknown { why } => FromTree { facts: nothing_read(&why), local: BTreeMap::new() },
    };
    facts.pci = pci;
    facts.module = module;
    facts.user_space = user_space;
    let library;
    (facts.nvml, library) = match nvml {
        Known::Ok((nvml, library)) => (Known::Ok(nvml), library),
        Known::Unknown { why } => (Known::Unknown { why }, None),
    };
    facts.fabric = fabric;
    facts.kernel_log = kernel_log;
    facts.at = Known::Ok(clock::now());
    facts.cdi = cdi;
    facts.listeners = listeners;
    facts.docker = daemon.daemon;
    facts.images = daemon.images;
    facts.containers = daemon.containers;
    facts.published = daemon.published;
    facts.engine = daemon.details;
    rest.into(&mut facts);
    for deployment in &wanted.deployments {
        let found = local.get(&deployment.name).cloned().unwrap_or_default();
        *facts.models.entry(deployment.name.clone()).or_default() = models::on_host(found);
    }
    let (nodes, health) = tokio::join!(
        // NVML, asked by root, makes nodes that are missing: what is missing now stays so.
        when(wanted.gpus, {
            let tree = tree.clone();
            aside(sources, "`/dev`", move || nodes::read(&tree))
        }),
        health(library, &facts, sources),
    );
    (facts.nodes, facts.health) = (nodes, health);
    Box::pin(second(wanted, sources, &tree, &mut facts)).await;
    facts
}

/// How each GPU is, each asked on a thread of its own: one that hangs makes only what is said of it unknown.
async fn health(library: Option<Library>, facts: &Facts, sources: &Sources) -> BTreeMap<u32, Known<Health>> {
    let (Some(library), Known::Ok(Nvml::Answers(gpus))) = (library, &facts.nvml) else {
        return BTreeMap::new();
    };
    let looks = gpus.devices.iter().map(async |gpu| {
        let (index, library) = (gpu.index, library.clone());
        let what = format!("NVML, asked about GPU {index},");
        (index, aside(sources, &what, move || gpu::health(&library, index)).await)
    });
    futures_util::future::join_all(looks).await.into_iter().collect()
}

/// What can only be looked at when the first sources have answered.
async fn second(wanted: &Wanted, sources: &Sources, tree: &Tree, facts: &mut Facts) {
    let root = facts.image_root().to_owned();
    let places: BTreeSet<String> =
        wanted.deployments.iter().map(|deployment| deployment.cache.clone()).chain([root]).collect();
    let volumes: BTreeSet<String> =
        places.iter().chain(&wanted.host.mounts).cloned().chain(["/".to_owned()]).collect();
    let space = {
        let tree = tree.clone();
        aside(sources, "the file system", move || {
            let space = places.into_iter().map(|path| (path.clone(), known(basics::space(&tree, &path))));
            let space: BTreeMap<_, _> = space.collect();
            let volumes = volumes.into_iter().map(|path| (path.clone(), known(volume::volume(&tree, &path))));
            Ok((space, volumes.collect::<BTreeMap<_, _>>()))
        })
    };
    let names = names(wanted, facts);
    let names = futures_util::future::join_all(names.into_iter().map(async |name| {
        let _asked = sources.awaited.ask(&format!("the address of `{name}`"));
        let found = match network::resolve(&name, sources.network_limit).await {
            Ok(addresses) => Resolution::Addresses(addresses),
            Err(error) => Resolution::Failed(one_line(&error)),
        };
        (name, Known::Ok(found))
    }));
    let hubs = futures_util::future::join_all(wanted.deployments.iter().map(async |deployment| {
        let model = facts.models.get(&deployment.name);
        let here = model.and_then(|model| model.local.ok()).is_some_and(|local| complete(local.as_ref()));
        let said = if deployment.model_at != ModelAt::Hub || (here && !wanted.hf_token) {
            Said { hub: Known::unknown("nothing must be asked of the hub"), described: None }
        } else {
            models::ask_hub(sources, tree, wanted, deployment, !here).await
        };
        (deployment.name.clone(), said)
    }));
    let (space, names, hubs): (_, _, Vec<(String, Said)>) = tokio::join!(space, names, hubs);
    // Where nothing came back, no path has an entry: nobody looked.
    (facts.space, facts.volumes) = match space {
        Known::Ok(both) => both,
        Known::Unknown { .. } => Default::default(),
    };
    facts.names = names.into_iter().collect();
    for (name, said) in hubs {
        let model = facts.models.entry(name).or_default();
        model.hub = said.hub;
        // What lies on the host is what the engine will load.
        if let Some((shape, weights)) = said.described {
            if model.shape.ok().is_none() {
                model.shape = shape;
            }
            if model.weights.ok().is_none() {
                model.weights = weights;
            }
        }
    }
}

/// Names that must resolve: registries of images that are not here, the hub where a model is not.
fn names(wanted: &Wanted, facts: &Facts) -> BTreeSet<String> {
    let mut names = wanted.names.clone();
    names.extend(super::need::registries(&super::need::images(wanted, facts)).into_keys());
    if !super::need::models(wanted, facts).is_empty() {
        names.extend(wanted.hub_host());
    }
    // An address needs no resolver.
    names.retain(|name| name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err());
    names
}

pub(super) async fn when<T>(wanted: bool, look: impl Future<Output = Known<T>>) -> Known<T> {
    if wanted { look.await } else { Known::unknown("nothing was asked for") }
}

/// Sockets that take connections. The process is looked for where a wanted port is taken, and where others can reach it.
fn listeners(ports: &BTreeSet<u16>) -> Result<Vec<Listener>> {
    let found = network::listeners_naming(|at| !at.ip().is_loopback() || ports.contains(&at.port()))?;
    Ok(found
        .into_iter()
        .map(|listener| Listener {
            protocol: match listener.protocol {
                network::Protocol::Tcp => "tcp".to_owned(),
                network::Protocol::Udp => "udp".to_owned(),
            },
            address: listener.address.ip(),
            port: listener.address.port(),
            process: listener.process.map(|process| format!("{} (pid {})", process.name, process.id)),
        })
        .collect())
}

fn nothing_read(why: &str) -> Facts {
    Facts {
        os: Known::unknown(why),
        kernel: Known::unknown(why),
        boot_id: Known::unknown(why),
        memory: Known::unknown(why),
        shm: Known::unknown(why),
        docker_config: Known::unknown(why),
        daemon_json: Known::unknown(why),
        ..Facts::default()
    }
}

fn read_tree(tree: &Tree, wanted: &Wanted, sources: &Sources) -> FromTree {
    let users = Users::read(tree.root());
    let state = |path: &str| match &users {
        Ok(users) => known(basics::path_state(tree, users, path)),
        Err(error) => Known::unknown(one_line(error)),
    };
    let mut facts = Facts {
        os: known(basics::os(tree)),
        kernel: Known::Ok(basics::kernel()),
        boot_id: known(basics::boot_id(tree)),
        memory: known(basics::memory(tree)),
        shm: known(basics::space(tree, "/dev/shm")),
        daemon_json: known(basics::daemon_json(tree)),
        docker_config: match (&sources.docker_config, &users) {
            (None, _) => Known::Ok(None),
            (Some(path), Ok(users)) => known(basics::docker_config(tree, users, path)),
            (Some(_), Err(error)) => Known::unknown(one_line(error)),
        },
        ..Facts::default()
    };
    let mut private = wanted.private.clone();
    private.extend(wanted.secrets.values().flatten().cloned());
    match tree.root().stat(&sources.secrets_dir) {
        Ok(None) => {}
        _ => {
            private.insert(sources.secrets_dir.clone());
        }
    }
    match tree.list(&sources.secrets_dir) {
        Ok(entries) => {
            private.extend(entries.iter().map(|entry| format!("{}/{}", sources.secrets_dir, entry.name)));
        }
        Err(error) => {
            facts.paths.insert(format!("{}/*", sources.secrets_dir), Known::unknown(one_line(&error)));
        }
    }
    let above: BTreeSet<&str> = private.iter().flat_map(|path| basics::above(path)).collect();
    facts.parents = above.into_iter().map(|path| (path.to_owned(), state(path))).collect();
    facts.paths.extend(private.into_iter().map(|path| {
        let state = state(&path);
        (path, state)
    }));
    let needed = wanted.deployments.iter().flat_map(|deployment| deployment.secrets.keys());
    for name in wanted.secrets.keys().chain(needed) {
        facts.secrets.insert(name.clone(), secret(tree, wanted, sources, name));
    }
    let mut local = BTreeMap::new();
    for deployment in &wanted.deployments {
        let cache = &deployment.cache;
        facts.caches.insert(cache.clone(), known(model::cache(tree, cache)));
        let found = match &deployment.model_at {
            ModelAt::Hub => known(model::in_cache(tree, cache, &deployment.model)),
            ModelAt::Host(path) => known(model::in_directory(tree, path)),
            ModelAt::Container => Known::unknown("the model is at a path inside the container"),
        };
        local.insert(deployment.name.clone(), found);
    }
    FromTree { facts, local }
}

/// Where a secret is, without its value: handed over already, known to the caller, or in its file.
fn secret(tree: &Tree, wanted: &Wanted, sources: &Sources, name: &str) -> Known<SecretState> {
    if name.contains('/') {
        return Known::Ok(SecretState::Absent("its name holds a `/`".to_owned()));
    }
    let handed = known(basics::secret_file(tree, &format!("{}/{name}", sources.secrets_dir)));
    if let Known::Ok(SecretState::Present(_)) = handed {
        return handed;
    }
    if let Some(state) = sources.secrets.get(name) {
        return Known::Ok(state.clone());
    }
    match wanted.secrets.get(name) {
        None => Known::Ok(SecretState::Absent("the profile's `[secrets]` does not name it".to_owned())),
        Some(None) => handed,
        Some(Some(path)) => match known(basics::secret_file(tree, path)) {
            found @ Known::Ok(SecretState::Present(_)) => found,
            found if matches!(handed, Known::Ok(_)) => found,
            _ => handed,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::error::Error;

    fn within(limit: Duration) -> Sources {
        let root = Arc::new(Root::open(std::path::Path::new("/")).unwrap());
        Sources { limit, ..Sources::of(root) }
    }

    #[tokio::test]
    async fn a_source_that_hangs_makes_only_its_facts_unknown() {
        let (hasty, patient) = (within(Duration::from_millis(20)), within(Duration::from_secs(5)));
        let slow = aside(&hasty, "the disk", || {
            std::thread::sleep(Duration::from_secs(5));
            Ok(1)
        });
        let quick = aside(&patient, "the kernel", || Ok(2));
        let failing = aside::<u8>(&patient, "the bus", || Err(Error::failed("no bus")));
        let (slow, quick, failing) = tokio::join!(slow, quick, failing);
        assert_eq!(slow, Known::unknown("the disk did not answer within 0.02 s"));
        assert_eq!(quick, Known::Ok(2));
        assert_eq!(failing, Known::unknown("no bus"));
    }

    /// A source that answers when the other end of `gate` is dropped.
    async fn gated(sources: &Sources, gate: mpsc::Receiver<()>) -> Known<u8> {
        let look = move || {
            let _ = gate.recv();
            Ok(1)
        };
        aside(sources, "the share", look).await
    }

    #[tokio::test]
    async fn a_source_that_still_hangs_is_not_asked_again() {
        const LONG: Duration = Duration::from_secs(20);
        let quick = within(Duration::from_millis(20));
        let slow = Sources { limit: LONG, ..quick.clone() };
        let (hold, gate) = mpsc::channel();
        let first = gated(&quick, gate).await;
        assert_eq!(first, Known::unknown("the share did not answer within 0.02 s"));
        let open = || mpsc::channel().1;
        let second = gated(&slow, open()).await;
        assert_eq!(second, Known::unknown("the share has not answered since an earlier look"));
        // Another source of that name is another source.
        assert_eq!(aside(&slow, "the share", || Ok(2)).await, Known::Ok(2));
        drop(hold);
        let again = async {
            loop {
                match gated(&slow, open()).await {
                    Known::Ok(found) => break found,
                    Known::Unknown { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        assert_eq!(timeout(LONG, again).await.unwrap(), 1);
    }
}
