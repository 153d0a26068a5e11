//! An image's record: from what it was made, and what its parts are, by digest.
//!
//! It stands beside the image as `NAME.record.json`, and in the image's tree at [`IN_TREE`] without the parts that the
//! tree is in, since a file cannot hold its own digest, and without the program that made it: what has no program in it
//! does not differ by that. There is one way to write a record, so that the same build gives the
//! same bytes, and nothing else is read as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A part of an image: some bytes, by what they are.
pub use super::write::Content as Part;
use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// Version of the record's form that this bedplate reads and writes.
pub const SCHEMA: u32 = 1;
/// Where a tree has its record.
pub const IN_TREE: &str = "/usr/lib/bedplate/record.json";
/// Largest record that is read, in bytes.
pub const MAX_SIZE: u64 = 1 << 20;

/// The record of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The image's name, without directory and extension.
    pub image: String,
    /// Digest of the image definition as parsed.
    pub definition: Digest,
    /// Digest of the lock's canonical text.
    pub lock: Digest,
    /// Digest of all it was made from: definition, profile, lock and files, and the program where the image has it.
    pub inputs: Digest,
    /// Version of the bedplate that made it.
    pub tool: String,
    /// Digest of that program; absent in the tree's own record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Digest>,
    /// The image's time, in seconds since 1970: nothing in it is newer.
    pub time: i64,
    /// The driver modules built for it, by kernel release. They are part of the tree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, Modules>,
    /// What the image was written as; absent in the tree's own record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
}

/// Driver modules of one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Modules {
    /// Upstream version of the driver.
    pub driver: String,
    /// The package that the modules are in.
    pub package: Part,
}

/// What an image was written as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parts {
    /// The files of its formats, by name: `NAME.tar.zst`, `NAME.raw`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Part>,
    /// Its OCI image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<Oci>,
    /// What is on its disk, raw or in qcow2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// What is on a disk. Its partition table is made from the sizes of the partitions and the digest of the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Disk {
    /// The EFI system partition.
    pub esp: Part,
    /// The unified kernel image on it.
    pub kernel: Part,
    /// The root partition.
    pub root: Part,
}

/// An OCI image (OCI image specification, manifest.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Oci {
    /// The manifest: what a host pulls.
    pub manifest: Part,
    /// The configuration.
    pub config: Part,
    /// The layers as they are transferred, lowest first.
    pub layers: Vec<Part>,
}

/// The name of the record beside the image `image`.
pub fn file_name(image: &str) -> String {
    format!("{image}.record.json")
}

impl Record {
    /// The same record as the tree holds it: without the program, and the parts that the tree is in.
    pub fn in_tree(&self) -> Self {
        Self { program: None, parts: None, ..self.clone() }
    }

    /// The record's one text: JSON with its keys in the order of their declaration, names sorted, two blanks a level,
    /// and a newline at the end. [`parse`] gives the same record back.
    ///
    /// # Errors
    /// None in practice: the text cannot be made.
    pub fn write(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::failed("writing an image's record").because(error))?;
        text.push('\n');
        Ok(text)
    }
}

