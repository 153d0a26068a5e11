//! Flags and arguments of every verb. The only place that says what can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Makes a GPU host reproducible: lock, provision, check, and only then up.
#[derive(Debug, Parser)]
#[command(
    name = "bedplate",
    version,
    about,
    long_about = "Makes a GPU host reproducible.\n\n\
        A profile says what a host should be. `lock` pins every image and package to a digest; `provision` brings a \
        host there; `doctor`, `toolkit verify` and `runtime prepare` prove it works, layer by layer; `up` starts a \
        deployment only on that proof.",
    after_help = "Start with `bedplate init NAME --engine vllm --model ID`, or from a file you have: \
        `bedplate init NAME --from deployment.yaml`.",
    after_long_help = crate::ui::exit::HELP,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Options every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options every verb takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Content store [default: /var/lib/bedplate/store as root, else the user's cache directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Only errors, warnings and data
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More detail; twice: also the log
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How reports are printed (junit, html: checks only)
    #[arg(long, global = true, value_enum, default_value = "text", hide_possible_values = false)]
    pub format: FormatArg,
    /// Progress as JSON lines on standard error
    #[arg(long, global = true, hide = true)]
    pub remote_progress: bool,
}

/// `--format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatArg {
    /// For people
    Text,
    /// For scripts
    Json,
    /// For test collectors
    Junit,
    /// One page that can be sent
    Html,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a profile and a deployment to start from
    Init(Init),
    /// Pin every image and package of a profile to a digest, and write the lock
    #[command(
        after_help = "First `lock`; later `lock --update-all --diff`, review, commit.\n\nExit code 4: with --check, the lock does not match its inputs, or something has moved. \
        Exit code 3: an image cannot run on the profile's driver or GPUs, or the driver does not build for the kernel."
    )]
    Lock(Lock),
    /// Build a host image from a lock
    #[command(
        after_help = "The same definition, profile and lock give the same bytes on any machine. Packages come from the store, \
        and are fetched into it first where it lacks them; their scripts run confined, without a network."
    )]
    Build(Build),
    /// Bring a host to its profile, then check it
    #[command(
        after_help = "Packages go up and down to their locked versions, from local files alone, and are held there. A first \
        look: `--dry-run`.\n\nExit code 3: provisioned, but a check failed; or the driver is known not to build for the \
        kernel, and nothing was done. 4: the lock is stale. 10: reboot needed."
    )]
    Provision(Provision),
    /// Layer 1: check the host
    #[command(
        after_help = "To send what was found: `--format html > report.html` writes one page. `--format json` has the form of \
        docs/reference/report.schema.json, as for every verb that checks."
    )]
    Doctor(Doctor),
    /// Layer 2: container engine and GPU access of containers
    #[command(subcommand, arg_required_else_help = true)]
    Toolkit(Toolkit),
    /// Layer 3: the engine image
    #[command(subcommand, arg_required_else_help = true)]
    Runtime(Runtime),
    /// Layer 4: start a deployment, only on fresh readiness, and wait until it serves
    Up(Up),
    /// Show how a deployment's containers are
    Status(Name),
    /// Show what a deployment's containers say
    Logs(Logs),
    /// Stop a deployment; it stays stopped after a boot
    Stop(Named),
    /// Stop a deployment and bring it up again, through the gate
    Restart(Restart),
    /// Remove a deployment's containers and network
    Rm(Rm),
    /// List the deployments of this host
    List,
    /// Show the services a deployment stands for, in Compose's form
    Render(Render),
    /// List, compare and switch applied generations
    #[command(subcommand, arg_required_else_help = true)]
    Generations(Generations),
    /// Keep secrets on this host, encrypted to it
    #[command(subcommand, arg_required_else_help = true)]
    Secret(Secret),
    /// Compare this host, a root tree or an image with what it was made from
    #[command(
        after_help = "Packages by dpkg's word, files by the digests that packages bring; what cannot be known from them is \
        said. An image (tar, tar.zst, OCI layout, disk, qcow2) is held against the record beside it, part by part, and where \
        it differs the path is named.\n\nExit code 4: something differs. 3: something cannot be verified. 2: it is no image."
    )]
    Verify(Verify),
    /// Write profile, lock, deployments and files as one archive
    #[command(
        after_help = "For a host without a network: `bundle --with-packages --with-images -o FILE`, then `provision FILE` \
        there, or `provision FILE --host USER@NAME`."
    )]
    Bundle(Bundle),
    /// Roll a pinned profile out to a fleet
    Fleet(Later),
    /// What a check looks at, why it matters, how to mend it
    Explain(Explain),
    /// Write a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
    /// After a boot: secrets, checks, then the deployments that were up
    #[command(hide = true)]
    Boot,
    /// The far end of `provision --host`
    #[command(hide = true)]
    Receive(Receive),
    /// The inside of the room in which a build runs an image's own programs
    #[command(hide = true)]
    Confine,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// An image that `build` wrote, or the directory of a root tree [default: this host]
    #[arg(value_name = "IMAGE|TREE")]
    pub what: Option<PathBuf>,

    /// Profile whose lock it is held against [default: the one that it was made from]
    #[arg(long)]
    pub profile: Option<String>,
}

