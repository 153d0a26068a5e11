//! The probe in containers of a real Docker daemon, with a stand-in for the driver's library in the image.

use std::{path::Path, time::Duration};

use bedplate::{
    docker::Gpus,
    host::smoke::{self, Lab, Ran, Seen},
    lock::LockedImage,
    system::files::Root,
};

use crate::support::{
    docker::{Dockerd, load},
    standins::compile,
};

/// What the loader wants of a C library, as this machine has it.
const LIBRARIES: [&str; 3] =
    ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libgcc_s.so.1"];

/// A container engine, and where programs and images for it are made.
struct Bench {
    dockerd: Dockerd,
    root: Root,
    dir: tempfile::TempDir,
    cuda: Vec<u8>,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("libcuda.so.1");
        compile("cuda.rs", &library);
        let cuda = std::fs::read(library).unwrap();
        let root = Root::open(Path::new("/")).unwrap();
        Self { dockerd: Dockerd::start().await, root, dir, cuda }
    }

    /// An image with these libraries of this machine, and the driver's library with this script.
    async fn image(&self, name: &str, libraries: &[&str], script: Option<&str>) -> LockedImage {
        let held: Vec<(&str, Vec<u8>)> =
            libraries.iter().map(|path| (*path, std::fs::read(Path::new("/").join(path)).unwrap())).collect();
        let mut files: Vec<(&str, u32, &[u8])> =
            held.iter().map(|(path, content)| (*path, 0o755, content.as_slice())).collect();
        files.push(("etc/image", 0o644, name.as_bytes()));
        if let Some(script) = script {
            files.push(("lib/x86_64-linux-gnu/libcuda.so.1", 0o755, &self.cuda));
            files.push(("lib/x86_64-linux-gnu/libcuda.so.1.script", 0o644, script.as_bytes()));
        }
        let docker = self.dockerd.connect().await;
        load(&docker, (name, "registry.example/smoke:1.0"), &files, &["/none"], "4711").await
    }

    async fn look(&self, image: &LockedImage, gpus: Option<&Gpus>, limit: u64) -> Ran {
        let docker = self.dockerd.connect().await;
        let place = self.dir.path().join("exec/probe");
        let lab = Lab {
            docker: &docker,
            root: &self.root,
            key: "smoke",
            image,
            gpus,
            place: place.to_str().unwrap(),
            limit: Duration::from_secs(limit),
        };
        let found = smoke::smoke(lab).await.unwrap();
        assert_eq!(found.image, "smoke");
        let left = docker.list_by_label("bedplate.smoke").await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        found.ran
    }

    async fn sees(&self, script: &str) -> Seen {
        let image = self.image("whole", &LIBRARIES, Some(script)).await;
        match self.look(&image, None, 60).await {
            Ran::Saw(seen) => seen,
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_says_what_it_sees_of_the_gpus() {
    let bench = Bench::new().await;
    let two = bench.sees("count 2\n").await;
    assert_eq!(two.driver.as_deref(), Some("12.4"));
    assert!(two.libc.is_some() && two.library.is_none() && two.fault.is_none(), "{two:?}");
    let devices: Vec<_> = two.devices.iter().map(|device| (device.capability, device.kernel)).collect();
    assert_eq!(devices, [(Some((9, 0)), Some(true)); 2]);

    let wrong = bench.sees("count 2\nwrong 1\n").await;
    assert_eq!([wrong.devices[0].kernel, wrong.devices[1].kernel], [Some(true), Some(false)]);
    let old = bench.sees("capability 6 1\n").await;
    assert_eq!((old.devices[0].capability, old.devices[0].kernel), (Some((6, 1)), None));
    let fabric = bench.sees("init 802\n").await.fault.unwrap();
    assert_eq!(
        (fabric.at.as_str(), fabric.code, fabric.name.as_str()),
        ("cuInit", 802, "CUDA_ERROR_SYSTEM_NOT_READY")
    );
    let full = bench.sees("context 2\n").await;
    assert_eq!(full.devices[0].fault.as_ref().map(|fault| fault.code), Some(2));

    // No driver in the container, though it runs.
    let bare = bench.image("bare", &LIBRARIES, None).await;
    let Ran::Saw(seen) = bench.look(&bare, None, 60).await else { panic!("it runs") };
    assert!(seen.library.as_deref().unwrap().starts_with("libcuda.so.1: cannot open"), "{seen:?}");

    // Images that cannot run it: without a C library, and without one of its parts.
    for (name, libraries) in [("empty", &LIBRARIES[..0]), ("partial", &LIBRARIES[..2])] {
        let image = bench.image(name, libraries, None).await;
        let ran = bench.look(&image, None, 60).await;
        assert!(matches!(ran, Ran::CannotRun(_)), "{name}: {ran:?}");
    }
    let hangs = bench.image("hangs", &LIBRARIES, Some("hang 1\n")).await;
    assert_eq!(bench.look(&hangs, None, 2).await, Ran::Hung(2));

    // GPUs asked of an engine that has no way to give them: its words, and nothing left behind.
    let Ran::Refused(words) = bench.look(&bare, Some(&Gpus::NvidiaAll), 60).await else {
        panic!("it started")
    };
    assert!(words.contains("could not select device driver"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_here_is_not_looked_into() {
    let bench = Bench::new().await;
    let mut image = bench.image("whole", &LIBRARIES, Some("count 1\n")).await;
    image.manifest = bedplate::digest::Digest::of("another");
    image.config = bedplate::digest::Digest::of("another configuration");
    let docker = bench.dockerd.connect().await;
    let place = bench.dir.path().join("exec/probe");
    let lab = Lab {
        docker: &docker,
        root: &bench.root,
        key: "smoke",
        image: &image,
        gpus: None,
        place: place.to_str().unwrap(),
        limit: Duration::from_secs(60),
    };
    let error = smoke::smoke(lab).await.unwrap_err();
    assert!(error.to_string().contains("image `smoke` is not on this host"), "{error}");
    assert!(!place.exists());
}
