//! Can this driver, with these GPUs, run that image? NVIDIA's rules, from an image's facts and our tables.
//!
//! In CDI mode nothing enforces an image's requirements when a container starts, so bedplate judges them itself.

mod requirement;
mod tables;
mod version;

use requirement::{Outcome, Properties};
pub(super) use tables::table_digest;
pub use tables::{CUDA_DRIVERS, GPUS, GpuKind, Model, model, models};
use version::{Driver, Operator, Version};

use super::{
    ImageFacts, Verdict,
    VerdictOutcome::{self, Forward, Minor, Native, NotApplicable, Refuse, Unknown},
    wire::REQUIRE_CUDA,
};
use crate::profile::{DriverFlavor, GpuAccess, Profile};

/// What is known of a host's GPUs. What is absent is looked up by the model, else unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuFacts {
    /// Model, as `[gpu]` or as NVML names it.
    pub model: Option<String>,
    /// CUDA compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// Brand as the driver reports it, in the spelling of `NVIDIA_REQUIRE_*`.
    pub brand: Option<String>,
}

/// The verdict for an image on the host a profile describes, from `[gpu]` and the driver: the locked one's version where
/// there is one (`[set]`), else `[driver]`.
pub fn verdict(facts: &ImageFacts, profile: &Profile, locked_driver: Option<&str>) -> Verdict {
    if !profile.wants_gpus() {
        return match asks(facts) {
            None => said(NotApplicable, "the image names no CUDA version, and the host has no GPU"),
            Some(what) => said(Refuse, format!("the image wants {what}, and the profile's host has no GPU")),
        };
    }
    let gpu = profile.gpu.as_ref().map(|gpu| GpuFacts {
        model: gpu.model.clone(),
        compute_capability: gpu.compute_capability,
        brand: gpu.brand.clone(),
    });
    let driver = match profile.driver.flavor {
        DriverFlavor::None => None,
        DriverFlavor::Open | DriverFlavor::Proprietary => locked_driver.or(profile.driver.version.as_deref()),
    };
    // The container toolkit reads an image with a CUDA version and no requirement as `cuda>=VERSION`, and its
    // runtime refuses to start it (nvidia-container-toolkit, `internal/config/image`, "legacy" images).
    let legacy = profile.container.gpu_access == GpuAccess::NvidiaRuntime
        && !facts.require.contains_key(REQUIRE_CUDA)
        && !facts.disable_require;
    if legacy
        && let Some((major, minor)) = facts.cuda.as_deref().and_then(Version::parse).map(|v| v.major_minor())
    {
        let mut facts = facts.clone();
        facts.require.insert(REQUIRE_CUDA.to_owned(), format!("cuda>={major}.{minor}"));
        return judge(&facts, driver, gpu);
    }
    judge(facts, driver, gpu)
}

/// The verdict for an image with this driver (exact version, or branch) and these GPUs. Nothing is known of
/// compatibility libraries in the image: see [`judge_with_libraries`].
pub fn judge(facts: &ImageFacts, driver: Option<&str>, gpu: Option<GpuFacts>) -> Verdict {
    judge_with_libraries(facts, driver, gpu, None)
}

/// Like [`judge`], where it was seen whether the image holds the forward compatibility libraries (`cuda-compat`) of its
/// CUDA release. An image's configuration does not show them, so only who looked inside can say.
pub fn judge_with_libraries(
    facts: &ImageFacts,
    driver: Option<&str>,
    gpu: Option<GpuFacts>,
    libraries: Option<bool>,
) -> Verdict {
    if asks(facts).is_none() {
        return said(Unknown, "the image's configuration names neither a CUDA version nor a requirement");
    }
    let gpu = Known::of(gpu.unwrap_or_default());
    let read = driver.map(|text| Driver::parse(text).ok_or(text));
    let driver = match &read {
        Some(Ok(driver)) => Some(driver),
        Some(Err(text)) => {
            return said(Unknown, format!("`{}` is not a driver version", text.escape_debug()));
        }
        None => None,
    };
    let by_architecture = architecture(facts, &gpu);
    if let Err(verdict) = &by_architecture
        && verdict.outcome == Refuse
    {
        return verdict.clone();
    }
    let Some(driver) = driver else {
        return said(
            Unknown,
            "the driver's version is not known, so nothing can be said of the image's CUDA",
        );
    };
    let requirement = if facts.disable_require {
        Outcome::Met
    } else {
        let properties = Properties {
            driver: Some(driver),
            cuda: Some(tables::tables().cuda_of(&driver.range)),
            arch: gpu.capability,
            brands: &gpu.brands,
        };
        requirement::evaluate(&facts.require, &properties)
    };
    if let Outcome::Unmet { variable, term, found, alternatives } = &requirement {
        return said(Refuse, unmet(facts, driver, variable, term, found, *alternatives));
    }
    let level = level(facts, driver, &gpu, libraries);
    if level.outcome == Refuse {
        return level;
    }
    if let Outcome::Unknown { variable, term, why } = requirement {
        return said(Unknown, format!("`{variable}` wants `{term}`, and it cannot be told: {why}"));
    }
    match by_architecture {
        Err(unknown) => unknown,
        Ok(()) => level,
    }
}

