//! How a GPU is: what NVML says of its errors, link, clocks, modes and who holds its memory.

use std::collections::BTreeSet;

use nvml_wrapper::{
    Device,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor},
    enums::device::{SampleValue, UsedGpuMemory},
    error::NvmlError,
    struct_wrappers::device::{FieldValueSample, ProcessInfo},
    structs::device::FieldId,
    sys_exports::field_id::{
        NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_REMAPPED_UNC, NVML_FI_DEV_RETIRED_DBE, NVML_FI_DEV_RETIRED_PENDING,
        NVML_FI_DEV_RETIRED_SBE,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    Reading,
    fabric::{self, Fabric},
};

/// How a GPU is. No serial number and no UUID.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Its PCI address as sysfs writes it: `0000:3b:00.0`.
    pub address: Reading<String>,
    /// `N` of its `/dev/nvidiaN`.
    pub minor: Reading<u32>,
    /// Whether the driver keeps its state while nobody uses it.
    pub persistence: Reading<bool>,
    /// Error correction.
    pub ecc: Reading<Mode>,
    /// Memory errors that were not corrected.
    pub uncorrected: Reading<Errors>,
    /// Rows of memory that were replaced by spare ones (Ampere and later).
    pub remaps: Reading<Remaps>,
    /// Pages of memory that were taken out of use (before Ampere).
    pub retired: Reading<Retired>,
    /// PCI Express generation: now, and at most in this slot with this card.
    pub link_generation: Reading<Of>,
    /// PCI Express lanes: now, and at most in this slot with this card.
    pub link_width: Reading<Of>,
    /// Why its clocks are lower than they could be.
    pub clocks: Reading<BTreeSet<Slowed>>,
    /// Of the chip, in °C.
    pub temperature: Reading<u32>,
    /// Multi-Instance GPU.
    pub mig: Reading<Mode>,
    /// How many MIG devices it is divided into.
    pub instances: Reading<u32>,
    /// The NVLink fabric.
    pub fabric: Reading<Fabric>,
    /// Memory, in bytes.
    pub memory: Reading<MemoryUse>,
    /// Processes with a compute context on it.
    pub processes: Reading<Vec<Holder>>,
}

/// A mode that takes effect with the next reset of the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// Whether it is on.
    pub now: bool,
    /// Whether it is on after the next reset.
    pub next: bool,
}

/// A value, and the most it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    /// Now.
    pub now: u32,
    /// At most.
    pub most: u32,
}

/// Memory errors that were not corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Since the driver was loaded or the GPU reset.
    pub recent: u64,
    /// In the card's life.
    pub ever: u64,
}

/// Rows of memory that were replaced by spare ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remaps {
    /// For errors that were corrected.
    pub corrected: u64,
    /// For errors that were not.
    pub uncorrected: u64,
    /// Whether one waits for a reset.
    pub pending: bool,
    /// Whether one failed: no spare row was left.
    pub failed: bool,
}

/// Pages of memory that were taken out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// For several single-bit errors.
    pub single: u64,
    /// For a double-bit error.
    pub double: u64,
    /// Whether one waits for a reboot.
    pub pending: bool,
}

/// Why clocks are lower than they could be (nvml.h, `nvmlClocksEventReason*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slowed {
    /// Nothing runs.
    Idle,
    /// Somebody set lower clocks.
    Setting,
    /// The power limit.
    PowerLimit,
    /// The hardware halves clocks: heat, power brake or a power spike.
    Hardware,
    /// Another GPU of its group is slower.
    Group,
    /// The driver: too hot.
    HeatByDriver,
    /// The hardware: too hot.
    HeatByHardware,
    /// The hardware: the power supply said so.
    PowerBrake,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// All of it.
    pub total: u64,
    /// What is in use, without what the driver keeps.
    pub used: u64,
}

/// A process that holds memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// What it holds, in bytes, where the driver says.
    pub memory: Option<u64>,
}

