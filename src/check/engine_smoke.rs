//! Layer 3: what an engine comes to in its own image.

use super::{
    diagnosis::{self, Diagnosis},
    registry::{Check, check, on_gpus},
    report::{Layer, Outcome},
    smoke,
    subject::Subject,
    verdict::Verdict,
};
use crate::{
    host::{
        facts::{Facts, looked_up},
        smoke::engine::{Complaint, EngineSmoke, Ran, Seen, Used},
    },
    profile::Deployment,
};

pub(super) const ENGINE: Check = on_gpus(
    check(
        "runtime.smoke",
        Layer::Runtime,
        judge,
        [
            "with `runtime prepare --smoke-test`: a container of the deployment's locked engine image, by digest, with its GPUs and its `env`, without secrets, volumes and network; the image's own Python imports `torch` and the engine, and calculates on each GPU",
            "an image may hold an engine that does not load, or no code for these GPUs: a start says so after minutes, in the midst of a long log",
            "mend what the finding names; then `bedplate runtime prepare --engine … --smoke-test`",
        ],
    ),
    &["image.locked", "image.present", "image.platform", "image.cuda"],
);

/// Variables that have Python or the loader take other files than the image means.
const BENT: [&str; 4] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME"];
const BY_UP: &str = "`bedplate up` starts the engine, and its log says whether it loads";
const OTHER_TAG: &str = "lock another tag of the image, or mend how it was made";

fn judge(subject: &Subject<'_>, facts: &Facts) -> Verdict {
    if let Some(none) = smoke::none(subject) {
        return none;
    }
    let rank = |verdict: &Verdict| match verdict.outcome {
        Outcome::Fail => 0,
        Outcome::Unknown if !verdict.tolerated => 1,
        Outcome::Unknown => 2,
        _ => 3,
    };
    let all = subject.deployments.iter().map(|deployment| one(subject, facts, deployment));
    let worst = all.reduce(|mut worst, other| {
        if rank(&other) < rank(&worst) {
            return other;
        }
        if worst.outcome == Outcome::Pass {
            worst.evidence.extend(other.evidence);
        }
        worst
    });
    worst.unwrap_or_else(|| Verdict::not_applicable("no deployment was given"))
}

/// A deployment, its engine's image, and what they are judged by.
struct Case<'a> {
    subject: &'a Subject<'a>,
    facts: &'a Facts,
    deployment: &'a Deployment,
    image: &'a str,
}

fn one(subject: &Subject<'_>, facts: &Facts, deployment: &Deployment) -> Verdict {
    let EngineSmoke { image, ran } = match looked_up(&facts.engines, &deployment.name) {
        Ok(smoke) => smoke,
        // Nobody asked for it: `up` starts the engine itself.
        Err(_) if !subject.wanted.engines => {
            return Verdict::unknown("no container was started")
                .next(format!(
                    "`bedplate runtime prepare --engine {} --smoke-test`",
                    deployment.engine.name()
                ))
                .tolerated();
        }
        Err(why) => return Verdict::unknown(why),
    };
    let case = Case { subject, facts, deployment, image };
    let step = |at: &Option<String>| {
        at.as_deref().map_or("before its first step".to_owned(), |at| format!("at `{at}`"))
    };
    match ran {
        Ran::Saw(seen) => case.saw(seen),
        Ran::Refused(words) => {
            Verdict::fail(format!("Docker does not start `{image}` with the deployment's GPUs: {words}"))
                .told(case.known(words, None).as_ref(), "`journalctl -u docker -n 20`")
        }
        Ran::NoPython { program, starts: true, words } => {
            Verdict::fail(format!("image `{image}` has no `{program}`, which starts the engine"))
                .saw(words)
                .next(case.no_whole_image())
        }
        Ran::NoPython { program, words, .. } => {
            Verdict::unknown(format!("image `{image}` has no `{program}` to look with"))
                .saw(words)
                .next(BY_UP)
        }
        Ran::Ended { code: code @ (130 | 137 | 143), at, words } => {
            let how = ended(*code);
            let verdict = Verdict::unknown(format!("Python was ended from outside {} in `{image}`: {how}", step(at)));
            verdict
                .said(words)
                .next("`dmesg | grep -i 'out of memory'` shows whether the kernel did it: then free memory, and try again")
        }
        Ran::Ended { code, at: at @ Some(_), words } if *code != 0 => {
            let how = ended(*code);
            let verdict = Verdict::fail(format!("Python ended {} in `{image}`: {how}", step(at)))
                .said(words);
            verdict.told(case.known(words, Some(*code)).as_ref(), case.bent().unwrap_or_else(|| OTHER_TAG.to_owned()))
        }
        Ran::Ended { code, at, words } => {
            Verdict::unknown(format!("Python ended {} in `{image}` with exit status {code}, and no answer that can be read", step(at)))
                .said(words)
                .next(BY_UP)
        }
        Ran::Hung { seconds, at } => {
            Verdict::unknown(format!("Python did not end within {seconds} s in `{image}`, {}", step(at)))
                .saw(format!("image `{image}`"))
                .next("try again, since a first read of a large image takes long; `dmesg | grep -i xid` shows a GPU that hangs")
        }
    }
}

