//! The probe: whether a container has the GPUs, seen from inside, as CUDA sees them.
//!
//! `probe` loads the driver's library, initialises it, lists the devices, runs a small kernel on each, and prints what it
//! saw as one line of JSON. `probe --hold` only stays, so that the same container can be looked at again.
//!
//! Standard library only. Linked to the C library of where bedplate was built, since a static program cannot load the
//! driver's library: an image with an older C library cannot run it, which is not the image's fault.
//! What it calls is the CUDA driver API (`cuda.h`), by the symbols that every driver since 450 exports.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt::Write as _,
    io::Write as _,
    process::ExitCode,
    ptr,
};

const LIBRARY: &CStr = c"libcuda.so.1";
/// `RTLD_NOW` (dlopen(3)).
const NOW: c_int = 2;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];
/// What the kernel is written for: Volta. Drivers compile it for whatever is newer.
const TARGET: (c_int, c_int) = (7, 0);
/// A number for each thread.
const NUMBERS: usize = 1024;
const THREADS: c_uint = 256;

/// Each number becomes three times itself and its place.
const KERNEL: &CStr = c".version 6.0
.target sm_70
.address_size 64
.visible .entry triple(.param .u64 numbers)
{
    .reg .b32 %r<6>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [numbers];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.s32 %r4, %r1, %r2, %r3;
    mul.wide.u32 %rd2, %r4, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r5, [%rd3];
    mad.lo.s32 %r5, %r5, 3, %r4;
    st.global.u32 [%rd3], %r5;
    ret;
}
";

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn gnu_get_libc_version() -> *const c_char;
}

type Code = c_int;
type Device = c_int;
type Memory = u64;
type Handle = *mut c_void;

/// What did not work, and the driver's code.
struct Fault {
    at: String,
    code: Code,
}