/// Reads a record. `path` is only for messages.
///
/// # Errors
/// It is of a newer form, or not exactly what [`Record::write`] writes: unknown or doubled keys, another order, other
/// white space, a name that is no file's.
pub fn parse(path: &str, text: &str) -> Result<Record> {
    let broken = |what: &str| {
        Error::failed(format!("`{path}` is no record of an image: {what}"))
            .hint("build the image again: `bedplate build`")
    };
    if text.len() as u64 > MAX_SIZE {
        return Err(broken("it is too large"));
    }
    // Read first by itself: a newer form may have anything besides.
    let schema: Schema =
        serde_json::from_str(text).map_err(|error| broken("it cannot be read").because(error))?;
    if schema.schema > SCHEMA {
        return Err(Error::failed(format!(
            "`{path}` was made by a newer bedplate (record schema {}, this one reads {SCHEMA})",
            schema.schema
        ))
        .hint("use that bedplate, or a newer one"));
    }
    if schema.schema != SCHEMA {
        return Err(broken("no record has this schema"));
    }
    let record: Record =
        serde_json::from_str(text).map_err(|error| broken("it cannot be read").because(error))?;
    let names =
        std::iter::once(&record.image).chain(record.parts.iter().flat_map(|parts| parts.files.keys()));
    for name in names.chain(record.modules.keys()) {
        if !is_file_name(name) {
            return Err(broken(&format!("`{}` is no name", name.escape_debug())));
        }
    }
    if record.write()? != text {
        return Err(broken("it is not as bedplate writes it; something changed it"));
    }
    Ok(record)
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

/// Whether this is one component of a path.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.chars().any(|c| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Record {
        let part = |seed: &str| Part::of(seed.as_bytes());
        Record {
            schema: SCHEMA,
            image: "minimal".to_owned(),
            definition: Digest::of("definition"),
            lock: Digest::of("lock"),
            inputs: Digest::of("inputs"),
            tool: "0.1.0".to_owned(),
            program: Some(Digest::of("program")),
            time: 1_763_716_500,
            modules: BTreeMap::from([(
                "6.12.117+deb13-amd64".to_owned(),
                Modules { driver: "550.163.01".to_owned(), package: part("modules") },
            )]),
            parts: Some(Parts {
                files: BTreeMap::from([
                    ("minimal.tar.zst".to_owned(), part("tar")),
                    ("minimal.raw".to_owned(), part("a disk")),
                ]),
                oci: Some(Oci {
                    manifest: part("manifest"),
                    config: part("config"),
                    layers: vec![part("base"), part("top")],
                }),
                disk: Some(Disk { esp: part("esp"), kernel: part("kernel"), root: part("root") }),
            }),
        }
    }

    #[test]
    fn a_record_has_one_text() {
        let record = example();
        let text = record.write().unwrap();
        assert!(
            text.starts_with("{\n  \"schema\": 1,\n  \"image\": \"minimal\",\n  \"definition\": \"sha256:"),
            "{text}"
        );
        assert!(text.find("minimal.raw") < text.find("minimal.tar.zst"), "{text}");
        assert_eq!(parse("x", &text).unwrap(), record);
        let inside = record.in_tree().write().unwrap();
        assert!(
            !inside.contains("parts") && !inside.contains("program") && inside.contains("modules"),
            "{inside}"
        );
        assert_eq!(parse("x", &inside).unwrap(), record.in_tree());
        assert_eq!(file_name("minimal"), "minimal.record.json");
    }

    #[test]
    fn what_is_not_as_it_is_written_is_refused() {
        let text = example().write().unwrap();
        for (from, to, part) in [
            ("\"schema\": 1", "\"schema\": 0", "no record has this schema"),
            ("\"schema\": 1", "\"schema\": \"1\"", "cannot be read"),
            ("\"schema\": 1,", "", "cannot be read"),
            ("\"image\": \"minimal\"", "\"image\": \"../minimal\"", "`../minimal` is no name"),
            ("\"image\": \"minimal\"", "\"image\": \"\"", "`` is no name"),
            ("minimal.raw", "a/b", "`a/b` is no name"),
            ("minimal.raw", "minimal.tar.zst", "not as bedplate writes it"),
            ("\"tool\"", "\"more\": 1, \"tool\"", "cannot be read"),
            ("\"time\": 1763716500", "\"time\":1763716500", "not as bedplate writes it"),
            ("\"time\": 1763716500", "\"time\": 1.5", "cannot be read"),
            ("\"size\": 3", "\"size\": -3", "cannot be read"),
            ("sha256:", "sha512:", "cannot be read"),
            ("\n}\n", "\n}", "not as bedplate writes it"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let error = parse("x.json", &changed).expect_err(to);
            assert!(error.message().starts_with("`x.json` is no record of an image: "), "{error}");
            assert!(error.message().contains(part), "{to}: {error}");
        }
        let newer = text.replacen("\"schema\": 1", "\"schema\": 2, \"more\": []", 1);
        assert!(parse("x.json", &newer).unwrap_err().message().contains("made by a newer bedplate"));
        assert!(parse("x", &" ".repeat(2 << 20)).unwrap_err().message().contains("too large"));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = parse("x", &text);
        }

        #[test]
        fn what_is_written_is_read_back(
            image in "[a-z0-9-]{1,9}",
            tool in any::<String>(),
            time in any::<i64>(),
            sizes in proptest::collection::btree_map("[a-z.é]{3,9}", any::<u64>(), 0..4),
            layers in proptest::option::of(proptest::collection::vec(any::<u64>(), 0..4)),
        ) {
            let part = |size: u64| Part { digest: Digest::of(size.to_le_bytes()), size };
            prop_assume!(sizes.keys().all(|name| is_file_name(name)));
            let record = Record {
                image, tool, time,
                parts: Some(Parts {
                    files: sizes.into_iter().map(|(name, size)| (name, part(size))).collect(),
                    oci: layers.map(|layers| Oci {
                        manifest: part(1),
                        config: part(2),
                        layers: layers.into_iter().map(part).collect(),
                    }),
                    disk: None,
                }),
                ..example()
            };
            let text = record.write().unwrap();
            prop_assert_eq!(parse("x", &text).unwrap(), record);
        }
    }
}
