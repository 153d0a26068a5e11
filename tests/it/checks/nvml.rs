//! The NVML stand-in: compiled once, copied with its script for each case.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

/// The compiled library, in a directory that lives as long as the tests.
fn compiled() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("libnvidia-ml.so.550.163.01");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc)
            .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-o"])
            .arg(&library)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standin/nvml.rs"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (directory, library)
    });
    library
}

/// A copy of the library that answers as `script` says. Its path; it is gone with the directory.
pub(super) fn standin(script: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("libnvidia-ml.so.550.163.01");
    std::fs::copy(compiled(), &library).unwrap();
    let mut beside = library.clone().into_os_string();
    beside.push(".script");
    std::fs::write(beside, script).unwrap();
    (directory, library)
}

/// Eight H100 on driver 550.163.01.
pub(super) const EIGHT: &str = "driver 550.163.01\ncuda 12040\ncount 8\nname NVIDIA H100 80GB HBM3\n";
