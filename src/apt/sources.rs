//! The machine's own configuration of apt, as far as it says where archives are: sources.list(5) in both of its forms,
//! and the proxies of apt.conf(5).
//!
//! Not read: methods other than `http:`, `https:` and `file:` (so no `mirror:` lists), variables other than `$(ARCH)`,
//! proxies of single hosts and `ProxyAutoDetect`, and `#include` of configuration files. What cannot be read is passed
//! over: what apt makes of it is apt's to say.

use std::path::Path;

use url::Url;

use super::{conf, control};
use crate::{error::Result, system::files};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// The most addresses times suites of one entry.
const MOST: usize = 1000;

/// Releases that are known, by distribution: what distinguishes its archive from others.
const RELEASES: &[(&str, &[&str])] = &[
    (
        "debian",
        &[
            "buster",
            "bullseye",
            "bookworm",
            "trixie",
            "forky",
            "duke",
            "sid",
            "oldoldstable",
            "oldstable",
            "stable",
            "testing",
            "unstable",
        ],
    ),
    ("ubuntu", &["bionic", "focal", "jammy", "noble", "oracular", "plucky", "questing", "resolute"]),
];

/// Where packages come from: one address and one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The base address.
    pub uri: Url,
    /// The suite, or the path of a flat repository.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
    /// `Signed-By`: a path or fingerprints; `key` where the key stands there itself; empty where nothing is said.
    pub signed_by: String,
}

/// Where a distribution's archives are, as the machine's sources say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bases {
    /// The archive with the release itself and its updates.
    pub main: Vec<Url>,
    /// The archive with the security updates.
    pub security: Vec<Url>,
}

/// Proxies by the kind of address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    /// For `http:`.
    pub http: Option<Url>,
    /// For `https:`.
    pub https: Option<Url>,
}

/// The sources of a configuration directory (`/etc/apt`): `sources.list`, then `sources.list.d` by name. What is not
/// there, or may not be read, counts for nothing.
///
/// # Errors
/// A directory cannot be listed.
pub fn read(directory: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let text = |path: &Path| {
        files::read_input(path, LARGEST)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    sources.extend(one_line(&text(&directory.join("sources.list"))));
    let folder = directory.join("sources.list.d");
    for entry in files::list_input(&folder)?.unwrap_or_default() {
        let path = folder.join(&entry.name);
        match path.extension().and_then(|end| end.to_str()) {
            Some("list") => sources.extend(one_line(&text(&path))),
            Some("sources") => sources.extend(deb822(&text(&path))),
            _ => {}
        }
    }
    Ok(sources)
}

/// The proxies of a configuration directory: `apt.conf.d` by name, then `apt.conf`. What is not there, or may not be
/// read, counts for nothing.
///
/// # Errors
/// A directory cannot be listed.
pub fn read_proxies(directory: &Path) -> Result<Proxies> {
    let folder = directory.join("apt.conf.d");
    let mut paths: Vec<_> = files::list_input(&folder)?
        .unwrap_or_default()
        .into_iter()
        .map(|entry| folder.join(entry.name))
        .filter(|path| path.extension().is_none_or(|end| end == "conf"))
        .collect();
    paths.push(directory.join("apt.conf"));
    let mut all = Proxies::default();
    for path in paths {
        let Ok(bytes) = files::read_input(&path, LARGEST) else { continue };
        let Proxies { http, https } = proxies(&String::from_utf8_lossy(&bytes));
        all = Proxies { http: http.or(all.http), https: https.or(all.https) };
    }
    Ok(all)
}

/// The one-line form: `deb [options] URI SUITE COMPONENT…`.
pub fn one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '['])) else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            None => ("", rest),
            Some(rest) => match rest.split_once(']') {
                Some(split) => split,
                None => continue,
            },
        };
        let signed_by = options.split_whitespace().find_map(|option| {
            let (name, value) = option.split_once('=')?;
            name.trim_end_matches(['+', '-']).eq_ignore_ascii_case("signed-by").then_some(value)
        });
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        let components: Vec<String> = words.map(str::to_owned).collect();
        add(&mut sources, [uri], &[suite.to_owned()], &components, signed_by.unwrap_or_default());
    }
    sources
}

