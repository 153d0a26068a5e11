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
        ..Settings::default()
    }
}

/// Keeps what is said on the way.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Progress for Said {
    fn event(&self, event: Event<'_>) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.into_owned());
        }
    }
}

/// Reads one archive; also the warnings.
pub(crate) async fn read_warned(
    archive: &archive::Archive,
    cache: Option<&Path>,
) -> (Result<Read>, Vec<String>) {
    let transport = Transport::new(settings());
    let architectures = ["amd64".to_owned()];
    let access =
        Access { transport: &transport, cache, architectures: &architectures, now: Timestamp::now() };
    let said = Said::default();
    let read = archive::read(std::slice::from_ref(archive), &access, &said).await;
    (read, said.0.into_inner().unwrap_or_else(PoisonError::into_inner))
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
