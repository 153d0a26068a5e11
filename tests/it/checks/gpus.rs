//! The real `nvml-wrapper` against the stand-in library.

use std::path::Path;

use bedplate::gpu::{GpuError, observe};

use super::nvml::{EIGHT, standin};

#[test]
fn eight_gpus_are_seen_with_what_they_say() {
    let (_directory, library) = standin(EIGHT);
    let gpus = observe(Some(&library)).unwrap();
    assert_eq!((gpus.driver.as_str(), gpus.cuda, gpus.devices.len()), ("550.163.01", Some((12, 4)), 8));
    assert!(gpus.lost.is_empty());
    let last = &gpus.devices[7];
    assert_eq!((last.index, last.name.as_deref()), (7, Some("NVIDIA H100 80GB HBM3")));
    assert_eq!(last.uuid.as_deref(), Some("GPU-00000007-0000-0000-0000-000000000000"));
    assert_eq!((last.memory, last.mig), (Some(80 << 30), Some(false)));
    assert_eq!((last.compute_capability, last.brand), (Some((9, 0)), Some("nvidia")));
}

#[test]
fn a_gpu_off_the_bus_is_lost_and_the_others_are_seen() {
    let (_directory, library) = standin(&format!("{EIGHT}lost 3\n"));
    let gpus = observe(Some(&library)).unwrap();
    assert_eq!(gpus.devices.len(), 7);
    assert!(gpus.devices.iter().all(|gpu| gpu.index != 3));
    assert_eq!(gpus.lost.len(), 1);
    assert_eq!(gpus.lost[0].0, 3);
    assert!(gpus.lost[0].1.contains("fell off the bus"), "{}", gpus.lost[0].1);
}

#[test]
fn each_failure_is_its_own() {
    for (script, error) in [
        ("init 18", GpuError::VersionMismatch),
        ("init 9", GpuError::DriverNotLoaded),
        ("init 4", GpuError::NoPermission),
    ] {
        let (_directory, library) = standin(script);
        assert_eq!(observe(Some(&library)).unwrap_err(), error, "{script}");
    }
    let (_directory, library) = standin("init 999");
    assert!(matches!(observe(Some(&library)), Err(GpuError::Other(_))));
    let gone = observe(Some(Path::new("/nonexistent/libnvidia-ml.so.1"))).unwrap_err();
    assert!(matches!(gone, GpuError::NoLibrary(_)), "{gone:?}");
    // A file that is no library, and a library that is not NVML.
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("libnvidia-ml.so.1");
    std::fs::write(&text, "not a library").unwrap();
    assert!(matches!(observe(Some(&text)), Err(GpuError::NoLibrary(_))));
    assert!(matches!(observe(Some(Path::new("libc.so.6"))), Err(GpuError::NoLibrary(_))));
}

#[test]
fn no_gpus_are_no_gpus() {
    let (_directory, library) = standin("driver 550.163.01\ncount 0\n");
    let gpus = observe(Some(&library)).unwrap();
    assert!(gpus.devices.is_empty() && gpus.lost.is_empty());
    assert_eq!(gpus.cuda, None);
}
