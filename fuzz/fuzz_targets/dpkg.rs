//! dpkg's database of packages: any text is one or is refused.
#![no_main]

use bedplate::plan::dpkg::Packages;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (status, update) = text.split_once("\n\n\n").unwrap_or((text, ""));
    if let Ok(packages) = Packages::parse(status, &[update.to_owned()]) {
        let _ = packages.by_key("amd64");
    }
});
