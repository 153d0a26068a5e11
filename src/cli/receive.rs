//! `receive`: the far end of `provision --host`, started over SSH with a request on standard input.

use std::io::Read as _;

use super::{Context, provision, subject};
use crate::{error::Result, fleet::wire::Request};

/// Runs `receive`.
pub fn run(context: &Context) -> Result<u8> {
    let request = Request::read(&mut std::io::stdin().lock())?;
    let pinned = request.bundle.open()?;
    end_with_operator();
    let root = subject::host_root()?;
    context.run(provision::here(context, &root, &request.bundle, &pinned, request.frame, &request.options))
}

/// Standard input stays open as long as the operator waits. When it ends, this run ends as by a signal: the
/// journal holds what it was doing.
fn end_with_operator() {
    let watch = || {
        let mut rest = [0; 256];
        while matches!(std::io::stdin().read(&mut rest), Ok(1..)) {}
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    };
    // Where no thread can be had, the run goes on without.
    let _ = std::thread::Builder::new().name("operator".to_owned()).spawn(watch);
}
