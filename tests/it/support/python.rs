//! This machine's Python as files of an image.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

/// Debian's, which other tests need as well (`tests/setup/packages.sh`).
const PYTHON: &str = "/usr/bin/python3";
/// Prints the files of all modules that are loaded, the standard library's own start included.
const LOADED: &str = "import encodings.ascii, importlib.util, json, os, sys, time, traceback, warnings\n\
    print(json.dumps([m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)]))";

fn output(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

/// The interpreter as `usr/bin/python3`, its libraries, and what of the standard library small programs need: path within
/// the image, content.
pub(crate) fn python() -> Vec<(String, Vec<u8>)> {
    // A module may have two names.
    let mut paths = BTreeSet::from([PYTHON.to_owned()]);
    // `libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)`, and the loader alone.
    let libraries = String::from_utf8(output("ldd", &[PYTHON])).unwrap();
    paths.extend(libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    let modules: Vec<String> = serde_json::from_slice(&output(PYTHON, &["-I", "-c", LOADED])).unwrap();
    paths.extend(modules);
    assert!(paths.iter().any(|path| path.ends_with("/json/decoder.py")), "{paths:?}");
    paths.into_iter().map(|path| (path[1..].to_owned(), std::fs::read(Path::new(&path)).unwrap())).collect()
}
