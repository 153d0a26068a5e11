//! Symptoms of the driver: its versions, what CUDA says of it, and what an image wants of it. Numbers of errors: CUDA
//! driver API, `CUresult`.

use super::{Case, Cause, Layer, Repair, Sign, Symptom};
use crate::{
    check::image::kinds,
    host::facts::{FabricManager, FabricState, Nvml, Reading, looked_at},
    lock::{
        LockedImage, VerdictOutcome,
        cuda::{self, GpuKind},
    },
    profile::DriverFlavor,
    version,
};

const UPGRADED: Cause = Cause {
    id: "upgraded",
    means: "the driver's user-space library was upgraded under the loaded module",
    layer: Layer::Doctor,
    repair: Repair::Reboot,
    decides: "the loaded module's version against the user-space library's: `gpu.version-match`",
    fix: "reboot the host, then `bedplate doctor`",
    sign: upgraded,
};

pub(super) const ROWS: &[Symptom] = &[
    Symptom {
        id: "symptom.version-mismatch",
        texts: &["driver/library version mismatch"],
        exit: None,
        looks: "`Driver/library version mismatch`",
        causes: &[
            UPGRADED,
            Cause {
                id: "stale-specification",
                means: "the CDI specification gives containers the libraries of another driver",
                layer: Layer::Toolkit,
                repair: Repair::Provision,
                decides: "driver versions in the CDI specification against the loaded one: `toolkit.cdi-fresh`",
                fix: "make the specification anew: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
                sign: stale_specification,
            },
        ],
    },
    Symptom {
        id: "symptom.cuda-requirement",
        texts: &["unsatisfied condition: cuda"],
        exit: None,
        looks: "`unsatisfied condition: cuda>=X`",
        causes: &[
            Cause {
                id: "driver-too-old",
                means: "the driver is older than the floor of the image's CUDA release",
                layer: Layer::Runtime,
                repair: Repair::EditProfile,
                decides: "the loaded driver against the floor of the image's major CUDA release",
                fix: "a newer driver (`[driver] version`), or an image of an older CUDA release; then `bedplate lock`, `bedplate provision`",
                sign: driver_too_old,
            },
            Cause {
                id: "branch-not-listed",
                means: "the driver is at or above the floor, but the image does not list its branch",
                layer: Layer::Runtime,
                repair: Repair::EditProfile,
                decides: "the loaded driver against the floor, and against the image's `NVIDIA_REQUIRE_*`",
                fix: "lock an image whose requirement lists this driver's branch, or bring a branch that it lists (`[driver] version`)",
                sign: branch_not_listed,
            },
        ],
    },
    Symptom {
        id: "symptom.cuda-804",
        texts: &[
            "error 804",
            "forward compatibility was attempted on non supported hw",
            "cuda_error_compat_not_supported_on_device",
            "cudaerrorcompatnotsupportedondevice",
        ],
        exit: None,
        looks: "CUDA error 804",
        causes: &[
            UPGRADED,
            Cause {
                id: "no-forward-compatibility",
                means: "the image's forward compatibility libraries run on a GPU that is not eligible for them",
                layer: Layer::Runtime,
                repair: Repair::EditProfile,
                decides: "the model of the GPU: data-center cards are eligible, consumer cards never",
                fix: "lock an image without `cuda-compat`, of a CUDA release that this driver runs, or bring a newer driver",
                sign: no_forward,
            },
        ],
    },
    Symptom {
        id: "symptom.cuda-803",
        texts: &[
            "error 803",
            "unsupported display driver / cuda driver combination",
            "cuda_error_system_driver_mismatch",
            "cudaerrorsystemdrivermismatch",
        ],
        exit: None,
        looks: "CUDA error 803",
        causes: &[
            UPGRADED,
            Cause {
                id: "forced-by-deployment",
                means: "the deployment forces compatibility libraries over the host's driver",
                layer: Layer::Up,
                repair: Repair::EditDeployment,
                decides: "`LD_LIBRARY_PATH` in the deployment's `env`",
                fix: "remove `LD_LIBRARY_PATH` from the deployment's `env`, then `bedplate up -f` it again",
                sign: forced_by_deployment,
            },
            Cause {
                id: "forced-by-image",
                means: "compatibility libraries of the image shadow a driver that is new enough",
                layer: Layer::Runtime,
                repair: Repair::EditProfile,
                decides: "the loaded driver against the floor of the image's CUDA release: at or above it they are not needed",
                fix: "lock an image without `cuda-compat` on its library path",
                sign: forced_by_image,
            },
        ],
    },
    Symptom {
        id: "symptom.cuda-802",
        texts: &[
            "error 802",
            "system not yet initialized",
            "cuda_error_system_not_ready",
            "cudaerrorsystemnotready",
        ],
        exit: None,
        looks: "CUDA error 802 (`nvidia-smi` works)",
        causes: &[
            Cause {
                id: "fabric-manager-absent",
                means: "there are NVSwitches, and Fabric Manager is not installed",
                layer: Layer::Doctor,
                repair: Repair::Install,
                decides: "NVSwitches on PCI, and the unit of Fabric Manager",
                fix: "install `nvidia-fabricmanager` of exactly the driver's version, then `systemctl enable --now nvidia-fabricmanager`",
                sign: manager_absent,
            },
            Cause {
                id: "fabric-manager-stopped",
                means: "Fabric Manager is installed and does not run",
                layer: Layer::Doctor,
                repair: Repair::RestartService,
                decides: "the process of Fabric Manager's unit",
                fix: "`systemctl enable --now nvidia-fabricmanager`; if it ends again: `journalctl -u nvidia-fabricmanager`",
                sign: manager_stopped,
            },
            Cause {
                id: "fabric-manager-version",
                means: "Fabric Manager is of another version than the driver",
                layer: Layer::Doctor,
                repair: Repair::Install,
                decides: "version of Fabric Manager's package against the loaded driver's",
                fix: "install `nvidia-fabricmanager` of exactly the driver's version, then `systemctl restart nvidia-fabricmanager`",
                sign: manager_version,
            },
            Cause {
                id: "fabric-not-completed",
                means: "a GPU has not joined the fabric",
                layer: Layer::Doctor,
                repair: Repair::RestartService,
                decides: "what NVML says of each GPU's fabric",
                fix: "`systemctl restart nvidia-fabricmanager`, where it is not on the machine that holds this one; `journalctl -u nvidia-fabricmanager` says why it failed",
                sign: not_completed,
            },
            Cause {
                id: "hmm",
                means: "heterogeneous memory management (HMM) of the open driver fails on this kernel, as with its address space randomised (KASLR)",
                layer: Layer::Doctor,
                repair: Repair::EditProfile,
                decides: "the fabric is well or not there, and the profile's open driver of branch 535 or newer has HMM on",
                fix: "write `options = { nvidia-uvm = \"uvm_disable_hmm=1\" }` under `[kernel] modules` of the profile, `bedplate provision`, then reboot",
                sign: hmm,
            },
        ],
    },
    Symptom {
        id: "symptom.no-kernel-image",
        texts: &[
            "no kernel image is available",
            "cudaerrornokernelimagefordevice",
            "cuda_error_no_binary_for_gpu",
        ],
        exit: None,
        looks: "`no kernel image is available`",
        causes: &[Cause {
            id: "other-capabilities",
            means: "the image was built for GPUs of other compute capabilities",
            layer: Layer::Runtime,
            repair: Repair::EditProfile,
            decides: "the compute capability of the GPUs, by NVML",
            fix: "lock an image that was built for this GPU's compute capability",
            sign: other_capabilities,
        }],
    },
    Symptom {
        id: "symptom.ptx",
        texts: &[
            "unsupported toolchain",
            "unsupported ptx",
            "cuda_error_unsupported_ptx_version",
            "cudaerrorunsupportedptxversion",
        ],
        exit: None,
        looks: "`unsupported PTX` (`unsupported toolchain`)",
        causes: &[Cause {
            id: "ptx-newer",
            means: "the image holds PTX newer than the driver compiles, although the driver is at or above the floor",
            layer: Layer::Runtime,
            repair: Repair::EditProfile,
            decides: "the loaded driver against the one that the image's CUDA release wants for its full feature level",
            fix: "lock an image of an older CUDA release, or bring a newer driver (`[driver] version`)",
            sign: ptx_newer,
        }],
    },
];

