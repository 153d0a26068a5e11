//! Stand-ins for the driver's libraries, compiled by whoever needs them.

use std::{path::Path, process::Command};

/// Compiles a stand-in of `tests/standin`.
pub(crate) fn compile(source: &str, library: &Path) {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args("--edition 2024 --crate-type cdylib -C panic=abort -C strip=symbols -o".split(' '))
        .arg(library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin").join(source))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
