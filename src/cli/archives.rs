//! From the machine's settings to archives of packages: where they are, what they are verified with, how they are
//! reached.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use super::Context;
use crate::{
    apt::{
        archive::{Archive, KeyringFile, SNAPSHOT_ID},
        sources::{self, Proxies},
        transport::{Settings, Transport},
    },
    error::{Error, Result},
    lock::Lock,
    profile::{self, Distribution, Profile},
    system::files,
};

/// Where apt's configuration is.
const APT: &str = "/etc/apt";
/// Size limit of a keyring, in bytes.
const KEYRING_LIMIT: u64 = 16 << 20;

/// What a distribution's archives are made of.
struct Layout {
    /// Names of the archive with the release and its updates, and of the one with the security updates.
    names: [&'static str; 2],
    components: &'static [&'static str],
    keyring: &'static str,
    /// The package that the keyring is from.
    package: &'static str,
}

fn layout(distribution: Distribution) -> Layout {
    match distribution {
        Distribution::Debian => Layout {
            names: ["debian", "debian-security"],
            components: &["main", "contrib", "non-free", "non-free-firmware"],
            keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
            package: "debian-archive-keyring",
        },
        Distribution::Ubuntu => Layout {
            names: ["ubuntu", "ubuntu-security"],
            components: &["main", "restricted", "universe", "multiverse"],
            keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
            package: "ubuntu-keyring",
        },
    }
}

/// Warns of every `[archive.NAME]` of the configuration that is neither a distribution's archive nor a repository of the
/// profile: nothing reads it.
pub fn warn_of_unused(context: &Context, profile: &Profile) {
    let distributions = [Distribution::Debian, Distribution::Ubuntu];
    let own = distributions.into_iter().flat_map(|distribution| layout(distribution).names);
    let repositories = profile.host.repositories.iter().map(|repository| repository.name.as_str());
    let known: Vec<&str> = own.chain(repositories).collect();
    for name in context.config.archive.keys().filter(|name| !known.contains(&name.as_str())) {
        let place = context.config.place(&format!("[archive.{name}]"));
        let hint = match profile::nearest(name, &known) {
            Some(near) => format!("did you mean `[archive.{near}]`?"),
            None => format!("the archives of this profile are {}", known.join(", ")),
        };
        context.ui.warn_at(
            &format!("`[archive.{name}]` is no archive of this profile"),
            place.as_ref(),
            &hint,
        );
    }
}

/// Base addresses of every archive of a profile, by name, in the order they are asked: `mirror` (for the distribution's
/// own), the configuration file's snapshots where the profile is of one, its mirrors, then what the machine's apt uses,
/// or what the profile says. None are known of the distribution's where nothing says any.
///
/// # Errors
/// An address is none, or apt's configuration cannot be listed.
pub fn places(
    context: &Context,
    profile: &Profile,
    mirror: Option<&str>,
) -> Result<BTreeMap<String, Vec<Url>>> {
    let snapshot = profile.host.snapshot.as_deref();
    let mut places = templates(context, profile, mirror)?;
    for urls in places.values_mut() {
        *urls = urls
            .drain(..)
            .filter_map(|url| match (url.path().contains(SNAPSHOT_ID), snapshot) {
                (false, _) => Some(url),
                (true, Some(id)) => url.as_str().replace(SNAPSHOT_ID, id).parse().ok(),
                (true, None) => None,
            })
            .collect();
    }
    Ok(places)
}

/// As [`places`], with `@SNAPSHOTID@` as it stands.
fn templates(
    context: &Context,
    profile: &Profile,
    mirror: Option<&str>,
) -> Result<BTreeMap<String, Vec<Url>>> {
    let host = &profile.host;
    let [main, security] = layout(host.distribution).names;
    let mirror = mirror.map(|text| address(text, "--mirror")).transpose()?;
    let directory = context.config.apt_directory.as_deref().unwrap_or(Path::new(APT));
    let apt = sources::bases(&sources::read(directory)?, host.distribution.id());
    let beside = |url: &Url| security_beside(host.distribution, url);

    let mut places = BTreeMap::new();
    let configured = configured(context, main)?;
    let mut urls: Vec<Url> = mirror.iter().cloned().collect();
    urls.extend(configured.iter().cloned());
    urls.extend(apt.main.iter().cloned());
    places.insert(main.to_owned(), once(urls));

    let mut urls: Vec<Url> = mirror.iter().filter_map(beside).collect();
    urls.extend(self::configured(context, security)?);
    urls.extend(configured.iter().filter(|url| !url.path().contains(SNAPSHOT_ID)).filter_map(beside));
    urls.extend(apt.security);
    urls.extend(apt.main.iter().filter_map(beside));
    places.insert(security.to_owned(), once(urls));

    for repository in &host.repositories {
        let mut urls = self::configured(context, &repository.name)?;
        urls.push(address(&repository.uri, &format!("uri` of the repository `{}", repository.name))?);
        places.insert(repository.name.clone(), once(urls));
    }
    Ok(places)
}

