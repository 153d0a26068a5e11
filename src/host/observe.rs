//! Looking at a host for a plan: files read directly, the Docker daemon asked at once for all it must say.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    boot_menu,
    content::{self, Places},
    facts,
    generations::{self, Generations, Journal},
    layout::{BINARY, CREDENTIALS, SECRETS},
    packages,
    secrets::{self, SecretValues},
};
use crate::{
    digest::Digest,
    docker::Docker,
    error::{Doing as _, Result},
    lock::Lock,
    plan::{
        self, Account, Accounts, BinaryState, DockerState, Given, Group, HostState, ImageState, Inputs,
        Known, OwnedKind, PathState, Running, SecretState, Target,
    },
    profile::{Profile, SecretSource},
    system::{
        files::{self, FileKind, Root, Stat},
        users::Users,
    },
};

/// Files up to this size are kept for showing what changes in them, in bytes.
const SHOWN: u64 = 4 << 20;

/// How to look.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Docker daemon's socket.
    pub docker_socket: String,
    /// The program that is to be at `/usr/local/bin/bedplate`: this one.
    pub program: PathBuf,
    /// Where content of images is looked for.
    pub content: Places,
    /// What a new generation is dated with; absent: the time now. A tree that is to be the same on every machine has the
    /// time of its packages.
    pub dated: Option<jiff::Timestamp>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            docker_socket: super::layout::DOCKER_SOCKET.to_owned(),
            program: PathBuf::from("/proc/self/exe"),
            content: Places::default(),
            dated: None,
        }
    }
}

/// Everything the planner looks at. Changes nothing.
///
/// # Errors
/// What is there cannot be read; a generation is unreadable.
pub async fn observe(
    root: &Root,
    inputs: &Inputs<'_>,
    values: &SecretValues,
    options: &Options,
) -> Result<HostState> {
    let target = if root.is_host() { Target::Host } else { Target::Tree };
    let generations = Generations::new(root);
    let current = generations.current()?;
    let current_number = current.as_ref().map(|generation| generation.about.number);
    let interrupted: Vec<Known> =
        generations.interrupted(current_number)?.iter().map(super::generations::Generation::known).collect();
    let current = current.map(|generation| generation.known());
    let accounts = accounts(root)?;
    let known: Vec<&Known> = current.iter().chain(&interrupted).collect();
    let paths = paths(root, &plan::paths(inputs, &accounts, &known)?, &known)?;
    let secrets = secret_states(root, inputs.profile, &known, values)?;
    let wants_packages = !inputs.profile.host.packages.is_empty()
        || inputs.profile.kernel.package.is_some()
        || inputs.pins_packages()
        || known.iter().any(|known| !known.record.packages.is_empty());
    let packages = if wants_packages { packages::read(root)? } else { None };
    let (docker, mut images) = if target == Target::Host && plan::wants_docker(inputs) {
        look_at_docker(inputs.lock, &options.docker_socket).await?
    } else {
        (DockerState::NotLooked, BTreeMap::new())
    };
    if docker != DockerState::NotLooked {
        for (key, image) in &inputs.lock.images {
            let state: &mut ImageState = images.entry(key.clone()).or_default();
            state.at_hand = state.present.is_none() && content::at_hand(&options.content, image)?;
        }
    }
    let of_kernel = |path: &str| -> Result<Option<String>> {
        if target == Target::Host { root.read_text(path, 1 << 20) } else { Ok(None) }
    };
    let trimmed = |text: Option<String>| text.map(|text| text.trim().to_owned());
    let running = if inputs.pins_packages() {
        Running {
            kernel: trimmed(of_kernel("/proc/sys/kernel/osrelease")?),
            driver: trimmed(of_kernel("/sys/module/nvidia/version")?),
        }
    } else {
        Running::default()
    };
    let os = if inputs.pins_packages() { os(root)? } else { None };
    let wants_modules =
        !inputs.profile.kernel.blacklist.is_empty() || !inputs.profile.kernel.options.is_empty();
    let modules = if wants_modules { of_kernel("/proc/modules")? } else { None };
    let kernel_command_line =
        if inputs.profile.kernel.parameters.is_empty() { None } else { of_kernel("/proc/cmdline")? };
    let wants_boot_menu = inputs.pins_packages()
        || known.iter().any(|known| known.record.paths.contains_key(plan::GRUB_DEFAULT));
    let boot_menu = if wants_boot_menu { boot_menu::read(root)? } else { None };
    Ok(HostState {
        target,
        os,
        binary: binary(root, &paths, &options.program)?,
        paths,
        accounts,
        docker,
        images,
        packages,
        running,
        secrets,
        kernel_command_line,
        boot_menu,
        modules: modules
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect(),
        current,
        interrupted,
        journal: left_behind(root)?,
        next: generations.numbers()?.last().map_or(1, |last| last + 1),
    })
}

