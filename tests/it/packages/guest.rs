//! A tree with apt and dpkg, and packages made on the spot in its store.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
    time::Duration,
};

use bedplate::{
    apt::transport::{Settings, Transport},
    error::{Error, Result},
    host::{
        packages::{self, Supply},
        provision::{self, Context, Options, Outcome},
        secrets::SecretValues,
    },
    lock::{self, Lock, LockedPackage, LockedRepository, LockedSuite, bundle::Bundle},
    plan::{self, Goal, Plan},
    progress::Silent,
    store::Store,
    system::files::Root,
};
use tempfile::TempDir;
use url::Url;

use crate::{apt::package::Package, support::debian};

/// The tree that every test begins with a copy of: Debian 12 with apt, made once.
static BASE: LazyLock<PathBuf> = LazyLock::new(|| {
    assert!(rustix::process::geteuid().is_root(), "these tests make and change a tree: run them as root");
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages-base");
    let made = base.join("made");
    if made.exists() {
        return base.join("root");
    }
    let _ = fs::remove_dir_all(&base);
    fs::create_dir_all(&base).unwrap();
    debian::tree("bookworm", &[], &base);
    fs::write(base.join("root/etc/apt/sources.list"), "").unwrap();
    let _ = fs::remove_dir_all(base.join("root/var/lib/apt/lists"));
    fs::write(made, "").unwrap();
    base.join("root")
});

