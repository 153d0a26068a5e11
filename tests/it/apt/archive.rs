//! Archives made on the spot: Debian's layout and flat ones, indices and release files of our own making.

use std::collections::BTreeMap;

use bedplate::digest::Digest;
use jiff::Timestamp;

use super::{
    keys::{Keys, Signing, day},
    package::{Package, gzip, xz},
};

/// An archive as its files: path below its base address to bytes.
#[derive(Clone, Default)]
pub(crate) struct Archive(pub(crate) BTreeMap<String, Vec<u8>>);

/// How a release file is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `InRelease`.
    Inline,
    /// `Release` and `Release.gpg`.
    Apart,
    /// `Release` alone.
    None,
}

/// What a release file says.
#[derive(Clone)]
pub(crate) struct Release<'a> {
    pub(crate) suite: &'a str,
    pub(crate) codename: &'a str,
    /// The day it was made, from today.
    pub(crate) day: i64,
    /// The last day it is valid, from today.
    pub(crate) valid_until: Option<i64>,
    pub(crate) by_hash: bool,
    /// Which forms of an index there are: the ends of their names.
    pub(crate) compressions: &'a [&'a str],
    /// Which lists of hashes it has.
    pub(crate) hashes: &'a [&'a str],
    /// Further fields.
    pub(crate) more: &'a [(&'a str, &'a str)],
    pub(crate) form: Form,
    pub(crate) signing: Signing<'a>,
}

impl<'a> Release<'a> {
    /// One as the distributions have them.
    pub(crate) fn new(suite: &'a str, by: &'a [&'a str]) -> Self {
        Self {
            suite,
            codename: suite,
            day: -1,
            valid_until: Some(7),
            by_hash: true,
            compressions: &[".xz", ".gz"],
            hashes: &["SHA256"],
            more: &[],
            form: Form::Inline,
            signing: Signing::by(by),
        }
    }

    /// The text, with the indices of `files`, which are named relative to the release file.
    fn text(&self, components: &[&str], files: &BTreeMap<String, Vec<u8>>) -> String {
        let mut text = format!(
            "Origin: Test\nLabel: Test\nSuite: {}\nCodename: {}\nDate: {}\n",
            self.suite,
            self.codename,
            date(day(self.day))
        );
        if let Some(days) = self.valid_until {
            text += &format!("Valid-Until: {}\n", date(day(days)));
        }
        if self.by_hash {
            text += "Acquire-By-Hash: yes\n";
        }
        text += "Architectures: amd64\n";
        if !components.is_empty() {
            text += &format!("Components: {}\n", components.join(" "));
        }
        for (name, value) in self.more {
            text += &format!("{name}: {value}\n");
        }
        for list in self.hashes {
            text += &format!("{list}:\n");
            for (path, bytes) in files {
                text += &format!(" {} {} {path}\n", hash(list, bytes), bytes.len());
            }
        }
        text
    }
}

/// A hash as the list of that name holds it. Weak ones are never right: nothing here believes them, and apt, which holds
/// what it fetches against each, is given none.
fn hash(list: &str, bytes: &[u8]) -> String {
    let sha256 = Digest::of(bytes).hex();
    match list {
        "MD5Sum" => sha256[..32].to_owned(),
        "SHA1" => sha256[..40].to_owned(),
        _ => sha256,
    }
}

/// A moment as release files write it.
pub(crate) fn date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
}

impl Archive {
    /// Adds a suite in Debian's layout: its packages in `pool/`, its indices and release file in `dists/`.
    pub(crate) fn suite(&mut self, release: &Release<'_>, components: &[(&str, &[Package])], keys: &Keys) {
        let root = format!("dists/{}", release.suite);
        let mut indices = BTreeMap::new();
        for (component, packages) in components {
            let text = self.index(packages, |package| {
                let letter = &package.name[..1];
                format!("pool/{component}/{letter}/{}/{}", package.name, package.file_name())
            });
            indices.insert(format!("{component}/binary-amd64/Packages"), text.into_bytes());
        }
        let names: Vec<&str> = components.iter().map(|(name, _)| *name).collect();
        self.release(&root, release, &names, indices, keys);
    }