/// Distribution and release. Read where the file is, and not through the link to it.
fn os(root: &Root) -> Result<Option<(String, String)>> {
    let Some(text) = root.read_text("/usr/lib/os-release", 1 << 16)? else { return Ok(None) };
    let os = facts::parse_os(&text)?;
    Ok(os.release.map(|release| (os.id, release)))
}

/// What an interrupted run was doing: as its journal says, or what it left from before there was one.
fn left_behind(root: &Root) -> Result<Option<String>> {
    let journal = Journal::read(root)?;
    if journal.is_none() && (generations::left_over(root)? || packages::left_over(root)?) {
        return Ok(Some("a run was interrupted while it made ready".to_owned()));
    }
    Ok(journal)
}

pub(super) fn accounts(root: &Root) -> Result<Accounts> {
    let found = Users::read(root)?;
    let users = found
        .users
        .into_iter()
        .map(|user| (user.name, Account { uid: user.uid, gid: user.gid, home: user.home }));
    let groups = found
        .groups
        .into_iter()
        .map(|group| (group.name, Group { gid: group.gid, members: group.members.into_iter().collect() }));
    Ok(Accounts { users: users.collect(), groups: groups.collect() })
}

/// Looks at each path, but at none beneath a link or a file.
fn paths(
    root: &Root,
    wanted: &BTreeMap<String, bool>,
    known: &[&Known],
) -> Result<BTreeMap<String, PathState>> {
    let made: BTreeSet<&String> = known
        .iter()
        .flat_map(|known| &known.record.paths)
        .filter(|(_, owned)| owned.kind == OwnedKind::Directory)
        .map(|(path, _)| path)
        .collect();
    let mut states: BTreeMap<String, PathState> = BTreeMap::new();
    for (path, content) in wanted {
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let reachable = above.is_empty() || matches!(states.get(above), Some(PathState::Directory { .. }));
        if !reachable {
            // Beneath nothing there is nothing; beneath a link or file the planner refuses.
            if matches!(states.get(above), Some(PathState::Absent)) {
                states.insert(path.clone(), PathState::Absent);
            }
            continue;
        }
        let state = match root.stat(path)? {
            None => PathState::Absent,
            Some(stat) => look(root, path, &stat, *content, made.contains(path))?,
        };
        states.insert(path.clone(), state);
    }
    Ok(states)
}

fn look(root: &Root, path: &str, stat: &Stat, content: bool, list: bool) -> Result<PathState> {
    let Stat { mode, uid, gid, .. } = *stat;
    Ok(match stat.kind {
        FileKind::Directory => {
            let names = if list {
                // A temporary file of a killed run is swept before the steps: it keeps no directory.
                let entries = root.list(path)?.into_iter().map(|entry| entry.name);
                Some(entries.filter(|name| !name.starts_with(".bedplate-")).collect())
            } else {
                None
            };
            PathState::Directory { mode, uid, gid, names }
        }
        FileKind::Link => {
            root.read_link(path)?.map_or(PathState::Absent, |target| PathState::Link { target })
        }
        FileKind::Other => PathState::Other,
        FileKind::File if !content => {
            PathState::File { digest: Digest::of([]), content: None, mode, uid, gid }
        }
        FileKind::File if stat.size <= SHOWN => match root.read(path, SHOWN)? {
            Some(content) => {
                PathState::File { digest: Digest::of(&content), content: Some(content), mode, uid, gid }
            }
            None => PathState::Absent,
        },
        FileKind::File => match root.open_file(path)? {
            Some((file, _)) => {
                let (digest, _) = Digest::of_reader(file).doing(|| format!("reading `{path}`"))?;
                PathState::File { digest, content: None, mode, uid, gid }
            }
            None => PathState::Absent,
        },
    })
}

