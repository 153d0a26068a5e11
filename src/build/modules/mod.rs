//! The driver's kernel modules: built once, in a tree of their own made of locked packages, and made into a package.
//!
//! DKMS builds them there, confined as maintainer scripts are, since it knows how each archive's source wants to be
//! built. What it would do on a host besides (build when a kernel comes, sign with a key of that host's own) it is kept
//! from.

mod package;
mod sign;

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use crate::{
    build::root::{self, Built},
    digest::Digest,
    error::{Doing, Error, Result},
    lock::{
        LockedModules, LockedPackage,
        modules::{Workshop, first_error},
    },
    progress::Unit,
    store::Store,
    system::files::{Meta, Owner, Planter, Root},
};

/// Where DKMS keeps what it builds (dkms(8), `--dkmstree`).
const DKMS: &str = "/var/lib/dkms";
/// Programs that would build modules before the patches are there.
const STOOD_IN_FOR: [&str; 2] = ["/usr/sbin/dkms", "/usr/lib/dkms/common.postinst"];
/// DKMS takes no program for signing that is not there, and then signs nothing (dkms(8), `sign_file`).
const UNSIGNED: &str = "sign_file=\"/nonexistent\"\n";
/// Largest build log and `dkms.conf` read, in bytes.
const LOG: u64 = 64 << 20;
/// Largest module read, in bytes.
const MODULE: u64 = 1 << 30;

/// What modules are built from.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The packages.
    pub workshop: &'a Workshop,
    /// Digest of all of it ([`crate::lock::modules::inputs`]).
    pub inputs: Digest,
    /// Patches to the source, by name for messages, in the order they are applied.
    pub patches: Vec<(String, Vec<u8>)>,
    /// What the modules are signed with: private key and certificate.
    pub signing: Option<(PathBuf, Vec<u8>)>,
}

/// Builds the modules in `request`'s root, whose packages are the workshop's, and puts the package of them into its
/// store.
///
/// # Errors
/// As [`root::make`]; a patch that does not apply; modules that do not build: the compiler's first error and the pair
/// at fault; a key that is none.
pub async fn build(request: &root::Request<'_>, recipe: &Recipe<'_>) -> Result<LockedModules> {
    let tree = request.root;
    let built = root::make(&root::Request { stand_ins: &STOOD_IN_FOR, ..*request }).await?;
    let source = Source::find(tree, recipe.workshop)?;
    plant(tree, recipe, built.time)?;
    let task = "build the driver's modules";
    request.progress.started(task, None, Unit::None);
    run(request, recipe, &source, &built).await?;
    let mut modules = source.modules(tree, recipe.workshop)?;
    for (name, module) in &mut modules {
        *module = sign::unsigned(std::mem::take(module));
        if let Some((key, certificate)) = &recipe.signing {
            *module = sign::signed(module, key, certificate).await.doing(|| format!("signing `{name}`"))?;
        }
    }
    let package = package::make(tree, recipe, &modules, built.time)?;
    let shown = format!("{}, {} files", package.locked.name, modules.len());
    request.progress.finished(task, Some(&shown));
    put(request.store, package, recipe.inputs)
}

fn put(store: &Store, mut package: package::Made, inputs: Digest) -> Result<LockedModules> {
    package.locked.sha256 = store.put(&package.content)?;
    package.locked.size = package.content.len() as u64;
    Ok(LockedModules { inputs, package: package.locked })
}

/// The modules' source in a tree.
#[derive(Debug)]
struct Source {
    /// Its name for DKMS.
    name: String,
    /// Its version for DKMS.
    version: String,
}

