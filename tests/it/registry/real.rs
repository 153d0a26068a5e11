//! Against Debian's `docker-registry`: plain, with a login, with tokens, with a private authority.

use bedplate::{
    digest::Digest,
    oci::{Ca, Client, ClientConfig, RegistryConfig},
};
use serde_json::Value;

use super::{amd64, output, quick, source, with_login, with_registry};
use crate::support::{
    image::ImageSpec,
    registry::{Kind, PASSWORD, Registry, USER},
};

fn both() -> [ImageSpec; 2] {
    let arm = ImageSpec { architecture: "arm64", ..ImageSpec::default() };
    let amd = ImageSpec {
        env: vec!["CUDA_VERSION=12.8.1".into(), "NVIDIA_REQUIRE_CUDA=cuda>=12.8".into()],
        entrypoint: vec!["vllm".into(), "serve".into()],
        user: "1000".into(),
        ..ImageSpec::default()
    };
    [arm, amd]
}

#[tokio::test]
async fn resolves_an_index_as_skopeo_does() {
    let registry = Registry::start(Kind::Plain).await;
    let (index, images) = registry.push_index("a/engine:1", &both()).await;
    let name = format!("{}/a/engine:1", registry.host);
    let client = Client::new(quick());
    let source = source(&name);
    let resolved = client.resolve(&source, &amd64()).await.unwrap();
    assert_eq!(resolved.reference, name);
    assert_eq!(resolved.index, Some(index.digest));
    assert_eq!(resolved.manifest, images[1].manifest.digest);
    assert_eq!(resolved.config, images[1].config.digest);
    assert_eq!(resolved.layers, [images[1].layers[0].digest]);
    assert_eq!(resolved.download, images[1].download());
    assert_eq!(resolved.facts.cuda.as_deref(), Some("12.8.1"));
    assert_eq!(resolved.facts.require["NVIDIA_REQUIRE_CUDA"], "cuda>=12.8");
    assert_eq!(resolved.facts.entrypoint, ["vllm", "serve"]);
    assert_eq!(resolved.facts.user.as_deref(), Some("1000"));
    assert_eq!(client.head(&source).await.unwrap(), resolved.named());

    let at = format!("docker://{name}");
    let raw = output("skopeo", &["inspect", "--tls-verify=false", "--raw", &at]);
    assert_eq!(Digest::of(raw), index.digest);
    let inspect = ["inspect", "--tls-verify=false", "--override-arch=amd64", &at];
    let inspected: Value = serde_json::from_str(&output("skopeo", &inspect)).unwrap();
    assert_eq!(inspected["Digest"], resolved.named().to_string());
    assert_eq!(inspected["Layers"], serde_json::json!([resolved.layers[0].to_string()]));
    let pinned = format!("docker://{}/a/engine@{}", registry.host, resolved.manifest);
    let raw = output("skopeo", &["inspect", "--tls-verify=false", "--raw", &pinned]);
    assert_eq!(Digest::of(raw), resolved.manifest);
    let config = output("skopeo", &["inspect", "--tls-verify=false", "--raw", "--config", &pinned]);
    assert_eq!(Digest::of(config), resolved.config);
}

#[tokio::test]
async fn a_single_manifest_and_pinned_references() {
    let registry = Registry::start(Kind::Plain).await;
    let image = registry.push_image("small:1", &ImageSpec::default()).await;
    let client = Client::new(quick());
    let tagged = client.resolve(&source(format!("{}/small:1", registry.host)), &amd64()).await.unwrap();
    assert_eq!((tagged.index, tagged.manifest), (None, image.manifest.digest));
    let pinned = source(format!("{}/small:other@{}", registry.host, image.manifest.digest));
    let pinned = client.resolve(&pinned, &amd64()).await.unwrap();
    assert_eq!(pinned.manifest, image.manifest.digest);

    let error = client
        .resolve(&source(format!("{}/small:1", registry.host)), &"linux/arm64".parse().unwrap())
        .await
        .unwrap_err();
    assert!(error.message().contains("is built for linux/amd64, not for linux/arm64"), "{error:?}");

    let mut got = Vec::new();
    let layer = &image.layers[0];
    let from = source(format!("{}/small:1", registry.host));
    client.fetch_blob(&from, layer.digest, layer.bytes.len() as u64, &mut got).await.unwrap();
    assert_eq!(got, layer.bytes);
}

