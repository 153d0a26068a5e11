//! The text of a release file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| bedplate::apt::fuzzing::release(text));
