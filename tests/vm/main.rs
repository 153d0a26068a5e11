//! End-to-end stories on a real machine: Debian 13 under QEMU with real systemd and real Docker, the images in a real
//! registry, the real binary. `tests/vm/machine` and `tests/vm/registry` make and run them; root is needed, and what
//! `tests/setup/packages.sh` installs.
//!
//! Most stories share one machine: only one of them works at a time, and each brings it to where it starts from, so that
//! their order does not matter. Those with a machine of their own go on beside them; their module's name makes them the
//! first, since they take longest. `BEDPLATE_FULL=1` makes some of them long, and the longest are ignored but for
//! `--include-ignored`: `make test-full` does both. `BEDPLATE_SEED` chooses other random points, `BEDPLATE_FAULTS` the faults
//! whose name has that text.
//! Run them with `cargo test --test vm`: with a runner that starts a process for each test, each would boot a machine.

// Test code: files are read and written plainly.
#![allow(clippy::disallowed_methods)]

/// What all kinds of tests share.
#[path = "../support/faults/mod.rs"]
mod faults;
#[path = "../support/profiles.rs"]
mod profiles;
#[path = "../support/standins.rs"]
mod standins;
mod support;

mod stories {
    /// Each with a machine of its own.
    mod alone {
        mod cdi;
        mod gpu;
        mod image;
        mod kernel;
        mod provision;
    }
    /// All on one machine.
    mod shared {
        mod broken;
        mod faults;
        mod kill;
        mod operator;
        mod packages;
        mod reboot;
        mod rollback;
        mod secrets;
        mod serve;
    }
}
