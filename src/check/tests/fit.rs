//! `deploy.fit`: each way not to fit, and that doing what the finding says makes it fit.

use proptest::prelude::*;

use super::{facts::*, table::Case, *};
use crate::{host::facts::*, profile::deployment::GpuIds};
use Outcome::{Fail, NotApplicable, Pass, Unknown, Warn};

fn model(world: &mut World) -> &mut Model {
    world.facts.models.get_mut("qwen72b").unwrap()
}

fn shape_of(world: &mut World) -> &mut Shape {
    match &mut model(world).shape {
        Known::Ok(shape) => shape,
        Known::Unknown { .. } => panic!("no shape"),
    }
}

fn args(world: &mut World, args: &[&str]) {
    world.deployments[0].extra_args = args.iter().map(|text| (*text).to_owned()).collect();
}

/// The model is on the hub alone, which says this.
fn on_hub(world: &mut World, hub: Known<Hub>) {
    *model(world) = Model {
        local: Known::Ok(None),
        hub,
        shape: Known::unknown("the model is not on the host"),
        weights: Known::unknown("the model is not on the host"),
    };
}

pub(super) const CASES: &[Case] = &[
    Case("deploy.fit", Fail, "shards over 16 GPUs and gets 8", |w| {
        w.deployments[0].gpu_ids = GpuIds::All;
        w.deployments[0].tensor_parallel = 16;
    }),
    Case("deploy.fit", Fail, "shards over 4 GPUs in 3 stages and gets 4", |w| args(w, &["-pp", "3"])),
    Case("deploy.fit", Fail, "wants GPU 3", |w| w.facts.nvml = Known::Ok(Nvml::Answers(gpus(3)))),
    Case("deploy.fit", Fail, "the 64 attention heads", |w| w.deployments[0].tensor_parallel = 3),
    Case("deploy.fit", Fail, "the 5 key and value heads", |w| {
        shape_of(w).kept = Kept::Heads { heads: 5, width: 128 };
    }),
    Case("deploy.fit", Fail, "weights of `qwen72b` are 400.0 GiB, 100.0 GiB on each of 4 GPUs", |w| {
        model(w).weights = Known::Ok(400 * GIB);
    }),
    // 72 GiB less 35 of weights and 2 beside; 81,920 bytes a token on each GPU: 80 GiB.
    Case("deploy.fit", Fail, "one sequence of 1048576 tokens takes 80.0 GiB of cache on each GPU", |w| {
        w.deployments[0].max_model_len = Some(1 << 20);
        shape_of(w).longest = Some(1 << 20);
    }),
    // 35 + 2 + 30 GiB of 72.
    Case("deploy.fit", Warn, "may not fit, by an estimate within 10 %", |w| {
        w.deployments[0].max_model_len = Some(393_216);
        shape_of(w).longest = Some(1 << 20);
    }),
    Case("deploy.fit", Fail, "has 80 layers for 96 stages", |w| {
        args(w, &["-pp", "96"]);
        w.deployments[0].tensor_parallel = 1;
        w.deployments[0].gpu_ids = GpuIds::All;
        w.facts.nvml = Known::Ok(Nvml::Answers(gpus(96)));
    }),
    Case(
        "deploy.fit",
        Fail,
        "asks for 65536 tokens, and the model was made for 32768: the engine refuses",
        |w| {
            w.deployments[0].max_model_len = Some(65_536);
        },
    ),
    Case("deploy.fit", Warn, "`VLLM_ALLOW_LONG_MAX_MODEL_LEN` lets the engine start", |w| {
        w.deployments[0].max_model_len = Some(65_536);
        w.deployments[0].env.insert("VLLM_ALLOW_LONG_MAX_MODEL_LEN".into(), "1".into());
    }),
    // SGLang starts, and refuses what does not fit.
    Case("deploy.fit", Warn, "cannot serve its longest texts", |w| {
        w.deployments[0].engine = crate::profile::deployment::Engine::Sglang;
        shape_of(w).longest = Some(1 << 20);
    }),
    Case("deploy.fit", Pass, "", |w| args(w, &["--max-model-len", "auto"])),
    Case("deploy.fit", Unknown, "hung", |w| w.facts.nvml = Known::unknown("hung")),
    Case("deploy.fit", Unknown, "NVML does not answer", |w| w.facts.nvml = Known::Ok(Nvml::DriverNotLoaded)),
    Case("deploy.fit", Unknown, "how much its cache takes is not known: it has mambas", |w| {
        shape_of(w).kept = Kept::Unknown { why: "it has mambas".into() };
    }),
    Case("deploy.fit", Unknown, "says how long a text may be", |w| shape_of(w).longest = None),
    Case("deploy.fit", Unknown, "`num_hidden_layers` of `config.json` is 0", |w| {
        model(w).shape = Known::unknown("`num_hidden_layers` of `config.json` is 0");
    }),
    Case("deploy.fit", Unknown, "are not whole", |w| model(w).weights = Known::unknown("they are not whole")),
    Case("deploy.fit", Unknown, "`--cpu-offload-gb` in `extra_args`", |w| {
        args(w, &["--cpu-offload-gb", "9"]);
    }),
    Case("deploy.fit", Unknown, "GPU 0 is divided", |w| {
        if let Known::Ok(Nvml::Answers(gpus)) = &mut w.facts.nvml {
            gpus.devices[0].mig = Some(true);
        }
    }),
    Case("deploy.fit", Unknown, "how much memory GPU 2 has", |w| {
        if let Known::Ok(Nvml::Answers(gpus)) = &mut w.facts.nvml {
            gpus.devices[2].memory = None;
        }
    }),
    Case("deploy.fit", Unknown, "it is gated, and no token was sent", |w| on_hub(w, Known::Ok(Hub::Gated))),
    Case("deploy.fit", Unknown, "did not accept its licence", |w| on_hub(w, Known::Ok(Hub::Forbidden))),
    Case("deploy.fit", Unknown, "private, or does not exist", |w| on_hub(w, Known::Ok(Hub::TokenNeeded))),
    Case("deploy.fit", Unknown, "refuses the token", |w| on_hub(w, Known::Ok(Hub::TokenRejected))),
    Case("deploy.fit", Unknown, "has no such model", |w| on_hub(w, Known::Ok(Hub::NotFound))),
    Case("deploy.fit", Unknown, "no network", |w| on_hub(w, Known::unknown("no network"))),
    Case("deploy.fit", NotApplicable, "", |w| w.deployments.clear()),
];

