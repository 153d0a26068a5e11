//! A bundle: any bytes are refused or are one, and then its archive has one form.
#![no_main]

use bedplate::lock::bundle::{Bundle, carried::Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = Bundle::from_tar(bytes) {
        assert_eq!(bundle.to_tar(), bytes);
        let _ = bundle.open();
    }
    if let Ok((_, mut reader)) = Reader::bundle(bytes) {
        while let Ok(Some(_)) = reader.next_blob() {
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        }
    }
});
