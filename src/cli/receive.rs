//! `receive`: the far end of `provision --host`, started over SSH with a request on standard input.

use std::io::Read as _;

use super::{Context, args, carry, inputs, provision, subject};
use crate::{
    error::Result,
    fleet::wire::{Lacks, Request},
    host::content::{self, Named},
    lock::bundle::Pinned,
    store::Store,
    ui::exit,
};

/// Runs `receive`.
pub fn run(context: &Context, args: &args::Receive) -> Result<u8> {
    let mut stdin = std::io::stdin().lock();
    let request = Request::read(&mut stdin)?;
    let pinned = request.bundle.open()?;
    if args.lacks {
        return lacks(context, &pinned);
    }
    let named = Named::of(&pinned.lock);
    let mut places = carry::places(context);
    if request.content > 0 {
        inputs::refuse_stale(&pinned, &pinned.name)?;
        content::receive(&mut stdin, request.content, &Store::open(&context.store)?, &named)?;
    }
    if request.options.dry_run {
        let carries = request.options.carries;
        let packages = named.packages().filter(|_| carries.packages);
        places.coming = packages.chain(named.images().filter(|_| carries.images)).collect();
    }
    drop(stdin);
    end_with_operator();
    let root = subject::host_root()?;
    context.run(provision::here(
        context,
        &root,
        &request.bundle,
        &pinned,
        request.frame,
        &request.options,
        &places,
    ))
}

/// Says what this host lacks of what the lock names.
fn lacks(context: &Context, pinned: &Pinned) -> Result<u8> {
    let socket = carry::docker_socket(context);
    let lacks = context.run(content::lacking(&pinned.lock, &context.store, Some(&socket)))?;
    context.ui.json(&Lacks { schema: 1, lacks })?;
    Ok(exit::DONE)
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
