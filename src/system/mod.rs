//! The host below everything else: files, child processes, clock, network, users, signals.
//!
//! | module | what lives there |
//! |---|---|
//! | [`files`] | the only raw file calls: no links followed, atomic writes, modes right from the first byte |

pub mod files;