#[tokio::test]
async fn what_is_not_there() {
    let registry = Registry::start(Kind::Plain).await;
    let (_, images) = registry.push_index("a:1", &both()).await;
    let client = Client::new(quick());
    let host = &registry.host;
    let gone = Digest::of("gone");
    for (name, says) in [
        (format!("{host}/a:2"), format!("`{host}/a` has no tag `2`")),
        (format!("{host}/b/c:1"), format!("`{host}/b/c` has no tag `1`")),
        (format!("{host}/a@{gone}"), format!("`{host}/a` has no content with digest {gone}")),
    ] {
        let error = client.resolve(&source(&name), &amd64()).await.unwrap_err();
        // The registry calls an unknown repository an unknown manifest.
        assert!(error.message().contains(&says), "{error:?}");
        assert!(client.head(&source(&name)).await.is_err());
    }
    let error =
        client.resolve(&source(format!("{host}/a:1")), &"linux/riscv64".parse().unwrap()).await.unwrap_err();
    assert!(error.message().ends_with("it has linux/amd64, linux/arm64"), "{error:?}");
    let arm = client.resolve(&source(format!("{host}/a:1")), &"linux/arm64".parse().unwrap()).await.unwrap();
    assert_eq!(arm.manifest, images[0].manifest.digest);
}

#[tokio::test]
async fn basic_authentication() {
    let registry = Registry::start(Kind::Basic).await;
    let image = registry.push_image("private/a:1", &ImageSpec::default()).await;
    let from = source(format!("{}/private/a:1", registry.host));

    let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
    assert!(error.message().contains("wants a login"), "{error:?}");
    assert_eq!(error.hints(), [format!("run `docker login {}`", registry.host)]);

    let (config, _dir) = with_login(quick(), &registry.host, USER, "hunter2");
    let error = Client::new(config).resolve(&from, &amd64()).await.unwrap_err();
    assert!(error.message().contains("refused the credentials"), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));

    let (config, _dir) = with_login(quick(), &registry.host, USER, PASSWORD);
    let client = Client::new(config);
    let resolved = client.resolve(&from, &amd64()).await.unwrap();
    assert_eq!(resolved.manifest, image.manifest.digest);
    assert_eq!(client.head(&from).await.unwrap(), image.manifest.digest);
}

#[tokio::test]
async fn token_authentication() {
    let registry = Registry::start(Kind::Token).await;
    let open = registry.push_image("public/a:1", &ImageSpec::default()).await;
    let shut = registry.push_image("private/a:1", &ImageSpec::default()).await;
    let public = source(format!("{}/public/a:1", registry.host));
    let private = source(format!("{}/private/a:1", registry.host));

    let anyone = Client::new(quick());
    assert_eq!(anyone.resolve(&public, &amd64()).await.unwrap().manifest, open.manifest.digest);
    let error = anyone.resolve(&private, &amd64()).await.unwrap_err();
    assert!(error.message().contains("wants a login for `private/a`"), "{error:?}");

    let (config, _dir) = with_login(quick(), &registry.host, USER, PASSWORD);
    let reader = Client::new(config);
    assert_eq!(reader.resolve(&private, &amd64()).await.unwrap().manifest, shut.manifest.digest);
    assert_eq!(reader.head(&public).await.unwrap(), open.manifest.digest);

    let (config, _dir) = with_login(quick(), &registry.host, USER, "wrong");
    let error = Client::new(config).resolve(&private, &amd64()).await.unwrap_err();
    assert!(error.message().contains("refused the credentials"), "{error:?}");
}