fn upgraded(case: &Case<'_>) -> Sign {
    let loaded = match case.loaded() {
        Ok(loaded) => loaded,
        Err(why) => return Sign::open(why),
    };
    let library = case.facts.user_space.ok().and_then(Option::as_deref);
    let differs = |other: &str| {
        let seen = format!("the loaded module is {loaded}, the library {other}");
        Sign::holds(match by_itself(case) {
            Some(package) => format!("{seen}; unattended upgrades are on and may change `{package}`"),
            None => seen,
        })
    };
    match (library, case.facts.nvml.as_result()) {
        (Some(library), _) if library != loaded => differs(library),
        (_, Ok(Nvml::VersionMismatch)) => differs("of another version, says NVML"),
        (_, Ok(Nvml::Answers(gpus))) if gpus.driver != loaded => differs(&gpus.driver),
        (_, Ok(Nvml::Answers(_))) | (Some(_), _) => {
            Sign::no(format!("the loaded module and the library are both {loaded}"))
        }
        (None, Ok(Nvml::NoLibrary(why))) => Sign::open(format!("no NVML library: {why}")),
        (None, Ok(Nvml::DriverNotLoaded)) => Sign::open("NVML does not reach the driver"),
        (None, Err(why)) => Sign::open(why),
    }
}