/// A tree of a test's own, and a store.
pub(crate) struct Guest {
    folder: TempDir,
    /// What stands in `[host]` besides.
    pub(crate) host: String,
    /// Steps back that are meant.
    pub(crate) allow: Vec<String>,
    /// Where packages may be fetched.
    pub(crate) places: BTreeMap<String, Vec<Url>>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("guest-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let copied =
            Command::new("cp").arg("-a").arg(&*BASE).arg(folder.path().join("root")).status().unwrap();
        assert!(copied.success());
        fs::write(folder.path().join("program"), "the program").unwrap();
        Self { folder, host: String::new(), allow: Vec::new(), places: BTreeMap::new() }
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| format!("({})", error.kind()))
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.folder.path().join("store")).unwrap()
    }

    /// A program in the tree.
    pub(crate) fn chroot(&self, arguments: &[&str]) -> Output {
        Command::new("chroot")
            .arg(self.at("/"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .unwrap()
    }

    /// Installs packages as an administrator would.
    pub(crate) fn dpkg(&self, option: &str, packages: &[&Package]) {
        for package in packages {
            fs::write(self.at("/tmp/x.deb"), package.deb()).unwrap();
            let output = self.chroot(&["dpkg", option, "/tmp/x.deb"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// `ii  1.0`: the state and version of a package; empty where dpkg does not know it.
    pub(crate) fn state(&self, name: &str) -> String {
        let output = self.chroot(&["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Version}", name]);
        String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Every package of the tree: state and version.
    pub(crate) fn all(&self) -> String {
        let output = self.chroot(&["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev} ${Version}\n"]);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The packages as a lock names them; their bytes go into the store.
    pub(crate) fn locked(&self, packages: &[&Package]) -> Vec<LockedPackage> {
        packages
            .iter()
            .map(|package| {
                let deb = package.deb();
                let sha256 = self.store().put(&deb).unwrap();
                LockedPackage { sha256, size: deb.len() as u64, ..entry(package) }
            })
            .collect()
    }

    pub(crate) fn bundle(&self, mut packages: Vec<LockedPackage>) -> Bundle {
        packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        let suite = LockedSuite {
            release: bedplate::digest::Digest::of("release"),
            date: "2026-11-21T09:15:00Z".to_owned(),
            signed_by: vec!["0123456789ABCDEF0123456789ABCDEF01234567".to_owned()],
        };
        let repository = LockedRepository { snapshot: None, suites: [("bookworm".to_owned(), suite)].into() };
        let lock =
            Lock { repositories: [("test".to_owned(), repository)].into(), packages, ..Lock::default() };
        let profile = format!(
            "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"bookworm\"\narchitecture = \"amd64\"\n{}\n\
             [driver]\nflavor = \"none\"\n[container]\nengine = \"docker\"\ngpu-access = \"none\"\n",
            self.host
        );
        Bundle::assemble("t.toml", &profile, &lock::write(&lock), BTreeMap::new()).unwrap()
    }

    /// Brings the tree to these packages.
    pub(crate) fn provision(&self, packages: &[&Package]) -> Result<(Plan, Outcome)> {
        self.run(&self.bundle(self.locked(packages)), Goal::Provision, None)
    }

    /// Goes to a generation that is there.
    pub(crate) fn switch(&self, number: u64) -> Result<(Plan, Outcome)> {
        let bundle = provision::switch_to(&Root::open(&self.at("/")).unwrap(), number)?;
        self.run(&bundle, Goal::Switch(number), None)
    }

    /// The plan alone.
    pub(crate) fn plan(&self, packages: &[&Package]) -> Plan {
        let bundle = self.bundle(self.locked(packages));
        let pinned = bundle.open().unwrap();
        let root = Root::open(&self.at("/")).unwrap();
        let inputs = plan::Inputs::of(&pinned, bundle.digest()).allowing(&self.allow);
        let secrets = SecretValues::new();
        let state =
            runtime().block_on(provision::observe(&root, &inputs, &secrets, &self.options())).unwrap();
        plan::make(&inputs, &state, Goal::Provision).unwrap()
    }

    fn options(&self) -> Options {
        Options { program: self.folder.path().join("program"), ..Options::default() }
    }

    /// One run; it and all it started are killed after `limit`.
    pub(crate) fn run(
        &self,
        bundle: &Bundle,
        goal: Goal,
        limit: Option<Duration>,
    ) -> Result<(Plan, Outcome)> {
        let root = Root::open(&self.at("/")).unwrap();
        // A process that another test starts right now has the lock's descriptor until it is exec'd.
        let mut held = provision::hold(&root, "test");
        for _ in 0..100 {
            if held.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            held = provision::hold(&root, "test");
        }
        let held = held?;
        let pinned = bundle.open()?;
        let inputs = plan::Inputs::of(&pinned, bundle.digest()).allowing(&self.allow);
        let options = self.options();
        let secrets = SecretValues::new();
        let remote = Transport::new(Settings::default());
        let store = self.folder.path().join("store");
        let work = async {
            let state = provision::observe(&root, &inputs, &secrets, &options).await?;
            let plan = plan::make(&inputs, &state, goal)?;
            let context = Context {
                root: &root,
                held: &held,
                pinned: &pinned,
                bundle,
                secrets: &secrets,
                registries: &BTreeMap::new(),
                supply: Supply { store: &store, places: &self.places, remote: &remote },
                look: &options,
                progress: &Silent,
            };
            let outcome = provision::apply(&plan, &context).await?;
            Ok((plan, outcome))
        };
        runtime().block_on(async {
            match limit {
                Some(limit) => {
                    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Error::failed("killed")))
                }
                None => work.await,
            }
        })
    }

    /// Nothing that a run works with is left.
    pub(crate) fn is_tidy(&self) {
        for path in ["/var/lib/bedplate/apt", "/usr/sbin/policy-rc.d", "/var/lib/bedplate/journal"] {
            assert!(!self.at(path).exists(), "{path} is left");
        }
        let root = Root::open(&self.at("/")).unwrap();
        let read = packages::read(&root).unwrap().unwrap();
        assert!(!read.interrupted && read.present().all(|package| !package.broken()), "{}", self.all());
    }
}

/// What a lock says of a package, but for its bytes.
pub(crate) fn entry(package: &Package) -> LockedPackage {
    LockedPackage {
        repository: "test".to_owned(),
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        sha256: bedplate::digest::Digest::of(""),
        size: 0,
        path: package.file_name(),
        depends: Vec::new(),
        wanted_by: vec!["packages".to_owned()],
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
