//! The host below everything else.
//!
//! | module | what lives there |
//! |---|---|
//! | [`files`] | the only raw file calls: no links followed, atomic writes, modes right from the first byte |
//! | [`confine`] | programs run in a root tree of their own, without paths, network and processes of the host |
//! | [`namespace`] | an ordinary user as root of a range of ids |
//! | [`process`] | child processes: time limits, bounded output, secrets by standard input only |
//! | [`pipe`] | a writer into a channel |
//! | [`clock`] | now, the boot id, the time since boot |
//! | [`network`] | who listens where, name resolution, free ports |
//! | [`kernel_log`] | what the kernel said since boot |
//! | [`users`] | names and numbers of users and groups |
//! | [`signals`] | the first SIGINT or SIGTERM as a future |

pub mod clock;
pub mod confine;
pub mod files;
pub mod kernel_log;
pub mod namespace;
pub mod network;
pub mod pipe;
pub mod process;
pub mod signals;
pub mod users;