    /// Adds a flat repository at the top: packages, `Packages` and release file side by side.
    pub(crate) fn flat(&mut self, release: &Release<'_>, packages: &[Package], keys: &Keys) {
        let text = self.index(packages, |package| format!("./{}", package.file_name()));
        let indices = BTreeMap::from([("Packages".to_owned(), text.into_bytes())]);
        self.release("", release, &[], indices, keys);
    }

    /// Writes indices and release file anew for a suite of Debian's layout, with its packages as they are.
    fn release(
        &mut self,
        root: &str,
        release: &Release<'_>,
        components: &[&str],
        indices: BTreeMap<String, Vec<u8>>,
        keys: &Keys,
    ) {
        let below = |path: &str| if root.is_empty() { path.to_owned() } else { format!("{root}/{path}") };
        // The release file lists the plain form too, whether or not it is there, as the distributions' do.
        let mut listed = BTreeMap::new();
        for (path, text) in indices {
            for end in release.compressions {
                let bytes = match *end {
                    ".xz" => xz(&text),
                    ".gz" => gzip(&text),
                    _ => text.clone(),
                };
                if release.by_hash {
                    let (folder, _) = path.rsplit_once('/').unwrap_or((".", ""));
                    let hash = Digest::of(&bytes).hex();
                    self.0.insert(below(&format!("{folder}/by-hash/SHA256/{hash}")), bytes.clone());
                }
                self.0.insert(below(&format!("{path}{end}")), bytes.clone());
                listed.insert(format!("{path}{end}"), bytes);
            }
            listed.insert(path, text);
        }
        let text = release.text(components, &listed);
        self.sign(root, &text, release, keys);
    }

    /// Puts this text as release file where it belongs.
    pub(crate) fn sign(&mut self, root: &str, text: &str, release: &Release<'_>, keys: &Keys) {
        let below = |path: &str| if root.is_empty() { path.to_owned() } else { format!("{root}/{path}") };
        match release.form {
            Form::Inline => {
                self.0.insert(below("InRelease"), keys.clear(text, release.signing));
            }
            Form::Apart => {
                self.0.insert(below("Release"), text.as_bytes().to_vec());
                self.0.insert(below("Release.gpg"), keys.detached(text, release.signing));
            }
            Form::None => {
                self.0.insert(below("Release"), text.as_bytes().to_vec());
            }
        }
    }

    /// Adds the packages' files and returns their index.
    fn index(&mut self, packages: &[Package], path: impl Fn(&Package) -> String) -> String {
        let stanzas: Vec<String> = packages
            .iter()
            .map(|package| {
                let (path, deb) = (path(package), package.deb());
                let stanza = package.stanza(&path, &deb);
                self.0.insert(path.trim_start_matches("./").to_owned(), deb);
                stanza
            })
            .collect();
        stanzas.join("\n")
    }

    /// Replaces text in a file, which must hold it.
    pub(crate) fn edit(&mut self, path: &str, old: &str, new: &str) {
        let bytes = self.0.get_mut(path).unwrap_or_else(|| panic!("no `{path}`"));
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(old), "`{path}` has no {old:?}");
        *bytes = text.replacen(old, new, 1).into_bytes();
    }

    /// The paths of its packages.
    pub(crate) fn packages(&self) -> Vec<String> {
        self.0.keys().filter(|path| path.ends_with(".deb")).cloned().collect()
    }

    /// Everything under these prefixes is gone.
    pub(crate) fn without(mut self, part: &str) -> Self {
        self.0.retain(|path, _| !path.contains(part));
        self
    }

    /// Writes it to a directory.
    pub(crate) fn write(&self, directory: &std::path::Path) {
        for (path, bytes) in &self.0 {
            let path = directory.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}
