//! `lock` of packages through the real binary: from archives made here, and from the machine's real Debian archive.

use bedplate::lock::{self, Builds, Lock};
use tempfile::TempDir;

use super::{
    archive::{Archive, Release},
    fixtures::{BY, SIGNER, base, engine},
    keys::Keys,
    package::Package,
    server::Server,
};
use crate::{
    cli::{Place, Ran},
    support::{
        faulty::{Content, Faulty},
        image::ImageSpec,
    },
};

const NO_MIRROR: &str = "http://127.0.0.1:1/nothing";

/// A driver cut into packages as Debian does it.
fn driver(version: &str) -> Vec<Package> {
    let full = format!("{version}-1");
    let of = |name: &str| Package::new(name, &full).field("Source", "nvidia-graphics-drivers");
    vec![
        Package::new("nvidia-open-kernel-dkms", &full)
            .field("Source", "nvidia-open-gpu-kernel-modules")
            .depends(&format!("dkms, firmware-nvidia-gsp (= {full})")),
        of("firmware-nvidia-gsp"),
        of("libnvidia-ptxjitcompiler1"),
        of("libcuda1").depends(&format!("libnvidia-ptxjitcompiler1 (= {full}), libc6")),
        of("libnvidia-ml1"),
        of("nvidia-smi").depends(&format!("libnvidia-ml1 (= {full})")),
        of("libnvidia-cfg1"),
    ]
}

fn kernel(version: &str) -> Vec<Package> {
    let full = format!("{version}-1");
    let of = |name: &str| Package::new(name, &full).field("Source", "linux");
    let (image, headers) =
        (format!("linux-image-{version}+deb13-amd64"), format!("linux-headers-{version}+deb13-amd64"));
    vec![
        of(&image),
        of(&headers),
        of("linux-image-amd64").depends(&format!("{image} (= {full})")),
        of("linux-headers-amd64").depends(&format!("{headers} (= {full})")),
    ]
}

/// What stands for Debian's archive, with these packages besides.
fn debian(keys: &Keys, main: Vec<Package>, security: Vec<Package>) -> (Archive, Archive) {
    trixie(keys, &[base(), main].concat(), &security)
}

/// Debian's archive and that of its security updates, of these packages alone.
pub(crate) fn trixie(keys: &Keys, main: &[Package], security: &[Package]) -> (Archive, Archive) {
    let none = Vec::new();
    let components = |first: &'_ [Package]| -> Vec<(&'static str, Vec<Package>)> {
        let mut list = vec![("main", first.to_vec())];
        list.extend(["contrib", "non-free", "non-free-firmware"].map(|name| (name, Vec::new())));
        list
    };
    let suite = |archive: &mut Archive, name: &str, packages: &[Package]| {
        let owned = components(packages);
        let components: Vec<(&str, &[Package])> =
            owned.iter().map(|(name, packages)| (*name, packages.as_slice())).collect();
        archive.suite(&Release { codename: "trixie", ..Release::new(name, BY) }, &components, keys);
    };
    let (mut debian, mut updates) = (Archive::default(), Archive::default());
    suite(&mut debian, "trixie", main);
    suite(&mut debian, "trixie-updates", &none);
    suite(&mut updates, "trixie-security", security);
    (debian, updates)
}

pub(super) fn packages(drivers: &[&str], kernels: &[&str]) -> Vec<Package> {
    let mut all: Vec<Package> = drivers.iter().flat_map(|version| driver(version)).collect();
    all.extend(kernels.iter().flat_map(|version| kernel(version)));
    all.push(Package::new("dkms", "3.0"));
    all.push(Package::new("nvidia-persistenced", "550.1-1").depends("libnvidia-cfg1"));
    all.extend(engine("26.1.5-1"));
    all.push(Package::new("chrony", "4.6-1").depends("libc6"));
    all
}

/// `lock` with these arguments, with its indices in this store: beside the place, whose files are compared.
fn lock_in<'a>(store: &'a TempDir, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["lock"], arguments, &["--store", store.path().to_str().unwrap()]].concat()
}

