//! `receive`: the far end of `provision --host`, started over SSH with a request on standard input.

use super::{Context, provision, subject};
use crate::{error::Result, fleet::wire::Request};

/// Runs `receive`.
pub fn run(context: &Context) -> Result<u8> {
    let request = Request::read(&mut std::io::stdin().lock())?;
    let pinned = request.bundle.open()?;
    let root = subject::host_root()?;
    context.run(provision::here(context, &root, &request.bundle, &pinned, request.frame, &request.options))
}
