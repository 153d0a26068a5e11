use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What dpkg says of a host.
const CHRONY: &str = "Package: chrony\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";

/// A host as a model: what is at every path, and what bedplate keeps about it.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) state: HostState,
    saved: BTreeSet<Digest>,
}

fn file(content: &str, mode: u32) -> PathState {
    let content = content.as_bytes().to_vec();
    PathState::File { digest: Digest::of(&content), content: Some(content), mode, uid: 0, gid: 0 }
}

fn directory(mode: u32) -> PathState {
    PathState::Directory { mode, uid: 0, gid: 0, names: None }
}

impl Model {
    pub(super) fn new(paths: impl IntoIterator<Item = (&'static str, PathState)>) -> Self {
        let mut all: BTreeMap<String, PathState> =
            ["/etc", "/data", "/usr", "/usr/local", "/usr/local/bin", "/home"]
                .map(|p| (p.to_owned(), directory(0o755)))
                .into();
        all.extend(paths.into_iter().map(|(path, state)| (path.to_owned(), state)));
        let root = Group { gid: 0, members: BTreeSet::new() };
        let state = HostState {
            target: Target::Host,
            paths: all,
            accounts: Accounts {
                users: [("root".to_owned(), Account { uid: 0, gid: 0, home: "/root".into() })].into(),
                groups: [("root".to_owned(), root)].into(),
            },
            docker: DockerState::Running,
            images: BTreeMap::new(),
            packages: Some(dpkg::Packages::parse(CHRONY, &[]).unwrap()),
            running: Running::default(),
            os: None,
            secrets: BTreeMap::new(),
            binary: BinaryState::Absent,
            kernel_command_line: Some("quiet iommu=pt".into()),
            boot_menu: None,
            modules: BTreeSet::new(),
            current: None,
            interrupted: Vec::new(),
            journal: None,
            next: 1,
        };
        Self { state, saved: BTreeSet::new() }
    }

    pub(super) fn plan(&self, profile: &Profile, lock: &Lock) -> Result<Plan> {
        make(&inputs(profile, lock), &self.observed(), Goal::Provision)
    }

    /// The state with the names in every directory, as observing lists them.
    pub(super) fn observed(&self) -> HostState {
        let mut state = self.state.clone();
        let all: Vec<String> =
            state.paths.iter().filter(|(_, s)| **s != PathState::Absent).map(|(p, _)| p.clone()).collect();
        for (path, entry) in &mut state.paths {
            if let PathState::Directory { names, .. } = entry {
                let children = all.iter().filter_map(|other| other.strip_prefix(&format!("{path}/")));
                *names = Some(children.filter(|rest| !rest.contains('/')).map(str::to_owned).collect());
            }
        }
        state
    }

    /// Carries out a plan, or its first `kill` steps only.
    pub(super) fn run(&mut self, profile: &Profile, lock: &Lock, kill: Option<usize>) -> Result<Plan> {
        let plan = self.plan(profile, lock)?;
        if plan.is_empty() {
            return Ok(plan);
        }
        for digest in plan.record.saved() {
            let there = self
                .state
                .paths
                .values()
                .any(|s| matches!(s, PathState::File { digest: d, .. } if *d == digest));
            assert!(there || self.saved.contains(&digest), "a saved content is nowhere any more");
            self.saved.insert(digest);
        }
        let bundle = inputs(profile, lock).bundle;
        let known = Known { number: plan.generation, bundle, record: plan.record.clone() };
        self.state.next = self.state.next.max(plan.generation + 1);
        self.state.journal = Some("x".into());
        match plan.change {
            Change::Repair => self.state.current = Some(known.clone()),
            Change::New | Change::Switch => {
                self.state.interrupted.retain(|other| other.number != known.number);
                self.state.interrupted.push(known.clone());
                if kill != Some(0) {
                    self.state.interrupted = vec![known.clone()];
                }
            }
        }
        for step in plan.steps.iter().take(kill.unwrap_or(usize::MAX)) {
            self.step(step, profile, lock);
        }
        if kill.is_none() {
            self.state.interrupted.clear();
            self.state.journal = None;
            self.state.current = Some(Known { record: known.record.settled(), ..known });
        }
        Ok(plan)
    }

    fn ids(&self, owner: &str) -> (u32, u32) {
        self.state.accounts.resolve(owner).expect("the plan makes owners before it needs them")
    }

    fn step(&mut self, step: &Step, profile: &Profile, lock: &Lock) {
        let paths = |state: &mut HostState, path: &str, entry| {
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            assert!(
                above.is_empty() || matches!(state.paths.get(above), Some(PathState::Directory { .. })),
                "{path} is written before its directory is made"
            );
            state.paths.insert(path.to_owned(), entry);
        };
        match step {
            Step::MakeDirectory { path, mode, owner } => {
                let (uid, gid) = self.ids(owner);
                paths(&mut self.state, path, PathState::Directory { mode: *mode, uid, gid, names: None });
            }
            Step::WriteFile { path, content, digest, mode, owner, .. } => {
                let (uid, gid) = self.ids(owner);
                let content = Some(content.clone());
                paths(
                    &mut self.state,
                    path,
                    PathState::File { digest: *digest, content, mode: *mode, uid, gid },
                );
            }
            Step::SetMode { path, to, .. } => match self.state.paths.get_mut(path) {
                Some(PathState::File { mode, .. } | PathState::Directory { mode, .. }) => *mode = *to,
                other => panic!("{path}: {other:?}"),
            },
            Step::SetOwner { path, to, .. } => {
                let ids = self.ids(to);
                match self.state.paths.get_mut(path) {
                    Some(PathState::File { uid, gid, .. } | PathState::Directory { uid, gid, .. }) => {
                        (*uid, *gid) = ids;
                    }
                    other => panic!("{path}: {other:?}"),
                }
            }
            Step::MakeLink { path, target, .. } => {
                paths(&mut self.state, path, PathState::Link { target: target.clone() });
            }
            Step::RemoveFile { path } => drop(self.state.paths.remove(path)),
            Step::RemoveDirectory { path } => {
                let inside = format!("{path}/");
                if !self.state.paths.keys().any(|other| other.starts_with(&inside)) {
                    self.state.paths.remove(path);
                }
            }
            Step::RestoreFile { path, digest, mode, uid, gid } => {
                assert!(self.saved.contains(digest));
                let (mode, uid, gid) = (*mode, *uid, *gid);
                let text =
                    CONTENTS.iter().chain(&["by hand\n"]).find(|text| Digest::of(text) == *digest).unwrap();
                let content = Some(text.as_bytes().to_vec());
                paths(&mut self.state, path, PathState::File { digest: *digest, content, mode, uid, gid });
            }
            Step::MergeDaemon { path, text, .. } => match text {
                Some(text) => paths(&mut self.state, path, file(text, 0o644)),
                None => drop(self.state.paths.remove(path)),
            },
            Step::AddGroup { name } => {
                let gid = 1000 + self.state.accounts.groups.len() as u32;
                self.state.accounts.groups.insert(name.clone(), Group { gid, members: BTreeSet::new() });
            }
            Step::AddUser { name } => {
                let id = 1000 + self.state.accounts.groups.len() as u32;
                self.state.accounts.groups.insert(name.clone(), Group { gid: id, members: BTreeSet::new() });
                let home = format!("/home/{name}");
                paths(&mut self.state, &home, directory(0o700));
                self.state.accounts.users.insert(name.clone(), Account { uid: id, gid: id, home });
            }
            Step::JoinGroup { user, group } => {
                self.state.accounts.groups.get_mut(group).unwrap().members.insert(user.clone());
            }
            Step::PullImage { key, tag, .. }
            | Step::LoadImage { key, tag, .. }
            | Step::TagImage { key, tag, .. } => {
                let image = self.state.images.entry(key.clone()).or_default();
                image.present = Some(lock.images[key].pull_reference());
                image.tags.insert(tag.clone());
            }
            Step::KeepSecret { name, credential, .. } => {
                let secret = self.state.secrets.get_mut(name).unwrap();
                (secret.given, secret.present) = (Given::Same, true);
                secret.credential |= credential.is_some();
            }
            Step::RestoreSecret { name, .. } => self.state.secrets.get_mut(name).unwrap().present = true,
            Step::RemoveSecret { name } => {
                let secret = self.state.secrets.get_mut(name).unwrap();
                (secret.given, secret.present) = (Given::No, false);
            }
            Step::InstallBinary { .. } => self.state.binary = BinaryState::Same,
            Step::RestartDocker { .. }
            | Step::ReloadSystemd
            | Step::ApplySysctl
            | Step::MakeBootMenu { .. } => {}
            Step::RepairPackages { .. } => {
                let packages = self.state.packages.get_or_insert_default();
                packages.interrupted = false;
                // What must be unpacked again stays as it is.
                for package in packages.known.values_mut().filter(|p| p.broken() && !p.reinstall) {
                    package.state = dpkg::State::Installed;
                }
            }
            Step::InstallPackages { changes, remove, .. } => {
                let packages = self.state.packages.get_or_insert_default();
                for change in changes {
                    let (name, architecture) =
                        change.package.split_once(':').unwrap_or((&change.package, "amd64"));
                    let key = (name.to_owned(), architecture.to_owned());
                    let text = format!(
                        "Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: {}\n",
                        change.to
                    );
                    let made = dpkg::Packages::parse(&text, &[]).unwrap().known.remove(&key).unwrap();
                    // As dpkg does: what is installed anew is no longer held.
                    packages.known.insert(key, made);
                }
                packages.known.retain(|(name, _), _| !remove.contains(name));
            }
            Step::HoldPackages { hold, release } => {
                let packages = self.state.packages.get_or_insert_default();
                for package in packages.known.values_mut() {
                    let key = dpkg::key(&package.name, &package.architecture, "amd64");
                    if hold.contains(&key) {
                        package.want = dpkg::Want::Hold;
                    } else if release.contains(&key) {
                        package.want = dpkg::Want::Install;
                    }
                }
            }
        }
        let _ = profile;
    }
}

pub(super) fn inputs<'a>(profile: &'a Profile, lock: &'a Lock) -> Inputs<'a> {
    static NONE: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    static NO_DEPLOYMENTS: BTreeMap<String, crate::profile::Deployment> = BTreeMap::new();
    Inputs {
        profile,
        lock,
        deployments: &NO_DEPLOYMENTS,
        sources: &NONE,
        bundle: Digest::of(format!("{profile:?}{lock:?}")),
        allow: &[],
    }
}

pub(super) fn profile(more: &str) -> Profile {
    let text = format!(
        "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\narchitecture = \"amd64\"\n\
         [driver]\nflavor = \"none\"\n[container]\nengine = \"docker\"\ngpu-access = \"none\"\n{more}"
    );
    crate::profile::parse("t.toml", &text).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

fn managed(path: &str, content: &str, mode: &str) -> String {
    format!("[[file]]\npath = \"{path}\"\ncontent = {content:?}\nmode = \"{mode}\"\n")
}

fn shown(plan: &Plan) -> Vec<String> {
    // The boot unit and the program are part of every first plan; tests look at the rest.
    plan.steps
        .iter()
        .map(ToString::to_string)
        .filter(|line| {
            !line.contains("systemd") && !line.contains("systemctl") && !line.contains("/usr/local")
        })
        .collect()
}

#[test]
fn a_plan_says_what_it_does_line_by_line() {
    let mut model = Model::new([
        ("/data/minerhome", directory(0o755)),
        ("/data/minerhome/config.json", file("{}", 0o644)),
        ("/etc/b.conf", file("x\n", 0o600)),
        ("/etc/docker", directory(0o755)),
        ("/etc/docker/daemon.json", file(r#"{"live-restore": false, "mtu": 1}"#, 0o640)),
    ]);
    let text = format!(
        "daemon = {{ live-restore = true }}\n[kernel]\nmodules = {{ blacklist = [\"nouveau\"] }}\n\
         [[mount]]\npath = \"/data/minerhome\"\nmode = \"0700\"\nowner = \"root:root\"\nfiles = {{ \"config.json\" = \"0600\" }}\n\
         [[mount]]\npath = \"/data/new/deep\"\nmode = \"0750\"\nowner = \"operator:operator\"\n{}{}\
         [[user]]\nname = \"operator\"\ngroups = [\"docker\"]\nauthorized-keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ a@b\"]\n",
        managed("/etc/b.conf", "y", "0644"),
        managed("/etc/private/key.conf", "secret words", "0600"),
    );
    let wanted = profile(&text);
    let plan = model.run(&wanted, &Lock::default(), None).unwrap();
    assert_eq!(
        shown(&plan),
        [
            "+ directory /etc/modprobe.d 0755 root:root",
            "+ file /etc/modprobe.d/bedplate.conf 0644 root:root",
            "~ /etc/docker/daemon.json: live-restore: false → true",
            "! restart docker (containers go on: live-restore)",
            "+ group docker",
            "+ user operator",
            "~ user operator: joins group docker",
            "~ mode /data/minerhome 0755 → 0700",
            "~ mode /data/minerhome/config.json 0644 → 0600",
            "+ directory /data/new 0755 root:root",
            "+ directory /data/new/deep 0750 operator:operator",
            "~ file /etc/b.conf 0644 root:root (was there before; kept)",
            "+ directory /etc/private 0755 root:root",
            "+ file /etc/private/key.conf 0600 root:root",
            "+ directory /home/operator/.ssh 0700 operator:operator",
            "+ file /home/operator/.ssh/authorized_keys 0600 operator:operator",
        ]
    );
    let lines = plan.lines();
    assert!(lines.contains(&"    -x".to_owned()) && lines.contains(&"    +y".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("secret words")));
    assert!(!serde_json::to_string(&plan).unwrap().contains("secret words"));
    assert!(model.plan(&wanted, &Lock::default()).unwrap().is_empty());
}

#[test]
fn what_stands_in_the_way_is_named_before_anything_changes() {
    for (path, state, part) in [
        ("/etc/d", PathState::Link { target: "/srv".into() }, "goes through the link `/etc/d` → `/srv`"),
        ("/etc/d", file("x", 0o644), "`/etc/d` is not a directory"),
        ("/etc/x.conf", PathState::Link { target: "/etc/shadow".into() }, "is a link to `/etc/shadow`"),
        ("/etc/x.conf", directory(0o755), "is a directory, where a file shall be"),
        ("/data/m", file("x", 0o644), "is there, and is not a directory"),
        ("/data/m", PathState::Link { target: "/home".into() }, "is a link to `/home`"),
        ("/etc/docker/daemon.json", file("{,}", 0o644), "is not valid JSON: line 1, column 2"),
        (
            "/usr/local/bin",
            PathState::Link { target: "/srv/bin".into() },
            "goes through the link `/usr/local/bin`",
        ),
    ] {
        let model = Model::new([(path, state), ("/etc/docker", directory(0o755))]);
        let wanted = profile(&format!(
            "daemon = {{ mtu = 1400 }}\n{}{}[[mount]]\npath = \"/data/m\"\nmode = \"0700\"\nowner = \"root:root\"\n",
            managed("/etc/d/x.conf", "x", "0644"),
            managed("/etc/x.conf", "x", "0644")
        ));
        let error = model.plan(&wanted, &Lock::default()).unwrap_err();
        assert!(error.message().contains(part), "{path}: {error:?}");
        assert!(!error.hints().is_empty());
    }
}

#[test]
fn what_the_host_lacks_is_named_and_waits_in_a_tree() {
    let mut wanted =
        profile("[kernel]\npackage = \"linux-image-cloud-amd64\"\nparameters = [\"iommu=pt\", \"a=b\"]\n");
    wanted.host.packages = vec!["chrony".into(), "openssh-server".into()];
    let mut model = Model::new([]);
    let plan = model.plan(&wanted, &Lock::default()).unwrap();
    let missing: Vec<&str> = plan.missing.iter().map(|missing| missing.what.as_str()).collect();
    assert_eq!(
        missing,
        [
            "package `openssh-server` is not installed",
            "package `linux-image-cloud-amd64` is not installed",
            "the running kernel was started without `a=b`"
        ]
    );
    assert!(plan.missing[0].hint.contains("apt-get install openssh-server linux-image-cloud-amd64"));
    assert!(plan.refuse().is_err() && !plan.is_empty());
    model.state.target = Target::Tree;
    let plan = model.plan(&wanted, &Lock::default()).unwrap();
    assert_eq!((plan.missing.len(), plan.deferred.len()), (0, 4));
}

#[test]
fn a_restart_that_was_due_is_made_up_for() {
    let mut model = Model::new([]);
    let wanted = profile("daemon = { mtu = 1400 }\n");
    let all = model.clone().run(&wanted, &Lock::default(), None).unwrap();
    let merged = all.steps.iter().position(|step| matches!(step, Step::MergeDaemon { .. })).unwrap();
    model.run(&wanted, &Lock::default(), Some(merged + 1)).unwrap();
    let plan = model.run(&wanted, &Lock::default(), None).unwrap();
    assert_eq!(shown(&plan), ["! restart docker (its containers stop: live-restore is off)"]);
    assert!(plan.finishes.is_some());
    assert_eq!(plan.generation, 1);
}

#[test]
fn a_file_changed_by_hand_is_kept_and_said() {
    let mut model = Model::new([]);
    let wanted = profile(&managed("/etc/a.conf", "x", "0644"));
    model.run(&wanted, &Lock::default(), None).unwrap();
    model.state.paths.insert("/etc/a.conf".into(), file("by hand\n", 0o644));
    let repair = model.clone().run(&wanted, &Lock::default(), None).unwrap();
    assert_eq!(repair.change, Change::Repair);
    assert_eq!(shown(&repair), ["~ file /etc/a.conf 0644 root:root (changed by hand; that version is kept)"]);
    assert!(repair.warnings[0].contains(&Digest::of("by hand\n").hex()));
    let gone = model.run(&profile(""), &Lock::default(), None).unwrap();
    assert!(shown(&gone).is_empty() && gone.warnings[0].contains("changed by hand: left"));
    assert_eq!(model.state.paths["/etc/a.conf"], file("by hand\n", 0o644));
}

#[test]
fn secrets_are_kept_once_and_removed_when_unwanted() {
    let mut model = Model::new([]);
    let wanted = profile("[secrets]\nA = { env = \"A\" }\nB = { credential = \"b\" }\nC = { env = \"C\" }\n");
    let given = SecretState { given: Given::Differs, can_keep: true, ..SecretState::default() };
    let stored = SecretState { credential: true, can_keep: true, ..SecretState::default() };
    model.state.secrets = [("A".to_owned(), given), ("B".to_owned(), stored)].into();
    let plan = model.run(&wanted, &Lock::default(), None).unwrap();
    assert_eq!(shown(&plan), ["+ secret A", "+ secret B (from its credential)"]);
    assert_eq!(plan.warnings, ["secret `C` has no value: set `C` for the next `bedplate provision`"]);
    assert!(model.plan(&wanted, &Lock::default()).unwrap().is_empty());
    let gone = model.run(&profile(""), &Lock::default(), None).unwrap();
    assert_eq!(
        gone.steps.iter().filter(|step| matches!(step, Step::RemoveSecret { .. })).collect::<Vec<_>>(),
        [&Step::RemoveSecret { name: "A".into() }, &Step::RemoveSecret { name: "B".into() },]
    );
    // Going back: their credentials are there still.
    let back = model.run(&wanted, &Lock::default(), None).unwrap();
    assert_eq!(
        shown(&back),
        ["+ secret A (from its credential)", "+ secret B (from its credential)"],
        "{:?}",
        back.warnings
    );
}

const PATHS: [&str; 4] = ["/etc/a.conf", "/etc/d/b.conf", "/etc/d/e/c.conf", "/etc/sysctl.d/x.conf"];
const CONTENTS: [&str; 3] = ["x\n", "y\n", "z\n"];

fn some_profile() -> impl Strategy<Value = Profile> {
    let files = proptest::collection::vec(
        proptest::option::of((0..3usize, prop_oneof![Just("0644"), Just("0600")])),
        4,
    );
    let mount = proptest::option::of(prop_oneof![Just("0700"), Just("0755")]);
    let daemon = prop_oneof![
        Just(""),
        Just("daemon = { live-restore = true }\n"),
        Just("daemon = { live-restore = false, features = { cdi = true } }\n"),
        Just("daemon = { a = { b = { c = 1 }, d = [1] } }\n"),
    ];
    (files, mount, daemon).prop_map(|(files, mount, daemon)| {
        let mut text = daemon.to_owned();
        for (path, file) in PATHS.iter().zip(files) {
            if let Some((content, mode)) = file {
                text += &managed(path, CONTENTS[content], mode);
            }
        }
        if let Some(mode) = mount {
            let mount = ["[[mount]]\npath = \"/data/m\"\nmode = \"", mode, "\"\nowner = \"root:root\"\n"];
            text.extend(mount);
        }
        profile(&text)
    })
}

fn some_host() -> impl Strategy<Value = Model> {
    let files = proptest::collection::vec(
        proptest::option::of((0..3usize, prop_oneof![Just(0o644), Just(0o640)])),
        4,
    );
    let daemon = prop_oneof![
        Just(None),
        Just(Some("{}")),
        Just(Some(r#"{"live-restore":false,"features":{"buildkit":true}}"#)),
    ];
    (files, daemon, any::<bool>()).prop_map(|(files, daemon, mount)| {
        let mut paths = Vec::new();
        for (path, state) in PATHS.iter().zip(files) {
            if let Some((content, mode)) = state {
                for above in step::ancestors(path).into_iter().skip(1) {
                    paths.push((above, directory(0o750)));
                }
                paths.push((path, file(CONTENTS[content], mode)));
            }
        }
        if let Some(text) = daemon {
            paths.push(("/etc/docker", directory(0o755)));
            paths.push((DAEMON, file(text, 0o600)));
        }
        if mount {
            paths.push(("/data/m", directory(0o711)));
        }
        Model::new(paths)
    })
}

/// What must be as it was once bedplate gave everything up: not state, not its own unit.
fn outside(model: &Model) -> BTreeMap<String, String> {
    model
        .state
        .paths
        .iter()
        .filter(|(path, state)| {
            **state != PathState::Absent && !path.starts_with("/etc/systemd") && !path.starts_with("/data/m")
        })
        .map(|(path, state)| match state {
            PathState::File { content: Some(content), .. } if path == DAEMON => {
                (path.clone(), serde_json::from_slice::<serde_json::Value>(content).unwrap().to_string())
            }
            other => (path.clone(), format!("{other:?}")),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However often runs with different inputs are interrupted, wherever: the next whole run leaves what it
    /// wants, a second one finds nothing to do, and giving everything up brings back what was there before.
    #[test]
    fn interrupted_runs_converge_and_can_be_undone(
        host in some_host(),
        runs in proptest::collection::vec((some_profile(), proptest::option::of(0..14usize)), 1..5),
        last in some_profile(),
    ) {
        let lock = Lock::default();
        let mut model = host.clone();
        for (profile, kill) in &runs {
            model.run(profile, &lock, *kill).unwrap();
        }
        model.run(&last, &lock, None).unwrap();
        let second = model.plan(&last, &lock).unwrap();
        prop_assert!(second.is_empty(), "{:?}", second.lines());
        for managed in &last.files {
            let PathState::File { mode, content, .. } = &model.state.paths[&managed.path] else {
                return Err(TestCaseError::fail("a wanted file is not there"));
            };
            prop_assert_eq!(*mode, managed.mode);
            let wanted = match &managed.content {
                crate::profile::FileContent::Inline(text) => text.clone(),
                crate::profile::FileContent::Source(_) => String::new(),
            };
            prop_assert_eq!(content.as_deref().map(<[u8]>::trim_ascii), Some(wanted.trim().as_bytes()));
        }
        let undone = model.run(&profile(""), &lock, None).unwrap();
        prop_assert!(undone.warnings.iter().all(|w| w.contains("holds state")), "{:?}", undone.warnings);
        prop_assert_eq!(outside(&model), outside(&host));
    }
}
