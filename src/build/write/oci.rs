//! An OCI image layout on disk (OCI image specification 1.1, image-layout.md): `oci-layout`, `index.json` and the blobs,
//! each named by its digest.
//!
//! Every document is written with its keys in one order and without blanks; the only time in it is the one it is given.

use std::{collections::BTreeMap, num::NonZero, path::Path};

use serde_json::{Map, Value, json};

use super::{
    Content,
    compress::Compression,
    layers::{Group, Layer},
    tar,
};
use crate::{
    build::tree::Tree,
    error::{Doing, Error, Result},
    system::files::{self, Owner, Root},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Annotations of the specification (annotations.md).
const CREATED: &str = "org.opencontainers.image.created";
pub(in crate::build) const NAME: &str = "org.opencontainers.image.ref.name";
/// The file by which a layout is known.
const SIGN: &str = "oci-layout";
/// The directory of all blobs.
const BLOBS: &str = "/blobs/sha256";
/// How the name of a file begins that, in a layer, means that another one is gone (layer.md, "Whiteouts").
const WHITEOUT: &str = ".wh.";
/// Where programs are looked for when the image is started as a container.
const SEARCH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image is given besides its entries.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name in the layout, a tag such as `trixie-gpu`.
    pub name: String,
    /// When it was made, in seconds since 1970: the time of the newest package, as the tree's.
    pub created: i64,
    /// The architecture as the specification names it (Go's GOARCH): `amd64`.
    pub architecture: String,
    /// How layers are stored.
    pub compression: Compression,
    /// How many threads compress. It changes nothing in what is written.
    pub threads: NonZero<u32>,
    /// The time of the newest package of a group, in seconds since 1970: entries of its layer are not later. The tree's own
    /// times end with the newest package of all, so that otherwise the directories of every layer would change with it.
    pub newest: BTreeMap<Group, i64>,
    /// Further annotations of the manifest and labels of the image, such as the lock's digest.
    pub annotations: BTreeMap<String, String>,
}

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name in the layout.
    pub name: String,
    /// Its manifest: the image's digest.
    pub manifest: Content,
    /// Its configuration.
    pub config: Content,
    /// Its layers, the lowest first.
    pub layers: Vec<Stored>,
}

impl Image {
    /// Bytes a host fetches that has none of it.
    pub fn download(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|layer| layer.blob.size).sum();
        self.manifest.size + self.config.size + layers
    }
}

/// A layer that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is made of.
    pub group: Group,
    /// As it is stored and fetched.
    pub blob: Content,
    /// The tar archive in it: its digest is the layer's diff id (config.md, "Layer DiffID").
    pub archive: Content,
    /// Entries in it.
    pub entries: usize,
}

/// Writes these layers of a tree as an image layout in the directory `dir`, whole or not at all. A layout that is there is
/// replaced.
///
/// # Errors
/// The name is none a layout may hold, an entry has no form in a layer, the tree changed, or the layout cannot be written;
/// what was there before is then unchanged.
pub fn write(tree: &Tree, layers: &[Layer], options: &Options, dir: &Path) -> Result<Image> {
    check_name(&options.name)?;
    let created = jiff::Timestamp::from_second(options.created)
        .doing(|| format!("dating an image with second {} since 1970", options.created))?
        .to_string();
    let output = files::create_output_dir(dir, SIGN)?;
    let root = output.root();
    root.make_dir(BLOBS, 0o755, Owner::current())?;
    let stored: Vec<Stored> =
        layers.iter().map(|layer| store_layer(tree, layer, options, root)).collect::<Result<_>>()?;
    let config = store(root, &config(options, &created, &stored))?;
    let manifest = store(root, &manifest(options, &created, config, &stored))?;
    put(root, "/index.json", &index_text(&options.name, &options.architecture, manifest))?;
    put(root, "/oci-layout", &sign_text())?;
    output.commit()?;
    Ok(Image { name: options.name.clone(), manifest, config, layers: stored })
}

/// How a layer is stored: what container images are made of is compressed already.
fn compression(options: &Options, group: Group) -> Compression {
    if group == Group::Images { Compression::None } else { options.compression }
}

