//! `provision --host` with content: a stand-in for `ssh` enters this machine beneath an overlay, where everything may be
//! written and nothing stays. Docker is a real one. Needs root.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::{Place, Ran, profile, ran};
use crate::support::{
    docker::Dockerd,
    image::ImageSpec,
    registry::{Kind, Registry},
};

/// A host that `ssh h` leads to.
struct Far {
    /// What was written on it; on tmpfs, since an overlay cannot lie on another.
    state: tempfile::TempDir,
}

impl Far {
    fn new(place: &Place, dockerd: &Dockerd) -> Self {
        let state = tempfile::tempdir_in("/dev/shm").unwrap();
        let at = |name: &str| state.path().join(name);
        for folder in ["upper", "work", "root", "upper/etc", "upper/usr", "upper/usr/bin"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("upper/etc/bedplate-test.toml"), format!("docker-socket = \"{}\"\n", dockerd.socket()))
            .unwrap();
        script(&at("upper/usr/bin/systemctl"), "exit 0\n");
        let top = state.path().display();
        let docker = dockerd.socket();
        let docker = docker.rsplit_once('/').unwrap().0;
        script(
            &at("enter"),
            &format!(
                "set -e\n\
                 mount -t overlay overlay -o lowerdir=/,upperdir={top}/upper,workdir={top}/work {top}/root\n\
                 mount -t proc proc {top}/root/proc\n\
                 mount --rbind /dev {top}/root/dev\n\
                 mkdir -p {top}/root{docker}\n\
                 mount --bind {docker} {top}/root{docker}\n\
                 cd /\n\
                 exec chroot {top}/root /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
                 BEDPLATE_CONFIG=/etc/bedplate-test.toml sh -c \"$1\"\n"
            ),
        );
        fs::create_dir(place.at("bin")).unwrap();
        script(
            &place.at("bin/ssh"),
            &format!(
                "while [ \"$1\" != -- ]; do [ \"$1\" = -O ] && exit 0; shift; done\n\
                 case \"$3\" in *'receive --remote-progress'*)\n\
                 [ -e {top}/cut ] && {{ head -c \"$(cat {top}/cut)\" | unshare -m {top}/enter \"$3\"; exit; }} ;; esac\n\
                 exec unshare -m {top}/enter \"$3\"\n"
            ),
        );
        Self { state }
    }

    /// The bytes of content its store has.
    fn stored(&self) -> u64 {
        let mut sum = 0;
        let mut open = vec![self.at("upper/var/lib/bedplate/store/sha256")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { sum += path.metadata().unwrap().len() }
            }
        }
        sum
    }

    fn at(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }
}

fn script(path: &std::path::Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn provision(place: &Place, more: &[&str]) -> Ran {
    let arguments =
        ["provision"].iter().chain(more).chain(&["--host", "h", "--no-check", "--store", "store"]);
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", place.at("bin").display());
    ran(place.command(arguments.copied()).env("PATH", path))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_network_gets_what_it_lacks() {
    let dockerd = Dockerd::start().await;
    let docker = dockerd.connect().await;
    let registry = Registry::start(Kind::Plain).await;
    // Layers that do not shrink, of several sizes.
    let mut random = super::Random(7);
    let mut layer = |name: &str, size: usize| {
        let bytes: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
        vec![(format!("etc/{name}"), 0o644, bytes)]
    };
    let layers = vec![layer("a", 300_000), layer("b", 200_000), layer("c", 100_000)];
    let image = registry.push_image("a:1", &ImageSpec { layers, ..ImageSpec::default() }).await;
    let place = Place::new();
    let file = "[[file]]\npath = \"/etc/bedplate-a.conf\"\ncontent = \"one\"\nmode = \"0644\"\n";
    place.put("profiles/p.toml", profile(&format!("a = \"{}/a:1\"", registry.host), file));
    place.run(["lock", "p"]).exits(0);
    place.run(["bundle", "p", "--with-images", "-o", "one.tar", "--store", "store"]).exits(0);
    drop(registry);
    let far = Far::new(&place, &dockerd);

    // A plan that is only looked at sends nothing, and says what would be.
    for what in [&["one.tar", "--dry-run"][..], &["p", "--carry", "--dry-run"]] {
        provision(&place, what).exits(0).prints("+ image a ").prints("(at hand, ");
    }
    assert_eq!(far.stored(), 0);

    // A connection that breaks leaves what came whole.
    fs::write(far.at("cut"), (fs::metadata(place.at("one.tar")).unwrap().len() - 1500).to_string()).unwrap();
    let cut = provision(&place, &["one.tar"]);
    cut.exits(1).says("cut short").says("the host lacks 5 files");
    let came = far.stored();
    assert!(came > 0 && came <= image.download() + 4096, "{came}");
    assert!(docker.images_tagged("bedplate/").await.unwrap().is_empty());
    assert!(!far.at("upper/etc/bedplate-a.conf").exists());
    fs::remove_file(far.at("cut")).unwrap();

    let done = provision(&place, &["one.tar"]);
    done.exits(0).says("generation 1 is current").says("the host lacks ");
    assert!(!done.err.contains("the host lacks 5 files"), "{}", done.err);
    assert_eq!(fs::read_to_string(far.at("upper/etc/bedplate-a.conf")).unwrap(), "one\n");
    let tagged = docker.images_tagged("bedplate/").await.unwrap();
    assert!(tagged.contains_key("bedplate/a:g1"), "{tagged:?}");
    assert_eq!(far.stored(), 0, "Docker has its own copy");

    // Nothing is sent that is in Docker already.
    let again = provision(&place, &["p", "--carry"]);
    again.exits(0).prints("nothing to do").says("has all packages and images already");
    assert_eq!(far.stored(), 0);

    // What a host has lost comes again.
    docker.untag("bedplate/a:g1").await.unwrap();
    provision(&place, &["one.tar"]).exits(0).says("the host lacks 5 files");
    assert!(docker.images_tagged("bedplate/").await.unwrap().contains_key("bedplate/a:g1"));
}
