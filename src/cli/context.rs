//! What every verb works with: output, environment, configuration, where things are.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::config::Config;
use crate::{
    error::{Error, Result},
    system::signals,
    ui::Ui,
};

/// What every verb works with. Made once, in `main`; nothing below reads the environment.
pub struct Context {
    /// Output.
    pub ui: Ui,
    /// The process's environment, as it was at the start.
    pub env: BTreeMap<String, String>,
    /// The directory the command was given in.
    pub directory: PathBuf,
    /// Where to fetch from, and other settings of the machine.
    pub config: Config,
    /// The content store.
    pub store: PathBuf,
    /// The command line after the program's name, which names the store: the same can be started again with it.
    pub arguments: Vec<OsString>,
}

impl Context {
    /// Reads the configuration files and settles where things are.
    ///
    /// # Errors
    /// A configuration file is broken.
    pub fn new(
        ui: Ui,
        env: BTreeMap<String, String>,
        directory: PathBuf,
        store: Option<PathBuf>,
    ) -> Result<Self> {
        let set = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME");
        let under_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let user = set("XDG_CONFIG_HOME").or_else(|| under_home(".config"));
        let user = user.map(|user| user.join("bedplate/config.toml"));
        let config = Config::load(set("BEDPLATE_CONFIG").as_deref(), user.as_deref())?;
        let store = store.unwrap_or_else(|| {
            if rustix::process::geteuid().is_root() {
                PathBuf::from("/var/lib/bedplate/store")
            } else {
                let cache = set("XDG_CACHE_HOME").or_else(|| under_home(".cache"));
                cache.unwrap_or_else(|| "/var/tmp".into()).join("bedplate/store")
            }
        });
        Ok(Self { ui, env, directory, config, store, arguments: Vec::new() })
    }

    /// Keeps the command line; `store_named`: it says where the store is.
    #[must_use]
    pub fn started_with(mut self, arguments: &[OsString], store_named: bool) -> Self {
        if !store_named {
            self.arguments.extend(["--store".into(), self.store.clone().into()]);
        }
        self.arguments.extend(arguments.iter().skip(1).cloned());
        self
    }

    /// An environment variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The user's home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }

    /// The path of a file the user named, from the directory the command was given in.
    pub fn path(&self, named: &Path) -> PathBuf {
        if named.is_absolute() { named.to_owned() } else { self.directory.join(named) }
    }

    /// A runtime for network and containers, made by the verbs that need one.
    pub fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Error::failed("starting the runtime failed").because(error))
    }

    /// Runs `work` until it is done or a signal interrupts it. Interrupted work is dropped where it
    /// waits; what it was doing on a host is in the journal.
    pub fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime()?.block_on(async { signals::listen()?.guard(work).await })
    }
}