impl Source {
    /// The source that the workshop's package brings: `/usr/src/NAME-VERSION` with a `dkms.conf` (dkms(8)).
    fn find(tree: &Root, workshop: &Workshop) -> Result<Self> {
        let owner = &workshop.source.name;
        let list = [format!("{owner}.list"), format!("{owner}:{}.list", workshop.source.architecture)]
            .iter()
            .find_map(|name| tree.read_text(&format!("/var/lib/dpkg/info/{name}"), LOG).transpose())
            .transpose()?
            .unwrap_or_default();
        let none = || {
            Error::failed(format!("package `{owner}` has no modules that DKMS could build"))
                .hint("`[driver]` names a driver that is packaged in another way: report it")
        };
        let place = list.lines().find_map(|line| line.strip_suffix("/dkms.conf")).ok_or_else(none)?;
        let text = tree.read_text(&format!("{place}/dkms.conf"), LOG)?.ok_or_else(none)?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'']).to_owned())
        };
        let found = value("PACKAGE_NAME").zip(value("PACKAGE_VERSION"));
        let (name, version) = found.ok_or_else(none)?;
        if place != format!("/usr/src/{name}-{version}") {
            return Err(none());
        }
        Ok(Self { name, version })
    }

    fn directory(&self) -> String {
        format!("/usr/src/{}-{}", self.name, self.version)
    }

    /// Every module that was built, by its name.
    fn modules(&self, tree: &Root, workshop: &Workshop) -> Result<BTreeMap<String, Vec<u8>>> {
        let above = format!("{DKMS}/{}/{}/{}", self.name, self.version, workshop.release);
        let mut modules = BTreeMap::new();
        for machine in tree.names(&above)? {
            let place = format!("{above}/{machine}/module");
            for name in tree.names(&place)? {
                // Beside modules there is `Module.symvers`, for modules that are built on top of these.
                if let Some((plain, packing)) = module_name(&name) {
                    let content = tree.read(&format!("{place}/{name}"), MODULE)?.unwrap_or_default();
                    let content = packing.unpack(content).doing(|| format!("unpacking `{name}`"))?;
                    modules.insert(plain.to_owned(), content);
                }
            }
        }
        if modules.is_empty() {
            return Err(Error::failed(format!(
                "DKMS says that it built {} {}, and there is no module",
                self.name, self.version
            )));
        }
        Ok(modules)
    }
}

/// How a module is compressed: as the kernel's own are (Linux, `CONFIG_MODULE_COMPRESS_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Xz,
    Zstd,
}

impl Packing {
    fn unpack(self, content: Vec<u8>) -> std::io::Result<Vec<u8>> {
        let reader: Box<dyn Read + '_> = match self {
            Self::Plain => return Ok(content),
            Self::Xz => Box::new(liblzma::read::XzDecoder::new(content.as_slice())),
            Self::Zstd => Box::new(zstd::Decoder::new(content.as_slice())?),
        };
        let mut out = Vec::new();
        reader.take(MODULE).read_to_end(&mut out)?;
        Ok(out)
    }
}

/// The name of a module without what says how it is compressed; `None` for other files.
fn module_name(name: &str) -> Option<(&str, Packing)> {
    let (plain, packing) = match name.rsplit_once('.')? {
        (plain, "xz") => (plain, Packing::Xz),
        (plain, "zst") => (plain, Packing::Zstd),
        _ => (name, Packing::Plain),
    };
    plain.ends_with(".ko").then_some((plain, packing))
}

/// Where a patch lies in the tree.
fn patch_path(at: usize) -> String {
    format!("usr/src/bedplate-{at}.patch")
}

/// Puts the patches and DKMS's settings into the tree.
fn plant(tree: &Root, recipe: &Recipe<'_>, time: i64) -> Result<()> {
    let mut planter = Planter::new(tree);
    let meta = Meta { mode: 0o644, owner: Owner::ROOT, modified: time };
    for (at, (_, content)) in recipe.patches.iter().enumerate() {
        planter.file(patch_path(at).as_bytes(), meta, &mut content.as_slice())?;
    }
    planter.file(b"etc/dkms/framework.conf.d/bedplate.conf", meta, &mut UNSIGNED.as_bytes())?;
    Ok(())
}

