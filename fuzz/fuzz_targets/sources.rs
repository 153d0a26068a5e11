//! A machine's apt configuration: any text gives sources or none.
#![no_main]

use bedplate::apt::sources;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for read in [sources::one_line(text), sources::deb822(text)] {
        let _ = sources::bases(&read, "debian");
    }
    let _ = sources::proxies(text);
});
