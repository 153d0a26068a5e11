//! Takes out of facts what tells who and where a host is, word by word.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::Value;

use super::Words;
use crate::profile::secrets_like;

/// Names that everybody knows, and that rules look for.
pub(super) const PUBLIC: [&str; 8] = [
    "docker.io",
    "registry-1.docker.io",
    "nvidia.com",
    "nvcr.io",
    "ghcr.io",
    "quay.io",
    "huggingface.co",
    "public.ecr.aws",
];
/// So many characters name a GPU by the beginning of its UUID (`deploy.fit`).
pub(super) const UUID_BEGINS: usize = 8;
/// Stands where an address must be and none is known: of a network for benchmarks, which is nobody's (RFC 2544).
pub(super) const UNKNOWN: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 255);
/// Ends of names that are files or units, not hosts.
const FILES: &[&str] = &[
    "bin",
    "conf",
    "crt",
    "env",
    "gguf",
    "gz",
    "json",
    "key",
    "ko",
    "list",
    "lock",
    "log",
    "mount",
    "pem",
    "pid",
    "pt",
    "py",
    "safetensors",
    "scope",
    "service",
    "sh",
    "slice",
    "so",
    "sock",
    "socket",
    "sources",
    "target",
    "timer",
    "toml",
    "txt",
    "xz",
    "yaml",
    "yml",
    "zst",
];
/// Facts in which names of hosts stand alone, without a sentence around them.
const NAMED: [&str; 5] = ["hosts", "plain", "repo_digests", "daemon_keys", "published"];
/// Facts that name the one host, board or boot, whatever their form.
const IDENTITIES: [&str; 4] = ["uuid", "boot_id", "machine_id", "serial"];
/// Facts whose words are never a host's name: the distribution may be called as the host is.
const PLAIN: [&str; 2] = ["os", "kernel"];

/// What is taken out, and what stands for it: the same thing for the same word, so that what was equal stays equal.
pub(super) struct Scrub<'w> {
    shared: BTreeMap<&'w str, String>,
    kept: &'w BTreeSet<String>,
    host: &'w str,
    numbers: BTreeMap<String, usize>,
}

/// Where a string stands.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Names of hosts may stand alone here.
    named: bool,
    /// It names the one host or part.
    identity: bool,
    /// Nothing here is the host's name.
    plain: bool,
}

impl<'w> Scrub<'w> {
    pub(super) fn new(words: &'w Words, host: &'w str) -> Self {
        Self { shared: words.places(), kept: &words.kept, host, numbers: BTreeMap::new() }
    }

    /// Goes through all strings, keys as well.
    pub(super) fn all(&mut self, value: &mut Value) {
        self.value(value, Place::default());
    }