/// A directory with a profile `gpu` and made archives.
pub(super) struct Made {
    pub(super) place: Place,
    store: TempDir,
    keys: Keys,
    pub(super) debian: Server,
    security: Server,
}

/// The place knows these archives, by the keys they are signed with, and no others.
pub(crate) fn mirrors(place: &Place, keys: &Keys, debian: &str, security: &str) {
    place.put("home/archive.asc", keys.armored(BY));
    let key = place.at("home/archive.asc");
    let one = |name: &str, url: &str| {
        format!("[archive.{name}]\nmirrors = [\"{url}\"]\nkeyring = \"{}\"\n", key.display())
    };
    let text = one("debian", debian) + &one("debian-security", security);
    place.config(&format!("retries = 0\napt-directory = \"{}\"\n{text}", place.at("no-apt").display()));
}

impl Made {
    pub(super) async fn new(images: &str, main: Vec<Package>, security: Vec<Package>) -> Self {
        let keys = Keys::with(SIGNER);
        let (debian, updates) = debian(&keys, main, security);
        let made = Self {
            place: Place::new(),
            store: TempDir::new().unwrap(),
            debian: Server::start(debian).await,
            security: Server::start(updates).await,
            keys,
        };
        made.mirrors(&made.debian.url, &made.security.url);
        made.place.put(
            "profiles/gpu.toml",
            format!(
                "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\npackages = [\"chrony\"]\n\
                 [gpu]\nmodel = \"H100\"\nbrand = \"tesla\"\n[driver]\nflavor = \"open\"\nversion = \"550\"\n\
                 [container]\nengine = \"docker\"\ngpu-access = \"cdi\"\n[images]\n{images}\n"
            ),
        );
        made
    }

    pub(super) fn mirrors(&self, debian: &str, security: &str) {
        mirrors(&self.place, &self.keys, debian, security);
    }

    fn change(&self, main: Vec<Package>, security: Vec<Package>) {
        let (debian, updates) = debian(&self.keys, main, security);
        self.debian.change(|archive| *archive = debian);
        self.security.change(|archive| *archive = updates);
    }