/// The form of `.sources` files (deb822(5)).
pub fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    // Comments may stand between the lines of a value.
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let text = lines.fold(String::new(), |text, line| text + line.trim_end() + "\n");
    // A broken stanza does not take the others along.
    for stanza in text.split("\n\n") {
        for stanza in control::stanzas(stanza.as_bytes()).unwrap_or_default() {
            let on = stanza.get("Enabled").is_none_or(|word| {
                !["no", "false", "without", "off", "disable", "0"]
                    .iter()
                    .any(|no| word.eq_ignore_ascii_case(no))
            });
            if !on || !stanza.words("Types").iter().any(|kind| kind == "deb") {
                continue;
            }
            let signed_by = stanza.get("Signed-By").unwrap_or_default().trim();
            let signed_by = if signed_by.contains("BEGIN PGP") { "key" } else { signed_by };
            let uris = stanza.words("URIs");
            add(
                &mut sources,
                uris.iter().map(String::as_str),
                &stanza.words("Suites"),
                &stanza.words("Components"),
                signed_by,
            );
        }
    }
    sources
}

fn add<'u>(
    sources: &mut Vec<Source>,
    uris: impl IntoIterator<Item = &'u str>,
    suites: &[String],
    components: &[String],
    signed_by: &str,
) {
    let pairs = uris.into_iter().flat_map(|uri| suites.iter().map(move |suite| (uri, suite)));
    for (uri, suite) in pairs.take(MOST) {
        let Ok(uri) = uri.replace("$(ARCH)", "amd64").parse::<Url>() else { continue };
        if !matches!(uri.scheme(), "http" | "https" | "file") || uri.cannot_be_a_base() {
            continue;
        }
        sources.push(Source {
            uri,
            suite: suite.clone(),
            components: components.to_vec(),
            signed_by: signed_by.to_owned(),
        });
    }
}

/// Where the archives of a distribution (`debian`, `ubuntu`) are by these sources, of whichever of its releases: each
/// once, in their order. A vendor's repository that calls its suites by the distribution's names is told apart by its
/// keyring, or the end of its address.
pub fn bases(sources: &[Source], distribution: &str) -> Bases {
    let mut bases = Bases::default();
    let Some((_, releases)) = RELEASES.iter().find(|(name, _)| *name == distribution) else { return bases };
    let keyring = format!("{distribution}-archive");
    let is_of = |source: &Source| {
        let signed = source.signed_by.contains(&keyring);
        let end = source.uri.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let known = releases.contains(&release_of(&source.suite));
        let named = end == distribution || end == format!("{distribution}-security");
        known
            && source.components.iter().any(|name| name == "main")
            && (signed || (named && source.signed_by.is_empty()))
    };
    for source in sources.iter().filter(|source| is_of(source)) {
        let security = source.suite.ends_with("-security") || source.suite.ends_with("/updates");
        let all = if security { &mut bases.security } else { &mut bases.main };
        let bare = |uri: &Url| uri.as_str().trim_end_matches('/').to_owned();
        if all.iter().all(|before| bare(before) != bare(&source.uri)) {
            all.push(source.uri.clone());
        }
    }
    bases
}

/// The release that a suite belongs to: `trixie` of `trixie-updates`.
fn release_of(suite: &str) -> &str {
    ["-updates", "-security", "-backports", "-proposed", "-proposed-updates", "/updates"]
        .iter()
        .find_map(|end| suite.strip_suffix(end))
        .unwrap_or(suite)
}

/// `Acquire::http::Proxy` and `Acquire::https::Proxy` of a configuration file, in both of its forms. `DIRECT` and
/// the empty text mean none.
pub fn proxies(text: &str) -> Proxies {
    let mut proxies = Proxies::default();
    for (name, value) in conf::settings(text) {
        let place = match name.to_ascii_lowercase().as_str() {
            "acquire::http::proxy" => &mut proxies.http,
            "acquire::https::proxy" => &mut proxies.https,
            _ => continue,
        };
        *place = proxy(&value);
    }
    proxies
}

fn proxy(value: &str) -> Option<Url> {
    let url: Url = value.parse().ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