/// Applies the patches and has DKMS build.
async fn run(request: &root::Request<'_>, recipe: &Recipe<'_>, source: &Source, built: &Built) -> Result<()> {
    let room = request.room(built.time);
    let workshop = recipe.workshop;
    let directory = source.directory();
    let mut jobs = Vec::new();
    for (at, (name, _)) in recipe.patches.iter().enumerate() {
        jobs.push(room.job(
            format!("applying `{name}` to the sources of {}", workshop.source.name),
            &[
                "patch",
                "--batch",
                "--forward",
                "--fuzz=0",
                "--strip=1",
                "--reject-file=-",
                &format!("--directory={directory}"),
                &format!("--input=/{}", patch_path(at)),
            ],
        ));
    }
    room.run(jobs, BTreeMap::new()).await.map_err(|error| {
        error
            .hint("a patch is made against the sources as the package has them, and applied with `patch -p1`")
    })?;
    let threads = request.threads.to_string();
    let of = ["-m", source.name.as_str(), "-v", source.version.as_str()];
    let add = [["dkms", "add"].as_slice(), &of].concat();
    let make = [["dkms", "build"].as_slice(), &of, &["-k", &workshop.release, "-j", &threads]].concat();
    let shown = format!("driver {} for kernel {}", source.version, workshop.release);
    let mut build = room.job(format!("building {shown}"), &make);
    for (name, value) in
        [("KBUILD_BUILD_USER", "bedplate"), ("KBUILD_BUILD_HOST", "bedplate"), ("KBUILD_BUILD_VERSION", "1")]
    {
        build.environment.insert(name.to_owned(), value.to_owned());
    }
    build.environment.insert("KBUILD_BUILD_TIMESTAMP".to_owned(), format!("@{}", built.time));
    let jobs = vec![room.job(format!("adding the sources of {shown}"), &add), build];
    let Err(error) = room.run(jobs, BTreeMap::new()).await.map(drop) else { return Ok(()) };
    let log = format!("{DKMS}/{}/{}/build/make.log", source.name, source.version);
    let log = request.root.read(&log, LOG)?.unwrap_or_default();
    Err(match first_error(&String::from_utf8_lossy(&log)) {
        Some(first) => Error::check(format!("the modules of {shown} do not build: {first}")).hint(
            "name another kernel or driver in the profile, or a patch in `[driver] patches`; with `--keep-tree` the sources and the log are kept",
        ),
        None => error,
    })
}

/// The locked names that a package of modules needs besides the kernel: what its source's package does, without DKMS.
fn needs(workshop: &Workshop) -> Vec<String> {
    let of_source = workshop.source.depends.iter().filter(|name| *name != "dkms").cloned();
    let kmod = workshop.packages.iter().filter(|package| package.name == "kmod");
    let mut all: Vec<String> = of_source
        .chain(kmod.map(|package: &LockedPackage| package.name.clone()))
        .chain([workshop.kernel.name.clone()])
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_names() {
        for (name, plain, packing) in [
            ("nvidia-current-open.ko", "nvidia-current-open.ko", Packing::Plain),
            ("nvidia.ko.xz", "nvidia.ko", Packing::Xz),
            ("nvidia.ko.zst", "nvidia.ko", Packing::Zstd),
        ] {
            assert_eq!(module_name(name), Some((plain, packing)));
        }
        for name in ["Module.symvers", "nvidia.ko.md5", "ko", "README.xz"] {
            assert_eq!(module_name(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_compressed_comes_out_as_it_was() {
        let module = b"\x7fELF".repeat(99);
        let zstd = zstd::encode_all(module.as_slice(), 3).unwrap();
        assert_eq!(Packing::Zstd.unpack(zstd).unwrap(), module);
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(module.as_slice(), 3).read_to_end(&mut xz).unwrap();
        assert_eq!(Packing::Xz.unpack(xz.clone()).unwrap(), module);
        assert!(Packing::Xz.unpack(xz[..xz.len() / 2].to_vec()).is_err());
        assert!(Packing::Zstd.unpack(b"none".to_vec()).is_err());
        assert_eq!(Packing::Plain.unpack(module.clone()).unwrap(), module);
    }
}
