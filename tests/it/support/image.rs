//! Small images made in memory: an engine can pull and start them if their files allow it.

use bedplate::digest::Digest;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What goes into an image. `Default`: one for linux/amd64 with one small file.
#[derive(Clone)]
pub(crate) struct ImageSpec {
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) env: Vec<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) user: String,
    pub(crate) ports: Vec<String>,
    pub(crate) labels: Vec<(String, String)>,
    /// Layers, lowest first: files as (path without leading slash, mode, content).
    pub(crate) layers: Vec<Vec<(String, u32, Vec<u8>)>>,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            os: "linux",
            architecture: "amd64",
            env: vec!["PATH=/usr/bin:/bin".to_owned()],
            entrypoint: vec!["/run".to_owned()],
            cmd: Vec::new(),
            user: String::new(),
            ports: Vec::new(),
            labels: Vec::new(),
            layers: vec![vec![("etc/image".to_owned(), 0o644, b"small\n".to_vec())]],
        }
    }
}

/// Bytes with their digest and media type.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

impl Blob {
    pub(crate) fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: Digest::of(&bytes), bytes }
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.bytes.len()})
    }
}

/// An image as it lies in a registry.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) spec: ImageSpec,
    pub(crate) manifest: Blob,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

impl ImageSpec {
    pub(crate) fn build(&self) -> Image {
        let mut diff_ids = Vec::new();
        let mut layers = Vec::new();
        for files in &self.layers {
            let mut tar = tar::Builder::new(Vec::new());
            for (path, mode, content) in files {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                header.set_mode(*mode);
                header.set_mtime(0);
                tar.append_data(&mut header, path, content.as_slice()).unwrap();
            }
            let tar = tar.into_inner().unwrap();
            diff_ids.push(Digest::of(&tar).to_string());
            let mut gz = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
            std::io::Write::write_all(&mut gz, &tar).unwrap();
            layers.push(Blob::new(LAYER, gz.finish().unwrap()));
        }
        let ports: serde_json::Map<_, _> = self.ports.iter().map(|p| (p.clone(), json!({}))).collect();
        let labels: serde_json::Map<_, _> = self.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let config = json!({
            "architecture": self.architecture, "os": self.os, "created": "2025-01-02T03:04:05Z",
            "config": {
                "Env": self.env, "Entrypoint": self.entrypoint, "Cmd": self.cmd, "User": self.user,
                "ExposedPorts": ports, "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Blob::new(CONFIG, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(OCI_MANIFEST, manifest.to_string().into_bytes());
        Image { spec: self.clone(), manifest, config, layers }
    }
}

impl Image {
    /// Everything but the manifest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config])
    }

    /// What a host fetches, in bytes.
    pub(crate) fn download(&self) -> u64 {
        self.blobs().map(|b| b.bytes.len() as u64).sum()
    }

    /// The manifest's descriptor with its platform, for an index.
    pub(crate) fn entry(&self) -> Value {
        let mut entry = self.manifest.descriptor();
        entry["platform"] = json!({"os": self.spec.os, "architecture": self.spec.architecture});
        entry
    }
}

/// An index of `entries`, as [`Image::entry`] gives them.
pub(crate) fn index(entries: &[Value]) -> Blob {
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    Blob::new(OCI_INDEX, index.to_string().into_bytes())
}
