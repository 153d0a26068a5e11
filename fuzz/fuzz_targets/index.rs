//! An index of packages: any bytes give a catalog or an error.
#![no_main]

use bedplate::apt::{Catalog, relation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(catalog) = Catalog::from_texts(&[("debian", "trixie", 500, text)]) else { return };
    for (_, record) in catalog.iter() {
        for field in [record.pre_depends, record.depends, record.conflicts, record.breaks, record.provides] {
            let _ = relation::parse(field);
        }
    }
});