/// `build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Image definition: a path, or a name looked up in `images/` [default: the only one there is]
    pub image: Option<String>,

    /// Directory that the image is written into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,

    /// Build a second time under other conditions (user, clock, store, umask, host name, time zone, locale), and compare
    #[arg(long)]
    pub verify_twice: bool,

    /// Show where the time and the bytes went
    #[arg(long)]
    pub explain: bool,

    /// Push the image to a registry: `HOST/REPOSITORY:TAG`. May be given several times
    #[arg(long, value_name = "REFERENCE")]
    pub push: Vec<String>,

    /// Build from nothing, though the image is there already, or a tree of the same packages is kept
    #[arg(long)]
    pub again: bool,

    /// Leave the root tree in the store's `build` directory
    #[arg(long, hide = true)]
    pub keep_tree: bool,
}

/// `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Name of the profile and the deployment
    pub name: Option<String>,
    /// Start from a deployment file you have: secrets are moved out, a volume for the agent's identity is added
    #[arg(long, value_name = "DEPLOYMENT")]
    pub from: Option<PathBuf>,
    /// Inference engine
    #[arg(long, value_enum, conflicts_with = "from")]
    pub engine: Option<EngineArg>,
    /// Hugging Face id of the model, or a path
    #[arg(long, value_name = "MODEL", conflicts_with = "from")]
    pub model: Option<String>,
    /// GPUs to shard over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub tp: u32,
    /// API port
    #[arg(long, value_name = "PORT", default_value_t = 8000, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// An inference engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// vLLM
    Vllm,
    /// SGLang
    Sglang,
}

/// `lock`.
#[derive(Debug, Args)]
pub struct Lock {
    /// Profile: a path, or a name in `profiles/` [default: the only one there is]
    pub profile: Option<String>,
    /// Say whether the lock matches, and write nothing
    #[arg(long)]
    pub check: bool,
    /// Ask for everything again
    #[arg(long)]
    pub update_all: bool,
    /// Ask again for these: `image:NAME`, `package:NAME`; without a value, for all images
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "image:*", conflicts_with = "update_all")]
    pub update: Vec<String>,
    /// Show what changes
    #[arg(long, value_enum, value_name = "FORM", num_args = 0..=1, default_missing_value = "text")]
    pub diff: Option<DiffArg>,
    /// Build the driver's kernel modules, once, and lock the package of them: no host compiles any
    #[arg(long, conflicts_with = "check")]
    pub modules: bool,
    /// Say why a package is in the lock, from the lock alone
    #[arg(long, value_name = "PACKAGE", conflicts_with_all = ["check", "update", "update_all", "diff", "mirror", "modules"])]
    pub why: Option<String>,
    /// Mirror of the distribution's archive, asked first
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
}

