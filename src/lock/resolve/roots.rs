//! From a profile to what is asked of the archives: the names it gives, and those its kernel, driver and container
//! engine stand for.

use super::driver::{self, Driver};
use crate::{
    apt::{
        Catalog,
        closure::{Preferred, Root},
    },
    error::{Error, Result},
    lock::set,
    profile::{ContainerEngine, Distribution, DriverFlavor, GpuAccess, Profile},
};

/// Why something is asked for, as `wanted-by` says it.
pub(super) mod word {
    pub(crate) const PACKAGES: &str = "packages";
    pub(crate) const KERNEL: &str = "kernel";
    pub(crate) const DRIVER: &str = "driver";
    pub(crate) const CONTAINER: &str = "container";
}

const TOOLKIT: &str = "nvidia-container-toolkit";
/// What a vendor's engine is split into.
const VENDOR_ENGINE: &[&str] = &["docker-ce", "docker-ce-cli", "containerd.io"];

/// What is asked of the archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Names and which of their versions will do.
    pub roots: Vec<Root>,
    /// The driver's upstream version, where one is wanted.
    pub driver: Option<String>,
}

/// What a profile asks of these archives. `locked` is what is kept where it can be: of the versions of a driver branch
/// the locked one.
///
/// # Errors
/// Of kind usage: the archives have no such driver, or no container toolkit where one is needed.
pub fn roots(profile: &Profile, catalog: &Catalog, locked: &[Preferred]) -> Result<Roots> {
    let mut roots: Vec<Root> =
        profile.host.packages.iter().map(|name| named(profile, name, word::PACKAGES)).collect();
    kernel(profile, &mut roots);
    let driver = driver::choose(profile, catalog, locked)?;
    container(profile, catalog, &mut roots)?;
    let version = driver.map(|Driver { version, roots: of_driver }| {
        roots.extend(of_driver);
        version
    });
    Ok(Roots { roots, driver: version })
}

/// A name as the profile writes it, `NAME` or `NAME:ARCHITECTURE`.
pub(super) fn named(profile: &Profile, shown: &str, because: &str) -> Root {
    let (name, architecture) = match shown.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (shown, None),
    };
    Root {
        name: name.to_owned(),
        architecture: architecture.filter(|a| *a != profile.host.architecture).map(str::to_owned),
        constraint: None,
        because: because.to_owned(),
        shown: shown.to_owned(),
    }
}

/// Whether a package of this name can be had for the host.
pub(super) fn has(catalog: &Catalog, profile: &Profile, name: &str) -> bool {
    catalog.named(name).iter().any(|id| {
        let architecture = catalog.get(*id).architecture;
        architecture == "all" || architecture == profile.host.architecture
    })
}

/// The kernel, and where modules are built for it, its headers.
fn kernel(profile: &Profile, roots: &mut Vec<Root>) {
    let builds = profile.driver.flavor != DriverFlavor::None;
    let image = |name: &&String| name.starts_with("linux-image-");
    let among_packages = profile.host.packages.iter().filter(image);
    let mut kernels: Vec<&str> = among_packages.map(String::as_str).collect();
    match profile.kernel.package.as_deref() {
        Some(package) => {
            kernels.push(package);
            roots.push(named(profile, package, word::KERNEL));
        }
        None if builds && kernels.is_empty() => {
            let package = match profile.host.distribution {
                Distribution::Debian => "linux-image-amd64",
                Distribution::Ubuntu => "linux-image-generic",
            };
            kernels.push(package);
            roots.push(named(profile, package, word::KERNEL));
        }
        None => {}
    }
    if builds {
        for kernel in kernels {
            if let Some(of) = kernel.strip_prefix("linux-image-") {
                let of = of.strip_prefix("unsigned-").unwrap_or(of);
                roots.push(named(profile, &format!("linux-headers-{of}"), word::KERNEL));
            }
        }
    }
}

/// The engine, what it pulls images with, and how its containers reach GPUs.
fn container(profile: &Profile, catalog: &Catalog, roots: &mut Vec<Root>) -> Result<()> {
    if profile.container.engine == ContainerEngine::None {
        return Ok(());
    }
    let mut push = |name: &str| roots.push(named(profile, name, word::CONTAINER));
    let asked = set::ENGINES.iter().find(|name| profile.host.packages.iter().any(|asked| asked == *name));
    let engine = asked.or_else(|| set::ENGINES.iter().find(|name| has(catalog, profile, name)));
    if engine == Some(&"docker-ce") {
        for name in VENDOR_ENGINE {
            push(name);
        }
    } else {
        push("docker.io");
        // Debian 13 splits the client off.
        if has(catalog, profile, "docker-cli") {
            push("docker-cli");
        }
    }
    // Only recommended by the engine, and no registry can be reached without.
    if has(catalog, profile, "ca-certificates") {
        push("ca-certificates");
    }
    match profile.container.gpu_access {
        GpuAccess::None => {}
        access => {
            if has(catalog, profile, TOOLKIT) {
                push(TOOLKIT);
            } else if access == GpuAccess::NvidiaRuntime {
                return Err(Error::usage(format!(
                    "`gpu-access = \"nvidia-runtime\"` needs `{TOOLKIT}`, which is in none of the archives"
                ))
                .hint("add NVIDIA's archive as `[[host.repository]]`, or write `gpu-access = \"cdi\"`"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "roots_tests.rs"]
mod tests;