/// The numbers that a finding says to write, by their fields.
fn written(next: &str) -> Vec<(&str, u64)> {
    let parts = next.split('`').filter_map(|part| part.split_once(": "));
    parts.filter_map(|(field, number)| Some((field, number.parse().ok()?))).collect()
}

#[test]
fn an_estimate_that_cannot_be_made_does_not_shut_the_gate() {
    let mut world = world();
    on_hub(&mut world, Known::Ok(Hub::Gated));
    let finding = world.finding("deploy.fit");
    assert!(!finding.shuts_gate(), "{finding:?}");
    let found = world.facts.names["time.example"].clone();
    world.facts.names.insert("huggingface.co".into(), found);
    // What the model lacks is then said where it is judged, not hidden behind this.
    let report = world.report(&[Layer::Doctor, Layer::Toolkit, Layer::Runtime]);
    let token = report.findings.iter().find(|finding| finding.id == "runtime.hf-token").unwrap();
    assert_eq!(token.outcome, Fail, "{token:?}");
    assert!(token.because.contains("gated"), "{token:?}");
    // GPUs that could not be counted do.
    world.facts.nvml = Known::unknown("hung");
    assert!(world.finding("deploy.fit").shuts_gate());
}

#[test]
fn more_gpus_than_there_are_is_said() {
    let mut world = world();
    model(&mut world).weights = Known::Ok(900 * GIB);
    let next = world.finding("deploy.fit").next.unwrap();
    assert_eq!(
        next,
        "use a quantised or smaller model; `tensor_parallel: 16` would fit on 16 such GPUs (8 here)"
    );
    model(&mut world).weights = Known::Ok(400 * GIB);
    let next = world.finding("deploy.fit").next.unwrap();
    assert_eq!(next, "write `tensor_parallel: 8` with 8 GPUs in `gpu_ids` in `qwen72b.yaml`");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn doing_what_the_finding_says_makes_it_fit(
        weights in 1_u64..700, context in 1_u64..4_000_000, memory in 8_u64..200,
        tensor in prop::sample::select(vec![1_u32, 2, 4, 8]), sglang: bool,
    ) {
        let mut broken = world();
        let deployment = &mut broken.deployments[0];
        deployment.gpu_ids = GpuIds::All;
        deployment.tensor_parallel = tensor;
        deployment.max_model_len = Some(context);
        if sglang {
            deployment.engine = crate::profile::deployment::Engine::Sglang;
        }
        model(&mut broken).weights = Known::Ok(weights * GIB);
        shape_of(&mut broken).longest = Some(4_000_000);
        if let Known::Ok(Nvml::Answers(gpus)) = &mut broken.facts.nvml {
            for device in &mut gpus.devices {
                device.memory = Some(memory * GIB);
            }
        }
        let finding = broken.finding("deploy.fit");
        prop_assert!(matches!(finding.outcome, Pass | Warn | Fail), "{:?}", finding);
        let Some(next) = finding.next.as_deref().filter(|next| next.starts_with("write ")) else {
            return Ok(());
        };
        let ways = written(next);
        prop_assert!(!ways.is_empty(), "{}", next);
        for (field, number) in ways {
            let mut mended = broken.clone();
            match field {
                "tensor_parallel" => mended.deployments[0].tensor_parallel = number.try_into().unwrap(),
                "max_model_len" => mended.deployments[0].max_model_len = Some(number),
                _ => prop_assert!(false, "{}", next),
            }
            let after = mended.finding("deploy.fit");
            prop_assert_eq!(after.outcome, Pass, "{}: {} {:?}", next, after.because, after.evidence);
        }
    }
}
