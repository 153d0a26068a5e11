//! The list of faults that are planted for real, and the score of their last run: `docs/reference/faults.md`.

use std::{collections::BTreeSet, fmt::Write as _};

use bedplate::check::{self, report::Layer};

use crate::{
    checks::faults as standin,
    faults::{self, Fault},
    reference::{MADE, layer_name, same, wrap},
};

/// The score of the last run of them all on the machine.
const LAST_RUN: &str =
    "2026-11-27, commit 9d78772, in a fresh clone, debug build: 77 of 77 alone and 123 of 123 in pairs";

/// How to run them all.
const AGAIN: &str = "BEDPLATE_FULL=1 cargo test --locked --test vm lowest_guilty_layer -- --nocapture";

/// The layer a check belongs to.
fn layer_of(id: &str) -> Layer {
    let found = check::registry().iter().find(|check| check.id == id);
    found.unwrap_or_else(|| panic!("there is no check `{id}`")).layer
}

fn ids(names: &[&str]) -> String {
    names.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}

fn rows(out: &mut String, faults: &[&Fault]) {
    for layer in [Layer::Doctor, Layer::Toolkit, Layer::Runtime, Layer::Up] {
        let _ = writeln!(
            out,
            "\n### Layer `{}`\n\n| fault | named | in `make test` |\n|---|---|---|",
            layer_name(layer)
        );
        for fault in faults.iter().filter(|fault| fault.layer == layer) {
            let often = if fault.often { "yes" } else { "" };
            let warns = if fault.warns { " (a warning)" } else { "" };
            let _ = writeln!(out, "| {} | {}{warns} | {often} |", fault.name, ids(fault.names));
        }
    }
}

#[test]
fn the_faults() {
    let all = faults::all();
    let often = all.iter().filter(|fault| fault.often).count();
    let (pairs, often_pairs) = (faults::pairs(&all).len(), faults::often_pairs(&all).len());
    let standins = standin::FAULTS.len();
    let (of_standin, often_of_standin) = (standin::pairs(true).len(), standin::pairs(false).len());
    let mut out = format!("# Faults\n\n{MADE}");
    wrap(
        &mut out,
        "",
        "",
        "Each is planted for real, looked at with the command of its layer, and mended; in `make test-full` the same command \
         then finds nothing, in `make test` one look at the end does. What is asked: the exit code, that the layer to blame is \
         the fault's, that the cause to begin with is the check named here ([the checks](checks.md)), with a next step, and that no other check speaks. \
         In pairs, each fault that the layer's own command shows with one of its own layer and one of a higher layer: the \
         lower layer is blamed, by a check of that layer's faults.",
    );
    let _ = write!(
        out,
        "\n| where | alone | in pairs | in `make test` |\n|---|---|---|---|\n\
         | the test machine: Debian 13 with Docker under QEMU, `tests/support/faults` | {} | {pairs} | {often} and {often_pairs} pairs |\n\
         | a host's tree with the NVML stand-in, `tests/it/checks/faults.rs` | {standins} | {of_standin} | {standins} and {often_of_standin} pairs |\n\n",
        all.len()
    );
    wrap(&mut out, "", "", &format!("The last run on the machine: {LAST_RUN}."));
    let _ = write!(out, "\n    {AGAIN}\n");
    out.push_str("\n## On the machine\n");
    rows(&mut out, &all);
    out.push_str("\n## With the stand-in library\n\n| fault | named |\n|---|---|\n");
    for fault in standin::FAULTS {
        let warns = if fault.warns { " (a warning)" } else { "" };
        let _ = writeln!(out, "| {} | {}{warns} |", fault.name, ids(fault.names));
    }
    same("faults.md", &out);
}

#[test]
fn each_fault_is_one_of_its_own_that_a_check_of_its_layer_names() {
    let all = faults::all();
    let standin = standin::FAULTS.iter().map(|fault| (fault.name, fault.names));
    let mut names = BTreeSet::new();
    for (name, ids) in all.iter().map(|fault| (fault.name, fault.names)).chain(standin) {
        assert!(names.insert(name), "`{name}` is there twice");
        assert!(!ids.is_empty(), "`{name}`");
        assert!(ids.iter().all(|id| layer_of(id) >= layer_of(ids[0])), "`{name}`");
    }
    assert!(names.len() >= 40 && all.len() >= 25, "{}", names.len());
    for fault in &all {
        assert_eq!(layer_of(fault.names[0]), fault.layer, "`{}`", fault.name);
        // The deployment is made anew each time; all else is put back.
        assert!(!fault.plant.is_empty(), "`{}`", fault.name);
        let mends = !fault.mend.is_empty() || fault.touches.contains(&"the deployment");
        assert!(mends && !fault.touches.is_empty(), "`{}`", fault.name);
        assert!(
            fault.by.is_none_or(|command| command.contains("$profile") || command.starts_with("up ")),
            "`{}`",
            fault.name
        );
    }
    for [lower, higher] in faults::pairs(&all) {
        assert!(lower.layer <= higher.layer, "`{}` and `{}`", lower.name, higher.name);
    }
    assert!(all.iter().filter(|fault| fault.often).count() >= 12);
}
