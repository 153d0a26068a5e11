//! What is kept between two runs: indices in the form of [`Index::to_bytes`], by the digest of the compressed index
//! they were read from, and release files as they came, by their address. All of it can be removed at any time;
//! whatever is broken is fetched and made anew.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use url::Url;

use crate::{
    apt::{index::Index, transport::Validators},
    digest::Digest,
    error::{Error, Result},
    progress::Progress,
    system::{
        clock,
        files::{self, Owner, Root},
    },
};

/// The end of an index's name.
const INDEX: &str = ".index";
/// The end of a release file's name.
const RELEASE: &str = ".release";
/// The largest entry that is read, in bytes.
const LARGEST: u64 = 2 << 30;
/// An entry that is used and older than this is written again, so that its age tells when it was last used.
const RENEWED: Duration = Duration::from_hours(24 * 2);
/// An entry older than this is removed.
const KEPT: Duration = Duration::from_hours(24 * 7);

/// A directory of entries, or none.
pub(super) struct Cache {
    root: Option<Root>,
    /// The first thing that went wrong: nothing fails because of it.
    trouble: Mutex<Option<Error>>,
}

/// A file as it came from its address.
pub(super) struct Kept {
    pub(super) validators: Validators,
    pub(super) content: Vec<u8>,
}

/// The first line of a kept file.
#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    digest: String,
    validators: Validators,
}

impl Cache {
    /// Opens the directory, making it where it is not there.
    pub(super) fn open(directory: Option<&Path>) -> Self {
        let cache = Self { root: None, trouble: Mutex::default() };
        let Some(directory) = directory else { return cache };
        let opened = files::make_private_dir(directory).and_then(|()| Root::open(directory));
        match opened {
            Ok(root) => Self { root: Some(root), ..cache },
            Err(error) => {
                cache.note(error);
                cache
            }
        }
    }

    /// The index that was read from a file of this digest.
    pub(super) fn index(&self, digest: &Digest) -> Option<Index> {
        let name = format!("/{}{INDEX}", digest.hex());
        let bytes = self.get(&name)?;
        let index = Index::from_bytes(bytes)?;
        if self.is_aged(&name, RENEWED) {
            self.keep_index(digest, &index);
        }
        Some(index)
    }

    /// Keeps an index that was read from a file of this digest.
    pub(super) fn keep_index(&self, digest: &Digest, index: &Index) {
        if self.root.is_some() {
            self.put(&format!("/{}{INDEX}", digest.hex()), &index.to_bytes());
        }
    }

    /// The file that came from this address, and what names its version there.
    pub(super) fn file(&self, url: &Url) -> Option<Kept> {
        let name = name(url);
        let mut bytes = self.get(&name)?;
        let end = memchr::memchr(b'\n', &bytes)?;
        let head: Head = serde_json::from_slice(bytes.get(..end)?).ok()?;
        let content = bytes.split_off(end + 1);
        if head.validators.is_empty() || head.digest != Digest::of(&content).to_string() {
            return None;
        }
        let kept = Kept { validators: head.validators, content };
        if self.is_aged(&name, RENEWED) {
            self.keep_file(url, &kept);
        }
        Some(kept)
    }

    /// Keeps a file that came from this address, where it can be asked for conditionally.
    pub(super) fn keep_file(&self, url: &Url, kept: &Kept) {
        if self.root.is_none() || kept.validators.is_empty() {
            return;
        }
        let head =
            Head { digest: Digest::of(&kept.content).to_string(), validators: kept.validators.clone() };
        let Ok(mut bytes) = serde_json::to_vec(&head) else { return };
        bytes.push(b'\n');
        bytes.extend_from_slice(&kept.content);
        self.put(&name(url), &bytes);
    }

    /// Removes what was not used for long, and says what went wrong.
    pub(super) fn finish(&self, progress: &dyn Progress) {
        if let Some(root) = &self.root
            && let Err(error) = self.sweep(root)
        {
            self.note(error);
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = trouble {
            progress.warning(&format!("indices are not kept for the next run: {error}"));
        }
    }

    fn sweep(&self, root: &Root) -> Result<()> {
        root.sweep("/")?;
        for entry in root.list("/")? {
            let name = format!("/{}", entry.name);
            if !entry.is_dir
                && (name.ends_with(INDEX) || name.ends_with(RELEASE))
                && self.is_aged(&name, KEPT)
            {
                root.remove_file(&name)?;
            }
        }
        Ok(())
    }

    fn is_aged(&self, name: &str, age: Duration) -> bool {
        let Some(Ok(Some(stat))) = self.root.as_ref().map(|root| root.stat(name)) else { return false };
        let lived = clock::now().duration_since(stat.modified);
        lived.as_secs() > age.as_secs().cast_signed()
    }

    fn get(&self, name: &str) -> Option<Vec<u8>> {
        match self.root.as_ref()?.read(name, LARGEST) {
            Ok(found) => found,
            Err(error) => {
                self.note(error);
                None
            }
        }
    }

    fn put(&self, name: &str, content: &[u8]) {
        if let Some(root) = &self.root
            && let Err(error) = root.write(name, content, 0o600, Owner::current())
        {
            self.note(error);
        }
    }

    fn note(&self, error: Error) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// An address is too long for a name, and may hold what nobody should read.
fn name(url: &Url) -> String {
    format!("/{}{RELEASE}", Digest::of(url.as_str()).hex())
}