    /// `lock gpu` with these arguments.
    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        self.place.run(lock_in(&self.store, &[&["gpu"], arguments].concat()))
    }

    /// `lock gpu` with these arguments, which is refused and changes nothing.
    fn refuses(&self, arguments: &[&str], code: i32, says: &[&str], hint: &str) {
        self.place.refuses(lock_in(&self.store, &[&["gpu"], arguments].concat()), code, says, hint);
    }

    pub(super) fn lock(&self) -> Lock {
        lock::parse("gpu.lock", &self.place.text("profiles/gpu.lock")).unwrap()
    }

    fn version(&self, name: &str) -> String {
        let lock = self.lock();
        lock.packages
            .iter()
            .find(|package| package.name == name)
            .map(|p| p.version.clone())
            .unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_locked_kept_and_updated() {
    let made = Made::new("", packages(&["550.163.01"], &["6.12.117"]), Vec::new()).await;
    // The pair is known not to build: the lock is written all the same.
    let ran = made.run(&[]);
    ran.exits(3)
        .says("locked 0 images, ")
        .says("driver 550.163.01")
        .says("the set is refused: driver 550.163.01")
        // No archive of the profile has the toolkit.
        .says("profiles/gpu.toml:14: containers reach GPUs by `nvidia-container-toolkit`")
        .says("`[[host.repository]]`");
    let lock = made.lock();
    let set = lock.set.clone().unwrap();
    assert_eq!(set.kernel.as_deref(), Some("6.12.117+deb13-amd64"));
    assert_eq!(set.engine.as_deref(), Some("docker.io 26.1.5-1"));
    assert_eq!(set.builds, Some(Builds::No));
    assert_eq!(lock.repositories.keys().collect::<Vec<_>>(), ["debian", "debian-security"]);
    assert_eq!(lock.repositories["debian"].suites.keys().collect::<Vec<_>>(), ["trixie", "trixie-updates"]);
    let text = made.place.text("profiles/gpu.lock");
    assert!(!text.contains("127.0.0.1"), "the lock names no place");

    // Nothing is asked again, by any of these.
    made.debian.seen();
    made.mirrors(NO_MIRROR, NO_MIRROR);
    made.run(&[]).exits(3).says("is up to date: 0 images, ");
    made.run(&["--check"]).exits(3).says("is up to date");
    made.place.edit("profiles/gpu.toml", "model = \"H100\"", "model = \"H200\"");
    made.run(&["--check"]).exits(4).says("`gpu.toml` changed");
    made.run(&[]).exits(3);
    made.run(&["--why", "libnvidia-ml1"]).exits(0).prints("driver: libnvidia-ml1\n").prints(
        "1 more package that was asked for leads to it; 1 package depends on it (`--verbose` lists them)",
    );
    made.run(&["--why", "libnvidia-ml1", "-v"]).exits(0).prints("driver: nvidia-smi → libnvidia-ml1\n");
    let json = made.run(&["--why", "chrony", "--format", "json"]).exits(0).json();
    assert_eq!(json["packages"][0]["wanted-by"][0], "packages");
    made.refuses(&["--why", "chronie"], 2, &["no package `chronie`"], "`chrony`");
    made.refuses(&["--update", "package:nvidia"], 2, &["no package `nvidia`"], "nvidia-");
    assert!(made.debian.seen().is_empty());
    made.place.edit("profiles/gpu.toml", "\"chrony\"", "\"chrony\", \"dash\"");
    made.run(&["--check"]).exits(4).says("packages that the profile asks for changed");
    made.refuses(&[], 1, &["refused the connection"], "mirror");
    made.mirrors(&made.debian.url, &made.security.url);

    // The archive moves; what is not to be updated stays, and with one part of the driver go the others.
    let newer: Vec<Package> = packages(&["550.163.01", "550.200.01"], &["6.12.117", "6.12.118"]);
    made.change(newer, vec![Package::new("chrony", "4.6-1+deb13u1").depends("libc6")]);
    made.run(&[]).exits(3);
    assert_eq!((made.version("nvidia-smi"), made.version("chrony")), ("550.163.01-1".into(), "4.6-1".into()));
    let ran = made.run(&["--check", "--update", "package:nvidia-smi"]);
    ran.exits(4).says("moved: package libcuda1: 550.163.01-1 → 550.200.01-1");
    assert!(!ran.err.contains("chrony"), "{}", ran.err);
    // A diff says what has moved, once.
    let ran = made.run(&["--check", "--update", "package:nvidia-smi", "--diff"]);
    ran.exits(4).prints("~ driver: 550.163.01 → 550.200.01\n");
    assert!(!ran.err.contains("moved:"), "{}", ran.err);
    assert_eq!(ran.err.matches("solving packages").count(), 1, "{}", ran.err);
    made.run(&["--update", "package:nvidia-smi", "--diff"])
        .exits(0)
        .prints("~ driver: 550.163.01 → 550.200.01\n")
        .prints("~ builds: no → untried\n");
    assert_eq!(made.version("libnvidia-cfg1"), "550.200.01-1");
    assert_eq!(made.lock().set.unwrap().kernel.as_deref(), Some("6.12.117+deb13-amd64"));
    let ran = made.run(&["--update-all", "--diff", "markdown"]);
    ran.exits(0)
        .prints("| **kernel** | `6.12.117+deb13-amd64` | `6.12.118+deb13-amd64` |")
        .prints("| security fix |")
        .prints("| `chrony` | `4.6-1` | `4.6-1+deb13u1` | `debian-security` |");
    made.run(&["--check", "--update-all"]).exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_driver_and_what_it_means_for_images() {
    let image = ImageSpec {
        env: vec!["CUDA_VERSION=12.8.1".to_owned(), "NVIDIA_REQUIRE_CUDA=cuda>=12.8".to_owned()],
        ..ImageSpec::default()
    };
    let mut content = Content::image("vllm", "1", &image.build());
    content.add_image("agent", "1", &image.build());
    let registry = Faulty::start(content, Box::new(|_, _| None)).await;
    let images = format!("vllm = \"{0}/vllm:1\"\nagent = \"{0}/agent:1\"", registry.host);
    let all = packages(&["550.163.01", "570.124.06"], &["6.12.120"]);
    let made = Made::new(&images, all, Vec::new()).await;
    // The branch is 550; the verdict is of the locked version.
    made.run(&[]).exits(3).says("image `vllm` is refused");
    made.place.edit("profiles/gpu.toml", "version = \"550\"", "version = \"570.124.06\"");
    made.run(&["--diff"])
        .exits(0)
        .prints("~ driver: 550.163.01 → 570.124.06 (two images go from refuse to native)\n");
    assert_eq!(made.version("libnvidia-cfg1"), "570.124.06-1", "what only others need comes along");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_nothing_reads_is_told() {
    let made = Made::new("", packages(&["550.163.01"], &["6.12.117"]), Vec::new()).await;
    let quiet = made.run(&[]);
    assert!(!quiet.err.contains("no archive of this profile"), "{}", quiet.err);
    let config = made.place.text("home/.config/bedplate/config.toml");
    let more = "[archive.debain]\nmirrors = []\n[archive.vendor]\nmirrors = []\n";
    made.place.config(&format!("{config}{more}"));
    let line = config.lines().count() + 1;
    made.run(&[])
        .says(&format!("config.toml:{line}: `[archive.debain]` is no archive of this profile"))
        .says("did you mean `[archive.debian]`?")
        .says("`[archive.vendor]` is no archive of this profile")
        .says("the archives of this profile are debian, debian-security, ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_was_edited_is_not_believed() {
    let made = Made::new("", packages(&["550.163.01"], &["6.12.117"]), Vec::new()).await;
    made.run(&[]).exits(3);
    let good = made.place.text("profiles/gpu.lock");
    for (from, to) in [
        ("builds = \"no\"", "builds = \"yes\""),
        ("driver = \"550.163.01\"", "driver = \"535.261.03\""),
        ("kernel = \"6.12.117+deb13-amd64\"", "kernel = \"6.12.118+deb13-amd64\""),
    ] {
        made.place.edit("profiles/gpu.lock", from, to);
        for verb in [
            &["lock", "gpu", "--check"][..],
            &["lock", "gpu", "--check", "--diff", "text"],
            &["provision", "gpu", "--dry-run", "--root", "home"],
            &["bundle", "gpu", "-o", "gpu.tar"],
        ] {
            made.place.refuses(
                verb.iter().copied(),
                2,
                &["does not agree with itself", to, from.split('"').nth(1).unwrap()],
                "run `bedplate lock`",
            );
        }
        // Nothing is asked of the archives for it.
        made.debian.seen();
        made.run(&[]).exits(3).says("the set is refused");
        assert!(made.debian.seen().is_empty());
        assert!(made.place.text("profiles/gpu.lock").contains(from), "{from}");
        made.run(&["--check"]).exits(3);
        made.place.put("profiles/gpu.lock", &good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_together_is_refused() {
    let mut all = packages(&["535.261.03", "550.163.01"], &["6.12.117"]);
    all.push(Package::new("rendering", "1.0").depends("libnvidia-cfg1 (= 535.261.03-1)"));
    let made = Made::new("", all, Vec::new()).await;
    made.place.edit("profiles/gpu.toml", "\"chrony\"", "\"rendering\"");
    made.refuses(
        &[],
        3,
        &[
            "parts of the driver differ",
            "`libnvidia-cfg1` is 535.261.03",
            "packages: rendering → libnvidia-cfg1",
        ],
        "take `rendering` out",
    );
    made.place.edit("profiles/gpu.toml", "\"rendering\"", "\"chrony\"");
    made.place.edit("profiles/gpu.toml", "version = \"550\"", "version = \"580\"");
    made.refuses(&[], 2, &["no archive has the open driver 580 whole"], "550.163.01");
    made.place.edit("profiles/gpu.toml", "\"cdi\"", "\"nvidia-runtime\"");
    made.place.edit("profiles/gpu.toml", "version = \"580\"", "version = \"550\"");
    made.refuses(&[], 2, &["nvidia-container-toolkit"], "[[host.repository]]");
}

/// A shipped profile without its images and deployments: no registry is reached here.
fn shipped(name: &str) -> String {
    let text = std::fs::read_to_string(format!("profiles/{name}.toml")).unwrap();
    let mut skip = false;
    let kept = text.lines().filter(|line| {
        if line.starts_with('[') {
            skip = matches!(*line, "[images]" | "[deploy]");
        }
        !skip
    });
    kept.fold(String::new(), |all, line| all + line + "\n")
}

/// What the table of pairs says of a set.
fn known(lock: &Lock, release: &str, patched: bool) -> (Builds, i32) {
    let set = lock.set.as_ref().unwrap();
    let kernel = set.kernel.as_ref().unwrap();
    let image = lock.packages.iter().find(|p| p.name == format!("linux-image-{kernel}")).unwrap();
    let kernel = image.version.split('-').next().unwrap();
    let row = lock::pairs::pairs().iter().find(|pair| {
        pair.release == release && pair.kernel == kernel && Some(&pair.driver) == set.driver.as_ref()
    });
    match row.map(|pair| pair.builds) {
        _ if patched => (Builds::Patched, 0),
        None => (Builds::Untried, 0),
        Some(true) => (Builds::Yes, 0),
        Some(false) => (Builds::No, 3),
    }
}

#[test]
fn the_shipped_profiles_lock_against_debians_archive() {
    let store = TempDir::new().unwrap();
    for (name, release, branch) in [("h100-vllm", "trixie", "550."), ("h100-bookworm", "bookworm", "535.")] {
        let place = Place::new();
        place.put("profiles/p.toml", shipped(name));
        for patch in std::fs::read_dir("profiles/patches").unwrap() {
            let patch = patch.unwrap();
            let path = format!("profiles/patches/{}", patch.file_name().to_str().unwrap());
            place.put(&path, std::fs::read(patch.path()).unwrap());
        }
        let mut text = shipped(name);
        // The shipped kernel, then the one that the release's updates come to.
        for kernel in ["", "linux-image-amd64"] {
            if !kernel.is_empty() {
                let start = text.find("package = \"linux-image-").unwrap();
                let end = start + text[start..].find('\n').unwrap();
                text.replace_range(start..end, &format!("package = \"{kernel}\""));
                place.put("profiles/p.toml", &text);
            }
            let ran = place.run(lock_in(&store, &["p"]));
            assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
            let lock = lock::parse("p.lock", &place.text("profiles/p.lock")).unwrap();
            let set = lock.set.clone().unwrap();
            let (builds, code) = known(&lock, release, text.contains("patches = "));
            assert_eq!((set.builds, ran.code), (Some(builds), Some(code)), "{set:?}\n{}", ran.err);
            let driver = set.driver.unwrap();
            assert!(driver.starts_with(branch), "{name}: {driver}");
            assert_eq!(set.firmware.as_ref(), Some(&driver));
            for needed in ["libcuda1", "nvidia-smi", "libnvidia-cfg1", "docker.io", "openssh-server", "libc6"]
            {
                let found = lock.packages.iter().find(|package| package.name == needed);
                let found = found.unwrap_or_else(|| panic!("{name} has no {needed}"));
                if needed.starts_with("libnvidia") {
                    assert!(found.version.starts_with(&driver), "{needed} {}", found.version);
                }
            }
            place.run(lock_in(&store, &["p", "--mirror", NO_MIRROR])).exits(code).says("is up to date");
        }
        place
            .run(lock_in(&store, &["p", "--why", "libnvidia-cfg1"]))
            .exits(0)
            .prints("nvidia-persistenced → libnvidia-cfg1");
    }
}