/// Whether the program in its place is the one that runs. Bytes are compared only where size and place do not
/// decide it.
fn binary(root: &Root, paths: &BTreeMap<String, PathState>, program: &Path) -> Result<BinaryState> {
    let (mode, uid, gid) = match paths.get(BINARY) {
        Some(PathState::File { mode, uid, gid, .. }) => (*mode, *uid, *gid),
        Some(PathState::Absent) => return Ok(BinaryState::Absent),
        // Refused when it comes to writing it: `Root` follows no link.
        _ => return Ok(BinaryState::Differs),
    };
    if mode != 0o755 || (uid, gid) != (0, 0) {
        return Ok(BinaryState::Differs);
    }
    let Some((mut there, stat)) = root.open_file(BINARY)? else { return Ok(BinaryState::Absent) };
    let (mut here, size) = files::open_input(program)?;
    if size != stat.size {
        return Ok(BinaryState::Differs);
    }
    let own = here.metadata().doing(|| "looking at the running program")?;
    if std::os::unix::fs::MetadataExt::ino(&own) == stat.inode
        && std::os::unix::fs::MetadataExt::dev(&own) == stat.device
    {
        return Ok(BinaryState::Same);
    }
    let (mut one, mut two) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    loop {
        let count = there.read(&mut one).doing(|| format!("reading `{BINARY}`"))?;
        if count == 0 {
            return Ok(BinaryState::Same);
        }
        here.read_exact(&mut two[..count]).doing(|| "reading the running program")?;
        if one[..count] != two[..count] {
            return Ok(BinaryState::Differs);
        }
    }
}

fn secret_states(
    root: &Root,
    profile: &Profile,
    known: &[&Known],
    values: &SecretValues,
) -> Result<BTreeMap<String, SecretState>> {
    let mut names: BTreeMap<&String, String> = BTreeMap::new();
    for known in known {
        for (name, owned) in &known.record.secrets {
            names.insert(name, owned.credential.clone().unwrap_or_else(|| name.clone()));
        }
    }
    for (name, source) in &profile.secrets {
        let credential = if let SecretSource::Credential(id) = source { id.clone() } else { name.clone() };
        names.insert(name, credential);
    }
    if names.is_empty() || !root.is_host() {
        return Ok(BTreeMap::new());
    }
    let can_keep = secrets::can_keep();
    let mut states = BTreeMap::new();
    for (name, credential) in names {
        let now = secrets::read(root, name)?;
        let given = match (values.get(name), &now) {
            (None, _) => Given::No,
            (Some(value), Some(now)) if secrets::same(value, now) => Given::Same,
            (Some(_), _) => Given::Differs,
        };
        let credential = root.stat(&format!("{CREDENTIALS}/{credential}.cred"))?.is_some();
        let right =
            root.stat(&format!("{SECRETS}/{name}"))?.is_some_and(|stat| stat.mode == 0o400 && stat.uid == 0);
        let given = if given == Given::Same && !right { Given::Differs } else { given };
        states.insert(name.clone(), SecretState { given, present: now.is_some(), credential, can_keep });
    }
    Ok(states)
}

async fn look_at_docker(lock: &Lock, socket: &str) -> Result<(DockerState, BTreeMap<String, ImageState>)> {
    let docker = match Docker::connect(socket).await {
        Ok(docker) => docker,
        Err(error) => {
            let hint = error.hints().first().map_or_else(
                || "look at it: `systemctl status docker`".to_owned(),
                |hint| (*hint).to_owned(),
            );
            return Ok((DockerState::Away { why: error.message().to_owned(), hint }, BTreeMap::new()));
        }
    };
    if lock.images.is_empty() {
        return Ok((DockerState::Running, BTreeMap::new()));
    }
    let tagged = docker.images_tagged("bedplate/").await?;
    let looks = lock.images.iter().map(|(key, image)| {
        let (docker, tagged) = (&docker, &tagged);
        async move {
            let ids: Vec<String> = [Some(image.manifest), Some(image.config), image.index]
                .into_iter()
                .flatten()
                .map(|digest| digest.to_string())
                .collect();
            let tags: BTreeSet<String> =
                tagged.iter().filter(|(_, id)| ids.contains(id)).map(|(tag, _)| tag.clone()).collect();
            let present = if let Some(tag) = tags.first() {
                Some(tag.clone())
            } else {
                let reference = image.pull_reference();
                let (manifest, config, index) = (&image.manifest, &image.config, image.index.as_ref());
                docker.image_by_digest(&reference, manifest, config, index).await?.map(|(name, _)| name)
            };
            Ok((key.clone(), ImageState { present, tags, at_hand: false }))
        }
    });
    let images: Result<BTreeMap<String, ImageState>> =
        futures_util::future::join_all(looks).await.into_iter().collect();
    Ok((DockerState::Running, images?))
}
