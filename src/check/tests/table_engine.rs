//! What an engine comes to in its own image: each way not to load, or not to get its GPUs.

#![allow(clippy::semicolon_if_nothing_returned)]

use super::{facts::World, table::Case, *};
use crate::{
    host::{
        facts::{FabricManager, Known},
        smoke::engine::{Complaint, EngineSmoke, Ran, Seen, Used},
    },
    profile::GpuAccess,
};

use Outcome::{Fail, NotApplicable, Pass, Skipped, Unknown};

/// What is seen where all is well.
fn seen(gpus: u32) -> Seen {
    Seen {
        python: Some("3.12.11".to_owned()),
        torch: Some("2.8.0+cu128".to_owned()),
        cuda: Some("12.8".to_owned()),
        architectures: ["sm_80", "sm_90", "sm_100", "compute_120"].map(str::to_owned).to_vec(),
        count: Some(gpus),
        devices: (0..gpus)
            .map(|index| Used {
                index,
                name: Some("NVIDIA H100 80GB HBM3".to_owned()),
                capability: Some((9, 0)),
                right: Some(true),
                fault: None,
            })
            .collect(),
        version: Some("0.11.0".to_owned()),
        missing: Vec::new(),
        modules: ["torch", "vllm", "vllm._C", "vllm.entrypoints.openai.api_server"]
            .map(str::to_owned)
            .to_vec(),
        faults: Vec::new(),
    }
}

pub(super) fn smoke(gpus: u32) -> Known<EngineSmoke> {
    Known::Ok(EngineSmoke { image: "vllm".to_owned(), ran: Ran::Saw(seen(gpus)) })
}

fn ran(w: &mut World, ran: Ran) {
    w.facts.engines.insert("qwen72b".into(), Known::Ok(EngineSmoke { image: "vllm".to_owned(), ran }));
}

fn saw(w: &mut World, change: impl Fn(&mut Seen)) {
    let Some(Known::Ok(EngineSmoke { ran: Ran::Saw(seen), .. })) = w.facts.engines.get_mut("qwen72b") else {
        panic!("nothing seen")
    };
    change(seen);
}

fn complaint(at: &str, kind: &str, words: &str) -> Complaint {
    Complaint { at: at.to_owned(), kind: kind.to_owned(), words: words.to_owned() }
}

/// A step that raised; what comes after it did not happen.
fn raised(w: &mut World, at: &str, kind: &str, words: &str) {
    saw(w, |seen| {
        seen.faults.push(complaint(at, kind, words));
        seen.modules.retain(|name| name == "torch" && at != "import torch");
        if at == "CUDA" {
            (seen.count, seen.devices) = (None, Vec::new());
        }
        if at == "import torch" {
            *seen = Seen { python: seen.python.clone(), faults: seen.faults.clone(), ..Seen::default() };
        }
    });
}

fn device(w: &mut World, index: usize, words: &str) {
    saw(w, |seen| {
        seen.devices[index].right = None;
        seen.devices[index].fault = Some(complaint(&format!("GPU {index}"), "RuntimeError", words));
    });
}

fn variable(w: &mut World, name: &str, value: &str) {
    w.deployments[0].env.insert(name.to_owned(), value.to_owned());
}

fn no_python(w: &mut World, program: &str, starts: bool) {
    let words = "executable file not found in $PATH".to_owned();
    ran(w, Ran::NoPython { program: program.to_owned(), starts, words });
}

