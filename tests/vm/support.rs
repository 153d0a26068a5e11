//! The test machine, and the profile it is provisioned from.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::profiles;

/// Port of the registry, here and, through a tunnel, on the machine; `profiles/try.toml` names it.
const REGISTRY_PORT: &str = "5017";
/// The model that `deployments/try.yaml` serves.
const MODEL: &str = "/models/echo-1b";

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a command did.
pub(crate) struct Run {
    what: String,
    /// Exit code; 128 and the signal's number where a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Runs `command` with `input` on its standard input.
    fn of(command: &mut Command, input: &str) -> Self {
        use std::os::unix::process::ExitStatusExt;
        // Never the environment, which may hold secrets.
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let what = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        // A program that does not read its input closes it: that is its business.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("{what}: {error}"));
        Self {
            what,
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless it exited with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}\n{self}");
        self
    }

    /// Fails the test unless one of its streams has `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "expected `{text}`\n{self}");
        self
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, code, stdout, stderr } = self;
        write!(f, "{what}\nexit code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

fn run(program: impl AsRef<OsStr>, args: &[&str]) -> Run {
    Run::of(Command::new(program).args(args), "")
}

/// The turn of one story on the shared machine.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A story that failed says nothing about the next.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The turn of one build of an image: the store that all stories share has one place for it.
fn building() -> MutexGuard<'static, ()> {
    static BUILDING: Mutex<()> = Mutex::new(());
    BUILDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registry with the demonstration images, once a process.
fn registry() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let images = repository(".cache/images").display().to_string();
        let address = format!("127.0.0.1:{REGISTRY_PORT}");
        let pid = std::process::id().to_string();
        run(repository("tests/vm/images/build"), &[&images]).expect(0);
        run(repository("tests/vm/registry"), &["start", REGISTRY_PORT, "--while", &pid]).expect(0);
        run(repository("tests/vm/images/build"), &["push", &images, &address]).expect(0);
    });
}

/// The program under test without its debug information, which would have to be copied to the machine.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bedplate");
        run("strip", &["-o", &stripped.display().to_string(), env!("CARGO_BIN_EXE_bedplate")]).expect(0);
        stripped
    })
}

/// The operator's store: kept between runs, as an operator's is.
pub(crate) fn store() -> PathBuf {
    repository(".cache/store")
}

/// A running machine.
pub(crate) struct Machine {
    name: String,
}

impl Machine {
    /// Boots a fresh one that reaches the registry through a tunnel, and nothing else. It is destroyed when this is
    /// dropped, and when the test's process ends.
    pub(crate) fn fresh(name: &str) -> Self {
        registry();
        let machine = Self::cut_off(name);
        machine.tunnel();
        machine
    }

    /// As [`Machine::fresh`], booted by its own GRUB from its own disk, so that its kernel can change.
    pub(crate) fn by_grub(name: &str) -> Self {
        registry();
        let machine = Self::start(name, &["--boot", "grub"]);
        machine.tunnel();
        machine
    }

    /// Packages of kernels that the archive had when the machine's base was made, without an order.
    pub(crate) fn kernels(&self) -> String {
        std::fs::read_to_string(self.file("kernels")).expect("it reads")
    }

    /// Boots a fresh one that reaches nothing at all.
    pub(crate) fn cut_off(name: &str) -> Self {
        Self::start(name, &["--boot", "qemu"])
    }

    /// Locks a profile of `site`, builds an image of it, whose format is `disk`, and boots that as it is, by its own firmware
    /// and boot loader; it reaches nothing at all.
    pub(crate) fn of_image(name: &str, site: &Site, profile: &str, image: &str) -> Self {
        site.bedplate(None, &["lock", profile]).expect(0);
        let turn = building();
        site.bedplate(None, &["build", image, "--output", "out"]).expect(0);
        drop(turn);
        let disk = site.path(&format!("out/{image}.disk"));
        let machine = Self::start(name, &["--image", &disk.display().to_string()]);
        std::fs::remove_file(disk).expect("removed");
        machine
    }

    fn start(name: &str, how: &[&str]) -> Self {
        let machine = Self { name: name.to_owned() };
        let started = Instant::now();
        machine.script_of(&["destroy"]).expect(0);
        let pid = std::process::id().to_string();
        machine.script_of(&[&["start", "--while", &pid], how].concat()).expect(0);
        // Other machines may be at work.
        machine.script_of(&["wait", "600"]).expect(0);
        eprintln!("machine `{name}` is ready after {:.0?}", started.elapsed());
        machine
    }

