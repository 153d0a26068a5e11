//! Packages by digest into the store, from whichever mirror has them.

use url::Url;

use crate::{
    digest::Digest,
    error::Result,
    progress::Progress,
    store::{
        Store,
        fetch::{self, Fetched, Manner, Remote},
    },
};

/// A package to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// Its path below the archive's base address.
    pub path: String,
    /// Base addresses of the archive, in the order they are asked.
    pub uris: Vec<Url>,
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// bedplate has built it: it lies in no archive.
    pub is_built: bool,
}

/// Has every package in the store. What was fetched is kept, also where others fail.
///
/// # Errors
/// As [`fetch::fetch`]; also a package that is no sound `.deb`.
pub async fn fetch(
    store: &Store,
    wanted: &[Wanted],
    remote: &dyn Remote,
    progress: &dyn Progress,
) -> Result<Fetched> {
    let wanted: Vec<fetch::Wanted> = wanted.iter().map(place).collect();
    let manner = Manner { task: "packages", inspect: None };
    fetch::fetch(store, &wanted, remote, manner, progress).await
}

fn place(wanted: &Wanted) -> fetch::Wanted {
    let Wanted { name, version, architecture, .. } = wanted;
    let hints = if wanted.is_built {
        vec![
            "it lies in no archive: carry it from where it was built, by `bedplate provision --host` or `bedplate bundle \
             --with-packages -o FILE` there, or build it here: `bedplate lock --modules`"
                .to_owned(),
        ]
    } else if wanted.uris.is_empty() {
        vec!["name a mirror: `--mirror URL`, or `[archive.NAME] mirrors` in the configuration".to_owned()]
    } else {
        vec![
            format!("lock the version there is now: `bedplate lock --update package:{name}`"),
            "or take it from where it still is: `bedplate bundle --with-packages -o FILE` there, then `bedplate provision FILE`".to_owned(),
        ]
    };
    fetch::Wanted {
        digest: wanted.sha256,
        size: wanted.size,
        what: format!("package `{name}` {version} ({architecture})"),
        places: wanted.uris.iter().filter_map(|base| address(base, &wanted.path)).collect(),
        hints,
    }
}

/// The file at `path` below `base`: each part of the path is a name, whatever characters it has. `None` for a base that
/// is no place for files (`mailto:`).
pub fn address(base: &Url, path: &str) -> Option<Url> {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.path_segments_mut().ok()?.pop_if_empty().extend(path.split('/').filter(|part| !part.is_empty()));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_odd_names() {
        let address = |base: &str, path| address(&base.parse().unwrap(), path).map(String::from);
        for (base, path, want) in [
            (
                "http://m.example/debian",
                "pool/main/g/g++_1.deb",
                "http://m.example/debian/pool/main/g/g++_1.deb",
            ),
            ("http://m.example/debian/", "./x_1%3a2~1.deb", "http://m.example/debian/x_1%253a2~1.deb"),
            ("file:///srv/a", "b c/d.deb", "file:///srv/a/b%20c/d.deb"),
        ] {
            assert_eq!(address(base, path).as_deref(), Some(want));
        }
        assert_eq!(address("mailto:a@b", "x"), None);
    }
}
