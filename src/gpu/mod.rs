//! NVML, through `nvml-wrapper`: which GPUs the driver sees, and why it sees none.

mod fabric;
mod health;
mod reading;

use std::{ffi::OsStr, fmt, path::Path, sync::Arc};

use nvml_wrapper::{Device, Nvml, enum_wrappers::device::Brand, error::NvmlError};

pub use self::{
    fabric::{Fabric, FabricState},
    health::{Errors, Health, Holder, MemoryUse, Mode, Of, Remaps, Retired, Slowed},
    reading::Reading,
};

/// The library's name as the driver packages install it; the bare `.so` belongs to development packages.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// What NVML sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gpus {
    /// Version of the loaded driver, such as `550.163.01`.
    pub driver: String,
    /// Newest CUDA version the driver supports, as `(major, minor)`.
    pub cuda: Option<(i32, i32)>,
    /// The devices it can reach, by index.
    pub devices: Vec<Gpu>,
    /// Devices it counts and cannot reach: index and NVML's words.
    pub lost: Vec<(u32, String)>,
}

/// A GPU. A field is absent where the card or the driver does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's index.
    pub index: u32,
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// `GPU-` and a UUID.
    pub uuid: Option<String>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Whether MIG mode is on.
    pub mig: Option<bool>,
    /// CUDA compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// Brand in the words of `NVIDIA_REQUIRE_*`.
    pub brand: Option<&'static str>,
}

/// Why NVML sees nothing at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuError {
    /// The library could not be loaded.
    NoLibrary(String),
    /// The library is there, the kernel module is not loaded (code 9).
    DriverNotLoaded,
    /// The library and the loaded kernel module are of different versions (code 18).
    VersionMismatch,
    /// The user may not ask (code 4).
    NoPermission,
    /// Anything else, in NVML's words.
    Other(String),
}

impl fmt::Display for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLibrary(why) => write!(f, "the NVML library could not be loaded: {why}"),
            Self::DriverNotLoaded => f.write_str("the NVIDIA driver is not loaded"),
            Self::VersionMismatch => {
                f.write_str("the NVML library and the loaded driver are of different versions")
            }
            Self::NoPermission => f.write_str("no permission to ask NVML"),
            Self::Other(why) => write!(f, "NVML failed: {why}"),
        }
    }
}

impl std::error::Error for GpuError {}

impl From<NvmlError> for GpuError {
    fn from(error: NvmlError) -> Self {
        match error {
            NvmlError::LibloadingError(error) => Self::NoLibrary(error.to_string()),
            // The symbol of `nvmlInit_v2` itself: something else than NVML was loaded.
            NvmlError::FailedToLoadSymbol(why) => Self::NoLibrary(why),
            NvmlError::LibraryNotFound => Self::NoLibrary(error.to_string()),
            NvmlError::DriverNotLoaded => Self::DriverNotLoaded,
            NvmlError::LibRmVersionMismatch => Self::VersionMismatch,
            NvmlError::NoPermission => Self::NoPermission,
            other => Self::Other(other.to_string()),
        }
    }
}

/// The library, loaded and initialised. Clones share it; the last one that goes shuts it down.
#[derive(Clone)]
pub struct Library(Arc<Nvml>);

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Library")
    }
}

impl Library {
    /// Loads and initialises NVML. Blocks; a broken driver can hang it, so give it a thread and a time limit.
    ///
    /// `path` is a path or a name for the dynamic loader; `libnvidia-ml.so.1` where absent.
    ///
    /// # Errors
    /// There is no library, no driver, or they do not fit together.
    pub fn open(path: Option<&Path>) -> Result<Self, GpuError> {
        let path = path.map_or(OsStr::new(LIBRARY), Path::as_os_str);
        Ok(Self(Arc::new(Nvml::builder().lib_path(path).init()?)))
    }

    /// What NVML sees. Blocks. A device that is counted but does not answer is in `lost`, an optional value that
    /// fails is absent.
    ///
    /// # Errors
    /// NVML says neither its driver's version nor how many devices there are.
    pub fn observe(&self) -> Result<Gpus, GpuError> {
        let nvml = &self.0;
        let driver = nvml.sys_driver_version()?;
        let cuda = nvml.sys_cuda_driver_version().ok().map(|version| {
            (
                nvml_wrapper::cuda_driver_version_major(version),
                nvml_wrapper::cuda_driver_version_minor(version),
            )
        });
        let mut gpus = Gpus { driver, cuda, ..Gpus::default() };
        for index in 0..nvml.device_count()? {
            // A device may have a handle and be gone all the same.
            let device = nvml.device_by_index(index).and_then(|device| match device.name() {
                Err(error @ NvmlError::GpuLost) => Err(error),
                _ => Ok(device),
            });
            match device {
                Ok(device) => gpus.devices.push(describe(index, &device)),
                Err(error) => gpus.lost.push((index, error.to_string())),
            }
        }
        Ok(gpus)
    }

    /// How the GPU with this index is. Blocks; a broken GPU can hang it.
    ///
    /// # Errors
    /// NVML cannot reach it.
    pub fn health(&self, index: u32) -> Result<Health, GpuError> {
        Ok(health::read(&self.0.device_by_index(index)?))
    }
}

fn describe(index: u32, device: &Device<'_>) -> Gpu {
    Gpu {
        index,
        name: device.name().ok(),
        uuid: device.uuid().ok(),
        memory: device.memory_info().ok().map(|memory| memory.total),
        // 1 is NVML_DEVICE_MIG_ENABLE (nvml.h).
        mig: device.mig_mode().ok().map(|mode| mode.current == 1),
        compute_capability: device
            .cuda_compute_capability()
            .ok()
            .and_then(|c| Some((u32::try_from(c.major).ok()?, u32::try_from(c.minor).ok()?))),
        brand: device.brand().ok().and_then(brand),
    }
}

/// NVML's brand in the words that `NVIDIA_REQUIRE_*` uses (libnvidia-container, `nvc_info.c`, `brands`).
fn brand(brand: Brand) -> Option<&'static str> {
    Some(match brand {
        Brand::Quadro => "quadro",
        Brand::Tesla => "tesla",
        Brand::NVS => "nvs",
        Brand::GRID => "grid",
        Brand::GeForce => "geforce",
        Brand::Titan => "titan",
        Brand::VApps => "vapps",
        Brand::VPC => "vpc",
        Brand::VCS => "vcs",
        Brand::VWS => "vws",
        Brand::CloudGaming | Brand::VGaming => "cloudgaming",
        Brand::QuadroRTX => "quadrortx",
        Brand::NvidiaRTX => "nvidiartx",
        Brand::Nvidia => "nvidia",
        Brand::GeForceRTX => "geforcertx",
        Brand::TitanRTX => "titanrtx",
        Brand::Unknown => return None,
    })
}