/// The driver a CUDA version wants for its full feature level, as the table writes it: `12.8.1` → `570.26`.
pub fn driver_wanted(cuda: &str) -> Option<&'static str> {
    tables::tables().wanted_text(Version::parse(cuda)?.major_minor())
}

/// The lowest driver for the minor version compatibility of the image's CUDA release, as the table writes it: CUDA 12.8
/// → `525.60.13`. `None` where the image names no release, or the table has no floor for it.
pub fn floor(facts: &ImageFacts) -> Option<&'static str> {
    tables::tables().floor_text(release(facts).ok()?.0)
}

/// The driver the image's CUDA release wants for its full feature level, as [`driver_wanted`] of it.
pub fn full_level(facts: &ImageFacts) -> Option<&'static str> {
    tables::tables().wanted_text(release(facts).ok()?)
}

fn said(outcome: VerdictOutcome, because: impl Into<String>) -> Verdict {
    Verdict { outcome, because: because.into() }
}

/// What of CUDA an image asks for; `None`: nothing.
fn asks(facts: &ImageFacts) -> Option<String> {
    match &facts.cuda {
        Some(cuda) => Some(format!("CUDA {}", cuda.escape_debug())),
        None if facts.require.is_empty() => None,
        None => Some("an NVIDIA driver".to_owned()),
    }
}

/// `[gpu]` or what NVML says, completed from the table of models.
struct Known {
    name: String,
    capability: Option<(u32, u32)>,
    brands: Vec<String>,
    kind: Option<GpuKind>,
}

impl Known {
    fn of(gpu: GpuFacts) -> Self {
        let model = gpu.model.as_deref().and_then(model);
        let brands = match gpu.brand {
            Some(brand) => vec![brand.to_ascii_lowercase()],
            None => model.map(|model| model.brands.clone()).unwrap_or_default(),
        };
        Self {
            capability: gpu.compute_capability.or(model.map(|model| model.compute_capability)),
            kind: model.map(|model| model.kind),
            name: gpu.model.map_or_else(|| "the GPU".to_owned(), |name| name.escape_debug().to_string()),
            brands,
        }
    }
}

/// The release an image was made for: `CUDA_VERSION`, else what its requirement names.
fn release(facts: &ImageFacts) -> Result<(u32, u32), Verdict> {
    match &facts.cuda {
        Some(cuda) => Version::parse(cuda).map(|version| version.major_minor()).ok_or_else(|| {
            said(Unknown, format!("the image's CUDA version `{}` is not a version", cuda.escape_debug()))
        }),
        None => requirement::cuda_wanted(&facts.require)
            .map(|version| version.major_minor())
            .ok_or_else(|| said(Unknown, "the image's requirement is met, but it names no CUDA version")),
    }
}

/// Whether the image's CUDA release still supports the GPU's architecture.
fn architecture(facts: &ImageFacts, gpu: &Known) -> Result<(), Verdict> {
    let Ok((major, _)) = release(facts) else { return Ok(()) };
    let Some(dropped) = tables::tables().dropped.get(&major) else { return Ok(()) };
    let Some(architecture) = gpu.capability.and_then(tables::architecture) else {
        return Err(said(
            Unknown,
            format!(
                "CUDA {major} supports no {} GPUs, and the architecture of {} is not known",
                dropped.join(", "),
                gpu.name
            ),
        ));
    };
    if dropped.iter().any(|name| name == architecture) {
        let (major_capability, minor_capability) = gpu.capability.unwrap_or_default();
        return Err(said(
            Refuse,
            format!(
                "CUDA {major} no longer supports {architecture} GPUs, and {} is one (compute capability {major_capability}.{minor_capability})",
                gpu.name
            ),
        ));
    }
    Ok(())
}