pub(super) const CASES: &[Case] = &[
    Case("runtime.smoke", Fail, "does not start `vllm` with the deployment's GPUs: could not select", |w| {
        ran(w, Ran::Refused("could not select device driver \"nvidia\"".into()))
    }),
    Case("runtime.smoke", Unknown, "has no `python3` to look with", |w| no_python(w, "python3", false)),
    Case("runtime.smoke", Fail, "has no `python`, which starts the engine", |w| no_python(w, "python", true)),
    Case("runtime.smoke", Fail, "Python ended at `import vllm` in `vllm`: exit status 132, SIGILL", |w| {
        ran(w, Ran::Ended { code: 132, at: Some("import vllm".into()), words: String::new() })
    }),
    // Somebody's or the kernel's doing, not the image's.
    Case("runtime.smoke", Unknown, "exit status 137, SIGKILL", |w| {
        ran(w, Ran::Ended { code: 137, at: Some("import vllm".into()), words: "Killed".into() })
    }),
    Case("runtime.smoke", Fail, "exit status 3", |w| {
        ran(w, Ran::Ended { code: 3, at: Some("import torch".into()), words: "no".into() })
    }),
    Case("runtime.smoke", Unknown, "before its first step", |w| {
        ran(w, Ran::Ended { code: 1, at: None, words: "SyntaxError: invalid syntax".into() })
    }),
    Case("runtime.smoke", Unknown, "no answer that can be read", |w| {
        ran(w, Ran::Ended { code: 0, at: Some("import vllm".into()), words: "…".into() })
    }),
    Case("runtime.smoke", Unknown, "did not end within 300 s in `vllm`, at `import vllm`", |w| {
        ran(w, Ran::Hung { seconds: 300, at: Some("import vllm".into()) })
    }),
    Case("runtime.smoke", Unknown, "before its first step", |w| ran(w, Ran::Hung { seconds: 300, at: None })),
    Case("runtime.smoke", Unknown, "Docker went away", |w| {
        w.facts.engines.insert("qwen72b".into(), Known::unknown("Docker went away"));
    }),
    Case("runtime.smoke", Unknown, "nothing was looked at", |w| w.facts.engines.clear()),
    Case("runtime.smoke", Fail, "`import torch` fails in `vllm`: ModuleNotFoundError", |w| {
        raised(w, "import torch", "ModuleNotFoundError", "No module named 'torch'")
    }),
    Case("runtime.smoke", Fail, "`import torch` fails in `vllm`: ImportError: libcudart.so.12", |w| {
        raised(
            w,
            "import torch",
            "ImportError",
            "libcudart.so.12: cannot open shared object file: No such file",
        )
    }),
    Case("runtime.smoke", Fail, "`import vllm` fails", |w| {
        raised(w, "import vllm", "ModuleNotFoundError", "No module named 'vllm'")
    }),
    Case("runtime.smoke", Fail, "undefined symbol", |w| {
        raised(
            w,
            "import vllm._C",
            "ImportError",
            "/x/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
        )
    }),
    Case("runtime.smoke", Fail, "built without CUDA", |w| saw(w, |seen| seen.cuda = None)),
    Case("runtime.smoke", Fail, "CUDA does not start in `vllm`: Unexpected error", |w| {
        raised(
            w,
            "CUDA",
            "RuntimeError",
            "Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW",
        )
    }),
    Case("runtime.smoke", Fail, "CUDA does not start in `vllm`: The NVIDIA driver", |w| {
        raised(w, "CUDA", "RuntimeError", "The NVIDIA driver on your system is too old (found version 12020)")
    }),
    Case(
        "runtime.smoke",
        Fail,
        "has no code for GPU 0, of compute capability 12.0: it is built for sm_80, sm_90",
        |w| {
            saw(w, |seen| {
                seen.architectures.truncate(2);
                seen.devices[0].capability = Some((12, 0));
            });
            device(w, 0, "CUDA error: no kernel image is available for execution on the device");
        },
    ),
    // The list alone says it, where nothing was calculated.
    Case("runtime.smoke", Fail, "has no code for GPU 2", |w| {
        saw(w, |seen| {
            seen.architectures = vec!["sm_80".to_owned()];
            (seen.devices[2].capability, seen.devices[2].right) = (Some((10, 0)), None);
        })
    }),
    Case(
        "runtime.smoke",
        Fail,
        "GPU 1 does not work in `vllm`: RuntimeError: CUDA error: no kernel image",
        |w| {
            saw(w, |seen| seen.architectures.clear());
            device(w, 1, "CUDA error: no kernel image is available for execution on the device");
        },
    ),
    Case("runtime.smoke", Fail, "GPU 3 does not work", |w| {
        device(w, 3, "CUDA out of memory. Tried to allocate 20 MiB")
    }),
    Case("runtime.smoke", Fail, "GPU 1 calculated wrong", |w| {
        saw(w, |seen| seen.devices[1].right = Some(false))
    }),
    Case("runtime.smoke", Fail, "sees 1 of the 4 GPUs", |w| {
        saw(w, |seen| {
            seen.count = Some(1);
            seen.devices.truncate(1);
        })
    }),
    Case("runtime.smoke", Fail, "sees 0 of the 4 GPUs", |w| {
        saw(w, |seen| (seen.count, seen.devices) = (Some(0), Vec::new()))
    }),
    Case("runtime.smoke", Unknown, "only 3 were calculated on", |w| {
        saw(w, |seen| seen.devices[3].right = None)
    }),
    Case("runtime.smoke", Unknown, "only 2 were calculated on", |w| saw(w, |seen| seen.devices.truncate(2))),
    // One that it does not shard over.
    Case("runtime.smoke", Pass, "calculates right on 3 GPUs", |w| {
        w.deployments[0].tensor_parallel = 2;
        saw(w, |seen| seen.devices[3].right = Some(false));
    }),
    Case("runtime.smoke", Unknown, "was not imported", |w| saw(w, |seen| seen.modules.clear())),
    // A version that has none of the parts we know.
    Case("runtime.smoke", Unknown, "no compiled code of vllm", |w| {
        saw(w, |seen| seen.missing = vec!["compiled code".to_owned()])
    }),
    // More GPUs than it shards over.
    Case("runtime.smoke", Pass, "4 GPUs; `tensor_parallel` wants 2", |w| {
        w.deployments[0].tensor_parallel = 2
    }),
    Case("runtime.smoke", NotApplicable, "no GPUs", |w| w.profile.container.gpu_access = GpuAccess::None),
    Case("runtime.smoke", NotApplicable, "no deployment", |w| w.deployments.clear()),
];

