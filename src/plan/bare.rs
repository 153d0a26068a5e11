//! A tree that bedplate comes to later: what a profile says of it, and nothing of bedplate's own.

use super::{
    Goal, HostState, Inputs, Plan, Step,
    boot_entry::GRUB_DEFAULT,
    make,
    wanted::{UNIT, UNIT_ENABLED},
};
use crate::error::Result;

/// The steps of a plan that bring users, files and configuration into a tree, for `apply_alone`: no generation, no held
/// package, and no choice of a boot entry, which all are a provisioned host's. `program`: with bedplate and its boot unit.
///
/// # Errors
/// As [`make`].
pub fn bare(inputs: &Inputs, state: &HostState, program: bool) -> Result<Plan> {
    let mut plan = make(inputs, state, Goal::Provision)?;
    plan.steps.retain(|step| !is_own(step, program));
    // Nothing waits in a tree of which nothing is recorded.
    plan.deferred.clear();
    Ok(plan)
}

/// Whether a step is about bedplate itself, not about what the profile says.
fn is_own(step: &Step, program: bool) -> bool {
    let own = |path: &str| path == GRUB_DEFAULT || (!program && [UNIT, UNIT_ENABLED].contains(&path));
    match step {
        Step::HoldPackages { .. } | Step::MakeBootMenu { .. } => true,
        Step::InstallBinary { .. } => !program,
        Step::WriteFile { path, .. } | Step::MakeLink { path, .. } => own(path),
        _ => false,
    }
}