/// A package of the driver that upgrades by itself.
fn by_itself<'c>(case: &'c Case<'_>) -> Option<&'c str> {
    let upgrades = case.facts.upgrades.ok().filter(|upgrades| upgrades.off.is_none())?;
    upgrades.free.iter().map(String::as_str).find(|name| name.contains("nvidia") || name.contains("cuda"))
}

fn stale_specification(case: &Case<'_>) -> Sign {
    let loaded = match case.loaded() {
        Ok(loaded) => loaded,
        Err(why) => return Sign::open(why),
    };
    match case.facts.cdi.as_result() {
        Err(why) => Sign::open(why),
        Ok(specs) => {
            let stale = specs.iter().find_map(|spec| {
                let other = spec.versions.iter().find(|version| version.as_str() != loaded)?;
                Some((&spec.path, other))
            });
            match stale {
                Some((path, other)) => {
                    Sign::holds(format!("`{path}` was made for driver {other}, {loaded} is loaded"))
                }
                None => Sign::no(format!("no CDI specification names another driver than {loaded}")),
            }
        }
    }
}

/// How the loaded driver stands to what an image wants.
enum Stands {
    /// Below the floor of its CUDA release.
    Below(String),
    /// At or above it, below the full feature level.
    Minor(String),
    /// At or above the full feature level.
    Full(String),
}

/// Of each image on GPUs: the lowest standing counts.
fn standing(case: &Case<'_>) -> Result<Stands, String> {
    let loaded = case.loaded()?;
    let mut found: Option<(usize, Stands)> = None;
    for (name, LockedImage { facts, .. }) in case.images() {
        let (Some(floor), Some(full)) = (cuda::floor(facts), cuda::full_level(facts)) else { continue };
        let below = |wanted: &str| version::compare(loaded, wanted).is_lt();
        let one = if below(floor) {
            (0, Stands::Below(format!("driver {loaded} is loaded, `{name}` needs at least {floor}")))
        } else if below(full) {
            (
                1,
                Stands::Minor(format!(
                    "driver {loaded} is at or above the floor {floor} of `{name}`, and below {full}, which its CUDA release wants"
                )),
            )
        } else {
            (2, Stands::Full(format!("driver {loaded} is at or above {full}, which `{name}` wants")))
        };
        if found.as_ref().is_none_or(|(rank, _)| one.0 < *rank) {
            found = Some(one);
        }
    }
    found
        .map(|(_, stands)| stands)
        .ok_or_else(|| "the lock does not say which CUDA release the image has".into())
}

fn driver_too_old(case: &Case<'_>) -> Sign {
    match standing(case) {
        Ok(Stands::Below(line)) => Sign::holds(line),
        Ok(Stands::Minor(line) | Stands::Full(line)) => Sign::no(line),
        Err(why) => Sign::open(why),
    }
}

