//! Image layouts on disk, as skopeo writes them.

use bedplate::oci::Client;

use super::{amd64, output, quick, source};
use crate::support::{
    image::ImageSpec,
    registry::{Kind, Registry},
};

#[tokio::test]
async fn a_layout_is_the_same_image() {
    let registry = Registry::start(Kind::Plain).await;
    let arm = ImageSpec { architecture: "arm64", ..ImageSpec::default() };
    let (index, _) = registry.push_index("a:1", &[ImageSpec::default(), arm]).await;
    let dir = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}", dir.path().display());
    let from = format!("docker://{}/a:1", registry.host);
    output("skopeo", &["copy", "--all", "--src-tls-verify=false", &from, &format!("{layout}:one")]);

    let client = Client::new(quick());
    let there = client.resolve(&source(format!("{}/a:1", registry.host)), &amd64()).await.unwrap();
    for text in [layout.clone(), format!("{layout}:one")] {
        let here = client.resolve(&source(&text), &amd64()).await.unwrap();
        assert_eq!(here.reference, text);
        assert_eq!(here.index, Some(index.digest));
        assert_eq!((here.manifest, here.config, &here.layers), (there.manifest, there.config, &there.layers));
        assert_eq!(here.facts, there.facts);
        assert_eq!(client.head(&source(&text)).await.unwrap(), index.digest);
    }

    let error = client.head(&source(format!("{layout}:two"))).await.unwrap_err();
    assert!(error.message().contains("has no tag `two`: it has tags one"), "{error:?}");
    output(
        "skopeo",
        &["copy", "--src-tls-verify=false", "--override-arch=amd64", &from, &format!("{layout}:two")],
    );
    let error = client.head(&source(&layout)).await.unwrap_err();
    assert!(error.message().contains("several images"), "{error:?}");

    let mut got = Vec::new();
    let layer = dir.path().join("blobs/sha256").join(there.layers[0].hex());
    let size = std::fs::metadata(&layer).unwrap().len();
    client.fetch_blob(&source(&layout), there.layers[0], size, &mut got).await.unwrap();
    assert_eq!(got, std::fs::read(&layer).unwrap());

    let config = dir.path().join("blobs/sha256").join(there.config.hex());
    std::fs::write(&config, "{}").unwrap();
    let error = client.resolve(&source(format!("{layout}:one")), &amd64()).await.unwrap_err();
    assert!(error.message().contains("wanted sha256:"), "{error:?}");
    std::fs::remove_file(&config).unwrap();
    let error = client.resolve(&source(format!("{layout}:one")), &amd64()).await.unwrap_err();
    assert!(error.message().contains("has no content with digest"), "{error:?}");
}

#[tokio::test]
async fn what_is_no_layout() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("oci:{}", dir.path().display());
    let client = Client::new(quick());
    let error = client.head(&source(&text)).await.unwrap_err();
    assert!(error.message().contains("is not an image layout"), "{error:?}");
    std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    // A digest that would lead outside is no digest.
    let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "size":1,"digest":"sha256:../../../../etc/passwd"}]}"#;
    std::fs::write(dir.path().join("index.json"), index).unwrap();
    let error = client.resolve(&source(&text), &amd64()).await.unwrap_err();
    assert!(!format!("{error:?}").contains("root:"), "{error:?}");
    std::fs::write(dir.path().join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    let error = client.head(&source(&text)).await.unwrap_err();
    assert!(error.message().contains("is empty"), "{error:?}");
}
