//! An OCI image layout: every blob by its digest, then the tree that its layers make.

use serde_json::Value;

use super::{Image, Read, archive, contents::Contents};
use crate::{
    build::{
        record::Part,
        verify::{Finding, What},
        write::oci,
    },
    digest::Digest,
    error::{Doing, Result},
    system::files::{self, open_input, read_input},
};

/// Largest index and largest marker that are read, in bytes.
const INDEX: u64 = 1 << 20;
/// Largest manifest (OCI distribution specification, "Pushing Manifests") and configuration, in bytes.
const DOCUMENT: u64 = 8 << 20;
/// Most layers: more than any container engine takes.
const LAYERS: usize = 127;
/// The files of a layout beside its blobs (image-layout.md).
const INDEX_FILE: &str = "index.json";
const SIGN_FILE: &str = "oci-layout";

/// Verifies the layout of `image`.
///
/// # Errors
/// A file cannot be read.
pub(super) fn verify(image: &mut Image<'_>) -> Result<Option<Read>> {
    let recorded =
        image.beside.as_ref().and_then(|record| record.parts.as_ref()).and_then(|parts| parts.oci.clone());
    if image.beside.is_some() && recorded.is_none() {
        image.unnamed();
    }
    let index = document(image, INDEX_FILE, INDEX_FILE, INDEX)?;
    let sign = document(image, SIGN_FILE, SIGN_FILE, INDEX)?;
    let named = match &recorded {
        Some(recorded) => Some(recorded.manifest),
        None => index.as_deref().and_then(|index| image_of(image, index)),
    };
    let Some(manifest) = named else { return Ok(None) };
    let manifest_bytes = blob(image, "manifest", manifest)?;
    // What the record says, or else the manifest, if it is the one that is named.
    let parts = match (recorded, &manifest_bytes) {
        (Some(recorded), _) => Some((recorded.config, recorded.layers)),
        (None, Some(bytes)) => parts_of(image, bytes),
        (None, None) => None,
    };
    let Some((config, layers)) = parts else { return Ok(None) };
    let config = blob(image, "configuration", config)?;
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(architecture) = config.as_ref().and_then(|config| config["architecture"].as_str()) {
        let name = index.as_deref().and_then(name_in).unwrap_or_else(|| image.name.stem.clone());
        let name = if image.beside.is_some() { image.name.stem.clone() } else { name };
        let wanted = oci::index_text(&name, architecture, manifest);
        expect(image, INDEX_FILE, index.as_deref(), &wanted);
    }
    expect(image, SIGN_FILE, sign.as_deref(), &oci::sign_text());
    let ids: Vec<Option<Digest>> = (0..layers.len())
        .map(|at| config.as_ref()?["rootfs"]["diff_ids"][at].as_str()?.parse().ok())
        .collect();
    let mut contents = Contents::new()?;
    let mut whole = true;
    for (layer, id) in layers.into_iter().zip(ids) {
        whole &= read_layer(image, layer, id, &mut contents)?;
    }
    Ok(Some(Read { contents, whole }))
}

/// Reads a layer. False: not to its end, or not at all.
fn read_layer(
    image: &mut Image<'_>,
    layer: Part,
    id: Option<Digest>,
    contents: &mut Contents,
) -> Result<bool> {
    let name = path_of(layer.digest);
    let path = image.path.join(&name);
    if !files::exists(&path) {
        image.findings.push(Finding::new(What::PartMissing, None).of(&named("layer", layer)));
        return Ok(false);
    }
    let doing = || format!("reading `{}`", path.display());
    let (mut file, _) = open_input(&path)?;
    let mut first = [0; 4];
    let length = super::read_first(&mut file, &mut first).doing(doing)?;
    let read = archive::read(file, archive::compression(&first[..length]), contents).doing(doing)?;
    let name = named("layer", layer);
    let is_that = image.part(&name, layer, read.stored);
    if let (true, Some(unpacked), Some(id)) = (is_that, read.unpacked, id)
        && unpacked.digest != id
    {
        let finding = Finding::new(What::Part, None).of(&format!("{name}, unpacked"));
        image.findings.push(finding.expected(id.to_string()).found(unpacked.digest.to_string()));
    }
    let whole = read.fault.is_none();
    image.fault(&name, read.fault)?;
    Ok(whole)
}

fn path_of(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn named(what: &str, part: Part) -> String {
    format!("{what} {}", path_of(part.digest))
}

/// A document's bytes, if it is what `part` says.
fn blob(image: &mut Image<'_>, what: &str, part: Part) -> Result<Option<Vec<u8>>> {
    let name = named(what, part);
    let bytes = document(image, &path_of(part.digest), &name, DOCUMENT)?;
    Ok(bytes.filter(|bytes| image.part(&name, part, Part::of(bytes))))
}

/// A file of the layout, called `name` in findings.
fn document(image: &mut Image<'_>, path: &str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let path = image.path.join(path);
    if !files::exists(&path) {
        image.findings.push(Finding::new(What::PartMissing, None).of(name));
        return Ok(None);
    }
    if open_input(&path)?.1 > limit {
        let said = format!("it is larger than {} MiB", limit >> 20);
        image.findings.push(Finding::new(What::Refused, None).of(name).found(said));
        return Ok(None);
    }
    read_input(&path, limit).map(Some)
}

/// Holds a document that is made of others against what it has to be.
fn expect(image: &mut Image<'_>, name: &str, found: Option<&[u8]>, wanted: &str) {
    let Some(found) = found else { return };
    image.counts.parts += 1;
    if found != wanted.as_bytes() {
        let at = found.iter().zip(wanted.as_bytes()).take_while(|(a, b)| a == b).count();
        let finding = Finding::new(What::Damaged, None).of(name);
        image.findings.push(finding.found(format!("it differs from byte {at} on")));
    }
}

/// The image that an index names: the only one.
fn image_of(image: &mut Image<'_>, index: &[u8]) -> Option<Part> {
    let index: Option<Value> = serde_json::from_slice(index).ok();
    let only = index.as_ref().and_then(|index| match index["manifests"].as_array()?.as_slice() {
        [only] => descriptor(only),
        _ => None,
    });
    if only.is_none() {
        let finding = Finding::new(What::Damaged, None).of(INDEX_FILE);
        image.findings.push(finding.found("it does not name one image by digest and size"));
    }
    only
}

fn name_in(index: &[u8]) -> Option<String> {
    let index: Value = serde_json::from_slice(index).ok()?;
    Some(index["manifests"][0]["annotations"][oci::NAME].as_str()?.to_owned())
}

/// Configuration and layers of a manifest.
fn parts_of(image: &mut Image<'_>, manifest: &[u8]) -> Option<(Part, Vec<Part>)> {
    let manifest: Option<Value> = serde_json::from_slice(manifest).ok();
    let parts = manifest.as_ref().and_then(|manifest| {
        let layers = manifest["layers"].as_array().filter(|layers| layers.len() <= LAYERS)?;
        Some((descriptor(&manifest["config"])?, layers.iter().map(descriptor).collect::<Option<Vec<_>>>()?))
    });
    if parts.is_none() {
        let finding = Finding::new(What::Damaged, None).of("manifest");
        image.findings.push(finding.found("it does not name a configuration and layers by digest and size"));
    }
    parts
}

fn descriptor(value: &Value) -> Option<Part> {
    Some(Part { digest: value["digest"].as_str()?.parse().ok()?, size: value["size"].as_u64()? })
}
