//! Checks by responsibility: a function from facts to outcome, registered beside its id.

pub mod report;
