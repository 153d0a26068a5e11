//! Certificates, and a text signed with one of them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bedplate::apt::fuzzing::signed(bytes));