/// The driver's version against the release's full feature level, then against the major release's floor.
fn level(facts: &ImageFacts, driver: &Driver, gpu: &Known, libraries: Option<bool>) -> Verdict {
    let (major, minor) = match release(facts) {
        Ok(release) => release,
        Err(verdict) => return verdict,
    };
    let tables = tables::tables();
    let name = driver.name();
    let (Some(wanted), Some(wanted_text)) =
        (tables.toolkit.get(&(major, minor)), tables.wanted_text((major, minor)))
    else {
        let newest = tables.newest().unwrap_or_default();
        let place = if (major, minor) > newest { "newer than" } else { "not in" };
        return said(
            Unknown,
            format!(
                "CUDA {major}.{minor} is {place} the table of drivers, which ends at CUDA {}.{}",
                newest.0, newest.1
            ),
        );
    };
    match driver.range.compare(Operator::GreaterEqual, wanted) {
        Some(true) => {
            return said(
                Native,
                format!(
                    "CUDA {major}.{minor} wants driver {wanted_text} for its full feature level, and {name} is at or above it"
                ),
            );
        }
        None => {
            return said(
                Unknown,
                format!(
                    "CUDA {major}.{minor} wants driver {wanted_text} for its full feature level, and {name} has versions on both sides of it"
                ),
            );
        }
        Some(false) => {}
    }
    let (Some(floor), Some(floor_text)) = (tables.floor.get(&major), tables.floor_text(major)) else {
        return said(Unknown, format!("the table of drivers has no floor for CUDA {major}"));
    };
    match driver.range.compare(Operator::GreaterEqual, floor) {
        Some(true) => said(
            Minor,
            format!(
                "CUDA {major}.{minor} wants driver {wanted_text} for its full feature level; {} is at or above the {major}.x floor {floor_text}",
                if driver.branch { &name } else { &driver.text }
            ),
        ),
        None => said(
            Unknown,
            format!(
                "the floor of CUDA {major}.x is driver {floor_text}, and {name} has versions on both sides of it"
            ),
        ),
        Some(false) => below_floor((major, minor), floor_text, &name, gpu, libraries),
    }
}

/// Below the floor only forward compatibility helps: on an eligible GPU, with its libraries in the image.
fn below_floor(
    (major, minor): (u32, u32),
    floor: &str,
    driver: &str,
    gpu: &Known,
    libraries: Option<bool>,
) -> Verdict {
    let below = format!("{driver} is below the CUDA {major}.x floor {floor}");
    match (gpu.kind, libraries) {
        (Some(GpuKind::Consumer), _) => {
            said(Refuse, format!("{below}, and {} has no forward compatibility (CUDA error 804)", gpu.name))
        }
        (_, Some(false)) => said(
            Refuse,
            format!("{below}, and the image has no forward compatibility libraries for CUDA {major}.{minor}"),
        ),
        (Some(GpuKind::DataCenter), Some(true)) => said(
            Forward,
            format!(
                "{below}; {} is eligible for forward compatibility, and the image has its libraries",
                gpu.name
            ),
        ),
        (Some(GpuKind::DataCenter), None) => said(
            Unknown,
            format!(
                "{below}; whether the image has the forward compatibility libraries its configuration does not show"
            ),
        ),
        (Some(GpuKind::Workstation) | None, _) => said(
            Unknown,
            format!("{below}; whether {} is eligible for forward compatibility is not known", gpu.name),
        ),
    }
}

fn unmet(
    facts: &ImageFacts,
    driver: &Driver,
    variable: &str,
    term: &str,
    found: &str,
    alternatives: usize,
) -> String {
    let others = match alternatives {
        0 => String::new(),
        1 => ", nor does its other alternative hold".to_owned(),
        n => format!(", nor does any of its {n} other alternatives hold"),
    };
    // Told apart: too old altogether, or new enough for the major release but of a branch the image does not list.
    let tables = tables::tables();
    let floor = release(facts)
        .ok()
        .and_then(|(major, _)| Some((major, tables.floor.get(&major)?, tables.floor_text(major)?)))
        .filter(|_| alternatives > 0);
    let floor = match floor {
        Some((major, floor, text)) => match driver.range.compare(Operator::GreaterEqual, floor) {
            Some(true) => {
                format!(
                    "; it is at or above the {major}.x floor {text}, but the image does not list its branch"
                )
            }
            Some(false) => format!("; it is below the {major}.x floor {text} too"),
            None => String::new(),
        },
        None => String::new(),
    };
    format!("`{variable}` wants `{term}`, but {found}{others}{floor}")
}

#[cfg(test)]
mod tests;
