//! A field such as `Depends`: what is read and shown again reads the same.
#![no_main]

use bedplate::apt::relation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|field: &str| {
    if let Ok(read) = relation::parse(field) {
        let shown = relation::show(&read);
        let again = relation::parse(&shown).expect("what is shown can be read");
        assert_eq!(relation::show(&again), shown);
    }
});
