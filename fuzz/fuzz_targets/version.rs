//! Two versions: the order is one, whichever is asked first.
#![no_main]

use std::cmp::Ordering;

use bedplate::apt::version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some((one, other)) = text.split_once('\n') else { return };
    let order = version::compare(one, other);
    assert_eq!(version::compare(other, one), order.reverse());
    assert_eq!(version::compare(one, one), Ordering::Equal);
    let _ = (version::check(one), version::upstream(one));
});
