//! A stand-in for `libcuda.so.1`, for machines without a GPU: the probe loads it as it loads the driver's.
//!
//! Built by the tests with `rustc --crate-type cdylib --edition 2024`. What it answers stands in the file named as the
//! library with `.script` at the end, one `key value` a line: `count 2`, `init 802`, `context 2` (what
//! `cuDevicePrimaryCtxRetain` returns), `capability 9 0`, `wrong 1` (this device calculates wrong), `hang 1`.
//! It keeps memory on the host and does what the probe's kernel does. Codes and signatures: `cuda.h`.

mod script;

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    sync::atomic::{AtomicI32, Ordering},
};

const NAME: &[u8] = b"Stand-in\0";
static CURRENT: AtomicI32 = AtomicI32::new(-1);

unsafe extern "C" {
    fn malloc(bytes: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
}

fn script(key: &str) -> Option<String> {
    script::value(cuInit as *const c_void, key)
}

fn number(key: &str) -> Option<c_int> {
    script(key)?.parse().ok()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_: c_uint) -> c_int {
    if number("hang").is_some() {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
    number("init").unwrap_or(0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    unsafe { *version = 12040 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    unsafe { *count = number("count").unwrap_or(1) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, index: c_int) -> c_int {
    unsafe { *device = index };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, _: c_int, _: c_int) -> c_int {
    unsafe { std::ptr::copy_nonoverlapping(NAME.as_ptr().cast(), name, NAME.len()) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _: c_int) -> c_int {
    unsafe { *bytes = 80 << 30 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _: c_int) -> c_int {
    let version = script("capability").unwrap_or_else(|| "9 0".to_owned());
    let at = usize::from(attribute == 76);
    unsafe { *value = version.split(' ').nth(at).and_then(|part| part.parse().ok()).unwrap_or(0) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> c_int {
    unsafe { *context = std::ptr::without_provenance_mut(device as usize + 1) };
    number("context").unwrap_or(0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_: c_int) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    CURRENT.store(context.addr() as c_int - 1, Ordering::Relaxed);
    0
}

/// `CUDA_ERROR_INVALID_PTX` for what is no text of PTX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(_: *mut *mut c_void, image: *const c_char) -> c_int {
    let text = unsafe { CStr::from_ptr(image) }.to_string_lossy();
    if text.starts_with(".version ") && text.contains(".visible .entry triple(") { 0 } else { 218 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(_: *mut *mut c_void, _: *mut c_void, name: *const c_char) -> c_int {
    if unsafe { CStr::from_ptr(name) } == c"triple" { 0 } else { 500 }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(memory: *mut u64, bytes: usize) -> c_int {
    unsafe { *memory = malloc(bytes).expose_provenance() as u64 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(memory: u64) -> c_int {
    unsafe { free(std::ptr::with_exposed_provenance_mut(memory as usize)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(memory: u64, from: *const u8, bytes: usize) -> c_int {
    unsafe { std::ptr::copy_nonoverlapping(from, std::ptr::with_exposed_provenance_mut(memory as usize), bytes) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(into: *mut u8, memory: u64, bytes: usize) -> c_int {
    unsafe { std::ptr::copy_nonoverlapping(std::ptr::with_exposed_provenance(memory as usize), into, bytes) };
    0
}

#[unsafe(no_mangle)]
#[rustfmt::skip]
pub unsafe extern "C" fn cuLaunchKernel(
    _: *mut c_void, blocks: c_uint, _: c_uint, _: c_uint, threads: c_uint, _: c_uint, _: c_uint, _: c_uint,
    _: *mut c_void, parameters: *mut *mut c_void, _: *mut *mut c_void,
) -> c_int {
    let wrong = number("wrong").is_some_and(|device| device == CURRENT.load(Ordering::Relaxed));
    unsafe {
        let memory = *(*parameters).cast::<u64>();
        let numbers = std::ptr::with_exposed_provenance_mut::<u32>(memory as usize);
        for at in 0..blocks * threads {
            let number = numbers.add(at as usize);
            *number = *number * 3 + at + u32::from(wrong && at == 7);
        }
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int {
    let known = match code {
        2 => c"CUDA_ERROR_OUT_OF_MEMORY",
        100 => c"CUDA_ERROR_NO_DEVICE",
        802 => c"CUDA_ERROR_SYSTEM_NOT_READY",
        _ => return 1,
    };
    unsafe { *name = known.as_ptr() };
    0
}
