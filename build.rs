//! Builds the launcher (`src/launch`), a static program of its own, for the library to embed.

use std::{env, path::Path, process::Command};

const SOURCE: &str = "src/launch/main.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(reason) = build() {
        println!("cargo::error={reason}");
    }
}

fn build() -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("cargo did not set {name}"));
    let target = variable("TARGET")?;
    let output = Path::new(&variable("OUT_DIR")?).join("launch");
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc
        .args(["--edition", "2024", "--crate-name", "launch", "--crate-type", "bin", "--target", &target])
        .args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static", "-C", "panic=abort"])
        .args(["-C", "opt-level=s", "-C", "lto=fat", "-C", "codegen-units=1", "-C", "strip=symbols"])
        .arg(format!("--remap-path-prefix={}=.", variable("CARGO_MANIFEST_DIR")?))
        .arg("-o")
        .arg(&output)
        .arg(SOURCE);
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
    Err("building the launcher failed".to_owned())
}