fn store_layer(tree: &Tree, layer: &Layer, options: &Options, root: &Root) -> Result<Stored> {
    for entry in &layer.entries {
        if entry.path.split('/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(Error::failed(format!(
                "writing `/{}` into a layer: there, a name with `{WHITEOUT}` in front means that a file is gone",
                entry.path.escape_debug()
            )));
        }
    }
    let mut pending = root.create(&format!("{BLOBS}/layer"), 0o644, Owner::current())?;
    let newest = options.newest.get(&layer.group).copied();
    let archive = tar::pack(
        tree,
        layer.entries.iter().copied(),
        newest,
        compression(options, layer.group),
        options.threads,
        &mut |bytes| pending.put(bytes),
    )
    .doing(|| format!("writing layer `{}`", layer.group.name()))?;
    pending.commit_at(root, &path(archive.stored))?;
    Ok(Stored {
        group: layer.group,
        blob: archive.stored,
        archive: archive.content,
        entries: layer.entries.len(),
    })
}

/// The grammar of the specification (annotations.md, `org.opencontainers.image.ref.name`), as characters: enough for what
/// other programs take apart.
fn check_name(name: &str) -> Result<()> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@+/".contains(&byte);
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let ends = end(name.bytes().next()) && end(name.bytes().next_back());
    if ends && name.len() <= 128 && name.bytes().all(inner) {
        return Ok(());
    }
    Err(Error::usage(format!("`{}` cannot be the name of an image in a layout", name.escape_debug()))
        .hint("write letters, digits and, between them, any of `-._`"))
}

fn descriptor(media_type: &str, content: Content) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("mediaType".to_owned(), media_type.into());
    out.insert("digest".to_owned(), content.digest.to_string().into());
    out.insert("size".to_owned(), content.size.into());
    out
}

/// config.md. The image is a machine's; as a container it starts what the machine would.
fn config(options: &Options, created: &str, layers: &[Stored]) -> Value {
    let mut config = json!({ "Env": [SEARCH], "Cmd": ["/sbin/init"] });
    if !options.annotations.is_empty() {
        config["Labels"] = json!(options.annotations);
    }
    let history = |layer: &Stored| {
        let by = format!("bedplate build: {}", layer.group.name());
        json!({ "created": created, "created_by": by })
    };
    json!({
        "created": created,
        "architecture": options.architecture,
        "os": "linux",
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| layer.archive.digest.to_string()).collect::<Vec<_>>(),
        },
        "history": layers.iter().map(history).collect::<Vec<_>>(),
    })
}

/// manifest.md. Each layer says of what group it is, so that one can see what an update moves.
fn manifest(options: &Options, created: &str, config: Content, layers: &[Stored]) -> Value {
    let layer = |layer: &Stored| {
        let layer_type = match compression(options, layer.group) {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let mut out = descriptor(layer_type, layer.blob);
        out.insert("annotations".to_owned(), json!({ "bedplate.layer": layer.group.name() }));
        out
    };
    let mut annotations = options.annotations.clone();
    annotations.insert(CREATED.to_owned(), created.to_owned());
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        "annotations": annotations,
    })
}

/// The index of a layout that has one image (image-index.md).
pub(in crate::build) fn index_text(name: &str, architecture: &str, manifest: Content) -> String {
    let mut image = descriptor(MANIFEST, manifest);
    image.insert("platform".to_owned(), json!({ "architecture": architecture, "os": "linux" }));
    image.insert("annotations".to_owned(), json!({ NAME: name }));
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [image] }).to_string()
}

/// The file by which a layout is known (image-layout.md, "oci-layout file").
pub(in crate::build) fn sign_text() -> String {
    json!({ "imageLayoutVersion": "1.0.0" }).to_string()
}

/// Stores a document under its digest.
fn store(root: &Root, document: &Value) -> Result<Content> {
    let text = document.to_string();
    let content = Content::of(text.as_bytes());
    put(root, &path(content), &text)?;
    Ok(content)
}

fn put(root: &Root, path: &str, text: &str) -> Result<()> {
    root.write(path, text.as_bytes(), 0o644, Owner::current())
}

fn path(content: Content) -> String {
    format!("{BLOBS}/{}", content.digest.hex())
}

#[cfg(test)]
mod tests;