    fn value(&mut self, value: &mut Value, place: Place) {
        match value {
            Value::String(text) => *text = self.text(text, place),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item, place)),
            Value::Object(entries) => {
                let old = std::mem::take(entries);
                for (key, mut value) in old {
                    let below = Place {
                        named: place.named || NAMED.contains(&key.as_str()),
                        identity: place.identity || IDENTITIES.iter().any(|end| key.ends_with(end)),
                        plain: place.plain || PLAIN.contains(&key.as_str()),
                    };
                    if let Value::String(text) = &mut value
                        && key
                            .rsplit(['/', '.'])
                            .next()
                            .is_some_and(|name| secrets_like::name_says_secret(&name.replace('-', "_")))
                    {
                        "<secret>".clone_into(text);
                    }
                    self.value(&mut value, below);
                    entries.insert(self.text(&key, Place { identity: false, ..place }), value);
                }
            }
            _ => {}
        }
    }

    /// The same number for the same word.
    fn number(&mut self, word: &str) -> usize {
        let next = self.numbers.len() + 1;
        *self.numbers.entry(word.to_owned()).or_insert(next)
    }

    fn text(&mut self, text: &str, place: Place) -> String {
        if place.identity && !text.is_empty() && !text.contains(' ') {
            // A deployment may name a GPU by its UUID, or by the beginning of it.
            let named =
                self.shared.iter().find(|(word, _)| word.len() >= UUID_BEGINS && text.starts_with(**word));
            let (head, rest) = named.map_or((String::new(), text), |(word, place)| {
                (place.clone(), text.get(word.len()..).unwrap_or_default())
            });
            return if rest.is_empty() { head } else { format!("{head}<id-{}>", self.number(text)) };
        }
        let text = without_secrets(text);
        let free = place.named || text.contains(' ');
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_');
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        while let Some(start) = text.get(from..).and_then(|rest| rest.find(part)).map(|at| from + at) {
            let tail = text.get(start..).unwrap_or_default();
            let end = start + tail.find(|c: char| !part(c)).unwrap_or(tail.len());
            let before = text.get(..start).unwrap_or_default();
            out.push_str(text.get(from..start).unwrap_or_default());
            let word = text.get(start..end).unwrap_or_default();
            let address = before.ends_with("://") || before.ends_with('@');
            let path = before.ends_with('/') && !address;
            out.push_str(&self.word(word, free || address, path, place.plain));
            from = end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        out
    }

    /// `free`: a name of a host may stand here; `path`: it is a part of a path.
    fn word(&mut self, word: &str, free: bool, path: bool, plain: bool) -> String {
        if let Some(found) = self.known(word, free, path, plain) {
            return found;
        }
        // The end of a sentence, or of what is quoted.
        let bare = word.trim_end_matches(['.', ':']);
        let end = word.get(bare.len()..).unwrap_or_default();
        if let Some(found) = self.known(bare, free, path, plain) {
            return found + end;
        }
        if let Some((name, port)) = bare.rsplit_once(':')
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && let Some(found) = self.known(name, free, path, plain)
        {
            return format!("{found}:{port}{end}");
        }
        word.to_owned()
    }

    fn known(&mut self, word: &str, free: bool, path: bool, plain: bool) -> Option<String> {
        if let Some(place) = self.shared.get(word) {
            return (!path).then(|| place.clone());
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            return (!everywhere(&address)).then(|| self.address(address, word));
        }
        // A path stays, or the rules would not find it again.
        if path {
            return None;
        }
        if is_mac(word) {
            return Some(format!("<mac-{}>", self.number(word)));
        }
        if let Some(at) = uuid_at(word) {
            let head = word.get(..at).unwrap_or_default();
            return Some(format!("{head}<id-{}>", self.number(word.get(at..).unwrap_or_default())));
        }
        if plain || self.kept.contains(word) || PUBLIC.contains(&word) {
            return None;
        }
        // By its first label too: `uname -n` may give the whole name.
        let label = self.host.split('.').next().unwrap_or_default();
        let own = !label.is_empty()
            && word.strip_prefix(label).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if own && word != "localhost" {
            return Some("<host>".to_owned());
        }
        (free && is_name(word)).then(|| format!("<name-{}>", self.number(word)))
    }

    /// An address that is nobody's: of the networks for benchmarks (RFC 2544) and for documentation (RFC 3849).
    fn address(&mut self, address: IpAddr, word: &str) -> String {
        let number = u32::try_from(self.number(word)).unwrap_or(u32::MAX) % 0xffff;
        match address {
            IpAddr::V4(_) => Ipv4Addr::from(0xc612_0000 + number).to_string(),
            IpAddr::V6(_) => {
                Ipv6Addr::from(0x2001_0db8_0000_0000_0000_0000_0000_0000 + u128::from(number)).to_string()
            }
        }
    }
}

/// Addresses that every host has.
pub(super) fn everywhere(address: &IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// The dotted names in a text.
pub(super) fn dotted(text: &str) -> Vec<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.split(|c: char| !part(c)).filter(|word| is_name(word)).map(str::to_owned).collect()
}

/// Whether a word may be the name of a host: labels with dots between them, the last one of letters and no end of a file.
fn is_name(word: &str) -> bool {
    let Some((_, last)) = word.rsplit_once('.') else { return false };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    last.len() >= 2
        && last.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !FILES.contains(&last.to_ascii_lowercase().as_str())
        && word.split('.').all(label)
        && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Six pairs of hexadecimal digits (IEEE 802).
fn is_mac(word: &str) -> bool {
    [':', '-'].iter().any(|between| {
        let pairs: Vec<&str> = word.split(*between).collect();
        pairs.len() == 6
            && pairs.iter().all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

/// Where a UUID (RFC 9562) that ends the word begins.
fn uuid_at(word: &str) -> Option<usize> {
    let at = word.len().checked_sub(36)?;
    let parts: Vec<&str> = word.get(at..)?.split('-').collect();
    let lengths = parts.iter().map(|part| part.len());
    let hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (hex && lengths.eq([8, 4, 4, 4, 12])).then_some(at)
}

/// The text without tokens, and without what stands before the host in an address.
fn without_secrets(text: &str) -> String {
    let mut out = text.to_owned();
    if out.contains("PRIVATE KEY-----") {
        return "<secret>".to_owned();
    }
    for range in secrets_like::words(text).into_iter().rev() {
        out.replace_range(range, "<secret>");
    }
    let mut from = 0;
    while let Some(start) = out.get(from..).and_then(|rest| rest.find("://")).map(|at| from + at + 3) {
        let rest = out.get(start..).unwrap_or_default();
        let authority = rest.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(rest.len());
        if let Some(at) = rest.get(..authority).and_then(|authority| authority.rfind('@')) {
            out.replace_range(start..start + at, "<secret>");
        }
        from = start;
    }
    out
}
