//! The NVML stand-in: compiled once, copied with its script for each case.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::support::standins::compile;

/// The compiled library, in a directory that lives as long as the tests.
fn compiled() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("libnvidia-ml.so.550.163.01");
        compile("nvml.rs", &library);
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

/// The script of a machine in `tests/standin/machines`. Its first line may be `like NAME`.
pub(super) fn machine(name: &str) -> String {
    let path = format!("{}/tests/standin/machines/{name}.script", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    match text.strip_prefix("like ").and_then(|rest| rest.split_once('\n')) {
        Some((like, rest)) => machine(like) + rest,
        None => text,
    }
}

/// Eight H100 on driver 550.163.01.
pub(super) const EIGHT: &str = include_str!("../../standin/machines/eight-h100.script");
