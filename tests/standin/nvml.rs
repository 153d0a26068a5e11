//! A stand-in for `libnvidia-ml.so.1`, for machines without a GPU: the real `nvml-wrapper` loads it.
//!
//! Built by the tests with `rustc --crate-type cdylib --edition 2024`. What it answers stands in a file
//! beside it, named as the library with `.script` at the end; one `key value` a line, the last of several
//! holds. `3.key value` is of the GPU with index 3 alone. Scripts of whole machines are in `machines/`.
//!
//! ```text
//! init 18              # what nvmlInit_v2 returns: 0, 9 driver not loaded, 18 version mismatch
//! driver 550.163.01
//! cuda 12040           # major * 1000 + minor * 10
//! count 8
//! lost 3               # this index is off the bus (code 15)
//! lost-later 3         # it has a handle, and every further call says so
//! name NVIDIA H100 80GB HBM3
//! memory 85899345920 0 # total, used
//! persistence 1
//! ecc 1 1              # now, after the next reset
//! ecc-errors 0 0 0 0   # corrected, corrected ever, uncorrected, uncorrected ever
//! remaps 0 0 0 0       # rows: corrected, uncorrected, pending, failed
//! retired 0 0 0        # pages: single bit, double bit, pending
//! link 5 5 16 16       # generation now and at most, width now and at most
//! slowed 1             # mask of reasons for lower clocks
//! temperature 38
//! mig 0 0              # now, after the next reset
//! mig-instances 0
//! fabric 3 0 0         # state, status, health mask
//! processes 4711:1024  # process:bytes, …
//! hang                 # nvmlInit_v2 does not come back
//! ```
//!
//! A value may also be `unsupported` (code 3), `error N`, or `hang`. What is not in the script is unsupported.
//!
//! Codes and structures: `nvml.h`.

mod script;

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
};

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_SUPPORTED: c_int = 3;
const NOT_FOUND: c_int = 6;
const INSUFFICIENT_SIZE: c_int = 7;
const GPU_IS_LOST: c_int = 15;
const VERSION_MISMATCH: c_int = 25;
const UNKNOWN: c_int = 999;
/// `NVML_BRAND_NVIDIA`.
const BRAND: c_uint = 14;

type Device = *mut c_void;
type Answer<T> = Result<T, c_int>;

/// The script's value of `key`.
fn script(key: &str) -> Option<String> {
    script::value(nvmlShutdown as *const c_void, key)
}

fn number(key: &str) -> Option<c_uint> {
    script(key)?.parse().ok()
}

/// What a GPU says of `key`.
fn of(device: Device, key: &str) -> Answer<String> {
    let index = device.addr().wrapping_sub(1);
    if number("lost-later").is_some_and(|lost| lost as usize == index) {
        return Err(GPU_IS_LOST);
    }
    let value = script(&format!("{index}.{key}")).or_else(|| script(key)).ok_or(NOT_SUPPORTED)?;
    match value.split_once(' ').unwrap_or((&value, "")) {
        ("unsupported", _) => Err(NOT_SUPPORTED),
        ("error", code) => Err(code.parse().unwrap_or(UNKNOWN)),
        ("hang", _) => hang(),
        _ => Ok(value),
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// Number `at` of what a GPU says of `key`.
fn part(device: Device, key: &str, at: usize) -> Answer<u64> {
    let value = of(device, key)?;
    value.split_whitespace().nth(at).and_then(|number| number.parse().ok()).ok_or(UNKNOWN)
}

/// Writes one number to each place, or says what is wrong.
unsafe fn give<const N: usize>(device: Device, key: &str, places: [(usize, *mut c_uint); N]) -> c_int {
    for (at, place) in places {
        match part(device, key, at) {
            Ok(number) => unsafe { *place = number as c_uint },
            Err(code) => return code,
        }
    }
    SUCCESS
}

fn put(text: &str, buffer: *mut c_char, length: c_uint) -> c_int {
    if buffer.is_null() || text.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller gives `length` bytes at `buffer`, and the text with its end fits.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        *buffer.add(text.len()) = 0;
    }
    SUCCESS
}

/// Functions that give one or two numbers of a GPU.
macro_rules! numbers {
    ($($symbol:ident = $key:literal [$($at:literal),+];)+) => {
        $(numbers!(@ $symbol $key $($at)+);)+
    };
    (@ $symbol:ident $key:literal $at:literal) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(device: Device, value: *mut c_uint) -> c_int {
            unsafe { give(device, $key, [($at, value)]) }
        }
    };
    (@ $symbol:ident $key:literal $first:literal $second:literal) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(device: Device, first: *mut c_uint, second: *mut c_uint) -> c_int {
            unsafe { give(device, $key, [($first, first), ($second, second)]) }
        }
    };
}