/// What the configuration file says of an archive: its snapshots, its mirrors.
fn configured(context: &Context, name: &str) -> Result<Vec<Url>> {
    let Some(archive) = context.config.archive.get(name) else { return Ok(Vec::new()) };
    let mut urls = Vec::new();
    if let Some(template) = &archive.snapshot {
        let url = address(template, &format!("snapshot` of `[archive.{name}]"))?;
        if !url.path().contains(SNAPSHOT_ID) {
            return Err(Error::usage(format!(
                "`snapshot` of `[archive.{name}]` has no `{SNAPSHOT_ID}` in it"
            ))
            .hint(format!("write that where the time belongs: `snapshot = \"https://…/{SNAPSHOT_ID}/\"`")));
        }
        urls.push(url);
    }
    for mirror in &archive.mirrors {
        urls.push(address(mirror, &format!("mirrors` of `[archive.{name}]"))?);
    }
    Ok(urls)
}

/// Where mirrors have the security updates: Debian's beside `debian`, Ubuntu's in the same archive.
fn security_beside(distribution: Distribution, main: &Url) -> Option<Url> {
    match distribution {
        Distribution::Ubuntu => Some(main.clone()),
        Distribution::Debian => {
            let path = main.path().trim_end_matches('/').strip_suffix("/debian")?.to_owned();
            let mut url = main.clone();
            url.set_path(&format!("{path}/debian-security"));
            Some(url)
        }
    }
}

fn address(text: &str, place: &str) -> Result<Url> {
    text.parse::<Url>()
        .ok()
        .filter(|url| match url.scheme() {
            "file" => true,
            "http" | "https" => url.has_host(),
            _ => false,
        })
        .ok_or_else(|| {
            Error::usage(format!("`{place}` is no address of an archive: `{}`", text.escape_debug()))
                .hint("write one that begins with `https://`, `http://` or `file:///`")
        })
}

/// Each once, in their order.
fn once(urls: Vec<Url>) -> Vec<Url> {
    let bare = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
    let mut all: Vec<Url> = Vec::new();
    for url in urls {
        if all.iter().all(|before| bare(before) != bare(&url)) {
            all.push(url);
        }
    }
    all
}

/// The archives of a profile: the distribution's own, then its repositories. `keyrings`: the files that the profile
/// names, by the path as written in it. `old`: what was verified before, which must not go back.
///
/// # Errors
/// As [`places`]; also a keyring that is not there, a date in the lock that is none, and that nothing says where the
/// distribution's archives are.
pub fn archives(
    context: &Context,
    profile: &Profile,
    keyrings: &BTreeMap<String, Vec<u8>>,
    mirror: Option<&str>,
    old: Option<&Lock>,
) -> Result<Vec<Archive>> {
    let host = &profile.host;
    let mut places = templates(context, profile, mirror)?;
    let Layout { names: [main, security], components, .. } = layout(host.distribution);
    let mut archives = Vec::new();
    let release = &host.release;
    let mut suites = vec![release.clone(), format!("{release}-updates")];
    if host.backports {
        suites.push(format!("{release}-backports"));
    }
    for (name, suites) in [(main, suites), (security, vec![format!("{release}-security")])] {
        let uris = places.remove(name).unwrap_or_default();
        if uris.is_empty() {
            return Err(Error::usage(format!(
                "no mirror of the archive `{name}` is known: nothing in this machine's apt configuration is of {}",
                host.distribution.id()
            ))
            .hint(format!(
                "name one: `--mirror URL`, or `[archive.{name}]` with `mirrors = [\"…\"]` in the configuration file"
            )));
        }
        archives.push(Archive {
            name: name.to_owned(),
            uris,
            suites,
            components: components.iter().map(|name| (*name).to_owned()).collect(),
            keyring: distribution_keyring(context, host.distribution, name)?,
            snapshot: host.snapshot.clone(),
            not_before: seen(old, name)?,
        });
    }
    for repository in &host.repositories {
        let name = &repository.name;
        let bytes = keyrings.get(&repository.keyring).cloned().ok_or_else(|| {
            Error::usage(format!(
                "the keyring `{}` of the repository `{name}` was not read",
                repository.keyring
            ))
            .hint("put the archive's public key there")
        })?;
        // Vendors keep no snapshots, unless the configuration says where.
        let keeps = context.config.archive.get(name).is_some_and(|archive| archive.snapshot.is_some());
        archives.push(Archive {
            name: name.clone(),
            uris: places.remove(name).unwrap_or_default(),
            suites: repository.suites.clone(),
            components: repository.components.clone(),
            keyring: KeyringFile { shown: repository.keyring.clone(), bytes },
            snapshot: host.snapshot.clone().filter(|_| keeps),
            not_before: seen(old, name)?,
        });
    }
    Ok(archives)
}

