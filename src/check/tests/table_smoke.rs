//! What containers see of the GPUs: each way to see less than all.

#![allow(clippy::semicolon_if_nothing_returned)]

use super::{facts::World, table::Case};
use crate::{
    check::report::Outcome::{Fail, NotApplicable, Pass, Unknown},
    host::{
        facts::{Known, Nvml},
        smoke::{Fault, Probed, Ran, Reload, Seen, Smoke},
    },
    profile::GpuAccess,
};

/// What a container sees where all is well.
pub(super) fn seen(gpus: u32) -> Seen {
    Seen {
        libc: Some("2.39".to_owned()),
        driver: Some("12.4".to_owned()),
        devices: (0..gpus)
            .map(|index| Probed {
                index,
                name: Some("NVIDIA H100 80GB HBM3".to_owned()),
                memory: Some(85_899_345_920),
                capability: Some((9, 0)),
                kernel: Some(true),
                fault: None,
            })
            .collect(),
        ..Seen::default()
    }
}

pub(super) fn smoke(gpus: u32) -> Known<Smoke> {
    Known::Ok(Smoke { image: "vllm".to_owned(), ran: Ran::Saw(seen(gpus)) })
}

pub(super) fn reload(gpus: u32) -> Known<Reload> {
    let ran = || Ran::Saw(seen(gpus));
    Known::Ok(Reload { image: "vllm".to_owned(), before: ran(), after: ran() })
}

fn fault(code: i32, name: &str) -> Fault {
    Fault { at: "cuInit".to_owned(), code, name: name.to_owned() }
}

fn ran(w: &mut World, ran: Ran) {
    w.facts.smoke = Known::Ok(Smoke { image: "vllm".to_owned(), ran });
}

fn saw(w: &mut World, change: impl Fn(&mut Seen)) {
    let Known::Ok(Smoke { ran: Ran::Saw(seen), .. }) = &mut w.facts.smoke else { panic!("nothing seen") };
    change(seen);
}

fn after(w: &mut World, ran: Ran) {
    let Known::Ok(reload) = &mut w.facts.smoke_reload else { panic!("not looked at") };
    reload.after = ran;
}

fn parted(w: &mut World) {
    let Known::Ok(Nvml::Answers(gpus)) = &mut w.facts.nvml else { panic!("no NVML") };
    for device in &mut gpus.devices {
        device.mig = Some(true);
    }
    saw(w, |seen| seen.devices.truncate(1));
}

pub(super) const CASES: &[Case] = &[
    Case("toolkit.smoke", Fail, "does not start `vllm` with GPUs: could not select device driver", |w| {
        ran(w, Ran::Refused("could not select device driver \"nvidia\"".into()))
    }),
    Case("toolkit.smoke", Unknown, "C library is missing or older", |w| {
        ran(w, Ran::CannotRun("version `GLIBC_2.34' not found".into()))
    }),
    Case("toolkit.smoke", Fail, "exit status 139", |w| ran(w, Ran::Ended(139, String::new()))),
    Case("toolkit.smoke", Fail, "did not end within 120 s", |w| ran(w, Ran::Hung(120))),
    Case("toolkit.smoke", Fail, "no driver library", |w| {
        saw(w, |seen| seen.library = Some("libcuda.so.1: cannot open shared object file".into()))
    }),
    Case("toolkit.smoke", Fail, "fabric is not up", |w| {
        saw(w, |seen| seen.fault = Some(fault(802, "CUDA_ERROR_SYSTEM_NOT_READY")))
    }),
    Case("toolkit.smoke", Fail, "does not fit the loaded driver", |w| {
        saw(w, |seen| seen.fault = Some(fault(803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")))
    }),
    Case("toolkit.smoke", Fail, "forward compatibility", |w| {
        saw(w, |seen| seen.fault = Some(fault(804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE")))
    }),
    Case("toolkit.smoke", Fail, "CUDA error 46, unknown", |w| {
        saw(w, |seen| seen.fault = Some(fault(46, "")))
    }),
    Case("toolkit.smoke", Fail, "GPU 1 does not work in a container: the GPU has no memory left", |w| {
        saw(w, |seen| seen.devices[1].fault = Some(fault(2, "CUDA_ERROR_OUT_OF_MEMORY")))
    }),
    Case("toolkit.smoke", Fail, "GPU 1 calculated wrong", |w| {
        saw(w, |seen| seen.devices[1].kernel = Some(false))
    }),
    Case("toolkit.smoke", Fail, "a container sees 1 of", |w| saw(w, |seen| seen.devices.truncate(1))),
    Case("toolkit.smoke", Fail, "a container sees 0 of", |w| saw(w, |seen| seen.devices.clear())),
    Case("toolkit.smoke", Pass, "a container sees 1 of", parted),
    Case("toolkit.smoke", Unknown, "older than what the probe", |w| {
        saw(w, |seen| seen.devices.iter_mut().for_each(|device| device.kernel = None))
    }),
    Case("toolkit.smoke", Unknown, "Docker went away", |w| {
        w.facts.smoke = Known::unknown("Docker went away")
    }),
    Case("toolkit.smoke", Unknown, "NVML does not answer", |w| {
        w.facts.nvml = Known::Ok(Nvml::DriverNotLoaded)
    }),
    Case("toolkit.smoke", NotApplicable, "no GPUs", |w| w.profile.container.gpu_access = GpuAccess::None),
    Case("toolkit.smoke-reload", Fail, "takes GPUs away from a running container", |w| {
        after(w, Ran::Saw(Seen { fault: Some(fault(100, "CUDA_ERROR_NO_DEVICE")), ..seen(0) }))
    }),
    Case("toolkit.smoke-reload", Fail, "takes GPUs away from a running container", |w| {
        let mut one = seen(2);
        one.devices[1].fault = Some(fault(999, "CUDA_ERROR_UNKNOWN"));
        after(w, Ran::Saw(one))
    }),
    Case("toolkit.smoke-reload", Fail, "did not end within", |w| after(w, Ran::Hung(120))),
    Case("toolkit.smoke-reload", Unknown, "C library", |w| {
        let Known::Ok(reload) = &mut w.facts.smoke_reload else { panic!("not looked at") };
        reload.before = Ran::CannotRun("no such file or directory".into());
    }),
    Case("toolkit.smoke-reload", Unknown, "Docker went away", |w| {
        w.facts.smoke_reload = Known::unknown("Docker went away")
    }),
    Case("toolkit.smoke-reload", NotApplicable, "not asked for", |w| {
        w.smoke = false;
        w.facts.smoke_reload = Known::default();
    }),
];

#[test]
fn nobody_asked_does_not_shut_the_gate_and_could_not_look_does() {
    let mut world = super::facts::world();
    world.facts.smoke = Known::default();
    let finding = world.finding("toolkit.smoke");
    assert!(finding.outcome == Unknown && finding.shuts_gate(), "{finding:?}");
    world.smoke = false;
    let finding = world.finding("toolkit.smoke");
    assert!(finding.outcome == Unknown && !finding.shuts_gate(), "{finding:?}");
    assert!(finding.because.contains("no container was started"), "{finding:?}");
}
