//! The real `nvml-wrapper` against the stand-in library.

use std::path::Path;

use bedplate::gpu::{
    Errors, Fabric, FabricState, GpuError, Gpus, Health, Holder, Library, MemoryUse, Mode, Of, Reading,
    Remaps, Retired, Slowed,
};

use super::nvml::{EIGHT, machine, standin};

fn observe(library: Option<&Path>) -> Result<Gpus, GpuError> {
    Library::open(library)?.observe()
}

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
    // At once, or with a handle that is good for nothing.
    for script in [machine("off-the-bus"), format!("{EIGHT}lost-later 3\n")] {
        let (_directory, library) = standin(&script);
        let gpus = observe(Some(&library)).unwrap();
        assert_eq!(gpus.devices.len(), 7);
        assert!(gpus.devices.iter().all(|gpu| gpu.index != 3));
        assert_eq!(gpus.lost.len(), 1);
        assert_eq!(gpus.lost[0].0, 3);
        assert!(gpus.lost[0].1.contains("fell off the bus"), "{}", gpus.lost[0].1);
    }
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
    let (_directory, library) = standin(&machine("none"));
    let gpus = observe(Some(&library)).unwrap();
    assert!(gpus.devices.is_empty() && gpus.lost.is_empty());
    let (_directory, library) = standin("driver 550.163.01\ncount 0\n");
    assert_eq!(observe(Some(&library)).unwrap().cuda, None);
}

/// GPU 3 of the eight, with these lines in the script.
fn third(more: &str) -> Health {
    let (_directory, library) = standin(&format!("{EIGHT}{more}"));
    Library::open(Some(&library)).unwrap().health(3).unwrap()
}

#[test]
fn a_healthy_gpu_says_everything() {
    let off = Mode { now: false, next: false };
    let health = third("");
    assert_eq!(
        health,
        Health {
            address: Reading::Value("0000:03:00.0".to_owned()),
            minor: Reading::Value(3),
            persistence: Reading::Value(true),
            ecc: Reading::Value(Mode { now: true, next: true }),
            uncorrected: Reading::Value(Errors { recent: 0, ever: 0 }),
            remaps: Reading::Value(Remaps { corrected: 0, uncorrected: 0, pending: false, failed: false }),
            retired: Reading::NotSupported,
            link_generation: Reading::Value(Of { now: 5, most: 5 }),
            link_width: Reading::Value(Of { now: 16, most: 16 }),
            clocks: Reading::Value([Slowed::Idle].into()),
            temperature: Reading::Value(38),
            mig: Reading::Value(off),
            instances: Reading::Value(0),
            fabric: Reading::Value(Fabric {
                state: FabricState::Completed,
                status: None,
                complaints: Vec::new()
            }),
            memory: Reading::Value(MemoryUse { total: 80 << 30, used: 1 << 20 }),
            processes: Reading::Value(Vec::new()),
        }
    );
    // Nothing that tells this card from another of its kind.
    let said = serde_json::to_string(&health).unwrap();
    assert!(!said.contains("GPU-") && !said.contains("16542200"), "{said}");
}

#[test]
fn each_value_is_read_from_its_own_call() {
    let health = third(
        "3.ecc-errors 5 6 7 8\n3.remaps 4 3 1 1\n3.retired 2 1 1\n3.link 3 5 8 16\n3.slowed 232\n\
         3.mig 1 0\n3.mig-instances 2\n3.fabric 2 0 0\n3.processes 4711:1024 12:2048\n3.ecc 0 1\n",
    );
    assert_eq!(health.uncorrected, Reading::Value(Errors { recent: 7, ever: 8 }));
    assert_eq!(
        health.remaps,
        Reading::Value(Remaps { corrected: 4, uncorrected: 3, pending: true, failed: true })
    );
    assert_eq!(health.retired, Reading::Value(Retired { single: 2, double: 1, pending: true }));
    assert_eq!(health.link_generation, Reading::Value(Of { now: 3, most: 5 }));
    assert_eq!(health.link_width, Reading::Value(Of { now: 8, most: 16 }));
    let slowed = [Slowed::Hardware, Slowed::HeatByDriver, Slowed::HeatByHardware, Slowed::PowerBrake];
    assert_eq!(health.clocks, Reading::Value(slowed.into()));
    assert_eq!(health.mig, Reading::Value(Mode { now: true, next: false }));
    assert_eq!(health.instances, Reading::Value(2));
    assert_eq!(health.fabric.value().unwrap().state, FabricState::InProgress);
    assert_eq!(health.ecc, Reading::Value(Mode { now: false, next: true }));
    let holder = |pid, bytes| Holder { pid, memory: Some(bytes) };
    assert_eq!(health.processes, Reading::Value(vec![holder(4711, 1024), holder(12, 2048)]));
    // The other seven are as before.
    let (_directory, library) = standin(&format!("{EIGHT}3.ecc-errors 5 6 7 8\n"));
    let second = Library::open(Some(&library)).unwrap().health(2).unwrap();
    assert_eq!(second.uncorrected, Reading::Value(Errors { recent: 0, ever: 0 }));
}

#[test]
fn what_a_card_does_not_have_is_no_failure_and_what_fails_is_no_value() {
    let nothing = third("persistence unsupported\necc unsupported\nfabric 0 0 0\nslowed unsupported\n");
    assert_eq!(nothing.persistence, Reading::NotSupported);
    assert_eq!(nothing.ecc, Reading::NotSupported);
    assert_eq!(nothing.fabric, Reading::NotSupported);
    let failing = third("temperature error 999\nremaps error 4\nmig error 15\n");
    for (why, reading) in [
        ("an internal driver error", failing.temperature.map(|_| ())),
        ("does not have permission", failing.remaps.map(|_| ())),
        ("fell off the bus", failing.mig.map(|_| ())),
        ("fell off the bus", failing.instances.map(|_| ())),
    ] {
        assert!(matches!(&reading, Reading::Unknown { why: said } if said.contains(why)), "{reading:?}");
    }
    // Libraries before 12.x have the older call of the fabric alone.
    let before = third("fabric 3 999 1\nfabric-v1\n");
    let fabric = before.fabric.value().unwrap();
    assert!(fabric.status.is_some() && fabric.complaints.is_empty(), "{fabric:?}");
    assert_eq!(third("fabric 3 0 1\n").fabric.value().unwrap().complaints, ["its bandwidth is degraded"]);
}

#[test]
fn nvidias_own_library_says_that_there_is_no_driver() {
    // Debian's package, unpacked and not installed; its driver is the module's other half.
    let package = crate::apt::oracle::unpacked("trixie", "libnvidia-ml1");
    let folder = package.path().join("usr/lib/x86_64-linux-gnu/nvidia/current");
    let library = [folder, package.path().join("usr/lib/x86_64-linux-gnu")]
        .into_iter()
        .map(|folder| folder.join("libnvidia-ml.so.1"))
        .find(|library| library.exists())
        .expect("the package has the library");
    let error = observe(Some(&library)).unwrap_err();
    if Path::new("/sys/module/nvidia").exists() {
        assert!(matches!(error, GpuError::VersionMismatch | GpuError::NoPermission), "{error:?}");
    } else {
        assert_eq!(error, GpuError::DriverNotLoaded);
    }
}
