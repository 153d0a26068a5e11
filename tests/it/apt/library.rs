//! The library's reading of archives, as the tests ask for it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bedplate::{
    apt::{
        archive::{self, Access, KeyringFile, Read},
        transport::{Settings, Transport},
    },
    error::{Error, Result},
    progress::{Event, Progress},
};
use jiff::Timestamp;

/// An archive of the suite `noble` with one component.
pub(crate) fn noble(url: &str, key: &[u8]) -> archive::Archive {
    archive::Archive {
        name: "ubuntu".to_owned(),
        uris: vec![url.parse().unwrap()],
        suites: vec!["noble".to_owned()],
        components: vec!["main".to_owned()],
        keyring: KeyringFile { shown: "archive.gpg".to_owned(), bytes: key.to_vec() },
        snapshot: None,
        not_before: BTreeMap::new(),
    }
}

/// A flat repository.
pub(crate) fn flat(url: &str, key: &[u8]) -> archive::Archive {
    archive::Archive {
        name: "vendor".to_owned(),
        suites: vec!["/".to_owned()],
        components: Vec::new(),
        ..noble(url, key)
    }
}

/// Limits that no test waits long for.
pub(crate) fn settings() -> Settings {
    Settings {
        retries: 1,
        backoff: Duration::from_millis(5),
        connect_timeout: Duration::from_millis(500),
        response_timeout: Duration::from_millis(500),
        stall_timeout: Duration::from_millis(500),
        notice_after: Duration::from_millis(50),
        notice_every: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// Keeps what is said on the way.
#[derive(Default)]
struct Said {
    warnings: Mutex<Vec<String>>,
    /// What it was doing when it stood somewhere.
    notes: Mutex<Vec<String>>,
}

impl Progress for Said {
    fn event(&self, event: Event<'_>) {
        let (all, text) = match event {
            Event::Warning { text } => (&self.warnings, text),
            Event::Advanced { note: Some(note), .. } => (&self.notes, note),
            _ => return,
        };
        all.lock().unwrap_or_else(PoisonError::into_inner).push(text.into_owned());
    }
}

/// Reads one archive; also the warnings.
pub(crate) async fn read_warned(
    archive: &archive::Archive,
    cache: Option<&Path>,
) -> (Result<Read>, Vec<String>) {
    let (read, said) = read_said(archive, cache).await;
    (read, said.warnings.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Reads one archive; also what it said to be doing meanwhile.
pub(crate) async fn read_noted(archive: &archive::Archive) -> (Result<Read>, Vec<String>) {
    let (read, said) = read_said(archive, None).await;
    (read, said.notes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn read_said(archive: &archive::Archive, cache: Option<&Path>) -> (Result<Read>, Said) {
    let transport = Transport::new(settings());
    let architectures = ["amd64".to_owned()];
    let access =
        Access { transport: &transport, cache, architectures: &architectures, now: Timestamp::now() };
    let said = Said::default();
    let read = archive::read(std::slice::from_ref(archive), &access, &said).await;
    (read, said)
}

pub(crate) async fn read(archive: &archive::Archive, cache: Option<&Path>) -> Result<Read> {
    read_warned(archive, cache).await.0
}

/// `name version` of every package.
pub(crate) fn packages(read: &Read) -> Vec<String> {
    read.catalog.iter().map(|(_, record)| format!("{} {}", record.name, record.version)).collect()
}

/// All that an error says.
pub(crate) fn all(error: &Error) -> String {
    let mut lines = vec![error.to_string()];
    lines.extend(error.causes());
    lines.extend(error.hints().into_iter().map(|hint| format!("hint: {hint}")));
    lines.extend(error.related().iter().map(all));
    lines.join("\n")
}
