//! What the script's end and words mean.

use std::time::Duration;

use serde::Deserialize;

use super::{
    super::{container::Said, reading::short},
    Complaint, Ran, Seen, Used,
};

/// Version of what the script prints.
const SCHEMA: u64 = 1;
/// The most devices, architectures, modules and exceptions that are kept.
const MOST: usize = 64;

/// A line of the script's: a step with its name, or the answer without.
#[derive(Deserialize)]
struct Line {
    schema: u64,
    at: Option<String>,
}

/// From what a container said, and whether it ended in time.
pub(super) fn ran(said: &Said, limit: Duration) -> Ran {
    let mut at = None;
    for text in said.out.lines() {
        match serde_json::from_str::<Line>(text) {
            Ok(Line { schema: SCHEMA, at: Some(step) }) => at = Some(short(&step)),
            Ok(Line { schema: SCHEMA, at: None }) => {
                if let Ok(seen) = serde_json::from_str(text) {
                    return Ran::Saw(bounded(seen));
                }
            }
            _ => {}
        }
    }
    let Some(code) = said.code else { return Ran::Hung { seconds: limit.as_secs(), at } };
    let last = |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(short);
    let words = last(&said.err).or_else(|| last(&said.out)).unwrap_or_default();
    Ran::Ended { code, at, words }
}

/// Docker's words for a start that failed: there is no such program in the image, or GPUs cannot be given.
/// `starts`: whether the engine is started by it. runc: `exec: "python3": executable file not found in $PATH`; crun: "executable file `python3` not found".
pub(super) fn refused(python: &str, starts: bool, words: &str) -> Ran {
    let named = [format!("exec: \"{python}\""), format!("executable file `{python}`")];
    let missing = ["not found", "no such file or directory"];
    let lower = words.to_lowercase();
    if named.iter().any(|name| words.contains(name)) && missing.iter().any(|sign| lower.contains(sign)) {
        Ran::NoPython { program: python.to_owned(), starts, words: short(words) }
    } else {
        Ran::Refused(short(words))
    }
}

/// What a container says of itself, printable and cut.
fn bounded(seen: Seen) -> Seen {
    let one = |text: Option<String>| text.map(|text| short(&text));
    let all = |mut texts: Vec<String>| {
        texts.truncate(MOST);
        texts.iter().map(|text| short(text)).collect()
    };
    let Seen {
        python,
        torch,
        cuda,
        architectures,
        count,
        mut devices,
        version,
        modules,
        missing,
        mut faults,
    } = seen;
    devices.truncate(MOST);
    faults.truncate(MOST);
    Seen {
        python: one(python),
        torch: one(torch),
        cuda: one(cuda),
        architectures: all(architectures),
        count,
        devices: devices
            .into_iter()
            .map(|device| Used { name: one(device.name), fault: device.fault.map(complaint), ..device })
            .collect(),
        version: one(version),
        modules: all(modules),
        missing: all(missing),
        faults: faults.into_iter().map(complaint).collect(),
    }
}

