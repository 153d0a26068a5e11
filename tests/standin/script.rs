//! How a stand-in reads what it is to answer: the file beside the library, named as it with `.script` at the end; one `key value` a
//! line, of several the last holds, and what follows ` #` is a comment.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

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

/// The value of `key` in the script of the library that `own` is code of.
pub(crate) fn value(own: *const c_void, key: &str) -> Option<String> {
    let mut info = DlInfo {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        name: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    // SAFETY: the address is of this library's own code, and `info` lives through the call.
    let file = unsafe {
        if dladdr(own, &raw mut info) == 0 || info.file.is_null() {
            return None;
        }
        CStr::from_ptr(info.file)
    };
    let mut path = PathBuf::from(std::ffi::OsStr::from_bytes(file.to_bytes())).into_os_string();
    path.push(".script");
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().rev().find_map(|line| {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.split_once(" #").map_or(rest, |(value, _)| value);
        (word == key).then(|| rest.trim().to_owned())
    })
}