fn branch_not_listed(case: &Case<'_>) -> Sign {
    match standing(case) {
        Ok(Stands::Below(line)) => Sign::no(line),
        Ok(Stands::Minor(line)) => Sign::holds(line),
        Ok(Stands::Full(line)) => {
            let refused = case.images().into_iter().find_map(|(name, image)| {
                let loaded = case.loaded().ok()?;
                let verdict = kinds(case.facts)
                    .into_iter()
                    .map(|kind| cuda::judge(&image.facts, Some(loaded), kind))
                    .find(|verdict| verdict.outcome == VerdictOutcome::Refuse)?;
                Some(format!("`{name}`: {}", verdict.because))
            });
            refused.map_or(Sign::No(line), Sign::holds)
        }
        Err(why) => Sign::open(why),
    }
}

fn no_forward(case: &Case<'_>) -> Sign {
    let gpus = match case.facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) if !gpus.devices.is_empty() => gpus,
        Ok(_) => return Sign::open("NVML reaches no GPU, so its model is not known"),
        Err(why) => return Sign::open(why),
    };
    let mut open = None;
    for gpu in &gpus.devices {
        let name = gpu.name.as_deref().unwrap_or("(no name)");
        match cuda::model(name).map(|model| model.kind) {
            Some(GpuKind::Consumer) => {
                return Sign::holds(format!("GPU {} is a {name}, a consumer card", gpu.index));
            }
            Some(GpuKind::DataCenter) => {}
            Some(GpuKind::Workstation) | None => open = Some(name),
        }
    }
    match open {
        Some(name) => Sign::open(format!("whether {name} is eligible is not known")),
        None => Sign::no("every GPU is a data-center card, which is eligible"),
    }
}

fn forced_by_deployment(case: &Case<'_>) -> Sign {
    let found = case
        .subject
        .deployments
        .iter()
        .find_map(|deployment| Some((&deployment.name, deployment.env.get("LD_LIBRARY_PATH")?)));
    match found {
        Some((name, path)) => Sign::holds(format!("`{name}.yaml` sets it to `{path}`")),
        None if case.subject.deployments.is_empty() => Sign::open("no deployment is known"),
        None => Sign::no("the deployment sets no `LD_LIBRARY_PATH`"),
    }
}

fn forced_by_image(case: &Case<'_>) -> Sign {
    match standing(case) {
        Ok(Stands::Below(line)) => Sign::no(line),
        Ok(Stands::Minor(line) | Stands::Full(line)) => Sign::holds(line),
        Err(why) => Sign::open(why),
    }
}

/// Fabric Manager where there are switches; else why it does not matter, or is not known.
fn manager<'c>(case: &'c Case<'_>) -> Result<&'c FabricManager, Sign> {
    match case.facts.fabric.as_result() {
        Ok(manager) if manager.switches.is_empty() => Err(Sign::no("there is no NVSwitch on PCI")),
        Ok(manager) => Ok(manager),
        Err(why) => Err(Sign::open(why)),
    }
}

fn manager_absent(case: &Case<'_>) -> Sign {
    match manager(case) {
        Ok(found) if found.installed => Sign::no("Fabric Manager is installed"),
        Ok(found) => Sign::holds(format!("{} NVSwitches on PCI, and no unit of it", found.switches.len())),
        Err(sign) => sign,
    }
}

fn manager_stopped(case: &Case<'_>) -> Sign {
    match manager(case) {
        Ok(FabricManager { installed: false, .. }) => Sign::no("Fabric Manager is not installed"),
        Ok(FabricManager { process: Some(process), .. }) => Sign::no(format!("it runs (pid {process})")),
        Ok(_) => Sign::holds("its unit has no process"),
        Err(sign) => sign,
    }
}

fn manager_version(case: &Case<'_>) -> Sign {
    match (manager(case), case.loaded()) {
        (Err(sign), _) => sign,
        (Ok(FabricManager { installed: false, .. }), _) => Sign::no("Fabric Manager is not installed"),
        (_, Err(why)) => Sign::open(why),
        (Ok(FabricManager { version: None, .. }), _) => Sign::open("dpkg does not know its version"),
        (Ok(FabricManager { version: Some(version), .. }), Ok(loaded)) if version == loaded => {
            Sign::no(format!("both are {loaded}"))
        }
        (Ok(FabricManager { version: Some(version), .. }), Ok(loaded)) => {
            Sign::holds(format!("Fabric Manager is {version}, the driver {loaded}"))
        }
    }
}