    /// The one that most stories share: booted by the first.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Machine> = OnceLock::new();
        SHARED.get_or_init(|| Self::fresh("stories"))
    }

    /// `tests/vm/machine VERB NAME ARGS…`.
    fn script_of(&self, args: &[&str]) -> Run {
        let mut all = vec![args[0], &self.name];
        all.extend(&args[1..]);
        run(repository("tests/vm/machine"), &all)
    }

    fn file(&self, what: &str) -> PathBuf {
        PathBuf::from(self.script_of(&["file", what]).expect(0).stdout.trim_end())
    }

    /// For `BEDPLATE_SSH_CONFIG`; the machine's name is its host.
    pub(crate) fn ssh_config(&self) -> PathBuf {
        self.file("ssh_config")
    }

    /// Its raw disk; what is not written back yet is not in it.
    pub(crate) fn disk(&self) -> PathBuf {
        self.file("disk")
    }

    /// What it wrote to its console.
    pub(crate) fn console(&self) -> PathBuf {
        self.file("console")
    }

    /// Runs a shell script there as root. It travels on standard input: what it holds is in no argument list.
    pub(crate) fn script(&self, script: &str) -> Run {
        let mut command = Command::new(repository("tests/vm/machine"));
        Run::of(command.args(["ssh", &self.name, "bash -s"]), script)
    }

    /// The output of a command there, without the final newline; it must succeed.
    #[track_caller]
    pub(crate) fn sh(&self, command: &str) -> String {
        let run = self.script(command).expect(0);
        run.stdout.trim_end().to_owned()
    }

    /// Copies a file or directory to a path there.
    pub(crate) fn copy(&self, from: &Path, to: &str) {
        let target = format!("{}:{to}", self.name);
        let mut command = Command::new("scp");
        command.arg("-qrF").arg(self.ssh_config()).arg(from).arg(target);
        Run::of(&mut command, "").expect(0);
    }

    /// dpkg and apt find nothing amiss, and nothing differs from the lock.
    #[track_caller]
    pub(crate) fn assert_as_locked(&self) {
        assert_eq!(self.sh("dpkg --verify; dpkg --audit"), "");
        let checked = self.script("apt-get -q check").expect(0);
        assert!(!checked.stderr.contains("E:") && !checked.stderr.contains("W:"), "{checked}");
        self.script("bedplate verify").expect(0).says("no difference");
    }

    /// Waits until a command there succeeds.
    #[track_caller]
    pub(crate) fn until(&self, limit: Duration, command: &str) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let run = self.script(command);
            if run.code == 0 {
                return run.stdout.trim_end().to_owned();
            }
            assert!(Instant::now() < deadline, "not within {limit:?}\n{run}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// An orderly reboot; returns once Docker runs again.
    pub(crate) fn reboot(&self) {
        self.script_of(&["reboot"]).expect(0);
    }

    /// The power goes and comes again; returns once Docker runs again.
    pub(crate) fn power_cut(&self) {
        self.script_of(&["power-cut"]).expect(0);
    }

    /// Takes the registry away.
    pub(crate) fn untunnel(&self) {
        self.script_of(&["untunnel"]).expect(0);
    }

    /// Gives the registry back.
    pub(crate) fn tunnel(&self) {
        self.script_of(&["tunnel", REGISTRY_PORT]).expect(0);
    }

    /// Permission bits and owner of a path there, as `700 root:root`.
    #[track_caller]
    pub(crate) fn mode(&self, path: &str) -> String {
        self.sh(&format!("stat -c '%a %U:%G' {path}"))
    }

    /// Number of the current generation.
    #[track_caller]
    pub(crate) fn generation(&self) -> u64 {
        let target = self.sh("readlink /var/lib/bedplate/current");
        let number = target.trim_end_matches('/').rsplit('/').next().and_then(|name| name.parse().ok());
        number.unwrap_or_else(|| panic!("`current` is a link to `{target}`"))
    }

    /// Asks the served model, with the API key of `site`; the content of its answer.
    pub(crate) fn ask(&self, site: &Site, said: &str) -> Run {
        let key = &site.secrets.api_key;
        // The builtin's arguments and curl's configuration on standard input are seen by nobody.
        self.script(&format!(
            "set -o pipefail\n\
             body='{{\"model\": \"{MODEL}\", \"messages\": [{{\"role\": \"user\", \"content\": \"{said}\"}}]}}'\n\
             printf 'header = \"Authorization: Bearer %s\"\\n' '{key}' |\n\
             curl -sS -f -K - -H 'Content-Type: application/json' -d \"$body\" \
             http://127.0.0.1:8000/v1/chat/completions"
        ))
    }

    /// The served model answers as it should.
    #[track_caller]
    pub(crate) fn assert_serves(&self, site: &Site) {
        let run = self.ask(site, "one two three").expect(0);
        let answer: serde_json::Value = serde_json::from_str(&run.stdout).expect("the answer is JSON");
        let content = answer.pointer("/choices/0/message/content").and_then(|content| content.as_str());
        assert_eq!(content, Some("You said 3 words: three two one"), "{run}");
    }

    /// Names and ids of the containers that run, sorted.
    pub(crate) fn containers(&self) -> String {
        self.sh("docker ps --no-trunc --format '{{.Names}} {{.ID}}' | sort")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Never a second panic while a story fails.
        let run = self.script_of(&["destroy"]);
        if run.code != 0 {
            eprintln!("{run}");
        }
    }
}

