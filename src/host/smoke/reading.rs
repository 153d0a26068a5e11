//! What a container's end and words mean.

use serde::Deserialize;

use super::{Fault, Probed, Ran, Seen};

/// Version of what the probe prints.
const SCHEMA: u64 = 1;
/// What glibc's loader and the kernel say where a program's C library or loader is not there (ld.so(8), execve(2)).
const CANNOT_RUN: [&str; 4] =
    ["GLIBC_", "error while loading shared libraries", "no such file or directory", "exec format error"];
/// The longest words that are kept, in characters: an exception, and its cause.
const WORDS: usize = 700;

#[derive(Deserialize)]
struct Wire {
    schema: u64,
    libc: String,
    library: Option<String>,
    fault: Option<Fault>,
    driver: Option<u32>,
    #[serde(default)]
    devices: Vec<Probed>,
}

/// From the exit status and the output: standard output, then standard error.
pub(super) fn ran(code: i64, said: &str, complained: &str) -> Ran {
    for line in said.lines() {
        match serde_json::from_str::<Wire>(line) {
            Ok(wire) if wire.schema == SCHEMA => return Ran::Saw(seen(wire)),
            _ => {}
        }
    }
    let words = short(if complained.trim().is_empty() { said } else { complained });
    if cannot_run(&words) { Ran::CannotRun(words) } else { Ran::Ended(code, words) }
}

/// Docker's words for a start that failed: the image's fault, or how GPUs were asked for.
pub(super) fn refused(words: &str) -> Ran {
    let of_probe = words.contains(super::IN_CONTAINER) || words.contains("exec");
    let words = short(words);
    if of_probe && cannot_run(&words) { Ran::CannotRun(words) } else { Ran::Refused(words) }
}

fn cannot_run(words: &str) -> bool {
    let lower = words.to_lowercase();
    CANNOT_RUN.iter().any(|sign| lower.contains(&sign.to_lowercase()))
}

/// Some words in one line, printable.
pub(super) fn short(words: &str) -> String {
    let line: String = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(WORDS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

fn seen(wire: Wire) -> Seen {
    Seen {
        libc: Some(wire.libc),
        library: wire.library.map(|why| short(&why)),
        fault: wire.fault.map(fault),
        // As `cuDriverGetVersion` counts: 1000 × major + 10 × minor.
        driver: wire.driver.map(|number| format!("{}.{}", number / 1000, number % 1000 / 10)),
        devices: wire
            .devices
            .into_iter()
            .map(|device| Probed {
                name: device.name.map(|name| short(&name)),
                fault: device.fault.map(fault),
                ..device
            })
            .collect(),
    }
}

fn fault(fault: Fault) -> Fault {
    Fault { at: short(&fault.at), name: short(&fault.name), ..fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probe_prints_is_read() {
        let said = "a banner of the image\n{\"schema\":1,\"libc\":\"2.36\",\"driver\":12080,\"devices\":[{\"index\":0,\"name\":\
                    \"NVIDIA H100\",\"memory\":85899345920,\"capability\":[9,0],\"kernel\":true},{\"index\":1,\"fault\":\
                    {\"at\":\"cuDeviceGet\",\"code\":101,\"name\":\"CUDA_ERROR_INVALID_DEVICE\"}}]}\n";
        let Ran::Saw(seen) = ran(0, said, "") else { panic!("{:?}", ran(0, said, "")) };
        assert_eq!(seen.driver.as_deref(), Some("12.8"));
        assert_eq!(seen.devices[0].capability, Some((9, 0)));
        assert_eq!(seen.devices[0].kernel, Some(true));
        assert_eq!(seen.devices[1].fault.as_ref().map(|fault| fault.code), Some(101));
    }

    #[test]
    fn an_image_that_cannot_run_it_is_told_from_one_that_fails() {
        let older = "/.bedplate/probe: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by /.bedplate/probe)";
        assert!(matches!(ran(1, "", older), Ran::CannotRun(_)));
        let none = "exec /.bedplate/probe: no such file or directory";
        assert!(matches!(ran(255, none, ""), Ran::CannotRun(_)));
        assert!(matches!(refused(&format!("OCI runtime create failed: {none}")), Ran::CannotRun(_)));
        assert!(matches!(ran(139, "", "Segmentation fault"), Ran::Ended(139, _)));
        assert!(matches!(ran(0, "{\"schema\":2}", ""), Ran::Ended(0, _)));
        let driver = "could not select device driver \"nvidia\" with capabilities: [[gpu]]";
        assert_eq!(refused(driver), Ran::Refused(driver.to_owned()));
        let missing = "unresolvable CDI devices nvidia.com/gpu=all";
        assert_eq!(refused(missing), Ran::Refused(missing.to_owned()));
    }

    #[test]
    fn hostile_output_is_cut_and_shown_in_one_line() {
        let Ran::Ended(_, words) = ran(1, &"\u{1b}[2J\n".repeat(1000), "") else { panic!("not ended") };
        assert!(words.chars().count() <= WORDS + 1 && !words.contains('\u{1b}'), "{words}");
    }
}