#[test]
fn nobody_asked_does_not_shut_the_gate_and_could_not_look_does() {
    let mut world = super::facts::world();
    world.facts.engines.clear();
    let finding = world.finding("runtime.smoke");
    assert!(finding.outcome == Unknown && finding.shuts_gate(), "{finding:?}");
    world.smoke = false;
    let finding = world.finding("runtime.smoke");
    assert!(finding.outcome == Unknown && !finding.shuts_gate(), "{finding:?}");
    assert_eq!(finding.next.as_deref(), Some("`bedplate runtime prepare --engine vllm --smoke-test`"));
    // Nobody asked in the layer below either.
    world.facts.smoke = Known::default();
    assert!(world.report(&crate::check::up_to(Layer::Runtime)).opens_gate());
}

#[test]
fn the_lowest_layer_is_blamed() {
    let mut world = super::facts::world();
    raised(&mut world, "CUDA", "RuntimeError", "Unexpected error. Error 802: system not yet initialized");
    let layers = crate::check::up_to(Layer::Runtime);
    assert_eq!(world.report(&layers).layer_to_blame(), Some(Layer::Runtime));
    // Where the probe says so already, the image is not looked at.
    world.facts.smoke = Known::unknown("no");
    let report = world.report(&layers);
    assert_eq!(report.layer_to_blame(), Some(Layer::Toolkit));
    let engine = report.findings.iter().find(|finding| finding.id == "runtime.smoke").unwrap();
    assert_eq!((engine.outcome, engine.because.as_str()), (Skipped, "skipped: `toolkit.smoke` is unknown"));
}

#[test]
fn a_known_symptom_is_diagnosed_by_facts() {
    let mut world = super::facts::world();
    raised(&mut world, "CUDA", "RuntimeError", "Unexpected error. Error 802: system not yet initialized");
    if let Known::Ok(manager) = &mut world.facts.fabric {
        *manager = FabricManager { process: None, ..manager.clone() };
    }
    let finding = world.finding("runtime.smoke");
    assert!(finding.next.as_ref().unwrap().contains("nvidia-fabricmanager"), "{finding:?}");
    assert!(finding.evidence.iter().any(|line| line.contains("to blame: the host")), "{finding:?}");

    let mut world = super::facts::world();
    saw(&mut world, |seen| seen.architectures.clear());
    device(&mut world, 0, "CUDA error: no kernel image is available for execution on the device");
    let finding = world.finding("runtime.smoke");
    assert_eq!(finding.next.as_deref(), Some("lock an image that was built for compute capability 9.0"));
}

#[test]
fn the_hint_is_about_what_is_missing() {
    let next = |change: fn(&mut World)| {
        let mut world = super::facts::world();
        change(&mut world);
        let finding = world.finding("runtime.smoke");
        assert_eq!(finding.outcome, Fail, "{finding:?}");
        finding.next.unwrap()
    };
    let library = |w: &mut World, name: &str| {
        raised(
            w,
            "import vllm._C",
            "ImportError",
            &format!("{name}: cannot open shared object file: No such file or directory"),
        );
    };
    for (change, says) in [
        (
            (|w| raised(w, "import vllm", "ModuleNotFoundError", "No module named 'vllm'")) as fn(&mut World),
            "no whole image of vllm",
        ),
        (|w| raised(w, "import vllm._C", "ImportError", "undefined symbol: x"), "lock another tag"),
        (|w| raised(w, "CUDA", "RuntimeError", "The NVIDIA driver on your system is too old"), "image.cuda"),
        (|w| saw(w, |seen| seen.count = Some(1)), "`gpu_ids`"),
        (
            |w| {
                variable(w, "CUDA_VISIBLE_DEVICES", "0");
                saw(w, |seen| seen.count = Some(1));
            },
            "remove `CUDA_VISIBLE_DEVICES`",
        ),
        (
            |w| {
                variable(w, "PYTHONPATH", "/opt/mine");
                raised(w, "import vllm", "ImportError", "cannot import name 'x'");
            },
            "remove `PYTHONPATH` from `env` of the deployment `qwen72b`",
        ),
    ] {
        assert!(next(change).contains(says), "{says}: {}", next(change));
    }
    for (name, says) in
        [("libcuda.so.1", "the driver's"), ("libnvrtc.so.12", "the image has no `libnvrtc.so.12`")]
    {
        let mut world = super::facts::world();
        library(&mut world, name);
        let found = world.finding("runtime.smoke").next.unwrap();
        assert!(found.contains(says), "{name}: {found}");
    }
}

#[test]
fn the_worst_of_several_deployments_decides() {
    let mut world = super::facts::world();
    let mut other = world.deployments[0].clone();
    other.name = "other".to_owned();
    world.deployments.push(other);
    world.facts.engines.insert("other".to_owned(), smoke(4));
    let pass = world.finding("runtime.smoke");
    assert_eq!(pass.outcome, Pass, "{pass:?}");
    assert_eq!(pass.evidence.iter().filter(|line| line.starts_with("GPU ")).count(), 8);
    world.facts.engines.remove("other");
    assert_eq!(world.finding("runtime.smoke").outcome, Unknown);
    saw(&mut world, |seen| seen.devices[1].right = Some(false));
    assert_eq!(world.finding("runtime.smoke").outcome, Fail);
}
