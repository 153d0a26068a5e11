//! A stand-in for `libnvidia-ml.so.1`, for machines without a GPU: the real `nvml-wrapper` loads it.
//!
//! Built by the tests with `rustc --crate-type cdylib --edition 2024`. What it answers stands in a file
//! beside it, named as the library with `.script` at the end; one `key value` a line:
//!
//! ```text
//! init 18              # what nvmlInit_v2 returns: 0, 9 driver not loaded, 18 version mismatch
//! driver 550.163.01
//! cuda 12040           # major * 1000 + minor * 10
//! count 8
//! lost 3               # this index is off the bus (code 15)
//! name NVIDIA H100 80GB HBM3
//! hang                 # nvmlInit_v2 does not come back
//! ```
//!
//! Codes and structures: `nvml.h`.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_SUPPORTED: c_int = 3;
const INSUFFICIENT_SIZE: c_int = 7;
const GPU_IS_LOST: c_int = 15;
const UNKNOWN: c_int = 999;
/// `NVML_BRAND_NVIDIA`.
const BRAND: c_uint = 14;
const MEMORY: u64 = 80 << 30;

#[repr(C)]
struct DlInfo {
    file: *const c_char,
    base: *mut c_void,
    name: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
}

/// The script's value of `key`.
fn script(key: &str) -> Option<String> {
    let mut info = DlInfo {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        name: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    // SAFETY: the address is of this library's own code, and `info` lives through the call.
    let file = unsafe {
        if dladdr(nvmlShutdown as *const c_void, &raw mut info) == 0 || info.file.is_null() {
            return None;
        }
        CStr::from_ptr(info.file)
    };
    let mut path = PathBuf::from(std::ffi::OsStr::from_bytes(file.to_bytes())).into_os_string();
    path.push(".script");
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        (word == key).then(|| rest.trim().to_owned())
    })
}

fn number(key: &str) -> Option<c_uint> {
    script(key)?.parse().ok()
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

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    if script("hang").is_some() {
        std::thread::sleep(std::time::Duration::from_secs(3600));
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
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut *mut c_void) -> c_int {
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
pub unsafe extern "C" fn nvmlDeviceGetName(_: *mut c_void, buffer: *mut c_char, length: c_uint) -> c_int {
    script("name").map_or(NOT_SUPPORTED, |name| put(&name, buffer, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: *mut c_void,
    buffer: *mut c_char,
    length: c_uint,
) -> c_int {
    put(&format!("GPU-{:08}-0000-0000-0000-000000000000", device.addr() - 1), buffer, length)
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
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(_: *mut c_void, memory: *mut Memory) -> c_int {
    unsafe {
        (*memory).total = MEMORY;
        (*memory).free = MEMORY;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(_: *mut c_void, now: *mut c_uint, next: *mut c_uint) -> c_int {
    unsafe {
        *now = 0;
        *next = 0;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    _: *mut c_void,
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
pub unsafe extern "C" fn nvmlDeviceGetBrand(_: *mut c_void, brand: *mut c_uint) -> c_int {
    unsafe { *brand = BRAND };
    SUCCESS
}