/// An exit status above 128 is a signal's number and 128 (POSIX shells; Docker does the same).
fn ended(code: i64) -> String {
    let signal = match code {
        132 => "SIGILL: the image is built for another processor",
        134 => "SIGABRT",
        135 => "SIGBUS: `/dev/shm` or a file ended early",
        130 => "SIGINT",
        137 => "SIGKILL: out of memory, mostly",
        143 => "SIGTERM",
        139 => "SIGSEGV",
        _ => return format!("exit status {code}"),
    };
    format!("exit status {code}, {signal}")
}

impl Case<'_> {
    /// The symptom in these words, and its causes.
    fn known(&self, words: &str, exit: Option<i64>) -> Option<Diagnosis> {
        let service = &self.deployment.name;
        let seen = diagnosis::Seen { service, error: Some(words), exit, ..diagnosis::Seen::default() };
        diagnosis::diagnose(self.subject, self.facts, seen)
    }

    /// What to take out of the deployment's `env`, where that may be what keeps the engine from loading.
    fn bent(&self) -> Option<String> {
        let name = BENT.iter().find(|name| self.deployment.env.contains_key(**name))?;
        Some(format!(
            "remove `{name}` from `env` of the deployment `{}`, and try again",
            self.deployment.name
        ))
    }

    fn no_whole_image(&self) -> String {
        format!(
            "`{}` is no whole image of {}: give the deployment one that is, then `bedplate lock` and `bedplate provision`",
            self.image,
            self.deployment.engine.name()
        )
    }

    /// From what is looked at first to what builds on it.
    fn saw(&self, seen: &Seen) -> Verdict {
        let image = self.image;
        let at = |step: &str| seen.faults.iter().find(|fault| fault.at == step);
        if let Some(fault) = at("import torch") {
            return with(seen, self.not_loaded(fault));
        }
        if seen.torch.is_some() && seen.cuda.is_none() {
            return with(seen, Verdict::fail(format!("`torch` in `{image}` is built without CUDA")))
                .next("lock an image of the engine that is built for CUDA");
        }
        if let Some(fault) = at("CUDA") {
            let words = &fault.words;
            let otherwise = if words.contains("driver on your system is too old") {
                "`bedplate explain image.cuda`: lock an image for this driver, or a newer driver"
            } else {
                "`bedplate toolkit verify --smoke-test` tells whether CUDA starts in a container at all"
            };
            return with(seen, Verdict::fail(format!("CUDA does not start in `{image}`: {words}")))
                .told(self.known(words, None).as_ref(), otherwise);
        }
        if let Some(verdict) = self.devices(seen) {
            return with(seen, verdict);
        }
        if let Some(fault) = seen.faults.first() {
            return with(seen, self.not_loaded(fault));
        }
        let engine = self.deployment.engine.name();
        if !seen.modules.iter().any(|module| module == engine) {
            return with(
                seen,
                Verdict::unknown(format!("`{engine}` was not imported in `{image}`, and nothing says why")),
            );
        }
        let version = seen.version.as_deref().unwrap_or("of unknown version");
        if let Some(kind) = seen.missing.first() {
            let verdict = Verdict::unknown(format!(
                "`{image}` has no {kind} of {engine} {version} under a name that is known here: only its package was imported"
            ));
            return with(seen, verdict).next(BY_UP).tolerated();
        }
        with(
            seen,
            Verdict::pass(format!(
                "{engine} {version} loads in `{image}`, which calculates right on {}; `tensor_parallel` wants {}",
                gpus(seen.devices.iter().filter(|device| device.right == Some(true)).count()),
                self.deployment.tensor_parallel
            )),
        )
    }

    /// What is wrong with the devices; none where all that are needed work: an engine takes the first ones. How the others are
    /// stands in the evidence.
    fn devices(&self, seen: &Seen) -> Option<Verdict> {
        let image = self.image;
        let wanted = self.deployment.tensor_parallel;
        let needed = || seen.devices.iter().filter(|device| device.index < wanted);
        for device in needed() {
            let index = device.index;
            if device.right != Some(true)
                && let Some((major, minor)) = device.capability
                && covers(&seen.architectures, (major, minor)) == Some(false)
            {
                let verdict = Verdict::fail(format!(
                    "`{image}` has no code for GPU {index}, of compute capability {major}.{minor}: it is built for {}",
                    seen.architectures.join(", ")
                ));
                return Some(
                    verdict
                        .next(format!("lock an image that was built for compute capability {major}.{minor}")),
                );
            }
            if let Some(fault) = &device.fault {
                let words = &fault.words;
                let verdict =
                    Verdict::fail(format!("GPU {index} does not work in `{image}`: {}: {words}", fault.kind));
                return Some(verdict.told(
                    self.known(words, None).as_ref(),
                    "`bedplate toolkit verify --smoke-test` tells whether the GPU works in a container at all",
                ));
            }
            if device.right == Some(false) {
                return Some(
                    Verdict::fail(format!("GPU {index} calculated wrong with `{image}`"))
                        .next("`bedplate toolkit verify --smoke-test`: where it calculates wrong as well, replace the card (`nvidia-smi -q -d ECC`)"),
                );
            }
        }
        let count = seen.count.unwrap_or(0);
        if count < wanted {
            return Some(
                Verdict::fail(format!(
                    "`torch` in `{image}` sees {count} of the {wanted} GPUs that `tensor_parallel` wants"
                ))
                .next(self.fewer()),
            );
        }
        let used = needed().filter(|device| device.right == Some(true)).count();
        (used < usize::try_from(wanted).unwrap_or(usize::MAX)).then(|| {
            Verdict::unknown(format!(
                "of the {wanted} GPUs that `tensor_parallel` wants, only {used} were calculated on in `{image}`"
            ))
        })
    }

    /// Why a container may see fewer GPUs than the host has.
    fn fewer(&self) -> String {
        let name = &self.deployment.name;
        if self.deployment.env.contains_key("CUDA_VISIBLE_DEVICES") {
            return format!("remove `CUDA_VISIBLE_DEVICES` from `env` of the deployment `{name}`");
        }
        format!(
            "name as many GPUs in `gpu_ids` of the deployment `{name}`; `bedplate toolkit verify --smoke-test` tells whether a container gets them all; with MIG a program sees one"
        )
    }

    /// A module that cannot be imported.
    fn not_loaded(&self, fault: &Complaint) -> Verdict {
        let Complaint { at, kind, words } = fault;
        let (image, engine) = (self.image, self.deployment.engine.name());
        let verdict = Verdict::fail(format!("`{at}` fails in `{image}`: {kind}: {words}"));
        let known = self.known(words, None);
        let missing = words.split_once(": cannot open shared object file").map(|(before, _)| before);
        let library = missing.and_then(|before| before.rsplit(' ').next());
        let otherwise = match library {
            _ if self.bent().is_some() => self.bent().unwrap_or_default(),
            Some(library) if library.starts_with("libcuda.so") || library.starts_with("libnvidia-") => {
                format!(
                    "`{library}` is the driver's, and comes in with the GPUs: `bedplate explain toolkit.wiring`"
                )
            }
            Some(library) => format!("the image has no `{library}`: {OTHER_TAG}"),
            None if kind == "ModuleNotFoundError"
                && (at == "import torch" || *at == format!("import {engine}")) =>
            {
                self.no_whole_image()
            }
            None => OTHER_TAG.to_owned(),
        };
        verdict.told(known.as_ref(), otherwise)
    }
}

