//! Checks by responsibility: a function from facts to outcome, registered beside its id.
//!
//! Facts are gathered first (`host::facts`), then [`judge()`] turns them into a [`report::Report`].
//! Nothing here looks at the host itself, but for [`readiness`], which keeps a report's result.

pub mod accept;
mod ahead;
pub mod diagnosis;
mod engine;
mod engine_smoke;
mod entries;
mod fit;
pub mod gate;
mod gpu;
mod host;
mod image;
mod judge;
mod machine;
mod net;
pub mod readiness;
mod registry;
pub mod report;
mod runtime;
mod secret;
mod smoke;
mod subject;
#[cfg(test)]
mod tests;
mod toolkit;
pub mod up;
mod verdict;

pub use self::{
    gpu::xid::{Action, Class, Meaning, meaning as xid_meaning, named as named_xid},
    judge::{judge, judge_only, up_to},
    registry::{Check, Explanation, explain, registry},
    subject::{Locked, Subject},
    verdict::Verdict,
};
