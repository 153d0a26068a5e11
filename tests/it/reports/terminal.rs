//! The table and the progress on a terminal, which `script` of util-linux makes; and where there is none.

use std::{
    io::Read as _,
    os::unix::net::UnixListener,
    process::{Child, Command, Stdio},
};

use super::leaking;
use crate::cli::Place;

/// The binary on a terminal of so many columns, with these arguments and this in its environment.
fn on_terminal(place: &Place, columns: u16, arguments: &str, set: &[(&str, &str)]) -> Child {
    let program = env!("CARGO_BIN_EXE_bedplate");
    let line = format!("stty cols {columns} rows 40 && exec {program} {arguments}");
    let mut command = Command::new("script");
    command
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .current_dir(place.at(""))
        .env_clear()
        .env("HOME", place.at("home"))
        .env("PATH", "/usr/bin:/bin")
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm-256color")
        .envs(set.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn shown(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn lines_are_broken_and_coloured_on_a_terminal_alone() {
    let place = leaking("token.env");
    place.run(["doctor", "p", "--record", "facts.json"]).exits(3);
    let arguments = "doctor p --facts facts.json";
    for columns in [60, 120] {
        let text = shown(on_terminal(&place, columns, arguments, &[]));
        assert!(text.contains("\u{1b}["), "{text}");
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.contains("secret.leaks"), "{text}");
        for line in text.lines() {
            // One word that is longer than its column, such as a path, stays whole, and so does what is to be typed.
            let wide = line.chars().count() > columns.into();
            let text = line.trim();
            let typed = text.starts_with('`') && text.matches('`').count() == 2;
            assert!(!wide || typed || text.split(' ').count() <= 2, "{columns}: {line:?}");
        }
    }
    // Nobody who asks for no colours gets some; lines are broken all the same.
    let text = shown(on_terminal(&place, 60, arguments, &[("NO_COLOR", "1")]));
    assert!(!text.contains("\u{1b}["), "{text}");
    // Where there is no terminal, as the same words in whole lines.
    let plain = place.run(arguments.split(' ')).exits(3).out.clone();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&text), words(&plain));
    assert!(plain.lines().count() < text.lines().count(), "{plain}\n{text}");
    assert!(plain.lines().any(|line| line.chars().count() > 120), "{plain}");
}

#[test]
fn while_a_source_hangs_its_name_is_shown() {
    let place = leaking("token.env");
    let socket = place.at("docker.sock");
    let silent = UnixListener::bind(&socket).unwrap();
    place.config(&format!("docker-socket = {socket:?}\nhub = \"http://127.0.0.1:1\"\n"));
    let mut child = on_terminal(&place, 100, "doctor p", &[]);
    let mut out = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    // The daemon takes the question, and answers nothing until its name was seen.
    while !String::from_utf8_lossy(&seen).contains("waiting for Docker") {
        let read = out.read(&mut buffer).unwrap();
        assert!(read > 0, "nothing was said of it: {}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..read]);
    }
    drop(silent);
    out.read_to_end(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let text = String::from_utf8(seen).unwrap();
    let (_, after) = text.split_once("waiting for Docker").unwrap();
    assert!(after.contains("secret.leaks"), "{text}");
}
