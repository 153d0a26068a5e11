//! What apt and dpkg say when they fail, made short.

use std::path::PathBuf;

use crate::{error::Error, lock::modules::first_error, system::files::Root};

/// Lines of output that are shown.
const SHOWN: usize = 16;
/// Largest build log that is looked into, in bytes.
const LOG: u64 = 64 << 20;
/// Where DKMS builds modules.
const DKMS: &str = "/var/lib/dkms";

/// A failed run: apt's own errors as the message, the end of what was printed as its cause.
pub(super) fn apt(doing: &str, out: &str, err: &str) -> Error {
    let said: Vec<&str> = err
        .lines()
        .chain(out.lines())
        .filter_map(|line| line.strip_prefix("E: ").or_else(|| line.strip_prefix("dpkg: error")))
        .map(|line| line.trim_start_matches(':').trim())
        .collect();
    let why = if said.is_empty() { "it does not say why".to_owned() } else { said.join("; ") };
    let lines: Vec<&str> = out.lines().chain(err.lines()).filter(|line| !line.trim().is_empty()).collect();
    // The explanation of what cannot be satisfied comes before its end.
    let from = lines
        .iter()
        .position(|line| line.contains("have unmet dependencies"))
        .unwrap_or_else(|| lines.len().saturating_sub(SHOWN));
    let shown = lines.iter().skip(from).take(2 * SHOWN).copied().collect::<Vec<_>>().join("\n");
    let error = Error::failed(format!("{doing} failed: {why}"));
    if shown.is_empty() { error } else { error.because(shown) }
}

/// The first error of the compiler in the logs of modules that did not build, with the log it is in.
pub(super) fn modules(root: &Root, since: jiff::Timestamp) -> Option<(String, PathBuf)> {
    let below = |path: &str| root.list(path).unwrap_or_default().into_iter().filter(|entry| entry.is_dir);
    for module in below(DKMS) {
        for version in below(&format!("{DKMS}/{}", module.name)) {
            let path = format!("{DKMS}/{}/{}/build/make.log", module.name, version.name);
            let fresh = root.stat(&path).ok().flatten().is_some_and(|stat| stat.modified >= since);
            if !fresh {
                continue;
            }
            let text = root.read(&path, LOG).ok().flatten().unwrap_or_default();
            if let Some(line) = first_error(&String::from_utf8_lossy(&text)) {
                return Some((line, root.path().join(path.trim_start_matches('/'))));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_apt_said() {
        let out = "Reading\nThe following packages have unmet dependencies:\n b : Depends: c but it is not installable\n";
        let error = apt("planning", out, "E: Unable to correct problems, you have held broken packages.\n");
        assert!(error.message().starts_with("planning failed: Unable to correct"), "{error:?}");
        assert!(
            error.causes()[0].starts_with("The following") && error.causes()[0].contains("c but it is not")
        );
        assert!(apt("x", "", "").message().contains("does not say why"));
    }
}
