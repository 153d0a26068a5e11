//! End-to-end stories on a real machine: Debian 13 under QEMU with real systemd and real Docker, the images in a real
//! registry, the real binary. `tests/vm/machine` and `tests/vm/registry` make and run them; root is needed, and what
//! `tests/setup/packages.sh` installs.
//!
//! Only one story works at a time. Most share one machine, and each brings it to where it starts from, so that their
//! order does not matter. `BEDPLATE_FULL=1` makes the long ones long; `BEDPLATE_SEED` chooses other random points.
//! Run them with `cargo test --test vm`: with a runner that starts a process for each test, each would boot a machine.

// Test code: files are read and written plainly.
#![allow(clippy::disallowed_methods)]

mod support;

mod stories {
    mod broken;
    mod kernel;
    mod kill;
    mod operator;
    mod packages;
    mod provision;
    mod reboot;
    mod rollback;
    mod secrets;
    mod serve;
}