/// Reads everything. Blocks; each call may hang on a broken GPU.
pub(super) fn read(device: &Device<'_>) -> Health {
    let mode = |mode: Result<(u32, u32), NvmlError>| {
        // 1 is NVML_DEVICE_MIG_ENABLE (nvml.h).
        Reading::from(mode).map(|(now, next)| Mode { now: now == 1, next: next == 1 })
    };
    let of = |now: Result<u32, NvmlError>, most: Result<u32, NvmlError>| {
        Reading::from(now).and(most.into()).map(|(now, most)| Of { now, most })
    };
    let mig = mode(device.mig_mode().map(|mode| (mode.current, mode.pending)));
    let (remaps, retired) = replaced(device);
    Health {
        address: Reading::from(device.pci_info()).map(|pci| address(&pci.bus_id)),
        minor: device.minor_number().into(),
        persistence: device.is_in_persistent_mode().into(),
        ecc: Reading::from(device.is_ecc_enabled())
            .map(|ecc| Mode { now: ecc.currently_enabled, next: ecc.pending_enabled }),
        uncorrected: uncorrected(device),
        remaps,
        retired,
        link_generation: of(device.current_pcie_link_gen(), device.max_pcie_link_gen()),
        link_width: of(device.current_pcie_link_width(), device.max_pcie_link_width()),
        clocks: Reading::from(device.current_throttle_reasons()).map(reasons),
        temperature: device.temperature(TemperatureSensor::Gpu).into(),
        instances: match mig.value() {
            Some(mode) if mode.now => instances(device),
            Some(_) => Reading::Value(0),
            None => mig.clone().map(|_| 0),
        },
        mig,
        fabric: fabric::read(device),
        memory: Reading::from(device.memory_info())
            .map(|memory| MemoryUse { total: memory.total, used: memory.used }),
        processes: Reading::from(device.running_compute_processes()).map(|processes| {
            let holder = |process: ProcessInfo| Holder {
                pid: process.pid,
                memory: match process.used_gpu_memory {
                    UsedGpuMemory::Used(bytes) => Some(bytes),
                    UsedGpuMemory::Unavailable => None,
                },
            };
            processes.into_iter().map(holder).collect()
        }),
    }
}

/// NVML writes a domain of eight digits, sysfs one of four; both may write letters in either case.
fn address(nvml: &str) -> String {
    let lower = nvml.to_ascii_lowercase();
    match lower.strip_prefix("0000") {
        Some(rest) if rest.find(':') == Some(4) => rest.to_owned(),
        _ => lower,
    }
}

fn uncorrected(device: &Device<'_>) -> Reading<Errors> {
    let count = |counter| Reading::from(device.total_ecc_errors(MemoryError::Uncorrected, counter));
    count(EccCounter::Volatile)
        .and(count(EccCounter::Aggregate))
        .map(|(recent, ever)| Errors { recent, ever })
}

/// Rows and pages, in one call.
fn replaced(device: &Device<'_>) -> (Reading<Remaps>, Reading<Retired>) {
    const FIELDS: [u32; 7] = [
        NVML_FI_DEV_REMAPPED_COR,
        NVML_FI_DEV_REMAPPED_UNC,
        NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_REMAPPED_FAILURE,
        NVML_FI_DEV_RETIRED_SBE,
        NVML_FI_DEV_RETIRED_DBE,
        NVML_FI_DEV_RETIRED_PENDING,
    ];
    let readings: Vec<Reading<u64>> = match device.field_values_for(&FIELDS.map(FieldId)) {
        Ok(samples) => samples.into_iter().map(number).collect(),
        Err(error) => vec![Err(error).into(); FIELDS.len()],
    };
    let mut readings = readings.into_iter();
    let mut next = || readings.next().unwrap_or_default();
    let rows = next().and(next()).and(next().and(next()));
    let pages = next().and(next()).and(next());
    (
        rows.map(|((corrected, uncorrected), (pending, failed))| Remaps {
            corrected,
            uncorrected,
            pending: pending != 0,
            failed: failed != 0,
        }),
        pages.map(|((single, double), pending)| Retired { single, double, pending: pending != 0 }),
    )
}

fn number(sample: Result<FieldValueSample, NvmlError>) -> Reading<u64> {
    match sample.and_then(|sample| sample.value) {
        Ok(SampleValue::U32(number)) => Reading::Value(number.into()),
        Ok(SampleValue::U64(number)) => Reading::Value(number),
        Ok(other) => Reading::unknown(format!("NVML gives no count: {other:?}")),
        Err(error) => Err(error).into(),
    }
}

/// MIG devices have indices up to a maximum, with gaps.
fn instances(device: &Device<'_>) -> Reading<u32> {
    let most = match device.mig_device_count() {
        Ok(most) => most,
        Err(error) => return Err(error).into(),
    };
    let mut found = 0;
    for index in 0..most {
        match device.mig_device_by_index(index) {
            Ok(_) => found += 1,
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => {}
            Err(error) => return Err(error).into(),
        }
    }
    Reading::Value(found)
}

fn reasons(mask: ThrottleReasons) -> BTreeSet<Slowed> {
    [
        (ThrottleReasons::GPU_IDLE, Slowed::Idle),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, Slowed::Setting),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, Slowed::Setting),
        (ThrottleReasons::SW_POWER_CAP, Slowed::PowerLimit),
        (ThrottleReasons::HW_SLOWDOWN, Slowed::Hardware),
        (ThrottleReasons::SYNC_BOOST, Slowed::Group),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Slowed::HeatByDriver),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Slowed::HeatByHardware),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Slowed::PowerBrake),
    ]
    .into_iter()
    .filter(|(bit, _)| mask.contains(*bit))
    .map(|(_, reason)| reason)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_sysfs() {
        assert_eq!(address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(address("00010000:3b:00.0"), "00010000:3b:00.0");
        assert_eq!(address("0000:3B:00.0"), "0000:3b:00.0");
    }
}
