//! The script that loads engines, in containers of a real Docker daemon, run by a real Python. `torch` and the engines are played
//! by small modules in the image.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bedplate::{
    check::{
        Subject, judge_only,
        report::{Finding, Outcome},
    },
    docker::Gpus,
    host::{
        facts::{Facts, Known},
        smoke::{
            Lab,
            engine::{self, EngineSmoke, Ran, Seen},
        },
    },
    lock::LockedImage,
    profile::{
        Deployment,
        deployment::Engine,
        services::{Role, services},
    },
    system::files::Root,
};
use serde_json::{Value, json};

use crate::support::{
    docker::{Dockerd, load},
    python::python,
};

const TORCH: &str = include_str!("../../standin/engine/torch.py");
const EXTENSION: &str = include_str!("../../standin/engine/extension.py");
/// SGLang is started by `python`, vLLM by a program of its own.
const BY_ANOTHER_NAME: &str =
    "#!/usr/bin/python3\nimport os, sys\nos.execv('/usr/bin/python3', ['python3'] + sys.argv[1:])\n";
/// The modules that play, below `stand-in/`.
const MODULES: [(&str, &str); 10] = [
    ("torch.py", TORCH),
    ("vllm/__init__.py", "__version__ = '0.11.0'\n"),
    ("vllm/_C.py", EXTENSION),
    ("vllm/entrypoints/__init__.py", ""),
    ("vllm/entrypoints/openai/__init__.py", ""),
    ("vllm/entrypoints/openai/api_server.py", "import vllm._C\n"),
    ("sglang/__init__.py", ""),
    ("sglang/srt/__init__.py", ""),
    ("sglang/srt/server.py", ""),
    ("sgl_kernel.py", EXTENSION),
];

struct Bench {
    dockerd: Dockerd,
    root: Root,
    dir: tempfile::TempDir,
    image: LockedImage,
}

impl Bench {
    async fn new() -> Self {
        let dockerd = Dockerd::start().await;
        let held = python();
        let modules: Vec<String> = MODULES.iter().map(|(path, _)| format!("stand-in/{path}")).collect();
        let mut files: Vec<(&str, u32, &[u8])> =
            held.iter().map(|(path, content)| (path.as_str(), 0o755, content.as_slice())).collect();
        files.extend(
            modules.iter().zip(MODULES).map(|(path, (_, text))| (path.as_str(), 0o644, text.as_bytes())),
        );
        files.push(("usr/bin/python", 0o755, BY_ANOTHER_NAME.as_bytes()));
        let image = load(
            &dockerd.connect().await,
            ("vllm", "registry.example/vllm:1.0"),
            &files,
            &["vllm", "serve"],
            "4711",
        )
        .await;
        let (root, dir) = (Root::open(Path::new("/")).unwrap(), tempfile::tempdir().unwrap());
        Self { dockerd, root, dir, image }
    }

    async fn load(
        &self,
        image: &LockedImage,
        deployment: &Deployment,
        gpus: Option<&Gpus>,
        limit: u64,
    ) -> EngineSmoke {
        let docker = self.dockerd.connect().await;
        let place = self.dir.path().join("exec/engine-smoke.py");
        let service = services(deployment).into_iter().find(|service| service.role == Role::Engine).unwrap();
        let lab = Lab {
            docker: &docker,
            root: &self.root,
            key: "vllm",
            image,
            gpus,
            place: place.to_str().unwrap(),
            limit: Duration::from_secs(limit),
        };
        let loaded = engine::load(lab, deployment.engine, &service).await.unwrap();
        let left = docker.list_by_label("bedplate.smoke").await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        loaded
    }

    /// What comes of it, and what the check says.
    async fn tried(&self, play: &Value) -> (Ran, Finding) {
        let deployment = deployment(play);
        let loaded = self.load(&self.image, &deployment, None, 60).await;
        (loaded.ran.clone(), judged(&deployment, loaded))
    }

    async fn saw(&self, play: Value) -> (Seen, Finding) {
        match self.tried(&play).await {
            (Ran::Saw(seen), finding) => (seen, finding),
            (other, _) => panic!("{play}: {other:?}"),
        }
    }
}

/// The deployment, with modules that play.
fn deployment(play: &Value) -> Deployment {
    let mut deployment = super::deployment();
    deployment.env = BTreeMap::from([
        ("PYTHONPATH".to_owned(), "/stand-in".to_owned()),
        ("STAND_IN".to_owned(), play.to_string()),
    ]);
    deployment
}

fn judged(deployment: &Deployment, loaded: EngineSmoke) -> Finding {
    let profile = super::profile();
    let mut subject = Subject::new("tiny", &profile, None, vec![deployment]).unwrap();
    subject.wanted.engines = true;
    let engines = BTreeMap::from([(deployment.name.clone(), Known::Ok(loaded))]);
    let facts = Facts { engines, ..Facts::default() };
    judge_only(&["runtime.smoke"], &subject, &facts).findings.pop().unwrap()
}

/// One daemon and one image for all, and as few containers as tell the script's steps apart: what each answer means is tried
/// from facts (`src/check/tests`).
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_in_its_image() {
    let bench = Bench::new().await;
    loads_and_calculates(&bench).await;
    does_not_get_its_gpus(&bench).await;
    does_not_load(&bench).await;
    cannot_be_looked_at(&bench).await;
}