fn not_completed(case: &Case<'_>) -> Sign {
    let gpus = match case.facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) if !gpus.devices.is_empty() => gpus,
        Ok(_) => return Sign::open("NVML reaches no GPU"),
        Err(why) => return Sign::open(why),
    };
    let mut open = None;
    for gpu in &gpus.devices {
        let index = gpu.index;
        match looked_at(&case.facts.health, index).map(|health| &health.fabric) {
            Err(why) => open = Some(why.to_owned()),
            Ok(Reading::Unknown { why }) => open = Some(why.clone()),
            Ok(Reading::NotSupported) => {}
            Ok(Reading::Value(fabric)) => match (fabric.state, &fabric.status) {
                (FabricState::Completed, None) => {}
                (FabricState::Completed, Some(status)) => {
                    return Sign::holds(format!("GPU {index} could not join: {status}"));
                }
                (FabricState::NotStarted, _) => {
                    return Sign::holds(format!("GPU {index} has not begun to join"));
                }
                _ => return Sign::holds(format!("GPU {index} is still joining")),
            },
        }
    }
    match open {
        Some(why) => Sign::open(format!("the fabric's state: {why}")),
        None => Sign::no("every GPU has joined the fabric, or there is none"),
    }
}

/// The driver that first has it (NVIDIA driver 535 release notes, "Heterogeneous Memory Management").
const HMM_SINCE: &str = "535";

fn hmm(case: &Case<'_>) -> Sign {
    let kernel = &case.subject.profile.kernel;
    let off = ["nvidia-uvm", "nvidia_uvm"].iter().any(|module| {
        kernel.options.get(*module).is_some_and(|options| options.contains("uvm_disable_hmm=1"))
    });
    if off {
        return Sign::no("the profile switches it off (`uvm_disable_hmm=1`)");
    }
    if case.subject.profile.driver.flavor != DriverFlavor::Open {
        return Sign::no("the profile's driver is not the open one");
    }
    let loaded = match case.loaded() {
        Ok(loaded) if version::compare(loaded, HMM_SINCE).is_lt() => {
            return Sign::no(format!("driver {loaded} has no HMM"));
        }
        Ok(loaded) => loaded,
        Err(why) => return Sign::open(why),
    };
    // Nothing that the driver or the kernel shows tells it; only that the fabric is well leaves no other known cause.
    let fabric = [manager_absent, manager_stopped, manager_version, not_completed];
    for sign in fabric.map(|look| look(case)) {
        match sign {
            Sign::No(_) => {}
            Sign::Holds(seen, _) => return Sign::no(format!("the fabric is the cause: {seen}")),
            Sign::Open(why) => return Sign::open(why),
        }
    }
    Sign::holds(format!(
        "the fabric is as it should be, open driver {loaded} has HMM, and the profile leaves it on"
    ))
}

fn other_capabilities(case: &Case<'_>) -> Sign {
    let gpus = match case.facts.nvml.as_result() {
        Ok(Nvml::Answers(gpus)) => gpus,
        Ok(_) => return Sign::open("NVML does not answer"),
        Err(why) => return Sign::open(why),
    };
    let found = gpus.devices.iter().find_map(|gpu| Some((gpu.index, gpu.compute_capability?)));
    match found {
        Some((index, (major, minor))) => Sign::holds(format!(
            "the image has no code for GPU {index}, of compute capability {major}.{minor}"
        ))
        .fix(format!("lock an image that was built for compute capability {major}.{minor}")),
        None => Sign::open("NVML gives no compute capability"),
    }
}

fn ptx_newer(case: &Case<'_>) -> Sign {
    match standing(case) {
        Ok(Stands::Minor(line)) => Sign::holds(line),
        Ok(Stands::Full(line)) => Sign::no(line),
        Ok(Stands::Below(line)) | Err(line) => Sign::open(line),
    }
}
