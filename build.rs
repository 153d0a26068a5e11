//! Builds the programs that containers run (`src/launch`, static; `src/probe`, which loads the driver's library), each a
//! program of its own, for the library to embed.

use std::{env, path::Path, process::Command};

/// Linked statically, in any image.
const LAUNCH: &[&str] = &["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];
/// Loads libraries, so it needs the image's C library. Before glibc 2.34 loading was a library of its own.
const PROBE: &[&str] = &["-C", "link-arg=-ldl"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for (name, options) in [("launch", LAUNCH), ("probe", PROBE)] {
        println!("cargo::rerun-if-changed=src/{name}/main.rs");
        if let Err(reason) = build(name, options) {
            println!("cargo::error={reason}");
        }
    }
}

fn build(name: &str, options: &[&str]) -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("cargo did not set {name}"));
    let target = variable("TARGET")?;
    let output = Path::new(&variable("OUT_DIR")?).join(name);
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc
        .args(["--edition", "2024", "--crate-name", name, "--crate-type", "bin", "--target", &target])
        .args(options)
        .args(["-C", "panic=abort"])
        .args(["-C", "opt-level=s", "-C", "lto=fat", "-C", "codegen-units=1", "-C", "strip=symbols"])
        .arg(format!("--remap-path-prefix={}=.", variable("CARGO_MANIFEST_DIR")?))
        .arg("-o")
        .arg(&output)
        .arg(format!("src/{name}/main.rs"));
    if let Ok(linker) = variable("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let ran = rustc.output().map_err(|error| format!("running {rustc:?}: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    if said.contains("-lc") || said.contains("libc.a") {
        return Err(
            "the launcher is linked statically and the static C library is missing: install `libc6-dev` \
                    (Debian, Ubuntu) or `glibc-static` (Fedora)"
                .to_owned(),
        );
    }
    Err(format!("building src/{name} failed"))
}