type Answer<T> = Result<T, Fault>;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--hold") => loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        Some(_) => {
            let _ = writeln!(std::io::stderr(), "usage: probe [--hold]");
            return ExitCode::from(2);
        }
    }
    let said = look();
    let mut out = std::io::stdout();
    match writeln!(out, "{said}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

/// All that was seen, as JSON.
fn look() -> String {
    // SAFETY: both give a string that lives as long as the program, or until the next call of the same.
    let libc = unsafe { text(gnu_get_libc_version()) };
    let library = unsafe { dlopen(LIBRARY.as_ptr(), NOW) };
    let mut out = format!("{{\"schema\":1,\"libc\":{}", quoted(&libc));
    if library.is_null() {
        let why = unsafe { text(dlerror()) };
        let _ = write!(out, ",\"library\":{}}}", quoted(&why));
        return out;
    }
    let cuda = Cuda(library);
    if let Err(fault) = cuda.init() {
        let _ = write!(out, ",\"fault\":{}}}", cuda.fault(&fault));
        return out;
    }
    if let Ok(driver) = cuda.driver() {
        let _ = write!(out, ",\"driver\":{driver}");
    }
    match cuda.count() {
        Ok(count) => {
            let devices: Vec<String> = (0..count).map(|index| device(&cuda, index)).collect();
            let _ = write!(out, ",\"devices\":[{}]}}", devices.join(","));
        }
        Err(fault) => {
            let _ = write!(out, ",\"fault\":{}}}", cuda.fault(&fault));
        }
    }
    out
}

fn device(cuda: &Cuda, index: Device) -> String {
    let mut out = format!("{{\"index\":{index}");
    let mut seen = || -> Answer<()> {
        let device = cuda.device(index)?;
        let _ = write!(out, ",\"name\":{}", quoted(&cuda.name(device)?));
        let _ = write!(out, ",\"memory\":{}", cuda.memory(device)?);
        let capability = cuda.capability(device)?;
        let _ = write!(out, ",\"capability\":[{},{}]", capability.0, capability.1);
        if capability >= TARGET {
            let right = cuda.run(device)?;
            let _ = write!(out, ",\"kernel\":{right}");
        }
        Ok(())
    };
    if let Err(fault) = seen() {
        let _ = write!(out, ",\"fault\":{}", cuda.fault(&fault));
    }
    out.push('}');
    out
}

/// The driver's library.
struct Cuda(Handle);

/// Calls a function of the driver API: its symbol, the types of its arguments, the arguments.
macro_rules! call {
    ($cuda:expr, $symbol:literal ( $($type:ty),* ) $($argument:expr),*) => {{
        let symbol = $cuda.symbol($symbol)?;
        // SAFETY: the types are those of `cuda.h` for this symbol, pointers are to what lives through the call.
        let code = unsafe {
            let function: unsafe extern "C" fn($($type),*) -> Code = std::mem::transmute(symbol);
            function($($argument),*)
        };
        if code == 0 { Ok(()) } else { Err(Fault { at: $symbol.to_string_lossy().into_owned(), code }) }
    }};
}

impl Cuda {
    fn symbol(&self, name: &CStr) -> Answer<Handle> {
        // SAFETY: the library is open, and the name ends with a zero.
        let found = unsafe { dlsym(self.0, name.as_ptr()) };
        // `CUDA_ERROR_NOT_FOUND`.
        if found.is_null() { Err(Fault { at: name.to_string_lossy().into_owned(), code: 500 }) } else { Ok(found) }
    }

    fn init(&self) -> Answer<()> {
        call!(self, c"cuInit"(c_uint) 0)
    }

    fn driver(&self) -> Answer<c_int> {
        let mut version = 0;
        call!(self, c"cuDriverGetVersion"(*mut c_int) &raw mut version)?;
        Ok(version)
    }

    fn count(&self) -> Answer<c_int> {
        let mut count = 0;
        call!(self, c"cuDeviceGetCount"(*mut c_int) &raw mut count)?;
        Ok(count)
    }

    fn device(&self, index: c_int) -> Answer<Device> {
        let mut device = 0;
        call!(self, c"cuDeviceGet"(*mut Device, c_int) &raw mut device, index)?;
        Ok(device)
    }

    fn name(&self, device: Device) -> Answer<String> {
        let mut name = [0; 256];
        call!(self, c"cuDeviceGetName"(*mut c_char, c_int, Device) name.as_mut_ptr(), 255, device)?;
        // SAFETY: the last byte was never given away, so there is a zero.
        Ok(unsafe { text(name.as_ptr()) })
    }

    fn memory(&self, device: Device) -> Answer<usize> {
        let mut bytes = 0_usize;
        call!(self, c"cuDeviceTotalMem_v2"(*mut usize, Device) &raw mut bytes, device)?;
        Ok(bytes)
    }

    fn capability(&self, device: Device) -> Answer<(c_int, c_int)> {
        let mut version = [0; 2];
        for (place, attribute) in version.iter_mut().zip(CAPABILITY) {
            call!(self, c"cuDeviceGetAttribute"(*mut c_int, c_int, Device) ptr::from_mut(place), attribute, device)?;
        }
        Ok((version[0], version[1]))
    }

    /// Runs the kernel, and says whether it calculated right.
    fn run(&self, device: Device) -> Answer<bool> {
        let mut context = ptr::null_mut();
        call!(self, c"cuDevicePrimaryCtxRetain"(*mut Handle, Device) &raw mut context, device)?;
        let ran = self.run_in(context);
        let released = call!(self, c"cuDevicePrimaryCtxRelease_v2"(Device) device);
        let right = ran?;
        released.map(|()| right)
    }

    fn run_in(&self, context: Handle) -> Answer<bool> {
        call!(self, c"cuCtxSetCurrent"(Handle) context)?;
        let (mut module, mut kernel) = (ptr::null_mut(), ptr::null_mut());
        call!(self, c"cuModuleLoadData"(*mut Handle, *const c_char) &raw mut module, KERNEL.as_ptr())?;
        call!(self, c"cuModuleGetFunction"(*mut Handle, Handle, *const c_char) &raw mut kernel, module, c"triple".as_ptr())?;
        let mut numbers: Vec<u32> = (0..NUMBERS as u32).map(|at| at ^ 0x5555).collect();
        let wanted: Vec<u32> = numbers.iter().zip(0..).map(|(number, at)| number * 3 + at).collect();
        let bytes = NUMBERS * size_of::<u32>();
        let mut memory: Memory = 0;
        call!(self, c"cuMemAlloc_v2"(*mut Memory, usize) &raw mut memory, bytes)?;
        call!(self, c"cuMemcpyHtoD_v2"(Memory, *const c_void, usize) memory, numbers.as_ptr().cast(), bytes)?;
        let mut parameters = [(&raw mut memory).cast::<c_void>()];
        let blocks = NUMBERS as c_uint / THREADS;
        call!(self, c"cuLaunchKernel"(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void)
            kernel, blocks, 1, 1, THREADS, 1, 1, 0, ptr::null_mut(), parameters.as_mut_ptr(), ptr::null_mut())?;
        call!(self, c"cuCtxSynchronize"())?;
        call!(self, c"cuMemcpyDtoH_v2"(*mut c_void, Memory, usize) numbers.as_mut_ptr().cast(), memory, bytes)?;
        call!(self, c"cuMemFree_v2"(Memory) memory)?;
        call!(self, c"cuModuleUnload"(Handle) module)?;
        Ok(numbers == wanted)
    }

    /// A fault as JSON, with the driver's name for its code.
    fn fault(&self, fault: &Fault) -> String {
        let mut name = ptr::null();
        let named = (|| call!(self, c"cuGetErrorName"(Code, *mut *const c_char) fault.code, &raw mut name))();
        // SAFETY: the name is a constant of the library, or null.
        let name = if named.is_ok() { unsafe { text(name) } } else { String::new() };
        format!("{{\"at\":{},\"code\":{},\"name\":{}}}", quoted(&fault.at), fault.code, quoted(&name))
    }
}

/// A C string; empty for none.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise: it ends with a zero.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            letter if letter < ' ' => {
                let _ = write!(out, "\\u{:04x}", letter as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
