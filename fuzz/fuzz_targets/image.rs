//! An image definition: any text is one or gives errors with their place.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = bedplate::profile::image_definition::parse("fuzz.toml", text);
});