numbers! {
    nvmlDeviceGetPersistenceMode = "persistence" [0];
    nvmlDeviceGetEccMode = "ecc" [0, 1];
    nvmlDeviceGetCurrPcieLinkGeneration = "link" [0];
    nvmlDeviceGetMaxPcieLinkGeneration = "link" [1];
    nvmlDeviceGetCurrPcieLinkWidth = "link" [2];
    nvmlDeviceGetMaxPcieLinkWidth = "link" [3];
    nvmlDeviceGetMigMode = "mig" [0, 1];
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    if script("hang").is_some() {
        hang();
    }
    script("init").map_or(SUCCESS, |code| code.parse().unwrap_or(UNKNOWN))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(buffer: *mut c_char, length: c_uint) -> c_int {
    script("driver").map_or(NOT_SUPPORTED, |version| put(&version, buffer, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> c_int {
    let Some(number) = number("cuda") else { return NOT_SUPPORTED };
    unsafe { *version = number as c_int };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    unsafe { *count = number("count").unwrap_or(0) };
    SUCCESS
}

/// A handle is the index and one: never null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Device) -> c_int {
    if index >= number("count").unwrap_or(0) {
        return INVALID_ARGUMENT;
    }
    if number("lost") == Some(index) {
        return GPU_IS_LOST;
    }
    unsafe { *device = std::ptr::without_provenance_mut(index as usize + 1) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Device, buffer: *mut c_char, length: c_uint) -> c_int {
    of(device, "name").map_or_else(|code| code, |name| put(&name, buffer, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Device, buffer: *mut c_char, length: c_uint) -> c_int {
    put(&format!("GPU-{:08}-0000-0000-0000-000000000000", device.addr() - 1), buffer, length)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(device: Device, buffer: *mut c_char, length: c_uint) -> c_int {
    put(&format!("16542200{:05}", device.addr() - 1), buffer, length)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(device: Device, minor: *mut c_uint) -> c_int {
    unsafe { *minor = (device.addr() - 1) as c_uint };
    SUCCESS
}

#[repr(C)]
pub struct Pci {
    legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    id: c_uint,
    subsystem: c_uint,
    address: [c_char; 32],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Device, pci: *mut Pci) -> c_int {
    let bus = (device.addr() - 1) as c_uint;
    unsafe {
        (*pci).bus = bus;
        (*pci).id = 0x2330_10de;
        put(&format!("{bus:08x}"), (&raw mut (*pci).legacy).cast(), 16);
        put(&format!("00000000:{bus:02X}:00.0"), (&raw mut (*pci).address).cast(), 32)
    }
}

#[repr(C)]
pub struct Memory {
    version: c_uint,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, memory: *mut Memory) -> c_int {
    match (part(device, "memory", 0), part(device, "memory", 1)) {
        (Ok(total), Ok(used)) => unsafe {
            ((*memory).total, (*memory).used, (*memory).free) = (total, used, total - used);
            SUCCESS
        },
        (Err(code), _) | (_, Err(code)) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    _: Device,
    major: *mut c_int,
    minor: *mut c_int,
) -> c_int {
    unsafe {
        *major = 9;
        *minor = 0;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetBrand(_: Device, brand: *mut c_uint) -> c_int {
    unsafe { *brand = BRAND };
    SUCCESS
}

/// `error` is 0 for corrected ones, 1 for others; `counter` 0 since the driver was loaded, 1 ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: Device,
    error: c_uint,
    counter: c_uint,
    count: *mut u64,
) -> c_int {
    match part(device, "ecc-errors", (error * 2 + counter) as usize) {
        Ok(number) => unsafe {
            *count = number;
            SUCCESS
        },
        Err(code) => code,
    }
}

#[repr(C)]
pub struct Field {
    id: c_uint,
    scope: c_uint,
    timestamp: i64,
    latency: i64,
    kind: c_uint,
    code: c_int,
    value: u64,
}

/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED_INT: c_uint = 1;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(device: Device, count: c_int, fields: *mut Field) -> c_int {
    for at in 0..count as usize {
        let field = unsafe { &mut *fields.add(at) };
        let answer = match field.id {
            id @ 29..=31 => part(device, "retired", id as usize - 29),
            id @ 142..=145 => part(device, "remaps", id as usize - 142),
            _ => Err(NOT_SUPPORTED),
        };
        (field.kind, field.code, field.value) =
            answer.map_or_else(|code| (UNSIGNED_INT, code, 0), |number| (UNSIGNED_INT, SUCCESS, number));
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Device, mask: *mut u64) -> c_int {
    match part(device, "slowed", 0) {
        Ok(number) => unsafe {
            *mask = number;
            SUCCESS
        },
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(device: Device, _: c_uint, degrees: *mut c_uint) -> c_int {
    unsafe { give(device, "temperature", [(0, degrees)]) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Device, count: *mut c_uint) -> c_int {
    unsafe { *count = 7 };
    of(device, "mig").map_or_else(|code| code, |_| SUCCESS)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Device,
    index: c_uint,
    instance: *mut Device,
) -> c_int {
    match part(device, "mig-instances", 0) {
        Ok(number) if u64::from(index) < number => unsafe {
            *instance = std::ptr::without_provenance_mut(device.addr() * 1000 + index as usize);
            SUCCESS
        },
        Ok(_) => NOT_FOUND,
        Err(code) => code,
    }
}

/// `nvmlGpuFabricInfo_v2_t`.
#[repr(C)]
pub struct Fabric {
    version: c_uint,
    cluster: [u8; 16],
    status: c_int,
    clique: c_uint,
    state: u8,
    health: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: Device, fabric: *mut Fabric) -> c_int {
    let version = size_of::<Fabric>() as c_uint | 2 << 24;
    if script("fabric-v1").is_some() || unsafe { (*fabric).version } != version {
        return VERSION_MISMATCH;
    }
    match (part(device, "fabric", 0), part(device, "fabric", 1), part(device, "fabric", 2)) {
        (Ok(state), Ok(status), Ok(health)) => unsafe {
            ((*fabric).state, (*fabric).status) = (state as u8, status as c_int);
            (*fabric).health = health as c_uint;
            SUCCESS
        },
        (Err(code), _, _) | (_, Err(code), _) | (_, _, Err(code)) => code,
    }
}

/// `nvmlGpuFabricInfo_t`, of libraries before there were versions of it (`fabric-v1` in the script).
#[repr(C)]
pub struct FabricBefore {
    cluster: [u8; 16],
    status: c_int,
    clique: c_uint,
    state: u8,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(device: Device, fabric: *mut FabricBefore) -> c_int {
    match (part(device, "fabric", 0), part(device, "fabric", 1)) {
        (Ok(state), Ok(status)) => unsafe {
            ((*fabric).state, (*fabric).status) = (state as u8, status as c_int);
            SUCCESS
        },
        (Err(code), _) | (_, Err(code)) => code,
    }
}

#[repr(C)]
pub struct Process {
    pid: c_uint,
    memory: u64,
    instance: c_uint,
    compute: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Device,
    count: *mut c_uint,
    processes: *mut Process,
) -> c_int {
    let list = match of(device, "processes") {
        Ok(list) => list,
        Err(code) => return code,
    };
    let list: Vec<(c_uint, u64)> = list
        .split_whitespace()
        .filter_map(|process| process.split_once(':'))
        .filter_map(|(pid, memory)| Some((pid.parse().ok()?, memory.parse().ok()?)))
        .collect();
    let room = unsafe { std::mem::replace(&mut *count, list.len() as c_uint) };
    if (room as usize) < list.len() || processes.is_null() {
        return if list.is_empty() { SUCCESS } else { INSUFFICIENT_SIZE };
    }
    for (at, (pid, memory)) in list.into_iter().enumerate() {
        unsafe { *processes.add(at) = Process { pid, memory, instance: c_uint::MAX, compute: c_uint::MAX } };
    }
    SUCCESS
}
