//! A lock: what is read is written again in its one form, and reads the same.
#![no_main]

use bedplate::lock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(read) = lock::parse("fuzz.lock", text) {
        let written = lock::write(&read);
        assert_eq!(lock::parse("fuzz.lock", &written).expect("what is written can be read"), read);
    }
});