fn complaint(complaint: Complaint) -> Complaint {
    Complaint { at: short(&complaint.at), kind: short(&complaint.kind), words: short(&complaint.words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    fn said(code: Option<i64>, out: &str, err: &str) -> Ran {
        ran(&Said { code, out: out.to_owned(), err: err.to_owned() }, LIMIT)
    }

    #[test]
    fn what_the_script_prints_is_read() {
        let out = "a banner of the image\n{\"schema\":1,\"at\":\"import torch\"}\n{\"schema\":1,\"python\":\"3.12.3\",\"torch\":\
                   \"2.8.0+cu128\",\"cuda\":\"12.8\",\"architectures\":[\"sm_90\"],\"count\":2,\"devices\":[{\"index\":0,\"name\":\
                   \"NVIDIA H100\",\"capability\":[9,0],\"right\":true},{\"index\":1,\"fault\":{\"at\":\"GPU 1\",\"kind\":\
                   \"RuntimeError\",\"words\":\"CUDA error\"}}],\"version\":\"0.11.0\",\"modules\":[\"torch\",\"vllm\"],\
                   \"faults\":[],\"newer\":true}\n";
        let Ran::Saw(seen) = said(Some(0), out, "warnings") else { panic!("not read") };
        assert_eq!((seen.torch.as_deref(), seen.cuda.as_deref()), (Some("2.8.0+cu128"), Some("12.8")));
        assert_eq!((seen.count, seen.devices[0].capability), (Some(2), Some((9, 0))));
        assert_eq!((seen.devices[0].right, seen.devices[1].right), (Some(true), None));
        assert_eq!(seen.devices[1].fault.as_ref().map(|fault| fault.kind.as_str()), Some("RuntimeError"));
        assert_eq!(seen.modules, ["torch", "vllm"]);
        // An answer counts whatever the exit status: what was loaded may crash as it ends.
        assert!(matches!(said(Some(139), out, ""), Ran::Saw(_)));
        assert!(matches!(said(None, out, ""), Ran::Saw(_)));
    }

    #[test]
    fn an_end_without_an_answer_has_its_place() {
        let steps = "{\"schema\":1,\"at\":\"import torch\"}\n{\"schema\":1,\"at\":\"import vllm\"}\n";
        let at = Some("import vllm".to_owned());
        assert_eq!(
            said(Some(132), steps, "one\nIllegal instruction\n\n"),
            Ran::Ended { code: 132, at: at.clone(), words: "Illegal instruction".to_owned() }
        );
        assert_eq!(said(None, steps, "…"), Ran::Hung { seconds: 300, at });
        // Python itself failed.
        assert_eq!(
            said(Some(1), "", "SyntaxError: invalid syntax"),
            Ran::Ended { code: 1, at: None, words: "SyntaxError: invalid syntax".to_owned() }
        );
        assert_eq!(said(None, "", ""), Ran::Hung { seconds: 300, at: None });
        // Cut in the middle, of another version, or of other types: no answer.
        for out in [
            "{\"schema\":1,\"torch\":\"2.8",
            "{\"schema\":2}",
            "{\"schema\":1,\"count\":\"two\"}",
            "{\"schema\":1,\"devices\":[{\"index\":-1}]}",
            "[]",
            "{\"schema\":1,\"at\":{}}",
        ] {
            assert!(matches!(said(Some(0), out, ""), Ran::Ended { code: 0, at: None, .. }), "{out}");
        }
    }

    #[test]
    fn hostile_output_is_cut_and_shown_in_one_line() {
        let bell = "\\u001b[2J\\n".repeat(1000);
        let many = "\"sm_90\",".repeat(1000);
        let faults = format!("{{\"at\":\"{bell}\",\"kind\":\"{bell}\",\"words\":\"{bell}\"}},").repeat(200);
        let out = format!(
            "{{\"schema\":1,\"torch\":\"{bell}\",\"architectures\":[{}],\"faults\":[{}],\"devices\":[{}]}}",
            many.trim_end_matches(','),
            faults.trim_end_matches(','),
            "{\"index\":4294967295,\"right\":true},".repeat(100).trim_end_matches(',')
        );
        let Ran::Saw(seen) = said(Some(0), &out, "") else { panic!("not read") };
        assert_eq!((seen.architectures.len(), seen.faults.len(), seen.devices.len()), (MOST, MOST, MOST));
        let kept = serde_json::to_string(&seen).unwrap();
        assert!(kept.len() < 200_000 && !kept.contains("\\u001b") && !kept.contains("\\n"), "{}", kept.len());
        let Ran::Ended { words, .. } = said(Some(1), "", &"\u{1b}[31mx".repeat(10_000)) else {
            panic!("read")
        };
        assert!(words.chars().count() < 800 && !words.contains('\u{1b}'), "{words}");
        // As deep as it likes.
        assert!(matches!(said(Some(0), &"[".repeat(100_000), ""), Ran::Ended { .. }));
    }

    #[test]
    fn an_image_without_python_is_told_from_gpus_that_cannot_be_given() {
        let runc = "starting container `x`: OCI runtime create failed: runc create failed: unable to start container process: \
                    exec: \"python3\": executable file not found in $PATH: unknown";
        assert!(matches!(refused("python3", false, runc), Ran::NoPython { starts: false, .. }));
        let path =
            "exec: \"/opt/venv/bin/python\": stat /opt/venv/bin/python: no such file or directory: unknown";
        assert!(matches!(refused("/opt/venv/bin/python", true, path), Ran::NoPython { starts: true, .. }));
        let crun = "crun: executable file `python3` not found in $PATH: No such file or directory";
        assert!(matches!(refused("python3", true, crun), Ran::NoPython { .. }));
        for other in [
            "could not select device driver \"nvidia\" with capabilities: [[gpu]]",
            "error running hook #0: fork/exec /usr/bin/nvidia-ctk: no such file or directory",
        ] {
            assert_eq!(refused("python3", true, other), Ran::Refused(other.to_owned()));
        }
    }
}