/// How a diff is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiffArg {
    /// For people
    Text,
    /// For a pull request
    Markdown,
    /// For scripts
    Json,
}

/// `receive`.
#[derive(Debug, Args)]
pub struct Receive {
    /// Say what this host lacks of what the request's lock names
    #[arg(long)]
    pub lacks: bool,
}

/// `provision`.
#[derive(Debug, Args)]
pub struct Provision {
    /// Profile: a path, or a name in `profiles/`; or a bundle [default: the only profile there is]
    pub profile: Option<String>,
    /// Print the plan as a diff, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Prepare a tree instead of this host
    #[arg(long, value_name = "DIR", conflicts_with = "host")]
    pub root: Option<PathBuf>,
    /// Provision that host over OpenSSH, with your SSH configuration
    #[arg(long, value_name = "USER@NAME")]
    pub host: Option<String>,
    /// Take packages and images along from here, fetched where they are missing: the host needs no network
    #[arg(long, requires = "host", conflicts_with = "root")]
    pub carry: bool,
    /// Reboot when one is needed, and go on after it
    #[arg(long)]
    pub reboot: bool,
    /// Let this package go back, although an older version of it may leave the host unable to start
    #[arg(long, value_name = "PACKAGE")]
    pub allow: Vec<String>,
    /// Leave the checks out
    #[arg(long, hide = true)]
    pub no_check: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Profile [default: the only one there is, or the current generation's]
    pub profile: Option<String>,
    /// Check what this deployment needs of the host: a file, or a name
    #[arg(short = 'f', long = "file", value_name = "DEPLOYMENT")]
    pub file: Option<PathBuf>,
    /// Run again when something changes, and show only what changed; Ctrl-C ends it
    #[arg(long, conflicts_with_all = ["record", "facts"])]
    pub watch: bool,
    /// With `--watch`: look again after so many seconds, whatever changed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "watch", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub interval: u64,
    /// Write the facts to a file, without secrets, addresses, names and serial numbers
    #[arg(long, value_name = "FILE", conflicts_with = "facts")]
    pub record: Option<PathBuf>,
    /// Judge recorded facts instead of this host
    #[arg(long, value_name = "FILE")]
    pub facts: Option<PathBuf>,
}

/// `toolkit`.
#[derive(Debug, Subcommand)]
pub enum Toolkit {
    /// Check GPU access of containers
    Verify(ToolkitVerify),
    /// Install container engine and toolkit from the lock
    ///
    /// Brings the packages of the container engine and of GPU access, and what they depend on, to their locked versions,
    /// and merges the profile's keys into Docker's configuration. Where containers get GPUs by CDI and the vendor's toolkit is
    /// neither locked nor installed, it writes the CDI specification. Nothing else of the profile is touched, nothing is held
    /// or removed, and no generation is made: a later `bedplate provision` takes what is there as it finds it.
    Install(ToolkitInstall),
}

/// `toolkit install`.
#[derive(Debug, Args)]
pub struct ToolkitInstall {
    /// Profile: a path, or a name in `profiles/` [default: the only one there is, or the current generation's]
    pub profile: Option<String>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `toolkit verify`.
#[derive(Debug, Args)]
pub struct ToolkitVerify {
    /// Profile [default: the only one there is, or the current generation's]
    pub profile: Option<String>,
    /// Start the locked smoke image and look for every GPU in it
    #[arg(long)]
    pub smoke_test: bool,
    /// The same again after a daemon-reload and a restart of Docker
    #[arg(long)]
    pub thorough: bool,
}

/// `runtime`.
#[derive(Debug, Subcommand)]
pub enum Runtime {
    /// Check the engine image, the model cache and access to the model
    Prepare(RuntimePrepare),
}

/// `runtime prepare`.
#[derive(Debug, Args)]
pub struct RuntimePrepare {
    /// The engine
    #[arg(long, value_enum)]
    pub engine: EngineArg,
    /// Deployment [default: the profile's only one with that engine]
    #[arg(short = 'f', long = "file", value_name = "DEPLOYMENT")]
    pub file: Option<PathBuf>,
    /// Profile [default: the only one there is, or the current generation's]
    #[arg(long)]
    pub profile: Option<String>,
    /// Load the engine in its locked image, and calculate on each GPU with it
    #[arg(long)]
    pub smoke_test: bool,
    /// The Hugging Face token must be there and be accepted
    #[arg(long)]
    pub require_hf_token: bool,
}

/// `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Deployment: a file, or the name of one that this host was provisioned with
    #[arg(short = 'f', long = "file", value_name = "DEPLOYMENT")]
    pub file: PathBuf,
    /// Do not wait until it serves
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait until it serves, in seconds
    #[arg(long, value_name = "S", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// A deployment by name.
#[derive(Debug, Args)]
pub struct Named {
    /// Name of the deployment
    pub name: String,
}

/// A deployment by name, or all.
#[derive(Debug, Args)]
pub struct Name {
    /// Name of the deployment [default: all]
    pub name: Option<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Name of the deployment
    pub name: String,
    /// Go on as more is said
    #[arg(short, long)]
    pub follow: bool,
    /// Only this service
    #[arg(long)]
    pub service: Option<String>,
    /// Only the last N lines of each container
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub tail: u32,
}

/// `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// Name of the deployment
    pub name: String,
    /// How long to wait until it serves, in seconds
    #[arg(long, value_name = "S", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Name of the deployment
    pub name: String,
    /// Also forget the deployment: its file kept on this host and its secrets in memory. State directories stay
    #[arg(long)]
    pub purge: bool,
}

/// `render`.
#[derive(Debug, Args)]
pub struct Render {
    /// Deployment: a file, or the name of one that this host was provisioned with
    #[arg(short = 'f', long = "file", value_name = "DEPLOYMENT")]
    pub file: PathBuf,
}

/// `generations`.
#[derive(Debug, Subcommand)]
pub enum Generations {
    /// List them
    List {
        /// Those of a tree that `provision --root` prepared
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// What differs between two
    Diff {
        /// The older
        a: u64,
        /// The newer
        b: u64,
        /// Those of a tree that `provision --root` prepared
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Go to one of them, without a network
    Switch {
        /// Its number
        number: u64,
        /// Let this package go back, although an older version of it may leave the host unable to start
        #[arg(long, value_name = "PACKAGE")]
        allow: Vec<String>,
    },
    /// Go back to the last one whose checks passed, else to the one before, without a network
    Rollback {
        /// Let this package go back, although an older version of it may leave the host unable to start
        #[arg(long, value_name = "PACKAGE")]
        allow: Vec<String>,
    },
    /// Remove old ones; the current one and the one before it stay
    Gc {
        /// How many to keep besides the current one and the one before it
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
        keep: u64,
    },
}

/// `secret`.
#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Store a secret on this host, read from standard input
    Set {
        /// Its name
        name: String,
    },
    /// Names of secrets, and where each is
    List,
    /// Whether every secret the profile names resolves
    Check {
        /// Profile [default: the only one there is, or the current generation's]
        profile: Option<String>,
    },
}

/// `bundle`.
#[derive(Debug, Args)]
pub struct Bundle {
    /// Profile: a path, or a name in `profiles/` [default: the only one there is]
    pub profile: Option<String>,
    /// Carry the packages along
    #[arg(long)]
    pub with_packages: bool,
    /// Carry the images along
    #[arg(long)]
    pub with_images: bool,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Check id, such as `gpu.version-match`, or an error of the driver, such as `xid-79`; without one, all are listed
    pub id: Option<String>,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Directory for one page a verb [default: the main page on standard output]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// A verb of a later part: takes anything, says so.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Later {
    /// Arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}
