//! The state of a GPU in the NVLink fabric: the two calls that `nvml-wrapper` does not wrap.

use nvml_wrapper::{
    Device,
    error::{NvmlError, nvml_try},
};
use serde::{Deserialize, Serialize};

use super::Reading;

/// How far a GPU is in joining the NVLink fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricState {
    /// Not begun: nobody manages the fabric.
    NotStarted,
    /// Begun and not done.
    InProgress,
    /// Done; whether it went well is in [`Fabric::status`].
    Completed,
}

/// A GPU in the NVLink fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fabric {
    /// How far it is.
    pub state: FabricState,
    /// Why joining failed; `None`: it did not.
    pub status: Option<String>,
    /// What is wrong with it since, in words; empty also where the driver does not say.
    pub complaints: Vec<String>,
}

/// `nvmlGpuFabricInfo_v2_t` (nvml.h); without `version` and `health` it is `nvmlGpuFabricInfo_t`.
#[repr(C)]
#[derive(Default)]
struct Versioned {
    version: u32,
    inner: Plain,
    health: u32,
}

/// `nvmlGpuFabricInfo_t` (nvml.h).
#[repr(C)]
#[derive(Default)]
struct Plain {
    cluster: [u8; 16],
    status: u32,
    clique: u32,
    state: u8,
}

/// `NVML_STRUCT_VERSION(GpuFabricInfo, 2)` (nvml.h).
const VERSION: u32 = size_of::<Versioned>() as u32 | 2 << 24;
const _: () = assert!(size_of::<Versioned>() == 36, "as nvml.h lays it out");

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH` (nvml.h): the library has no such version of the structure.
const ARGUMENT_VERSION_MISMATCH: u32 = 25;

/// What NVML says of this GPU's place in the fabric.
#[expect(unsafe_code, reason = "nvml-wrapper 0.13 has these two calls, and no safe way to them")]
pub(super) fn read(device: &Device<'_>) -> Reading<Fabric> {
    let library = device.nvml().lib();
    // SAFETY: the handle is used while `device`, and so the library, lives.
    let handle = unsafe { device.handle() };
    if let Ok(call) = &library.nvmlDeviceGetGpuFabricInfoV {
        let mut info = Versioned { version: VERSION, ..Versioned::default() };
        // SAFETY: the library writes the structure of the version that `info` names, which is laid out as nvml.h has it
        // and lives through the call.
        let code = unsafe { call(handle, (&raw mut info).cast()) };
        if code != ARGUMENT_VERSION_MISMATCH {
            return said(code, &info.inner, info.health);
        }
    }
    let Ok(call) = &library.nvmlDeviceGetGpuFabricInfo else {
        return Reading::unknown("the driver's library has no such call");
    };
    let mut info = Plain::default();
    // SAFETY: as above; this structure has one version.
    let code = unsafe { call(handle, (&raw mut info).cast()) };
    said(code, &info, 0)
}

fn said(code: u32, info: &Plain, health: u32) -> Reading<Fabric> {
    if let Err(error) = nvml_try(code) {
        return Err(error).into();
    }
    // NVML_GPU_FABRIC_STATE_* (nvml.h).
    let state = match info.state {
        0 => return Reading::NotSupported,
        1 => FabricState::NotStarted,
        2 => FabricState::InProgress,
        3 => FabricState::Completed,
        other => {
            return Reading::unknown(format!("NVML gives a fabric state that is not known here: {other}"));
        }
    };
    let status = match nvml_try(info.status) {
        // The status means something only when joining has ended.
        _ if state != FabricState::Completed => None,
        Ok(()) => None,
        Err(NvmlError::Unknown) => Some("an internal error".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    Reading::Value(Fabric { state, status, complaints: complaints(health) })
}

/// What a health mask says, field by field (`NVML_GPU_FABRIC_HEALTH_MASK_*`, nvml.h): of two bits 1 is true, 2 is false.
fn complaints(mask: u32) -> Vec<String> {
    let yes = [
        (0, "its bandwidth is degraded"),
        (2, "routes are being recovered"),
        (4, "a route is unhealthy"),
        (6, "it recovers from an access timeout"),
    ];
    let mut found: Vec<String> = yes
        .into_iter()
        .filter(|(shift, _)| mask >> shift & 0b11 == 1)
        .map(|(_, says)| says.to_owned())
        .collect();
    found.extend(match mask >> 8 & 0b1111 {
        0 | 1 => None,
        2 => Some("its configuration is wrong: system GUID".to_owned()),
        3 => Some("its configuration is wrong: chassis serial number".to_owned()),
        4 => Some("it is in no partition".to_owned()),
        5 => Some("it has too few NVLinks".to_owned()),
        other => Some(format!("its configuration is wrong: code {other}")),
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_masks_are_read_as_nvml_writes_them() {
        let of = |state, status| said(0, &Plain { status, state, ..Plain::default() }, 0);
        assert_eq!(of(0, 0), Reading::NotSupported);
        assert!(matches!(of(9, 0), Reading::Unknown { .. }));
        assert_eq!(of(2, 999).value().unwrap().status, None);
        assert_eq!(
            of(3, 0).value().unwrap(),
            &Fabric { state: FabricState::Completed, status: None, complaints: Vec::new() }
        );
        assert!(of(3, 999).value().unwrap().status.is_some());
        assert_eq!(said(3, &Plain::default(), 0), Reading::NotSupported);
        // All is well: 2 in each field, 1 for the configuration.
        assert!(complaints(0b1_1010_1010).is_empty());
        assert_eq!(complaints(0b101_1010_1001), ["its bandwidth is degraded", "it has too few NVLinks"]);
        assert_eq!(complaints(0b10 << 4 | 0b1 << 2), ["routes are being recovered"]);
    }
}
