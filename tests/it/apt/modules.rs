//! `lock --modules`: a driver made here, of one module, built for Debian's own kernel with Debian's own compiler.

use std::process::Command;

use bedplate::lock::{self, Builds};
use tempfile::TempDir;

use super::{
    archive::{Archive, Release},
    fixtures::{BY, SIGNER},
    keys::Keys,
    package::Package,
    server::Server,
};
use crate::cli::{Place, Ran};

const VERSION: &str = "999.1";
/// A module that calls a function of its own with one argument too few: a patch adds it.
const SOURCE: &str = "#include <linux/module.h>
static int add(int a, int b) { return a + b; }
static int __init begin(void) { return add(1) == 3 ? 0 : -1; }
static void __exit end(void) {}
module_init(begin);
module_exit(end);
MODULE_LICENSE(\"GPL\");
";
const PATCH: &str = "A reason.\n\n--- a/small.c\n+++ b/small.c\n@@ -1,5 +1,5 @@\n #include <linux/module.h>
 static int add(int a, int b) { return a + b; }
-static int __init begin(void) { return add(1) == 3 ? 0 : -1; }
+static int __init begin(void) { return add(1, 2) == 3 ? 0 : -1; }
 static void __exit end(void) {}
 module_init(begin);
";
const DKMS: &str = "PACKAGE_NAME=\"nvidia-small\"\nPACKAGE_VERSION=\"999.1\"\nBUILT_MODULE_NAME[0]=\"small\"\n\
    DEST_MODULE_NAME[0]=\"nvidia-small\"\nDEST_MODULE_LOCATION[0]=\"/updates/dkms\"\nAUTOINSTALL=yes\n\
    MAKE[0]=\"make -C /lib/modules/${kernelver}/build M=${dkms_tree}/nvidia-small/999.1/build modules\"\n";

/// The driver's packages, as Debian cuts them: the sources, and empty ones beside them.
fn driver() -> Vec<Package> {
    let full = format!("{VERSION}-1");
    let of = |name: &str| Package::new(name, &full).field("Source", "nvidia-graphics-drivers");
    let top = "./usr/src/nvidia-small-999.1/";
    let sources = Package::new("nvidia-open-kernel-dkms", &full)
        .field("Source", "nvidia-open-gpu-kernel-modules")
        .field("Provides", "nvidia-open-kernel-999.1")
        .depends("dkms, firmware-nvidia-gsp")
        .entry(b'5', "./usr/src/", "", b"")
        .entry(b'5', top, "", b"")
        .file(&format!("{top}dkms.conf"), DKMS)
        .file(&format!("{top}Makefile"), "obj-m := small.o\n")
        .file(&format!("{top}small.c"), SOURCE)
        // What Debian's package does: it must not come to that before the patches are there.
        .script("postinst", "#!/bin/sh\nset -e\n/usr/lib/dkms/common.postinst nvidia-small 999.1 /usr/share/nvidia-small \"\" \"$2\"\n");
    let rest = ["firmware-nvidia-gsp", "libcuda1", "libnvidia-ml1", "libnvidia-ptxjitcompiler1"];
    let smi = of("nvidia-smi").depends("nvidia-open-kernel-999.1");
    // Debian's would bring its own driver in.
    let beside = ["nvidia-persistenced", "nvidia-modprobe"].map(|name| Package::new(name, &full));
    [vec![sources, smi], rest.map(of).to_vec(), beside.to_vec()].concat()
}

/// A directory with the profile `gpu`, and an archive of the driver beside Debian's own.
struct Made {
    place: Place,
    store: TempDir,
    _archive: Server,
}

impl Made {
    async fn new() -> Self {
        let keys = Keys::with(SIGNER);
        let mut archive = Archive::default();
        archive.flat(&Release::new("made", BY), &driver(), &keys);
        let archive = Server::start(archive).await;
        let place = Place::new();
        place.put("profiles/made.asc", keys.armored(BY));
        place.put(
            "profiles/gpu.toml",
            format!(
                "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\n\
                 [[host.repository]]\nname = \"made\"\nuri = \"{}\"\nsuites = [\"/\"]\nkeyring = \"made.asc\"\n\
                 [kernel]\npackage = \"linux-image-cloud-amd64\"\n\
                 [driver]\nflavor = \"open\"\nversion = \"{VERSION}\"\n# more\n\
                 [container]\ngpu-access = \"none\"\n",
                archive.url
            ),
        );
        Self { place, store: TempDir::new().unwrap(), _archive: archive }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let store = self.store.path().to_str().unwrap();
        self.place.run([&["--store", store], arguments].concat())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_are_built_once_and_locked() {
    let made = Made::new().await;
    // Nothing is patched yet: the compiler says what is wrong, and the lock stays without modules.
    made.run(&["lock", "gpu", "--modules"])
        .exits(3)
        .says("the modules of driver 999.1 for kernel 6.")
        .says("do not build: ")
        .says("small.c:3:40: error: too few arguments to function")
        .says("`[driver] patches`");
    let read = || lock::parse("gpu.lock", &made.place.text("profiles/gpu.lock")).unwrap();
    let untried = read();
    assert_eq!(
        (untried.modules.as_ref(), untried.set.as_ref().unwrap().builds),
        (None, Some(Builds::Untried))
    );

    let signed =
        "[driver]\nsigning = { key = \"KEY\", certificate = \"modules.crt\" }\npatches = [\"small.patch\"]";
    let key = made.place.at("home/modules.key");
    made.place.edit("profiles/gpu.toml", "[driver]", &signed.replace("KEY", key.to_str().unwrap()));
    made.place.put("profiles/small.patch", PATCH);
    let certificate = made.place.at("profiles/modules.crt");
    let request = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=modules of a test",
            "-days",
            "9",
        ])
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .output()
        .unwrap();
    assert!(request.status.success());
    made.run(&["lock", "gpu", "--modules"]).exits(0).says("locked nvidia-open-kernel-6.");
    let lock = read();
    let modules = lock.modules.clone().unwrap();
    assert_eq!(lock.set.as_ref().unwrap().builds, Some(Builds::Patched));
    let host = lock.host_packages();
    let has = |name: &str| host.iter().any(|package| package.name == name);
    assert!(has(&modules.package.name) && has("nvidia-smi") && has("linux-image-cloud-amd64"));
    assert!(
        !has("dkms")
            && !has("gcc-14")
            && !has("nvidia-open-kernel-dkms")
            && !has("linux-headers-cloud-amd64")
    );

    // Once: a second time nothing is built, and a plain `lock` keeps what is there.
    let before = made.place.text("profiles/gpu.lock");
    made.run(&["lock", "gpu", "--modules"]).exits(0).says("is up to date");
    assert_eq!(made.place.text("profiles/gpu.lock"), before);
    made.run(&["lock", "gpu", "--check"]).exits(0);

    // The package is one that dpkg takes, for the locked kernel, and its module is signed.
    let hex = modules.package.sha256.hex();
    let deb = made.store.path().join(format!("sha256/{}/{hex}", &hex[..2]));
    let out = TempDir::new().unwrap();
    let unpacked = Command::new("dpkg-deb").arg("--raw-extract").arg(&deb).arg(out.path()).status().unwrap();
    assert!(unpacked.success());
    let control = std::fs::read_to_string(out.path().join("DEBIAN/control")).unwrap();
    let release = lock.set.as_ref().unwrap().kernel.clone().unwrap();
    for line in [
        format!("Depends: firmware-nvidia-gsp, linux-image-{release} (= "),
        "Provides: nvidia-open-kernel-999.1, nvidia-open-kernel-dkms\n".to_owned(),
        "Conflicts: nvidia-open-kernel-dkms (>= 0)\n".to_owned(),
    ] {
        assert!(control.contains(&line), "{line}\n{control}");
    }
    let module = out.path().join(format!("usr/lib/modules/{release}/updates/bedplate/nvidia-small.ko"));
    let module = std::fs::read(&module).unwrap();
    let has = |text: &str| module.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(&format!("vermagic={release} ")) && module.ends_with(b"~Module signature appended~\n"));

    // A patch that says something else makes other modules: those that are locked are not taken for them.
    made.place.put("profiles/small.patch", PATCH.replace("A reason.", "Another reason."));
    made.run(&["lock", "gpu"]).exits(0);
    assert_eq!(read().modules, None);
    // The sources, the compiler and the log of a build lie nowhere any more.
    assert!(!made.store.path().join("build/tree").exists());
}