/// The values behind the profile's secrets: new for each test process, and nothing that occurs by chance.
pub(crate) struct Secrets {
    pub(crate) hf_token: String,
    pub(crate) miner_token: String,
    pub(crate) api_key: String,
}

impl Secrets {
    fn get() -> &'static Self {
        static SECRETS: OnceLock<Secrets> = OnceLock::new();
        SECRETS.get_or_init(|| {
            let mut bytes = [0_u8; 60];
            let mut random = std::fs::File::open("/dev/urandom").expect("/dev/urandom opens");
            std::io::Read::read_exact(&mut random, &mut bytes).expect("/dev/urandom reads");
            let part = |at: usize| hex::encode(&bytes[at..at + 20]);
            Self { hf_token: format!("hf_{}", part(0)), miner_token: part(20), api_key: part(40) }
        })
    }

    /// Variable and value.
    pub(crate) fn all(&self) -> [(&'static str, &str); 3] {
        [("HF_TOKEN", &self.hf_token), ("MINER_TOKEN", &self.miner_token), ("ENGINE_API_KEY", &self.api_key)]
    }
}

/// A directory with the profile and the deployment of `make try`, to be changed and provisioned from.
pub(crate) struct Site {
    directory: TempDir,
    pub(crate) secrets: &'static Secrets,
}

impl Site {
    pub(crate) fn new() -> Self {
        registry();
        Self::of(&["profiles/try.toml", "deployments/try.yaml"])
    }

    /// A directory with these files of the repository.
    pub(crate) fn of(paths: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        for path in paths {
            let to = directory.path().join(path);
            std::fs::create_dir_all(to.parent().expect("it has a parent")).expect("made");
            std::fs::copy(repository(path), to).expect("copied");
        }
        Self { directory, secrets: Secrets::get() }
    }

    /// Where it lies.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// The text of a file in it.
    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Puts `to` in the place of `from`, which must be there, in the profile.
    pub(crate) fn change(&self, from: &str, to: &str) -> &Self {
        self.change_in("profiles/try.toml", from, to)
    }

    /// The same in another file.
    pub(crate) fn change_in(&self, path: &str, from: &str, to: &str) -> &Self {
        let text = self.read(path);
        assert!(text.contains(from), "`{from}` is not in `{path}`");
        std::fs::write(self.path(path), text.replace(from, to)).expect("it writes");
        self
    }

    /// Takes the container images, and the deployments that start them, out of a profile.
    pub(crate) fn without_images(&self, profile: &str) {
        std::fs::write(self.path(profile), profiles::without_images(&self.read(profile))).expect("it writes");
    }

    /// `bedplate ARGS…` here, with the secrets in its environment and the store that all sites share.
    pub(crate) fn bedplate(&self, machine: Option<&Machine>, args: &[&str]) -> Run {
        let mut command = Command::new(program());
        command.arg("--store").arg(store()).args(args).current_dir(self.directory.path());
        command.env("XDG_CACHE_HOME", self.path("cache")).envs(self.secrets.all());
        if let Some(machine) = machine {
            command.env("BEDPLATE_SSH_CONFIG", machine.ssh_config());
        }
        Run::of(&mut command, "")
    }

    pub(crate) fn lock(&self) -> &Self {
        self.bedplate(None, &["lock", "profiles/try.toml"]).expect(0);
        self
    }

    /// `provision --host` with further arguments. What the machine lacks of the lock goes along: it reaches no mirror.
    pub(crate) fn provision(&self, machine: &Machine, args: &[&str]) -> Run {
        let mut all = vec!["provision", "profiles/try.toml", "--carry", "--host", &machine.name];
        all.extend(args);
        self.bedplate(Some(machine), &all)
    }
}

/// The shared machine, provisioned from the plain profile of `make try`.
pub(crate) fn provisioned() -> (&'static Machine, Site) {
    let machine = Machine::shared();
    // A story that failed may have taken it away.
    machine.tunnel();
    let site = Site::new();
    site.lock().provision(machine, &[]).expect(0);
    (machine, site)
}

/// The shared machine, provisioned and serving.
pub(crate) fn served() -> (&'static Machine, Site) {
    let (machine, site) = provisioned();
    machine.script("bedplate up -f try").expect(0);
    (machine, site)
}

/// Versions of the installed packages by name.
pub(crate) fn installed_packages(machine: &Machine) -> BTreeMap<String, String> {
    let listed = machine.sh("dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n'");
    let lines = listed.lines().filter_map(|line| line.strip_prefix("installed ")?.split_once(' '));
    lines.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

/// Versions of a lock's packages by name.
pub(crate) fn locked_packages(lock: &str) -> BTreeMap<String, String> {
    let lock = bedplate::lock::parse("try.lock", lock).expect("the lock reads");
    lock.packages.into_iter().map(|package| (package.name, package.version)).collect()
}