/// The keyring of the distribution's archives: the configuration file's, else that of its package.
fn distribution_keyring(context: &Context, distribution: Distribution, name: &str) -> Result<KeyringFile> {
    let Layout { names: [main, _], keyring, package, .. } = layout(distribution);
    let configured = [name, main]
        .into_iter()
        .find_map(|name| context.config.archive.get(name)?.keyring.as_ref())
        .map(|path| context.path(path));
    let is_default = configured.is_none();
    let path = configured.unwrap_or_else(|| PathBuf::from(keyring));
    let shown = path.display().to_string();
    if is_default && !files::exists(&path) {
        return Err(Error::usage(format!("the keyring of the archive `{name}` is not here: `{shown}`")).hint(format!(
            "install the package that has it: `apt install {package}`; or name another: `[archive.{main}]` with \
             `keyring = \"PATH\"` in the configuration file"
        )));
    }
    Ok(KeyringFile { bytes: files::read_input(&path, KEYRING_LIMIT)?, shown })
}

/// The dates of an archive's release files as they were locked.
fn seen(old: Option<&Lock>, name: &str) -> Result<BTreeMap<String, jiff::Timestamp>> {
    let Some(repository) = old.and_then(|lock| lock.repositories.get(name)) else {
        return Ok(BTreeMap::new());
    };
    let mut dates = BTreeMap::new();
    for (suite, locked) in &repository.suites {
        let date = locked.date.parse().map_err(|error| {
            Error::usage(format!(
                "the lock's date of `{name}` `{suite}` is none: `{}`",
                locked.date.escape_debug()
            ))
            .because(error)
            .hint("run `bedplate lock --update-all`")
        })?;
        dates.insert(suite.clone(), date);
    }
    Ok(dates)
}

/// Where release files and indices are kept between two runs: beside the store's own directories.
pub fn cache(context: &Context) -> PathBuf {
    context.store.join("indices")
}

/// Connections to mirrors by the configuration files, the environment and apt's proxies.
pub fn transport(context: &Context) -> Transport {
    let config = &context.config;
    let mut settings = Settings::default();
    for archive in config.archive.values() {
        let Some(ca) = &archive.ca else { continue };
        for text in archive.mirrors.iter().chain(&archive.snapshot) {
            if let Some(host) = text.parse().ok().as_ref().and_then(authority) {
                settings.authorities.insert(host, context.path(ca));
            }
        }
    }
    if let Some(seconds) = config.timeout_seconds {
        let limit = Duration::from_secs(seconds);
        (settings.connect_timeout, settings.response_timeout, settings.stall_timeout) = (limit, limit, limit);
        settings.slow_after = settings.slow_after.max(limit);
    }
    settings.retries = config.retries.map_or(settings.retries, |retries| retries.min(20));
    let said = ["http_proxy", "https_proxy", "all_proxy"];
    if !said.iter().any(|name| context.variable(name).or(context.variable(&name.to_uppercase())).is_some()) {
        let directory = config.apt_directory.as_deref().unwrap_or(Path::new(APT));
        settings.proxies = sources::read_proxies(directory).unwrap_or_else(|_| Proxies::default());
    }
    Transport::new(settings)
}

/// Host with port, without the scheme's default port.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
#[path = "archives_tests.rs"]
mod tests;
