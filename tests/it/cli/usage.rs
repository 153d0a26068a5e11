//! What was typed: flags, verbs, names; and where the output goes.

use std::{
    fs::OpenOptions,
    process::{Command, Stdio},
};

use super::{Place, profile, ran};

#[test]
fn what_is_not_a_verb_or_flag_is_wrong_usage() {
    let place = Place::with("", "");
    for (arguments, says) in [
        (&["lokc"][..], "'lock'"),
        (&["lock", "--chekc"], "'--check'"),
        (&["lock", "--format", "yaml"], "yaml"),
        (&["lock", "-q", "-v"], "--verbose"),
        (&["provision", "--root", "x", "--host", "y"], "--host"),
        (&["init", "x", "--engine", "trt"], "vllm"),
        (&["init", "x", "--tp", "0"], "--tp"),
        (&["init", "x", "--port", "0"], "--port"),
        (&["init", "x", "--port", "65536"], "65536"),
        (&["up"], "--file"),
        (&["up", "-f", "x", "--timeout", "0"], "--timeout"),
        (&["generations", "switch", "two"], "two"),
        (&["generations", "gc", "--keep", "0"], "--keep"),
        (&["completions", "ksh"], "ksh"),
        (&["runtime", "prepare"], "--engine"),
        (&["toolkit"], "verify"),
        (&[], "Usage"),
    ] {
        let before = place.snapshot();
        let ran = place.run(arguments.iter().copied());
        ran.exits(2).says(says);
        assert_eq!(ran.out, "", "{arguments:?}");
        assert_eq!(before, place.snapshot(), "{arguments:?}");
    }
}

#[test]
fn verbs_of_later_parts_say_so() {
    let place = Place::with("", "");
    for (arguments, names) in
        [(&["fleet"][..], "fleet"), (&["fleet", "roll", "p", "--hosts", "a,b"], "fleet")]
    {
        place.refuses(arguments.iter().copied(), 2, &["not in this version yet", names], "");
    }
}

#[test]
fn junit_and_html_are_for_checks() {
    let place = Place::with("", "");
    for verb in [
        &["lock", "p"][..],
        &["explain"],
        &["bundle", "p", "-o", "x"],
        &["init", "x"],
        &["list"],
        &["toolkit", "install", "p"],
        &["provision", "p", "--dry-run"],
    ] {
        for format in ["junit", "html"] {
            let arguments = verb.iter().copied().chain(["--format", format]);
            place.refuses(arguments, 2, &[&format!("`--format {format}` is for checks")], "--format json");
        }
    }
}

#[test]
fn names_of_profiles() {
    let place = Place::new();
    place.refuses(["lock"], 2, &["there is no profile here"], "bedplate init NAME");
    place.refuses(["lock", "x"], 2, &["there is no profile `x`"], "profiles/x.toml");
    place.refuses(["lock", "./x.toml"], 2, &["x.toml` does not exist"], "check the spelling");
    place.put("profiles/one.toml", profile("", ""));
    place.run(["lock"]).exits(0).says("profiles/one.lock");
    place.put("profiles/two.toml", profile("", ""));
    place.refuses(["lock"], 2, &["several profiles"], "one, two");
    place.refuses(["provision", "--root", "home"], 2, &["several profiles"], "one, two");
    place.refuses(["lock", "three"], 2, &["there is no profile `three`"], "one, two");
    // From further down, by name; and by path from anywhere.
    let mut below = place.command(["lock", "two"]);
    ran(below.current_dir(place.at("deployments"))).exits(0).says("two.lock");
    place.run(["lock", "profiles/one.toml", "--check"]).exits(0);
}

#[test]
fn what_can_be_updated_is_named() {
    let place = Place::with("", "");
    place.refuses(["lock", "p", "--update", "vllm"], 2, &["`--update vllm`"], "image:NAME");
    place.refuses(["lock", "p", "--update", "image:x"], 2, &["no image `x`"], "[images]");
    place.put("profiles/p.toml", profile("vllm = \"127.0.0.1:1/a:1\"", ""));
    place.refuses(["lock", "p", "--update", "image:vlm"], 2, &["no image `vlm`"], "vllm");
}

#[test]
fn things_that_are_not_there() {
    let place = Place::with("", "");
    place.refuses(["explain", "gpu.pcie"], 2, &["no check `gpu.pcie`"], "gpu.pci");
    place.refuses(["explain", "symptom.cuda-80"], 2, &["no symptom `symptom.cuda-80`"], "symptom.cuda-80");
    place.refuses(["render", "-f", "no.yaml"], 2, &["no.yaml` does not exist"], "check the spelling");
    place.refuses(["provision", "p", "--root", "none"], 2, &["none` does not exist"], "mkdir -p");
    place.refuses(["provision", "p", "--root", "profiles/p.toml"], 2, &["is not a directory"], "directory");
    place.refuses(["bundle", "p", "-o", "none/x.tar"], 2, &["none` does not exist"], "mkdir -p");
    place.refuses(["bundle", "p", "-o", "home"], 2, &["home`: it is a directory"], "file");
    place.refuses(["init", "x", "--from", "no.yaml"], 2, &["no.yaml` does not exist"], "check the spelling");
    place.refuses(["receive"], 2, &["standard input is not a request"], "--host USER@NAME");
}

#[test]
fn a_reader_who_had_enough_is_no_error() {
    let place = Place::with("", "");
    for arguments in [&["explain"][..], &["man"], &["completions", "bash"], &["--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = ran(place.command(arguments.iter().copied()).stdout(writer));
        ran.exits(0);
        assert_eq!(ran.err, "", "{arguments:?}");
    }
    // Through a shell, as people do.
    let shell = format!("{} man | head -0", env!("CARGO_BIN_EXE_bedplate"));
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let place = Place::with("", "");
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for arguments in
        [&["explain"][..], &["man"], &["completions", "bash"], &["lock", "p", "--format", "json"]]
    {
        let ran = ran(place.command(arguments.iter().copied()).stdout(full()));
        ran.is_refusal(1, &["writing to standard output failed"], "");
    }
    // With nowhere to say it, the exit code still says it.
    let mut command = place.command(["lock", "nosuch"]);
    let status = command.stdout(Stdio::null()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn help_and_version_are_data() {
    let place = Place::new();
    for arguments in [&["--help"][..], &["lock", "--help"], &["-V"], &["toolkit", "verify", "--help"]] {
        let ran = place.run(arguments.iter().copied());
        ran.exits(0);
        assert_eq!(ran.err, "");
        assert!(!ran.out.is_empty());
    }
    for code in ["0", "1", "2", "3", "4", "10", "130"] {
        place.run(["--help"]).prints(&format!("\n  {code} "));
    }
}