/// Whether code for these architectures runs on a GPU of this compute capability; none where nothing is known of them.
///
/// `sm_XY` runs on X.Z where Z ≥ Y; `compute_XY` is compiled by the driver for whatever is newer; what ends in `a` runs on
/// that one only, in `f` on its family (CUDA C++ Programming Guide, "Compute Capabilities"; NVCC, "GPU Feature List").
fn covers(architectures: &[String], (major, minor): (u32, u32)) -> Option<bool> {
    let mut any = None;
    for name in architectures {
        let (family, number) = match name.split_once('_') {
            Some(("sm", number)) => (true, number),
            Some(("compute", number)) => (false, number),
            _ => continue,
        };
        let digits = number.trim_end_matches(['a', 'f']);
        let Ok(value) = digits.parse::<u32>() else { continue };
        let built = (value / 10, value % 10);
        let runs = if number.ends_with('a') {
            built == (major, minor)
        } else if family || number.ends_with('f') {
            built.0 == major && built.1 <= minor
        } else {
            built <= (major, minor)
        };
        any = Some(any == Some(true) || runs);
    }
    any
}

fn gpus(count: usize) -> String {
    format!("{count} GPU{}", if count == 1 { "" } else { "s" })
}

/// With all that was seen.
fn with(seen: &Seen, mut verdict: Verdict) -> Verdict {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    verdict.evidence.push(format!(
        "Python {}, torch {} for CUDA {}",
        or_none(&seen.python),
        or_none(&seen.torch),
        or_none(&seen.cuda)
    ));
    if !seen.architectures.is_empty() {
        verdict.evidence.push(format!("built for {}", seen.architectures.join(", ")));
    }
    if !seen.modules.is_empty() {
        verdict.evidence.push(format!("imported: {}", seen.modules.join(", ")));
    }
    verdict.evidence.extend(seen.devices.iter().map(line));
    verdict
}

