//! A package file: any bytes are judged, within bounds of time and memory.
#![no_main]

use bedplate::apt::deb::{Limits, control_stanza, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { unpacked: 8 << 20, entries: 4096, ratio: 400 };
    let _ = inspect(bytes, &limits);
    let _ = control_stanza(bytes);
});