async fn loads_and_calculates(bench: &Bench) {
    let (seen, finding) = bench.saw(json!({})).await;
    assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
    assert_eq!((seen.count, seen.faults.as_slice()), (Some(2), [].as_slice()));
    let devices: Vec<_> = seen.devices.iter().map(|device| (device.capability, device.right)).collect();
    assert_eq!(devices, [(Some((9, 0)), Some(true)); 2]);
    assert_eq!(seen.modules, ["torch", "vllm", "vllm._C", "vllm.entrypoints.openai.api_server"]);
    assert_eq!((seen.torch.as_deref(), seen.cuda.as_deref()), (Some("2.8.0+cu128"), Some("12.8")));
    assert_eq!(seen.version.as_deref(), Some("0.11.0"));
    assert_eq!(seen.architectures, ["sm_80", "sm_90", "compute_90"]);
    assert!(seen.python.is_some_and(|version| version.starts_with("3.")));
}

async fn does_not_get_its_gpus(bench: &Bench) {
    // The other engine, of a version with another server, on a GPU that is wrong and alone.
    let mut other = deployment(&json!({ "devices": 1, "wrong": [0] }));
    other.engine = Engine::Sglang;
    let Ran::Saw(seen) = bench.load(&bench.image, &other, None, 60).await.ran else { panic!("not seen") };
    assert_eq!(seen.modules, ["torch", "sglang", "sgl_kernel", "sglang.srt.server"]);
    assert_eq!((seen.count, seen.devices[0].right, seen.faults.len()), (Some(1), Some(false), 0));

    let words = "CUDA error: no kernel image is available for execution on the device\nCompile with …";
    let (seen, finding) = bench.saw(json!({ "raises": { "0": words }, "missing": "libcudart.so.12" })).await;
    assert_eq!((seen.devices[0].right, seen.devices[1].right), (None, Some(true)));
    assert!(
        finding.because.contains("GPU 0 does not work in `vllm`: RuntimeError: CUDA error"),
        "{finding:?}"
    );
    // The server builds on the compiled part, and says the same.
    assert_eq!((seen.faults[0].at.as_str(), seen.faults.len()), ("import vllm._C", 2));
    assert_eq!(seen.modules, ["torch", "vllm"]);
    let cause = "because of OSError: libcudart.so.12: cannot open shared object file";
    assert!(seen.faults[0].words.contains(cause), "{seen:?}");

    let play = json!({ "init": "Error 802: system not yet initialized", "leaves": true, "release": null });
    let (seen, finding) = bench.saw(play).await;
    assert_eq!((seen.count, seen.devices.len(), seen.cuda.as_deref()), (None, 0, None));
    let kinds: Vec<_> =
        seen.faults.iter().map(|fault| (fault.at.as_str(), fault.kind.as_str())).take(2).collect();
    assert_eq!(kinds, [("CUDA", "RuntimeError"), ("import vllm._C", "SystemExit")]);
    assert!(finding.because.contains("built without CUDA"), "{finding:?}");
}

async fn does_not_load(bench: &Bench) {
    // No such module: a real one's absence.
    let mut bare = deployment(&json!({}));
    bare.env.clear();
    let loaded = bench.load(&bench.image, &bare, None, 60).await;
    let finding = judged(&bare, loaded);
    assert!(finding.because.contains("ModuleNotFoundError: No module named 'torch'"), "{finding:?}");
    assert!(finding.next.unwrap().contains("no whole image of vllm"));

    // Words without end, and lines as well: what was seen is still there, and short.
    let (seen, _) = bench.saw(json!({ "huge": true, "noise": 4_000_000 })).await;
    assert_eq!((seen.faults[0].kind.as_str(), seen.count), ("ImportError", Some(2)));
    assert!(seen.faults[0].words.chars().count() <= 301 && !seen.faults[0].words.contains('\u{1b}'));

    let (ran, finding) = bench.tried(&json!({ "crashes": true })).await;
    assert!(
        matches!(&ran, Ran::Ended { code: 132 | 134 | 139, at: Some(at), .. } if at == "import vllm._C"),
        "{ran:?}"
    );
    assert!(finding.because.contains(", SIG"), "{finding:?}");
}

async fn cannot_be_looked_at(bench: &Bench) {
    let hangs = deployment(&json!({ "hang": true }));
    let loaded = bench.load(&bench.image, &hangs, None, 30).await;
    assert_eq!(loaded.ran, Ran::Hung { seconds: 30, at: Some("CUDA".to_owned()) });
    assert_eq!(judged(&hangs, loaded).outcome, Outcome::Unknown);

    // An image without Python.
    let docker = bench.dockerd.connect().await;
    let empty: [(&str, u32, &[u8]); 1] = [("etc/image", 0o644, b"empty")];
    let empty = load(&docker, ("empty", "registry.example/empty:1.0"), &empty, &["/none"], "4711").await;
    let loaded = bench.load(&empty, &hangs, None, 60).await;
    assert!(matches!(loaded.ran, Ran::NoPython { starts: false, .. }), "{loaded:?}");

    // GPUs asked of an engine that has no way to give them.
    let loaded = bench.load(&bench.image, &hangs, Some(&Gpus::Nvidia(vec!["0".to_owned()])), 60).await;
    let Ran::Refused(words) = &loaded.ran else { panic!("{loaded:?}") };
    assert!(words.contains("could not select device driver"), "{words}");
    assert_eq!(judged(&hangs, loaded).outcome, Outcome::Fail);
}