fn line(device: &Used) -> String {
    let result = match device.right {
        Some(true) => "calculated right",
        Some(false) => "calculated wrong",
        None => "nothing was calculated",
    };
    smoke::device_line(device.index, device.name.as_deref(), device.capability, result)
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn code_runs_on_what_it_is_built_for() {
        let of = |names: &[&str], capability| {
            covers(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), capability)
        };
        assert_eq!(of(&["sm_80", "sm_90"], (9, 0)), Some(true));
        assert_eq!(of(&["sm_80"], (8, 9)), Some(true));
        assert_eq!(of(&["sm_86"], (8, 0)), Some(false));
        assert_eq!(of(&["sm_80", "sm_90"], (12, 0)), Some(false));
        assert_eq!(of(&["sm_80", "compute_80"], (12, 0)), Some(true));
        assert_eq!(of(&["compute_90"], (8, 9)), Some(false));
        assert_eq!(of(&["sm_90a"], (9, 0)), Some(true));
        assert_eq!(of(&["sm_100a"], (10, 3)), Some(false));
        assert_eq!(of(&["sm_100f"], (10, 3)), Some(true));
        assert_eq!(of(&["compute_90a"], (10, 0)), Some(false));
        assert_eq!(of(&[], (9, 0)), None);
        assert_eq!(of(&["gfx942", "sm_x", "sm_"], (9, 0)), None);
    }
}