#[tokio::test]
async fn a_private_authority() {
    let registry = Registry::start(Kind::Tls).await;
    let image = registry.push_image("a:1", &ImageSpec::default()).await;
    let from = source(format!("{}/a:1", registry.host));
    let pem = registry.ca.clone().unwrap();

    let trusting = RegistryConfig { ca: Some(Ca::Pem(pem.into_bytes())), ..RegistryConfig::default() };
    let client = Client::new(with_registry(&registry.host, trusting));
    assert_eq!(client.resolve(&from, &amd64()).await.unwrap().manifest, image.manifest.digest);

    let secure = RegistryConfig { plain_http: Some(false), ..RegistryConfig::default() };
    let error = Client::new(with_registry(&registry.host, secure)).head(&from).await.unwrap_err();
    assert!(error.message().contains("signed by an authority this machine does not know"), "{error:?}");
    assert!(error.hints()[0].contains("`ca`"));

    let error = Client::new(quick()).resolve(&from, &amd64()).await.unwrap_err();
    assert!(error.message().contains("wants TLS"), "{error:?}");

    let none = RegistryConfig { ca: Some(Ca::File("/no/such/ca.crt".into())), ..RegistryConfig::default() };
    let error = Client::new(with_registry(&registry.host, none)).head(&from).await.unwrap_err();
    assert!(error.message().contains("`/no/such/ca.crt`"), "{error:?}");
}

#[tokio::test]
async fn tls_spoken_to_a_plain_registry() {
    let registry = Registry::start(Kind::Plain).await;
    let secure = RegistryConfig { plain_http: Some(false), ..RegistryConfig::default() };
    let client = Client::new(with_registry(&registry.host, secure));
    let error = client.head(&source(format!("{}/a:1", registry.host))).await.unwrap_err();
    assert!(error.message().contains("does not speak TLS"), "{error:?}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_passed_over_when_it_cannot_help() {
    let origin = Registry::start(Kind::Plain).await;
    let mirror = Registry::start(Kind::Plain).await;
    let image = origin.push_image("a:1", &ImageSpec::default()).await;
    let newer = ImageSpec { user: "mirrored".into(), ..ImageSpec::default() };
    let mirrored = mirror.push_image("cache/b:1", &newer).await;
    let mirrors = vec![
        format!("http://127.0.0.1:{}", crate::support::free_port()),
        format!("http://{}/cache", mirror.host),
    ];
    let registry = RegistryConfig { mirrors, ..RegistryConfig::default() };
    let client = Client::new(with_registry(&origin.host, registry));
    let here = client.resolve(&source(format!("{}/a:1", origin.host)), &amd64()).await.unwrap();
    assert_eq!(here.manifest, image.manifest.digest);
    let there = client.resolve(&source(format!("{}/b:1", origin.host)), &amd64()).await.unwrap();
    assert_eq!(there.manifest, mirrored.manifest.digest);
    assert_eq!(there.reference, format!("{}/b:1", origin.host), "a mirror leaves no trace");
    let error = client.resolve(&source(format!("{}/c:1", origin.host)), &amd64()).await.unwrap_err();
    assert!(error.message().contains(&origin.host), "{error:?}");
    assert!(error.related()[0].message().contains(&mirror.host), "{error:?}");
}

#[tokio::test]
async fn nothing_listens() {
    let port = crate::support::free_port();
    let config = ClientConfig { retries: 1, ..quick() };
    let error = Client::new(config).head(&source(format!("127.0.0.1:{port}/a:1"))).await.unwrap_err();
    assert!(error.message().contains("refused the connection"), "{error:?}");
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let config = ClientConfig { retries: 0, ..quick() };
    // RFC 6761: `.invalid` never resolves.
    let error = Client::new(config).head(&source("registry.invalid/a:1")).await.unwrap_err();
    assert!(error.message().contains("cannot be resolved"), "{error:?}");
    assert!(error.hints()[0].contains("DNS"));
}
